"""One station of the pump: a queue, its calls in flight, and what happens when they fail. No I/O.

The pump asks :meth:`Station.depart` for a unit of work when it may start a call, and reports back with
:meth:`Station.succeeded` or :meth:`Station.failed`. Waiting, splitting, the shared cool-down and the halt
live here, once, for every adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from vectide.core.batcher import Batcher, BatchLimits
from vectide.core.failures import (
    DEFAULT_POLICY,
    DeadLetter,
    Failure,
    FailurePolicy,
    Halt,
    Kind,
    Reaction,
    Split,
    Wait,
    backoff_s,
    decide,
)
from vectide.core.pace import Pace

T = TypeVar("T")

#: Transient failures in a row, without any success, before the station stops trying with all calls at once.
CLOSE_AFTER = 3
#: A failure is a strike when at least this many calls of others succeeded since the last one ...
STRIKE_SUCCESSES = 3
#: ... and at least this many of them for each that failed.
STRIKE_RATIO = 4
#: A call that takes longer may well hang.
STALLED_AFTER_S = 5.0
#: So many units that are new are tried in turn with old ones while everything fails; then ever fewer.
NEW_PROBES = 4
#: What may be the fault of one member, although the whole call failed.
_SPLIT_IN_TIME = frozenset({Kind.TRANSIENT, Kind.INVALID})
#: Full batches that succeed before larger ones are tried again, after one was too large.
GROW_AFTER = 100


@dataclass(eq=False, slots=True)
class Unit(Generic[T]):
    """A batch that travels together until it succeeds or is split."""

    items: list[T]
    attempt: int = 0
    strikes: int = 0
    due_s: float = 0.0
    #: Successes and failures of the station when this unit last failed.
    seen: tuple[int, int] | None = None
    #: Which closing of the station it departed after, and when.
    gate: int = 0
    departed_s: float = 0.0
    #: Whether it left the queue as a full batch (then it has not been split).
    full: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """How a station fares: ``ok``, ``waiting`` (retrying by itself) or ``halted`` (an operator must act)."""

    name: str = "ok"
    cause: str = ""


OK = Condition()


@dataclass(eq=False, slots=True)
class Station(Generic[T]):
    """``random`` returns [0, 1) and jitters the back-off. ``provider`` or ``store`` is the name of what is
    called, where there may be several. ``pace``: how fast it may be called, told of each call by the caller.

    ``concurrency`` bounds the calls in flight. A peer that asks to slow down gets half as many of them, and
    one more for each round of calls that succeed. Batches that are too large for the peer are halved, those
    to come too, until many of them have been taken.
    """

    name: str
    limits: BatchLimits
    concurrency: int
    random: Callable[[], float]
    policy: FailurePolicy = DEFAULT_POLICY
    provider: str = ""
    store: str = ""
    pace: Pace | None = None
    in_flight: list[Unit[T]] = field(default_factory=list)
    _batcher: Batcher[T] = field(init=False)
    _retries: list[Unit[T]] = field(default_factory=list)
    _successes: int = 0
    _failures: int = 0
    _failed_in_a_row: int = 0
    _closed_until_s: float = 0.0
    _probing: bool = False
    #: Whether the last unit that departed had failed before; and probes that failed in a row.
    _tried_again: bool = False
    _failed_probes: int = 0
    _new_failed: int = 0
    _gate: int = 0
    _condition: Condition = OK
    _window: float = field(init=False)
    _taken: int = 0

    def __post_init__(self) -> None:
        self._batcher = Batcher(self.limits)
        self._window = self.concurrency

    @property
    def full_name(self) -> str:
        """What is done, and by whom."""
        return " ".join(filter(None, (self.name, self.provider, self.store)))

    @property
    def labels(self) -> dict[str, str]:
        """Of its metrics."""
        return {"station": self.name, "provider": self.provider, "store": self.store}

    @property
    def queued(self) -> int:
        """Items waiting for a call, in the queue or for a retry."""
        return len(self._batcher) + sum(len(unit.items) for unit in self._retries)

    @property
    def condition(self) -> Condition:
        """How it fares. Without work it is well: nothing would be tried, and the trouble told for ever."""
        return OK if self.idle else self._condition

    @property
    def idle(self) -> bool:
        return not self.in_flight and not self._retries and not len(self._batcher)

    @property
    def allowed(self) -> int:
        """Calls that may be in flight now."""
        return int(self._window)

    @property
    def is_behind(self) -> bool:
        """Whether at least as much waits as one call takes."""
        return self._batcher.size + sum(len(unit.items) for unit in self._retries) >= self.limits.items

    def is_stalled(self, now_s: float) -> bool:
        """Whether a call takes so long that nobody should wait for its end."""
        return any(now_s - unit.departed_s > STALLED_AFTER_S for unit in self.in_flight)

    def add(self, item: T, weight: int, now_s: float, size: int = 1) -> None:
        """Queue an item, which counts for ``size`` items of a call."""
        self._batcher.add(item, weight, now_s, size)

    def depart(self, now_s: float, *, flush: bool = False) -> Unit[T] | None:
        """The unit whose call starts now, None when none may. It counts as in flight from here on."""
        if not (self._retries or self._batcher):
            return None  # most of the time: the pump asks all its stations at every step
        if len(self.in_flight) >= self.allowed or now_s < self._open_s:
            return None
        if self._probing and self.in_flight:
            return None
        # What fails by itself must not be all that is ever tried.
        unit = self._fresh(now_s, flush) if self._tries_new else None
        unit = unit or self._due_retry(now_s) or self._fresh(now_s, flush)
        if unit is None:
            return None
        self._tried_again = unit.attempt > 0
        unit.gate, unit.departed_s = self._gate, now_s
        self.in_flight.append(unit)
        return unit

    def sweep(self, keep: Callable[[T], bool]) -> list[T]:
        """Take back the items that wait (queued or for a retry) and are not to be kept."""
        dropped = self._batcher.sweep(keep)
        for unit in self._retries:
            dropped += [item for item in unit.items if not keep(item)]
            unit.items = [item for item in unit.items if keep(item)]
        self._retries = [unit for unit in self._retries if unit.items]
        return dropped

    def due_s(self) -> float | None:
        """When :meth:`depart` should be asked again at the latest; None when only an event can help."""
        times = [unit.due_s for unit in self._retries]
        queued = self._batcher.due_s()
        if queued is not None:
            times.append(queued)
        if not times or len(self.in_flight) >= self.allowed:
            return None
        return max(self._open_s, min(times))

    def withdraw(self, unit: Unit[T]) -> None:
        """The unit ended without telling anything about the peer (its call was not made)."""
        self.in_flight.remove(unit)

    def succeeded(self, unit: Unit[T]) -> None:
        """The call of ``unit`` succeeded: the peer is well."""
        self.in_flight.remove(unit)
        self._successes += 1
        if unit.full and self._batcher.limits is not self.limits:
            self._try_larger()
        if unit.gate != self._gate:
            return  # it departed before the station closed: the cool-down of the later answers stands
        if self._window < self.concurrency:
            self._window = min(self.concurrency, self._window + 1 / self._window)
        self._failed_in_a_row = 0
        self._probing = False
        self._failed_probes = self._new_failed = 0
        self._closed_until_s = 0.0
        self._condition = OK

    def failed(self, unit: Unit[T], failure: Failure, now_s: float) -> Reaction:
        """The call of ``unit`` failed. Queues what is to be tried again; a :class:`DeadLetter` is the
        caller's to perform on the unit's single item."""
        self.in_flight.remove(unit)
        self._count_strike(unit)
        reaction = decide(
            failure, size=len(unit.items), attempt=unit.attempt, strikes=unit.strikes, policy=self.policy
        )
        self._failures += 1
        unit.seen = (self._successes, self._failures)
        if failure.kind is Kind.THROTTLED and unit.gate == self._gate:  # once for all that are on the way
            self._window = max(1.0, self._window / 2)
        elif failure.kind is Kind.TOO_LARGE and unit.full:
            self._try_smaller(len(unit.items) // 2)
        match reaction:
            case Wait(delay_s):
                self._wait(unit, failure, delay_s, now_s)
            case Split():
                self._split(unit, now_s)
            case Halt(cause, probe_s):
                self._condition = Condition("halted", cause)
                self._close(now_s + probe_s)
                unit.due_s = now_s + probe_s
                self._retries.append(unit)
            case DeadLetter():
                pass
        return reaction

    def fail_one(self, unit: Unit[T], item: T, failure: Failure, now_s: float) -> Reaction:
        """One member of ``unit``, whose call succeeded as a whole, failed by itself. One that travelled alone
        goes on with the attempts and strikes that it has."""
        alone = Unit([item])
        if len(unit.items) == 1:
            alone.attempt, alone.strikes, alone.seen = unit.attempt, unit.strikes, unit.seen
        self.in_flight.append(alone)
        return self.failed(alone, failure, now_s)

    @property
    def _open_s(self) -> float:
        """From when on calls may depart."""
        return self._closed_until_s if self.pace is None else max(self._closed_until_s, self.pace.free_s)

    def _try_smaller(self, items: int) -> None:
        self._taken = 0
        self._batcher.limits = replace(self.limits, items=max(1, min(items, self._batcher.limits.items)))

    def _try_larger(self) -> None:
        self._taken += 1
        if self._taken >= GROW_AFTER:
            self._taken = 0
            items = 2 * self._batcher.limits.items
            self._batcher.limits = (
                self.limits if items >= self.limits.items else replace(self.limits, items=items)
            )

    @property
    def _tries_new(self) -> bool:
        """Whether what has not been tried yet goes first. In an outage that helps nobody: then it does after
        1, 2, 4, 8 probes and so on."""
        seldom = self._new_failed >= NEW_PROBES and self._failed_probes & (self._failed_probes - 1)
        return self._probing and self._tried_again and not seldom

    def _fresh(self, now_s: float, flush: bool) -> Unit[T] | None:
        full = self._batcher.is_full
        items = self._batcher.take(now_s, flush=flush)
        return Unit(items, full=full) if items else None

    def _due_retry(self, now_s: float) -> Unit[T] | None:
        for index, unit in enumerate(self._retries):
            if unit.due_s <= now_s:
                return self._retries.pop(index)
        return None

    def _count_strike(self, unit: Unit[T]) -> None:
        if unit.seen is None:
            return
        successes = self._successes - unit.seen[0]
        failures = self._failures - unit.seen[1]
        if successes >= STRIKE_SUCCESSES and successes >= STRIKE_RATIO * failures:
            unit.strikes += 1

    def _wait(self, unit: Unit[T], failure: Failure, delay_s: float, now_s: float) -> None:
        throttled = failure.kind is Kind.THROTTLED
        jittered = delay_s * (1 + 0.1 * self.random()) if throttled else delay_s * (0.5 + 0.5 * self.random())
        asked = failure.retry_after_s or 0.0
        unit.attempt += 1
        unit.due_s = now_s + max(jittered, min(asked, self.policy.retry_after_max_s))
        self._retries += self._in_halves(unit) if failure.kind in _SPLIT_IN_TIME else [unit]
        self._failed_in_a_row += 1
        if throttled or self._failed_in_a_row >= CLOSE_AFTER or self._probing:
            self._condition = Condition("waiting", failure.cause)
            # Where another unit was tried in between, its first pause is no measure.
            if self._probing and unit.gate == self._gate:
                self._failed_probes += 1
                self._new_failed += unit.attempt == 1
            pause_s = backoff_s(self._failed_probes, self.policy) * (0.5 + 0.5 * self.random())
            self._close(unit.due_s if throttled else max(unit.due_s, now_s + pause_s))

    def _in_halves(self, unit: Unit[T]) -> list[Unit[T]]:
        """The unit, in halves if it has been tried often. They wait as it would."""
        middle = len(unit.items) // 2
        if not middle or unit.attempt < self.policy.split_after_attempts:
            return [unit]
        parts = (unit.items[:middle], unit.items[middle:])
        return [replace(unit, items=part, strikes=max(0, unit.strikes - 1), full=False) for part in parts]

    def _close(self, until_s: float) -> None:
        # Calls that were in flight when the first one failed report after it: they may prolong the
        # cool-down, never shorten it.
        self._closed_until_s = max(self._closed_until_s, until_s)
        self._probing = True
        self._gate += 1

    def _split(self, unit: Unit[T], now_s: float) -> None:
        middle = len(unit.items) // 2
        strikes = max(0, min(unit.strikes, self.policy.split_after_strikes) - 1)
        for half in (unit.items[:middle], unit.items[middle:]):
            self._retries.append(Unit(half, strikes=strikes, due_s=now_s, seen=unit.seen))
