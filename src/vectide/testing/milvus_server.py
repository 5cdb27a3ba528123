"""Milvus Lite as a server of its own process, for tests and the demo (package ``milvus-lite``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final

_START_S: Final = 60.0
#: What the command ``milvus-lite`` does.
_RUN: Final = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"


class MilvusServer:
    """Runs from its making until it is closed; what it holds is then gone."""

    def __init__(self) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  (it is thrown away)
        self._folder = tempfile.TemporaryDirectory(prefix="vectide-milvus-", dir=memory)
        self._log = Path(self._folder.name) / "log"
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        arguments = ["server", "--data-dir", f"{self._folder.name}/data", "--port", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter)
                [sys.executable, "-c", _RUN, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MilvusServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
                with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > give_up_s:
                    told = self._log.read_text("utf-8", "replace")[-2000:]
                    raise RuntimeError(f"Milvus Lite does not start:\n{told}") from None
                time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
