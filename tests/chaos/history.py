"""What happens to the source's rows: Debezium events as a connector writes them, and what must come of them.

Everything follows from the seed. Nothing here asks the service what it would make of an event, but for where
its chunker cuts a long text (which has tests of its own).
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from vectide.core.chunks import Chunking, chunks_of

UNAVAILABLE: Final = "__debezium_unavailable_value"
#: In a text: the provider refuses it for good.
POISON: Final = "poisonous"
GARBAGE: Final = b"\x00 this is no event"
CHUNK_TOKENS: Final = 45
#: One paragraph fills more than half of a chunk, so that each is a chunk.
PARAGRAPH_BYTES: Final = 90
START_MS: Final = 1_700_000_000_000


def count_tokens(text: str) -> int:
    """As the service estimates them where it has no tokenizer."""
    return -(-len(text.encode()) // 3)


@dataclass(frozen=True, slots=True)
class Table:
    """One vector table of the runs. ``topic`` is completed by the run's own prefix."""

    name: str
    partitions: int
    chunked: bool
    settings: Mapping[str, Any]

    def partition_of(self, row: int) -> int:
        return crc32(str(row).encode()) % self.partitions

    def texts(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        """The texts of the row's points."""
        whole = f"{columns['title']}\n\n{columns['body']}".strip()
        if not self.chunked:
            return (whole,)
        return tuple(chunk.text for chunk in chunks_of(whole, Chunking(CHUNK_TOKENS), count_tokens))


_EMBED: Final = {"embed": {"template": "{title}\n\n{body}"}, "metadata": ["price"], "store_text": True}
TABLES: Final = (
    Table("items", 3, chunked=False, settings=_EMBED),
    Table("docs", 2, chunked=True, settings={**_EMBED, "chunk": {"tokens": CHUNK_TOKENS}}),
)


@dataclass(frozen=True, slots=True)
class Held:
    """What the store must hold of a row: the texts of its points in order, and its metadata."""

    texts: tuple[str, ...]
    price: int


#: Nothing is held of a row.
GONE: Final = None
RowId = tuple[str, int]
Header = tuple[str, bytes]

#: What happens, and how often.
KINDS: Final = {
    "text": 35.0,
    "metadata": 22.0,
    "nothing": 8.0,
    "insert": 12.0,
    "delete": 8.0,
    "move": 4.0,
    "back": 3.0,
    "poison": 1.0,
    "garbage": 0.5,
}
POISONOUS: Final = ("poison", "garbage")


@dataclass(frozen=True, slots=True)
class Message:
    """One record to produce."""

    table: Table
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[Header, ...] = ()


@dataclass(slots=True)
class Life:
    """What has become of one row, version by version: each holds from its offset in the row's partition on.
    ``stale`` is the offset of a last change that nobody can apply."""

    partition: int
    versions: list[tuple[int, Held | None]] = field(default_factory=lambda: [(-1, GONE)])
    stale: int | None = None
    columns: dict[str, Any] | None = None

    @property
    def last(self) -> Held | None:
        return self.versions[-1][1]

    def allowed(self, committed: int) -> Sequence[Held | None]:
        """What the store may hold when everything before ``committed`` is done, and perhaps more."""
        first = max(n for n, (offset, _) in enumerate(self.versions) if offset < max(committed, 0))
        return [held for _, held in self.versions[first:]]


class Crowd:
    """Rows, one of which can be picked quickly."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: int) -> None:
        self._places[row] = len(self._rows)
        self._rows.append(row)

    def discard(self, row: int) -> None:
        place = self._places.pop(row, None)
        if place is not None:
            last = self._rows.pop()
            if last != row:
                self._rows[place] = last
                self._places[last] = place

    def any(self, chance: random.Random) -> int:
        return chance.choice(self._rows)


class History:
    """A source of one or two tables, at first of about ``rows`` rows. :meth:`events` goes on with it, and the
    rest is what must have come of it."""

    def __init__(
        self, seed: int, rows: int = 120, *, poison: bool = True, tables: Sequence[Table] = TABLES
    ) -> None:
        self._tables = tables
        self._kinds = {kind: weight for kind, weight in KINDS.items() if poison or kind not in POISONOUS}
        self._chance = random.Random(f"history {seed}")  # noqa: S311
        self._rows = rows
        self._ids = itertools.count(1)
        self._versions = itertools.count(1)
        self._ends: Counter[tuple[str, int]] = Counter()
        self._living = {table.name: Crowd() for table in tables}
        self._dead = {table.name: Crowd() for table in tables}
        self.lives: dict[RowId, Life] = {}
        #: How often each text may be paid for: the times that it came to a row that did not hold it.
        self.worth: Counter[str] = Counter()
        #: Where each text came from: table, partition and offset of the last record that brought it.
        self.origin: dict[str, tuple[str, int, int]] = {}
        #: (table, partition, offset) of each record that must never be applied, and of those of them that
        #: nothing made up for since.
        self.poison: set[tuple[str, int, int]] = set()
        self.garbage: set[tuple[str, int, int]] = set()
        self.kinds: Counter[str] = Counter()

    @property
    def ends(self) -> Mapping[tuple[str, int], int]:
        """The end offset of each partition that has records."""
        return self._ends

    def last_poison(self) -> set[tuple[str, int, int]]:
        """The poison that no newer change of its row superseded: dead letters, every one."""
        stale = {
            (table, life.partition, life.stale)
            for (table, _), life in self.lives.items()
            if life.stale is not None
        }
        return stale | self.garbage

    # --- what happens ---

    def events(self, count: int) -> Iterator[Message]:
        """``count`` more things that happen to rows; some are several records. Each record has the next
        offset of its partition."""
        for _ in range(count):
            yield from self._happens()

    def _happens(self) -> Iterator[Message]:
        table = self._chance.choices(self._tables, (2, 1)[: len(self._tables)])[0]
        living = self._living[table.name]
        kinds = {"insert": 1.0} if len(living) < self._rows // len(self._tables) else self._kinds
        kind = self._chance.choices(tuple(kinds), tuple(kinds.values()))[0]
        self.kinds[kind] += 1
        yield from getattr(self, f"_{kind}")(table, living.any(self._chance) if living else 0)

    def _text(self, table: Table, row: int) -> Iterator[Message]:
        """A new title, or a new body (of a document: a paragraph changed, added or removed)."""
        columns = self._columns(table, row)
        if self._chance.random() < 0.5:
            yield self._update(table, row, {**columns, "title": self._title()})
        else:
            yield self._update(table, row, {**columns, "body": self._changed_body(table, columns["body"])})

    def _metadata(self, table: Table, row: int) -> Iterator[Message]:
        columns = self._columns(table, row)
        yield self._update(table, row, {**columns, "price": columns["price"] + 1})

    def _nothing(self, table: Table, row: int) -> Iterator[Message]:
        yield self._update(table, row, self._columns(table, row))

    def _insert(self, table: Table, _: int) -> Iterator[Message]:
        yield self._create(table, next(self._ids), self._new_columns(table))

    def _back(self, table: Table, _: int) -> Iterator[Message]:
        """A row that was deleted comes back with the same key."""
        if dead := self._dead[table.name]:
            yield self._create(table, dead.any(self._chance), self._new_columns(table))

    def _delete(self, table: Table, row: int) -> Iterator[Message]:
        yield from self._gone(table, row)

    def _move(self, table: Table, row: int) -> Iterator[Message]:
        """Another primary key."""
        columns, new = self._columns(table, row), next(self._ids)
        keys = _key(row), _key(new)
        yield from self._gone(table, row, ("__debezium.newkey", keys[1]))
        yield self._create(table, new, columns, ("__debezium.oldkey", keys[0]))

    def _poison(self, table: Table, row: int) -> Iterator[Message]:
        """A text that the provider refuses. Nothing newer of the row may lean on it."""
        life = self.lives[table.name, row]
        life.columns = {**self._columns(table, row), "title": f"{POISON} {self._title()}"}
        life.stale = self._next(table, row)
        self.poison.add((table.name, life.partition, life.stale))
        yield self._message(table, row, _envelope("u", life.stale, after={"id": row, **life.columns}))

    def _garbage(self, table: Table, row: int) -> Iterator[Message]:
        """Bytes that are no event. By their key the row is known, so nothing newer of it may lean on it."""
        life = self.lives[table.name, row]
        life.stale = self._next(table, row)
        self.garbage.add((table.name, life.partition, life.stale))
        yield self._message(table, row, GARBAGE)

    # --- records ---

    def _create(self, table: Table, row: int, columns: dict[str, Any], *headers: Header) -> Message:
        self.lives.setdefault((table.name, row), Life(table.partition_of(row)))
        self._living[table.name].add(row)
        self._dead[table.name].discard(row)
        offset = self._next(table, row)
        self._holds(table, row, columns, offset)
        return self._message(table, row, _envelope("c", offset, after={"id": row, **columns}), *headers)

    def _update(self, table: Table, row: int, columns: dict[str, Any]) -> Message:
        """A big value that is the same is left out, mostly, as a source does."""
        life, told = self.lives[table.name, row], dict(columns)
        assert life.columns is not None
        if life.columns["body"] == columns["body"] and life.stale is None and self._chance.random() < 0.6:
            told["body"] = UNAVAILABLE
        offset = self._next(table, row)
        self._holds(table, row, columns, offset)
        return self._message(table, row, _envelope("u", offset, after={"id": row, **told}))

    def _gone(self, table: Table, row: int, *headers: Header) -> Iterator[Message]:
        """A delete and its tombstone."""
        life, offset = self.lives[table.name, row], self._next(table, row)
        self._living[table.name].discard(row)
        self._dead[table.name].add(row)
        life.versions.append((offset, GONE))
        life.columns = life.stale = None
        yield self._message(table, row, _envelope("d", offset, before={"id": row}), *headers)
        yield self._message(table, row, None)

    def _next(self, table: Table, row: int) -> int:
        """The offset of the row's next record."""
        return self._ends[table.name, table.partition_of(row)]

    def _message(self, table: Table, row: int, value: bytes | None, *headers: Header) -> Message:
        partition = table.partition_of(row)
        self._ends[table.name, partition] += 1
        return Message(table, partition, _key(row), value, headers)

    def _holds(self, table: Table, row: int, columns: dict[str, Any], offset: int) -> None:
        life = self.lives[table.name, row]
        held = Held(table.texts(columns), columns["price"])
        before = life.last.texts if life.last else ()
        for text in set(held.texts) - set(before):
            self.worth[text] += 1
            self.origin[text] = (table.name, life.partition, offset)
        life.columns, life.stale = dict(columns), None
        if held != life.last:
            life.versions.append((offset, held))

    # --- values ---

    def _columns(self, table: Table, row: int) -> dict[str, Any]:
        """The row's columns, without the poison."""
        columns = self.lives[table.name, row].columns
        assert columns is not None
        return {**columns, "title": self._title()} if POISON in columns["title"] else dict(columns)

    def _new_columns(self, table: Table) -> dict[str, Any]:
        paragraphs = [self._paragraph() for _ in range(self._chance.randint(1, 5) if table.chunked else 1)]
        return {"title": self._title(), "body": "\n\n".join(paragraphs), "price": 1}

    def _title(self) -> str:
        return f"Title {next(self._versions)}"

    def _paragraph(self) -> str:
        return f"Paragraph {next(self._versions)} ".ljust(PARAGRAPH_BYTES, "x")

    def _changed_body(self, table: Table, body: str) -> str:
        if not table.chunked:
            return self._paragraph()
        paragraphs = body.split("\n\n")
        what = self._chance.choice(("change", "grow", "shrink"))
        if what == "grow" or (what == "shrink" and len(paragraphs) == 1):
            paragraphs += [self._paragraph() for _ in range(self._chance.randint(1, 3))]
        elif what == "shrink":
            del paragraphs[self._chance.randint(1, len(paragraphs) - 1) :]
        else:
            paragraphs[self._chance.randrange(len(paragraphs))] = self._paragraph()
        return "\n\n".join(paragraphs)


def _key(row: int) -> bytes:
    return json.dumps({"id": row}).encode()


def _envelope(
    op: str, offset: int, *, before: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None
) -> bytes:
    at_ms = START_MS + offset
    source = {
        "version": "3.7.0.Final",
        "connector": "postgresql",
        "name": "chaos",
        "ts_ms": at_ms,
        "snapshot": "false",
        "db": "source",
        "schema": "public",
        "table": "any",
        "txId": offset,
        "lsn": 1000 + offset,
    }
    event = {"before": before, "after": after, "source": source, "op": op, "ts_ms": at_ms}
    return json.dumps(event).encode()
