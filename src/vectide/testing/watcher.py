"""Child processes that must not outlive this one, whatever ends it."""

from __future__ import annotations

import subprocess
from typing import Final

#: Kills the process named by its argument when standard input ends.
_SCRIPT: Final = 'read -r _; kill -9 "$1" 2>/dev/null'


class Watcher:
    """Kills a process as soon as this one is gone, were it by SIGKILL."""

    def __init__(self, pid: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _SCRIPT, "watcher", str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Only after the process was waited for: until then its id is nobody else's."""
        self._process.kill()
        self._process.communicate()
