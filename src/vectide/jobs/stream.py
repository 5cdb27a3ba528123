"""The pump: Kafka in, vector store out.

One thread calls :meth:`Stream.step` again and again and owns all state; workers receive values and return
values. Executor, clock and ports are given, so that a simulation runs this very code deterministically.

    receive -> decode -> lane (per row) -> LOOK UP -> plan -> EMBED -> WRITE -> settle -> commit
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vectide.core import signals
from vectide.core.failures import Kind
from vectide.core.lane import Entry, Lane
from vectide.core.lifecycle import State, Trouble, assess
from vectide.core.model import Change, Columns, DecodeError, Deleted, Ignored, Record, Truncated, Upserted
from vectide.jobs.intake import Intake
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.stations import Ends, Stations
from vectide.jobs.work import Verdict
from vectide.ports import (
    AdapterError,
    Deadline,
    Partition,
    SchemaMissing,
    Watchable,
)


class Stream:
    """The stream job. Implements :class:`vectide.ports.SourceListener`.

    Call :meth:`start`, then :meth:`step` until :attr:`finished`; :meth:`stop` (from the same thread) asks it
    to end. Exceptions out of :meth:`step` are fatal: nothing unsettled was committed.
    """

    def __init__(self, parts: Parts, policy: StreamPolicy) -> None:
        self._parts = parts
        self._policy = policy
        self.lanes: dict[Partition, Lane] = {}
        self.intake = Intake(parts, policy, self.lanes)
        ends = Ends(self.settle, self._may_dead_letter, self.halt, self._halt_at, self._lift)
        self.stations = Stations(parts, policy, ends, self.intake, self.lanes)
        self.stations.schemas.decode = self._decode
        self.stations.schemas.refuse = self._refuse
        self.stations.schemas.caught_up = self._caught_up
        self.status = assess(started=False, stopping=False, troubles=())
        self.stopping = False
        self.finished = False
        self.beat_s = parts.clock.monotonic()
        self._stop_at_s = 0.0
        self._commit_due_s = 0.0
        self._publish_due_s = 0.0
        self._halting: set[str] = set()
        self._flowing = False

    # --- the loop ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Subscribe; partitions arrive with the next steps."""
        self._parts.source.start(self)

    def step(self) -> None:
        """One turn: results in, calls out, records in, offsets on."""
        if self.finished:
            return
        self._advance(self._policy.busy_wait_s if self.stations.calls and not self._flowing else 0.0)
        if self.stopping:
            self._finish_when_drained()
            return
        records = self._parts.source.poll(self.intake.room(), self._poll_wait_s())
        self._flowing = bool(records)
        for record in records:
            self._receive(record)
        self._halt_stopped()
        self.stations.schemas.drain()
        self.stations.replays.step()
        self._dispatch()
        self.intake.balance()
        self._commit_when_due()
        self._publish_when_due()

    def stop(self) -> None:
        """Finish what is in flight or paid for, commit, leave. Unstarted work is left to the next owner."""
        if self.stopping:
            return
        self.stopping = True
        self._flowing = False  # nothing more comes: wait for the calls instead of spinning
        self._stop_at_s = self._now() + 0.75 * self._policy.grace_s
        self._parts.log.info("stopping", in_flight=self.intake.budget.held_records)
        self.intake.pause_all()
        self._leave(list(self.lanes.values()))
        self._update_status()

    def _advance(self, wait_s: float) -> None:
        """Handle finished calls (waiting at most ``wait_s`` for the first one) and start new ones."""
        self.beat_s = self._now()
        for _ in range(1 + self.stations.calls):  # bounded: the consumer must be polled
            finished = self._parts.executor.completed(wait_s)
            for completion in finished:
                completion.done(completion)
                self._dispatch()  # a free slot is not kept waiting for the other results
            if not finished:
                break
            wait_s = 0.0
        self._dispatch()

    def _poll_wait_s(self) -> float:
        if self.stations.calls:
            return 0.0
        due = self.stations.due_s()
        idle = self._policy.idle_wait_s
        return idle if due is None else min(idle, max(0.0, due - self._now()))

    def _dispatch(self) -> None:
        self.stations.dispatch(flush=self.stopping)

    def _now(self) -> float:
        return self._parts.clock.monotonic()

    # --- receive ----------------------------------------------------------------------------------------

    def _receive(self, record: Record) -> None:
        lane = self.intake.accept(record)
        if lane is not None:
            self.stations.schemas.take(lane, record)

    def _decode(self, lane: Lane, record: Record) -> None:
        """Decode the record and take it on, or raise SchemaMissing."""
        try:
            self._place(lane, record, self._parts.decode(record))
        except DecodeError as error:
            self._refuse(lane, record, error)
        except SchemaMissing:
            if lane.mapping is not None:
                raise
            self.settle(lane, record, "skipped", "unmapped_topic")

    def _refuse(self, lane: Lane, record: Record, error: DecodeError) -> None:
        self.stations.replays.met_poison(lane, record.key)
        if lane.mapping is None:
            self.settle(lane, record, "skipped", "unmapped_topic")
            return
        key = self._key_of(record)
        row = lane.mapping.row_at(key)
        if row is None:
            self.stations.letters.add(lane, record, Verdict(error.cause, "decode", error.detail))
        else:
            # Behind the row's changes before it, and before those after it: they must not be completed from
            # what the store has without it. (The error that was raised keeps what it was raised through.)
            why = DecodeError(error.cause, error.detail)
            entry = Entry(lane, record, Deleted(key), self._now(), unreadable=why)
            self.stations.rows.add(row, entry)

    def _key_of(self, record: Record) -> Columns | None:
        """The key of a record whose value cannot be decoded, or which nothing can be done with; None where
        that cannot be decoded either. Raises SchemaMissing where it may be later."""
        try:
            change = self._parts.decode(replace(record, value=None))
        except DecodeError:
            return None
        except SchemaMissing as missing:
            if self.stations.schemas.unknown_among(missing.ids) is None:
                raise
            return None
        return change.key if isinstance(change, Deleted) else None

    def _place(self, lane: Lane, record: Record, change: Change) -> None:
        match change:
            case Ignored(reason):
                self.settle(lane, record, "skipped", reason)
            case _ if lane.mapping is None:
                self.settle(lane, record, "skipped", "unmapped_topic")
            case Truncated() if lane.mapping.on_truncate == "skip":
                self._parts.log.warning("truncate_skipped", table=lane.table, where=record.where)
                self.settle(lane, record, "skipped", "truncate")
            case Truncated():
                self.intake.raise_barrier(lane, record)
                self.stations.truncates.add(lane, record)
                self.stations.replays.met_truncate(lane)
                self.stations.rows.wake_lane(lane)
            case Upserted() | Deleted():
                unneeded = lane.mapping.skip_reason(change)
                if unneeded is not None:
                    self.settle(lane, record, "skipped", unneeded)
                    return
                row = lane.mapping.row_of(change)
                self.stations.replays.met(lane, row)
                self.stations.rows.add(row, Entry(lane, record, change, self._now()))

    # --- settle and commit ------------------------------------------------------------------------------

    def settle(self, lane: Lane, record: Record, outcome: str, reason: str = "") -> None:
        """The record's one terminal state (invariant 2). Ignored when its lane is gone (invariant 4)."""
        if not lane.held:
            return
        self.intake.settle(lane, record.offset, outcome, reason)
        if lane.is_replay:
            self.stations.replays.settled(lane, outcome, reason)

    def _may_dead_letter(self, table: str) -> bool:
        return self.intake.breaker(table).dead_letter()

    def _commit_when_due(self) -> None:
        """On a clock, and soon when nothing is in flight: then the position is as good as it gets."""
        now, interval_s = self._now(), self._policy.commit_interval_s
        idle = self.intake.budget.held_records == 0
        if now < self._commit_due_s - (0.9 * interval_s if idle else 0.0):
            return
        positions = self._new_positions(list(self.lanes.values()))
        if positions or now >= self._commit_due_s:
            # Without new positions the source still retries what an earlier commit failed to bring home.
            self._commit_due_s = now + interval_s
            self._parts.source.commit(positions, wait=False)

    def _new_positions(self, lanes: Sequence[Lane]) -> Mapping[Partition, int]:
        positions = {}
        for lane in lanes:
            position = lane.tracker.position
            if position is not None and position != lane.committed:
                positions[lane.id] = lane.committed = position
        return positions

    def _commit_now(self, lanes: Sequence[Lane]) -> None:
        positions = {lane.id: lane.tracker.position for lane in lanes if lane.tracker.position is not None}
        if not positions:
            return
        try:
            self._parts.source.commit(positions, wait=True)
        except AdapterError as error:
            # Nothing is lost: the records come again, and what the store has costs nothing twice.
            self._parts.log.warning("commit_failed", cause=error.failure.cause, partitions=len(positions))

    # --- rebalance --------------------------------------------------------------------------------------

    def on_assigned(self, partitions: Mapping[Partition, str]) -> None:
        for (topic, partition), log_id in partitions.items():
            mapping = self._parts.mapping_of(topic)
            lane = Lane(topic, partition, log_id, mapping, leaving=self.stopping)
            self.lanes[lane.id] = lane
            if len(tables := self._parts.tables_of(topic)) > 1:
                # A topic that has come up since the start. Only other settings, and so a restart, mend it.
                cause = f"several tables take in the topic {topic}: {', '.join(tables)}"
                self._halt_lane(lane, cause, probe_after_s=math.inf)
            if mapping is not None and mapping.chunking is not None:
                self.intake.budget.set_aside()
        if self.stopping:
            self.intake.pause_all()
        self._parts.telemetry.count(signals.ASSIGNMENTS, len(partitions), outcome="assigned")
        self.intake.balance()

    def on_revoked(self, partitions: Sequence[Partition]) -> None:
        lanes = [self.lanes[partition] for partition in partitions if partition in self.lanes]
        self._leave(lanes)
        deadline = Deadline.after(self._parts.clock, self._policy.revoke_drain_s)
        beside = self.stations.replays.beside(lanes)
        while any(lane.busy for lane in [*lanes, *beside]) and not deadline.passed:
            self._advance(self._policy.busy_wait_s)
        self._commit_now(lanes)
        # Not ``lanes``: one that halted during the drain has a successor.
        self._forget([self.lanes[partition] for partition in partitions if partition in self.lanes])
        self._parts.telemetry.count(signals.ASSIGNMENTS, len(partitions), outcome="revoked")

    def on_lost(self, partitions: Sequence[Partition]) -> None:
        self._forget([self.lanes[partition] for partition in partitions if partition in self.lanes])
        self._parts.telemetry.count(signals.ASSIGNMENTS, len(partitions), outcome="lost")

    def on_end(self, partition: Partition, offset: int) -> None:
        lane = self.lanes.get(partition)
        # A resting lane has forgotten records before this end, a leaving one or one with a barrier or a stop
        # does not take them in.
        if lane is None or not lane.active or lane.resting or lane.stop_at is not None:
            return
        if lane.barrier is None:
            lane.tracker.reach(offset)
            self._caught_up(lane)

    def _lift(self, lane: Lane) -> None:
        self.intake.lift_barrier(lane)
        self.stations.schemas.resume(lane)

    def _caught_up(self, lane: Lane) -> None:
        if lane.active and lane.barrier is None and lane.at_end:
            self.stations.rows.wake_at_end(lane)

    def _leave(self, lanes: Sequence[Lane]) -> None:
        self.stations.replays.leave(lanes)
        for lane in lanes:
            lane.leaving = True
        self.stations.sweep()

    def _forget(self, lanes: Sequence[Lane]) -> None:
        self.stations.replays.forget(lanes)
        for lane in lanes:
            lane.held = False
            self.lanes.pop(lane.id, None)
            self.intake.forget(lane)
        self.stations.sweep()

    def halt(self, table: str, cause: str) -> None:
        """Stop the lanes of ``table``: forget their records, rewind, try again later (an operator must act).

        So one table's trouble holds neither memory nor another table's changes.
        """
        running = [lane for lane in self.lanes.values() if lane.table == table and not lane.resting]
        for lane in running:
            self._halt_lane(lane, cause)

    def _halt_lane(self, lane: Lane, cause: str, probe_after_s: float | None = None) -> None:
        self._parts.log.error("table_halted", table=lane.table, cause=cause, partition=lane.partition)
        self._forget([lane])
        probe_after_s = self._policy.halt_probe_s if probe_after_s is None else probe_after_s
        successor = lane.halted_successor(cause, self._now() + probe_after_s)
        self.lanes[lane.id] = successor
        self._parts.source.pause([lane.id])
        successor.paused = True

    def _halt_at(self, lane: Lane, record: Record, cause: str) -> None:
        """Halt the lane at this record, with everything before it done: who corrects the mapping needs the
        new one from here on, and the old one up to here.

        What was received is read again up to the record, since a change before it may have merged with one
        behind it.
        """
        first = lane.tracker.first
        if lane.leaving or first is None or first >= record.offset:
            self._halt_lane(lane, cause)
            return
        self._forget([lane])
        self.lanes[lane.id] = lane.stopping_successor(record.offset, cause)
        self._parts.source.rewind(lane.id, lane.tracker.position)

    def _halt_stopped(self) -> None:
        for lane in list(self.lanes.values()):
            if lane.stopped and lane.active and not lane.tracker.outstanding:
                self._halt_lane(lane, lane.stop_cause)

    # --- stop -------------------------------------------------------------------------------------------

    def _finish_when_drained(self) -> None:
        lanes = list(self.lanes.values())
        drained = not any(lane.busy for lane in [*lanes, *self.stations.replays.beside(lanes)])
        if not drained and self._now() < self._stop_at_s:
            self._parts.source.poll(1, self._poll_wait_s())  # keeps the membership; everything is paused
            return
        self._commit_now(lanes)
        left = self.intake.budget.held_records
        self._forget(lanes)
        self._parts.log.info("stopped", drained=drained, replayed_later=left)
        self.finished = True

    # --- surfaces ---------------------------------------------------------------------------------------

    def troubles(self) -> list[Trouble]:
        """What is wrong now, for the status."""
        found = self.stations.troubles()
        if isinstance(self._parts.source, Watchable):
            found += [
                Trouble(f"kafka {subject}", failure.cause, failure.kind is Kind.OPERATOR)
                for subject, failure in self._parts.source.failures.items()
            ]
        found += [
            Trouble(f"table {lane.table}", lane.halted, halting=True)
            for lane in self.lanes.values()
            if lane.halted
        ]
        return found

    def _update_status(self) -> None:
        troubles = self.troubles()
        status = assess(started=True, stopping=self.stopping, troubles=troubles)
        if status != self.status:
            self._parts.log.info("state", state=status.state.value, reason=status.reason)
            self.status = status
        telemetry = self._parts.telemetry
        for state in State:
            telemetry.gauge(signals.STATE, float(state is status.state), state=state.value)
        halting = {trouble.cause for trouble in troubles if trouble.halting}
        for cause in self._halting - halting:
            telemetry.gauge(signals.HALTED, math.nan, cause=cause)
        for cause in halting:
            telemetry.gauge(signals.HALTED, 1, cause=cause)
        self._halting = halting

    def _publish_when_due(self) -> None:
        now = self._now()
        if now < self._publish_due_s:
            return
        self._publish_due_s = now + 1.0
        self._update_status()
        self.intake.publish()
        self.stations.publish()
        self.stations.rows.wake_overdue()
        self.stations.replays.tick()
        for lane in self.lanes.values():
            if lane.resting and now >= lane.probe_at_s:
                self.intake.probe(lane)
