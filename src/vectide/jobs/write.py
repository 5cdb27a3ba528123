"""Third station: the store accepts, or says why not.

A row's writes travel together. Where the store's calls are not atomic, a row of several points takes several
calls, one after the other (see :mod:`.steps`); between them it queues like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from vectide.core import signals
from vectide.core.failures import DeadLetter, Failure, Kind
from vectide.core.planner import MarkStale, RemoveRow
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Target
from vectide.jobs.rows import Rows
from vectide.jobs.work import Verdict, Work
from vectide.ports import Deadline, Effect, Outcome, Store
from vectide.ports import Write as StoreWrite


class Write:
    """Writes the planned works of one collection at a time, each step by step."""

    def __init__(self, parts: Parts, caller: Caller, rows: Rows) -> None:
        self._parts = parts
        self._caller = caller
        self._rows = rows

    def add(self, station: Station[Work], work: Work) -> None:
        """Queue the next step of ``work``."""
        station.add(work, work.weight_bytes(), self._caller.now(), work.size)

    def start(self, target: Target, collection: str, station: Station[Work], unit: Unit[Work]) -> None:
        """Make the next step of the unit's works whose lane is still ours."""
        for work in [work for work in unit.items if not work.lane.held]:
            self._rows.forget(work)
        unit.items = [work for work in unit.items if work.lane.held]
        if not unit.items:
            station.withdraw(unit)
            return
        works = list(unit.items)
        writes = [work.steps[0].writes for work in works]

        def call() -> Sequence[Outcome | None]:
            return self._write(target, collection, works, writes)

        def succeed(outcomes: Sequence[Outcome | None]) -> None:
            station.succeeded(unit)
            for work, outcome in zip(works, outcomes, strict=True):
                self._written(station, unit, work, outcome)

        def fail(failure: Failure) -> None:
            poison = self._caller.react(station, unit, failure)
            if poison is not None:
                self._give_up(works[0], Verdict(poison.cause, "write", failure.detail, unit.attempt + 1))

        self._caller.start(station, unit, call, succeed, fail)

    def _write(
        self, target: Target, collection: str, works: Sequence[Work], writes: Sequence[Sequence[StoreWrite]]
    ) -> Sequence[Outcome | None]:
        """On a worker. One outcome per work, None where its lane had gone just before the send: such a
        write could overwrite that of the partition's new owner."""
        held = [work.lane.held for work in works]
        flat = [write for own, is_held in zip(writes, held, strict=True) if is_held for write in own]
        if not flat:
            return [None] * len(works)
        deadline = Deadline.after(self._parts.clock, target.timeout_s)
        outcomes = iter(self._send(target.store, collection, flat, deadline))
        return [
            _worst([next(outcomes) for _ in own]) if is_held else None
            for own, is_held in zip(writes, held, strict=True)
        ]

    def _send(
        self, store: Store, collection: str, writes: Sequence[StoreWrite], deadline: Deadline
    ) -> Sequence[Outcome]:
        """A step of many chunks may be more than a call takes. Atomic calls take any row whole."""
        if store.capabilities.atomic_calls:
            return store.write(collection, writes, deadline)
        most = store.capabilities.max_batch_items
        parts = (writes[start : start + most] for start in range(0, len(writes), most))
        return [outcome for part in parts for outcome in store.write(collection, part, deadline)]

    def _written(self, station: Station[Work], unit: Unit[Work], work: Work, outcome: Outcome | None) -> None:
        if outcome is None or not work.lane.held:
            self._rows.drop_result(work, "write")
            return
        if outcome.effect is Effect.APPLIED and not work.step_done():
            self.add(station, work)
            return
        match outcome.effect:
            case Effect.APPLIED | Effect.SUPERSEDED | Effect.MISSING if work.verdict is not None:
                self._rows.bury(work)
            case Effect.APPLIED:
                self._applied(work)
            case Effect.SUPERSEDED if len(work.steps) == 1:
                self._rows.finish(work, "skipped", "already_applied")
            case Effect.SUPERSEDED | Effect.MISSING:
                # Chunk 0 changed or vanished after the look-up. (The mark of an open row has the position
                # that was looked up: what is newer than that need not be newer than this change.)
                self._rows.retry(work)
            case Effect.FAILED:
                self._refused(station, unit, work, outcome.failure or Failure(Kind.TRANSIENT, "unknown"))

    def _applied(self, work: Work) -> None:
        match work.plan:
            case RemoveRow():
                self._rows.finish(work, "deleted")
            case MarkStale(_, reason):
                self._rows.finish(work, "skipped", reason)
            case _:
                self._rows.finish(work, "written")

    def _refused(self, station: Station[Work], unit: Unit[Work], work: Work, failure: Failure) -> None:
        self._parts.telemetry.count(signals.STATION_ERRORS, **station.labels, cause=failure.cause)
        reaction = station.fail_one(unit, work, failure, self._caller.now())
        if isinstance(reaction, DeadLetter):
            self._give_up(work, Verdict(reaction.cause, "write", failure.detail, unit.attempt + 1))

    def _give_up(self, work: Work, verdict: Verdict) -> None:
        if work.verdict is None:
            self._rows.poison(work, verdict)
        else:
            self._rows.bury(work)


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a row from those of its writes."""
    order = (Effect.APPLIED, Effect.SUPERSEDED, Effect.MISSING, Effect.FAILED)
    return max(outcomes, key=lambda outcome: order.index(outcome.effect))
