"""What the jobs need from the outside: small protocols, every call with a deadline.

Adapters translate: our values to SDK calls, SDK errors to a :class:`~vectide.core.failures.Failure`. They
own no retry, no back-off, no batching, no metrics: the driver does that once for all of them. Every method
of an adapter may be called from several worker threads at the same time unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vectide.core.failures import Failure
from vectide.core.filters import FilterField, tenant_of
from vectide.core.model import Change, Columns, Point, Position, Record, Row, Stamp, Value
from vectide.core.pace import Allowance
from vectide.core.replays import Answer, Request
from vectide.core.value import value
from vectide.core.values import normalise

#: One vector: shape ``(dimensions,)``, float32.
Vector = npt.NDArray[np.float32]
#: Several vectors: shape ``(count, dimensions)``, float32, C-contiguous.
Matrix = npt.NDArray[np.float32]


class AdapterError(Exception):
    """The only exception that an adapter's calls may raise. Carries the failure as data."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.cause}: {failure.detail}" if failure.detail else failure.cause)
        self.failure = failure


class StartupRefused(Exception):
    """A dependency was reached and refuses the configuration (credentials, dimension, missing topic).

    The process exits with code 3. The message is one line that tells the user what to do next.
    """


class MissingExtra(Exception):
    """A chosen adapter needs a package that is not installed. The message names the extra to install."""


class SourceFatal(Exception):
    """The source can never deliver again in this process: fenced, or its client failed for good.

    The process exits with code 70, so that a new one can take its place.
    """


class Clock(Protocol):
    """Time, given from outside so that a simulation can own it."""

    def monotonic(self) -> float:
        """Seconds that only grow."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


@value
class Deadline:
    """One point in time shared by the steps of one operation, instead of a time-out for each.

    ``at_s`` is on the monotonic clock of ``clock``.
    """

    clock: Clock
    at_s: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        return cls(clock, clock.monotonic() + seconds)

    def remaining_s(self, at_least: float = 0.001) -> float:
        """Seconds left, never below ``at_least`` (SDKs take 0 for "no time-out")."""
        return max(at_least, self.at_s - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        return self.clock.monotonic() >= self.at_s


# --- codec ----------------------------------------------------------------------------------------------


class Codec(Protocol):
    """Turns what Kafka delivered into a change. Pure: no I/O, no waiting."""

    def decode(self, record: Record) -> Change:
        """The change that the record tells. Raises :class:`~vectide.core.model.DecodeError` when it can
        never be decoded, :class:`SchemaMissing` when it cannot be decoded yet, and nothing else."""
        ...


class IdKind(Enum):
    """What a record says to name its schema."""

    SCHEMA_ID = "schema id"
    GUID = "schema GUID"
    GLOBAL_ID = "global id"
    CONTENT_ID = "content id"


@dataclass(frozen=True, slots=True)
class SchemaId:
    """The name of one schema in the registry. ``value``: a decimal number, or a GUID with hyphens."""

    kind: IdKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.value}"


class SchemaFormat(Enum):
    """The language that a schema is written in. ``UNKNOWN``: the registry does not say."""

    AVRO = "avro"
    JSON_SCHEMA = "json-schema"
    PROTOBUF = "protobuf"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as it was registered. ``references`` are the texts of the schemas that it refers to."""

    format: SchemaFormat
    text: str
    references: tuple[str, ...] = ()


class SchemaMissing(Exception):
    """The record cannot be decoded before its codec has learned the schemas of these ids."""

    def __init__(self, ids: tuple[SchemaId, ...]) -> None:
        super().__init__(", ".join(map(str, ids)))
        self.ids = ids


@runtime_checkable
class SchemaCodec(Codec, Protocol):
    """A codec whose records only name their schemas. It cannot fetch them; it has to be told."""

    def learn(self, schema_id: SchemaId, schema: RegisteredSchema) -> None:
        """From now on records of this schema can be decoded. Never raises: when the schema itself is no
        good, decoding its records will. It may be forgotten again, and is then missing once more."""
        ...


class SchemaRegistry(Protocol):
    """Where the schemas are."""

    def fetch(self, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        """The schema of this id. Raises only :class:`AdapterError`; of kind ``REFUSED`` when the registry
        is well and has no such schema."""
        ...

    def check(self, deadline: Deadline) -> str:
        """Ask whether the registry answers; returns its address. Raises :class:`StartupRefused` when it
        refuses the credentials, :class:`AdapterError` when it cannot be reached."""
        ...

    def close(self) -> None: ...


# --- embedder -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbedderLimits:
    """What one call may carry. ``max_text_tokens`` None: the provider does not say, or counts in another way
    than :meth:`Embedder.count_tokens`. ``max_chunk_tokens``: the largest chunk size that makes sense for the
    model, None where nothing is known beyond ``max_text_tokens``."""

    max_items: int
    max_tokens: int | None = None
    max_text_tokens: int | None = None
    max_chunk_tokens: int | None = None

    @property
    def chunk_tokens(self) -> int | None:
        """Beyond how many tokens no chunk size may be; None: no limit is known."""
        known = [limit for limit in (self.max_text_tokens, self.max_chunk_tokens) if limit is not None]
        return min(known, default=None)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer to one call: one vector per text, in the order of the texts.

    ``tokens`` is what the provider billed, ``allowance`` what is left of its limits; None when it does not
    say. ``cached``: the places of the texts that it was not asked for.
    """

    vectors: Matrix
    tokens: int | None = None
    allowance: Allowance | None = None
    cached: frozenset[int] = frozenset()


class Embedder(Protocol):
    """Turns texts into vectors.

    :meth:`prepare` comes first and settles ``dimensions`` and ``space``.
    """

    def prepare(self, deadline: Deadline) -> None:
        """Verify that the model can be used, and learn its dimension where it is not configured.

        Raises :class:`StartupRefused` when credentials or the model are refused, or when the dimension is
        not the configured one (naming both numbers); :class:`AdapterError` when the provider cannot be
        reached or asks to wait. May be called again after a failure.
        """
        ...

    @property
    def space(self) -> str:
        """Identity of the vectors, e.g. ``openai/text-embedding-3-small/1536/document``. Spaces never mix
        in a collection (invariant 6)."""
        ...

    @property
    def dimensions(self) -> int: ...

    @property
    def limits(self) -> EmbedderLimits: ...

    def count_tokens(self, text: str) -> int:
        """Tokens that the text costs: exact where a tokenizer is at hand, else an upper estimate."""
        ...

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        """Embed documents. ``texts`` is not empty, within the limits, each text non-blank valid Unicode.

        The answer has been checked by :func:`vectide.embedders.checked` (invariant 9).
        Raises only :class:`AdapterError`.
        """
        ...

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        """Embed a search query (the same as a document where the model makes no difference)."""
        ...

    def close(self) -> None: ...


# --- store ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as data. The jobs branch on these, never on the kind of store."""

    kind: str
    #: Writes in one call, and rows in one look-up. Where calls are atomic, the writes of one row of
    #: :data:`~vectide.core.chunks.MAX_CHUNKS` have to fit.
    max_batch_items: int
    #: All writes of one call commit together or not at all.
    atomic_calls: bool
    #: A read sees every write that was confirmed before it.
    read_your_writes: bool
    #: A write that is older than what the row's chunk 0 holds (as positions relate) is refused, not applied.
    conditional_writes: bool
    nested_metadata: bool
    null_metadata: bool
    #: A :class:`Put` that is only for a row that is there makes none.
    update_only: bool = False
    #: Integers beyond +- this are written as text.
    max_integer: int = 2**53
    #: NUL characters are legal inside strings.
    nul_in_text: bool = False
    #: Lists hold values of one scalar type, at least one: others are written as canonical JSON text, an
    #: empty one is left out.
    uniform_lists: bool = False
    #: Lists hold texts: others are written as canonical JSON text.
    text_lists: bool = False
    #: Names that are filtered by get an index of their type; else they are found without one of ours.
    filter_indexes: bool = False
    #: How the points of one tenant are found: by a ``partition``, an ``index``, or a ``filter`` as any.
    tenants: str = "filter"
    #: Points may have several vectors, of which one is filled: writes leave the others as they are.
    named_vectors: bool = False
    #: Vectors of metric cosine come back from a scan with length 1, whatever length they had.
    unit_vectors: bool = False
    #: How readers are led to another collection: by an ``alias`` of the store's own (it is then
    #: :class:`Swappable`), or by a ``pointer`` that somebody else keeps.
    swap: str = "pointer"

    def legal(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        """The metadata as the store can hold it. Raises :class:`~vectide.core.values.ValueRefused` when it
        cannot."""
        return normalise(
            metadata,
            max_integer=self.max_integer,
            nested_metadata=self.nested_metadata,
            null_metadata=self.null_metadata,
            nul_in_text=self.nul_in_text,
            uniform_lists=self.uniform_lists,
            text_lists=self.text_lists,
        )


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection must be. ``metric`` is ``cosine``, ``dot`` or ``l2``. ``filters``: the metadata that
    searches filter by, each name once. ``vector``: the named vector to fill, for stores that claim
    ``named_vectors``; None: the one that points have (or that the store was told of otherwise)."""

    name: str
    dimensions: int
    space: str
    metric: str = "cosine"
    filters: tuple[FilterField, ...] = ()
    vector: str | None = None

    @property
    def tenant(self) -> str | None:
        """The one among them that says whose a row is: a text or null. A row that changes it has left its
        former tenant when the write is confirmed."""
        return tenant_of(self.filters)


@value
class Put:
    """Write the whole point: vector, metadata (replacing what was there), text, stamp, values.

    Metadata names in ``keep`` have the value that the row's chunk 0 holds (their source column was
    unavailable), also in a chunk that is new. ``only_if_present``: this is chunk 0 of a row that had one;
    where it is gone, nothing is written (for stores that claim ``update_only``).

    ``base``: the position of the row's chunk 0 when it was looked up, where later chunks stay as they were
    then. Stores of atomic calls leave a row alone whose chunk 0 has another one by now, neither that nor the
    position of this write: ``MISSING``.
    """

    point: Point
    vector: Vector
    keep: frozenset[str] = frozenset()
    only_if_present: bool = False
    base: Position | None = None


@value
class Patch:
    """Give an existing chunk 0 new metadata and a new stamp; vector and text stay.

    The stamp names the text of chunk 0. A point that holds another one (it was written after the look-up) is
    left alone: ``MISSING``.
    ``metadata`` replaces all metadata, except the names in ``keep``, which keep their stored value.
    ``values`` replaces the kept embed columns, None leaves them. ``base`` as for :class:`Put`.
    """

    row: Row
    metadata: Mapping[str, Value]
    stamp: Stamp
    keep: frozenset[str] = frozenset()
    values: Mapping[str, str | None] | None = None
    base: Position | None = None


@value
class PatchChunks:
    """Give existing later chunks of the row new metadata (as :class:`Patch` does) and their index.

    ``chunks``: id and index of each. One that is not there is passed over.
    """

    row: Row
    metadata: Mapping[str, Value]
    chunks: tuple[tuple[str, int], ...]
    keep: frozenset[str] = frozenset()


@value
class Trim:
    """Remove later chunks of the row: those of ``ids``, which may exist, and, where the store finds them
    without being told their ids, all others that are not in ``stay``. Chunk 0 is left alone."""

    row: Row
    ids: tuple[str, ...]
    stay: tuple[str, ...]


@value
class Remove:
    """Remove every point of the row: those of ``ids`` (chunk 0 first), and, where the store finds them
    without being told their ids, all others. ``position``: that of the change for which they go, compared
    like that of a stamp; None removes whatever there is."""

    row: Row
    ids: tuple[str, ...]
    position: Position | None = None


@value
class Mark:
    """Give an existing chunk-0 point a new stamp; everything else stays."""

    row: Row
    stamp: Stamp


Write = Put | Patch | PatchChunks | Trim | Remove | Mark


class Effect(Enum):
    """What became of one write."""

    APPLIED = "applied"
    #: What is only for a row that is there (a patch, a mark, such a put), or for the row as it was looked
    #: up, met none: look again.
    MISSING = "missing"
    #: The store holds something newer; nothing was changed.
    SUPERSEDED = "superseded"
    #: The store refused this one write; ``failure`` says why.
    FAILED = "failed"


@value
class Outcome:
    """The effect of one write of a batch."""

    effect: Effect
    failure: Failure | None = None


APPLIED = Outcome(Effect.APPLIED)
MISSING = Outcome(Effect.MISSING)
SUPERSEDED = Outcome(Effect.SUPERSEDED)


class Store(Protocol):
    """Holds the points of one or more collections."""

    @property
    def capabilities(self) -> Capabilities: ...

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """Create the collection, or verify that it is what ``spec`` says. Indexes of its ``filters`` that are
        missing are made, while others go on writing (for stores that claim ``filter_indexes``).

        Raises :class:`StartupRefused` naming both numbers when dimension, metric or space differ, or when
        credentials are refused; :class:`AdapterError` (transient) when the store cannot be reached.
        """
        ...

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """Apply the writes. Returns one outcome per write, in order.

        Of a row there is at most one write to chunk 0 (or its removal), and any number to later chunks. Where
        calls are atomic, chunk 0 is written first, and when that has no effect, the row's later chunks are
        left alone and have the same outcome. Where they are not, the order is open, and the caller relies on
        none: it sends what must follow in a call of its own.

        Returns only when the store has made them durable and visible to :meth:`stamps`. Idempotent: the
        same writes again end in the same state. Raises :class:`AdapterError` when the call as a whole
        failed (it may or may not have been applied).
        """
        ...

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """The stamp of each row's chunk 0, in order; None where the row has no points.

        ``values`` asks for the kept embed columns too (``Stamp.values``), for the text of a chunk 0 that
        has none of these (``Stamp.text``), and for the metadata (``Stamp.metadata``).
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; ``score`` grows with similarity (cosine: 1 is the same direction)."""

    row: Row
    chunk: int
    score: float
    text: str | None
    metadata: Mapping[str, Value]


@value
class Stored:
    """One point as a scan sees it; ``stamp`` is set on chunk 0, ``vector`` only when asked for."""

    id: str
    row: Row
    chunk: int
    text: str | None
    text_hash: str
    metadata: Mapping[str, Value]
    stamp: Stamp | None
    vector: Vector | None = None


@runtime_checkable
class Searchable(Protocol):
    """A store that can answer queries."""

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """The ``limit`` most similar points whose metadata equals ``filters`` in every name given."""
        ...


@runtime_checkable
class Scannable(Protocol):
    """A store whose whole content can be read."""

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """One page in id order, and the cursor of the next (None at the end). Start with None."""
        ...


@runtime_checkable
class Verifiable(Protocol):
    """A store that can tell about a collection without making anything."""

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """Whether the collection exists. Raises as :meth:`Store.prepare` does, also when the collection is
        another one than ``spec`` says."""
        ...


@runtime_checkable
class Droppable(Protocol):
    """A store that can throw a whole collection away."""

    def drop(self, collection: str, deadline: Deadline) -> None:
        """Remove the collection, with all that the store keeps about it. Succeeds also when it has gone, or
        only half of it is there.

        Raises :class:`AdapterError`, of kind ``OPERATOR`` when it is not a collection of this service
        (``not_ours``) or an alias leads to it (``in_use``).
        """
        ...


@runtime_checkable
class Swappable(Droppable, Protocol):
    """A store that can lead readers from one collection to another, under a name that stays: an alias."""

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """From now on searches of ``alias`` read ``collection``, which must be there. Made when it is
        missing, repointed when it is there; a search meanwhile reads one or the other. Collections keep
        their own names, and are written by these.

        Raises :class:`AdapterError`, of kind ``OPERATOR`` when a collection of the alias's name is in the way
        (``name_taken``), or ``collection`` is not there (``collection_missing``).
        """
        ...

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """The collection that searches of ``alias`` read; None where there is no such alias."""
        ...


# --- rows of the source ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowsRead:
    """What the source's table holds of some rows, in the order of the keys; None: it has no such row.

    Each value is what an event of the same row would hold, once decoded. ``refused`` names the columns for
    which that cannot be promised, and why, in words without row content: no row has them.
    """

    rows: Sequence[Columns | None]
    refused: Mapping[str, str] = field(default_factory=dict)


class RowReader(Protocol):
    """Reads rows of the source's tables again, where events leave out what did not change."""

    def prepare(self, deadline: Deadline) -> None:
        """Verify that the source can be read. Raises :class:`StartupRefused` when it refuses us or can never
        tell the truth (a standby lags behind), :class:`AdapterError` when it cannot be reached."""
        ...

    def read(
        self, table: str, keys: Sequence[Columns], columns: Sequence[str], deadline: Deadline
    ) -> RowsRead:
        """The ``columns`` of the rows with these primary ``keys``, as committed now.

        ``table`` is ``schema.table``; the keys, not empty, all have the same columns, as
        :attr:`~vectide.core.model.Row.key` spells them. A table that does not exist has all columns refused.
        Raises only :class:`AdapterError`.
        """
        ...

    def close(self) -> None: ...


# --- dead letters ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that can never succeed, and why. ``cause`` and ``stage`` are from closed sets; ``log`` is the
    identity of the log that it was read from."""

    record: Record
    cause: str
    stage: str
    detail: str = ""
    table: str = ""
    attempts: int = 1
    log: str = ""


class DeadLetters(Protocol):
    """The dead-letter topic."""

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        """Returns only when the broker has confirmed every letter; raises :class:`AdapterError` else
        (some may have been written: duplicates are allowed, loss is not)."""
        ...

    def close(self) -> None: ...


# --- source ---------------------------------------------------------------------------------------------

Partition = tuple[str, int]


class SourceListener(Protocol):
    """Whom a source tells about the partitions it got and lost; called from inside :meth:`Source.poll`."""

    def on_assigned(self, partitions: Mapping[Partition, str]) -> None:
        """New partitions, each with the identity of its log (topic id, else topic name)."""
        ...

    def on_revoked(self, partitions: Sequence[Partition]) -> None:
        """About to lose them: drain and commit now; on return they are gone."""
        ...

    def on_lost(self, partitions: Sequence[Partition]) -> None:
        """Already gone to somebody else: forget, never commit."""
        ...

    def on_end(self, partition: Partition, offset: int) -> None:
        """The partition was read up to ``offset`` (exclusive); holes before it hold nothing."""
        ...


class Source(Protocol):
    """Where records come from. Owned by one thread; only that thread may call it."""

    def start(self, listener: SourceListener) -> None:
        """Subscribe. Partitions arrive through the listener during :meth:`poll`."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Records in order per partition; waits at most ``timeout_s`` for the first one.

        Never returns a record of a partition that was revoked or lost during the call.
        """
        ...

    def partition_count(self, topic: str) -> int | None:
        """How many partitions an assigned topic has, as far as known. Never blocks."""
        ...

    def pause(self, partitions: Sequence[Partition]) -> None: ...

    def resume(self, partitions: Sequence[Partition]) -> None: ...

    def rewind(self, partition: Partition, offset: int | None) -> None:
        """Read again from ``offset`` (None: from the committed offset, or the beginning)."""
        ...

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        """Commit next-to-read offsets of owned partitions. With ``wait`` it returns when the broker
        answered and raises :class:`AdapterError` when it refused; without, failures are retried at the
        next commit and counted."""
        ...

    def close(self, deadline: Deadline) -> None:
        """Leave the group. Never raises; gives up at the deadline."""
        ...


@runtime_checkable
class Watchable(Protocol):
    """A source that can tell about its log. As with :class:`Source`, only the owning thread may ask."""

    @property
    def failures(self) -> Mapping[str, Failure]:
        """Current troubles that an operator should know, by topic. What concerns no single topic stands
        under ``(group)`` or ``(cluster)``. Empty when all is well."""
        ...

    def end_offsets(self) -> Mapping[Partition, int]:
        """The end of each assigned partition's log as last heard, paused ones included. Never blocks: a
        partition that the broker has not answered for yet is absent."""
        ...


class LogReader(Protocol):
    """Reads logs from outside: no group, no commits. One call at a time. Every call but :meth:`log_id`
    raises :class:`AdapterError` when the cluster refuses or does not answer."""

    def partitions(self, topic: str, deadline: Deadline) -> Sequence[Partition]:
        """The topic's partitions; none when it does not exist or is hidden from us."""
        ...

    def log_id(self, topic: str) -> str:
        """The identity of the topic's log: its id, so that a topic created again is another log; its name
        where that is not known."""
        ...

    def bounds(
        self, partitions: Iterable[Partition], deadline: Deadline
    ) -> Mapping[Partition, tuple[int, int]]:
        """What each partition holds now: the first offset kept, and the end (exclusive)."""
        ...

    def read(self, wanted: Mapping[Partition, tuple[int, int]], *, patience_s: float) -> Iterator[Record]:
        """The records from one offset up to another (exclusive, not behind the end), in order per partition;
        what is not kept any more is passed over. Gives up when nothing arrives for ``patience_s``."""
        ...


class ReplayDesk(Protocol):
    """Where requests to replay dead letters arrive and are answered. Only :meth:`take` belongs to the thread
    that owns the state; ``logs`` and :meth:`answer` to one worker at a time."""

    @property
    def logs(self) -> LogReader:
        """Reads the letters and what follows their records."""
        ...

    def take(self) -> Sequence[Request | Answer]:
        """What has arrived since the last call, in its order: requests, and answers of all replicas. Never
        blocks."""
        ...

    def answer(self, answers: Sequence[Answer], deadline: Deadline) -> None:
        """Returns when the broker has confirmed the answers; raises :class:`AdapterError` else."""
        ...

    def close(self) -> None: ...


# --- telemetry ------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Where counts go. Names and labels are those of :mod:`vectide.core.signals`."""

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Log(Protocol):
    """Structured log: an event name and fields; never row content (invariant 13)."""

    def info(self, event: str, /, **fields: Any) -> None: ...

    def warning(self, event: str, /, **fields: Any) -> None: ...

    def error(self, event: str, /, **fields: Any) -> None: ...


# --- executor -------------------------------------------------------------------------------------------


@value
class Completion:
    """A finished call: exactly one of ``result`` and ``error`` means something. ``done`` is to be called
    with this completion by the thread that owns the state."""

    done: Callable[[Completion], None]
    result: Any = None
    error: BaseException | None = None


class Executor(Protocol):
    """Runs calls away from the thread that owns the state; values go in, values come out."""

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        """Run ``call`` in ``pool``. Never blocks, never raises what the call raises."""
        ...

    def completed(self, wait_s: float) -> Sequence[Completion]:
        """What has finished since last time; waits at most ``wait_s`` for the first one."""
        ...

    def close(self, deadline: Deadline) -> None:
        """Take no more calls; give running ones until the deadline, then abandon them."""
        ...
