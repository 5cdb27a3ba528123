"""Qdrant, over its REST interface (server 1.17 or later).

A call is not atomic: its points change one by one, each whole. What a point holds is compared by the server
once more when it changes, so that a late writer cannot overwrite what came after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qdrant_client import models

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
from vectide.stores.pointwise import Held, changes_of, check_vectors, hit_of, ids_to_read, matching, stamps_of
from vectide.stores.qdrant_calls import Calls
from vectide.stores.qdrant_collections import Collections
from vectide.stores.qdrant_points import (
    OURS,
    conditions,
    held_of,
    insertions,
    other_operations,
    replacements,
    vector_of,
)

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
    swap="alias",
)

_READ_MAJORITY: Final = models.ReadConsistencyType.MAJORITY


class QdrantStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable.

    ``url``: of the server's REST interface. ``api_key``: an API key or a token. ``ca_file``: certificates
    to trust instead of the public ones. ``vector``: the named vector to write where a collection's
    spec names none; without it that of collections which have a single nameless one. Other vectors of a point
    are left alone.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, ca_file: str | None = None, vector: str | None = None
    ) -> None:
        self._call = Calls(url, api_key=api_key, ca_file=ca_file)
        self._collections = Collections(self._call, vector)

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. A collection that somebody else made is taken, if its
        vectors have the dimensions and the metric, and marked as of our space."""
        self._collections.prepare(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        return self._collections.verify(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change."""
        shape = self._collections.shape(collection, deadline)
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
        self._collections.shape(collection, deadline)
        held = self._fetch(collection, list({row.head_id: None for row in rows}), deadline)
        return stamps_of(rows, held, values=values)

    @through_aliases
    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`."""
        # The server itself would follow an alias, and not say to which shape.
        collection = self.leads_to(collection, deadline) or collection
        shape = self._collections.shape(collection, deadline)
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
        name = self._collections.shape(collection, deadline).vector
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
        return self._collections.count(collection, OURS, deadline)

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        self._collections.swap(alias, collection, deadline)

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        return self._collections.leads_to(alias, deadline)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`. An alias that is made at the same moment goes, too."""
        self._collections.drop(collection, deadline)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._call.close()

    # --- calls ---

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


create = QdrantStore


def _hit(point: models.ScoredPoint, metric: str) -> Hit | None:
    held = held_of(point.id, point.payload)
    if held is None:
        return None
    score = -point.score if metric == "l2" else point.score
    return hit_of(held, score)
