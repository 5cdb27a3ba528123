"""What the run shows from outside: the store by SQL, the commits by the broker, the texts by the provider."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from tests.chaos.history import TABLES, Held, History, RowId, Table
from tests.chaos.stage import DIMENSIONS, Stage

from vectide.core.letters import DeadLetter
from vectide.core.model import Record
from vectide.embedders.hashing import expected_vector

Place = tuple[str, int, int]
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Stored:
    """One row as the store holds it. ``flaws``: what can never be right, whatever the row should be."""

    held: Held
    stale: bool
    flaws: tuple[str, ...]


def read_store(
    store: psycopg.Connection[Any], tables: Sequence[Table] = TABLES, *, vectors: bool = False
) -> dict[RowId, Stored]:
    """Every row. Tables that are not there yet have none."""
    rows: dict[RowId, list[tuple[Any, ...]]] = defaultdict(list)
    for table in tables:
        column = sql.SQL("embedding::real[]" if vectors else "NULL")
        query = sql.SQL("SELECT row_key, chunk, text, metadata, stamp, {} FROM {} ORDER BY row_key, chunk")
        try:
            found = store.execute(query.format(column, sql.Identifier(table.name))).fetchall()
        except psycopg.errors.UndefinedTable:
            continue
        for key, *point in found:
            rows[table.name, json.loads(key)["id"]].append(tuple(point))
    return {row: _stored(points) for row, points in rows.items()}


def _stored(points: Sequence[tuple[Any, ...]]) -> Stored:
    head = points[0]
    texts = tuple(text for _, text, *_ in points)
    return Stored(
        Held(texts, head[2].get("price")), bool((head[3] or {}).get("stale")), tuple(_flaws(points))
    )


def _flaws(points: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    if [chunk for chunk, *_ in points] != list(range(len(points))):
        yield f"its chunks are {[chunk for chunk, *_ in points]}"
    if len({json.dumps(metadata) for _, _, metadata, *_ in points}) > 1:
        yield "its points have different metadata"
    stamp = points[0][3]
    if stamp is None or len(stamp["chunks"]) != len(points) or stamp.get("open"):
        yield "its stamp is not that of its points"
    for point in points:
        text, vector = point[1], point[4]
        if vector is not None and not np.allclose(vector, expected_vector(text, DIMENSIONS), atol=1e-5):
            yield "a vector is not that of its text"


def differences(history: History, store: Mapping[RowId, Stored]) -> Iterator[str]:
    """Every way in which the store is not the fold of the topics (invariant 14)."""
    for row in sorted(history.lives.keys() | store.keys()):
        life, found = history.lives.get(row), store.get(row)
        wanted = life.last if life else None
        if found is None:
            if wanted is not None:
                yield f"{row}: lost"
            continue
        yield from (f"{row}: {flaw}" for flaw in found.flaws)
        if life is None or wanted is None:
            yield f"{row}: revived, or never was"
        elif found.held != wanted:
            past = any(found.held == held for _, held in life.versions)
            yield f"{row}: {'an older version' if past else 'no version of it'}: {found.held}, not {wanted}"
        elif found.stale != (life.stale is not None):
            yield f"{row}: stale is {found.stale}"


def ahead(
    history: History, committed: Mapping[tuple[str, int], int], store: Mapping[RowId, Stored]
) -> Iterator[str]:
    """Rows that the store, read after the commits, holds as of before them (invariant 1)."""
    for row, life in history.lives.items():
        upto = committed.get((row[0], life.partition), 0)
        found = store.get(row)
        if (found.held if found else None) not in life.allowed(upto):
            yield f"{row}: committed {upto}, but the store holds {found}"


def letter_complaints(history: History, letters: Iterable[DeadLetter], stage: Stage) -> Iterator[str]:
    """Only poison is a dead letter, and all poison that nothing newer superseded is (invariant 10)."""
    tables = {stage.topic(table.name): table.name for table in TABLES}
    found: dict[Place, DeadLetter] = {
        (tables[one.source.topic], one.source.partition or 0, one.source.offset): one for one in letters
    }
    for place, letter in found.items():
        if place not in history.poison | history.garbage:
            yield f"{place}: a dead letter ({letter.cause}: {letter.detail})"
    for place in history.last_poison() - found.keys():
        yield f"{place}: poison, but no dead letter"


def read_letters(stage: Stage) -> list[DeadLetter]:
    """What the dead-letter topic holds."""
    letters = []
    for message in stage.servers.kafka.messages([stage.dead_letters]):
        headers: Any = tuple(message.headers() or ())
        stored = Record(
            message.topic() or "",
            message.partition() or 0,
            message.offset() or 0,
            message.key(),
            message.value(),
            headers,
            0,
        )
        letter = DeadLetter.read(stored)
        assert letter is not None, "the dead-letter topic has a record that is no letter"
        letters.append(letter)
    return letters


@dataclass(slots=True)
class Bill:
    """What the provider was paid for, and what it may have been paid for twice: texts that were on their way
    to the store when a process was killed, or while partitions or answers were lost."""

    _killed: int = 0
    _windows: list[tuple[float, float]] = field(default_factory=list)
    _samples: list[tuple[float, Set[str]]] = field(default_factory=list)

    def sample(self, at_s: float, on_the_way: Set[str]) -> None:
        self._samples.append((at_s, on_the_way))

    def killed(self, on_the_way: Set[str]) -> None:
        """A process is gone, and what was on its way with it."""
        self._killed += len(on_the_way)

    def excuse_between(self, start_s: float, end_s: float) -> None:
        """At some moment in between all that was on its way may have been lost."""
        self._windows.append((start_s, end_s))

    def allowance(self) -> int:
        """How many texts may have been paid for in vain: each once for every stretch of trouble."""
        stretches: list[tuple[float, float]] = []
        for start_s, end_s in sorted(self._windows):
            if stretches and start_s <= stretches[-1][1]:
                stretches[-1] = stretches[-1][0], max(end_s, stretches[-1][1])
            else:
                stretches.append((start_s, end_s))
        lost = 0
        for start_s, end_s in stretches:
            lost += len(set().union(*(texts for at_s, texts in self._samples if start_s <= at_s <= end_s)))
        return self._killed + lost

    def in_vain(self, history: History, answered: Sequence[str]) -> int:
        """Texts paid for more often than they came to a row that did not hold them."""
        return sum((Counter(answered) - history.worth).values())

    def complaints(self, history: History, answered: Sequence[str]) -> Iterator[str]:
        """Texts that nobody needed, and more paid in vain than can be explained (invariant 7)."""
        if unknown := set(answered) - history.worth.keys():
            yield f"{len(unknown)} texts that no row has, such as {unknown.pop()!r}"
        if self.in_vain(history, answered) > self.allowance():
            yield f"{self.in_vain(history, answered)} paid for in vain, {self.allowance()} may have been"


def on_the_way(
    history: History,
    answered: Iterable[str],
    committed: Mapping[tuple[str, int], int],
    store: Mapping[RowId, Stored],
) -> Set[str]:
    """Texts that have been paid for, that the store does not hold, and whose record is not done."""
    there = {text for found in store.values() for text in found.held.texts}
    return {text for text in set(answered) - there if _undone(history.origin.get(text), committed)}


def _undone(origin: Place | None, committed: Mapping[tuple[str, int], int]) -> bool:
    if origin is None:
        return False
    table, partition, offset = origin
    return offset >= committed.get((table, partition), 0)
