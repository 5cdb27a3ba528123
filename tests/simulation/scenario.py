"""Scenarios: what happens to the rows, when it arrives, and what goes wrong; drawn from a seed.

Everything that a run does beyond the seed's own random numbers is in the lists here, so a failing scenario
can be shrunk by leaving members out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vectide.core.model import Change, Deleted, Ignored, Upserted

TOPIC = "shop.public.products"
PARTITIONS = 2
POISON_TEXT = "poison-text"
POISON_PRICE = "poison-price"
GARBAGE = "garbage"


@dataclass(frozen=True)
class Event:
    """One record of the topic; ``change`` None: bytes that cannot be decoded. ``hole`` offsets follow it."""

    at_s: float
    row: int
    change: Change | None
    kind: str
    hole: int = 0


@dataclass(frozen=True)
class Fault:
    """``what`` happens from ``at_s`` for ``for_s`` seconds."""

    at_s: float
    what: str
    for_s: float = 0.0


@dataclass(frozen=True)
class Scenario:
    seed: int
    events: tuple[Event, ...]
    faults: tuple[Fault, ...]
    error_rate: float = 0.0
    batch_items: int = 4
    records_in_flight: int = 1000

    def without(self, events: set[int], faults: set[int]) -> Scenario:
        """The same scenario with some members left out."""
        return replace(
            self,
            events=tuple(event for at, event in enumerate(self.events) if at not in events),
            faults=tuple(fault for at, fault in enumerate(self.faults) if at not in faults),
        )


@dataclass
class _Source:
    """The source table as the generator sees it."""

    rng: random.Random
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    texts: int = 0

    def event(self, at_s: float) -> Event:
        row = self.rng.randrange(5)
        kinds, weights = zip(*(_LIVE if row in self.rows else _ABSENT).items(), strict=True)
        kind = self.rng.choices(kinds, weights)[0]
        hole = self.rng.choice((0, 0, 0, 0, 1, 2))
        return Event(at_s, row, self._change(row, kind), kind, hole)

    def _change(self, row: int, kind: str) -> Change | None:
        key = {"id": row}
        if kind == GARBAGE:
            return None
        if kind == "heartbeat":
            return Ignored("heartbeat")
        if kind in ("delete", "tombstone"):
            self.rows.pop(row, None)
            return Deleted(key)
        columns = self.rows.setdefault(row, self._new())
        unavailable: frozenset[str] = frozenset()
        if kind.startswith("unavailable"):
            unavailable = frozenset({"body"})
        columns.update(self._edit(kind, columns))
        seen = {name: value for name, value in columns.items() if name not in unavailable}
        return Upserted({"id": row}, {"id": row, **seen}, unavailable, committed_ms=0)

    def _new(self) -> dict[str, Any]:
        return {"title": self._text(), "body": self._text(), "price": 1, "gone": False}

    def _edit(self, kind: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        edits: dict[str, dict[str, Any]] = {
            "insert": {},
            "noop": {},
            "unavailable_metadata": {"price": columns["price"]},
            "unavailable_title": {"title": self._text()},
            "text": {"title": self._text()},
            "body": {"body": self._text()},
            "back": {"title": "the same again", "body": "and again"},
            "metadata": {"price": self.rng.randrange(100)},
            "blank": {"title": None, "body": "  "},
            "soft_delete": {"gone": True},
            "undelete": {"gone": False},
            "poison_text": {"title": f"{POISON_TEXT} {self._text()}"},
            "poison_metadata": {"price": POISON_PRICE},
            "cured": {"title": self._text(), "price": 5},
        }
        edit = dict(edits[kind])
        if kind == "unavailable_metadata":
            edit["price"] = self.rng.randrange(100)
        return edit

    def _text(self) -> str:
        self.texts += 1
        return f"text {self.texts if self.rng.random() < 0.9 else 0}"


_ABSENT = {"insert": 20, "tombstone": 2, "heartbeat": 1, GARBAGE: 1, "poison_text": 1, "unavailable_title": 0.3}
_LIVE = {
    "noop": 3,
    "unavailable_metadata": 3,
    "unavailable_title": 3,
    "text": 6,
    "body": 3,
    "back": 1,
    "metadata": 6,
    "blank": 0.7,
    "soft_delete": 1.5,
    "undelete": 1.5,
    "delete": 4,
    "poison_text": 0.8,
    "poison_metadata": 0.8,
    "cured": 2,
    "heartbeat": 1,
    GARBAGE: 1,
}


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)  # noqa: S311  reproducible on purpose
    source = _Source(rng)
    count = rng.choice((5, 15, 40))
    pace_s = rng.choice((0.0, 0.003, 0.05))
    at_s, events = 0.0, []
    for _ in range(count):
        at_s += rng.random() * 2 * pace_s
        events.append(source.event(at_s))
    span_s = max(at_s, 0.5)
    faults = []
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        what = rng.choice(
            ("crash", "crash", "rebalance", "rebalance", "lost", "provider_down", "store_down", "dlq_down",
             "throttle", "commits_fail")
        )
        faults.append(Fault(rng.random() * span_s * 1.5, what, rng.choice((0.05, 0.5, 3.0))))
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.0, 0.05, 0.25)),
        batch_items=rng.choice((1, 2, 4, 64)),
        records_in_flight=rng.choice((1, 5, 1000)),
    )
