"""Child processes that cannot outlive the test: ports, logs, waiting for a condition, stopping for sure."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.real.jars import StackError

T = TypeVar("T")

#: Below the ephemeral range of Linux (32768), where any outgoing connection may sit on a port.
PORTS = range(20_000, 32_000)
_handed_out: set[int] = set()

#: Becomes the program, after asking the kernel for SIGKILL when the parent dies (Linux; else without).
_LEASH = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """A loopback port that nobody listens on and that this process has not handed out before."""
    for _ in range(1000):
        port = random.SystemRandom().choice(PORTS)
        if port not in _handed_out and _bindable(port):
            _handed_out.add(port)
            return port
    raise StackError(f"no free port between {PORTS.start} and {PORTS.stop}")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(what: str, condition: Callable[[], T | None], timeout_s: float, every_s: float = 0.05) -> T:
    """Ask ``condition`` until it answers something true; that is the result. Raises :class:`StackError`
    naming ``what`` at the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline_s:
            raise StackError(f"waited {timeout_s:g} s in vain until {what} (last answer: {answer!r})")
        time.sleep(every_s)


class Child:
    """One program of the stack, its output in a file of its own.

    It runs in its own session (a Ctrl-C at the terminal reaches the test alone, which then stops it) and is
    killed by the kernel when the test process dies.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None):
        self.name = name
        self.log_path = folder / f"{name}.log"
        leashed = [sys.executable, "-c", _LEASH, str(os.getpid()), *command]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                leashed,
                cwd=folder,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_ready(self, what: str, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``ready``; raises :class:`StackError` with the end of the log when the program ends
        before that, or at the deadline."""

        def ready_or_dead() -> bool:
            if self.exit_code is not None:
                raise StackError(f"{self.name} ended with {self.exit_code}:\n{self.log_tail()}")
            return ready()

        try:
            wait_until(f"{self.name} {what}", ready_or_dead, timeout_s)
        except StackError as error:
            if self.exit_code is not None:
                raise
            raise StackError(f"{error}\n{self.log_tail()}") from error

    def log_text(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def wait(self, timeout_s: float) -> int:
        """Until it ends by itself. Returns the exit code; raises :class:`StackError` at the deadline."""
        wait_until(f"{self.name} ends", lambda: self.exit_code is not None, timeout_s)
        return self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.exit_code is None:
            self._process.kill()
        self._process.wait(30)

    def stop(self, grace_s: float = 15.0) -> int:
        """SIGTERM, after ``grace_s`` SIGKILL. Returns the exit code; harmless when it has ended."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait(30)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
