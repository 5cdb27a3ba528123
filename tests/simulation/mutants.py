"""Defects to plant in the pump, so that a test can tell whether the simulation would find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from tests.simulation.broker import SimRegistry
from tests.simulation.run import failing, failure_of, shrink

from vectide.core import chunkdiff, completion, opening, planner
from vectide.core import lane as lanes
from vectide.core.breaker import Breaker
from vectide.core.budget import Budget
from vectide.core.chunkdiff import Tail
from vectide.core.failures import Failure, Kind
from vectide.core.lane import Entry, Lane, Merged, RowQueue
from vectide.core.mapping import TableMapping
from vectide.core.model import Deleted, Record, Row, Stamp
from vectide.core.planner import Drift, Known, PatchMetadata, Plan, RemoveRow, Skip
from vectide.core.station import Station, Unit
from vectide.core.tracker import Tracker
from vectide.jobs import lookup, reread, steps, truncates, work
from vectide.jobs.embed import Embed
from vectide.jobs.intake import Intake
from vectide.jobs.letters import Letters
from vectide.jobs.moves import Moves
from vectide.jobs.rows import Rows
from vectide.jobs.schemas import Schemas
from vectide.jobs.stream import Stream
from vectide.jobs.truncates import Page
from vectide.jobs.work import TextItem, Verdict, Work
from vectide.jobs.write import Write
from vectide.ports import (
    AdapterError,
    Deadline,
    Embeddings,
    Outcome,
    Partition,
    RegisteredSchema,
    Remove,
    SchemaId,
    SchemaMissing,
)

Plant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Plant] = {}


def mutant(plant: Plant) -> Plant:
    """List the defect under its function's name."""
    MUTANTS[plant.__name__] = plant
    return plant


def hunt(name: str, seeds: int, events: int) -> tuple[int, int, str] | None:
    """A seed that finds the defect, the events of its shrunk trace, and what it says; the first seed whose
    trace has at most ``events``, else the best of a few."""
    best: tuple[int, int, str] | None = None
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        for scenario in islice(failing(range(seeds)), 4):
            small = shrink(scenario)
            found = failure_of(small)
            assert found is not None
            if best is None or len(small.events) < best[1]:
                best = (scenario.seed, len(small.events), found[0])
            if best[1] <= events:
                break
    return best


# --- offsets ------------------------------------------------------------------------------------------------


@mutant
def the_position_passes_unsettled_records(patch: pytest.MonkeyPatch) -> None:
    settle = Tracker.settle

    def wrong(self: Tracker, offset: int) -> list[int]:
        passed = settle(self, offset)
        self.position = offset + 1
        return passed

    patch.setattr(Tracker, "settle", wrong)


@mutant
def a_resting_lane_believes_the_end_of_the_log(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Stream, partition: Partition, offset: int) -> None:
        if partition in self.lanes:
            self.lanes[partition].tracker.reach(offset)

    patch.setattr(Stream, "on_end", wrong)


@mutant
def a_resting_lane_takes_records(patch: pytest.MonkeyPatch) -> None:
    accept = Intake.accept

    def wrong(self: Intake, record: Any) -> Lane | None:
        lane = self._lanes.get((record.topic, record.partition))
        resting = lane is not None and lane.resting
        if lane is not None:
            lane.resting = False
        accepted = accept(self, record)
        if lane is not None:
            lane.resting = resting
        return accepted

    patch.setattr(Intake, "accept", wrong)


@mutant
def a_lost_partition_is_committed(patch: pytest.MonkeyPatch) -> None:
    on_lost = Stream.on_lost

    def wrong(self: Stream, partitions: Sequence[Partition]) -> None:
        self._commit_now([self.lanes[partition] for partition in partitions])
        on_lost(self, partitions)

    patch.setattr(Stream, "on_lost", wrong)


@mutant
def lanes_that_are_gone_are_still_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "__setattr__", _never_clear_held)


def _never_clear_held(lane: Lane, name: str, value: Any) -> None:
    object.__setattr__(lane, name, True if name == "held" else value)


# --- settling -----------------------------------------------------------------------------------------------


@mutant
def records_settle_before_the_write(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Embed, item: TextItem, vector: Any) -> None:
        for waiting, _ in item.waiters:
            self._rows.finish(waiting, "written")

    patch.setattr(Embed, "_deliver", wrong)


@mutant
def a_patch_that_met_no_point_counts_as_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rows, "retry", lambda self, missed: self.finish(missed, "written"))


@mutant
def letters_settle_before_the_broker_confirms(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Letters, lane: Lane, record: Any, verdict: Verdict) -> None:
        self._settle(lane, record, "dead_lettered", verdict.cause)

    patch.setattr(Letters, "add", wrong)


@mutant
def absorbed_changes_are_lost_with_the_poison(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Rows, buried: Work) -> None:
        assert buried.verdict is not None
        self._end(buried)
        self.send_letter(buried.lane, buried.entries[-1].record, buried.verdict)

    patch.setattr(Rows, "bury", wrong)


@mutant
def absorbed_changes_die_with_the_poison(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Rows, buried: Work) -> None:
        assert buried.verdict is not None
        self._end(buried)
        for entry in buried.entries:
            self.send_letter(buried.lane, entry.record, buried.verdict)

    patch.setattr(Rows, "bury", wrong)


@mutant
def an_outage_condemns_records(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Station[Any], unit: Unit[Any]) -> None:
        unit.strikes += 1

    patch.setattr(Station, "_count_strike", wrong)


# --- order --------------------------------------------------------------------------------------------------


@mutant
def a_row_is_worked_on_twice_at_once(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Rows, queue: RowQueue) -> None:
        if not queue.queued:
            queue.queued = True
            self.look_up(queue)

    patch.setattr(Rows, "_schedule", wrong)


@mutant
def what_is_repeated_goes_to_the_back(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Rows, failed: Work) -> None:
        failed.queue.waiting.extend(failed.entries)
        failed.queue.queued = True
        self._end(failed)

    patch.setattr(Rows, "postpone", wrong)


@mutant
def merged_changes_have_the_position_of_the_first(patch: pytest.MonkeyPatch) -> None:
    def wrong(entries: Sequence[Entry]) -> Merged:
        first = entries[0]
        return replace(lanes.merge(entries), position=first.lane.position_of(first.record))

    patch.setattr(work, "merge", wrong)


@mutant
def the_fence_is_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "_already_applied", lambda position, stamp: False)


@mutant
def workers_write_for_partitions_that_are_gone(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Write, collection: str, works: Any, writes: Any) -> Sequence[Outcome | None]:
        flat = [write for own in writes for write in own]
        outcomes = self._parts.store.write(collection, flat, None)  # type: ignore[arg-type]
        return list(outcomes)

    patch.setattr(Write, "_write", wrong)


# --- deciding -----------------------------------------------------------------------------------------------


def _patch_plan(patch: pytest.MonkeyPatch, known_as: Callable[[Known], Known]) -> None:
    plan = planner.plan
    patch.setattr(lookup, "plan", lambda change, known, mapping: plan(change, known_as(known), mapping))


@mutant
def merged_changes_leave_no_position(patch: pytest.MonkeyPatch) -> None:
    _patch_plan(patch, lambda known: replace(known, must_write=False))


@mutant
def what_follows_a_delete_is_completed_from_the_store(patch: pytest.MonkeyPatch) -> None:
    _patch_plan(patch, lambda known: replace(known, fresh=False))


@mutant
def a_stale_row_completes_changes(patch: pytest.MonkeyPatch) -> None:
    def trusting(stamp: Stamp | None) -> Stamp | None:
        return None if stamp is None else replace(stamp, stale=False)

    _patch_plan(patch, lambda known: replace(known, stamp=trusting(known.stamp)))


@mutant
def stale_rows_are_not_marked(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Rows, poisoned: Work, verdict: Verdict) -> None:
        if not poisoned.ended:
            poisoned.verdict = verdict
            self.bury(poisoned)

    patch.setattr(Rows, "poison", wrong)


@mutant
def columns_carry_across_a_delete(patch: pytest.MonkeyPatch) -> None:
    def wrong(entries: Sequence[Entry]) -> Merged:
        *absorbed, last = entries
        kept = [entry for entry in absorbed if not isinstance(entry.change, Deleted)]
        return replace(lanes.merge([*kept, last]), absorbed=len(absorbed))

    patch.setattr(work, "merge", wrong)


@mutant
def changed_metadata_counts_as_unchanged(patch: pytest.MonkeyPatch) -> None:
    def wrong(change: Any, known: Known, mapping: Any) -> Plan:
        made = planner.plan(change, known, mapping)
        return Skip("unchanged") if isinstance(made, PatchMetadata) else made

    patch.setattr(lookup, "plan", wrong)


@mutant
def unchanged_texts_are_embedded_again(patch: pytest.MonkeyPatch) -> None:
    def wrong(change: Any, known: Known, mapping: Any) -> Plan:
        made = planner.plan(change, known, mapping)
        if not isinstance(made, PatchMetadata) or change.unavailable or known.stamp is None:
            return made
        return planner.plan(change, replace(known, stamp=replace(known.stamp, chunks=("?",))), mapping)

    patch.setattr(lookup, "plan", wrong)


@mutant
def a_drifted_schema_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    def wrong(change: Any, known: Known, mapping: Any) -> Plan:
        made = planner.plan(change, known, mapping)
        return Skip("unchanged") if isinstance(made, Drift) else made

    patch.setattr(lookup, "plan", wrong)


@mutant
def moved_columns_are_not_kept_anew(patch: pytest.MonkeyPatch) -> None:
    def wrong(change: Any, known: Known, mapping: Any) -> Plan:
        made = planner.plan(change, known, mapping)
        return replace(made, values=None) if isinstance(made, PatchMetadata) else made

    patch.setattr(lookup, "plan", wrong)


# --- filters ------------------------------------------------------------------------------------------------


@mutant
def rows_that_leave_the_filter_stay(patch: pytest.MonkeyPatch) -> None:
    def wrong(change: Any, known: Known, mapping: Any) -> Plan:
        made = planner.plan(change, known, mapping)
        return Skip("unchanged") if isinstance(made, RemoveRow) and made.reason == "filtered" else made

    patch.setattr(lookup, "plan", wrong)


@mutant
def what_is_stored_is_taken_to_match_the_filter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TableMapping, "was_matched", lambda self, hashes, stored: True)


@mutant
def what_nobody_knows_does_not_match_the_filter(patch: pytest.MonkeyPatch) -> None:
    matches = TableMapping.matches_where
    patch.setattr(TableMapping, "matches_where", lambda self, columns: matches(self, columns) is True)


# --- what the events leave out -----------------------------------------------------------------------------


@mutant
def the_delete_of_a_changed_key_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Moves, "arrived", lambda self, row, entry: None)


@mutant
def the_delete_of_a_changed_key_waits_only_for_the_arrival_of_the_create(patch: pytest.MonkeyPatch) -> None:
    arrived = Moves.arrived

    def wrong(self: Moves, row: Row, entry: Entry) -> RowQueue | None:
        freed = arrived(self, row, entry)
        for old, delete in entry.takes_from:
            delete.holds = False
            freed = self._queues[old]
        return freed

    patch.setattr(Moves, "arrived", wrong)


@mutant
def a_changed_key_takes_what_the_store_has_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Moves, "is_ready", lambda self, origin: True)


@mutant
def what_was_read_again_is_carried_to_another_key(patch: pytest.MonkeyPatch) -> None:
    def wrong(stamp: Stamp | None, mapping: Any) -> Any:
        return completion.carried(None if stamp is None else replace(stamp, ahead=False), mapping)

    patch.setattr(lookup, "carried", wrong)


@mutant
def changes_before_a_changed_key_merge_with_its_delete(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: RowQueue) -> list[Entry]:
        taken: list[Entry] = []
        while self.waiting:
            entry = self.waiting[0]
            if taken and entry.lane is not taken[0].lane:
                break
            if entry.holds and not taken:
                break
            taken.append(self.waiting.popleft())
        return [entry for entry in taken if entry.lane.active]

    patch.setattr(RowQueue, "take", wrong)


@mutant
def what_was_read_again_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reread, "completed", lambda change, columns: change)


@mutant
def the_source_is_never_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lookup.LookUp, "_may_reread", lambda self, work: False)


@mutant
def a_row_that_the_source_no_longer_has_is_condemned_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Rows, "await_news", lambda self, lacking, verdict, certain=False: self.poison(lacking, verdict)
    )


# --- embedding ----------------------------------------------------------------------------------------------


@mutant
def vectors_are_shifted_by_one(patch: pytest.MonkeyPatch) -> None:
    arrived = Embed._arrived  # noqa: SLF001

    def wrong(self: Embed, unit: Any, items: Any, answer: Embeddings | None) -> None:
        if answer is not None:
            answer = Embeddings(np.roll(answer.vectors, 1, axis=0))
        arrived(self, unit, items, answer)

    patch.setattr(Embed, "_arrived", wrong)


@mutant
def identical_texts_lose_their_second_row(patch: pytest.MonkeyPatch) -> None:
    deliver = Embed._deliver  # noqa: SLF001

    def wrong(self: Embed, item: TextItem, vector: Any) -> None:
        item.waiters = item.waiters[:1]
        deliver(self, item, vector)

    patch.setattr(Embed, "_deliver", wrong)


# --- limits -------------------------------------------------------------------------------------------------


@mutant
def nothing_is_ever_full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Budget, "is_full", lambda self, table, tables, *, stopped: False)


@mutant
def what_settles_is_never_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Budget, "release", lambda self, table, records, size_bytes: None)


@mutant
def a_flood_of_dead_letters_is_not_stopped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "dead_letter", lambda self: True)


# --- schemas ------------------------------------------------------------------------------------------------


@mutant
def records_overtake_those_that_wait_for_a_schema(patch: pytest.MonkeyPatch) -> None:
    def take(self: Schemas, lane: Lane, record: Record) -> None:
        try:
            self.decode(lane, record)
        except SchemaMissing:
            inner(self, lane, record)

    inner = Schemas.take
    patch.setattr(Schemas, "take", take)


@mutant
def what_waited_for_a_schema_is_left_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Schemas, "drain", lambda self: None)


@mutant
def a_registry_that_is_down_condemns_records(patch: pytest.MonkeyPatch) -> None:
    def fetch(self: SimRegistry, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        if self.down:
            raise AdapterError(Failure(Kind.REFUSED, "schema_unknown"))
        return inner(self, schema_id, deadline)

    inner = SimRegistry.fetch
    patch.setattr(SimRegistry, "fetch", fetch)


@mutant
def what_waited_behind_a_truncate_is_left_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Schemas, "resume", lambda self, lane: None)


# --- rows of several chunks ---------------------------------------------------------------------------------


@mutant
def nothing_says_that_a_row_is_being_changed(patch: pytest.MonkeyPatch) -> None:
    opened = opening.opened
    patch.setattr(steps, "opened", lambda stamp, new: replace(opened(stamp, new), open=False))


@mutant
def an_open_row_counts_as_whole(patch: pytest.MonkeyPatch) -> None:
    def closed(stamp: Stamp | None) -> Stamp | None:
        return None if stamp is None else replace(stamp, open=False)

    _patch_plan(patch, lambda known: replace(known, stamp=closed(known.stamp)))


@mutant
def the_last_step_comes_before_the_others(patch: pytest.MonkeyPatch) -> None:
    steps_of = steps.steps_of

    def wrong(*given: Any, **able: Any) -> list[Any]:
        *others, last = steps_of(*given, **able)
        return [*others[:1], last, *others[1:]]

    patch.setattr(work, "steps_of", wrong)


@mutant
def a_row_is_removed_from_its_head_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "_removal", lambda remove, stamp: [steps.Step((remove,), None)])


def _patch_tail(patch: pytest.MonkeyPatch, wrong: Callable[[Tail], Tail]) -> None:
    difference = chunkdiff.difference

    def differs(*given: Any) -> chunkdiff.Difference:
        found = difference(*given)
        return replace(found, tail=wrong(found.tail))

    patch.setattr(planner, "difference", differs)


@mutant
def surplus_chunks_stay(patch: pytest.MonkeyPatch) -> None:
    _patch_tail(patch, lambda tail: replace(tail, ids=(*tail.ids, *tail.gone), gone=()))


@mutant
def chunks_that_stay_are_not_patched(patch: pytest.MonkeyPatch) -> None:
    _patch_tail(patch, lambda tail: replace(tail, changed=()))


@mutant
def chunks_that_stay_keep_their_index(patch: pytest.MonkeyPatch) -> None:
    def wrong(row: Any, stamp: Any, new: Stamp) -> chunkdiff.Difference:
        found = chunkdiff.difference(row, stamp, new)
        was = {} if stamp is None else {id_: at for at, id_ in enumerate(row.chunk_ids(stamp.chunks))}
        changed = tuple((id_, was[id_]) for id_, _ in found.tail.changed)
        return replace(found, tail=replace(found.tail, changed=changed))

    patch.setattr(planner, "difference", wrong)


@mutant
def unchanged_chunks_are_embedded_again(patch: pytest.MonkeyPatch) -> None:
    def wrong(row: Any, stamp: Stamp | None, new: Stamp) -> chunkdiff.Difference:
        return chunkdiff.difference(row, None if stamp is None else replace(stamp, open=True), new)

    patch.setattr(planner, "difference", wrong)


@mutant
def a_text_that_a_row_has_twice_is_one_chunk(patch: pytest.MonkeyPatch) -> None:
    chunk_ids = Row.chunk_ids

    def wrong(self: Row, chunks: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            chunk_ids(self, (*chunks[:1], chunk))[-1] if at else self.head_id
            for at, chunk in enumerate(chunks)
        )

    patch.setattr(Row, "chunk_ids", wrong)


@mutant
def a_row_that_was_only_begun_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stamp, "unborn", False)


# --- truncates ----------------------------------------------------------------------------------------------


@mutant
def a_truncate_does_not_wait_for_what_came_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tracker, "outstanding", 1)


@mutant
def a_truncate_ends_with_the_first_page(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Page, removed: int, cursor: str | None) -> None:
        object.__setattr__(self, "removed", removed)
        object.__setattr__(self, "cursor", None)

    patch.setattr(Page, "__init__", wrong)


@mutant
def what_follows_a_truncate_is_not_read_again(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Intake, lane: Lane) -> None:
        lane.barrier = None

    patch.setattr(Intake, "lift_barrier", wrong)


@mutant
def a_truncate_knows_only_the_heads_of_rows(patch: pytest.MonkeyPatch) -> None:
    def wrong(writes: Sequence[Remove], stamp: Stamp, **able: bool) -> list[steps.Step]:
        return [steps.Step((Remove(remove.row, (remove.row.head_id,)),), None) for remove in writes]

    patch.setattr(truncates, "steps_of", wrong)


@mutant
def the_end_of_the_log_counts_behind_a_truncate(patch: pytest.MonkeyPatch) -> None:
    on_end = Stream.on_end

    def wrong(self: Stream, partition: Partition, offset: int) -> None:
        lane = self.lanes.get(partition)
        if lane is not None and lane.active and not lane.resting:
            lane.tracker.reach(offset)
        on_end(self, partition, offset)

    patch.setattr(Stream, "on_end", wrong)
