"""Virtual time, and an executor that lives in it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any

from vectide.ports import AdapterError, Completion, Deadline

START_S = 1000.0
LOOKS_EVERY_S = 0.02


class SimClock:
    """Virtual time; things happen when it passes their moment."""

    def __init__(self) -> None:
        self.now_s = START_S
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        #: Something has happened that a waiting process would notice soon.
        self.stirred = False
        #: What the time of day is ahead of the time since the start.
        self.jumped_ms = 0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000) + self.jumped_ms

    def at(self, moment_s: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (moment_s, self._count, happen))

    def stir(self) -> None:
        """Whoever waits looks up."""
        self.stirred = True

    def next_s(self) -> float | None:
        return self._agenda[0][0] if self._agenda else None

    def advance_to(self, moment_s: float) -> None:
        while self._agenda and self._agenda[0][0] <= moment_s:
            due, _, happen = heapq.heappop(self._agenda)
            self.now_s = max(self.now_s, due)
            happen()
        self.now_s = max(self.now_s, moment_s)


class SimExecutor:
    """A call takes effect after a random while and returns after another one, so that a crash or a rebalance
    can fall before, between and after."""

    def __init__(self, clock: SimClock, rng: random.Random, *, waits: bool) -> None:
        self._clock = clock
        self._rng = rng
        self._finished: list[Completion] = []
        self._pending: list[Callable[[], None]] = []
        #: Whether time passes while it waits: it does not while others have something to do.
        self.waits = waits
        #: Until when the process stands still: what was not on the wire by then is sent later.
        self.asleep_until_s = 0.0
        #: Told of every call, by the name of its station.
        self.watch: Callable[[str], None] = lambda station: None
        #: Told before every call takes effect.
        self.acts: Callable[[], None] = lambda: None
        #: When the process has something to do by itself.
        self.due_s: Callable[[], float | None] = lambda: None

    @property
    def busy(self) -> bool:
        """Whether results wait to be taken."""
        return bool(self._finished)

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        held_up = False

        def apply() -> None:
            nonlocal held_up
            if apply not in self._pending:
                return
            if self._clock.now_s < self.asleep_until_s and not held_up:
                held_up = True
                self._clock.at(self._clock.now_s + self._late_s(), apply)
                return
            self._pending.remove(apply)
            self.acts()
            try:
                completion = Completion(done, result=call())
            except AdapterError as error:
                completion = Completion(done, error=error)
            delay_s = 0.3 if self._rng.random() < 0.05 else self._rng.choice((0.0, 0.001, 0.02))
            self._clock.at(self._clock.now_s + delay_s, lambda: self._finished.append(completion))

        self._pending.append(apply)
        self._clock.at(self._clock.now_s + self._rng.choice((0.0, 0.001, 0.01, 0.1)), apply)
        self.watch(pool.split(" ")[0])

    def _late_s(self) -> float:
        """For how long a call of a process that stands still is held up: on the wire, or until it wakes."""
        if self._rng.random() < 0.3:
            return self.asleep_until_s - self._clock.now_s + self._rng.choice((0.0, 0.001, 0.1))
        return self._rng.choice((0.0, 0.3, 0.5, 0.7))

    def crash(self, *, later: bool = False) -> None:
        """The process dies: requests on the wire arrive or do not, with ``later`` perhaps in a while; nobody
        hears the answers."""
        for apply in list(self._pending):
            fate = self._rng.random()
            if later and fate < 0.25:
                self._clock.at(self._clock.now_s + self._rng.choice((0.05, 0.5)), apply)
                continue
            if fate < 0.5:
                apply()
            if apply in self._pending:
                self._pending.remove(apply)

    def stall(self) -> None:
        """The process stands still: what its workers were about to do happens later."""
        stalled, self._pending = self._pending, []
        for apply in stalled:
            self._clock.at(self._clock.now_s + self._rng.choice((0.05, 0.5)), self._late(apply))

    def _late(self, apply: Callable[[], None]) -> Callable[[], None]:
        def wake() -> None:
            self._pending.append(apply)
            apply()

        return wake

    def completed(self, wait_s: float) -> Sequence[Completion]:
        clock = self._clock
        clock.advance_to(clock.now_s)
        if not self._finished and wait_s and self.waits:
            self._wait(clock.now_s + wait_s)
        finished, self._finished = self._finished, []
        if len(finished) > 1:
            self._rng.shuffle(finished)
        return finished

    def _wait(self, end_s: float) -> None:
        """For a result, or until there is something else to do: a process that looks every few milliseconds
        would find it then, and nothing in between."""
        clock = self._clock
        due_s = self.due_s()
        if due_s is not None:
            # What is due and cannot be done yet waits for a result.
            end_s = min(end_s, due_s if due_s > clock.now_s else clock.now_s + LOOKS_EVERY_S)
        clock.stirred = False
        while not self._finished and not clock.stirred:
            next_s = clock.next_s()
            if next_s is None or next_s > end_s:
                clock.advance_to(end_s)
                return
            clock.advance_to(next_s)

    def close(self, deadline: Deadline) -> None:
        pass
