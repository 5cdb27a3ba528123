"""When a batch departs.

A batch departs when it is full, when its oldest member has lingered long enough, or when no partial batch
has left for a short while (``quiet_s``): so a trickle is quick and a flood is full. The caller asks only
when it has a free slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """``items`` and ``weight`` (tokens or bytes; None: no limit) bound one batch; times in seconds."""

    items: int
    weight: int | None = None
    linger_s: float = 0.5
    quiet_s: float = 0.010


class Batcher(Generic[T]):
    """A queue that gives out batches. An item that alone exceeds a limit travels alone."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._queue: deque[tuple[T, int, float, int]] = deque()
        self._weight = 0
        #: What the waiting items count for, against ``limits.items``.
        self.size = 0
        self._partial_left_s = float("-inf")

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, item: T, weight: int, now_s: float, size: int = 1) -> None:
        """Queue an item that counts for ``size`` items."""
        self._queue.append((item, weight, now_s, size))
        self._weight += weight
        self.size += size

    def take(self, now_s: float, *, flush: bool = False) -> list[T]:
        """The batch that departs now, empty when none does. ``flush``: whatever is there departs."""
        if not self._queue:
            return []
        if not self.is_full:
            if not flush and not self._may_leave_partial(now_s):
                return []
            self._partial_left_s = now_s
        return self._fill()

    def sweep(self, keep: Callable[[T], bool]) -> list[T]:
        """Take out the items that are not to be kept, in order."""
        dropped = [item for item, *_ in self._queue if not keep(item)]
        if dropped:
            self._queue = deque(member for member in self._queue if keep(member[0]))
            self._weight = sum(weight for _, weight, _, _ in self._queue)
            self.size = sum(size for *_, size in self._queue)
        return dropped

    def due_s(self) -> float | None:
        """When :meth:`take` should be asked again (monotonic seconds), None while empty."""
        if not self._queue:
            return None
        oldest = self._queue[0][2]
        if self.is_full:
            return oldest
        return min(oldest + self.limits.linger_s, max(oldest, self._partial_left_s + self.limits.quiet_s))

    @property
    def is_full(self) -> bool:
        """Whether what waits fills a batch."""
        heavy = self.limits.weight is not None and self._weight >= self.limits.weight
        return heavy or self.size >= self.limits.items

    def _may_leave_partial(self, now_s: float) -> bool:
        # The same sums as in due_s: rounded otherwise, a batch would not leave when it is due.
        lingered = now_s >= self._queue[0][2] + self.limits.linger_s
        return lingered or now_s >= self._partial_left_s + self.limits.quiet_s

    def _fill(self) -> list[T]:
        batch: list[T] = []
        total = count = 0
        limit = self.limits.weight
        while self._queue and count < self.limits.items:
            item, weight, _, size = self._queue[0]
            if batch and limit is not None and total + weight > limit:
                break
            if batch and count + size > self.limits.items:
                break
            self._queue.popleft()
            batch.append(item)
            total += weight
            count += size
        self._weight -= total
        self.size -= count
        return batch
