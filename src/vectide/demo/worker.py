"""``vectide run`` as its user runs it: a process of its own, configured by the environment alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from vectide.demo.readings import Readings
from vectide.testing.watcher import Watcher

_STOP_TIMEOUT_S = 30.0


class WorkerDied(RuntimeError):
    """The worker ended by itself. The message has its last log lines."""


class Worker:
    """One worker, through kills and restarts; every start appends to the same log.

    ``environment`` holds the ``VECTIDE_*`` variables; those of this process do not reach the worker.
    """

    COMMAND: ClassVar = (sys.executable, "-m", "vectide", "run")

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
        # Whoever is killed leaves temporary files behind: they go with the log's folder.
        self._environment = {**outside, **environment, "TMPDIR": str(log.parent)}
        self._port = int(environment["VECTIDE_HTTP__PORT"])
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: Watcher | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    def start(self) -> None:
        """Start it; returns at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                self.COMMAND,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # an interrupt typed at the terminal is the demo's
            )
        self._watcher = Watcher(self.pid)

    def kill(self) -> None:
        """SIGKILL: no farewell of any kind. Returns when the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code. Killed when it takes too long."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """Whatever state it is in: gone afterwards."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def ready(self) -> bool:
        """Whether it takes part in the work. Raises :class:`WorkerDied` when it has ended."""
        return self._get("/readyz") is not None

    def readings(self) -> Readings:
        """Its metrics; empty while it does not answer. Raises :class:`WorkerDied` when it has ended."""
        text = self._get("/metrics")
        return Readings() if text is None else Readings.parse(text)

    def last_words(self) -> list[str]:
        """The end of its log."""
        return self._log.read_text(errors="replace").splitlines()[-20:] if self._log.exists() else []

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the worker has not been started")
        return self._process

    def _get(self, path: str) -> str | None:
        code = self._running.poll()
        if code is not None:
            words = "\n".join(self.last_words())
            raise WorkerDied(f"the worker ended by itself with code {code}. Its last words:\n{words}")
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
            return text if response.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._running, None
        process.send_signal(how)
        try:
            code = process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._dismiss_watcher()
        return code

    def _dismiss_watcher(self) -> None:
        """Only after the worker was waited for: until then its process id is nobody else's."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.dismiss()


def wait_until_ready(worker: Worker, timeout_s: float) -> float:
    """Seconds that it took. Raises TimeoutError, or :class:`WorkerDied`."""
    began_s = time.monotonic()
    while not worker.ready():
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError(f"the worker was not ready within {timeout_s:g} s")
        time.sleep(0.02)
    return time.monotonic() - began_s
