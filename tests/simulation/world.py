"""The simulated provider and store, which delay, fail and forget, and the faults that strike the world."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.simulation.broker import SimBroker, SimDeadLetters, SimRegistry
from tests.simulation.clock import START_S, SimClock
from tests.simulation.group import SimGroup
from tests.simulation.replaying import SimReplays
from tests.simulation.scenario import (
    ABRUPT,
    APART,
    POISON_CHUNK,
    POISON_PRICE,
    POISON_TEXT,
    TABLES,
    USERS,
    Fault,
    Scenario,
)

from vectide.cache import MemoryCache
from vectide.core.failures import Failure, Kind
from vectide.core.mapping import TableMapping
from vectide.core.model import Columns, Row, Stamp, Truncated, text_hash
from vectide.core.signals import Metric
from vectide.embedders import checked
from vectide.ports import (
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Effect,
    EmbedderLimits,
    Embeddings,
    Mark,
    Matrix,
    Outcome,
    Patch,
    PatchChunks,
    Put,
    Remove,
    RowsRead,
    Stored,
    Trim,
    Vector,
    Write,
)
from vectide.testing.store import CAPABILITIES, MemoryStore, row_of

DIMENSIONS = 4
#: Points on a page of a scan, so that a purge takes several.
SCAN_POINTS = 2
SPACE = "sim/4"
#: Of the provider that some tables have to themselves.
OTHER_SPACE = "other/4"
_BAD_VALUE = Failure(Kind.REFUSED, "bad_value")
#: For calls on the memory store that cannot take time.
SOON = Deadline(SimClock(), 9e9)


class SimProvider:
    """Embeds a text as a vector that only this text has."""

    dimensions = DIMENSIONS
    limits = EmbedderLimits(max_items=64)

    def __init__(self, rng: random.Random, error_rate: float, space: str = SPACE) -> None:
        self.space = space
        self._rng = rng
        self._error_rate = error_rate
        self.down = False
        self.refuses = False
        self.throttled = False
        self.watch: Callable[[Sequence[str]], None] = lambda texts: None
        self.is_mended: Callable[[], bool] = lambda: False

    def count_tokens(self, text: str) -> int:
        return len(text)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        if self.down:
            raise AdapterError(Failure(Kind.TRANSIENT, "server_error"))
        if self.refuses:
            raise AdapterError(Failure(Kind.OPERATOR, "quota_exhausted"))
        if self.throttled:
            raise AdapterError(Failure(Kind.THROTTLED, "rate_limited", retry_after_s=0.2))
        flaky = self._rng.random() < self._error_rate
        if flaky and self._rng.random() < 0.5:
            raise AdapterError(Failure(Kind.TRANSIENT, "flaky"))
        if not self.is_mended() and any(POISON_TEXT in text for text in texts):
            raise AdapterError(Failure(Kind.REFUSED, "bad_request"))
        self.watch(texts)
        vectors = np.stack([vector_of(text, self.space) for text in texts])
        if flaky:
            vectors = self._rng.choice(_SPOILT)(vectors)
        return checked(vectors, len(texts), DIMENSIONS)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        return vector_of(text, self.space)

    def prepare(self, deadline: Deadline) -> None:
        pass

    def close(self) -> None:
        pass


#: What providers do to answers. (A wrong dimension of all vectors would be for an operator.)
_SPOILT: Sequence[Callable[[Matrix], Any]] = (
    lambda vectors: vectors[:-1],
    lambda vectors: np.vstack([vectors, vectors[:1]]),
    lambda vectors: vectors * np.nan,
    lambda vectors: vectors * 0,
    lambda vectors: [vectors[0][:-1], np.append(vectors[0], vectors[0]), *vectors[2:]],
)


def vector_of(text: str, space: str) -> Vector:
    """The only right vector of ``text``."""
    digest = text_hash(text if space == SPACE else f"{space} {text}")
    return np.array([int(digest[at : at + 4], 16) + 1 for at in range(0, 16, 4)], dtype=np.float32)


def space_of(scenario: Scenario, table: str) -> str:
    """Of the provider that the table's texts go to."""
    return OTHER_SPACE if scenario.apart and any(table == mapping.table for mapping in APART) else SPACE


class SimStore:
    """The contract's memory store behind a network that loses requests and answers."""

    def __init__(self, rng: random.Random, scenario: Scenario) -> None:
        self._rng = rng
        self._error_rate = scenario.error_rate
        able = replace(CAPABILITIES, conditional_writes=scenario.conditional, atomic_calls=scenario.atomic)
        self.inner = MemoryStore(able)
        self.down = False
        #: Only the second table's collection cannot be reached.
        self.people_down = False
        self.refuses = False
        #: While it is on, the point that a patch is for may have been removed by another hand.
        self.vanishing = False
        self.vanished: set[Row] = set()
        #: While it is on, calls that are not atomic are cut off in the middle: the process dies.
        self.tearing = False
        self.watch: Callable[[Write], None] = lambda write: None
        self.is_mended: Callable[[], bool] = lambda: False
        #: Told of every row that has changed, as soon as others could see it.
        self.changed: Callable[[str, Row], None] = lambda collection, row: None
        for mapping in TABLES.values():
            self.inner.prepare(
                CollectionSpec(mapping.collection, DIMENSIONS, space_of(scenario, mapping.table)), SOON
            )

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        self.inner.prepare(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        self._maybe_fail(collection)
        atomic = self.inner.capabilities.atomic_calls
        if any(map(self._refuses, writes)) and (atomic or self._rng.random() < 0.5):
            raise AdapterError(_BAD_VALUE)
        for write in writes:
            self.watch(write)
            self._maybe_vanish(collection, write)
        if atomic:
            outcomes = self.inner.write(collection, writes, deadline)
        else:
            outcomes = self._write_one_by_one(collection, writes, deadline)
        for row in set(map(row_of, writes)):
            self.changed(collection, row)
        self._maybe_fail(collection, after=True)
        return outcomes

    def _write_one_by_one(
        self, collection: str, writes: Sequence[Write], deadline: Deadline
    ) -> Sequence[Outcome]:
        """In any order, and perhaps not all of them; each is refused by itself."""
        order = list(range(len(writes)))
        self._rng.shuffle(order)
        outcomes: dict[int, Outcome] = {}
        for at in order:
            if outcomes and (self.tearing or self._rng.random() < self._error_rate / len(writes)):
                raise AdapterError(Failure(Kind.TRANSIENT, "torn"))
            if self._refuses(writes[at]):
                outcomes[at] = Outcome(Effect.FAILED, _BAD_VALUE)
                continue
            for part in _parts(writes[at]):
                outcomes[at] = self.inner.write(collection, [part], deadline)[0]
                self.changed(collection, row_of(part))
        return [outcomes[at] for at in range(len(writes))]

    def _refuses(self, write: Write) -> bool:
        return not self.is_mended() and _is_poison(write)

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        self._maybe_fail(collection)
        return self.inner.stamps(collection, rows, deadline, values=values)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        self._maybe_fail(collection)
        return self.inner.scan(collection, cursor, min(limit, SCAN_POINTS), deadline, vectors=vectors)

    def stamp_of(self, row: Row) -> Stamp | None:
        """What the store really holds of the row."""
        collection = next(mapping.collection for mapping in TABLES.values() if mapping.table == row.table)
        return self.inner.stamps(collection, [row], SOON)[0]

    def close(self) -> None:
        pass

    def _maybe_fail(self, collection: str, *, after: bool = False) -> None:
        if self.refuses:
            raise AdapterError(Failure(Kind.OPERATOR, "read_only"))
        if self.down or (self.people_down and collection == USERS.collection):
            raise AdapterError(Failure(Kind.TRANSIENT, "connection"))
        if self._rng.random() < self._error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "answer_lost" if after else "timeout"))

    def _maybe_vanish(self, collection: str, write: Write) -> None:
        needs_row = isinstance(write, Patch | Mark) or (isinstance(write, Put) and write.only_if_present)
        if self.vanishing and needs_row and self._rng.random() < 0.5:
            row = row_of(write)
            ids = tuple(point.id for point in self.inner.of_row(collection, row))
            self.inner.write(collection, [Remove(row, ids)], SOON)
            self.vanished.add(row)


class SimShelf:
    """The part of the store that is a store of its own, for these tables alone: it can fail by itself."""

    def __init__(self, store: SimStore, tables: Iterable[TableMapping]) -> None:
        self._store = store
        self._collections = {mapping.collection for mapping in tables}
        self.down = False

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        self._store.prepare(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        self._check(collection)
        return self._store.write(collection, writes, deadline)

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        self._check(collection)
        return self._store.stamps(collection, rows, deadline, values=values)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        self._check(collection)
        return self._store.scan(collection, cursor, limit, deadline, vectors=vectors)

    def close(self) -> None:
        pass

    def _check(self, collection: str) -> None:
        assert collection in self._collections, f"{collection} is in another store"
        if self.down:
            raise AdapterError(Failure(Kind.TRANSIENT, "connection"))


def _parts(write: Write) -> Sequence[Write]:
    """What a store that knows single points makes of it."""
    match write:
        case Remove(ids=ids):
            return [replace(write, ids=(id_,)) for id_ in ids]
        case PatchChunks(row, metadata, chunks, keep):
            return [PatchChunks(row, metadata, (chunk,), keep) for chunk in chunks]
        case Trim(row, ids, stay):
            return [Trim(row, (id_,), stay) for id_ in ids]
    return [write]


def _is_poison(write: Write) -> bool:
    match write:
        case Put(point):
            return POISON_PRICE in point.metadata.values() or POISON_CHUNK in str(point.text)
        case Patch(_, metadata) | PatchChunks(_, metadata):
            return POISON_PRICE in metadata.values()
    return False


class SimReader:
    """The source's tables, ahead of the events about them. ``events`` are all that ever come."""

    def __init__(self, clock: SimClock, rng: random.Random, scenario: Scenario) -> None:
        self._clock = clock
        self._rng = rng
        self._scenario = scenario
        self.down = False
        self.refuses = False

    def prepare(self, deadline: Deadline) -> None:
        pass

    def read(
        self, table: str, keys: Sequence[Columns], columns: Sequence[str], deadline: Deadline
    ) -> RowsRead:
        if self.refuses:
            raise AdapterError(Failure(Kind.OPERATOR, "permission"))
        if self.down or self._rng.random() < self._scenario.error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "connection"))
        refused = {name: "of some type" for name in columns if name in self._scenario.refused}
        told = [name for name in columns if name not in refused]
        rows = [self._row(f"shop.{table}", key["id"]) for key in keys]
        return RowsRead([row and {name: row[name] for name in told} for row in rows], refused)

    def _row(self, topic: str, row: int) -> Columns | None:
        """The row as committed now; it makes no difference to the reader how long that has been known."""
        committed_s = self._clock.now_s - START_S + (self._scenario.ahead_s or 0.0)
        known = [
            None if isinstance(event.change, Truncated) else event.whole
            for event in self._scenario.events
            if event.tells_of(topic, row) and event.at_s <= committed_s
        ]
        return known[-1] if known else None

    def close(self) -> None:
        pass


class SimTelemetry:
    """Counts, so that checks can ask; refuses labels that the catalogue does not know."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        self._check(name, labels)
        self.counts[name] += int(amount)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self._check(name, labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self._check(name, labels)

    def _check(self, name: str, labels: dict[str, str]) -> None:
        assert isinstance(name, Metric), f"{name} is not in the catalogue"
        assert len(labels) == len(name.labels), f"{name} with {labels}"
        assert labels.keys() == set(name.labels), f"{name} with {labels}"


class SimLog:
    """Adds what a process logs to what the others do; shown with a failing trace."""

    def __init__(self, clock: SimClock, lines: list[str], name: str) -> None:
        self._clock = clock
        self._lines = lines
        self._name = name
        self.heard: Callable[[str, dict[str, Any]], None] = lambda event, fields: None

    def info(self, event: str, /, **fields: Any) -> None:
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        self._lines.append(f"{self._clock.now_s - START_S:8.3f} {self._name} {event} {told}")
        self.heard(event, fields)

    warning = error = info


class World:
    """What the processes are surrounded by. ``told``: what they log."""

    def __init__(self, scenario: Scenario, rng: random.Random) -> None:
        # As soon as anything draws another number, the rest of the story is another one.
        self.rng = rng
        self.told: list[str] = []
        self.clock = SimClock()
        self.broker = SimBroker(
            self.clock, scenario.events, scenario.per_schema, scenario.first, scenario.added()
        )
        self.group = SimGroup(self.clock, self.broker, rng, scenario)
        self.provider = SimProvider(rng, scenario.error_rate)
        #: Room for a few vectors.
        self.cache = MemoryCache(2000)
        self.other_provider = SimProvider(rng, scenario.error_rate, OTHER_SPACE)
        self.store = SimStore(rng, scenario)
        #: Two stores with some of the tables each, where the tables go apart.
        self.here = SimShelf(self.store, [one for one in TABLES.values() if one not in APART])
        self.elsewhere = SimShelf(self.store, APART)
        self.replays = SimReplays(self.broker, rng)
        mended = self.store.is_mended = lambda: self.replays.mended
        self.provider.is_mended = self.other_provider.is_mended = mended
        self.letters = SimDeadLetters(self.broker, rng, scenario.error_rate)
        self.reader = SimReader(self.clock, rng, scenario)
        self.registry = SimRegistry(rng, scenario.error_rate)


def schedule(world: World, faults: Sequence[Fault], strike: Callable[[str, float], None]) -> None:
    """Put the faults on the agenda. ``strike`` performs the abrupt ones."""
    for fault in faults:
        moment_s = START_S + fault.at_s
        if fault.what not in ABRUPT:
            world.clock.at(moment_s, _switch(world, fault.what, on=True))
            world.clock.at(moment_s + fault.for_s, _switch(world, fault.what, on=False))
        elif not fault.count:
            world.clock.at(moment_s, _call(strike, fault))


def _call(strike: Callable[[str, float], None], fault: Fault) -> Callable[[], None]:
    return lambda: strike(fault.what, fault.for_s)


def _switch(world: World, what: str, *, on: bool) -> Callable[[], None]:
    return lambda: _set(world, what, on)


def _set(world: World, what: str, on: bool) -> None:
    world.clock.stir()
    part, name = {
        "provider_down": (world.provider, "down"),
        "provider_refuses": (world.provider, "refuses"),
        "throttle": (world.provider, "throttled"),
        "store_down": (world.store, "down"),
        "people_down": (world.store, "people_down"),
        "elsewhere_down": (world.elsewhere, "down"),
        "other_provider_down": (world.other_provider, "down"),
        "other_provider_refuses": (world.other_provider, "refuses"),
        "store_refuses": (world.store, "refuses"),
        "vanish": (world.store, "vanishing"),
        "dlq_down": (world.letters, "down"),
        "dlq_refuses": (world.letters, "refuses"),
        "commits_fail": (world.broker, "commits_fail"),
        "drift": (world.broker, "drifting"),
        "source_down": (world.reader, "down"),
        "source_refuses": (world.reader, "refuses"),
        "registry_down": (world.registry, "down"),
        "registry_refuses": (world.registry, "refuses"),
    }[what]
    assert isinstance(getattr(part, name), bool)
    setattr(part, name, on)
