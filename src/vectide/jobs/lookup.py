"""First station: what does the store hold of these rows? Then the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from vectide.core import signals
from vectide.core.completion import carried, completed
from vectide.core.failures import Failure
from vectide.core.lane import Entry, Lane, RowQueue
from vectide.core.model import Mapped, Order, Record, Row, Stamp, Upserted
from vectide.core.planner import (
    Drift,
    EmbedText,
    Incomplete,
    Known,
    MarkStale,
    Outranked,
    PatchMetadata,
    Plan,
    RemoveRow,
    Skip,
    Unfit,
    plan,
)
from vectide.core.station import Station, Unit
from vectide.core.values import ValueRefused
from vectide.core.vanishing import Vanishing
from vectide.jobs.calls import Caller
from vectide.jobs.epochs import Epochs
from vectide.jobs.generations import Generations
from vectide.jobs.intake import Intake
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Target
from vectide.jobs.rows import Rows
from vectide.jobs.work import Verdict, Work
from vectide.ports import Capabilities, Deadline

_DECISIONS = {
    Skip: "skip",
    PatchMetadata: "patch",
    EmbedText: "embed",
    RemoveRow: "remove",
    MarkStale: "skip",
    Incomplete: "incomplete",
    Drift: "drift",
    Outranked: "outranked",
    Unfit: "unfit",
}


class LookUp:
    """``embed`` and ``write`` take the works on; ``halt`` stops a table, ``halt_at`` a lane before what
    cannot be mapped."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        rows: Rows,
        intake: Intake,
        generations: Generations,
        halt: Callable[[str, str], None],
        halt_at: Callable[[Lane, Record, str], None],
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._rows = rows
        self._rows.let_go = self._let_go
        self._intake = intake
        #: Works whose chunks have no room yet, by the collection of their rows.
        self._waiting: dict[tuple[Target, str], deque[Work]] = {}
        self._halt = halt
        self._halt_at = halt_at
        self._epochs = Epochs(parts.telemetry, parts.log)
        self._vanishing = Vanishing()
        self._generations = generations
        self.embed: Callable[[Work, EmbedText], None]
        self.write: Callable[[Work], None]
        #: Asks the source for what a change lacks, then plans it again; only where the table has one.
        self.reread: Callable[[Work], None]

    def start(
        self, target: Target, collection: str, station: Station[RowQueue], unit: Unit[RowQueue]
    ) -> None:
        """Begin the works of the unit's rows and read their stamps."""
        works = [work for queue in unit.items if (work := self._rows.begin(queue)) is not None]
        if not works:
            station.withdraw(unit)
            return
        unit.items = [work.queue for work in works]
        # The former rows too of those whose primary key changed.
        wanted = [row for work in works for row in work.rows_to_look_up()]
        rows = list(dict.fromkeys(wanted))
        values = any(_may_need_values(work) for work in works)
        clock, store = self._parts.clock, target.store

        def call() -> Mapping[Row, Stamp | None]:
            deadline = Deadline.after(clock, target.timeout_s)
            limit = store.capabilities.max_batch_items
            found: dict[Row, Stamp | None] = {}
            for some in (rows[at : at + limit] for at in range(0, len(rows), limit)):
                found.update(zip(some, store.stamps(collection, some, deadline, values=values), strict=True))
            return found

        def succeed(stamps: Mapping[Row, Stamp | None]) -> None:
            station.succeeded(unit)
            for work in works:
                work.stamp = stamps[work.row]
                if work.moved_from is not None:
                    self._take_over(work, stamps[work.moved_from.row])
                self.arrived(work)

        def fail(failure: Failure) -> None:
            poison = self._caller.react(station, unit, failure)
            for work in works:
                if poison is not None:
                    verdict = Verdict(poison.cause, "lookup", failure.detail, unit.attempt + 1)
                    self._rows.poison(work, verdict)
                else:
                    self._rows.postpone(work)

        self._caller.start(station, unit, call, succeed, fail)

    def _take_over(self, work: Work, stamp: Stamp | None) -> None:
        """The row's primary key changed: what the event lacks is with the former row, and only there."""
        origin, lane, merged = work.moved_from, work.lane, work.merged
        assert origin is not None
        assert lane.mapping is not None
        assert isinstance(merged.change, Upserted)
        delete = lane.position_of(origin.delete.record)
        if stamp is None or stamp.position.relation_to(delete) is not Order.OLDER:
            return
        change = completed(merged.change, carried(stamp, lane.mapping))
        if change is not merged.change:
            work.complete(change)
            self._parts.telemetry.count(signals.COMPLETED, table=lane.table, reason="carried")

    # --- room for chunks --------------------------------------------------------------------------------

    def arrived(self, work: Work) -> None:
        """Plan the work, as soon as there is room for the chunks that this may make (invariant 11)."""
        lane, mapping = work.lane, work.lane.mapping
        if lane.active and mapping is not None and mapping.chunking is not None:
            at = (self._parts.route(mapping).target, mapping.collection)
            if at in self._waiting or not self._intake.admits(lane.table):
                self._waiting.setdefault(at, deque()).append(work)
                return
        self.plan(work)

    def is_held_back(self, target: Target, collection: str) -> bool:
        """Whether rows of the collection wait for room: then no more of them need to be looked up."""
        return (target, collection) in self._waiting

    def resume(self) -> None:
        """Plan the works for which there is room by now."""
        for at, works in list(self._waiting.items()):
            while works and self._intake.admits(works[0].lane.table):
                self.plan(works.popleft())
            if not works:
                del self._waiting[at]

    def sweep(self) -> None:
        """Forget what waits for lanes that are gone or leaving."""
        for works in self._waiting.values():
            gone = [work for work in works if not work.lane.active]
            for work in gone:
                works.remove(work)
                self._rows.forget(work)

    def _count_chunks(self, work: Work, dimensions: int) -> None:
        grown = work.measured_bytes(dimensions) - work.chunks_bytes
        if grown:
            work.chunks_bytes += grown
            self._intake.budget.grow(work.lane.table, grown)

    def _let_go(self, work: Work) -> None:
        self._intake.budget.grow(work.lane.table, -work.chunks_bytes)
        work.chunks_bytes = 0

    # --- plans ------------------------------------------------------------------------------------------

    def plan(self, work: Work) -> None:
        """Decide about the work, from what the store holds and the change as far as it is complete."""
        lane = work.lane
        if not lane.held:
            self._rows.drop_result(work, "lookup")
            return
        mapping, route = lane.mapping, self._parts.route(lane.mapping)
        assert mapping is not None
        unreadable = work.entries[-1].unreadable
        if unreadable is not None:
            self._rows.poison(work, Verdict(unreadable.cause, "decode", unreadable.detail))
            return
        self._epochs.met(work)
        merged = work.merged
        known = Known(
            work.row,
            merged.position,
            work.stamp,
            route.provider.embedder.space,
            fresh=merged.fresh,
            stale=merged.stale,
            must_write=merged.absorbed > 0,
            use_stored=not (mapping.rereads_first and self._may_reread(work)),
            ahead=work.reread is not None and bool(work.reread.columns),
            count_tokens=route.provider.embedder.count_tokens,
            mapped=self._generations.of(mapping),
        )
        work.plan = plan(merged.change, known, mapping)
        if self._has_vanished(work):
            return
        decision = _DECISIONS[type(work.plan)]
        try:
            work.plan = made_legal(work.plan, route.target.store.capabilities)
        except ValueRefused as refused:
            self._rows.poison(work, Verdict("value_refused", "plan", str(refused)))
            return
        self._parts.telemetry.count(signals.CHANGES_DECIDED, table=lane.table, decision=decision)
        if mapping.chunking is not None:
            self._count_chunks(work, route.provider.embedder.dimensions)
        self._perform(work)

    def _has_vanished(self, work: Work) -> bool:
        """Whether the documents of the table lose a field one after the other: then its lane halts here."""
        lane, change = work.lane, work.merged.change
        if lane.is_replay or lane.mapping is None or not isinstance(change, Upserted):
            return False
        if isinstance(work.plan, Skip) and work.plan.reason == "already_applied":
            return False  # it says nothing of today's documents
        stored = {} if work.stamp is None else work.stamp.columns
        vanished = self._vanishing.met(work.row, change, lane.mapping, stored)
        if vanished:
            names = ", ".join(vanished)
            self._parts.log.error("fields_vanished", table=lane.table, missing=names)
            self._rows.forget(work)
            self._halt_at(lane, work.entries[0].record, f"the documents have lost the fields: {names}")
        return bool(vanished)

    def _perform(self, work: Work) -> None:
        match work.plan:
            case Skip(reason):
                self._rows.finish(work, "skipped", reason)
            case EmbedText() as planned:
                self.embed(work, planned)
            case Incomplete(columns):
                self._incomplete(work, columns)
            case Unfit(cause, detail):
                self._rows.poison(work, Verdict(cause, "plan", detail))
            case Drift(columns) if work.lane.is_replay:
                # An event from before a column was added says nothing about those of today.
                names = ", ".join(columns)
                self._rows.poison(work, Verdict("drift", "plan", f"the event lacks mapped columns: {names}"))
            case Drift(columns):
                names = ", ".join(columns)
                self._parts.log.error("schema_drift", table=work.lane.table, missing=names)
                first = next(entry for entry in work.entries if _lacks_columns(entry))
                self._rows.forget(work)
                self._halt_at(work.lane, first.record, f"the events lack mapped columns: {names}")
            case Outranked(by):
                self._outranked(work, by)
            case _:
                self.write(work)

    def _outranked(self, work: Work, by: Mapped) -> None:
        assert work.lane.mapping is not None
        if self._generations.take_over(work.lane.mapping, by):
            self._parts.log.warning("mapping_taken_over", table=work.lane.table)
            self.plan(work)
        else:
            self._rows.forget(work)
            self._halt(work.lane.table, "rows are of a later mapping, which this process does not have")

    def _may_reread(self, work: Work) -> bool:
        mapping = work.lane.mapping
        asked = mapping is not None and mapping.rereads and self._parts.route(mapping).reader is not None
        return asked and work.reread is None

    def _incomplete(self, work: Work, columns: Sequence[str]) -> None:
        if not self._may_reread(work):
            asked = work.reread
            told = "" if asked is None else f" ({asked.why})"
            detail = f"unavailable columns: {', '.join(columns)}{told}"
            verdict = Verdict("incomplete_row", "plan", detail)
            self._rows.await_news(work, verdict, certain=asked is not None and asked.gone)
        elif self._rows.may_merge(work) and not work.merged.absorbed:
            self._rows.retry(work)  # cheaper, and the newer change may have it
        else:
            self.reread(work)


def made_legal(planned: Plan, able: Capabilities) -> Plan:
    """The plan with metadata that a store of these capabilities can hold, before anybody pays for a vector.

    Raises :class:`~vectide.core.values.ValueRefused` when it cannot."""
    match planned:
        case EmbedText(points, head=head):
            metadata = able.legal(points[0].metadata)  # every point of a row has the same
            if metadata != points[0].metadata:
                fit = tuple(replace(point, metadata=metadata) for point in points)
                patched = None if head is None else replace(head, metadata=metadata)
                return replace(planned, points=fit, head=patched)
        case PatchMetadata(given):
            metadata = able.legal(given)
            return planned if metadata == given else replace(planned, metadata=metadata)
    return planned


def _lacks_columns(entry: Entry) -> bool:
    mapping, change = entry.lane.mapping, entry.change
    return mapping is not None and isinstance(change, Upserted) and bool(mapping.missing(change))


def _may_need_values(work: Work) -> bool:
    """Whether what the store keeps may have to make up for what the change lacks."""
    change, mapping = work.merged.change, work.lane.mapping
    if mapping is None or not isinstance(change, Upserted) or not change.unavailable:
        return False
    return mapping.keeps_values or work.moved_from is not None
