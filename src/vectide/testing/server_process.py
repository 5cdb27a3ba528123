"""A server of somebody else's as a process of its own, with a folder that goes away with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vectide.testing.watcher import Watcher

_START_S: Final = 60.0


class ServerProcess(ABC):
    """Runs from its making until it is closed; what it holds is then gone. ``url`` is its address.

    Raises RuntimeError with the end of what it said when it does not start.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """``{folder}`` and ``{port}`` are filled in, in the arguments and in the environment."""
        # It is thrown away: no need to wait for a disk.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        self._folder = tempfile.TemporaryDirectory(prefix=f"vectide-{name.lower()}-", dir=memory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        places = {"folder": self._folder.name, "port": self.port}
        given = {key: value.format(**places) for key, value in (environment or {}).items()}
        log = Path(self._folder.name) / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [command[0], *(one.format(**places) for one in command[1:])],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **given},
            )
        self._watcher = Watcher(self._process.pid)
        try:
            self._wait(name, log)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes calls. May raise OSError while it does not."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
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
        self._watcher.dismiss()
        self._folder.cleanup()

    def _wait(self, name: str, log: Path) -> None:
        give_up_s = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"{name} does not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False


def free_port() -> int:
    """A port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
