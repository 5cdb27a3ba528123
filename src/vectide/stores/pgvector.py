"""PostgreSQL with the pgvector extension.

Every call is one transaction: all writes of a call commit together or not at all, so a row of several
chunks needs no mark while it is written. Points can be read with plain SQL; see :mod:`.pgvector_sql`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import psycopg

from vectide.core.chunks import MAX_CHUNKS
from vectide.core.failures import Failure, Kind
from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Hit,
    Outcome,
    StartupRefused,
    Stored,
    Vector,
    Write,
)
from vectide.stores.pgvector_aliases import LOCK_TIMEOUT, drop_collection, lead, read_alias
from vectide.stores.pgvector_connections import Connections, Link
from vectide.stores.pgvector_errors import failure_of
from vectide.stores.pgvector_setup import (
    prepare_collection,
    prepare_filters,
    read_statements,
    use_vector_types,
    verify_collection,
)
from vectide.stores.pgvector_sql import TIMEOUTS, Statements
from vectide.stores.pgvector_writes import Batch, encoded_json, encoded_vector, refusing_the_unencodable

CAPABILITIES: Final = Capabilities(
    kind="pgvector",
    max_batch_items=2 * MAX_CHUNKS,
    atomic_calls=True,
    read_your_writes=True,
    conditional_writes=True,
    update_only=True,
    filter_indexes=True,
    tenants="index",
    nested_metadata=True,
    null_metadata=True,
    max_integer=10**1000,  # jsonb numbers are exact
    nul_in_text=False,
    swap="alias",
)

#: Before the first id of any scan.
_FIRST: Final = "00000000-0000-0000-0000-000000000000"

#: How long a swap waits for readers, and then lets others read.
_PATIENCE_MS: Final = 250

#: The most candidates that an HNSW search may hold.
_MAX_CANDIDATES: Final = 1000


class PgVectorStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable: an alias is a view.

    ``dsn``: a libpq connection string or URL; what it leaves out comes from the PG* variables.
    ``schema``: where the tables are. ``pool_size``: connections at most, one per concurrent call.
    ``index``: ``hnsw``, or ``none`` for exact search without an index. ``prepared_statements`` False: for
    poolers that hand a connection to other sessions between transactions.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "public",
        pool_size: int = 4,
        index: str = "hnsw",
        prepared_statements: bool = True,
    ) -> None:
        if index not in ("hnsw", "none"):
            raise StartupRefused(f"unknown index {index!r} for the pgvector store: choose hnsw or none")
        self._schema = schema
        self._indexed = index == "hnsw"
        self._statements: dict[str, Statements] = {}
        self._connections = Connections(
            dsn, size=pool_size, prepared_statements=prepared_statements, prepare_link=use_vector_types
        )

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. Creates the extension, the schema and the tables where
        they are missing and the rights suffice; never alters what is there."""
        with self._refusing(spec), self._session(deadline) as link:
            prepare_collection(link, self._schema, spec, indexed=self._indexed)
        # The extension may be new: connections opened before it do not know its types.
        self._connections.forget_idle()
        if spec.filters:
            with self._refusing(spec), _translated(), self._connections.patient(deadline) as link:
                prepare_filters(link, self._schema, spec)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`; reads only."""
        with self._refusing(spec), self._session(deadline) as link:
            return verify_collection(link, self._schema, spec, indexed=self._indexed)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`, in one transaction."""
        with self._on_collection(collection, deadline) as (link, statements):
            batch = Batch(writes, statements.shape)
            with link.pipeline():
                batch.apply(link, statements)
        return batch.outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`, in one query."""
        with refusing_the_unencodable():
            ids = [row.head_id for row in rows]
        with self._on_collection(collection, deadline) as (link, statements):
            query = statements.stamps_and_values if values else statements.stamps
            found = {id_: columns for id_, *columns in link.execute(query, [ids])}
        return [_stamp(*found.get(id_, (None,))) for id_ in ids]

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`; ``filters`` compare as JSON. When the index yields
        fewer than ``limit`` points, the table is read, so that no match is missed."""
        with self._on_collection(collection, deadline) as (link, statements):
            with refusing_the_unencodable():
                parameters = {
                    "vector": encoded_vector(vector, statements.shape),
                    "filters": encoded_json(filters),
                    "limit": limit,
                }
            query = statements.search(filters)
            with link.pipeline():
                candidates = str(min(max(limit, 40), _MAX_CANDIDATES))
                link.execute("SELECT set_config('hnsw.ef_search', %s, true)", [candidates])
                link.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', true)")
                found = link.execute(query, parameters).fetchall()
            if len(found) < limit:
                link.execute("SELECT set_config('enable_indexscan', 'off', true)")
                found = link.execute(query, parameters).fetchall()
            cosine = statements.shape.metric == "cosine"
        return [
            Hit(Row(table, key), chunk, (1.0 - distance) if cosine else -distance, text, metadata)
            for table, key, chunk, distance, text, metadata in found
        ]

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`; the cursor is the last id."""
        with self._on_collection(collection, deadline) as (link, statements):
            query = statements.scan_vectors if vectors else statements.scan
            page = link.execute(query, {"after": cursor or _FIRST, "limit": limit}, binary=vectors)
            stored = [_stored(columns) for columns in page]
        return stored, stored[-1].id if len(stored) == limit else None

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection. Reads the whole table."""
        with self._on_collection(collection, deadline) as (link, statements):
            row = link.execute(statements.count).fetchone()
        assert row is not None
        return int(row[0])

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`, for plain SQL as well. Whoever may read the alias still
        may."""
        self._change(deadline, lambda link: lead(link, self._schema, alias, collection))

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        with self._session(deadline) as link:
            return read_alias(link, self._schema, alias)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`, in one transaction."""
        self._change(deadline, lambda link: drop_collection(link, self._schema, collection))
        self._statements.pop(collection, None)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._connections.close()

    # --- sessions ---

    @contextmanager
    def _refusing(self, spec: CollectionSpec) -> Iterator[None]:
        """What an operator must mend before the start, as a refusal."""
        try:
            yield
        except AdapterError as error:
            if error.failure.kind is Kind.TRANSIENT or error.failure.cause in ("disk_full", "read_only"):
                raise
            raise StartupRefused(
                f"the pgvector store refuses collection {spec.name!r}: {error.failure.detail}"
            ) from None

    @contextmanager
    def _session(self, deadline: Deadline) -> Iterator[Link]:
        """A connection in a transaction that the server ends at the deadline; errors translated."""
        with _translated(), self._connections.lease(deadline) as link:
            remaining_ms = max(1, round(deadline.remaining_s() * 1000))
            # Shorter, so that waiting for a lock is told from being slow.
            lock_ms = max(1, remaining_ms // 2)
            link.execute(TIMEOUTS, [str(remaining_ms), str(lock_ms)])
            yield link

    def _change(self, deadline: Deadline, change: Callable[[Link], None]) -> None:
        """A change that nobody may read the table through. Whoever comes while it waits for the readers that
        are there waits behind it: it waits for a moment, and comes again."""
        while True:
            try:
                with self._session(deadline) as link:
                    link.execute(LOCK_TIMEOUT, [str(_PATIENCE_MS)])
                    change(link)
                return
            except AdapterError as error:
                if error.failure.cause != "lock_timeout" or deadline.remaining_s() < 2 * _PATIENCE_MS / 1000:
                    raise
            time.sleep(_PATIENCE_MS / 1000)

    @contextmanager
    def _on_collection(self, name: str, deadline: Deadline) -> Iterator[tuple[Link, Statements]]:
        try:
            with self._session(deadline) as link:
                statements = self._statements.get(name)
                if statements is None:
                    # A view may lead elsewhere the next time; while it is held it does not.
                    target = read_alias(link, self._schema, name, hold=True) or name
                    statements = read_statements(link, self._schema, target)
                    self._statements[target] = statements
                yield link, statements
        except AdapterError as error:
            if error.failure.cause == "collection_missing":
                self._statements.pop(name, None)
            raise


create = PgVectorStore


@contextmanager
def _translated() -> Iterator[None]:
    """The original error is not chained: its text may hold row content (invariant 13)."""
    try:
        yield
    except psycopg.Error as error:
        raise AdapterError(failure_of(error)) from None


def _stamp(payload: Mapping[str, Value] | None, *kept: Any) -> Stamp | None:
    if payload is None:
        return None
    try:
        return Stamp.from_payload(payload, *kept)
    except (KeyError, ValueError, TypeError) as error:
        detail = f"a point's stamp cannot be read: {error}"
        raise AdapterError(Failure(Kind.OPERATOR, "stamp_unreadable", detail)) from None


def _stored(columns: Sequence[Any]) -> Stored:
    id_, table, key, chunk, text, text_hash, metadata, stamp, embedding = columns
    vector = None if embedding is None else embedding.to_numpy().astype(np.float32)
    return Stored(id_, Row(table, key), chunk, text, text_hash, metadata, _stamp(stamp), vector)
