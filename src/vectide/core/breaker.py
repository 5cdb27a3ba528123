"""The dead-letter breaker: a flood of dead letters is a misconfiguration, not bad luck."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

#: Dead letters in a row that a half-open breaker lets pass.
HALF_OPEN_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """Trips at ``in_a_row`` dead letters in a row, or when more than ``share`` of the last ``window``
    outcomes were dead letters (only once the window is full)."""

    in_a_row: int = 50
    share: float = 0.2
    window: int = 500


@dataclass(slots=True)
class Breaker:
    """Fed with every record's outcome of one table.

    After :meth:`rearm` it is half-open: a few dead letters in a row trip it again, the first success closes
    it. A few, because the record at which it tries again may be poison by itself.
    """

    limits: BreakerLimits
    tripped: bool = False
    _half_open: bool = False
    _row: int = 0
    _outcomes: deque[bool] = field(default_factory=deque)
    _dead: int = 0

    def success(self) -> None:
        """A record was written, deleted or skipped."""
        self._row = 0
        self._half_open = False
        self._push(dead=False)

    def dead_letter(self) -> bool:
        """A record is about to be dead-lettered. False: the breaker is open, it must not be."""
        if self.tripped:
            return False
        self._row += 1
        self._push(dead=True)
        full = len(self._outcomes) >= self.limits.window
        flood = full and self._dead > self.limits.share * self.limits.window
        in_a_row = min(HALF_OPEN_IN_A_ROW, self.limits.in_a_row) if self._half_open else self.limits.in_a_row
        if self._row > in_a_row or flood:
            self.tripped = True
        return not self.tripped

    def rearm(self) -> None:
        """Try again, carefully. Nothing changes unless it has tripped."""
        if not self.tripped:
            return
        self.tripped = False
        self._half_open = True
        self._row = 0
        self._outcomes.clear()
        self._dead = 0

    def _push(self, *, dead: bool) -> None:
        self._outcomes.append(dead)
        self._dead += dead
        if len(self._outcomes) > self.limits.window:
            self._dead -= self._outcomes.popleft()
