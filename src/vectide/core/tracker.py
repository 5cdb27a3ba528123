"""Which offset of one assigned partition may be committed (invariant 1).

Offsets have holes (compaction, transaction markers), so contiguity is over what was *received*, never over
integers.
"""

from __future__ import annotations

from collections import deque


class Tracker:
    """Received and settled offsets of one lane.

    ``position`` is the next offset to read after a restart: the end of the settled prefix, None while
    nothing is known to be done. It never goes back.
    """

    __slots__ = ("_end", "_last", "_received", "_unsettled", "position")

    def __init__(self, position: int | None = None) -> None:
        self._received: deque[int] = deque()
        self._unsettled: set[int] = set()
        self._last = -1 if position is None else position - 1
        self._end = -1
        self.position = position

    def __len__(self) -> int:
        """Records received and not yet behind the position."""
        return len(self._received)

    @property
    def outstanding(self) -> int:
        """Records received and not settled."""
        return len(self._unsettled)

    @property
    def first(self) -> int | None:
        """The oldest record that is not settled."""
        return self._received[0] if self._received else None

    @property
    def settled_ahead(self) -> int:
        """Records that are settled but wait behind an unsettled one."""
        return len(self._received) - len(self._unsettled)

    @property
    def at_end(self) -> bool:
        """Whether everything that the partition held at the last look has been received."""
        return self._end > self._last

    @property
    def next(self) -> int | None:
        """Everything before this offset has been received; None while nothing is known of that."""
        known = max(self._last + 1, self._end)
        return known if known > 0 or self._end >= 0 else None

    @property
    def behind(self) -> tuple[int, int] | None:
        """From which offset on nothing is known to be done, and to which the partition is known to reach;
        None while nothing is known of it."""
        first = self._received[0] if self.position is None and self._received else self.position
        return None if first is None else (first, max(self._last + 1, self._end, first))

    def is_new(self, offset: int) -> bool:
        """Whether ``offset`` lies beyond everything received so far (else it is a repeat of this lane)."""
        return offset > self._last

    def receive(self, offset: int) -> None:
        """A record arrived. Offsets must grow; raises ValueError when they do not."""
        if not self.is_new(offset):
            raise ValueError(f"offset {offset} was received after {self._last}")
        self._received.append(offset)
        self._unsettled.add(offset)
        self._last = offset

    def settle(self, offset: int) -> list[int]:
        """The record reached its terminal state. Returns the offsets that moved behind the position.

        Raises ValueError when the offset was not received or is settled already: a record settles once.
        """
        if offset not in self._unsettled:
            raise ValueError(f"offset {offset} is not outstanding")
        self._unsettled.discard(offset)
        passed: list[int] = []
        while self._received and self._received[0] not in self._unsettled:
            passed.append(self._received.popleft())
        if passed:
            self.position = passed[-1] + 1
            self._reach_end()
        return passed

    def reach(self, end: int) -> None:
        """The partition was read up to ``end`` (exclusive): what lies between holds nothing for us."""
        self._end = max(self._end, end)
        self._reach_end()

    def _reach_end(self) -> None:
        if not self._received and self._end > self._last:
            self.position = max(self._end, self.position or 0)
