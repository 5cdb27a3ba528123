"""Scenarios: what happens to the rows, when it arrives, and what goes wrong; drawn from a seed.

Everything that a run does beyond the seed's own random numbers is in the lists here, so a failing scenario
can be shrunk by leaving members out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vectide.core.chunks import Chunking
from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Change, Deleted, Ignored, SourcePosition, Truncated, Upserted
from vectide.core.template import Template
from vectide.core.where import Column, Compare, Constant, Some, Where

POISON_TEXT = "poison-text"
POISON_PRICE = "poison-price"
#: The provider takes such a text, the store does not.
POISON_CHUNK = "bad chunk"
GARBAGE = "garbage"
UNREADABLE = "unreadable"
NO_LIMIT = 10**6

#: What both filter by; for the second table the note is nothing else.
SHOWN = Where(
    "note <> 'hidden' OR price = '2'",
    Some(
        (
            Compare("<>", Column("note"), Constant("hidden")),
            Compare("=", Column("price"), Constant("2")),
        )
    ),
)

#: One table whose text comes from two columns (their values are kept), one with a single column, and two that
#: are cut into chunks, mostly one for each paragraph.
PRODUCTS = TableMapping(
    table="products",
    source="shop.public.products",
    collection="products",
    template=Template.parse("{title}[\n{body}]"),
    metadata=(MetadataField("price", "price"), MetadataField("note", "remark")),
    soft_delete=SoftDelete("gone"),
    where=SHOWN,
)
USERS = TableMapping(
    table="users",
    source="shop.public.users",
    collection="people",
    template=Template.parse("{title}"),
    metadata=(MetadataField("price", "price"),),
    where=SHOWN,
)
DOCS = TableMapping(
    table="docs",
    source="shop.public.docs",
    collection="docs",
    template=Template.parse("{title}[\n\n{body}]"),
    metadata=(MetadataField("price", "price"), MetadataField("note", "remark")),
    soft_delete=SoftDelete("gone"),
    chunking=Chunking(tokens=12),
    where=SHOWN,
)
NOTES = replace(DOCS, table="notes", source="shop.public.notes", collection="notes")
#: The tables that have a provider and a store of their own, where the tables go apart.
APART = (USERS, NOTES)
TABLES = {mapping.source: mapping for mapping in (PRODUCTS, USERS, DOCS, NOTES)}
PARTITIONS = {PRODUCTS.source: 2, USERS.source: 1, DOCS.source: 2, NOTES.source: 1}


@dataclass(frozen=True)
class Event:
    """One record of a topic; ``change`` None: bytes that cannot be decoded, though of the ``unreadable`` kind
    the key can. ``hole`` offsets follow it.
    ``whole``: the row as the source has it then, also what the event leaves out; None: it has no such row.
    ``generation``: how often its topic had been created again."""

    at_s: float
    topic: str
    partition: int
    row: int
    change: Change | None
    kind: str
    hole: int = 0
    whole: Mapping[str, Any] | None = None
    generation: int = 0

    def tells_of(self, topic: str, row: int) -> bool:
        """Whether it is about this row."""
        if isinstance(self.change, Truncated):
            return self.topic == topic
        of_row = isinstance(self.change, Upserted | Deleted) or self.kind == UNREADABLE
        return of_row and (self.topic, self.row) == (topic, row)


@dataclass(frozen=True)
class Fault:
    """``what`` happens from ``at_s`` for ``for_s`` seconds; with a ``count``, at the moment when so many
    records have settled (so many writes were started for a takeover)."""

    at_s: float
    what: str
    for_s: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class Scenario:
    """``conditional``: the store refuses writes that are older than what it holds. ``atomic``: its calls take
    effect as a whole. ``dead_in_a_row``: the dead-letter breaker's limit. ``commits_lost``: the share of
    commits that fail. ``luck`` changes what the run draws, and nothing else. ``ahead_s``: how long the source
    has committed before an event arrives, None where it cannot be asked; ``refused``: the columns that it
    will not tell."""

    seed: int
    events: tuple[Event, ...]
    faults: tuple[Fault, ...]
    error_rate: float = 0.0
    batch_items: int = 4
    records_in_flight: int = 1000
    bytes_in_flight: int = 10**9
    conditional: bool = True
    atomic: bool = True
    dead_in_a_row: int = NO_LIMIT
    #: So many records of a partition share a schema, which the registry has to tell; 0: they need none.
    per_schema: int = 0
    commits_lost: float = 0.1
    luck: int = 0
    ahead_s: float | None = None
    refused: frozenset[str] = frozenset()
    #: Members of the group; a rebalance takes everything from everybody with ``eager``.
    replicas: int = 1
    eager: bool = False
    #: When an operator asks to replay a dead letter. With the first time poison is poison no more.
    replays: tuple[float, ...] = ()
    #: The offset at which the logs begin: what was before is gone, or was never committed.
    first: int = 0
    #: Whether vectors that were made before are kept, by all replicas together.
    cached: bool = False
    #: Whether some tables have a provider and a store of their own.
    apart: bool = False

    @property
    def is_calm(self) -> bool:
        """Whether nothing but the events happens: calls may fail, but there is room, and nobody stops."""
        roomy = self.records_in_flight >= 1000 and self.bytes_in_flight >= 10**9
        still = not self.faults and not self.recreated() and not self.replays
        return roomy and still and self.dead_in_a_row == NO_LIMIT and self.replicas == 1

    def recreated(self) -> Mapping[str, float]:
        """When topics are deleted and created again: with the first of their new events."""
        return {event.topic: event.at_s for event in reversed(self.events) if event.generation}

    def added(self) -> Mapping[tuple[str, int], float]:
        """When partitions are added: each with the first of its events."""
        return {
            (event.topic, event.partition): event.at_s
            for event in reversed(self.events)
            if event.partition >= PARTITIONS[event.topic]
        }

    def without(self, events: set[int], faults: set[int]) -> Scenario:
        """The same scenario with some members left out."""
        return replace(
            self,
            events=tuple(event for at, event in enumerate(self.events) if at not in events),
            faults=tuple(fault for at, fault in enumerate(self.faults) if at not in faults),
        )

    def __str__(self) -> str:
        """Everything that happens, readable."""
        settings = (
            "error_rate",
            "batch_items",
            "records_in_flight",
            "bytes_in_flight",
            "conditional",
            "atomic",
        )
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
                    for name in (
                        *settings,
                        *("dead_in_a_row", "commits_lost", "per_schema", "luck", "ahead_s", "refused"),
                        *("replicas", "eager", "first", "cached", "apart", "replays"),
                    )
                ),
            ]
        )


@dataclass
class _Source:
    """One source table as the generator sees it."""

    rng: random.Random
    mapping: TableMapping
    size: int
    live: Mapping[str, float]
    absent: Mapping[str, float]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    texts: int = 0
    #: What the next statements are already known to be, the last one first.
    follow_up: list[tuple[int, str]] = field(default_factory=list)
    #: From now on rows are spread over the partitions in another way; among so many that were ``added``, too.
    grown: bool = False
    added: int = 0
    generation: int = 0
    #: Events tell where they stand in the source's log.
    ordered: bool = False
    moment: int = 0
    #: What the source's log is behind what it was: another server counts anew.
    behind: int = 0

    def events(self, at_s: float) -> list[Event]:
        """What one statement of the source makes: mostly one record."""
        row, kind = self._next()
        if kind == "flip":
            return self._flip(at_s, row)
        if kind == "reborn":
            return [self._event(at_s, row, self._change(row, each), each) for each in _REBORN]
        if kind == "twins":
            return self._twins(at_s, row)
        if kind != "rename":
            return [self._event(at_s, row, self._change(row, kind), kind)]
        free = [key for key in range(self.size) if key not in self.rows]
        if not free:
            return [self._event(at_s, row, self._change(row, "noop"), "noop")]
        near = [key for key in free if self._partition(key) == self._partition(row)]
        new = self.rng.choice(near if near and self.rng.random() < 0.7 else free)
        columns = self.rows[new] = self.rows.pop(row)
        left_out = self.rng.choice(_LEFT_OUT)
        seen = {name: value for name, value in columns.items() if name not in left_out}
        created = Upserted(_key(new), {"id": new, **seen}, left_out, "c", 0, old_key=_key(row))
        return [
            self._event(at_s, row, Deleted(_key(row), new_key=_key(new)), "renamed away"),
            self._event(at_s, row, Deleted(_key(row), new_key=_key(new)), "tombstone"),
            self._event(at_s, new, created, "renamed here"),
        ]

    def again(self, at_s: float) -> list[Event]:
        """The topic was created again: it begins with every row as it is, and with those that are gone."""
        self.generation += 1
        kinds = ["noop" if row in self.rows else "tombstone" for row in range(self.size)]
        return [self._event(at_s, row, self._change(row, kind), "again") for row, kind in enumerate(kinds)]

    def _next(self) -> tuple[int, str]:
        if self.follow_up:
            return self.follow_up.pop()
        row = self.rng.randrange(self.size)
        kind = self._kind(self.live if row in self.rows else self.absent)
        if kind == "moved_text":
            self.follow_up += [(row, "partial_title"), (row, "moved_text")]
        elif kind == "free":
            self.follow_up.append((row, "partial_price"))
        elif kind == "poison_text":
            self.follow_up.append((row, "partial_title"))
        return row, kind

    def _kind(self, weights: Mapping[str, float]) -> str:
        if PARTITIONS[self.mapping.source] > 1:
            # Nothing tells when the other partitions are through: the table would halt for good.
            weights = {kind: weight for kind, weight in weights.items() if kind != "truncate"}
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def _flip(self, at_s: float, row: int) -> list[Event]:
        """A change that the next record takes back."""
        before = dict(self.rows[row])
        there = self._change(row, self.rng.choice(("metadata", "text")))
        self.rows[row] = before
        return [
            self._event(at_s, row, there, "there"),
            self._event(at_s, row, self._change(row, "noop"), _BACK),
        ]

    def _twins(self, at_s: float, row: int) -> list[Event]:
        """Two rows get the same text."""
        texts = {"title": self._text(), "body": self._text()}
        pair = (row, self.rng.randrange(self.size))
        for each in pair:
            self.rows[each] = self._new() | texts
        return [self._event(at_s, each, self._change(each, "noop"), "twin") for each in pair]

    def _event(self, at_s: float, row: int, change: Change | None, kind: str) -> Event:
        whole = dict(self.rows[row]) if row in self.rows else None
        self.moment += 1
        if self.ordered and isinstance(change, Upserted | Deleted):
            order = f"{1000 + self.moment - self.behind:05d}"
            change = replace(change, source=SourcePosition("db", order, self.moment))
        hole = self.rng.choice(_HOLES)
        at = self._partition(row)
        return Event(at_s, self.mapping.source, at, row, change, kind, hole, whole, self.generation)

    def _partition(self, row: int) -> int:
        partitions = PARTITIONS[self.mapping.source]
        return (row + 1) % (partitions + self.added) if self.grown else row % partitions

    def _change(self, row: int, kind: str) -> Change | None:
        if kind == GARBAGE:
            return None
        if kind == UNREADABLE:
            # What it would have said, later events leave out.
            self.rows[row] = {**self.rows.get(row, self._new()), "body": self._text(), "note": self._text()}
            return None
        if kind == "heartbeat":
            return Ignored("heartbeat")
        if kind == "truncate":
            self.rows.clear()
            self.follow_up.clear()
            return Truncated(0)
        if kind in ("delete", "tombstone"):
            self.rows.pop(row, None)
            return Deleted(_key(row), committed_ms=0)
        columns = self.rows.setdefault(row, self._new())
        columns.update(self._edit(kind, columns))
        unavailable = _UNAVAILABLE.get(kind, frozenset())
        seen = {name: value for name, value in columns.items() if name not in unavailable}
        return Upserted(_key(row), {"id": row, **seen}, unavailable, committed_ms=0)

    def _new(self) -> dict[str, Any]:
        body = "\n\n".join(self._text() for _ in range(self.rng.choice((1, 1, 3))))
        return {"title": self._text(), "body": body, "price": 1, "note": "n", "gone": False}

    def _edit(self, kind: str, columns: Mapping[str, Any]) -> dict[str, Any]:
        if kind in _PARAGRAPHS:
            return {"body": "\n\n".join(self._paragraphs(kind, (columns["body"] or "").split("\n\n")))}
        match kind:
            case "text" | "partial_title" | "partial_note":
                return {"title": self._text()}
            case "body":
                return {"body": self._text()}
            case "moved_text":
                return _SAME_TEXT[columns["title"] != "one"]
            case "metadata" | "partial_metadata" | "partial_price":
                return {"price": self.rng.randrange(3)}
            case "note":
                return {"note": self._text()}
            case "poison_text":
                return {"title": f"{POISON_TEXT} {self._text()}", "body": self._text()}
            case "cured":
                return {"title": self._text(), "price": 5}
        return _EDITS.get(kind, {})

    def _paragraphs(self, kind: str, held: list[str]) -> list[str]:
        at = self.rng.randrange(len(held))
        match kind:
            case "shrink":
                return held[: at + 1]
            case "turn":
                return held[at:] + held[:at]
            case "twice":
                return [*held, held[at]]
            case "poison_chunk":
                return [*held, POISON_CHUNK]
        return [*held[:at], *(self._text() for _ in range(self.rng.choice((1, 3)))), *held[at:]]

    def _text(self) -> str:
        self.texts += 1
        return f"text {self.texts if self.rng.random() < 0.75 else 0}"


def _key(row: int) -> Mapping[str, Any]:
    return {"id": row}


_REBORN = ("delete", "partial_title")
_BACK = "and back"
#: Kinds of events that move the paragraphs of a text.
_PARAGRAPHS = ("grow", "shrink", "turn", "twice", "poison_chunk")
_HOLES = (0, 0, 0, 0, 1, 2)
#: What the create of a changed key does not tell.
_LEFT_OUT = tuple(map(frozenset[str], ((), ("body",), ("body",), ("body", "note"), ("title",))))
#: Columns that the event does not tell, by kind of event.
_UNAVAILABLE = {
    "partial_metadata": frozenset({"body"}),
    "partial_title": frozenset({"body"}),
    "partial_note": frozenset({"note"}),
    "partial_noop": frozenset({"body", "note"}),
    "partial_price": frozenset({"note"}),
    "partial_show": frozenset({"body"}),
}
_EDITS: dict[str, dict[str, Any]] = {
    "blank": {"title": None, "body": "  "},
    "soft_delete": {"gone": True},
    "undelete": {"gone": False},
    "hide": {"note": "hidden"},
    "free": {"note": "hidden", "price": 2},
    "show": {"note": "n"},
    "partial_show": {"note": "n"},
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
    GARBAGE: 2,
    UNREADABLE: 1,
    "poison_chunk": 1,
}
_LIVE = {
    "noop": 3,
    "text": 6,
    "body": 3,
    "moved_text": 2,
    "metadata": 5,
    "note": 1,
    "partial_metadata": 3,
    "partial_title": 4,
    "partial_note": 2,
    "partial_noop": 1,
    "blank": 0.7,
    "soft_delete": 1.5,
    "undelete": 1.5,
    "hide": 2,
    "free": 2,
    "show": 2,
    "partial_show": 1,
    "partial_price": 2,
    "delete": 4,
    "rename": 1.5,
    "flip": 6,
    "reborn": 3,
    "twins": 2,
    "poison_text": 2,
    "poison_metadata": 2,
    "cured": 2,
    "heartbeat": 1,
    "truncate": 12,
    GARBAGE: 2,
    UNREADABLE: 2,
    "grow": 2,
    "shrink": 2,
    "turn": 2,
    "twice": 1,
    "poison_chunk": 0.7,
}
_MOVED = {"rename": 10, "body": 3, "text": 1, "partial_title": 2, "delete": 1, "truncate": 1}
_CONTESTED = {
    "flip": 4,
    "text": 4,
    "metadata": 3,
    "noop": 1,
    "note": 1,
    "grow": 1,
    "shrink": 1,
    "delete": 0.1,
}
_MENDED = {
    "poison_text": 4,
    "poison_metadata": 3,
    UNREADABLE: 1,
    "text": 2,
    "metadata": 1,
    "partial_title": 1,
    "delete": 1.5,
    "noop": 1,
}
_BUSY = {"flip": 4, "text": 3, "metadata": 1, "delete": 1}
FAULTS = {
    "crash": 4,
    "stop": 2,
    "rebalance": 4,
    "lost": 3,
    "takeover": 4,
    "sleep": 3,
    "clock": 0.5,
    "provider_down": 2,
    "provider_refuses": 1,
    "throttle": 2,
    "store_down": 2,
    "people_down": 2,
    "elsewhere_down": 1,
    "other_provider_down": 1,
    "other_provider_refuses": 1,
    "store_refuses": 1,
    "vanish": 2,
    "dlq_down": 2,
    "dlq_refuses": 1,
    "commits_fail": 2,
    "drift": 6,
    "source_down": 2,
    "source_refuses": 1,
    "registry_down": 2,
    "registry_refuses": 1,
}


#: Faults that befall the process or its partitions at one moment.
ABRUPT = frozenset({"crash", "stop", "takeover", "sleep", "clock", "rebalance", "lost"})
#: Those of them that may come at the moment when something settles or is written.
_COUNTED = ABRUPT - {"sleep", "clock"}
#: How long a process stands still that others take over from.
_AWAY_S = 0.7


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    return replace(_draw(seed), cached=seed % 4 == 1)


def _draw(seed: int) -> Scenario:
    rng = random.Random(seed)  # noqa: S311  reproducible on purpose
    if rng.random() < 0.2:
        return _delicate(seed, rng)
    if rng.random() < 0.2:
        return _moving(seed, rng)
    if rng.random() < 0.15:
        return _contested(seed, rng)
    if rng.random() < 0.1:
        return _spread(seed, rng)
    if rng.random() < 0.15:
        return _replayed(seed, rng)
    events = _draw_events(rng)
    span_s = max(0.5, *(event.at_s for event in events))
    faults = [_draw_fault(rng, span_s, events) for _ in range(rng.choice((0, 0, 1, 2, 4)))]
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.05, 0.25)),
        batch_items=rng.choice((1, 2, 4, 64)),
        records_in_flight=rng.choice((1, 5, 1000)),
        bytes_in_flight=rng.choice((20_000, 10**9, 10**9)),
        conditional=rng.random() < 0.5,
        atomic=rng.random() < 0.4,
        dead_in_a_row=rng.choice((1, 1, NO_LIMIT, NO_LIMIT, NO_LIMIT)),
        commits_lost=rng.choice((0.0, 0.1, 0.9)),
        ahead_s=rng.choice((None, None, 0.0, 0.05, 1.0)),
        refused=rng.choice((frozenset[str](), frozenset[str](), frozenset({"note"}))),
        per_schema=rng.choice((0, 0, 1, 3, 10)),
        replicas=rng.choice((1, 1, 2, 3)),
        eager=rng.random() < 0.3,
        first=rng.choice((0, 0, 5)),
        apart=rng.random() < 0.3,
    )


def _moving(seed: int, rng: random.Random) -> Scenario:
    """Rows that get another key again and again, mostly in peace."""
    table = rng.choice((PRODUCTS, PRODUCTS, NOTES))
    source = _Source(rng, table, rng.choice((3, 5)), _MOVED, {"insert": 20, "partial_title": 5})
    pace_s = rng.choice((0.0, 0.0, 0.02))
    events = [event for at in range(rng.choice((15, 30))) for event in source.events(at * pace_s)]
    count = rng.choice((0, 0, 1))
    return Scenario(
        seed,
        tuple(events),
        tuple(_draw_fault(rng, 0.5, events) for _ in range(count)),
        error_rate=rng.choice((0.0, 0.0, 0.05)),
        batch_items=rng.choice((1, 2, 4, 64)),
        conditional=rng.random() < 0.5,
        ahead_s=rng.choice((None, None, 0.05, 1.0)),
        per_schema=rng.choice((0, 0, 0, 3)),
    )


def _delicate(seed: int, rng: random.Random) -> Scenario:
    """Two busy rows, nothing that fails but the process, at the worst moments, with little committed."""
    mapping = rng.choice((PRODUCTS, DOCS))
    busy = _BUSY | {"grow": 1, "shrink": 1} if mapping is DOCS else _BUSY
    source = _Source(rng, mapping, 2, busy, {"insert": 1})
    pace_s = rng.choice((0.0, 0.1, 0.2))
    events = [event for at in range(12) for event in source.events(at * pace_s)]
    counts = _delicate_moments(events)
    faults = [
        Fault(0.0, rng.choice(("crash", "takeover", "lost")), _AWAY_S, count=rng.choice(counts))
        for _ in range(2)
    ]
    return Scenario(
        seed,
        tuple(events),
        tuple(faults),
        batch_items=rng.choice((1, 64)),
        conditional=rng.random() < 0.5,
        atomic=rng.random() < 0.5,
        commits_lost=0.9,
        replicas=rng.choice((1, 1, 2)),
    )


def _contested(seed: int, rng: random.Random) -> Scenario:
    """Rows that are changed all the time, and replicas that lose and gain their partitions, often without
    knowing: what still comes from the former owner meets what the new one has done. Rows seldom go away,
    since nothing in a store can tell late writes from others where there is no row."""
    mapping = rng.choice((PRODUCTS, USERS, DOCS, NOTES))
    source = _Source(rng, mapping, rng.choice((1, 2, 4)), _CONTESTED, {"insert": 1})
    pace_s = rng.choice((0.01, 0.05))
    events = [event for at in range(rng.choice((20, 40))) for event in source.events(at * pace_s)]
    span_s = max(event.at_s for event in events)
    kinds = rng.choice((("sleep", "lost"), ("lost",), ("sleep", "crash", "rebalance")))
    away_s = (0.45, 0.6, 1.0)
    faults = [
        Fault(rng.random() * span_s, rng.choice(kinds), rng.choice(away_s)) for _ in range(rng.choice((2, 5)))
    ]
    counts = range(1, len(events))
    faults += [
        Fault(0.0, "takeover", rng.choice(away_s), rng.choice(counts)) for _ in range(rng.choice((2, 5)))
    ]
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.0, 0.05)),
        batch_items=rng.choice((1, 4, 64)),
        conditional=rng.random() < 0.9,
        atomic=rng.random() < 0.6,
        commits_lost=rng.choice((0.0, 0.9)),
        replicas=rng.choice((2, 2, 3)),
        eager=rng.random() < 0.3,
    )


def _spread(seed: int, rng: random.Random) -> Scenario:
    """Rows that come to another partition, perhaps a new one, whose events wait in both at the same time; or
    whose topic is created again. Events mostly tell the source's order, now and then its log is set back."""
    mapping = rng.choice((PRODUCTS, DOCS))
    source = _Source(rng, mapping, rng.choice((1, 2, 4)), _CONTESTED, {"insert": 1})
    source.ordered = rng.random() < 0.8
    count = rng.choice((6, 12, 24))
    pace_s = rng.choice((0.0, 0.02, 0.1))
    grows_at, again_at, behind_at = (
        rng.randrange(count) if rng.random() < share else count for share in (0.7, 0.4, 0.3)
    )
    source.added = (0, 1, 1, 3)[grows_at % 4]
    events: list[Event] = []
    for at in range(count):
        source.grown = at >= grows_at
        source.behind = 500 if at >= behind_at else 0
        events += source.events(at * pace_s)
        if at == again_at:
            events += source.again(at * pace_s)
    span_s = count * pace_s + 0.3
    kinds = ("lost", "rebalance", "crash", "store_down", "sleep")
    faults = [
        Fault(rng.random() * span_s, rng.choice(kinds), rng.choice((0.2, 0.6)))
        for _ in range(rng.choice((0, 1, 3)))
    ]
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.0, 0.05)),
        batch_items=rng.choice((1, 4, 64)),
        conditional=rng.random() < 0.7,
        atomic=rng.random() < 0.7,
        commits_lost=rng.choice((0.0, 0.9)),
        replicas=rng.choice((1, 2, 3)),
        eager=rng.random() < 0.3,
    )


def _replayed(seed: int, rng: random.Random) -> Scenario:
    """Many dead letters, and an operator who asks to replay them while their rows go on changing, and their
    partitions from hand to hand."""
    mapping = rng.choice((PRODUCTS, USERS, DOCS))
    live = _swarm(rng, _MENDED) | {"noop": 1}
    source = _Source(rng, mapping, rng.choice((1, 2, 4)), live, {"insert": 3, "poison_text": 2})
    pace_s = rng.choice((0.0, 0.02, 0.1))
    events = [event for at in range(rng.choice((4, 10, 20))) for event in source.events(at * pace_s)]
    span_s = events[-1].at_s + 0.3
    kinds = ("lost", "rebalance", "crash", "stop", "store_down", "provider_down")
    faults = [
        Fault(rng.random() * 2 * span_s, rng.choice(kinds), rng.choice((0.2, 0.6)))
        for _ in range(rng.choice((0, 1, 3)))
    ]
    return Scenario(
        seed,
        tuple(events),
        tuple(sorted(faults, key=lambda fault: fault.at_s)),
        error_rate=rng.choice((0.0, 0.0, 0.05)),
        batch_items=rng.choice((1, 4, 64)),
        conditional=rng.random() < 0.7,
        atomic=rng.random() < 0.7,
        commits_lost=rng.choice((0.0, 0.9)),
        replicas=rng.choice((1, 2, 3)),
        eager=rng.random() < 0.3,
        replays=tuple(sorted((0.3 + rng.random() * 2) * span_s for _ in range(rng.choice((2, 6, 12))))),
    )


def _delicate_moments(events: Sequence[Event]) -> Sequence[int]:
    """After how many records something was done that may have to be done again."""
    backs = [at + 1 for at, event in enumerate(events) if event.kind == _BACK]
    return backs or range(1, len(events) + 1)


def _draw_fault(rng: random.Random, span_s: float, events: Sequence[Event]) -> Fault:
    what = rng.choices(list(FAULTS), list(FAULTS.values()))[0]
    if what in _COUNTED and rng.random() < 0.5:
        return Fault(0.0, what, _AWAY_S, count=rng.choice(_delicate_moments(events)))
    return Fault(rng.random() * span_s * 1.5, what, rng.choice((0.05, 0.5, 3.0)))


def _swarm(rng: random.Random, weights: Mapping[str, float]) -> dict[str, float]:
    """Some kinds not at all, others often: rare things then meet more often in some scenario."""
    return {kind: weight * rng.choice((0.01, 0.01, 1, 1, 5)) for kind, weight in weights.items()}


def _draw_events(rng: random.Random) -> list[Event]:
    size = rng.choice((2, 3, 5, 12))
    live, absent = _swarm(rng, _LIVE), _swarm(rng, _ABSENT)
    drawn = (rng.choice((PRODUCTS, DOCS)), rng.choice((USERS, USERS, NOTES)))
    tables = [_Source(rng, mapping, size, live, absent) for mapping in drawn]
    only_one = rng.random() < 0.6
    count = rng.choice((5, 15, 40))
    pace_s = rng.choice((0.0, 0.01, 0.1))
    grows_at = rng.randrange(count) if rng.random() < 0.15 else count
    again_at = rng.randrange(count) if rng.random() < 0.1 else count
    behind_at = rng.randrange(count) if rng.random() < 0.05 else count
    tables[0].added = grows_at % 2
    for table in tables:
        table.ordered = grows_at + again_at < 2 * count and rng.random() < 0.7
    at_s = 0.0
    events: list[Event] = []
    for at in range(count):
        at_s += rng.random() * 2 * pace_s
        tables[0].grown = at >= grows_at
        tables[0].behind = 500 if at >= behind_at else 0
        if at == again_at:
            at_s += 0.01
            events += tables[0].again(at_s)
        events += tables[0 if only_one or rng.random() < 0.7 else 1].events(at_s)
    return events
