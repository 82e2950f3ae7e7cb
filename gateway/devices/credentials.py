"""The secrets of devices: how passwords are kept, and where the master key lies that every signing key follows from.

Nothing here is ever logged. A password is random, so that its hash need not be slow to be safe.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from contextlib import suppress
from hashlib import scrypt, sha256
from pathlib import Path

from protocol.seams import ConfigurationError

KEY_BYTES = 32
_PASSWORD_BYTES = 24
_SALT_BYTES, _HASH_BYTES = 16, 32
# 1 MiB and a few milliseconds a login: a password of 192 random bits cannot be guessed however cheap a guess is.
_LOG_N, _R, _P = 10, 8, 1
# Without letters and digits that look like others; 20 of 32 = 100 bits.
_CODE_LETTERS, _CODE_LENGTH, _CODE_GROUP = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 20, 4
_LOOKALIKES = str.maketrans("OIL", "011", "- ")


def new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def kept(password: str) -> str:
    """What is stored of it. Takes some milliseconds."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"scrypt:{_LOG_N}:{_R}:{_P}:{salt.hex()}:{_scrypt(password, salt, _LOG_N, _R, _P).hex()}"


def matches(password: str, stored: str) -> bool:
    """Takes some milliseconds. Raises ValueError for text that `kept` did not write."""
    kind, log_n, r, p, salt, digest = stored.split(":")
    if kind != "scrypt":
        raise ValueError(f"a password is kept as scrypt, not {kind}")
    found = _scrypt(password, bytes.fromhex(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def new_code() -> str:
    """A claim code, in groups to be read aloud or typed."""
    letters = "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
    return "-".join(letters[i : i + _CODE_GROUP] for i in range(0, _CODE_LENGTH, _CODE_GROUP))


def code_digest(code: str) -> bytes | None:
    """What is stored and looked for of a claim code; None when it cannot be one. Case, hyphens and look-alikes do not matter.

    A look-up by digest tells nothing of a code by the time it takes.
    """
    letters = code.upper().translate(_LOOKALIKES)
    if len(letters) != _CODE_LENGTH or any(letter not in _CODE_LETTERS for letter in letters):
        return None
    return sha256(b"spoorway claim code\n" + letters.encode()).digest()


class MasterKey:
    """A file of its own, so that the register of devices alone gives no device away."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """None when there is no such file. Raises ConfigurationError when it is not a key that its owner alone can read."""
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(256)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"{self.path}: {error.strerror}") from None
        if mode & 0o077:
            raise ConfigurationError(f"{self.path}: others than its owner may use it (mode {mode:04o}); chmod 600 {self.path}")
        with suppress(ValueError):
            key = bytes.fromhex(text.decode("ascii").strip())
            if len(key) == KEY_BYTES:
                return key
        raise ConfigurationError(f"{self.path}: expected {2 * KEY_BYTES} hex digits; put the file back from a backup")

    def make(self) -> bytes:
        """A new key, on the medium. Raises ConfigurationError, also when there is a file already."""
        key = secrets.token_bytes(KEY_BYTES)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(key.hex() + "\n")
                out.flush()
                os.fsync(out.fileno())
            give_to_owner(fresh)
            os.link(fresh, self.path)  # unlike a rename, never replaces another process's key
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigurationError(f"{error.filename or fresh}: {error.strerror}") from None
        finally:
            fresh.unlink(missing_ok=True)
        return key


def fingerprint(master: bytes) -> str:
    """Tells whether a master key is the one that a register was made with; gives nothing of it away."""
    return hmac.digest(master, b"spoorway master key fingerprint", sha256)[:8].hex()


def give_to_owner(path: Path) -> None:
    """A file that root makes belongs to whom the folder belongs to: the user that the gateway runs as."""
    owner = path.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=1 << log_n, r=r, p=p, dklen=_HASH_BYTES)
