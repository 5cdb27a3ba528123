"""Weaviate, or its cloud, over REST and GraphQL.

A call is not atomic: points change one by one. Weaviate compares nothing when it writes, so what a point
holds is read before, and a writer that comes late by less than that is not noticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    MISSING,
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Effect,
    Hit,
    Mark,
    Outcome,
    Patch,
    Put,
    StartupRefused,
    Stored,
    Vector,
    Write,
)
from vectide.stores.aliases import (
    in_use,
    is_alias,
    missing,
    name_taken,
    not_ours,
    refused,
    through_aliases,
    unless_missing,
)
from vectide.stores.http_calls import HttpCalls
from vectide.stores.pointwise import (
    Changes,
    Held,
    changes_of,
    check_vectors,
    ids_to_read,
    matching,
    stamps_of,
)
from vectide.stores.refusals import check_made_for, check_same, refusing
from vectide.stores.weaviate_errors import failure_of_object, failure_of_query, read_error
from vectide.stores.weaviate_points import (
    PROPERTIES,
    READ,
    among,
    among_query,
    conditions,
    held_of,
    patched,
    quoted,
    whole,
)

CAPABILITIES: Final = Capabilities(
    kind="weaviate",
    max_batch_items=500,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    nested_metadata=True,
    null_metadata=True,
    max_integer=10**1000,  # metadata is JSON text
    nul_in_text=True,
    named_vectors=True,
    swap="alias",
)

METRICS: Final = {"cosine": "cosine", "dot": "dot", "l2": "l2-squared"}

#: The most points that one query may give, unless the server is told otherwise.
_MAX_RESULTS: Final = 10_000

#: Every replica confirms a write, so that a read of any of them sees it.
_EVERYWHERE: Final = "consistency_level=ALL"

_NAME: Final = re.compile(r"[A-Za-z][_0-9A-Za-z]{0,254}")
_VECTOR: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,229}")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection is made for: its description says so. ``vector``: the one of its named vectors that
    is ours; ``others``: those that are not."""

    name: str
    dimensions: int
    metric: str
    space: str
    vector: str | None = None
    others: tuple[str, ...] = ()


class WeaviateStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable.

    ``url``: of the server. ``api_key``: a key, or a token. ``ca_file``: certificates to trust instead of the
    public ones.
    """

    def __init__(self, url: str, *, api_key: str | None = None, ca_file: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base = f"{url.rstrip('/')}/v1"
        self._http = HttpCalls("weaviate", base, headers=headers, ca_file=ca_file, read_error=read_error)
        self._shapes: dict[str, Shape] = {}

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if not self.verify(spec, deadline):
            with refusing("weaviate", spec):
                self._create(spec, deadline)
            if not self.verify(spec, deadline):
                raise StartupRefused("what answers at the URL of the weaviate store is no Weaviate server")

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        if spec.metric not in METRICS:
            raise StartupRefused(f"weaviate has no metric {spec.metric!r}: choose {', '.join(METRICS)}")
        if not _NAME.fullmatch(spec.name):
            raise StartupRefused(
                f"a weaviate collection cannot be named {spec.name!r}: letters, digits and underscores can"
            )
        if spec.vector is not None and not _VECTOR.fullmatch(spec.vector):
            raise StartupRefused(
                f"a weaviate vector cannot be named {spec.vector!r}: letters, digits and underscores can"
            )
        with refusing("weaviate", spec):
            try:
                shape = self._shape(spec.name, deadline, fresh=True)
            except AdapterError as error:
                if error.failure.cause == "collection_missing":
                    return False
                raise
        if shape.name != spec.name:
            raise StartupRefused(
                f"weaviate begins names with a capital: collection {spec.name!r} would be {shape.name!r}, "
                "which is there already"
            )
        check_made_for(spec, shape.dimensions, shape.metric, shape.space)
        check_same(spec, "vector", shape.vector, spec.vector)
        return True

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change. (A write
        to a collection that is gone would make another one: the read notices.)"""
        shape = self._shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=True), deadline)
        changes = changes_of(writes, held)
        failed = self._put(collection, changes, deadline)
        gone = self._patch(collection, changes, deadline)
        self._remove(collection, changes, deadline)
        return [
            _outcome(write, outcome, failed, gone)
            for write, outcome in zip(writes, changes.outcomes, strict=True)
        ]

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        self._shape(collection, deadline)
        held = self._fetch(collection, list({row.head_id: None for row in rows}), deadline)
        return stamps_of(rows, held, values=values)

    @through_aliases
    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`, at most 10,000 candidates."""
        shape = self._shape(collection, deadline)
        collection = shape.name
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters)
        target = "" if shape.vector is None else f",targetVectors:[{quoted(shape.vector)}]"
        near = f"nearVector:{{vector:{json.dumps(vector.tolist())}{target}}}"

        def find(count: int) -> Sequence[Hit | None]:
            which = f"{near},limit:{min(count, _MAX_RESULTS)}" + (f",where:{wanted}" if wanted else "")
            found = self._get(collection, which, f"{READ} _additional{{id distance}}", deadline)
            return [_hit(one, shape.metric) for one in found]

        return matching(find, limit, filters)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`. The cursor is the last id."""
        shape = self._shape(collection, deadline)
        path = f"objects?class={_class(collection)}&limit={min(limit, _MAX_RESULTS)}&after={cursor or ''}"
        found = self._http.call("GET", path + ("&include=vector" if vectors else ""), deadline)["objects"]
        page = [held_of(one["id"], one["properties"], _vector_of(one, shape)).point for one in found]
        return page, page[-1].id if len(page) == min(limit, _MAX_RESULTS) else None

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        self._shape(collection, deadline)
        name = _class(collection)
        found = self._query(f"{{Aggregate{{{name}{{meta{{count}}}}}}}}", deadline)
        return int(found["Aggregate"][name][0]["meta"]["count"])

    # --- aliases ---

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`; the server has to be of version 1.32 or later."""
        if not _NAME.fullmatch(alias):
            raise refused("name", f"a weaviate alias cannot be named {alias!r}: letters and digits can")
        if self._shape(collection, deadline, fresh=True).name != collection:
            raise missing(collection)
        leads = self._alias(alias, deadline) is not None
        if not leads and unless_missing(lambda: self._http.call("GET", f"schema/{_class(alias)}", deadline)):
            raise name_taken(alias)
        verb, path = ("PUT", f"aliases/{_class(alias)}") if leads else ("POST", "aliases")
        self._http.call(verb, path, deadline, {"alias": _class(alias), "class": _class(collection)})

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        target = self._alias(alias, deadline)
        return None if target is None else self._shape(target, deadline, fresh=True).name

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        target = self._alias(collection, deadline)
        if target is not None:
            raise is_alias(collection, target)
        # A server before 1.32 has no aliases.
        path = f"aliases?class={_class(collection)}"
        for one in (unless_missing(lambda: self._http.call("GET", path, deadline)) or {}).get("aliases", ()):
            raise in_use(collection, one["alias"])
        shape = unless_missing(lambda: self._shape(collection, deadline, fresh=True))
        if shape is not None and shape.name != collection:
            raise not_ours(collection)
        self._http.call("DELETE", f"schema/{_class(collection)}", deadline)
        self._shapes.pop(collection, None)

    def _alias(self, alias: str, deadline: Deadline) -> str | None:
        """What it leads to, as the server has that name."""
        found = unless_missing(lambda: self._http.call("GET", f"aliases/{_class(alias)}", deadline))
        return None if found is None else str(found["class"])

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._http.close()

    # --- calls ---

    def _create(self, spec: CollectionSpec, deadline: Deadline) -> None:
        made_for = {
            "name": spec.name,
            "dimensions": spec.dimensions,
            "metric": spec.metric,
            "space": spec.space,
            **({} if spec.vector is None else {"vector": spec.vector}),
        }
        index = {"vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": METRICS[spec.metric]}}
        vectors: dict[str, Any] = {"vectorizer": "none", **index}
        if spec.vector is not None:
            vectors = {"vectorConfig": {spec.vector: {"vectorizer": {"none": {}}, **index}}}
        body = {
            "class": _class(spec.name),
            "description": json.dumps({"vectide": made_for}),
            "properties": list(PROPERTIES),
            **vectors,
        }
        try:
            self._http.call("POST", "schema", deadline, body)
        except AdapterError as error:
            if error.failure.cause != "conflict":  # another replica makes it
                raise

    def _shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            found = self._http.call("GET", f"schema/{_class(collection)}", deadline)
            try:
                made_for = json.loads(found["description"])["vectide"]
                others = sorted((found.get("vectorConfig") or {}).keys() - {made_for.get("vector")})
                shape = Shape(**made_for, others=tuple(others))
            except (ValueError, LookupError, TypeError):
                detail = f"collection {collection!r} is not one of this service: choose another name"
                raise AdapterError(Failure(Kind.OPERATOR, "not_ours", detail)) from None
            self._shapes[shape.name] = shape  # the name may be an alias, which leads elsewhere next time
        return shape

    def _query(self, query: str, deadline: Deadline) -> Any:
        answer = self._http.call("POST", "graphql", deadline, {"query": query})
        if answer.get("errors"):
            raise AdapterError(failure_of_query(answer["errors"]))
        return answer["data"]

    def _get(self, collection: str, which: str, fields: str, deadline: Deadline) -> list[dict[str, Any]]:
        name = _class(collection)
        found: list[dict[str, Any]] = self._query(f"{{Get{{{name}({which}){{{fields}}}}}}}", deadline)["Get"][
            name
        ]
        return found

    def _fetch(self, collection: str, ids: Sequence[str], deadline: Deadline) -> dict[str, Held]:
        if not ids:
            return {}
        which = f"where:{among_query('id', ids)},limit:{len(ids)}"
        found = self._get(collection, which, f"{READ} _additional{{id}}", deadline)
        return {one["_additional"]["id"]: held_of(one["_additional"]["id"], one) for one in found}

    def _put(self, collection: str, changes: Changes, deadline: Deadline) -> dict[str, Failure]:
        """Write the whole points; which of them failed, by id."""
        if not changes.puts:
            return {}
        shape = self._shape(collection, deadline)
        others = self._others(collection, [held.point.id for held, _ in changes.puts], shape, deadline)
        made = [
            {
                "class": _class(collection),
                "id": held.point.id,
                "properties": whole(held),
                **_vectors(vector, shape, others.get(held.point.id, {})),
            }
            for held, vector in changes.puts
        ]
        answered = self._http.call("POST", f"batch/objects?{_EVERYWHERE}", deadline, {"objects": made})
        failures = ((one["id"], failure_of_object(one)) for one in answered)
        failed = {id_: failure for id_, failure in failures if failure is not None}
        missing = {held.point.id for held, _ in changes.puts} - {one["id"] for one in answered}
        return failed | dict.fromkeys(missing, Failure(Kind.TRANSIENT, "answer", "an object without answer"))

    def _others(
        self, collection: str, ids: Sequence[str], shape: Shape, deadline: Deadline
    ) -> dict[str, dict[str, Any]]:
        """The vectors of points that are not ours, by id: a point is written with them, or loses them."""
        if not shape.others:
            return {}
        which = f"where:{among_query('id', ids)},limit:{len(ids)}"
        fields = f"_additional{{id vectors{{{' '.join(shape.others)}}}}}"
        found = [one["_additional"] for one in self._get(collection, which, fields, deadline)]
        return {
            one["id"]: {name: vector for name, vector in one["vectors"].items() if vector} for one in found
        }

    def _patch(self, collection: str, changes: Changes, deadline: Deadline) -> set[str]:
        """Change points, one call for each; which of them are gone."""
        gone = set()
        for held in changes.patches:
            id_, name = held.point.id, _class(collection)
            body = {"class": name, "id": id_, "properties": patched(held)}
            try:
                self._http.call("PATCH", f"objects/{name}/{id_}?{_EVERYWHERE}", deadline, body)
            except AdapterError as error:
                if error.failure.cause != "collection_missing":
                    raise
                gone.add(id_)
        return gone

    def _remove(self, collection: str, changes: Changes, deadline: Deadline) -> None:
        stays = {row_id: stay for row_id, stay, _ in changes.removals}
        whole_rows = [row_id for row_id, stay in stays.items() if not stay]
        if whole_rows:
            self._delete(collection, among("row_id", whole_rows), deadline)
        trimmed = [row_id for row_id, stay in stays.items() if stay]
        if trimmed:
            kept = {id_ for row_id in trimmed for id_ in stays[row_id]}
            which = f"where:{among_query('row_id', trimmed)},limit:{_MAX_RESULTS}"
            found = self._get(collection, which, "_additional{id}", deadline)
            surplus = sorted({one["_additional"]["id"] for one in found} - kept)
            if surplus:
                self._delete(collection, among("id", surplus), deadline)

    def _delete(self, collection: str, where: Mapping[str, Any], deadline: Deadline) -> None:
        """All that match; one call takes away no more than a query may give."""
        body = {"match": {"class": _class(collection), "where": where}}
        while True:
            done = self._http.call("DELETE", f"batch/objects?{_EVERYWHERE}", deadline, body)["results"]
            for one in done["objects"] or ():
                failure = failure_of_object(one)
                if failure is not None:
                    raise AdapterError(failure)
            if done["successful"] >= done["matches"]:
                return


create = WeaviateStore


def _class(collection: str) -> str:
    """The name as the server has it."""
    return collection[:1].upper() + collection[1:]


def _vectors(vector: Vector, shape: Shape, others: Mapping[str, Any]) -> dict[str, Any]:
    """The vectors of an object that is written whole."""
    if shape.vector is None and not others:
        return {"vector": vector.tolist()}
    if shape.vector is None:
        return {"vector": vector.tolist(), "vectors": dict(others)}
    return {"vectors": {**others, shape.vector: vector.tolist()}}


def _vector_of(found: Mapping[str, Any], shape: Shape) -> Any:
    """Our vector among those of an object."""
    if shape.vector is None:
        return found.get("vector")
    return (found.get("vectors") or {}).get(shape.vector)


def _outcome(write: Write, outcome: Outcome, failed: Mapping[str, Failure], gone: set[str]) -> Outcome:
    match write:
        case Put(point) if point.id in failed:
            return Outcome(Effect.FAILED, failed[point.id])
        case Patch(row) | Mark(row) if row.head_id in gone:
            return MISSING
        case _:
            return outcome


def _hit(found: Mapping[str, Any], metric: str) -> Hit:
    point = held_of(found["_additional"]["id"], found).point
    distance = found["_additional"]["distance"]
    match metric:
        case "l2":
            score = -float(np.sqrt(max(0.0, distance)))
        case "dot":
            score = -distance
        case _:
            score = 1.0 - distance
    return Hit(point.row, point.chunk, score, point.text, point.metadata)
