"""The values that every band speaks: records, rows, changes, positions, stamps and points.

All of them are frozen. Nothing here knows Kafka, a provider or a store.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cached_property
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from vectide.core.value import value

#: A decoded column value: what JSON can say (numbers stay exact), nothing else.
Value = Any
Columns = Mapping[str, Value]

#: Namespace of every point id. Changing it changes every id in every store: never do.
POINT_NAMESPACE: Final = uuid.UUID("6f1d0d3e-6f5b-5d0e-9a55-7f0f6f3d4b11")

#: The reserved key of the payload, and the reserved name of the text.
STAMP_KEY: Final = "_vectide"
TEXT_KEY: Final = "text"
RESERVED_NAMES: Final = frozenset({STAMP_KEY, TEXT_KEY})

#: A version only adds to what the one before wrote, so that stamps may be read one version up and down.
STAMP_VERSION: Final = 1


@value
class Record:
    """What Kafka delivered, byte for byte.

    ``timestamp_ms`` is the record's Kafka timestamp in milliseconds since the epoch, -1 when it has none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1

    @property
    def size_bytes(self) -> int:
        """Bytes that holding this record costs, counting a fixed share for the object itself."""
        return 200 + len(self.key or b"") + len(self.value or b"")

    @property
    def where(self) -> str:
        """``topic[partition]@offset``: how logs and dead letters name a record without showing it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


# --- identity -------------------------------------------------------------------------------------------


def canonical_json(value: Value) -> str:
    """The one spelling of a value that identities and hashes are made of.

    Object members sorted by name, no spaces, no escapes beyond what JSON demands. Never change it: every
    point id and every stored hash depends on it.
    """
    if type(value) is str:  # what most values are: the encoder has a high price for a short text
        return encode_basestring(value)
    if type(value) is int:
        return int.__repr__(value)
    if type(value) is dict and len(value) == 1:  # most primary keys
        ((name, only),) = value.items()
        if type(name) is str:
            return f"{{{encode_basestring(name)}:{canonical_json(only)}}}"
    return _CANONICAL.encode(value)


#: Made once: json.dumps makes a new one for every call that asks for anything special.
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """Identity of a source row: vector table id and canonical primary key.

    ``key`` is the canonical JSON object of the key columns, by name: ``{"id":7}``.
    """

    table: str
    key: str

    @classmethod
    def of(cls, table: str, key: Columns) -> Row:
        """Build the identity from decoded key columns (their order does not matter)."""
        return cls(table, canonical_json(key))

    @cached_property
    def canonical(self) -> str:
        """``["products",{"id":7}]``: the name from which the point ids derive."""
        return f"[{json.dumps(self.table, ensure_ascii=False)},{self.key}]"

    @cached_property
    def head_id(self) -> str:
        """Id of chunk 0: the UUIDv5 of the canonical row. Stable for ever."""
        return str(uuid.uuid5(POINT_NAMESPACE, self.canonical))

    def chunk_ids(self, chunks: Sequence[str]) -> tuple[str, ...]:
        """Ids of the row's points, in the order of ``chunks`` (as a stamp lists them); stable for ever.

        That of a later chunk derives from its text, and from how often that text came before among the later
        chunks: wherever its text moves within the row, a chunk stays the same point.
        """
        if len(chunks) < 2:
            return (self.head_id,) if chunks else ()
        before: Counter[str] = Counter()
        ids = [self.head_id]
        for listed in chunks[1:]:
            name = f"{self.canonical}#{listed}#{before[listed]}"
            ids.append(str(uuid.uuid5(POINT_NAMESPACE, name)))
            before[listed] += 1
        return tuple(ids)


class Order(Enum):
    """How two positions of one row relate."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    UNKNOWN = "unknown"


class SourcePosition(NamedTuple):
    """Where a change stands in the log of its source: the source's own order.

    ``server``: whose log, as far as events tell it. ``order`` sorts as text, in the order of commits.
    ``committed_ms``: when it was committed (ms since the epoch).
    """

    server: str
    order: str
    committed_ms: int

    def is_before(self, other: SourcePosition) -> bool:
        """Whether order and time of the same server's log both say so.

        Neither is believed alone: a server that was restored, or that took over, may count from anywhere, and
        clocks may be wrong.
        """
        return (
            self.server == other.server
            and self.order < other.order
            and self.committed_ms < other.committed_ms
        )


@value
class Position:
    """Where a change stands in a log of Kafka's. ``log`` is the topic's id where the broker tells it, else
    its name. ``source``: where it stands in the log of its source, None when the event does not tell.

    Comparable for one row only. Within one partition of one log the offset decides. Across logs or
    partitions that Kafka gives no order, the source's own order does, where it is certain.
    """

    log: str
    partition: int
    offset: int
    source: SourcePosition | None = None

    def relation_to(self, other: Position) -> Order:
        """``OLDER`` when this position certainly comes before ``other``, and so on."""
        if not self.shares_log(other):
            return _relation(self.source, other.source)
        if self.offset == other.offset:
            return Order.SAME
        return Order.OLDER if self.offset < other.offset else Order.NEWER

    def shares_log(self, other: Position) -> bool:
        """Whether both are in one partition of one log, where offsets tell which comes first."""
        return self.log == other.log and self.partition == other.partition

    def to_payload(self) -> dict[str, Value]:
        """The position as a stamp has it: in two members, the second where there is one."""
        payload: dict[str, Value] = {"position": [self.log, self.partition, self.offset]}
        if self.source is not None:
            payload["source"] = list(self.source)
        return payload

    def before(self) -> Position:
        """The position right before this one; nothing tells where in its source's log that is."""
        return replace(self, offset=self.offset - 1, source=None)

    def before_all(self) -> Position:
        """The position before every record of this one's partition: nothing of it has been applied."""
        return replace(self, offset=-1)


def _relation(one: SourcePosition | None, other: SourcePosition | None) -> Order:
    if one is None or other is None:
        return Order.UNKNOWN
    if one.is_before(other):
        return Order.OLDER
    return Order.NEWER if other.is_before(one) else Order.UNKNOWN


# --- changes --------------------------------------------------------------------------------------------


@value
class Upserted:
    """The row exists and has these columns.

    ``columns`` lacks the names in ``unavailable``: the source did not send their (unchanged) value. Of those
    in ``offloaded``, which are among them, it put the value elsewhere: that may be a new one.
    ``key`` is None when the Kafka key was null; the mapping may then find the key among the columns.
    ``committed_ms`` is when the source committed it (ms since the epoch), ``source`` where that stands in the
    source's log; None when the event does not say. ``is_document``: it has fields that come and go, instead
    of columns; those that the mapping names are null where it has none.
    """

    key: Columns | None
    columns: Columns
    unavailable: frozenset[str] = frozenset()
    op: str = "u"
    committed_ms: int | None = None
    table: str = ""
    old_key: Columns | None = None
    source: SourcePosition | None = None
    is_document: bool = False
    offloaded: frozenset[str] = frozenset()


@value
class Deleted:
    """The row is gone. ``new_key`` is set when it went because its primary key changed to that one."""

    key: Columns | None
    columns: Columns | None = None
    committed_ms: int | None = None
    new_key: Columns | None = None
    source: SourcePosition | None = None


@value
class Truncated:
    """Every row of the source table is gone."""

    committed_ms: int | None = None


@value
class Ignored:
    """Not about a row: heartbeat, transaction marker and the like. ``reason`` is from a closed set."""

    reason: str


Change = Upserted | Deleted | Truncated | Ignored


class DecodeError(Exception):
    """The record can never be decoded (poison). ``cause`` is from a closed set, ``detail`` has no content."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


# --- what the store holds -------------------------------------------------------------------------------


def text_hash(text: str) -> str:
    """Identity of a text: 32 hex digits (BLAKE2b-128 of its UTF-8)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def listed_hash(digest: str) -> str:
    """How a stamp lists the chunk with this :func:`text_hash`: by its first 16 digits. The chunks of one row
    are few enough for that, and a stamp has to list all of them."""
    return digest[:16]


def short_hash(text: str | None) -> str:
    """Identity of a column's rendered value: 16 hex digits; None (SQL null) has its own."""
    if text is None:
        return "-"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Mapped(NamedTuple):
    """By which mapping of its table a row was written. ``since_ms``: since when the process that wrote it had
    that mapping (ms since the epoch)."""

    mapping: str
    since_ms: int

    def outranks(self, other: Mapped) -> bool:
        """Whether it is another mapping, and the later one: rows are not taken back from it."""
        return self.mapping != other.mapping and self.since_ms > other.since_ms


@value
class Stamp:
    """What chunk 0 of a row says about the row.

    ``chunks``: the row's chunks in order, each as :func:`listed_hash` has it. ``columns``: short hash per
    mapped column. ``values``: rendered embed columns, when kept and asked for; then there are also the
    ``text`` of chunk 0, where it is kept instead of these, and its ``metadata``. ``stale``: a newer change of
    the row was dead-lettered. ``open``: a change of several points is under way or was torn; ``chunks`` then
    lists, after chunk 0 as it is, every later chunk that may exist, and the rest tells of the row before.
    ``ahead``: part of the row was read again from the source, which may have been ahead of the row's changes:
    it may be that of a later row with the same key. ``mapped``: None where an earlier vectide wrote it.
    """

    space: str
    layout: str
    chunks: tuple[str, ...]
    columns: Mapping[str, str]
    metadata_hash: str
    position: Position
    open: bool = False
    stale: bool = False
    ahead: bool = False
    values: Mapping[str, str | None] | None = None
    mapped: Mapped | None = None
    text: str | None = None
    metadata: Mapping[str, Value] | None = None

    def is_of(self, digest: str) -> bool:
        """Whether chunk 0 is the text with this :func:`text_hash`, as far as it tells."""
        return not self.chunks or self.chunks[0] == listed_hash(digest)

    def tells_the_same(self, other: Stamp) -> bool:
        """Whether both are of the same content; where the change stands and what is kept do not matter."""
        return all(getattr(self, name) == getattr(other, name) for name in _CONTENT)

    @property
    def unborn(self) -> bool:
        """Whether the very first write of the row has not been finished: it is as good as absent."""
        return self.open and self.position.offset < 0

    def made_stale(self, done: Position) -> Stamp:
        """The stamp with the mark *stale*. Every change of the row up to ``done`` has been dealt with, also
        those that changed nothing and left no position: a replay could not complete them from a stale row."""
        behind = done.offset < 0 or done.relation_to(self.position) in (Order.OLDER, Order.SAME)
        return replace(self, stale=True, position=self.position if behind else done)

    def to_payload(self, row: Row) -> dict[str, Value]:
        """The stamp as JSON, without ``values`` (the point carries those separately)."""
        payload: dict[str, Value] = {
            "v": STAMP_VERSION,
            "table": row.table,
            "key": row.key,
            "space": self.space,
            "layout": self.layout,
            "chunks": list(self.chunks),
            "columns": dict(self.columns),
            "metadata": self.metadata_hash,
            **self.position.to_payload(),
        }
        if self.mapped is not None:
            payload["mapping"] = list(self.mapped)
        if self.open:
            payload["open"] = True
        if self.stale:
            payload["stale"] = True
        if self.ahead:
            payload["ahead"] = True
        return payload

    @classmethod
    def from_payload(
        cls,
        payload: Mapping[str, Value],
        values: Columns | None = None,
        text: str | None = None,
        metadata: Columns | None = None,
    ) -> Stamp:
        """Read back what :meth:`to_payload` wrote, also that of the next version. Raises KeyError, TypeError
        or ValueError when it is not a stamp."""
        if payload["v"] > STAMP_VERSION + 1:
            raise ValueError(
                f"the stamp has version {payload['v']}, this vectide reads up to {STAMP_VERSION + 1}: "
                "run the newer vectide again"
            )
        log, partition, offset = payload["position"]
        source, mapped = payload.get("source"), payload.get("mapping")
        return cls(
            space=payload["space"],
            layout=payload["layout"],
            chunks=tuple(payload["chunks"]),
            columns=dict(payload["columns"]),
            metadata_hash=payload["metadata"],
            position=Position(
                log, int(partition), int(offset), None if source is None else SourcePosition(*source)
            ),
            open=bool(payload.get("open", False)),
            stale=bool(payload.get("stale", False)),
            ahead=bool(payload.get("ahead", False)),
            values=values,
            mapped=None if mapped is None else Mapped(*mapped),
            text=text,
            metadata=metadata,
        )


_BESIDE: Final = ("position", "values", "mapped", "text", "metadata")
_CONTENT: Final = tuple(one.name for one in fields(Stamp) if one.name not in _BESIDE)


@value
class Point:
    """One point as the store shall hold it, except its vector.

    ``text`` (that of the chunk) is None when the table does not keep texts. ``stamp`` sits on chunk 0 only.
    ``values`` are the rendered embed columns kept for rebuilding a text (chunk 0 only, None when not kept).
    """

    id: str
    row: Row
    chunk: int
    text: str | None
    text_hash: str
    metadata: Mapping[str, Value]
    stamp: Stamp | None = None
    values: Mapping[str, str | None] | None = field(default=None)
