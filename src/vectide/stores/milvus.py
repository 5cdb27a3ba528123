"""Milvus (server 2.6.2 or later), or Zilliz's cloud, over gRPC.

A call is not atomic: points change one by one. Milvus compares nothing when it writes, so that a writer who
comes late is not noticed. A patch resends no vector, but costs the server as much as a whole row.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

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
    StartupRefused,
    Stored,
    Vector,
    Write,
)
from vectide.stores.milvus_errors import failure_of
from vectide.stores.milvus_points import (
    MAX_TEXT_BYTES,
    READ,
    RESERVED_FIELDS,
    among,
    conditions,
    filter_index_of,
    held_of,
    patched,
    quoted,
    registry_schema,
    schema_of,
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
from vectide.stores.refusals import check_made_for, check_metric, check_same, refusing

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
)

METRICS: Final = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}

#: The collection that says what the others are made for.
_REGISTRY: Final = "vectide_collections"

#: The most points that one search or query may give.
_MAX_RESULTS: Final = 16_384

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

#: A read sees every write that was confirmed before it.
_STRONG: Final = "Strong"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection is made for."""

    dimensions: int
    metric: str
    space: str
    tenant: str | None = None
    vector: str = "vector"


class MilvusStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

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
        if not url.startswith(("http://", "https://", "tcp://")):
            raise StartupRefused("the URL of the milvus store must start with http:// or https://")
        # It logs what it sends when something fails; the service logs failures without content.
        logging.getLogger("pymilvus").disabled = True
        logging.getLogger("pymilvus.decorators").disabled = True
        self._settings: dict[str, Any] = {"uri": url, "token": api_key or "", "db_name": database}
        if ca_file is not None:
            self._settings |= {"server_pem_path": ca_file, "secure": True}
        self._client: Any = None
        self._connecting = threading.Lock()
        self._shapes: dict[str, Shape] = {}
        #: Collections whose points have vectors that are not ours.
        self._has_others: dict[str, bool] = {}

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. What it is for is noted before the collection is made, so
        that one without a note is somebody else's."""
        if not self.verify(spec, deadline):
            self._make(spec, deadline)
            self.verify(spec, deadline)
        if spec.filters:
            with refusing("milvus", spec):
                self._index(spec, deadline)

    def _make(self, spec: CollectionSpec, deadline: Deadline) -> None:
        made_for = {"dimensions": spec.dimensions, "metric": spec.metric, "space": spec.space}
        made_for |= {} if spec.tenant is None else {"tenant": spec.tenant}
        made_for |= {} if spec.vector is None else {"vector": spec.vector}
        with refusing("milvus", spec):
            self._create(_REGISTRY, registry_schema(), "L2", deadline)
            note = {"name": spec.name, "made_for": made_for, "vector": [0.0, 0.0]}
            self._call(deadline, lambda client, limits: client.upsert(_REGISTRY, [note], **limits))
            vector = spec.vector or "vector"
            schema = schema_of(spec.dimensions, vector, spec.tenant)
            self._create(spec.name, schema, METRICS[spec.metric], deadline, vector)

    def _index(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """The server goes on making the indexes by itself. Milvus Lite has none of metadata: it reads all."""
        if "lite" in self._call(deadline, lambda client, limits: client.get_server_version(**limits)):
            return
        there = self._call(deadline, lambda client, limits: client.list_indexes(spec.name, **limits))
        missing = [index for index in map(filter_index_of, spec.filters) if index["index_name"] not in there]
        if missing:
            indexes = MilvusClient.prepare_index_params()
            for index in missing:
                indexes.add_index(**index)
            self._call(
                deadline,
                lambda client, limits: client.create_index(spec.name, indexes, sync=False, **limits),
            )

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        check_metric("milvus", spec, METRICS)
        if not _NAME.fullmatch(spec.name) or spec.name == _REGISTRY:
            raise StartupRefused(
                f"a milvus collection cannot be named {spec.name!r}: letters, digits and underscores can"
            )
        if spec.vector in RESERVED_FIELDS or not _NAME.fullmatch(spec.vector or "vector"):
            raise StartupRefused(f"a milvus vector cannot be named {spec.vector!r}: choose another name")
        with refusing("milvus", spec):
            there = self._call(deadline, lambda client, limits: client.has_collection(spec.name, **limits))
            try:
                shape = self._shape(spec.name, deadline, fresh=True)
            except AdapterError as error:
                if error.failure.cause != "collection_missing":
                    raise
                if there:
                    raise StartupRefused(
                        f"there is a collection {spec.name!r} that is not one of this service: "
                        "choose another name"
                    ) from None
                return False
        check_made_for(spec, shape.dimensions, shape.metric, shape.space)
        check_same(spec, "tenant", shape.tenant, spec.tenant)
        check_same(spec, "vector", shape.vector, spec.vector or "vector")
        if there:
            self._has_others[spec.name] = self._vector_count(spec.name, deadline) > 1
        return bool(there)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`."""
        shape = self._shape(collection, deadline)
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
        self._shape(collection, deadline)
        held = self._fetch(collection, list({row.head_id: None for row in rows}), deadline)
        return stamps_of(rows, held, values=values)

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`, at most 16,384 candidates."""
        shape = self._shape(collection, deadline)
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
                    consistency_level=_STRONG,
                    **limits,
                ),
            )
            return [_hit(one, shape.metric) for one in found]

        return matching(find, limit, filters)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`, over ranges of ids."""
        vector = self._shape(collection, deadline).vector if vectors else None

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
                collection, filter="", output_fields=["count(*)"], consistency_level=_STRONG, **limits
            ),
        )
        return int(found["count(*)"])

    def close(self) -> None:
        """Close the connection."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

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
            others = self._has_others.get(collection, False)
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

    def _create(
        self, name: str, schema: Any, metric: str, deadline: Deadline, vector: str = "vector"
    ) -> None:
        index = MilvusClient.prepare_index_params()
        index.add_index(vector, index_type="AUTOINDEX", metric_type=metric)
        try:
            self._call(
                deadline,
                lambda client, limits: client.create_collection(
                    name, schema=schema, index_params=index, consistency_level=_STRONG, **limits
                ),
            )
        except AdapterError as error:
            if error.failure.cause != "conflict":  # it is there, or another replica makes it
                raise

    def _shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            found = self._call(
                deadline,
                lambda client, limits: client.query(
                    _REGISTRY,
                    filter=f"name == {quoted(collection)}",
                    output_fields=["made_for"],
                    consistency_level=_STRONG,
                    **limits,
                ),
            )
            if not found:
                detail = f"there is no collection {collection!r}"
                raise AdapterError(Failure(Kind.OPERATOR, "collection_missing", detail))
            made_for = found[0]["made_for"]
            vector = made_for.get("vector", "vector")
            shape = Shape(
                made_for["dimensions"], made_for["metric"], made_for["space"], made_for.get("tenant"), vector
            )
            self._shapes[collection] = shape
        return shape

    def _vector_count(self, collection: str, deadline: Deadline) -> int:
        told = self._call(deadline, lambda client, limits: client.describe_collection(collection, **limits))
        return sum(field["type"].name.endswith("_VECTOR") for field in told["fields"])

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
                consistency_level=_STRONG,
                **limits,
            ),
        )
        return [held_of(row, vector) for row in rows]

    def _call(self, deadline: Deadline, call: Callable[[Any, Mapping[str, Any]], T]) -> T:
        """``call`` gets the client and the limits of the call: its own retries end with the time. The
        original error is not chained: its text may hold row content (invariant 13)."""
        limits = {"timeout": deadline.remaining_s(), "retry_on_rate_limit": False}
        try:
            return call(self._connected(limits["timeout"]), limits)
        except (MilvusException, grpc.RpcError, ValueError, TypeError, RecursionError) as error:
            raise AdapterError(failure_of(error)) from None

    def _connected(self, timeout_s: float) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = MilvusClient(**self._settings, timeout=timeout_s)
            return self._client


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
