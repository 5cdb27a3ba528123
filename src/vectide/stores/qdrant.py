"""Qdrant, over its REST interface (server 1.17 or later).

A call is not atomic: its points change one by one, each whole. What a point holds is compared by the server
once more when it changes, so that a late writer cannot overwrite what came after it.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import certifi
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

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
from vectide.stores.leases import Leases
from vectide.stores.pointwise import Held, changes_of, check_vectors, hit_of, ids_to_read, matching, stamps_of
from vectide.stores.qdrant_errors import failure_of
from vectide.stores.qdrant_points import (
    OURS,
    ROW_FIELD,
    conditions,
    held_of,
    insertions,
    missing_indexes,
    other_operations,
    replacements,
    vector_of,
)
from vectide.stores.refusals import check_made_for, check_metric, found, refusing

CAPABILITIES: Final = Capabilities(
    kind="qdrant",
    max_batch_items=1000,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=True,
    update_only=True,
    nested_metadata=True,
    null_metadata=True,
    max_integer=2**63 - 1,
    nul_in_text=True,
    filter_indexes=True,
    tenants="index",
    named_vectors=True,
    unit_vectors=True,
)

METRICS: Final = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "l2": models.Distance.EUCLID,
}

#: The key of the collection's metadata that says what its vectors are.
_SPACES: Final = "vectide_spaces"

#: Of the few calls that take no time limit of their own.
_TIMEOUT_S: Final = 10

_READ_MAJORITY: Final = models.ReadConsistencyType.MAJORITY

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the server says about a collection; ``vector``: the one of ours. ``spaces``: what is written into
    its vectors by us. ``indexes``: those of its payload."""

    dimensions: int
    metric: str
    vector: str | None
    spaces: Mapping[str, str]
    indexes: Mapping[str, models.PayloadIndexInfo] = field(default_factory=dict)


class QdrantStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

    ``url``: of the server's REST interface. ``api_key``: an API key or a token. ``ca_file``: certificates
    to trust instead of the public ones. ``vector``: the named vector to write where a collection's
    spec names none; without it that of collections which have a single nameless one. Other vectors of a point
    are left alone.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, ca_file: str | None = None, vector: str | None = None
    ) -> None:
        self._vector = vector
        self._vectors: dict[str, str | None] = {}
        self._shapes: dict[str, Shape] = {}

        try:
            trusted = ssl.create_default_context(cafile=ca_file or certifi.where())
        except OSError as error:
            raise StartupRefused(f"the qdrant store cannot read {ca_file}: {error}") from None

        def connect() -> QdrantClient:
            return QdrantClient(
                url=url,
                port=6333,
                # As the client itself would send it, without its warning about plain HTTP.
                headers={"api-key": api_key} if api_key else None,
                timeout=_TIMEOUT_S,
                check_compatibility=False,
                verify=trusted,
                # Its own choice for a server on this machine is a new connection for every call.
                limits=httpx.Limits(max_connections=1),
            )

        self._clients = Leases(connect)
        try:
            with self._clients.lease():
                """An address that is no good shows now."""
        except ValueError as error:
            raise StartupRefused(f"the qdrant store cannot use its URL: {error}") from None

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. A collection that somebody else made is taken, if its
        vectors have the dimensions and the metric, and marked as of our space."""
        with refusing("qdrant", spec):
            if not self.verify(spec, deadline):
                self._create(spec, deadline)
                self.verify(spec, deadline)
            shape = self._shapes[spec.name]
            if not shape.spaces:
                spaces = {_SPACES: {shape.vector or "": spec.space}}
                self._call(deadline, lambda client, _: client.update_collection(spec.name, metadata=spaces))
            self._index(spec.name, ROW_FIELD, models.PayloadSchemaType.UUID, deadline)
            for path, index in missing_indexes(spec.filters, shape.indexes).items():
                # The server goes on making it by itself.
                self._index(spec.name, path, index, deadline, wait=False)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        check_metric("qdrant", spec, METRICS)
        if not spec.name or any(sign in spec.name for sign in '<>:"/\\|?*\0') or len(spec.name) > 255:
            raise StartupRefused(f"a qdrant collection cannot be named {spec.name!r}: choose another name")
        self._vectors[spec.name] = spec.vector or self._vector
        shape = found("qdrant", spec, lambda: self._shape(spec.name, deadline, fresh=True))
        if shape is None:
            return False
        with refusing("qdrant", spec):
            missing_indexes(spec.filters, shape.indexes)
        ours = shape.vector or ""
        check_made_for(spec, shape.dimensions, shape.metric, shape.spaces.get(ours, spec.space))
        others = [name for name in shape.spaces if name != ours]
        if others:
            raise StartupRefused(
                f"collection {spec.name!r} has vector {others[0] or 'without a name'} of this service, but "
                f"{ours or 'the one without a name'} is configured: a point says of one vector only what it "
                "is made from; use another collection"
            )
        return True

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change."""
        shape = self._shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=True), deadline)
        changes = changes_of(writes, held)
        new = [(one, vector) for one, vector in changes.puts if one.point.id not in held]
        known = [(one, vector) for one, vector in changes.puts if one.point.id in held]
        self._update(
            collection,
            [
                *insertions(new, shape.vector),
                *replacements(known, shape.vector, changes.updates),
                *other_operations(changes),
            ],
            deadline,
        )
        if new or changes.updates:
            # What somebody else inserted in between was left alone by the server, and so was what has gone.
            now = self._fetch(collection, [*(one.point.id for one, _ in new), *changes.updates], deadline)
            changes.found(now)
            lost = [(one, vector) for one, vector in new if now.get(one.point.id) != one]
            self._update(collection, replacements(lost, shape.vector), deadline)
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
        """As :meth:`vectide.ports.Searchable.search`."""
        shape = self._shape(collection, deadline)
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters)

        def find(count: int) -> Sequence[Hit | None]:
            found = self._call(
                deadline,
                lambda client, seconds: client.query_points(
                    collection,
                    vector.tolist(),
                    using=shape.vector,
                    query_filter=wanted,
                    limit=count,
                    timeout=seconds,
                ),
            )
            return [_hit(point, shape.metric) for point in found.points]

        return matching(find, limit, filters)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`; the cursor is the first id of the next page."""
        name = self._shape(collection, deadline).vector
        wanted: Any = [name] if vectors and name else vectors
        records, following = self._call(
            deadline,
            lambda client, seconds: client.scroll(
                collection,
                scroll_filter=OURS,
                limit=limit,
                offset=cursor,
                with_vectors=wanted,
                consistency=_READ_MAJORITY,
                timeout=seconds,
            ),
        )
        found = [held_of(one.id, one.payload, vector_of(one.vector, name)) for one in records]
        page = [held.point for held in found if held is not None]
        return page, None if following is None else str(following)

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of our points in the collection."""
        found = self._call(
            deadline, lambda client, seconds: client.count(collection, OURS, exact=True, timeout=seconds)
        )
        return int(found.count)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._clients.close()

    # --- calls ---

    def _create(self, spec: CollectionSpec, deadline: Deadline) -> None:
        params = models.VectorParams(size=spec.dimensions, distance=METRICS[spec.metric])
        name = self._vectors[spec.name]
        try:
            self._call(
                deadline,
                lambda client, seconds: client.create_collection(
                    spec.name,
                    params if name is None else {name: params},
                    metadata={_SPACES: {name or "": spec.space}},
                    timeout=seconds,
                ),
            )
        except AdapterError as error:
            if error.failure.cause == "collection_missing":
                raise StartupRefused(
                    "what answers at the URL of the qdrant store is no Qdrant server"
                ) from None
            if error.failure.cause != "conflict":  # another replica made it meanwhile
                raise

    def _index(
        self, collection: str, path: str, index: Any, deadline: Deadline, *, wait: bool = True
    ) -> None:
        self._call(
            deadline,
            lambda client, seconds: client.create_payload_index(
                collection, path, index, wait=wait, timeout=seconds
            ),
        )

    def _shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            info = self._call(deadline, lambda client, _: client.get_collection(collection))
            name = self._vectors.get(collection, self._vector)
            made = _shape_of(info.config, collection, name)
            shape = self._shapes[collection] = replace(made, indexes=info.payload_schema)
        return shape

    def _fetch(self, collection: str, ids: Sequence[str], deadline: Deadline) -> dict[str, Held]:
        if not ids:
            return {}
        records = self._call(
            deadline,
            lambda client, seconds: client.retrieve(
                collection, ids, consistency=_READ_MAJORITY, timeout=seconds
            ),
        )
        held = (held_of(one.id, one.payload) for one in records)
        return {one.point.id: one for one in held if one is not None}

    def _update(self, collection: str, operations: Sequence[Any], deadline: Deadline) -> None:
        if not operations:
            return
        results = self._call(
            deadline,
            lambda client, seconds: client.batch_update_points(
                collection, operations, wait=True, ordering=models.WriteOrdering.MEDIUM, timeout=seconds
            ),
        )
        # A server that runs out of time says so in a successful answer.
        unsure = {str(result.status) for result in results if result.status != models.UpdateStatus.COMPLETED}
        if unsure or len(results) != len(operations):
            told = ", ".join(sorted(unsure)) or f"{len(results)} results of {len(operations)}"
            raise AdapterError(Failure(Kind.TRANSIENT, "unconfirmed", told))

    def _call(self, deadline: Deadline, call: Callable[[QdrantClient, int], T]) -> T:
        """``call`` gets its time limit in whole seconds, rounded up. The original error is not chained: its
        text may hold row content (invariant 13)."""
        try:
            with self._clients.lease() as client:
                return call(client, max(1, math.ceil(deadline.remaining_s())))
        except (
            ApiException,
            QdrantException,
            httpx.HTTPError,
            ValueError,
            TypeError,
            RecursionError,
        ) as error:
            raise AdapterError(failure_of(error)) from None


create = QdrantStore


def _shape_of(config: models.CollectionConfig, collection: str, vector: str | None) -> Shape:
    vectors = config.params.vectors
    params = vectors if isinstance(vectors, models.VectorParams) else (vectors or {}).get(vector or "")
    if params is None or (vector is not None and isinstance(vectors, models.VectorParams)):
        there = ", ".join(vectors) if isinstance(vectors, dict) else "one without a name"
        detail = f"collection {collection!r} has no vector {vector or 'without a name'}: there is {there}"
        raise AdapterError(Failure(Kind.OPERATOR, "vector_missing", detail))
    metric = next((name for name, of in METRICS.items() if of == params.distance), str(params.distance))
    return Shape(params.size, metric, vector, (config.metadata or {}).get(_SPACES, {}))


def _hit(point: models.ScoredPoint, metric: str) -> Hit | None:
    held = held_of(point.id, point.payload)
    if held is None:
        return None
    score = -point.score if metric == "l2" else point.score
    return hit_of(held, score)
