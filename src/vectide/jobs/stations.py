"""The stations together: schemas, look up, re-read, embed, write and dead letters, in the right order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from vectide.core import signals
from vectide.core.batcher import BatchLimits
from vectide.core.failures import FailurePolicy
from vectide.core.lane import Lane, RowQueue
from vectide.core.lifecycle import Trouble
from vectide.core.model import Position, Record, Row
from vectide.core.pace import Pace
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.embed import Embed
from vectide.jobs.generations import Generations
from vectide.jobs.intake import Intake
from vectide.jobs.letters import Letters
from vectide.jobs.lookup import LookUp
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.replays import Replays
from vectide.jobs.reread import ReRead, source_table
from vectide.jobs.rows import Rows, Settle
from vectide.jobs.schemas import Schemas
from vectide.jobs.truncates import Truncates
from vectide.jobs.work import Work
from vectide.jobs.write import Write
from vectide.ports import Partition

T = TypeVar("T")
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Ends:
    """What the stations ask of the pump: ``settle`` a record, ``may_dead_letter`` one more of a table,
    ``halt`` a table for a cause, or one lane of it ``halt_at`` a record; ``lift`` the barrier of a lane."""

    settle: Settle
    may_dead_letter: Callable[[str], bool]
    halt: Callable[[str, str], None]
    halt_at: Callable[[Lane, Record, str], None]
    lift: Callable[[Lane], None]


#: Requests to replay a dead letter that are looked into together.
REPLAY_ITEMS: Final = 50


class Stations:
    """Owned by the pump. Look-ups and writes have one station per collection, re-reads one per table of the
    source, so that trouble with one of them does not hold up another."""

    def __init__(
        self,
        parts: Parts,
        policy: StreamPolicy,
        ends: Ends,
        intake: Intake,
        lanes: Mapping[Partition, Lane],
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._caller = caller = Caller(parts)
        self.rows = rows = Rows(parts, ends.settle, policy.incomplete_patience_s, policy.move_patience_s)
        self._lookups: dict[str, Station[RowQueue]] = {}
        self._rereads: dict[str, Station[Work]] = {}
        self._writes: dict[str, Station[Work]] = {}
        self._write = Write(parts, caller, rows, policy.store_timeout_s)
        embed = self._station("embed", self._embed_limits(), policy.embed_concurrency, policy.failures)
        embed.pace = self._pace = Pace(policy.embed_rates)
        self._embed = Embed(parts, caller, rows, embed, self._pace, policy.embed_timeout_s, self._add_write)
        generations = Generations(parts.clock, policy.takeover_patience_s)
        self._look_up = LookUp(
            parts, caller, rows, policy.store_timeout_s, generations, ends.halt, ends.halt_at
        )
        self._look_up.embed = self._embed.add
        self._look_up.write = self._add_write
        self._reread: ReRead | None = None
        if parts.reader is not None:
            self._reread = ReRead(parts, parts.reader, caller, rows, policy.reread_timeout_s)
            self._reread.plan = self._look_up.plan
            self._look_up.reread = self._add_reread
        patient = replace(policy.failures, poison_after_strikes=_NEVER, split_after_strikes=_NEVER)
        letters = self._station("dead_letter", BatchLimits(items=100, linger_s=0.01), 1, patient)
        self.letters = Letters(
            parts,
            caller,
            letters,
            policy.dead_letter_timeout_s,
            ends.settle,
            ends.may_dead_letter,
            ends.halt,
        )
        purges = self._station("purge", BatchLimits(items=1), 1, patient)
        self.truncates = Truncates(
            parts, caller, purges, policy.store_timeout_s, ends.settle, ends.halt, ends.lift
        )
        requests = self._station("replay", BatchLimits(items=REPLAY_ITEMS, linger_s=0.02), 1, patient)
        self.replays = Replays(
            parts,
            caller,
            requests,
            rows,
            intake,
            lanes,
            policy.replay_timeout_s,
            self.letters.add,
            ends.settle,
        )
        self.truncates.is_held_up = lambda lane: bool(self.replays.beside([lane]))
        asked = self._station("schema", BatchLimits(items=1), policy.schema_concurrency, patient)
        self.schemas = Schemas(parts, caller, asked, policy.schema_timeout_s)
        rows.look_up = self._add_look_up
        rows.write = self._add_write
        rows.send_letter = self.letters.add

    # --- what the pump asks -----------------------------------------------------------------------------

    @property
    def calls(self) -> int:
        """Calls that have not returned."""
        return sum(len(station.in_flight) for station in self._all())

    def due_s(self) -> float | None:
        """When :meth:`dispatch` should be called again at the latest (monotonic seconds)."""
        held_back = self._embed.station if self._writes_are_behind() else None
        waiting = (station for station in self._all() if station is not held_back)
        times = [due for station in waiting if (due := station.due_s()) is not None]
        return min([*times, *self.schemas.due_s], default=None)

    def dispatch(self, *, flush: bool) -> None:
        """Start every call that may start now. Writes go first: they free rows and memory."""
        self._start_all(self.schemas.station, self.schemas.start, flush)
        self._start_all(self.letters.station, self.letters.start, flush)
        self._start_all(self.replays.station, self.replays.start, flush)
        self.truncates.begin_due()
        self._start_all(self.truncates.station, self.truncates.start, flush)
        for collection, writes in self._writes.items():
            self._start_all(writes, partial(self._write.start, collection, writes), flush)
        if not self._writes_are_behind():
            self._start_all(self._embed.station, self._embed.start, flush)
        if self._reread is not None:
            for table, rereads in self._rereads.items():
                self._start_all(rereads, partial(self._reread.start, table, rereads), flush)
        for collection, lookups in self._lookups.items():
            self._start_all(lookups, partial(self._look_up.start, collection, lookups), flush)

    def sweep(self) -> None:
        """Take back what waits for lanes that are gone, and what nobody has paid for yet of those that
        are leaving."""
        self.schemas.sweep()
        self._embed.sweep()
        for writes in self._writes.values():
            for work in writes.sweep(lambda work: work.lane.held):
                self.rows.forget(work)
        for rereads in self._rereads.values():
            for work in rereads.sweep(lambda work: work.lane.active):
                self.rows.forget(work)
        for lookups in self._lookups.values():
            for queue in lookups.sweep(_has_active_entry):
                queue.queued = False
        self.letters.sweep()
        self.truncates.sweep()
        self.rows.sweep()

    def texts_under_way(self) -> dict[str, list[tuple[Row, Position]]]:
        """Hash of each text that waits for its vector or travels, and the changes that it is for."""
        return self._embed.under_way()

    def troubles(self) -> list[Trouble]:
        """What the stations suffer from now."""
        return [
            Trouble(station.name, station.condition.cause, station.condition.name == "halted")
            for station in self._all()
            if station.condition.name != "ok"
        ]

    def publish(self) -> None:
        """Set the gauges."""
        queued: dict[str, int] = {}
        running: dict[str, int] = {}
        for station in self._all():
            queued[station.name] = queued.get(station.name, 0) + station.queued
            running[station.name] = running.get(station.name, 0) + len(station.in_flight)
        for name, count in queued.items():
            self._parts.telemetry.gauge(signals.STATION_QUEUED, count, station=name)
            self._parts.telemetry.gauge(signals.STATION_IN_FLIGHT, running[name], station=name)
        self._parts.telemetry.gauge(signals.EMBED_ALLOWED, self._embed.station.allowed)
        held_s = self._pace.free_s - self._caller.now()
        self._parts.telemetry.gauge(signals.EMBED_HELD, max(0.0, held_s))

    # --- wiring -----------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Station[Any]]:
        yield from self._lookups.values()
        yield from self._rereads.values()
        yield self._embed.station
        yield from self._writes.values()
        yield self.truncates.station
        yield self.replays.station
        yield self.letters.station
        yield self.schemas.station

    def _writes_are_behind(self) -> bool:
        """Whether more vectors wait for the store than one write takes: a crash would pay for them twice.

        A collection in trouble holds the others' texts up only when all are in trouble.
        """
        stations = list(self._writes.values())
        well = [station for station in stations if station.condition.name == "ok"]
        return any(station.is_behind for station in well or stations)

    def _start_all(self, station: Station[T], start: Callable[[Unit[T]], None], flush: bool) -> None:
        while (unit := station.depart(self._caller.now(), flush=flush)) is not None:
            start(unit)

    def _add_look_up(self, queue: RowQueue) -> None:
        mapping = queue.waiting[0].lane.mapping
        assert mapping is not None
        self._stations_of(mapping.collection)[0].add(queue, 1, self._caller.now())

    def _add_write(self, work: Work) -> None:
        mapping = work.lane.mapping
        assert mapping is not None
        work.plan_steps(self._parts.store.capabilities)
        self._write.add(self._stations_of(mapping.collection)[1], work)

    def _add_reread(self, work: Work) -> None:
        assert self._reread is not None
        table = source_table(work)
        if not table:
            self._reread.skip(work, "which table of the source it is, neither the event nor its topic says")
            return
        if table not in self._rereads:
            policy = self._policy
            self._rereads[table] = self._station(
                "reread", policy.reread, policy.reread_concurrency, policy.failures
            )
        self._rereads[table].add(work, 1, self._caller.now())

    def _stations_of(self, collection: str) -> tuple[Station[RowQueue], Station[Work]]:
        if collection not in self._lookups:
            policy = self._policy
            look_up, write = self._store_limits(policy.lookup), self._store_limits(policy.write)
            failures = policy.failures
            self._lookups[collection] = self._station("lookup", look_up, policy.lookup_concurrency, failures)
            self._writes[collection] = self._station("write", write, policy.write_concurrency, failures)
        return self._lookups[collection], self._writes[collection]

    def _station(
        self, name: str, limits: BatchLimits, concurrency: int, failures: FailurePolicy
    ) -> Station[Any]:
        return Station(name, limits, concurrency, self._parts.random, failures)

    def _embed_limits(self) -> BatchLimits:
        limits, wanted = self._parts.embedder.limits, self._policy.embed
        known = (wanted.weight, limits.max_tokens, self._policy.embed_rates.call_tokens)
        weight = min((tokens for tokens in known if tokens is not None), default=None)
        return replace(wanted, items=min(wanted.items, limits.max_items), weight=weight)

    def _store_limits(self, wanted: BatchLimits) -> BatchLimits:
        return replace(wanted, items=min(wanted.items, self._parts.store.capabilities.max_batch_items))


def _has_active_entry(queue: RowQueue) -> bool:
    return any(entry.lane.active for entry in queue.waiting)
