"""A real PostgreSQL of a test's own: a fresh cluster on a free loopback port, stopped and deleted with the test.

It never runs as root, which the server refuses: as root it becomes the account `postgres` that the Debian package makes.
A missing PostgreSQL skips, or fails where runtimes are required (see programs.missing).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.peers.ports import free_port
from tests.peers.programs import missing

_SECONDS = 60
# A unix socket's path may have 107 bytes, which pytest's folders exceed: loopback TCP only.
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = {port}
max_connections = 40
shared_buffers = 32MB
autovacuum = on
log_min_messages = warning
"""


def programs() -> Path:
    """The folder of initdb, pg_ctl and psql: the newest version that Debian put under /usr/lib/postgresql, or the PATH's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    if found:
        return found[-1].parent
    if (on_path := shutil.which("initdb")) is None:
        missing("postgresql")
    return Path(on_path).parent


class PostgresServer:
    """`with PostgresServer(folder) as server`: database and superuser `postgres`, trust on loopback, UTF8, locale C.

    folder: kept free of the cluster itself, which root's account could not reach there; only the log is copied to it at the end.
    fsync: off by default, because no test cuts the power; what pg_terminate_backend, kill and immediate stops leave is the same.
    """

    def __init__(self, folder: Path, *, fsync: bool = False, settings: str = "") -> None:
        self._folder, self._bin = folder, programs()
        self._settings = _SETTINGS + f"fsync = {'on' if fsync else 'off'}\n" + settings
        self._home = Path()
        self.port = 0

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    @property
    def data(self) -> Path:
        return self._home / "data"

    @property
    def log(self) -> Path:
        return self._home / "log"

    def __enter__(self) -> PostgresServer:
        self._home = Path(tempfile.mkdtemp(prefix="spoorway-pg-"))
        try:
            if os.geteuid() == 0:
                account = _account()
                os.chown(self._home, account.pw_uid, account.pw_gid)
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
            for _ in range(5):  # the port is free when asked for, and may be another's a moment later
                self.port = free_port()
                with (self.data / "postgresql.conf").open("a") as file:
                    file.write(self._settings.format(port=self.port))
                with contextlib.suppress(subprocess.CalledProcessError):
                    self.start()
                    return self
            raise RuntimeError(self.log.read_text())
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if self.log.exists() and self._folder.is_dir():
            shutil.copyfile(self.log, self._folder / "postgresql.log")
        shutil.rmtree(self._home)

    def start(self) -> None:
        """Returns when it takes connections; after a crash that is when it has recovered."""
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-t", str(_SECONDS), "start")

    def stop(self, mode: str = "immediate") -> None:
        """immediate: every connection is cut, nothing is flushed, the next start recovers. fast, smart: as pg_ctl says."""
        if self._pid() is not None:
            self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-t", str(_SECONDS), "stop")

    def kill(self) -> None:
        """SIGKILL of the server and all of its processes, as the kernel does when memory runs out."""
        if (pid := self._pid()) is None:
            return
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        deadline = time.monotonic() + _SECONDS
        while any(_alive(one) for one in (pid, *map(int, children))):
            if time.monotonic() > deadline:
                raise TimeoutError("PostgreSQL would not die")
            time.sleep(0.01)
        # Where nobody waits for orphans (a container), the dead process keeps its number and the next start thinks it lives.
        (self.data / "postmaster.pid").unlink()

    def _pid(self) -> int | None:
        """Of the running server."""
        file = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text().split("\n", 1)[0])
            return pid if _alive(pid) else None
        return None

    def _run(self, program: str, *arguments: str) -> None:
        account = _account() if os.geteuid() == 0 else None
        subprocess.run(
            [self._bin / program, *arguments],
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd=self._home,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be kept open by the server
            stderr=subprocess.DEVNULL,
            timeout=2 * _SECONDS,
            check=True,
        )


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        missing("postgresql (its account `postgres`; the server refuses to run as root)")


def _alive(pid: int) -> bool:
    """A process that ended and was not yet waited for by its parent is not alive."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
