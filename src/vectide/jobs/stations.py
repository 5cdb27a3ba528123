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
from vectide.core.planner import EmbedText
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
from vectide.jobs.routes import Provider, Route, Target, is_several, providers_of
from vectide.jobs.rows import Rows, Settle
from vectide.jobs.schemas import Schemas
from vectide.jobs.truncates import Purge, Truncates
from vectide.jobs.work import Work
from vectide.jobs.write import Write
from vectide.ports import Partition

T = TypeVar("T")
_NEVER = 2**62
#: A collection and where it is.
_Collection = tuple[Target, str]


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
    """Owned by the pump. Texts have one station per provider, look-ups and writes one per collection of a
    target, re-reads one per table of a source, so that trouble with one of them does not hold up another."""

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
        self._lookups: dict[_Collection, Station[RowQueue]] = {}
        self._rereads: dict[tuple[Route, str], Station[Work]] = {}
        self._writes: dict[_Collection, Station[Work]] = {}
        self._write = Write(parts, caller, rows)
        self._embeds = {provider: self._embed_of(provider) for provider in providers_of(parts.routes)}
        #: Where the vectors of each provider go.
        self._fed: dict[Provider, list[Station[Work]]] = {provider: [] for provider in self._embeds}
        self._several = is_several(parts.routes)
        generations = Generations(parts.clock, policy.takeover_patience_s)
        self._look_up = LookUp(parts, caller, rows, intake, generations, ends.halt, ends.halt_at)
        self._look_up.embed = self._add_texts
        self._look_up.write = self._add_write
        self._look_up.reread = self._add_reread
        self._reread = ReRead(parts, caller, rows, policy.reread_timeout_s)
        self._reread.plan = self._look_up.arrived
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
        self._patient = patient
        self.truncates = Truncates(parts, caller, self._purges_of, ends.settle, ends.halt, ends.lift)
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
        held_back: list[Station[Any]] = [
            embed.station for provider, embed in self._embeds.items() if self._is_held_back(provider)
        ]
        held_back += [lookups for at, lookups in self._lookups.items() if self._look_up.is_held_back(*at)]
        waiting = (station for station in self._all() if station not in held_back)
        times = [due for station in waiting if (due := station.due_s()) is not None]
        return min([*times, *self.schemas.due_s], default=None)

    def dispatch(self, *, flush: bool) -> None:
        """Start every call that may start now. Writes go first: they free rows and memory."""
        self._look_up.resume()
        self._start_all(self.schemas.station, self.schemas.start, flush)
        self._start_all(self.letters.station, self.letters.start, flush)
        self._start_all(self.replays.station, self.replays.start, flush)
        self.truncates.begin_due()
        for target, purges in self.truncates.stations.items():
            self._start_all(purges, partial(self.truncates.start, target, purges), flush)
        for (target, collection), writes in self._writes.items():
            self._start_all(writes, partial(self._write.start, target, collection, writes), flush)
        for provider, embed in self._embeds.items():
            if not self._is_held_back(provider):
                self._start_all(embed.station, embed.start, flush)
        for (route, table), rereads in self._rereads.items():
            self._start_all(rereads, partial(self._reread.start, route, table, rereads), flush)
        for (target, collection), lookups in self._lookups.items():
            if not self._look_up.is_held_back(target, collection):
                self._start_all(lookups, partial(self._look_up.start, target, collection, lookups), flush)

    def sweep(self) -> None:
        """Take back what waits for lanes that are gone, and what nobody has paid for yet of those that
        are leaving."""
        self.schemas.sweep()
        for embed in self._embeds.values():
            embed.sweep()
        self._look_up.sweep()
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
        found: dict[str, list[tuple[Row, Position]]] = {}
        for embed in self._embeds.values():
            for digest, changes in embed.under_way().items():
                found.setdefault(digest, []).extend(changes)
        return found

    def troubles(self) -> list[Trouble]:
        """What the stations suffer from now."""
        return [
            Trouble(
                station.full_name if self._several else station.name,
                station.condition.cause,
                station.condition.name == "halted",
            )
            for station in self._all()
            if station.condition.name != "ok"
        ]

    def publish(self) -> None:
        """Set the gauges."""
        by_name: dict[str, list[Station[Any]]] = {}
        for station in self._all():
            by_name.setdefault(station.full_name, []).append(station)
        telemetry = self._parts.telemetry
        for alike in by_name.values():
            queued = sum(station.queued for station in alike)
            running = sum(len(station.in_flight) for station in alike)
            telemetry.gauge(signals.STATION_QUEUED, queued, **alike[0].labels)
            telemetry.gauge(signals.STATION_IN_FLIGHT, running, **alike[0].labels)
        for provider, embed in self._embeds.items():
            telemetry.gauge(signals.EMBED_ALLOWED, embed.station.allowed, provider=provider.name)
            telemetry.gauge(signals.EMBED_HELD, embed.held_s, provider=provider.name)
        self.rows.savings.publish()

    # --- wiring -----------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Station[Any]]:
        yield from self._lookups.values()
        yield from self._rereads.values()
        yield from (embed.station for embed in self._embeds.values())
        yield from self._writes.values()
        yield from self.truncates.stations.values()
        yield self.replays.station
        yield self.letters.station
        yield self.schemas.station

    def _is_held_back(self, provider: Provider) -> bool:
        """Whether more of its vectors wait for a store than one write takes: a crash would pay for them
        twice.

        A collection in trouble, or whose calls hang, holds the others' texts up only when all are so.
        """
        stations = self._fed[provider]
        now_s = self._caller.now()
        well = [one for one in stations if one.condition.name == "ok" and not one.is_stalled(now_s)]
        return any(station.is_behind for station in well or stations)

    def _start_all(self, station: Station[T], start: Callable[[Unit[T]], None], flush: bool) -> None:
        while (unit := station.depart(self._caller.now(), flush=flush)) is not None:
            start(unit)

    def _add_look_up(self, queue: RowQueue) -> None:
        self._stations_of(queue.waiting[0].lane)[0].add(queue, 1, self._caller.now())

    def _add_texts(self, work: Work, planned: EmbedText) -> None:
        self._embeds[self._parts.route(work.lane.mapping).provider].add(work, planned)

    def _add_write(self, work: Work) -> None:
        work.plan_steps(self._parts.route(work.lane.mapping).target.store.capabilities)
        self._write.add(self._stations_of(work.lane)[1], work)

    def _add_reread(self, work: Work) -> None:
        table, route = source_table(work), self._parts.route(work.lane.mapping)
        if not table:
            self._reread.skip(work, "which table of the source it is, neither the event nor its topic says")
            return
        asked = self._rereads.get((route, table))
        if asked is None:
            policy = self._policy
            asked = self._station("reread", policy.reread, policy.reread_concurrency, policy.failures)
            self._rereads[route, table] = asked
        asked.add(work, 1, self._caller.now())

    def _stations_of(self, lane: Lane) -> tuple[Station[RowQueue], Station[Work]]:
        route = self._parts.route(lane.mapping)
        assert lane.mapping is not None
        at = (route.target, lane.mapping.collection)
        if at not in self._lookups:
            target, failures = route.target, self._policy.failures
            self._lookups[at] = self._station(
                "lookup", target.limits(target.lookup), target.lookup_concurrency, failures, target
            )
            self._writes[at] = self._station(
                "write", target.limits(target.write), target.write_concurrency, failures, target
            )
        if self._writes[at] not in self._fed[route.provider]:
            self._fed[route.provider].append(self._writes[at])
        return self._lookups[at], self._writes[at]

    def _embed_of(self, provider: Provider) -> Embed:
        limits, failures = provider.limits, self._policy.failures
        station = self._station("embed", limits, provider.concurrency, failures, provider)
        return Embed(self._parts, self._caller, self.rows, provider, station, self._add_write)

    def _purges_of(self, target: Target) -> Station[Purge]:
        return self._station("purge", BatchLimits(items=1), 1, self._patient, target)

    def _station(
        self,
        name: str,
        limits: BatchLimits,
        concurrency: int,
        failures: FailurePolicy,
        peer: Provider | Target | None = None,
    ) -> Station[Any]:
        station: Station[Any] = Station(name, limits, concurrency, self._parts.random, failures)
        match peer:
            case Provider(name=called):
                station.provider = called
            case Target(name=called):
                station.store = called
        return station


def _has_active_entry(queue: RowQueue) -> bool:
    return any(entry.lane.active for entry in queue.waiting)
