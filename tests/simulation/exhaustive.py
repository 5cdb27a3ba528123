"""Small worlds, explored to the end: every order of a few changes of two rows, in one replica or two, with
every call, arrival, crash and rebalance in every place.

A schedule is a list of choices. The first of each is what comes first in time; one that takes *so many* other
ones has that many deviations, a crash or a rebalance being one. All schedules up to a number of deviations
are run, from the beginning each, depth first.

``python -m tests.simulation.exhaustive EVENTS DEVIATIONS`` explores all worlds with so many changes.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product, repeat
from multiprocessing import get_context
from typing import Any

from tests.simulation.checks import Watch, require
from tests.simulation.clock import SimExecutor
from tests.simulation.process import Hooks, Process
from tests.simulation.scenario import NO_LIMIT, NOTES, PRODUCTS, USERS, Event, Scenario
from tests.simulation.world import World

from vectide.core.mapping import TableMapping
from vectide.core.model import Change, Deleted, Upserted
from vectide.ports import AdapterError, Completion

#: Between one change and the next one: commits have their time.
GAP_S = 0.3
MAX_TURNS = 2_000
#: What can happen to a row: another text, the first one again, other metadata, a delete.
KINDS = ("text", "back", "metadata", "delete")


class Still(random.Random):
    """Chance that never strikes: nothing fails, and nothing is out of order but by choice."""

    def random(self) -> float:
        return 0.999

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def shuffle(self, x: Any) -> None:
        pass

    def randint(self, a: int, b: int) -> int:
        return b


class ChosenExecutor(SimExecutor):
    """Its calls take effect and return when they are chosen."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.calls: list[tuple[Callable[[], Any], Callable[[Completion], None]]] = []

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        self.calls.append((call, done))

    def take_effect(self, at: int) -> Completion:
        """One of the calls takes effect."""
        call, done = self.calls.pop(at)
        self.acts()
        try:
            return Completion(done, result=call())
        except AdapterError as error:
            return Completion(done, error=error)

    def complete(self, at: int) -> None:
        """One of the calls takes effect and returns."""
        self._finished.append(self.take_effect(at))

    def completed(self, wait_s: float) -> Sequence[Completion]:
        if self.waits and self.calls and not self._finished:
            self.complete(0)  # a drain: first come, first served
        finished, self._finished = self._finished, []
        return finished


@dataclass
class Choices:
    """One schedule: ``given`` choices, and the first possibility from there on."""

    given: Sequence[int]
    taken: list[int] = field(default_factory=list)
    possible: list[int] = field(default_factory=list)

    def of(self, possible: int) -> int:
        """The next choice among so many."""
        at = len(self.taken)
        choice = self.given[at] if at < len(self.given) else 0
        self.taken.append(choice)
        self.possible.append(possible)
        return choice

    def next(self, deviations: int) -> list[int] | None:
        """The given choices of the schedule after this one, depth first; None after the last one."""
        for at in reversed(range(len(self.taken))):
            spent = sum(map(bool, self.taken[:at]))
            if self.taken[at] + 1 < self.possible[at] and spent < deviations:
                return [*self.taken[:at], self.taken[at] + 1]
        return None


class Walk:
    """One schedule through one small world."""

    def __init__(self, scenario: Scenario, choices: Choices) -> None:
        self._scenario = scenario
        self._choices = choices
        self._world = World(scenario, Still())
        self._watch = Watch(self._world, scenario)
        self._arrivals = [event.at_s for event in scenario.events]
        self._clock = self._world.clock
        self._began_s = self._clock.now_s
        self._crashes = self._moves = 1
        self._born = 0
        self._processes: list[Process] = []
        for _ in range(scenario.replicas):
            self._start()

    def _start(self) -> None:
        self._born += 1
        hooks = Hooks(self._watch.log_line, lambda process, pool: None, self._watch.acts)
        process = Process(str(self._born), self._world, self._scenario, NO_LIMIT, hooks, ChosenExecutor)
        process.executor.waits = False
        self._processes.append(process)
        self._watch.follow(process)
        process.stream.start()

    def run(self) -> None:
        """To the end, checked at every step."""
        for _ in range(MAX_TURNS):
            self._settle()
            options = list(self._options())
            if options:
                options[self._choices.of(len(options))]()
            elif self._is_done():
                self._watch.end()
                return
            else:
                self._clock.advance_to(self._clock.now_s + 0.05)
        require(False, "records never come to an end")

    def _settle(self) -> None:
        """Every process does what it can do without waiting."""
        for _ in range(3):
            for process in self._processes:
                process.stream.step()
            self._clock.advance_to(self._clock.now_s + 0.003)
        self._watch.step()

    def _options(self) -> Iterator[Callable[[], None]]:
        """What may happen next; what comes first in time is the first."""
        pending = [(one, at) for one in self._processes for at in range(len(_calls(one)))]
        for process, at in pending:
            yield partial(_executor(process).complete, at)
        if self._arrivals:
            yield self._arrive
        if not pending and not self._arrivals and self._is_done():
            return
        if self._crashes:
            for process in self._processes:
                for arrives in product((False, True), repeat=min(2, len(_calls(process)))):
                    yield partial(self._crash, process, arrives)
        if self._moves:
            for what in ("rebalance", "lost"):
                yield partial(self._move, what)

    def _arrive(self) -> None:
        self._clock.advance_to(max(self._clock.now_s, self._began_s + self._arrivals.pop(0)))

    def _crash(self, process: Process, arrives: Sequence[bool]) -> None:
        """It dies; of its first calls those chosen take effect, and nobody hears of it."""
        self._crashes -= 1
        executor = _executor(process)
        for at in reversed([at for at, does in enumerate(arrives) if does]):
            executor.take_effect(at)
        self._processes.remove(process)
        self._watch.unfollow(process)
        self._world.group.remove(process.source)
        self._start()

    def _move(self, what: str) -> None:
        self._moves -= 1
        self._world.group.disturb(what)

    def _is_done(self) -> bool:
        broker = self._world.broker
        return all(broker.committed.get(partition, 0) == end for partition, end in broker.ends.items())


def _executor(process: Process) -> ChosenExecutor:
    assert isinstance(process.executor, ChosenExecutor)
    return process.executor


def _calls(process: Process) -> Sequence[Any]:
    return _executor(process).calls


def explore(scenario: Scenario, deviations: int) -> int:
    """Run all schedules; returns how many. Raises what the first failing one raises, with its choices."""
    given: list[int] | None = []
    count = 0
    while given is not None:
        choices = Choices(given)
        try:
            Walk(scenario, choices).run()
        except Exception as error:
            error.add_note(f"choices {choices.taken} in\n{scenario}")
            raise
        count += 1
        given = choices.next(deviations)
    return count


def worlds(events: int) -> Iterator[Scenario]:
    """All worlds with so many changes, of which the first one makes the first row."""
    for history in product(product(KINDS, (0, 1)), repeat=events):
        if history[0] == ("text", 0):
            for table, atomic, replicas in ((USERS, True, 1), (PRODUCTS, True, 2), (NOTES, False, 2)):
                yield Scenario(
                    0,
                    tuple(_event(table, at, kind, row) for at, (kind, row) in enumerate(history)),
                    (),
                    batch_items=1,
                    atomic=atomic,
                    replicas=replicas,
                    commits_lost=0.0,
                )


def _event(table: TableMapping, at: int, kind: str, row: int) -> Event:
    key = {"id": row}
    change: Change = Deleted(key)
    if kind != "delete":
        title = {"text": f"text {at}"}.get(kind, "first")
        price = at if kind == "metadata" else 1
        columns = {
            "id": row,
            "title": title,
            "body": "one\n\ntwo",
            "price": price,
            "note": "n",
            "gone": False,
        }
        change = Upserted(key, columns, committed_ms=0)
    partition = row if table is PRODUCTS else 0
    return Event(at * GAP_S, table.source, partition, row, change, kind)


def main(events: int, deviations: int) -> int:
    """Explore all worlds on all processors; raises when a schedule fails."""
    began = time.perf_counter()
    small = list(worlds(events))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        schedules = sum(pool.map(explore, small, repeat(deviations), chunksize=4))
    took_s = time.perf_counter() - began
    print(
        f"{len(small)} worlds of {events} changes, up to {deviations} deviations: "
        f"{schedules} schedules, clean, {took_s:.1f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
