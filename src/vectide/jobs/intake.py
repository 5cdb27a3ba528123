"""What comes in and what is done with: lanes, budget, back-pressure, and the one place that settles."""

from __future__ import annotations

import math
from collections import Counter

from vectide.core import signals
from vectide.core.breaker import Breaker
from vectide.core.budget import Budget, memory_of
from vectide.core.lane import Lane
from vectide.core.model import Record
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.ports import Partition, Watchable


class Intake:
    """Owned by the pump. ``tally`` counts every record by what became of it: received = the sum of the
    outcomes + forgotten + in flight, at every instant (invariant 12)."""

    def __init__(self, parts: Parts, policy: StreamPolicy, lanes: dict[Partition, Lane]) -> None:
        self._parts = parts
        self._policy = policy
        self._lanes = lanes
        self.budget = Budget(policy.records_in_flight, policy.bytes_in_flight)
        self.tally: Counter[str] = Counter()
        self._active = 1
        self._breakers: dict[str, Breaker] = {}

    def breaker(self, table: str) -> Breaker:
        if table not in self._breakers:
            self._breakers[table] = Breaker(self._policy.breaker)
        return self._breakers[table]

    def room(self) -> int:
        """How many records to ask for. At least one: the consumer must be polled whatever happens, and
        while the budget is spent every partition is paused."""
        return max(1, min(self._policy.poll_records, self.budget.room()))

    def accept(self, record: Record) -> Lane | None:
        """Count the record in; None when nobody here owns its partition, its lane rests (the record is read
        again when the lane tries again), has a barrier (and again when that is gone) or stops before it, or
        it was received before."""
        lane = self._lanes.get((record.topic, record.partition))
        if lane is None or not lane.active or lane.resting or lane.barrier is not None:
            return None
        if lane.stop_at is not None and record.offset >= lane.stop_at:
            lane.stopped = True
            self._set_paused([lane], paused=True)
            return None
        if not lane.tracker.is_new(record.offset):
            return None
        self.hold(lane, record)
        return lane

    def room_for_replay(self) -> bool:
        """Whether the budgets have room for one record that Kafka does not deliver."""
        return self.budget.room() > 0

    def hold(self, lane: Lane, record: Record) -> None:
        """Count a record in that is new to its lane."""
        lane.tracker.receive(record.offset)
        size = memory_of(record.size_bytes)
        lane.arrivals[record.offset] = (size, self._parts.clock.monotonic())
        lane.bytes_held += size
        self.budget.take(lane.table, size)
        self.tally["received"] += 1
        self._parts.telemetry.count(signals.RECORDS_RECEIVED, topic=record.topic)

    def settle(self, lane: Lane, offset: int, outcome: str, reason: str) -> None:
        """Move the record to its terminal state and the lane's position over what is settled."""
        passed = lane.tracker.settle(offset)
        freed = sum(lane.arrivals.pop(done)[0] for done in passed)
        lane.bytes_held -= freed
        self.budget.release(lane.table, len(passed), freed)
        self.tally[outcome] += 1
        telemetry = self._parts.telemetry
        telemetry.count(signals.RECORDS_SETTLED, table=lane.table, outcome=outcome)
        if outcome == "skipped":
            telemetry.count(signals.CHANGES_SKIPPED, table=lane.table, reason=reason)
        if outcome == "dead_lettered":
            telemetry.count(signals.DEAD_LETTERS, table=lane.table, cause=reason)
        elif not lane.is_replay:
            self.breaker(lane.table).success()
            lane.halted = ""

    def forget(self, lane: Lane) -> None:
        """The lane is gone: its unsettled records are somebody else's now."""
        count = len(lane.tracker)
        self.tally["forgotten"] += count - lane.tracker.settled_ahead
        self.tally["forgotten_settled"] += lane.tracker.settled_ahead
        self.budget.release(lane.table, count, lane.bytes_held)
        lane.arrivals.clear()
        lane.bytes_held = 0
        if not lane.is_replay:
            for gauge in (signals.LAG, signals.COMMITTED_OFFSET):  # not ours to tell any more
                self._gauge(gauge, lane, math.nan)
        if count:
            self._parts.telemetry.count(
                signals.RECORDS_FORGOTTEN, count - lane.tracker.settled_ahead, topic=lane.topic
            )

    # --- back-pressure ----------------------------------------------------------------------------------

    def balance(self) -> None:
        """Pause the lanes of tables whose budget is spent, resume those that have room again."""
        tables = self._active = len({lane.table for lane in self._lanes.values()})
        pause, resume = [], []
        for lane in self._lanes.values():
            if lane.resting or lane.leaving or lane.stopped or lane.barrier is not None:
                continue
            full = self.budget.is_full(lane.table, tables, stopped=lane.paused)
            if full and not lane.paused:
                pause.append(lane)
            elif lane.paused and not full:
                resume.append(lane)
        self._set_paused(pause, paused=True)
        self._set_paused(resume, paused=False)

    def admits(self, table: str) -> bool:
        """Whether there is room for the chunks of one more row of ``table``."""
        return self.budget.admits(table, self._active)

    def raise_barrier(self, lane: Lane, record: Record) -> None:
        """Take nothing more into the lane until what it has received is done with."""
        lane.barrier = record
        self._set_paused([lane], paused=True)

    def lift_barrier(self, lane: Lane) -> None:
        """Go on behind the barrier; what was read of that in the meantime was not taken in."""
        barrier, lane.barrier = lane.barrier, None
        if barrier is not None and lane.active:
            self._parts.source.rewind(lane.id, barrier.offset + 1)

    def pause_all(self) -> None:
        self._set_paused([lane for lane in self._lanes.values() if not lane.paused], paused=True)

    def probe(self, lane: Lane) -> None:
        """A halted lane tries again from its position, as soon as the budget has room. It stays named as
        halted until a record succeeds."""
        self.breaker(lane.table).rearm()
        self._parts.source.rewind(lane.id, lane.tracker.position)
        lane.resting = False

    def _set_paused(self, lanes: list[Lane], *, paused: bool) -> None:
        if not lanes:
            return
        partitions = [lane.id for lane in lanes]
        if paused:
            self._parts.source.pause(partitions)
        else:
            self._parts.source.resume(partitions)
        for lane in lanes:
            lane.paused = paused

    # --- surfaces ---------------------------------------------------------------------------------------

    def publish(self) -> None:
        telemetry = self._parts.telemetry
        telemetry.gauge(signals.RECORDS_IN_FLIGHT, self.budget.held_records)
        telemetry.gauge(signals.BYTES_IN_FLIGHT, self.budget.held_bytes + self.budget.held_by_rows)
        telemetry.gauge(signals.LANES, len(self._lanes))
        telemetry.gauge(signals.PAUSED_PARTITIONS, sum(lane.paused for lane in self._lanes.values()))
        telemetry.gauge(signals.OLDEST_UNSETTLED, self._oldest_age_s())
        source = self._parts.source
        ends = source.end_offsets() if isinstance(source, Watchable) else {}
        for lane in self._lanes.values():
            if lane.tracker.position is not None:
                self._gauge(signals.COMMITTED_OFFSET, lane, lane.tracker.position)
            if lane.tracker.behind is not None:
                first, known_end = lane.tracker.behind
                self._gauge(signals.LAG, lane, max(known_end, ends.get(lane.id, 0)) - first)

    def _oldest_age_s(self) -> float:
        oldest = [next(iter(lane.arrivals.values()))[1] for lane in self._lanes.values() if lane.arrivals]
        return self._parts.clock.monotonic() - min(oldest) if oldest else 0.0

    def _gauge(self, name: str, lane: Lane, value: float) -> None:
        self._parts.telemetry.gauge(name, value, topic=lane.topic, partition=str(lane.partition))
