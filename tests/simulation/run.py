"""Run one scenario through the very pump and check the invariants after every step.

``python -m tests.simulation.run FIRST COUNT`` runs seeds; a failing one is shrunk and its trace printed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.simulation.scenario import PARTITIONS, POISON_PRICE, POISON_TEXT, TOPIC, Scenario, draw
from tests.simulation.world import (
    SimBroker,
    SimClock,
    SimDeadLetters,
    SimExecutor,
    SimLog,
    SimProvider,
    SimSource,
    SimStore,
    SimTelemetry,
    schedule_faults,
    vector_of,
)
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import FailurePolicy
from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Deleted, Order, Position, Row, Upserted, text_hash
from vectide.core.template import Template
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.stream import Stream
from vectide.ports import Deadline, Partition, Stored
from vectide.testing.fold import Expected, Fold, Leaves, Nothing

MAPPING = TableMapping(
    table="products",
    source=TOPIC,
    collection="products",
    template=Template.parse("{title}[\n{body}]"),
    metadata=(MetadataField("price", "price"),),
    soft_delete=SoftDelete("gone"),
)
MAX_STEPS = 20_000
QUIET_AFTER_S = 20.0


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Run:
    """One world and the pump in it; after a crash another pump."""

    scenario: Scenario
    clock: SimClock = field(default_factory=SimClock)
    crashed: bool = False

    def __post_init__(self) -> None:
        seed, rate = self.scenario.seed, self.scenario.error_rate
        self.rng = random.Random(seed ^ 0x5EED)  # noqa: S311
        self.broker = SimBroker(self.clock, self.scenario.events, PARTITIONS)
        self.provider = SimProvider(self.rng, rate)
        self.store = SimStore(self.rng, rate)
        self.letters = SimDeadLetters(self.broker, self.rng, rate)
        self.log = SimLog(self.clock)
        self.settled: dict[Partition, set[int]] = {partition: set() for partition in self.broker.logs}
        world = {
            "provider": self.provider,
            "store": self.store,
            "letters": self.letters,
            "source": lambda: self.source,
        }
        schedule_faults(self.scenario, self.clock, world, self._crash)
        self.provider.watch = self._check_texts
        self._start()

    def _start(self) -> None:
        self.source = SimSource(self.broker, self.clock, self.rng)
        self.executor = SimExecutor(self.clock, self.rng)
        items = self.scenario.batch_items
        limits = BatchLimits(items=items, linger_s=0.05, quiet_s=0.002)
        policy = StreamPolicy(
            lookup=limits,
            embed=limits,
            write=limits,
            records_in_flight=self.scenario.records_in_flight,
            poll_records=10,
            commit_interval_s=0.2,
            revoke_drain_s=1.0,
            grace_s=4.0,
            failures=FailurePolicy(backoff_first_s=0.01, backoff_max_s=0.5, probe_s=0.5),
            breaker=BreakerLimits(in_a_row=10**6, window=10**6),
        )
        parts = Parts(
            self.source,
            self.broker.decode,
            lambda topic: MAPPING,
            self.provider,
            self.store,
            self.letters,
            self.executor,
            self.clock,
            SimTelemetry(),
            self.log,
            self.rng.random,
        )
        self.stream = Stream(parts, policy)
        inner = self.stream.intake.settle

        def settle(lane, offset, outcome, reason):  # type: ignore[no-untyped-def]
            self._check_settled(lane.id, offset, outcome, reason)
            self.settled[lane.id].add(offset)
            inner(lane, offset, outcome, reason)

        self.stream.intake.settle = settle  # type: ignore[method-assign]
        self.stream.start()

    def _crash(self) -> None:
        self.crashed = True

    def _restart(self) -> None:
        self.log.info("CRASH")
        self.crashed = False
        self.executor.crash()
        self._start()

    # --- run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until everything arrived is committed; then the final comparison."""
        for _ in range(MAX_STEPS):
            if self.crashed:
                self._restart()
            before_s = self.clock.now_s
            self.stream.step()
            self._check_step()
            if self.clock.now_s == before_s:
                self.clock.advance_to(self.clock.now_s + 0.0001)
            if self._is_quiet():
                self._check_end()
                return
        raise Violation(f"no rest after {MAX_STEPS} steps, {self.clock.now_s - 1000:.1f} s: {self.log.lines[-5:]}")

    def _is_quiet(self) -> bool:
        arrived = max((event.at_s for event in self.scenario.events), default=0.0) + 1000.0
        faulty = max((fault.at_s + fault.for_s for fault in self.scenario.faults), default=0.0) + 1000.0
        committed = all(
            self.broker.committed.get(partition, 0) == end for partition, end in self.broker.ends.items()
        )
        return self.clock.now_s > max(arrived, faulty) and committed and not self.crashed

    # --- checks -----------------------------------------------------------------------------------------

    def _require(self, holds: bool, message: str) -> None:
        if not holds:
            raise Violation(f"{message} (at {self.clock.now_s - 1000:.3f} s)")

    def _check_step(self) -> None:
        stream = self.stream
        for partition, committed in self.broker.committed.items():  # invariant 1
            for _, record in self.broker.logs[partition]:
                if record.offset >= committed:
                    break
                done = record.offset in self.settled[partition]
                self._require(done, f"invariant 1: {committed} committed before {record.where} settled")
        tally, lanes = stream.intake.tally, stream.lanes.values()
        flying = sum(len(lane.tracker) - lane.tracker.settled_ahead for lane in lanes)
        known = sum(tally[name] for name in ("written", "deleted", "skipped", "dead_lettered", "forgotten"))
        self._require(tally["received"] == known + flying, f"invariant 12: {dict(tally)}, in flight {flying}")
        limit = self.scenario.records_in_flight + 10
        held = stream.intake.budget.held_records
        self._require(held <= limit, f"invariant 11: {held} records held, {limit} allowed")
        busy = sum(lane.busy for lane in lanes)
        self._require(busy >= 0 and (flying > 0 or busy == 0), f"{busy} works for {flying} records")

    def _check_settled(self, partition: Partition, offset: int, outcome: str, reason: str) -> None:
        """Invariant 2, from outside: the store or the dead letters must show it."""
        change = self.broker.changes[(partition[1], offset)]
        if outcome == "dead_lettered":
            found = any((le.record.partition, le.record.offset) == (partition[1], offset) for le in self.broker.dead)
            self._require(found, f"invariant 2: {partition}@{offset} was not dead-lettered")
        elif outcome in ("written", "deleted"):
            assert isinstance(change, Upserted | Deleted)
            stamp = self._stored_stamp(MAPPING.row_of(change))
            if outcome == "deleted":
                self._require(stamp is None, f"invariant 2: {partition}@{offset} is not deleted")
                return
            mine = Position("log-1", partition[1], offset)
            fine = stamp is not None and stamp.position.relation_to(mine) in (Order.SAME, Order.NEWER)
            self._require(fine, f"invariant 2: {partition}@{offset} is not in the store")
        elif outcome == "skipped" and reason == "unchanged":
            assert isinstance(change, Upserted)
            stamp = self._stored_stamp(MAPPING.row_of(change))
            self._require(stamp is not None, f"invariant 2: {partition}@{offset} 'unchanged' but absent")

    def _stored_stamp(self, row: Row):  # type: ignore[no-untyped-def]
        return self.store.inner.stamps("products", [row], Deadline(self.clock, 9e9))[0]

    def _check_texts(self, texts: Sequence[str]) -> None:
        """Invariants 5 and 7 at the moment of the call."""
        under_way = self.stream.stations.texts_under_way()
        for text in texts:
            self._require("unavailable" not in text and bool(text.strip()), f"invariant 5: {text!r}")
            waiting = under_way.get(text_hash(text), ())
            wanted = not waiting or any(self._is_news(row, mine, text) for row, mine in waiting)
            self._require(wanted, f"invariant 7: {text!r} was sent although it is stored or overtaken")

    def _is_news(self, row: Row, mine: Position, text: str) -> bool:
        stamp = self._stored_stamp(row)
        if stamp is None:
            return True
        return stamp.chunks != (text_hash(text),) and mine.relation_to(stamp.position) is Order.NEWER

    def _check_end(self) -> None:
        points = {point.row: point for point in self._scan()}
        for row, history in self._histories().items():
            self._check_row(row, history, points.pop(row, None))
        self._require(not points, f"invariant 14: points of unknown rows: {sorted(map(str, points))}")
        self._check_dead()

    def _scan(self) -> Sequence[Stored]:
        return self.store.inner.scan("products", None, 10**6, Deadline(self.clock, 9e9), vectors=True)[0]

    def _histories(self) -> dict[Row, list[tuple[tuple[int, int], Leaves]]]:
        fold, histories = Fold(MAPPING), {}  # type: ignore[var-annotated]
        for (partition, offset), change in self.broker.changes.items():
            if isinstance(change, Upserted | Deleted):
                row, leaves = fold.apply(change)
                histories.setdefault(row, []).append(((partition, offset), leaves))
        return histories

    def _check_row(
        self, row: Row, history: list[tuple[tuple[int, int], Leaves]], point: Stored | None
    ) -> None:
        dead = {(letter.record.partition, letter.record.offset) for letter in self.broker.dead}
        last = max((at for at, (where, _) in enumerate(history) if where not in dead), default=-1)
        # A change that was dead-lettered for want of a column may have been applied by a replay that merged
        # it with the change before it.
        replayed = [leaves for _, leaves in history[last + 1 :] if not _refused(leaves)]
        due = history[last][1] if last >= 0 else None
        if any(_matches(point, leaves) for leaves in replayed):
            return
        self._require(_matches(point, due), f"invariant 14: {row} is {point}, expected {due}")
        if point is None:
            return
        assert isinstance(due, Expected)
        assert point.vector is not None
        right = np.array_equal(point.vector, vector_of(due.text))
        self._require(right, f"invariant 9: {row} has the vector of another text")
        assert point.stamp is not None
        overtaken = last + 1 < len(history)
        self._require(point.stamp.stale == overtaken, f"{row}: stale is {point.stamp.stale}, not {overtaken}")

    def _check_dead(self) -> None:
        """Only poison in the dead letters (invariant 10)."""
        refused = {at for history in self._histories().values() for at, leaves in history if _refused(leaves)}
        for letter in self.broker.dead:
            at = (letter.record.partition, letter.record.offset)
            change = self.broker.changes[at]
            partial = isinstance(change, Upserted) and bool(change.unavailable)
            poison = change is None or at in refused or partial
            self._require(poison, f"invariant 10: {at} was dead-lettered ({letter.cause})")


def _matches(point: Stored | None, leaves: Leaves | None) -> bool:
    if not isinstance(leaves, Expected):
        return point is None and leaves is not Nothing.UNKNOWABLE
    return point is not None and (point.text, dict(point.metadata)) == (leaves.text, dict(leaves.metadata))


def _refused(leaves: Leaves) -> bool:
    if not isinstance(leaves, Expected):
        return False
    return POISON_TEXT in leaves.text or POISON_PRICE in leaves.metadata.values()


def failure_of(scenario: Scenario) -> tuple[str, list[str]] | None:
    """What goes wrong in the scenario, with the log; None when nothing does."""
    run = Run(scenario)
    try:
        run.run()
    except Exception as error:  # noqa: BLE001  whatever it is, the seed has failed
        return f"{type(error).__name__}: {error}", run.log.lines
    return None


def shrink(scenario: Scenario) -> Scenario:
    """Leave out events and faults as long as it still fails."""
    progress = True
    while progress:
        progress = False
        for size in (8, 4, 2, 1):
            for kind in ("events", "faults"):
                at = 0
                while at < len(getattr(scenario, kind)):
                    gone = set(range(at, at + size))
                    smaller = scenario.without(gone if kind == "events" else set(), gone if kind == "faults" else set())
                    if failure_of(smaller) is not None:
                        scenario, progress = smaller, True
                    else:
                        at += size
    return scenario


def report(scenario: Scenario) -> str:
    """A short trace of a failing scenario."""
    small = shrink(scenario)
    failed = failure_of(small)
    assert failed is not None
    events = "\n".join(f"  {event.at_s:.3f} row {event.row} {event.kind} {event.change}" for event in small.events)
    faults = "\n".join(f"  {fault}" for fault in small.faults)
    log = "\n".join(failed[1][-40:])
    return (
        f"seed {scenario.seed}: {failed[0]}\nevents:\n{events}\nfaults:\n{faults}\n"
        f"error_rate={small.error_rate} batch_items={small.batch_items} "
        f"records_in_flight={small.records_in_flight}\nlog:\n{log}"
    )


def main(first: int, count: int) -> int:
    began = time.perf_counter()
    for seed in range(first, first + count):
        scenario = draw(seed)
        if failure_of(scenario) is not None:
            print(report(scenario))
            return 1
    print(f"{count} seeds from {first}: clean, {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
