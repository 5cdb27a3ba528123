"""Weaviate, or its cloud, over REST and GraphQL.

A call is not atomic: points change one by one. Weaviate compares nothing when it writes, so what a point
holds is read before, and a writer that comes late by less than that is not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.model import Row, Stamp, Value
from vectide.ports import (
    APPLIED,
    MISSING,
    AdapterError,
    Capabilities,
    CollectionSpec,
    Deadline,
    Effect,
    Hit,
    Outcome,
    Put,
    Stored,
    Vector,
    Write,
)
from vectide.stores.aliases import through_aliases
from vectide.stores.http_calls import HttpCalls
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
from vectide.stores.weaviate_aliases import Aliases
from vectide.stores.weaviate_collections import Collections, Shape, class_of
from vectide.stores.weaviate_errors import failure_of_object, failure_of_query, read_error
from vectide.stores.weaviate_filters import among, among_query, conditions, quoted
from vectide.stores.weaviate_points import READ, held_of, patched, whole

CAPABILITIES: Final = Capabilities(
    kind="weaviate",
    max_batch_items=500,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    update_only=True,
    nested_metadata=True,
    null_metadata=True,
    max_integer=10**1000,  # metadata is JSON text
    nul_in_text=True,
    filter_indexes=True,
    named_vectors=True,
    swap="alias",
)

#: The most points that one query may give, unless the server is told otherwise.
_MAX_RESULTS: Final = 10_000

#: Every replica confirms a write, so that a read of any of them sees it.
_EVERYWHERE: Final = "consistency_level=ALL"

#: What the server says of an object that is not there, or not any more.
_GONE: Final = frozenset({"collection_missing", "object_missing"})

#: Calls for single points that run at the same time.
_AT_ONCE: Final = 8


class WeaviateStore:
    """A :class:`~vectide.ports.Store`, searchable, scannable and swappable.

    ``url``: of the server. ``api_key``: a key, or a token. ``ca_file``: certificates to trust instead of the
    public ones.
    """

    def __init__(self, url: str, *, api_key: str | None = None, ca_file: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base = f"{url.rstrip('/')}/v1"
        self._http = HttpCalls("weaviate", base, headers=headers, ca_file=ca_file, read_error=read_error)
        self._collections = Collections(self._http)
        self._aliases = Aliases(self._http, self._collections)

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        self._collections.prepare(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        return self._collections.verify(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change. (A write
        to a collection that is gone would make another one: the read notices.)"""
        shape = self._collections.shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=True), deadline)
        changes = changes_of(writes, held)
        told = self._put(collection, changes, deadline) | self._change(collection, changes, deadline)
        self._remove(collection, changes, deadline)
        return changes.outcomes_of(writes, told)

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
        """As :meth:`vectide.ports.Searchable.search`, at most 10,000 candidates."""
        shape = self._collections.shape(collection, deadline)
        collection = shape.name  # where an alias leads
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters, shape.typed)
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
        shape = self._collections.shape(collection, deadline)
        path = f"objects?class={class_of(collection)}&limit={min(limit, _MAX_RESULTS)}&after={cursor or ''}"
        found = self._http.call("GET", path + ("&include=vector" if vectors else ""), deadline)["objects"]
        page = [held_of(one["id"], one["properties"], shape.vector_of(one)).point for one in found]
        return page, page[-1].id if len(page) == min(limit, _MAX_RESULTS) else None

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        self._collections.shape(collection, deadline)
        name = class_of(collection)
        found = self._query(f"{{Aggregate{{{name}{{meta{{count}}}}}}}}", deadline)
        return int(found["Aggregate"][name][0]["meta"]["count"])

    def swap(self, alias: str, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Swappable.swap`; the server has to be of version 1.32 or later."""
        self._aliases.swap(alias, collection, deadline)

    def leads_to(self, alias: str, deadline: Deadline) -> str | None:
        """As :meth:`vectide.ports.Swappable.leads_to`."""
        return self._aliases.leads_to(alias, deadline)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        self._aliases.check_unused(collection, deadline)
        self._collections.drop(collection, deadline)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._http.close()

    # --- calls ---

    def _query(self, query: str, deadline: Deadline) -> Any:
        answer = self._http.call("POST", "graphql", deadline, {"query": query})
        if answer.get("errors"):
            raise AdapterError(failure_of_query(answer["errors"]))
        return answer["data"]

    def _get(self, collection: str, which: str, fields: str, deadline: Deadline) -> list[dict[str, Any]]:
        name = class_of(collection)
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

    def _put(self, collection: str, changes: Changes, deadline: Deadline) -> dict[str, Outcome]:
        """Write whole points; what became of those that failed, by id."""
        puts = [one for one in changes.puts if one[0].point.id not in changes.updates]
        if not puts:
            return {}
        shape = self._collections.shape(collection, deadline)
        ids = [held.point.id for held, _ in puts]
        others = self._others(collection, ids, shape, deadline)
        made = [
            _object(collection, held, whole(held, shape.typed))
            | shape.vectors(vector, others.get(held.point.id, {}))
            for held, vector in puts
        ]
        answered = self._http.call("POST", f"batch/objects?{_EVERYWHERE}", deadline, {"objects": made})
        unknown = dict.fromkeys(ids, Failure(Kind.TRANSIENT, "answer", "an object without answer"))
        failures = unknown | {one["id"]: failure_of_object(one) for one in answered}
        return {id_: Outcome(Effect.FAILED, why) for id_, why in failures.items() if why is not None}

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

    def _change(self, collection: str, changes: Changes, deadline: Deadline) -> dict[str, Outcome]:
        """Change points that are there, a call for each; what became of those that failed or had gone, by
        id. The server looks for the point while it is locked, and keeps the vectors that are not sent."""
        shape = self._collections.shape(collection, deadline)
        bodies = [_object(collection, held, patched(held, shape.typed)) for held in changes.patches]
        bodies += [
            _object(collection, held, whole(held, shape.typed)) | shape.vectors(vector)
            for held, vector in changes.puts
            if held.point.id in changes.updates
        ]

        def change(body: Mapping[str, Any]) -> Outcome:
            path = f"objects/{body['class']}/{body['id']}?{_EVERYWHERE}"
            try:
                self._http.call("PATCH", path, deadline, body)
            except AdapterError as error:
                if error.failure.cause in _GONE:
                    return MISSING
                if error.failure.kind is Kind.REFUSED:
                    return Outcome(Effect.FAILED, error.failure)
                raise
            return APPLIED

        with ThreadPoolExecutor(_AT_ONCE) as pool:  # which has no threads before it needs them
            outcomes = zip(bodies, pool.map(change, bodies), strict=True)
            return {body["id"]: outcome for body, outcome in outcomes if outcome is not APPLIED}

    def _remove(self, collection: str, changes: Changes, deadline: Deadline) -> None:
        """All points of the rows but those that stay; one call takes away no more than a query may give."""
        stays = {row_id: stay for row_id, stay, _ in changes.removals}
        if not stays:
            return
        where = among("row_id", stays)
        kept = [id_ for stay in stays.values() for id_ in stay]
        if kept:
            where = {"operator": "And", "operands": [where, among("id", kept, "ContainsNone")]}
        body = {"match": {"class": class_of(collection), "where": where}}
        while True:
            done = self._http.call("DELETE", f"batch/objects?{_EVERYWHERE}", deadline, body)["results"]
            for one in done["objects"] or ():
                failure = failure_of_object(one)
                if failure is not None:
                    raise AdapterError(failure)
            if done["successful"] >= done["matches"]:
                return


create = WeaviateStore


def _object(collection: str, held: Held, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"class": class_of(collection), "id": held.point.id, "properties": properties}


def _hit(found: Mapping[str, Any], metric: str) -> Hit:
    held, distance = held_of(found["_additional"]["id"], found), found["_additional"]["distance"]
    match metric:
        case "l2":
            score = -float(np.sqrt(max(0.0, distance)))
        case "dot":
            score = -distance
        case _:
            score = 1.0 - distance
    return hit_of(held, score)
