"""A real Chroma server of its own, as a process, for tests and the demo (package ``chromadb``)."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final

_START_S: Final = 60.0
#: What the command ``chroma`` does, without importing the rest of the package.
_RUN: Final = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"


class ChromaServer:
    """Runs from its making until it is closed; what it holds is then gone."""

    def __init__(self) -> None:
        # It is thrown away: no need to wait for a disk.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        self._folder = tempfile.TemporaryDirectory(prefix="vectide-chroma-", dir=memory)
        self._databases = itertools.count()
        self._log = Path(self._folder.name) / "log"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["run", "--path", f"{self._folder.name}/data", "--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter)
                [sys.executable, "-c", _RUN, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ChromaServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def new_database(self) -> str:
        """The name of a database with nothing in it."""
        name = f"database_{next(self._databases)}"
        request = urllib.request.Request(  # noqa: S310  (our own server)
            f"{self.url}/api/v2/tenants/default_tenant/databases",
            data=f'{{"name": "{name}"}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return name

    def close(self) -> None:
        """End the process, and forget everything."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()

    def _wait(self) -> None:
        give_up_s = time.monotonic() + _START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=5):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                if self._process.poll() is not None or time.monotonic() > give_up_s:
                    told = self._log.read_text("utf-8", "replace")[-2000:]
                    raise RuntimeError(f"Chroma does not start:\n{told}") from None
                time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
