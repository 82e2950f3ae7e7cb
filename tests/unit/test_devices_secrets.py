"""Where secrets come from and what gives them away: the master key, names, claim codes, passwords."""

import asyncio
import hmac
import os
import sqlite3
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.devices import Claimed, Message, Secrets
from gateway.devices.credentials import MasterKey, code_digest, kept, matches, new_code
from gateway.devices.issuing import Issuer, book_file, master_key_file
from gateway.devices.limits import Limits
from gateway.devices.options import Options
from protocol.devices import device_key, signature
from protocol.seams import ConfigurationError
from tests.unit.device_house import Clock, House, in_house, issue, signed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def issuer(data: Path, clock: Clock | None = None) -> Issuer:
    return Issuer(data, (clock or Clock()).ms)


# The master key.


def test_register_alone_gives_no_device_away(data: Path) -> None:
    """Whoever reads devices.db can neither sign nor log in: no secret, and no key to make one, is in it in any form."""
    (pump,) = issue(data, "pump")
    issuer(data).rotate(["pump"], valid_ms=1_000)
    with sqlite3.connect(book_file(data)) as db:
        cells = [cell for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                 for row in db.execute(f"SELECT * FROM {name}") for cell in row]  # fmt: skip
    db.close()
    raw = book_file(data).read_bytes()
    key, master = bytes.fromhex(pump.key), MasterKey(master_key_file(data)).read()
    assert master is not None
    for secret in (key, master):
        assert secret not in raw
        assert secret.hex().encode() not in raw.lower()
    assert pump.password.encode() not in raw
    # Neither is anything that is in it a key that signs, or a master that a key follows from.
    right = signature(key, "pump", 1, 1, "/i", b"{}")
    guesses = [cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells]
    guesses += [bytes.fromhex(part) for text in guesses for part in text.decode("latin-1").split(":") if _is_hex(part)]
    assert len(guesses) > 10
    for guess in guesses:
        assert signature(guess, "pump", 1, 1, "/i", b"{}") != right
        for generation in range(3):
            assert signature(device_key(guess, "pump", generation), "pump", 1, 1, "/i", b"{}") != right


def _is_hex(text: str) -> bool:
    return len(text) >= 2 and len(text) % 2 == 0 and all(letter in "0123456789abcdef" for letter in text)


def test_files_can_be_used_by_their_owner_only(data: Path) -> None:
    issue(data, "pump")
    in_house(data, lambda house: house.send(signed(Secrets("x", "00"), 1, 1)))
    for file in data.glob("device*"):
        assert file.name.endswith(".lock") or file.stat().st_mode & 0o077 == 0, file


def test_loose_master_key_is_refused_until_it_is_mended(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pump,) = issue(data, "pump")
    master_key_file(data).chmod(0o640)

    async def scenario(house: House) -> None:
        assert (
            house.register.signed(signed(pump, 1, 1)).refusal == "busy"
        )  # anything else and the device would forget the message
        assert not (await house.register.login("pump", pump.password)).refusal
        os.chmod(master_key_file(data), 0o600)
        await house.register.refresh()
        assert await house.send(signed(pump, 1, 1)) == "taken"

    in_house(data, scenario)
    assert f"chmod 600 {master_key_file(data)}" in caplog.text


def test_another_or_no_master_key_makes_devices_wait_and_is_never_replaced_silently(data: Path) -> None:
    (pump,) = issue(data, "pump")
    right = master_key_file(data).rename(data / "right")

    async def scenario(house: House) -> None:
        assert house.register.signed(signed(pump, 1, 1)).refusal == "busy"
        with pytest.raises(ConfigurationError, match="missing"):
            issuer(data).rotate(["pump"])
        MasterKey(master_key_file(data)).make()
        await house.register.refresh()
        assert house.register.signed(signed(pump, 1, 1)).refusal == "busy"
        with pytest.raises(ConfigurationError, match="not the key"):
            issuer(data).rotate(["pump"])
        right.replace(master_key_file(data))
        await house.register.refresh()
        assert await house.send(signed(pump, 1, 1)) == "taken"

    in_house(data, scenario)


def test_lost_master_key_is_replaced_by_rotating_all(data: Path) -> None:
    old = issue(data, "pump", "valve")
    issue(data, "gone")
    issuer(data).revoke(["gone"])
    master_key_file(data).unlink()
    new = issuer(data).rotate_all()
    assert [each.device for each in new if isinstance(each, Secrets)] == ["pump", "valve"]

    async def scenario(house: House) -> None:
        for before, after in zip(old, new, strict=True):
            assert isinstance(after, Secrets)
            assert house.register.signed(signed(before, 1, 1)).refusal == "secret"
            assert await house.send(signed(after, 1, 1)) == "taken"

    in_house(data, scenario)


def test_master_key_that_is_none_is_refused(data: Path) -> None:
    issue(data, "pump")
    os.truncate(master_key_file(data), 30)
    with pytest.raises(ConfigurationError, match="64 hex digits"):
        issuer(data).rotate(["pump"])


# Names.


@pytest.mark.parametrize("name", ["", "-pump", "pump-", "a b", "pümp", "a/b", "x" * 65, "a+", "$a", "a#"])
def test_what_is_no_name_is_refused(data: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no device name"):
        issue(data, "good", name)
    with pytest.raises(ConfigurationError, match="no device"):
        issuer(data).rotate(["good"])  # nothing of it was done


def test_name_is_not_given_twice_and_a_revoked_one_only_when_asked_for(data: Path) -> None:
    (first,) = issue(data, "pump")
    with pytest.raises(ConfigurationError, match="already"):
        issue(data, "pump", again=True)
    issuer(data).revoke(["pump"])
    with pytest.raises(ConfigurationError, match="--again"):
        issue(data, "pump")
    with pytest.raises(ConfigurationError, match="--again"):
        issuer(data).rotate(["pump"])
    (second,) = issue(data, "pump", again=True)
    assert first.key != second.key

    async def scenario(house: House) -> None:
        assert house.register.signed(signed(first, 1, 1)).refusal == "secret"
        assert (await house.register.login("pump", first.password)).refusal == "secret"
        assert await house.send(signed(second, 1, 1)) == "taken"

    in_house(data, scenario)


# Claim codes.


def code_for(data: Path, name: str = "pump", valid_ms: int = 60_000, clock: Clock | None = None) -> str:
    data.mkdir(exist_ok=True)
    (code,) = Issuer(data, (clock or Clock()).ms, make=True).add([name], "both", Limits(), valid_ms=valid_ms)
    assert isinstance(code, str)
    return code


def test_code_is_good_for_the_secrets_once(data: Path) -> None:
    code = code_for(data)

    async def scenario(house: House) -> None:
        assert house.register.known("pump")
        assert house.register.signed(Message("pump", 1, 1, "/i", b"", b"x" * 32)).refusal == "secret"
        claimed = await house.register.claim(code.lower().replace("-", " "), "10.0.0.1", private=True)
        assert claimed.secrets is not None
        assert not (await house.register.login("pump", claimed.secrets.password)).refusal  # at once
        assert await house.send(signed(claimed.secrets, 1, 1)) == "taken"
        assert await house.register.claim(code, "10.0.0.1", private=True) == Claimed()
        assert (house.register.counters.claims, house.register.counters.wrong_claims) == (1, 1)

    in_house(data, scenario)


def test_only_one_of_many_at_once_gets_the_secrets(data: Path) -> None:
    code = code_for(data)

    async def scenario(house: House) -> None:
        found = await asyncio.gather(*(house.register.claim(code, f"10.0.0.{n}", private=True) for n in range(20)))
        assert sum(each.secrets is not None for each in found) == 1

    in_house(data, scenario)


def test_code_expires(data: Path) -> None:
    clock = Clock()
    code = code_for(data, valid_ms=60_000, clock=clock)
    other = code_for(data, "other", valid_ms=60_000, clock=clock)

    async def scenario(house: House) -> None:
        clock.seconds += 59.9
        assert (await house.register.claim(other, "10.0.0.1", private=True)).secrets is not None
        clock.seconds += 0.1
        assert (await house.register.claim(code, "10.0.0.1", private=True)).secrets is None

    in_house(data, scenario, clock)


def test_newer_code_and_revocation_end_the_older_code(data: Path) -> None:
    first, gone = code_for(data), code_for(data, "gone")
    (second,) = issuer(data).rotate(["pump"], valid_ms=60_000)
    issuer(data).revoke(["gone"])
    assert issuer(data).claim(first) is None
    assert issuer(data).claim(gone) is None
    assert isinstance(second, str)
    assert issuer(data).claim(second) is not None


def test_rotation_by_code_ends_the_old_secrets_only_when_it_is_redeemed(data: Path) -> None:
    (old,) = issue(data, "pump")
    (code,) = issuer(data).rotate(["pump"], valid_ms=60_000)
    assert isinstance(code, str)

    async def scenario(house: House) -> None:
        assert await house.send(signed(old, 1, 1)) == "taken"
        claimed = await house.register.claim(code, "10.0.0.1", private=True)
        assert claimed.secrets is not None
        assert house.register.signed(signed(old, 1, 2)).refusal == "secret"

    in_house(data, scenario)


def test_guesses_are_limited_and_then_even_the_right_code_waits(data: Path) -> None:
    code = code_for(data)

    async def scenario(house: House) -> None:
        for _ in range(10):
            assert await house.register.claim(new_code(), "10.0.0.1", private=True) == Claimed()
        assert (await house.register.claim(code, "10.0.0.1", private=True)).wait_s == 6
        assert (await house.register.claim("x", "10.0.0.1", private=True)).wait_s == 6
        house.clock.seconds += 6
        assert (await house.register.claim(code, "10.0.0.1", private=True)).secrets is not None

    in_house(data, scenario)


def test_installer_may_redeem_as_many_codes_as_there_are(data: Path) -> None:
    codes = [code_for(data, f"pump-{n}") for n in range(12)]

    async def scenario(house: House) -> None:
        for code in codes:
            assert (await house.register.claim(code, "10.0.0.1", private=True)).secrets is not None

    in_house(data, scenario)


def test_secrets_are_not_handed_out_where_others_can_read_them(data: Path) -> None:
    code = code_for(data)

    async def refused(house: House) -> None:
        assert await house.register.claim(code, "10.0.0.1", private=False) == Claimed(looked_at=False)

    async def allowed(house: House) -> None:
        assert (await house.register.claim(code, "10.0.0.1", private=False)).secrets is not None

    in_house(data, refused)
    in_house(data, allowed, options=Options(claims_over_plain_http=True))


def test_codes_are_long_and_forgive_what_people_misread() -> None:
    codes = {new_code() for _ in range(1_000)}
    assert len(codes) == 1_000
    assert all(len(code.replace("-", "")) == 20 for code in codes)
    code = "0123-4567-89AB-CDEF-GHJK"
    assert code_digest(code) == code_digest("o1z3 4567 89ab cdef ghjk".replace("z", "2")) == code_digest("OI23456789ABCDEFGHJK")
    assert code_digest(code) != code_digest("0123-4567-89AB-CDEF-GHJM")
    for none in ("", "0123", code + "0", "U" * 20, "é" * 20, "\uff10" * 20):
        assert code_digest(none) is None


# Passwords.


def test_password_is_kept_as_scrypt_with_a_salt_of_its_own() -> None:
    first, second = kept("secret"), kept("secret")
    assert first != second
    assert first.startswith("scrypt:")
    assert matches("secret", first)
    assert matches("secret", second)
    assert not matches("secret ", first)


def test_documented_derivation_of_a_key_is_what_the_register_uses(data: Path) -> None:
    (pump,) = issue(data, "pump")
    master = bytes.fromhex(master_key_file(data).read_text())
    assert pump.key == hmac.digest(master, b"spoorway device key\n1\npump", sha256).hex()
