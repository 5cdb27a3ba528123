"""Collections of the Qdrant store and their aliases: how they are made, verified, led to and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qdrant_client import models

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, CollectionSpec, Deadline, StartupRefused
from vectide.stores.aliases import in_use, is_alias, missing, name_taken, not_ours, unless_missing
from vectide.stores.qdrant_calls import Calls
from vectide.stores.qdrant_points import OURS, ROW_FIELD, missing_indexes
from vectide.stores.refusals import check_made_for, check_metric, found, refusing

METRICS: Final = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "l2": models.Distance.EUCLID,
}

#: The key of the collection's metadata that says what its vectors are.
_SPACES: Final = "vectide_spaces"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the server says about a collection; ``vector``: the one of ours. ``spaces``: what is written into
    its vectors by us. ``indexes``: those of its payload."""

    dimensions: int
    metric: str
    vector: str | None
    spaces: Mapping[str, str]
    indexes: Mapping[str, models.PayloadIndexInfo] = field(default_factory=dict)


class Collections:
    """Those of one server. ``vector``: the named vector to write where a spec names none."""

    def __init__(self, call: Calls, vector: str | None) -> None:
        self._call = call
        self._vector = vector
        self._vectors: dict[str, str | None] = {}
        self._shapes: dict[str, Shape] = {}

    def shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        """That of this collection, as it was found last, or as it is now."""
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            info = self._call(deadline, lambda client, _: client.get_collection(collection))
            name = self._vectors.get(collection, self._vector)
            made = _shape_of(info.config, collection, name)
            shape = self._shapes[collection] = replace(made, indexes=info.payload_schema)
        return shape

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        with refusing("qdrant", spec):
            if not self.verify(spec, deadline):
                self._create(spec, deadline)
                self.verify(spec, deadline)
            shape = self.shape(spec.name, deadline)
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
        shape = found("qdrant", spec, lambda: self.shape(spec.name, deadline, fresh=True))
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

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        aliases = self._aliases(deadline)
        if collection in aliases:
            raise missing(collection)
        self.shape(collection, deadline, fresh=True)
        if alias not in aliases and self._exists(alias, deadline):
            raise name_taken(alias)
        # One that is there is repointed, in one step.
        made = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
        self._call(
            deadline, lambda client, seconds: client.update_collection_aliases([made], timeout=seconds)
        )

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        return self._aliases(deadline).get(alias)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        for alias, target in self._aliases(deadline).items():
            if alias == collection:
                raise is_alias(alias, target)
            if target == collection:
                raise in_use(collection, alias)
        shape = unless_missing(lambda: self.shape(collection, deadline, fresh=True))
        if shape is not None and (not shape.spaces or self._holds_others(collection, deadline)):
            raise not_ours(collection)
        self._call(deadline, lambda client, seconds: client.delete_collection(collection, timeout=seconds))
        self._shapes.pop(collection, None)

    def count(self, collection: str, which: models.Filter, deadline: Deadline) -> int:
        """How many of its points meet that filter."""
        found = self._call(
            deadline, lambda client, seconds: client.count(collection, which, exact=True, timeout=seconds)
        )
        return int(found.count)

    def _aliases(self, deadline: Deadline) -> dict[str, str]:
        """What each alias leads to."""
        found = self._call(deadline, lambda client, _: client.get_aliases())
        return {one.alias_name: one.collection_name for one in found.aliases}

    def _holds_others(self, collection: str, deadline: Deadline) -> bool:
        """Whether there are points of somebody else in it."""
        return self.count(collection, models.Filter(must_not=[OURS]), deadline) > 0

    def _exists(self, collection: str, deadline: Deadline) -> bool:
        """Whether there is a collection of that name, ours or not."""
        return bool(self._call(deadline, lambda client, _: client.collection_exists(collection)))

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


def _shape_of(config: models.CollectionConfig, collection: str, vector: str | None) -> Shape:
    vectors = config.params.vectors
    params = vectors if isinstance(vectors, models.VectorParams) else (vectors or {}).get(vector or "")
    if params is None or (vector is not None and isinstance(vectors, models.VectorParams)):
        there = ", ".join(vectors) if isinstance(vectors, dict) else "one without a name"
        detail = f"collection {collection!r} has no vector {vector or 'without a name'}: there is {there}"
        raise AdapterError(Failure(Kind.OPERATOR, "vector_missing", detail))
    metric = next((name for name, of in METRICS.items() if of == params.distance), str(params.distance))
    return Shape(params.size, metric, vector, (config.metadata or {}).get(_SPACES, {}))
