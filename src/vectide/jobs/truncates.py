"""Truncates: every row of a source table is gone, said by one record that names none of them.

The record is a barrier. What its lane received before it ends first, what comes after it is not taken in;
then the table's rows are removed page by page, and the lane goes on behind it.

That is exact where the record's partition is all that the table has. Beside other partitions nothing tells
whether a change in them came before or after (Debezium gives truncates no key, so they land in any of them):
the table halts instead, once everything before the record is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vectide.core import signals
from vectide.core.failures import Failure, Kind
from vectide.core.lane import Lane
from vectide.core.model import Order, Record, Stamp
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Target
from vectide.jobs.rows import Settle
from vectide.jobs.steps import steps_of
from vectide.ports import AdapterError, Deadline, Effect, Remove, Scannable, Store, Stored, Write

PAGE_POINTS = 500


@dataclass(eq=False, slots=True)
class Purge:
    """One truncate under way: ``cursor`` is where the scan of the collection goes on."""

    lane: Lane
    record: Record
    cursor: str | None = None
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """What one call did: rows removed, and the cursor of the next page (None: that was the last)."""

    removed: int
    cursor: str | None


class Truncates:
    """``halt`` stops a table for a cause; ``lift`` lets a lane go on behind its barrier."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        station_of: Callable[[Target], Station[Purge]],
        settle: Settle,
        halt: Callable[[str, str], None],
        lift: Callable[[Lane], None],
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._station_of = station_of
        #: One for each target: an outage of one holds up no other's.
        self.stations: dict[Target, Station[Purge]] = {}
        self._settle = settle
        self._halt = halt
        self._lift = lift
        #: Whether something is under way beside the lane, which has to end first as well.
        self.is_held_up: Callable[[Lane], bool] = lambda _lane: False
        self._waiting: list[Purge] = []

    def add(self, lane: Lane, record: Record) -> None:
        """The lane's barrier: :meth:`begin_due` looks after it from here on."""
        self._waiting.append(Purge(lane, record))

    def begin_due(self) -> None:
        """Begin where nothing before the truncate is under way any more."""
        due = [
            purge
            for purge in self._waiting
            if purge.lane.only_barrier_left and not self.is_held_up(purge.lane)
        ]
        for purge in due:
            if purge in self._waiting:  # the one before may have halted its table, and the lane is gone
                self._waiting.remove(purge)
                self._begin(purge)

    def _begin(self, purge: Purge) -> None:
        lane = purge.lane
        refusal = self._refusal(lane)
        if refusal is not None:
            self._parts.log.error(
                "truncate_refused", table=lane.table, where=purge.record.where, reason=refusal
            )
            self._halt(lane.table, "truncate")
            return
        lane.busy += 1
        target = self._parts.route(lane.mapping).target
        if target not in self.stations:
            self.stations[target] = self._station_of(target)
        self.stations[target].add(purge, 1, self._caller.now())

    def _refusal(self, lane: Lane) -> str | None:
        """Why the truncate cannot be applied exactly."""
        if not isinstance(self._parts.route(lane.mapping).target.store, Scannable):
            return "the store cannot be scanned for the table's rows"
        if lane.mapping is None or not lane.mapping.of_one_topic:
            return "the table's changes come on several topics, and nothing tells their order"
        count = self._parts.source.partition_count(lane.topic)
        if count != 1:
            told = "an unknown number of" if count is None else str(count)
            return f"the topic has {told} partitions, and nothing tells the order between them"
        return None

    def start(self, target: Target, station: Station[Purge], unit: Unit[Purge]) -> None:
        """Remove the rows on the next page of the collection."""
        (purge,) = unit.items

        def succeed(page: Page | None) -> None:
            if page is None:
                station.withdraw(unit)
                purge.lane.busy -= 1
                return
            station.succeeded(unit)
            self._parts.telemetry.count(signals.ROWS_PURGED, page.removed, table=purge.lane.table)
            purge.removed += page.removed
            purge.cursor = page.cursor
            if page.cursor is None or not purge.lane.active:
                self._end(purge)
            else:
                station.add(purge, 1, self._caller.now())

        def fail(failure: Failure) -> None:
            # There is no record to put aside: a truncate is applied, or its table waits.
            if failure.kind not in (Kind.TRANSIENT, Kind.THROTTLED):
                failure = replace(failure, kind=Kind.OPERATOR)
            self._caller.react(station, unit, failure)

        self._caller.start(station, unit, lambda: self._remove_page(target, purge), succeed, fail)

    def _remove_page(self, target: Target, purge: Purge) -> Page | None:
        """On a worker. None when the lane is gone: the new owner meets the same truncate."""
        lane, store = purge.lane, target.store
        if not lane.held or lane.mapping is None:
            return None
        assert isinstance(store, Scannable)
        collection = lane.mapping.collection
        deadline = Deadline.after(self._parts.clock, target.timeout_s)
        points, cursor = store.scan(collection, purge.cursor, PAGE_POINTS, deadline)
        atomic = store.capabilities.atomic_calls
        rows = [
            steps_of([remove], stamp, atomic_calls=atomic) for remove, stamp in self._removes(purge, points)
        ]
        left = rows
        while left:
            made = [steps.pop(0).writes for steps in left]
            effects = _write(store, collection, [write for writes in made for write in writes], deadline)
            applied = [all([next(effects) is Effect.APPLIED for _ in writes]) for writes in made]
            left = [steps for steps, is_applied in zip(left, applied, strict=True) if steps and is_applied]
        return Page(len(rows), cursor)

    def _removes(self, purge: Purge, points: Sequence[Stored]) -> Sequence[tuple[Remove, Stamp]]:
        """The table's rows among the points, but those written by later changes: this may be a replay."""
        lane = purge.lane
        own = lane.position_of(purge.record)
        return [
            (Remove(point.row, point.row.chunk_ids(point.stamp.chunks), own), point.stamp)
            for point in points
            if point.row.table == lane.table
            and point.stamp is not None
            and point.stamp.position.relation_to(own) is not Order.NEWER
        ]

    def _end(self, purge: Purge) -> None:
        lane = purge.lane
        lane.busy -= 1
        if not lane.active:
            return  # as far as it got, it need not be done again
        self._parts.log.info(
            "truncated", table=lane.table, where=purge.record.where, rows_removed=purge.removed
        )
        self._settle(lane, purge.record, "deleted", "truncate")
        self._lift(lane)

    def sweep(self) -> None:
        """Forget the truncates of lanes that are gone or leaving."""
        self._waiting = [purge for purge in self._waiting if purge.lane.active]
        for station in self.stations.values():
            for purge in station.sweep(lambda purge: purge.lane.active):
                purge.lane.busy -= 1


def _write(store: Store, collection: str, writes: Sequence[Write], deadline: Deadline) -> Iterator[Effect]:
    limit = store.capabilities.max_batch_items
    for start in range(0, len(writes), limit):
        for outcome in store.write(collection, writes[start : start + limit], deadline):
            if outcome.effect is Effect.FAILED and outcome.failure is not None:
                raise AdapterError(outcome.failure)
            yield outcome.effect
