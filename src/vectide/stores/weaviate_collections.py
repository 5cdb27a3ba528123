"""Collections of the Weaviate store: what they are made for, how they are made, verified and remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, CollectionSpec, Deadline, StartupRefused, Vector
from vectide.stores.http_calls import HttpCalls
from vectide.stores.refusals import check_made_for, check_metric, check_same, found, refusing
from vectide.stores.weaviate_filters import Typed, typed_in, typed_of
from vectide.stores.weaviate_points import PROPERTIES

METRICS: Final = {"cosine": "cosine", "dot": "dot", "l2": "l2-squared"}

_NAME: Final = re.compile(r"[A-Za-z][_0-9A-Za-z]{0,254}")
_VECTOR: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection is made for: its description says so. ``vector``: the one of its named vectors that
    is ours; ``others``: those that are not. ``properties``: their types; ``typed``: those for names that
    are filtered by."""

    name: str
    dimensions: int
    metric: str
    space: str
    vector: str | None = None
    others: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    typed: tuple[Typed, ...] = ()

    def vectors(self, ours: Vector, others: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """The vectors of an object, as they are written."""
        numbers = ours.tolist()
        if self.vector is not None:
            return {"vectors": {**others, self.vector: numbers}}
        return {"vector": numbers, "vectors": dict(others)} if others else {"vector": numbers}

    def vector_of(self, found: Mapping[str, Any]) -> Any:
        """Ours among those of an object."""
        return found.get("vector") if self.vector is None else (found.get("vectors") or {}).get(self.vector)


class Collections:
    """The collections of one server."""

    def __init__(self, http: HttpCalls) -> None:
        self._http = http
        self._shapes: dict[str, Shape] = {}

    def shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        """That of this collection, as it was found last, or as it is now."""
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            described = self._http.call("GET", f"schema/{class_of(collection)}", deadline)
            shape = self._shapes[collection] = _shape_of(described, collection)
        return shape

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if not self.verify(spec, deadline):
            with refusing("weaviate", spec):
                self._create(spec, deadline)
            if not self.verify(spec, deadline):
                raise StartupRefused("what answers at the URL of the weaviate store is no Weaviate server")
        there = self.shape(spec.name, deadline).properties
        missing = [one for one in map(typed_of, spec.filters) if one.path not in there]
        with refusing("weaviate", spec):
            for one in missing:
                self._make(f"schema/{class_of(spec.name)}/properties", one.definition(), deadline)
            self.shape(spec.name, deadline, fresh=bool(missing))

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        check_metric("weaviate", spec, METRICS)
        _check_name("collection", spec.name, _NAME)
        if spec.vector is not None:
            _check_name("vector", spec.vector, _VECTOR)
        shape = found("weaviate", spec, lambda: self.shape(spec.name, deadline, fresh=True))
        if shape is None:
            return False
        if shape.name != spec.name:
            raise StartupRefused(
                f"weaviate begins names with a capital: collection {spec.name!r} would be {shape.name!r}, "
                "which is there already"
            )
        check_made_for(spec, shape.dimensions, shape.metric, shape.space)
        check_same(spec, "vector", shape.vector, spec.vector)
        for one in map(typed_of, spec.filters):
            has = shape.properties.get(one.path, one.data_type)
            check_same(spec, f"property {one.path!r} of type", has, one.data_type)
        return True

    def _create(self, spec: CollectionSpec, deadline: Deadline) -> None:
        made_for = {
            "name": spec.name,
            "dimensions": spec.dimensions,
            "metric": spec.metric,
            "space": spec.space,
            **({} if spec.vector is None else {"vector": spec.vector}),
        }
        typed = [typed_of(one, everywhere=True) for one in spec.filters]
        index = {"vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": METRICS[spec.metric]}}
        vectors: dict[str, Any] = {"vectorizer": "none", **index}
        if spec.vector is not None:
            vectors = {"vectorConfig": {spec.vector: {"vectorizer": {"none": {}}, **index}}}
        body = {
            "class": class_of(spec.name),
            "description": json.dumps({"vectide": made_for}),
            "properties": [*PROPERTIES, *(one.definition() for one in typed)],
            **vectors,
        }
        self._make("schema", body, deadline)

    def _make(self, path: str, body: Mapping[str, Any], deadline: Deadline) -> None:
        try:
            self._http.call("POST", path, deadline, body)
        except AdapterError as error:
            if error.failure.cause != "conflict":  # another replica makes it
                raise


def class_of(collection: str) -> str:
    """The name as the server has it."""
    return collection[:1].upper() + collection[1:]


def _check_name(what: str, name: str, legal: re.Pattern[str]) -> None:
    if not legal.fullmatch(name):
        raise StartupRefused(
            f"a weaviate {what} cannot be named {name!r}: letters, digits and underscores can"
        )


def _shape_of(described: Mapping[str, Any], collection: str) -> Shape:
    try:
        made_for = json.loads(described["description"])["vectide"]
        others = sorted((described.get("vectorConfig") or {}).keys() - {made_for.get("vector")})
        properties = described.get("properties") or []
        types = {one["name"]: ", ".join(one["dataType"]) for one in properties}
        return Shape(**made_for, others=tuple(others), properties=types, typed=tuple(typed_in(properties)))
    except (ValueError, LookupError, TypeError):
        detail = f"collection {collection!r} is not one of this service: choose another name"
        raise AdapterError(Failure(Kind.OPERATOR, "not_ours", detail)) from None
