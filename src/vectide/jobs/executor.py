"""The real world's threads and clock: one pool for each kind of call, one queue back."""

from __future__ import annotations

import gc
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from vectide.ports import Completion, Deadline

#: Workers need the interpreter only for moments, but at once: a free slot costs throughput.
SWITCH_INTERVAL_S: Final = 0.0002
#: Records in flight are many objects and no cycles: looking through all of them costs a fifth of the time.
GC_THRESHOLDS: Final = (50_000, 20, 100)


def tune_interpreter() -> None:
    """Set this process's interpreter up for a pump and its workers, once everything is loaded."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class SystemClock:
    """Implements :class:`vectide.ports.Clock`."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ThreadExecutor:
    """Implements :class:`vectide.ports.Executor`. ``pools`` maps a pool's name to its number of threads.

    One result at a time is given out, that of the pool named first: while another one is dealt with, more
    urgent ones may come back.
    """

    def __init__(self, pools: Mapping[str, int]) -> None:
        self._finished: queue.SimpleQueue[tuple[str, Completion]] = queue.SimpleQueue()
        self._ready: dict[str, deque[Completion]] = {name: deque() for name in pools}
        self._pools = {
            name: ThreadPoolExecutor(threads, thread_name_prefix=f"vectide-{name}")
            for name, threads in pools.items()
        }

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        self._pools[pool].submit(self._run, pool, call, done)

    def _run(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  handed to the owner of the state, which decides
            self._finished.put((pool, Completion(done, error=error)))
        else:
            self._finished.put((pool, Completion(done, result=result)))

    def completed(self, wait_s: float) -> Sequence[Completion]:
        waits = wait_s > 0 and not any(self._ready.values())
        try:
            if waits:
                self._take(self._finished.get(timeout=wait_s))
            while True:
                self._take(self._finished.get_nowait())
        except queue.Empty:
            return next(([ready.popleft()] for ready in self._ready.values() if ready), [])

    def _take(self, finished: tuple[str, Completion]) -> None:
        pool, completion = finished
        self._ready[pool].append(completion)

    def close(self, deadline: Deadline) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        ours = tuple(f"vectide-{name}_" for name in self._pools)
        for thread in threading.enumerate():
            if thread.name.startswith(ours):
                thread.join(deadline.remaining_s())
