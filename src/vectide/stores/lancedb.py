"""LanceDB, embedded: tables in a folder or a bucket, without a server.

Every write makes a version of the table, which is compared and committed as one. The writes of a call take a
few of them, so a call is not atomic.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import lancedb
import pyarrow as pa

from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Hit,
    Outcome,
    Put,
    StartupRefused,
    Stored,
    Vector,
    Write,
)
from vectide.stores.lancedb_errors import failure_of
from vectide.stores.lancedb_points import (
    NOT_NEWER,
    READ,
    among,
    conditions,
    held_of,
    quoted,
    schema_of,
    table_of,
)
from vectide.stores.ordered_scans import id_from, scan_ranges
from vectide.stores.pointwise import (
    Changes,
    Held,
    changes_of,
    check_vectors,
    hit_of,
    ids_to_read,
    matching,
    stamps_of,
)
from vectide.stores.refusals import check_made_for, check_metric, found, refusing

CAPABILITIES: Final = Capabilities(
    kind="lancedb",
    max_batch_items=1000,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=True,
    update_only=True,
    nested_metadata=True,
    null_metadata=True,
    max_integer=10**1000,  # metadata is JSON text
    nul_in_text=True,
)

METRICS: Final = ("cosine", "dot", "l2")

#: What a table is made for, in the metadata of its schema.
_SPACE, _METRIC = b"vectide.space", b"vectide.metric"

#: After so many calls that write the table's small pieces are put together, after more where that is more
#: work: one for so many rows.
_WRITES_BETWEEN: Final = 50
_ROWS_PER_WRITE: Final = 2000
#: Versions that no reader can be at any more.
_KEPT: Final = timedelta(hours=1)

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class LanceDbStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

    ``url``: a folder, or a bucket as ``s3://``, ``gs://`` or ``az://``, whose credentials are those of the
    environment. Several processes may write the same tables.
    """

    def __init__(self, url: str) -> None:
        if url.startswith("db://"):
            raise StartupRefused("the lancedb store is embedded, its cloud is not supported: give a folder")
        self._url = url
        self._database: Any = None
        self._tables: dict[str, Any] = {}
        self._writes_left: dict[str, int] = {}
        self._tidying = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if self.verify(spec, deadline):
            return
        schema = schema_of(spec.dimensions, {_SPACE.decode(): spec.space, _METRIC.decode(): spec.metric})
        with refusing("lancedb", spec), _translated():
            # Taken as it is where another process has made it meanwhile.
            self._open().create_table(spec.name, schema=schema, exist_ok=True)
        self.verify(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        check_metric("lancedb", spec, METRICS)
        if not _NAME.fullmatch(spec.name):
            raise StartupRefused(
                f"a lancedb table cannot be named {spec.name!r}: letters, digits, hyphens, dots and "
                "underscores can"
            )
        schema = found("lancedb", spec, lambda: self._schema(spec.name, fresh=True))
        if schema is None:
            return False
        _check(schema, spec)
        return True

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change."""
        dimensions = self._schema(collection).field("vector").type.list_size
        check_vectors((write.vector for write in writes if isinstance(write, Put)), dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=True), deadline)
        changes = changes_of(writes, held)
        if changes.puts or changes.patches or changes.removals:
            with self._on(collection) as table:
                _apply(table, changes, timedelta(seconds=deadline.remaining_s()))
            changes.found(self._fetch(collection, list(changes.updates), deadline))
            self._tidy(collection)
        return changes.outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        self._schema(collection)
        held = self._fetch(collection, list({row.head_id: None for row in rows}), deadline)
        return stamps_of(rows, held, values=values)

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`; exact, unless somebody has made an index."""
        schema = self._schema(collection)
        check_vectors([vector], schema.field("vector").type.list_size)
        metric = schema.metadata[_METRIC].decode()
        with _translated():
            wanted = conditions(filters)

        def find(count: int) -> Sequence[Hit | None]:
            with self._on(collection) as table:
                query = table.search(vector).distance_type(metric).limit(count).select([*READ, "_distance"])
                if wanted is not None:
                    query = query.where(wanted, prefilter=True)
                found = query.to_arrow(timeout=timedelta(seconds=deadline.remaining_s())).to_pylist()
            return [_hit(one, metric) for one in found]

        return matching(find, limit, filters)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`, over ranges of ids."""

        def find(low: int, high: int, most: int) -> list[Stored]:
            within = f"id >= {quoted(id_from(low))} AND id < {quoted(id_from(high))}"
            columns = [*READ, "vector"] if vectors else READ
            return [held.point for held in self._read(collection, within, most, columns, deadline)]

        return scan_ranges(cursor, limit, lambda: self.count(collection, deadline), find)

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        with self._on(collection) as table:
            return int(table.count_rows())

    def close(self) -> None:
        """Let the tables go."""
        self._tables.clear()

    # --- calls ---

    def _open(self) -> Any:
        if self._database is None:
            # Looked at anew for every read: other processes write, too.
            self._database = lancedb.connect(self._url, read_consistency_interval=timedelta(0))
        return self._database

    def _schema(self, collection: str, *, fresh: bool = False) -> pa.Schema:
        if fresh:
            self._tables.pop(collection, None)
        with self._on(collection) as table:
            return table.schema

    @contextmanager
    def _on(self, collection: str) -> Iterator[Any]:
        """A table, for one step; errors translated. One that has gone is opened anew next time."""
        try:
            with _translated():
                table = self._tables.get(collection)
                if table is None:
                    table = self._tables[collection] = self._open().open_table(collection)
                yield table
        except AdapterError as error:
            if error.failure.cause == "collection_missing":
                self._tables.pop(collection, None)
            raise

    def _read(
        self, collection: str, where: str, most: int, columns: Sequence[str], deadline: Deadline
    ) -> list[Held]:
        with self._on(collection) as table:
            query = table.search().where(where).select(list(columns)).limit(most)
            rows = query.to_arrow(timeout=timedelta(seconds=deadline.remaining_s())).to_pylist()
        return [held_of(row) for row in rows]

    def _fetch(self, collection: str, ids: Sequence[str], deadline: Deadline) -> dict[str, Held]:
        if not ids:
            return {}
        found = self._read(collection, among("id", ids), len(ids), READ, deadline)
        return {held.point.id: held for held in found}

    def _tidy(self, collection: str) -> None:
        """Now and then, by one thread: else every read goes through all the small pieces there are."""
        left = self._writes_left[collection] = self._writes_left.get(collection, _WRITES_BETWEEN) - 1
        if left > 0 or not self._tidying.acquire(blocking=False):
            return
        try:
            self._writes_left[collection] = _WRITES_BETWEEN
            with self._on(collection) as table:
                table.optimize(cleanup_older_than=_KEPT)
                self._writes_left[collection] += table.count_rows() // _ROWS_PER_WRITE
        except AdapterError:
            """Another process may be at it. What was written is written; there will be a next time."""
        finally:
            self._tidying.release()


create = LanceDbStore


@contextmanager
def _translated() -> Iterator[None]:
    """The original error is not chained: its text may hold row content (invariant 13)."""
    try:
        yield
    except (
        ValueError,
        TypeError,
        OSError,
        RuntimeError,
        ArithmeticError,
        MemoryError,
        pa.ArrowException,
    ) as error:
        raise AdapterError(failure_of(error)) from None


def _apply(table: Any, changes: Changes, timeout: timedelta) -> None:
    updates = [one for one in changes.puts if one[0].point.id in changes.updates]
    inserts = [one for one in changes.puts if one[0].point.id not in changes.updates]
    for puts, may_insert in ((updates, False), (inserts, True)):
        if puts:
            rows = table_of([held for held, _ in puts], [vector for _, vector in puts])
            merge = table.merge_insert("id").when_matched_update_all(where=NOT_NEWER)
            merge = merge.when_not_matched_insert_all() if may_insert else merge
            merge.execute(rows, timeout=timeout)
    if changes.patches:
        rows = table_of(changes.patches)
        table.merge_insert("id").when_matched_update_all(where=NOT_NEWER).execute(rows, timeout=timeout)
    if changes.removals:
        gone = among("row_id", [row_id for row_id, _, _ in changes.removals])
        stay = [id_ for _, ids, _ in changes.removals for id_ in ids]
        table.delete(f"{gone} AND NOT ({among('id', stay)})" if stay else gone)


def _check(schema: pa.Schema, spec: CollectionSpec) -> None:
    made_for = schema.metadata or {}
    if _SPACE not in made_for:
        raise StartupRefused(
            f"there is a table {spec.name!r} that is not a collection of this service: choose another name"
        )
    check_made_for(
        spec, schema.field("vector").type.list_size, made_for[_METRIC].decode(), made_for[_SPACE].decode()
    )


def _hit(row: Mapping[str, Any], metric: str) -> Hit:
    held, distance = held_of(row), row["_distance"]
    score = -math.sqrt(max(0.0, distance)) if metric == "l2" else 1.0 - distance
    return hit_of(held, score)
