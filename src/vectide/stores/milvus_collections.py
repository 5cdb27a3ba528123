"""Collections of the Milvus store and their aliases: how they are made, verified, led to and dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymilvus import MilvusClient

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, CollectionSpec, Deadline, StartupRefused
from vectide.stores.aliases import in_use, is_alias, missing, name_taken, not_ours, refused, unless_missing
from vectide.stores.milvus_calls import STRONG, Calls
from vectide.stores.milvus_points import RESERVED_FIELDS, filter_index_of, quoted, registry_schema, schema_of
from vectide.stores.refusals import check_made_for, check_metric, check_same, refusing

METRICS: Final = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}

#: The collection that says what the others are made for.
_REGISTRY: Final = "vectide_collections"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection is made for."""

    dimensions: int
    metric: str
    space: str
    tenant: str | None = None
    vector: str = "vector"


class Collections:
    """Those of one database."""

    def __init__(self, call: Calls) -> None:
        self._call = call
        self._shapes: dict[str, Shape] = {}
        #: Those whose points have vectors that are not ours.
        self._has_others: dict[str, bool] = {}

    def shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        """That of this collection, as it was found last, or as it is now."""
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            found = self._call(
                deadline,
                lambda client, limits: client.query(
                    _REGISTRY,
                    filter=f"name == {quoted(collection)}",
                    output_fields=["made_for"],
                    consistency_level=STRONG,
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

    def has_others(self, collection: str) -> bool:
        """Whether its points had vectors that are not ours when it was verified."""
        return self._has_others.get(collection, False)

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if not self.verify(spec, deadline):
            self._make(spec, deadline)
            self.verify(spec, deadline)
        if spec.filters:
            with refusing("milvus", spec):
                self._index(spec, deadline)

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
            there = self._exists(spec.name, deadline)
            try:
                shape = self.shape(spec.name, deadline, fresh=True)
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
        return there

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`."""
        if not _NAME.fullmatch(alias):
            raise refused("name", f"a milvus alias cannot be named {alias!r}: letters and digits can")
        self.shape(collection, deadline, fresh=True)
        if not self._exists(collection, deadline):
            raise missing(collection)
        leads = self.leads_to(alias, deadline) is not None
        if not leads and self._exists(alias, deadline):
            raise name_taken(alias)

        def point(client: Any, limits: Mapping[str, Any]) -> None:
            change = client.alter_alias if leads else client.create_alias
            change(collection, alias, **limits)

        self._call(deadline, point)

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        found = unless_missing(
            lambda: self._call(deadline, lambda client, limits: client.describe_alias(alias, **limits))
        )
        return None if found is None else str(found["collection_name"])

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        target = self.leads_to(collection, deadline)
        if target is not None:
            raise is_alias(collection, target)
        there = self._exists(collection, deadline)
        noted = unless_missing(lambda: self.shape(collection, deadline, fresh=True)) is not None
        if there and not noted:
            raise not_ours(collection)
        if there:
            told = self._call(
                deadline, lambda client, limits: client.list_aliases(collection_name=collection, **limits)
            )
            for alias in told["aliases"]:
                raise in_use(collection, alias)
            self._call(deadline, lambda client, limits: client.drop_collection(collection, **limits))
        if noted:
            which = f"name == {quoted(collection)}"
            self._call(deadline, lambda client, limits: client.delete(_REGISTRY, filter=which, **limits))
        self._shapes.pop(collection, None)

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
        absent = [index for index in map(filter_index_of, spec.filters) if index["index_name"] not in there]
        if absent:
            indexes = MilvusClient.prepare_index_params()
            for index in absent:
                indexes.add_index(**index)
            self._call(
                deadline,
                lambda client, limits: client.create_index(spec.name, indexes, sync=False, **limits),
            )

    def _exists(self, name: str, deadline: Deadline) -> bool:
        """Whether there is a collection or an alias of that name, ours or not."""
        return bool(self._call(deadline, lambda client, limits: client.has_collection(name, **limits)))

    def _create(
        self, name: str, schema: Any, metric: str, deadline: Deadline, vector: str = "vector"
    ) -> None:
        index = MilvusClient.prepare_index_params()
        index.add_index(vector, index_type="AUTOINDEX", metric_type=metric)
        try:
            self._call(
                deadline,
                lambda client, limits: client.create_collection(
                    name, schema=schema, index_params=index, consistency_level=STRONG, **limits
                ),
            )
        except AdapterError as error:
            if error.failure.cause != "conflict":  # it is there, or another replica makes it
                raise

    def _vector_count(self, collection: str, deadline: Deadline) -> int:
        told = self._call(deadline, lambda client, limits: client.describe_collection(collection, **limits))
        return sum(field["type"].name.endswith("_VECTOR") for field in told["fields"])
