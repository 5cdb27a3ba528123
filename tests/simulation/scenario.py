"""Scenarios: what happens to the rows, when it arrives, and what goes wrong; drawn from a seed.

Everything that a run does beyond the seed's own random numbers is in the lists here, so a failing scenario
can be shrunk by leaving members out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Change, Deleted, Ignored, Upserted
from vectide.core.template import Template

POISON_TEXT = "poison-text"
POISON_PRICE = "poison-price"
GARBAGE = "garbage"
NO_LIMIT = 10**6

#: Two tables: one whose text comes from two columns (their values are kept), one with a single column.
PRODUCTS = TableMapping(
    table="products",
    source="shop.public.products",
    collection="products",
    template=Template.parse("{title}[\n{body}]"),
    metadata=(MetadataField("price", "price"), MetadataField("note", "remark")),
    soft_delete=SoftDelete("gone"),
)
USERS = TableMapping(
    table="users",
    source="shop.public.users",
    collection="people",
    template=Template.parse("{title}"),
    metadata=(MetadataField("price", "price"),),
)
TABLES = {mapping.source: mapping for mapping in (PRODUCTS, USERS)}
PARTITIONS = {PRODUCTS.source: 2, USERS.source: 1}


@dataclass(frozen=True)
class Event:
    """One record of a topic; ``change`` None: bytes that cannot be decoded. ``hole`` offsets follow it."""

    at_s: float
    topic: str
    partition: int
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
    """``conditional``: the store refuses writes that are older than what it holds. ``dead_in_a_row``: the
    dead-letter breaker's limit. ``luck`` changes what the run draws, and nothing else."""

    seed: int
    events: tuple[Event, ...]
    faults: tuple[Fault, ...]
    error_rate: float = 0.0
    batch_items: int = 4
    records_in_flight: int = 1000
    bytes_in_flight: int = 10**9
    conditional: bool = True
    dead_in_a_row: int = NO_LIMIT
    commit_interval_s: float = 0.2
    #: So many records of a partition share a schema, which the registry has to tell; 0: they need none.
    per_schema: int = 0
    luck: int = 0

    def without(self, events: set[int], faults: set[int]) -> Scenario:
        """The same scenario with some members left out."""
        return replace(
            self,
            events=tuple(event for at, event in enumerate(self.events) if at not in events),
            faults=tuple(fault for at, fault in enumerate(self.faults) if at not in faults),
        )

    def __str__(self) -> str:
        """Everything that happens, readable."""
        settings = ("error_rate", "batch_items", "records_in_flight", "bytes_in_flight", "conditional")
        events = [
            f"  {event.at_s:.3f} {event.topic}[{event.partition}] row {event.row} {event.kind} {event.change}"
            for event in self.events
        ]
        return "\n".join(
            [
                "events:",
                *events,
                "faults:",
                *(f"  {fault}" for fault in self.faults),
                " ".join(
                    f"{name}={getattr(self, name)}"
                    for name in (*settings, "dead_in_a_row", "commit_interval_s", "per_schema", "luck")
                ),
            ]
        )


@dataclass
class _Source:
    """One source table as the generator sees it."""

    rng: random.Random
    mapping: TableMapping
    size: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    texts: int = 0
    moved: bool = False
    #: From now on rows are spread over the partitions in another way, as after adding partitions.
    grown: bool = False

    def events(self, at_s: float) -> list[Event]:
        """What one statement of the source makes: mostly one record."""
        row = self.rng.randrange(self.size)
        kinds, weights = zip(*(_LIVE if row in self.rows else _ABSENT).items(), strict=True)
        kind = self.rng.choices(kinds, weights)[0]
        if kind == "flip":
            return self._flip(at_s, row)
        if kind != "rename":
            return [self._event(at_s, row, self._change(row, kind), kind)]
        new = self.rng.randrange(self.size)
        if new in self.rows:
            return [self._event(at_s, row, self._change(row, "noop"), "noop")]
        columns = self.rows[new] = self.rows.pop(row)
        created = Upserted(_key(new), {"id": new, **columns}, op="c", committed_ms=0, old_key=_key(row))
        return [
            self._event(at_s, row, Deleted(_key(row), new_key=_key(new)), "renamed away"),
            self._event(at_s, row, Deleted(_key(row)), "tombstone"),
            self._event(at_s, new, created, "renamed here"),
        ]

    def _flip(self, at_s: float, row: int) -> list[Event]:
        """A change that the next record takes back."""
        before = dict(self.rows[row])
        there = self._change(row, self.rng.choice(("metadata", "text")))
        self.rows[row] = before
        return [
            self._event(at_s, row, there, "there"),
            self._event(at_s, row, self._change(row, "noop"), "and back"),
        ]

    def _event(self, at_s: float, row: int, change: Change | None, kind: str) -> Event:
        partition = (row + self.grown) % PARTITIONS[self.mapping.source]
        return Event(at_s, self.mapping.source, partition, row, change, kind, self.rng.choice(_HOLES))

    def _change(self, row: int, kind: str) -> Change | None:
        if kind == GARBAGE:
            return None
        if kind == "heartbeat":
            return Ignored("heartbeat")
        if kind in ("delete", "tombstone"):
            self.rows.pop(row, None)
            return Deleted(_key(row), committed_ms=0)
        columns = self.rows.setdefault(row, self._new())
        columns.update(self._edit(kind))
        unavailable = _UNAVAILABLE.get(kind, frozenset())
        seen = {name: value for name, value in columns.items() if name not in unavailable}
        return Upserted(_key(row), {"id": row, **seen}, unavailable, committed_ms=0)

    def _new(self) -> dict[str, Any]:
        return {"title": self._text(), "body": self._text(), "price": 1, "note": "n", "gone": False}

    def _edit(self, kind: str) -> dict[str, Any]:
        match kind:
            case "text" | "partial_title" | "partial_note":
                return {"title": self._text()}
            case "body":
                return {"body": self._text()}
            case "moved_text":
                self.moved = not self.moved
                return _SAME_TEXT[self.moved]
            case "metadata" | "partial_metadata":
                return {"price": self.rng.randrange(3)}
            case "note":
                return {"note": self._text()}
            case "poison_text":
                return {"title": f"{POISON_TEXT} {self._text()}", "body": self._text()}
            case "cured":
                return {"title": self._text(), "price": 5}
        return _EDITS.get(kind, {})

    def _text(self) -> str:
        self.texts += 1
        return f"text {self.texts if self.rng.random() < 0.85 else 0}"


def _key(row: int) -> Mapping[str, Any]:
    return {"id": row}


_HOLES = (0, 0, 0, 0, 1, 2)
#: Columns that the event does not tell, by kind of event.
_UNAVAILABLE = {
    "partial_metadata": frozenset({"body"}),
    "partial_title": frozenset({"body"}),
    "partial_note": frozenset({"note"}),
    "partial_noop": frozenset({"body", "note"}),
}
_EDITS: dict[str, dict[str, Any]] = {
    "blank": {"title": None, "body": "  "},
    "soft_delete": {"gone": True},
    "undelete": {"gone": False},
    "poison_metadata": {"price": POISON_PRICE},
}
#: Other columns, the same text.
_SAME_TEXT = ({"title": "one\ntwo", "body": None}, {"title": "one", "body": "two"})
_ABSENT = {
    "insert": 20,
    "partial_title": 2,
    "partial_note": 1,
    "tombstone": 2,
    "heartbeat": 1,
    "poison_text": 1,
    GARBAGE: 1,
}
_LIVE = {
    "noop": 3,
    "text": 6,
    "body": 3,
    "moved_text": 7,
    "metadata": 5,
    "note": 1,
    "partial_metadata": 3,
    "partial_title": 4,
    "partial_note": 2,
    "partial_noop": 1,
    "blank": 0.7,
    "soft_delete": 1.5,
    "undelete": 1.5,
    "delete": 4,
    "rename": 1.5,
    "flip": 3,
    "poison_text": 1.2,
    "poison_metadata": 1.2,
    "cured": 2,
    "heartbeat": 1,
    GARBAGE: 1,
}
FAULTS = {
    "crash": 4,
    "stop": 2,
    "rebalance": 4,
    "lost": 3,
    "takeover": 4,
    "provider_down": 2,
    "provider_refuses": 1,
    "throttle": 2,
    "store_down": 2,
    "people_down": 2,
    "store_refuses": 1,
    "vanish": 2,
    "dlq_down": 2,
    "dlq_refuses": 1,
    "commits_fail": 2,
    "drift": 3,
    "registry_down": 2,
    "registry_refuses": 1,
}


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(seed)  # noqa: S311  reproducible on purpose
    events = _draw_events(rng)
    span_s = max(0.5, *(event.at_s for event in events))
    faults = [
        Fault(
            rng.random() * span_s * 1.5,
            rng.choices(list(FAULTS), list(FAULTS.values()))[0],
            rng.choice((0.05, 0.5, 3.0)),
        )
        for _ in range(rng.choice((0, 0, 1, 2, 4)))
    ]
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.0, 0.05, 0.25)),
        batch_items=rng.choice((1, 2, 4, 64)),
        records_in_flight=rng.choice((1, 5, 1000)),
        bytes_in_flight=rng.choice((1000, 10**9, 10**9)),
        conditional=rng.random() < 0.5,
        dead_in_a_row=rng.choice((1, NO_LIMIT, NO_LIMIT)),
        commit_interval_s=rng.choice((0.05, 0.2, 3.0)),
        per_schema=rng.choice((0, 0, 1, 3, 10)),
    )


def _draw_events(rng: random.Random) -> list[Event]:
    size = rng.choice((2, 5, 5, 12))
    tables = [_Source(rng, PRODUCTS, size), _Source(rng, USERS, size)]
    only_one = rng.random() < 0.6
    count = rng.choice((5, 15, 40))
    pace_s = rng.choice((0.0, 0.003, 0.05))
    grows_at = rng.randrange(count) if rng.random() < 0.1 else count
    at_s = 0.0
    events: list[Event] = []
    for at in range(count):
        at_s += rng.random() * 2 * pace_s
        tables[0].grown = at >= grows_at
        events += tables[0 if only_one or rng.random() < 0.7 else 1].events(at_s)
    return events
