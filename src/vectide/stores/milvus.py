"""Milvus (server 2.6.2 or later), or Zilliz's cloud, over gRPC.

A call is not atomic: points change one by one. Milvus compares nothing when it writes, so that a writer who
comes late is not noticed. A patch resends no vector, but costs the server as much as a whole row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Hit,
    Outcome,
    Put,
    Stored,
    Vector,
    Write,
)
from vectide.stores.aliases import through_aliases
from vectide.stores.milvus_calls import STRONG, Calls
from vectide.stores.milvus_collections import Collections, Shape
from vectide.stores.milvus_points import (
    MAX_TEXT_BYTES,
    READ,
    among,
    conditions,
    held_of,
    patched,
    quoted,
    tenant_in,
    whole,
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

CAPABILITIES: Final = Capabilities(
    kind="milvus",
    max_batch_items=1000,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    nested_metadata=True,
    null_metadata=True,
    max_integer=2**63 - 1,
    nul_in_text=True,
    filter_indexes=True,
    tenants="partition",
    named_vectors=True,
    swap="alias",
)

#: The most points that one search or query may give.
_MAX_RESULTS: Final = 16_384


class MilvusStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable.

    ``url``: of the server. ``api_key``: a token, or ``user:password``. ``ca_file``: certificates to trust
    instead of the public ones. ``database``: where the collections are.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: str | None = None,
        database: str = "default",
    ) -> None:
        self._call = Calls(url, api_key=api_key, ca_file=ca_file, database=database)
        self._collections = Collections(self._call)

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. What it is for is noted before the collection is made, so
        that one without a note is somebody else's."""
        self._collections.prepare(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        return self._collections.verify(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`."""
        shape = self._collections.shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=False), deadline)
        changes = changes_of(writes, held)
        _check_texts(changes)
        if shape.tenant is not None:
            self._move(collection, changes, held, shape, deadline)
        self._apply(collection, changes, shape, deadline)
        return changes.outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        self._collections.shape(collection, deadline)
        held = self._fetch(collection, list({row.head_id: None for row in rows}), deadline)
        return stamps_of(rows, held, values=values)

    @through_aliases
    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`, at most 16,384 candidates."""
        shape = self._collections.shape(collection, deadline)
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters, shape.tenant)

        def find(count: int) -> Sequence[Hit | None]:
            [found] = self._call(
                deadline,
                lambda client, limits: client.search(
                    collection,
                    data=[vector.tolist()],
                    anns_field=shape.vector,
                    filter=wanted,
                    limit=min(count, _MAX_RESULTS),
                    output_fields=READ,
                    consistency_level=STRONG,
                    **limits,
                ),
            )
            return [_hit(one, shape.metric) for one in found]

        return matching(find, limit, filters)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`, over ranges of ids."""
        vector = self._collections.shape(collection, deadline).vector if vectors else None

        def find(low: int, high: int, most: int) -> list[Stored]:
            within = f"id >= {quoted(id_from(low))} and id < {quoted(id_from(high))}"
            return [one.point for one in self._read(collection, within, most, deadline, vector)]

        most = min(limit, _MAX_RESULTS - 1)
        return scan_ranges(cursor, most, lambda: self.count(collection, deadline), find)

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        [found] = self._call(
            deadline,
            lambda client, limits: client.query(
                collection, filter="", output_fields=["count(*)"], consistency_level=STRONG, **limits
            ),
        )
        return int(found["count(*)"])

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        self._collections.swap(alias, collection, deadline)

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        return self._collections.leads_to(alias, deadline)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`. The note goes last: half of it can be dropped again."""
        self._collections.drop(collection, deadline)

    def close(self) -> None:
        """Close the connection."""
        self._call.close()

    # --- calls ---

    def _move(
        self, collection: str, changes: Changes, held: Mapping[str, Held], shape: Shape, deadline: Deadline
    ) -> None:
        """Patches that change a point's tenant become whole writes, which leave the former partition."""
        assert shape.tenant is not None
        moved = {
            one.point.id: one
            for one in changes.patches
            if tenant_in(one, shape.tenant) != tenant_in(held[one.point.id], shape.tenant)
        }
        if not moved:
            return
        for found in self._read(collection, among("id", moved), len(moved), deadline, shape.vector):
            assert found.point.vector is not None
            changes.puts.append((moved[found.point.id], found.point.vector))
        changes.patches = [one for one in changes.patches if one.point.id not in moved]

    def _apply(self, collection: str, changes: Changes, shape: Shape, deadline: Deadline) -> None:
        if changes.puts:
            rows = [whole(held, vector, shape.vector, shape.tenant) for held, vector in changes.puts]
            others = self._collections.has_others(collection)
            self._call(
                deadline,
                lambda client, limits: client.upsert(collection, rows, partial_update=others, **limits),
            )
        if changes.patches:
            parts = [patched(held) for held in changes.patches]
            self._call(
                deadline,
                lambda client, limits: client.upsert(collection, parts, partial_update=True, **limits),
            )
        if changes.removals:
            gone = among("row_id", [row_id for row_id, _, _ in changes.removals])
            stay = [id_ for _, ids, _ in changes.removals for id_ in ids]
            which = f"{gone} and not ({among('id', stay)})" if stay else gone
            self._call(deadline, lambda client, limits: client.delete(collection, filter=which, **limits))

    def _fetch(self, collection: str, ids: Sequence[str], deadline: Deadline) -> dict[str, Held]:
        if not ids:
            return {}
        found = self._read(collection, among("id", ids), len(ids), deadline)
        return {one.point.id: one for one in found}

    def _read(
        self, collection: str, which: str, most: int, deadline: Deadline, vector: str | None = None
    ) -> list[Held]:
        """The points, with the vector of that name."""
        rows = self._call(
            deadline,
            lambda client, limits: client.query(
                collection,
                filter=which,
                limit=most,
                output_fields=READ if vector is None else [*READ, vector],
                consistency_level=STRONG,
                **limits,
            ),
        )
        return [held_of(row, vector) for row in rows]


create = MilvusStore


def _check_texts(changes: Changes) -> None:
    for held, _ in changes.puts:
        size = len((held.point.text or "").encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT_BYTES:
            detail = f"a text of {size} bytes, Milvus holds {MAX_TEXT_BYTES}: cut it into chunks"
            raise AdapterError(Failure(Kind.REFUSED, "text_too_long", detail))


def _hit(found: Mapping[str, Any], metric: str) -> Hit:
    held, distance = held_of({"id": found["id"], **found["entity"]}), found["distance"]
    score = -float(np.sqrt(max(0.0, distance))) if metric == "l2" else float(distance)
    return hit_of(held, score)
