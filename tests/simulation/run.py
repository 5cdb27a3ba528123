"""Run one scenario through the very pump and check the invariants after every step.

``python -m tests.simulation.run FIRST COUNT`` runs seeds; a failing one is shrunk and its trace printed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context

from tests.simulation.broker import SimBroker, SimDeadLetters, SimRegistry, SimSource
from tests.simulation.checks import Violation, Watch, require
from tests.simulation.clock import START_S, SimClock, SimExecutor
from tests.simulation.scenario import NO_LIMIT, TABLES, Scenario, draw
from tests.simulation.world import (
    SOON,
    SimLog,
    SimProvider,
    SimReader,
    SimStore,
    SimTelemetry,
    World,
    schedule,
)

from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import FailurePolicy
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.stream import Stream
from vectide.ports import Letter, Stored

MAX_STEPS = 20_000
#: Seeds that a process takes at a time.
CHUNK = 100
#: When everything that disturbs is over, the pump must come to rest within this time.
REST_WITHIN_S = 120.0
#: When the last event and fault are over, an operator raises the limit of the dead-letter breaker.
OPERATOR_COMES_AFTER_S = 3.0
GRACE_S = 4.0


class Killed(BaseException):
    """The process dies in the middle of a step."""


class Run:
    """One world and the pump in it; after a crash or a stop another pump."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = SimClock()
        self.log = SimLog(self.clock)
        self._rng = rng = random.Random(scenario.seed * 31 + scenario.luck)  # noqa: S311
        broker = SimBroker(self.clock, scenario.events, scenario.per_schema)
        self._world = World(
            self.clock,
            broker,
            SimProvider(rng, scenario.error_rate),
            SimStore(rng, scenario),
            SimDeadLetters(broker, rng, scenario.error_rate),
            SimSource(broker, self.clock, rng, scenario.commits_lost),
            SimReader(self.clock, rng, scenario),
            SimRegistry(rng, scenario.error_rate),
        )
        self._watch = Watch(self._world, scenario)
        self.log.heard = self._watch.log_line
        self._watch.settles = self._count_settled
        self._settles = self._writes = 0
        self._executor = SimExecutor(self.clock, rng)
        self._crashed = False
        self._ousted = False
        self._stopped_at_s: float | None = None
        self._dead_in_a_row = scenario.dead_in_a_row
        events = [event.at_s for event in scenario.events]
        faults = [fault.at_s + fault.for_s for fault in scenario.faults]
        self._calm_at_s = START_S + max([0.0, *events, *faults])
        schedule(self._world, scenario.faults, self._strike)
        self._start()

    def _start(self) -> None:
        world, telemetry = self._world, SimTelemetry()
        world.source = SimSource(world.broker, self.clock, self._rng, self.scenario.commits_lost)
        world.broker.learned.clear()
        self._executor = SimExecutor(self.clock, self._rng)
        self._executor.watch = self._count_call
        self._executor.due_s = lambda: self.stream.stations.due_s()
        parts = Parts(
            world.source,
            world.broker.decode,
            TABLES.get,
            world.provider,
            world.store,
            world.letters,
            self._executor,
            self.clock,
            telemetry,
            self.log,
            self._rng.random,
            None if self.scenario.ahead_s is None else world.reader,
            world.registry,
            world.broker.learn,
        )
        self.stream = Stream(parts, self._policy())
        self._watch.follow(self.stream, telemetry, self._dead_in_a_row)
        self._stopped_at_s = None
        self.stream.start()

    def _policy(self) -> StreamPolicy:
        limits = BatchLimits(items=self.scenario.batch_items, linger_s=0.05, quiet_s=0.002)
        return StreamPolicy(
            lookup=limits,
            embed=limits,
            write=limits,
            records_in_flight=self.scenario.records_in_flight,
            bytes_in_flight=self.scenario.bytes_in_flight,
            poll_records=10,
            commit_interval_s=0.2,
            revoke_drain_s=1.0,
            grace_s=GRACE_S,
            halt_probe_s=0.5,
            reread=limits,
            idle_wait_s=0.2,
            busy_wait_s=0.5,
            incomplete_patience_s=0.3,
            move_patience_s=0.3,
            failures=FailurePolicy(backoff_first_s=0.01, backoff_max_s=0.5, probe_s=0.5),
            breaker=BreakerLimits(in_a_row=self._dead_in_a_row, window=NO_LIMIT),
        )

    def _strike(self, what: str) -> None:
        self.clock.stir()
        match what:
            case "crash":
                self._crashed = True
            case "takeover":
                self._ousted = True
            case "stop" if self._stopped_at_s is None:
                self._stopped_at_s = self.clock.now_s
            case "rebalance" | "lost":
                self._world.source.disturb(what)

    def _count_settled(self) -> None:
        self._settles += 1
        self._strike_at(self._settles, ("crash", "stop", "rebalance", "lost"))

    def _count_call(self, station: str) -> None:
        if station == "write":
            self._writes += 1
            self._strike_at(self._writes, ("takeover",))

    def _strike_at(self, count: int, kinds: Sequence[str]) -> None:
        for fault in self.scenario.faults:
            if fault.count == count and fault.what in kinds:
                if fault.what == "crash":
                    raise Killed
                self._strike(fault.what)

    def _restart(self) -> None:
        self.log.info("RESTART")
        self._crashed = self._ousted = False
        self._world.store.tearing = True
        self._executor.crash()
        self._world.store.tearing = False
        self._start()

    def _take_over(self) -> None:
        """Another process gets all partitions, because this one stalled; then its workers run on."""
        self.log.info("TAKEOVER")
        self._ousted = False
        self._executor.stall()
        self._world.source.oust()
        self._start()

    # --- run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until everything that arrived is committed; then the final comparison."""
        for _ in range(MAX_STEPS):
            self.step()
            if self._is_quiet():
                self._watch.end()
                return
            require(self.clock.now_s < self._calm_at_s + REST_WITHIN_S, "records never come to an end")
        raise Violation(f"no rest after {MAX_STEPS} steps")

    def step(self) -> None:
        """One turn of whatever process lives, and the checks after it."""
        self._live_or_die()
        before_s = self.clock.now_s
        try:
            self.stream.step()
        except Killed:
            self._restart()
        self._watch.step()
        if self.clock.now_s == before_s:
            self.clock.advance_to(self.clock.now_s + 0.0001)

    # --- for tests that look inside ---------------------------------------------------------------------

    def points(self) -> Sequence[Stored]:
        """What the store holds."""
        inner = self._world.store.inner
        collections = {mapping.collection for mapping in TABLES.values()}
        return [point for name in collections for point in inner.scan(name, None, 10**6, SOON)[0]]

    def letters(self) -> Sequence[Letter]:
        """What was dead-lettered."""
        return list(self._world.broker.dead)

    def waiting(self) -> int:
        """Records that wait for a schema, or behind one that does."""
        return sum(len(lane.undecoded) for lane in self.stream.lanes.values())

    def asked(self, schema: str) -> int:
        """How often the registry was asked for this schema."""
        return self._world.registry.asked[schema]

    def hold_back(self, schemas: str | None) -> None:
        """Let the registry fail for the schemas whose id holds this text; None: for none."""
        self._world.registry.held_back = schemas

    def _live_or_die(self) -> None:
        if self._crashed:
            self._restart()
        if self._ousted:
            self._take_over()
        if self._stopped_at_s is not None:
            self.stream.stop()
            late_s = self.clock.now_s - self._stopped_at_s - 0.75 * GRACE_S
            require(late_s < 0.5 or self.stream.finished, f"the stop takes {late_s} s longer than it may")
            if self.stream.finished:
                self._restart()
        elif self._dead_in_a_row != NO_LIMIT and self.clock.now_s > self._calm_at_s + OPERATOR_COMES_AFTER_S:
            self._dead_in_a_row = NO_LIMIT
            self._restart()

    def _is_quiet(self) -> bool:
        disturbed = self._crashed or self._ousted or self._stopped_at_s is not None
        if disturbed or self.clock.now_s <= self._calm_at_s:
            return False
        broker = self._world.broker
        return all(broker.committed.get(partition, 0) == end for partition, end in broker.ends.items())


def failure_of(scenario: Scenario) -> tuple[str, list[str]] | None:
    """What goes wrong in the scenario, with the log; None when nothing does."""
    run = Run(scenario)
    try:
        run.run()
    except Exception as error:  # noqa: BLE001  whatever it is, the seed has failed
        at_s = run.clock.now_s - START_S
        return f"{type(error).__name__}: {error} (at {at_s:.3f} s)", run.log.lines
    return None


def failing(seeds: Iterable[int]) -> Iterator[Scenario]:
    """The scenarios of the failing seeds."""
    return (scenario for scenario in map(draw, seeds) if failure_of(scenario) is not None)


# --- shrinking ------------------------------------------------------------------------------------------


def shrink(scenario: Scenario) -> Scenario:
    """Leave out events, faults and troubles as long as it still fails somehow."""
    scenario = _of_one_row(_simplified(scenario))
    progress = True
    while progress:
        progress = False
        for size in (16, 8, 4, 2, 1):
            for kind in ("events", "faults"):
                smaller = _without_runs(scenario, kind, size)
                progress = progress or smaller is not scenario
                scenario = smaller
    return scenario


def _simplified(scenario: Scenario) -> Scenario:
    for easier in (
        {"error_rate": 0.0},
        {"bytes_in_flight": 10**9},
        {"records_in_flight": 1000},
        {"conditional": True},
        {"dead_in_a_row": NO_LIMIT},
        {"per_schema": 0},
        {"commits_lost": 0.0},
    ):
        scenario = _failing(replace(scenario, **easier), tries=2) or scenario
    return scenario


def _of_one_row(scenario: Scenario) -> Scenario:
    """Most defects need a single row."""
    for topic, row in sorted({(event.topic, event.row) for event in scenario.events}):
        others = {at for at, event in enumerate(scenario.events) if (event.topic, event.row) != (topic, row)}
        found = _failing(scenario.without(others, set()), tries=8)
        if found is not None:
            return found
    return scenario


def _without_runs(scenario: Scenario, kind: str, size: int) -> Scenario:
    at = 0
    while at < len(getattr(scenario, kind)):
        gone = set(range(at, at + size))
        smaller = scenario.without(*((gone, set()) if kind == "events" else (set(), gone)))
        found = _failing(smaller, tries=2 if size > 2 else 8)
        if found is None:
            at += size
        else:
            scenario = found
    return scenario


def _failing(scenario: Scenario, tries: int) -> Scenario | None:
    """The scenario, if need be with other luck, that fails. What is left of a scenario draws other numbers,
    and its faults come at other moments."""
    for extra in range(tries):
        tried = scenario
        if extra:
            rng = random.Random(extra)  # noqa: S311
            faults = [
                replace(fault, count=rng.randint(1, len(scenario.events))) if fault.count else fault
                for fault in scenario.faults
                if scenario.events
            ]
            tried = replace(scenario, luck=scenario.luck + extra, faults=tuple(faults))
        if failure_of(tried) is not None:
            return tried
    return None


def report(scenario: Scenario) -> str:
    """A short trace of a failing scenario, and how to see it again."""
    small = shrink(scenario)
    failed = failure_of(small)
    assert failed is not None, "a run is not deterministic"
    why, log = failed
    return "\n".join(
        [
            f"seed {scenario.seed}: {why}",
            str(small),
            "log:",
            *log[-60:],
            f"again: python -m tests.simulation.run {scenario.seed} 1",
        ]
    )


def reports(first: int, count: int) -> list[str]:
    """The report of the first failing seed, if one fails."""
    return [report(scenario) for scenario in islice(failing(range(first, first + count)), 1)]


def main(first: int, count: int, tell: Callable[[str], object] = print) -> int:
    """Run ``count`` seeds from ``first`` on, on all processors; 1 when one fails."""
    began = time.perf_counter()
    starts = range(first, first + count, CHUNK)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        sizes = [min(CHUNK, first + count - start) for start in starts]
        for found in pool.map(reports, starts, sizes):
            if found:
                tell(found[0])
                pool.shutdown(cancel_futures=True)
                return 1
    tell(f"{count} seeds from {first}: clean, {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
