"""The real world's threads and clock: one pool for each kind of call, one queue back."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vectide.ports import Completion, Deadline


class SystemClock:
    """Implements :class:`vectide.ports.Clock`."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ThreadExecutor:
    """Implements :class:`vectide.ports.Executor`. ``pools`` maps a pool's name to its number of threads."""

    def __init__(self, pools: Mapping[str, int]) -> None:
        self._finished: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self._pools = {
            name: ThreadPoolExecutor(threads, thread_name_prefix=f"vectide-{name}")
            for name, threads in pools.items()
        }

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        self._pools[pool].submit(self._run, call, done)

    def _run(self, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  handed to the owner of the state, which decides
            self._finished.put(Completion(done, error=error))
        else:
            self._finished.put(Completion(done, result=result))

    def completed(self, wait_s: float) -> Sequence[Completion]:
        finished: list[Completion] = []
        try:
            if wait_s > 0:
                finished.append(self._finished.get(timeout=wait_s))
            while True:
                finished.append(self._finished.get_nowait())
        except queue.Empty:
            return finished

    def close(self, deadline: Deadline) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        ours = tuple(f"vectide-{name}_" for name in self._pools)
        for thread in threading.enumerate():
            if thread.name.startswith(ours):
                thread.join(deadline.remaining_s())
