"""Gives secrets out and takes them back: what `spoorway device` and the claim of a code do to the register.

Secrets leave this module once, as values, and are kept nowhere: signing keys follow from the master key, passwords are hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.devices import Secrets
from gateway.devices.book import Book, Change, Kind, Record, signing
from gateway.devices.credentials import MasterKey, code_digest, fingerprint, kept, new_code, new_password
from gateway.devices.limits import Limits
from gateway.devices.seen import begin
from protocol.devices import NAME, device_key
from protocol.seams import ConfigurationError


def book_file(data: Path) -> Path:
    return data / "devices.db"


def master_key_file(data: Path) -> Path:
    return data / "device-master.key"


class Issuer:
    """On an open register. Every method raises ConfigurationError for what cannot be done, TransientError, PermanentError."""

    def __init__(self, data: Path, clock_ms: Callable[[], int], *, make: bool = False) -> None:
        """make: begin a register where there is none."""
        path = book_file(data)
        if make and not path.exists():
            begin(data)
        elif not path.exists():
            raise ConfigurationError(f"there are no devices in {data}; `spoorway device add NAME` makes one")
        self.book = Book.make(path)
        self._key = MasterKey(master_key_file(data))
        self._clock_ms = clock_ms

    def close(self) -> None:
        self.book.close()

    def add(
        self, names: Sequence[str], kind: Kind, limits: Limits, *, again: bool = False, valid_ms: int | None = None
    ) -> list[Secrets | str]:
        """New devices and their secrets, or, with valid_ms, claim codes that so long are good for them.

        again: also names that were revoked; what they had before stays worthless.
        """
        for name in names:
            if not NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} is no device name: 1 to 64 of A-Z a-z 0-9 . _ : -, beginning and ending with a letter or digit"
                )
        now_ms = self._clock_ms()
        found: list[tuple[Record | None, Record]] = []
        for name in dict.fromkeys(names):
            older = self.book.record(name)
            if older is not None and older.state != "revoked":
                raise ConfigurationError(
                    f"there is a device {name} already; `spoorway device rotate {name}` gives it new secrets"
                )
            if older is not None and not again:
                raise ConfigurationError(f"{name} was revoked; --again takes it back with new secrets")
            generation = older.generation if older else 0
            made_ms = older.created_ms if older else now_ms
            found.append((older, Record(name, kind, "waiting", generation, "", limits, made_ms, now_ms, 0)))
        return self._give(found, valid_ms)

    def rotate(self, names: Sequence[str], *, valid_ms: int | None = None) -> list[Secrets | str]:
        """New secrets; the old ones end. With valid_ms: claim codes, and the old ones end when those are redeemed."""
        records = [self._record(name) for name in dict.fromkeys(names)]
        for record in records:
            if record.state == "revoked":
                raise ConfigurationError(f"{record.name} was revoked; `spoorway device add --again {record.name}` takes it back")
        return self._give([(record, record) for record in records], valid_ms)

    def rotate_all(self) -> list[Secrets | str]:
        """New secrets for all that have some; also the way out when the master key is lost: a new one is made then."""
        records = [record for record in self.book.records() if record.state == "active"]
        if self._key.read() is None and any(signing(records)):
            with self.book.changing() as change:
                change.put_fact("master", fingerprint(self._key.make()))
        return self._give([(record, record) for record in records], None)

    def revoke(self, names: Sequence[str]) -> None:
        records = [self._record(name) for name in dict.fromkeys(names)]
        with self.book.changing() as change:
            for record in records:
                change.put(record._replace(state="revoked", password="", changed_ms=self._clock_ms()))
            change.end_claims(record.name for record in records)

    def limit(self, names: Sequence[str], limits: Limits) -> None:
        """None = as it was."""
        records = [self._record(name) for name in dict.fromkeys(names)]
        with self.book.changing() as change:
            for record in records:
                merged = (old if new is None else new for old, new in zip(record.limits, limits, strict=True))
                change.put(record._replace(limits=Limits(*merged), changed_ms=self._clock_ms()))

    def claim(self, code: str) -> Secrets | None:
        """The secrets that a claim code is good for; None when it is wrong, used or expired."""
        digest = code_digest(code)
        if digest is None:
            return None
        master = self._master(make=False)
        with self.book.changing() as change:
            name = change.claim(digest, self._clock_ms())
            record = self.book.record(name) if name is not None else None
            if record is None:
                return None
            return _renew(change, record, master, _password() if record.logs_in else ("", ""), self._clock_ms())

    def _give(self, records: list[tuple[Record | None, Record]], valid_ms: int | None) -> list[Secrets | str]:
        """records: as they were read, and as they are to be."""
        # Before anything is promised: without the key the devices could never sign.
        master = self._master(make=True) if any(record.signs for _, record in records) else None
        # Hashing is slow, so not within the transaction.
        passwords = [_password() if valid_ms is None and record.logs_in else ("", "") for _, record in records]
        given: list[Secrets | str] = []
        with self.book.changing() as change:
            for (older, record), password in zip(records, passwords, strict=True):
                if self.book.record(record.name) != older:
                    raise ConfigurationError(f"{record.name} was changed by somebody else just now; look at it, and try again")
                if valid_ms is None:
                    given.append(_renew(change, record, master, password, self._clock_ms()))
                    continue
                code = new_code()
                digest = code_digest(code)
                assert digest is not None
                change.put(record)
                change.end_claims([record.name])
                change.put_claim(digest, record.name, self._clock_ms() + valid_ms)
                given.append(code)
        return given

    def _master(self, *, make: bool) -> bytes | None:
        """The key that this register was made with. make: a new one where there never was any."""
        if self.book.fact("master") is not None:
            if trouble := mismatch(self.book, self._key):
                raise ConfigurationError(trouble)
            return self._key.read()
        key = self._key.read() or (self._key.make() if make else None)
        if key is not None:
            with self.book.changing() as change:
                change.put_fact("master", fingerprint(key))
        return key

    def _record(self, name: str) -> Record:
        record = self.book.record(name)
        if record is None:
            raise ConfigurationError(f"there is no device {name}; `spoorway device list` names them")
        return record


def mismatch(book: Book, key: MasterKey) -> str:
    """What is wrong with the master key of a register, and what mends it; "" = nothing. Raises TransientError, PermanentError."""
    try:
        found = key.read()
    except ConfigurationError as error:
        return str(error)
    if found is None:
        return (
            f"{key.path} is missing; put it back from a backup, or, if it is lost, make a new one and new secrets for every "
            f"device with `spoorway device rotate --all`"
        )
    if book.fact("master") != fingerprint(found):
        return f"{key.path} is not the key that {book.path} was made with; put that one back"
    return ""


def _password() -> tuple[str, str]:
    """(the password, what is kept of it)."""
    password = new_password()
    return password, kept(password)


def _renew(change: Change, record: Record, master: bytes | None, password: tuple[str, str], now_ms: int) -> Secrets:
    generation, key = record.generation + 1, ""
    if record.signs:
        assert master is not None
        key = device_key(master, record.name, generation).hex()
    change.put(record._replace(state="active", generation=generation, password=password[1], changed_ms=now_ms))
    change.end_claims([record.name])
    return Secrets(record.name, key, password[0])
