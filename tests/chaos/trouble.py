"""What goes wrong in a run, and when: everything from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "kill",  # a replica, by SIGKILL; another takes its place after ``lasts_s``
    "join",  # one replica more, stopped by SIGTERM after ``lasts_s``
    "freeze",  # a replica, by SIGSTOP, for ``lasts_s``
    "provider",
    "answers",  # some answers of the provider are no good
    "store",
    "broker",
]

#: The ways in which each part fails.
PROVIDER: Final = ("refuse", "swallow", "status 500", "status 429", "delay", "reset")
ANSWERS: Final = ("shuffled", "one_short", "repeated_index", "nan", "zero", "html", "truncated")
STORE: Final = ("refuse", "swallow", "crash", "cut")
BROKER: Final = ("refuse", "swallow", "delay")

KILLS: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """``at_s`` and ``lasts_s`` in seconds from the start of the run."""

    at_s: float
    kind: Kind
    how: str
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.at_s:.1f}s {self.kind}{f' {self.how}' if self.how else ''} for {self.lasts_s:.1f}s"


def troubles(seed: int, active_s: float) -> list[Trouble]:
    """Those of one run, in order. All are over at ``active_s``, but for the answers."""
    chance = random.Random(f"trouble {seed}")  # noqa: S311
    made = [_one(chance, "kill", ("",), 0.2, 3.0, active_s) for _ in range(KILLS)]
    made.append(_one(chance, "join", ("",), 4.0, 8.0, active_s))
    made.append(_one(chance, "provider", PROVIDER, 2.0, 5.0, active_s))
    made.append(_one(chance, "store", STORE, 2.0, 5.0, active_s))
    made += [_one(chance, "answers", ANSWERS, 0.0, 0.0, active_s) for _ in range(chance.randint(0, 3))]
    if chance.random() < 0.4:
        made.append(_one(chance, "broker", BROKER, 1.0, 9.0, active_s))
    if chance.random() < 0.4:
        made.append(_one(chance, "freeze", ("",), 1.0, 10.0, active_s))
    return sorted(made)


def _one(
    chance: random.Random, kind: Kind, ways: tuple[str, ...], least_s: float, most_s: float, active_s: float
) -> Trouble:
    lasts_s = chance.uniform(least_s, most_s)
    return Trouble(chance.uniform(2.0, active_s - lasts_s), kind, chance.choice(ways), lasts_s)


class Agenda:
    """Things to do at their times, one after the other."""

    def __init__(self) -> None:
        self._things: list[tuple[float, int, Callable[[], None]]] = []
        self._added = 0

    def add(self, at_s: float, thing: Callable[[], None]) -> None:
        self._added += 1
        self._things.append((at_s, self._added, thing))
        self._things.sort(key=lambda one: one[:2])

    def due(self, now_s: float) -> Iterator[Callable[[], None]]:
        """What is to be done by now. May grow while this is being worked off."""
        while self._things and self._things[0][0] <= now_s:
            yield self._things.pop(0)[2]

    def __bool__(self) -> bool:
        return bool(self._things)
