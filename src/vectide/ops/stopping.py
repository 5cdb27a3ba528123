"""How the process ends: the first signal asks, the second one insists, a watchdog ends what hangs.

Signals are heard by a thread of their own, through a pipe: also while the main thread is inside a native
call that does not return, and without the lock trouble of code that runs inside a signal handler.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

#: The stop did not come to its end within the grace period.
EXIT_HUNG: Final = 70
#: Plus the number of the signal: how shells tell a process that a signal ended.
EXIT_SIGNAL: Final = 128

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Wrappers (timeout, make, uv run ...) send on what their process group was sent too: that is one request.
_ECHO_S: Final = 0.5
#: What :meth:`Stopping.begin` puts into the pipe; no signal has this number.
_BEGIN: Final = 0


class Stopping:
    """Calls ``stop`` at the first SIGTERM or SIGINT; ends the process at the second one (exit code 128 + its
    number), or when ``grace_s`` after the first one (or after :meth:`begin`) it still runs (exit code 70).

    ``end`` is told the exit code and does not return.
    """

    def __init__(
        self, stop: Callable[[], None], grace_s: float, *, end: Callable[[int], NoReturn] = os._exit
    ) -> None:
        self._stop = stop
        self._grace_s = grace_s
        self._end = end
        #: When stopping was first asked for by a signal, and when the process shall have ended (monotonic).
        self._asked_s: float | None = None
        self._give_up_s: float | None = None
        self._out, self._in = os.pipe()
        os.set_blocking(self._in, False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def install(self) -> None:
        """Listen from now on. Only from the main thread."""
        signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _heard_elsewhere)
        self._thread.start()

    def begin(self) -> None:
        """The process is ending for another reason: the grace period begins, unless it already has."""
        os.write(self._in, bytes([_BEGIN]))

    def _listen(self) -> None:
        while True:
            left_s = None if self._give_up_s is None else max(0.0, self._give_up_s - time.monotonic())
            if not select.select([self._out], [], [], left_s)[0]:
                _say(f"the stop took longer than {self._grace_s:g} s: {_LOST}")
                self._end(EXIT_HUNG)
            for number in os.read(self._out, 64):
                if number in _SIGNALS:
                    self._signalled(number, time.monotonic())
                if self._give_up_s is None:
                    self._give_up_s = time.monotonic() + self._grace_s

    def _signalled(self, number: int, now_s: float) -> None:
        if self._asked_s is None:
            self._asked_s = now_s
            self._stop()
        elif now_s - self._asked_s > _ECHO_S:
            _say(f"told to stop a second time: {_LOST}")
            self._end(EXIT_SIGNAL + number)


_LOST: Final = "ending at once; what is not committed is done again after the next start"


def _heard_elsewhere(_number: int, _frame: FrameType | None) -> None:
    """Having a handler is what makes Python write the signal's number into the pipe."""


def _say(line: str) -> None:
    """One line for the operator on stderr, also when the rest of the process hangs."""
    with suppress(OSError):
        os.write(2, f"vectide: {line}\n".encode())
