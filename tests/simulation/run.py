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
from functools import partial
from itertools import islice
from multiprocessing import get_context

from tests.simulation.checks import Violation, Watch, require
from tests.simulation.clock import LOOKS_EVERY_S, START_S
from tests.simulation.process import GRACE_S, Hooks, Process
from tests.simulation.scenario import NO_LIMIT, TABLES, Scenario, draw
from tests.simulation.world import SOON, World, schedule

from vectide.jobs.stream import Stream
from vectide.ports import Letter, Partition, Stored

MAX_STEPS = 20_000
#: Seeds that a process takes at a time.
CHUNK = 100
#: When everything that disturbs is over, the pump must come to rest within this time.
REST_WITHIN_S = 120.0
#: When the last event and fault are over, an operator raises the limit of the dead-letter breaker.
OPERATOR_COMES_AFTER_S = 3.0
#: For so long the group waits for a member that it does not hear.
SESSION_S = 0.4


class Killed(BaseException):
    """The process dies in the middle of a step."""


class Run:
    """One world and the processes in it; after a crash or a stop another process."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._rng = random.Random(scenario.seed * 31 + scenario.luck)  # noqa: S311
        self._world = World(scenario, self._rng)
        self.clock = self._world.clock
        self._watch = Watch(self._world, scenario)
        self._watch.settles = self._count_settled
        self._settles = self._writes = 0
        self._crashed: set[Process] = set()
        self._ousted: set[Process] = set()
        self._stepping: Process | None = None
        self._dead_in_a_row = scenario.dead_in_a_row
        events = [event.at_s for event in scenario.events]
        faults = [fault.at_s + fault.for_s for fault in scenario.faults]
        self._calm_at_s = START_S + max([0.0, *events, *faults, *scenario.replays])
        schedule(self._world, scenario.faults, self._strike)
        for at_s in scenario.replays:
            self.clock.at(START_S + at_s, self._ask)
        for topic, at_s in scenario.recreated().items():
            self.clock.at(START_S + at_s, partial(self._recreate, topic))
        for partition, at_s in scenario.added().items():
            self.clock.at(START_S + at_s, partial(self._add_partition, partition))
        self._born = 0
        self.processes: list[Process] = []
        for _ in range(scenario.replicas):
            self._start()

    @property
    def stream(self) -> Stream:
        """The pump of the only process."""
        (process,) = self.processes
        return process.stream

    @property
    def told(self) -> list[str]:
        """What was logged."""
        return self._world.told

    def _start(self) -> None:
        name = chr(ord("A") + self._born)
        self._born += 1
        hooks = Hooks(self._watch.log_line, self._count_call, self._watch.acts)
        process = Process(name, self._world, self.scenario, self._dead_in_a_row, hooks)
        self.processes.append(process)
        self._watch.follow(process)
        process.stream.start()

    def _tell(self, process: Process, what: str) -> None:
        self.told.append(f"{self.clock.now_s - START_S:8.3f} {process.name} {what}")

    # --- faults -----------------------------------------------------------------------------------------

    def _strike(self, what: str, for_s: float) -> None:
        self.clock.stir()
        victim = self._stepping or self._rng.choice(self.processes)
        match what:
            case "crash":
                self._crashed.add(victim)
            case "takeover" if self.scenario.replicas == 1:
                self._ousted.add(victim)
            case "takeover" | "sleep":
                self._put_to_sleep(victim, for_s)
            case "stop" if victim.stopped_at_s is None:
                victim.stopped_at_s = self.clock.now_s
            case "rebalance" | "lost":
                self._world.group.disturb(what)
            case "clock":
                self.clock.jumped_ms += self._rng.choice((-3_600_000, 3_600_000))

    def _ask(self) -> None:
        self._world.replays.ask(self.clock.wall_ms())
        self.clock.stir()

    def _recreate(self, topic: str) -> None:
        self.told.append(f"{self.clock.now_s - START_S:8.3f} RECREATED {topic}")
        self._world.group.recreate(topic)
        self._watch.recreated(topic)

    def _add_partition(self, partition: Partition) -> None:
        self.told.append(f"{self.clock.now_s - START_S:8.3f} ADDED {partition}")
        self._world.group.add(partition)

    def _count_settled(self) -> None:
        self._settles += 1
        self._strike_at(self._settles, ("crash", "stop", "rebalance", "lost"))

    def _count_call(self, process: Process, station: str) -> None:
        if station == "write":
            self._writes += 1
            self._strike_at(self._writes, ("takeover",))

    def _strike_at(self, count: int, kinds: Sequence[str]) -> None:
        for fault in self.scenario.faults:
            if fault.count == count and fault.what in kinds:
                if fault.what == "crash":
                    raise Killed
                self._strike(fault.what, fault.for_s)

    def _end(self, process: Process) -> None:
        """It is gone, and another one takes its place. Others hear of it when its session ends."""
        self.processes.remove(process)
        self._crashed.discard(process)
        self._ousted.discard(process)
        self._watch.unfollow(process)
        group, after_s = self._world.group, 0.0
        if process.stream.finished or self.scenario.replicas == 1:
            group.remove(process.source)
        else:
            after_s = SESSION_S
            self.clock.at(self.clock.now_s + after_s, lambda: group.remove(process.source))
        self._start()

    def _restart(self, process: Process) -> None:
        self._tell(process, "RESTART")
        self._world.store.tearing = True
        process.executor.crash(later=self._world.group.overlaps)
        self._world.store.tearing = False
        self._end(process)

    def _take_over(self, process: Process) -> None:
        """Another process gets all partitions, because this one stalled; then its workers run on."""
        self._tell(process, "TAKEOVER")
        process.executor.stall()
        process.source.oust()
        self._end(process)

    def _put_to_sleep(self, process: Process, for_s: float) -> None:
        """It stands still, like a stopped process or a frozen machine, and goes on as if nothing had been.
        Longer than a session, and its partitions are somebody else's."""
        self._tell(process, f"SLEEP {for_s}")
        until_s = self.clock.now_s + for_s
        process.executor.asleep_until_s = max(process.executor.asleep_until_s, until_s)
        self.clock.at(until_s, self.clock.stir)
        if self._world.group.overlaps:
            self.clock.at(self.clock.now_s + SESSION_S, lambda: self._expel(process))

    def _expel(self, process: Process) -> None:
        if process.executor.asleep_until_s > self.clock.now_s:
            self._world.group.remove(process.source)

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
        """One turn of every process that is awake, and the checks after it."""
        before_s = self.clock.now_s
        for process in self._in_any_order():
            if process.executor.asleep_until_s <= self.clock.now_s and process in self.processes:
                self._step(process)
        self._watch.step()
        if self.clock.now_s == before_s:
            self.clock.advance_to(self._next_s())

    def _in_any_order(self) -> Sequence[Process]:
        if len(self.processes) > 1:
            return self._rng.sample(self.processes, len(self.processes))
        return list(self.processes)

    def _step(self, process: Process) -> None:
        if not self._lives_on(process):
            return
        self._stepping = process
        try:
            process.stream.step()
        except Killed:
            self._restart(process)
        finally:
            self._stepping = None

    def _next_s(self) -> float:
        """When the next process has something to do. One that is alone waits by itself."""
        soon_s = self.clock.now_s + 0.0001
        awake = [one for one in self.processes if one.executor.asleep_until_s <= self.clock.now_s]
        alone = awake and self.scenario.replicas == 1
        if alone or any(one.executor.busy or one.source.flows for one in awake):
            return soon_s
        times = [self.clock.now_s + 0.1]
        agenda_s = self.clock.next_s()
        if agenda_s is not None:
            times.append(agenda_s)
        for one in awake:
            due_s = one.due_s()
            if due_s is not None:
                times.append(due_s if due_s > self.clock.now_s else self.clock.now_s + LOOKS_EVERY_S)
        return max(soon_s, min(times))

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

    def _lives_on(self, process: Process) -> bool:
        """Whether it goes on; else another one has taken its place."""
        if process in self._crashed:
            self._restart(process)
        elif process in self._ousted:
            self._take_over(process)
        elif process.stopped_at_s is not None:
            process.stream.stop()
            late_s = self.clock.now_s - process.stopped_at_s - 0.75 * GRACE_S
            in_time = late_s < 0.5 or process.stream.finished or process.executor.asleep_until_s > 0
            require(in_time, f"the stop takes {late_s} s longer than it may")
            if process.stream.finished:
                self._restart(process)
        elif (
            process.dead_in_a_row != NO_LIMIT and self.clock.now_s > self._calm_at_s + OPERATOR_COMES_AFTER_S
        ):
            self._dead_in_a_row = NO_LIMIT
            self._restart(process)
        return process in self.processes

    def _is_quiet(self) -> bool:
        if self._crashed or self._ousted or self.clock.now_s <= self._calm_at_s:
            return False
        broker = self._world.broker
        if any(broker.committed.get(partition, 0) != end for partition, end in broker.ends.items()):
            return False
        if self._world.replays.open:
            return False
        return not any(self._is_busy(process) for process in self.processes)

    def _is_busy(self, process: Process) -> bool:
        asleep = process.executor.asleep_until_s > self.clock.now_s
        return process.stopped_at_s is not None or asleep or bool(process.stream.stations.calls)


def failure_of(scenario: Scenario) -> tuple[str, list[str]] | None:
    """What goes wrong in the scenario, with the log; None when nothing does."""
    run = Run(scenario)
    try:
        run.run()
    except Exception as error:  # noqa: BLE001  whatever it is, the seed has failed
        at_s = run.clock.now_s - START_S
        return f"{type(error).__name__}: {error} (at {at_s:.3f} s)", run.told
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
        {"replicas": 1},
        {"eager": False},
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
