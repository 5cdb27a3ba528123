"""Chroma, over its HTTP interface (its server, or its cloud).

A call is not atomic: points change one by one. Chroma compares nothing when it writes, so what a point holds
is read before, and a writer that comes late by less than that is not noticed.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import numpy as np

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
from vectide.stores import chroma_http
from vectide.stores.chroma_points import check_names, conditions, held_of, metadata_of, replaced
from vectide.stores.ordered_scans import scan_ranges
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

#: Records in one call: what its cloud takes.
_PAGE: Final = 300

CAPABILITIES: Final = Capabilities(
    kind="chroma",
    max_batch_items=_PAGE,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    update_only=True,
    nested_metadata=False,
    null_metadata=False,
    uniform_lists=True,
    max_integer=2**63 - 1,
    nul_in_text=True,
)

METRICS: Final = {"cosine": "cosine", "dot": "ip", "l2": "l2"}

#: The keys of the collection's metadata that say what it is made for.
_SPACE, _METRIC, _DIMENSIONS = "vectide_space", "vectide_metric", "vectide_dimensions"

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the server says about a collection; ``space`` None: it is not one of ours."""

    id: str
    dimensions: int
    metric: str
    space: str | None


class ChromaStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

    ``url``: of the server. ``api_key``: a token, of Chroma's cloud or of a proxy in front of the server.
    ``ca_file``: certificates to trust instead of the public ones. ``tenant``, ``database``: where the
    collections are.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: str | None = None,
        tenant: str = "default_tenant",
        database: str = "default_database",
    ) -> None:
        self._http = chroma_http.calls(
            url, tenant=tenant, database=database, api_key=api_key, ca_file=ca_file
        )
        self._shapes: dict[str, Shape] = {}

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`."""
        if not self.verify(spec, deadline):
            with refusing("chroma", spec):
                self._create(spec, deadline)
            if not self.verify(spec, deadline):
                raise StartupRefused("what answers at the URL of the chroma store is no Chroma server")

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`."""
        check_metric("chroma", spec, METRICS)
        if not _NAME.fullmatch(spec.name):
            raise StartupRefused(
                f"a chroma collection cannot be named {spec.name!r}: 3 to 512 letters, digits, dots, hyphens "
                "and underscores can"
            )
        shape = found("chroma", spec, lambda: self._shape(spec.name, deadline, fresh=True))
        if shape is None:
            return False
        _check(shape, spec)
        return True

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`: what is there is read first, then the points change."""
        shape = self._shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        held = self._fetch(collection, ids_to_read(writes, puts=True), deadline)
        changes = changes_of(writes, held)
        check_names([*(one for one, _ in changes.puts), *changes.patches])
        updates = [one for one in changes.puts if one[0].point.id in changes.updates]
        inserts = [one for one in changes.puts if one[0].point.id not in changes.updates]
        for verb, puts in (("update", updates), ("upsert", inserts)):
            if puts:
                body = _documents([one for one, _ in puts], held)
                body["embeddings"] = [_encoded(vector) for _, vector in puts]
                self._on(collection, verb, deadline, body)
        if changes.patches:
            self._on(collection, "update", deadline, _documents(changes.patches, held))
        self._remove(collection, changes, deadline)
        changes.found(self._fetch(collection, list(changes.updates), deadline))
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
        """As :meth:`vectide.ports.Searchable.search`. Filters on objects, nulls and empty lists compare what
        became of such a value when it was written."""
        shape = self._shape(collection, deadline)
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters, CAPABILITIES)
        if wanted is None:
            return []
        legal, where = wanted

        def find(count: int) -> Sequence[Hit | None]:
            body = {"query_embeddings": [vector.tolist()], "n_results": count, "where": where}
            body["include"] = ["metadatas", "documents", "distances"]
            found = self._on(collection, "query", deadline, body)
            columns = (found["ids"][0], found["metadatas"][0], found["documents"][0], found["distances"][0])
            return [_hit(*one, shape.metric) for one in zip(*columns, strict=True)]

        return matching(find, limit, legal)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`, over ranges of ids."""

        def find(low: int, high: int, most: int) -> list[Stored]:
            where = {"$and": [{"_vectide_order": {"$gte": low}}, {"_vectide_order": {"$lt": high}}]}
            include = ["metadatas", "documents", *(["embeddings"] if vectors else [])]
            found = self._on(collection, "get", deadline, {"where": where, "limit": most, "include": include})
            embeddings = found["embeddings"] if vectors else [None] * len(found["ids"])
            columns = zip(found["ids"], found["metadatas"], found["documents"], embeddings, strict=True)
            held = [held_of(id_, of, text, numbers) for id_, of, text, numbers in columns]
            return [one.point for one in held if one is not None]

        return scan_ranges(cursor, limit, lambda: self.count(collection, deadline), find)

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection."""
        return int(self._on(collection, "count", deadline))

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._http.close()

    # --- calls ---

    def _create(self, spec: CollectionSpec, deadline: Deadline) -> None:
        made = {_SPACE: spec.space, _METRIC: spec.metric, _DIMENSIONS: spec.dimensions}
        configuration = {"hnsw": {"space": METRICS[spec.metric]}}
        body = {"name": spec.name, "metadata": made, "configuration": configuration, "get_or_create": True}
        self._http.call("POST", "collections", deadline, body)

    def _shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            found = self._http.call("GET", f"collections/{quote(collection, safe='')}", deadline)
            made = found.get("metadata") or {}
            space = made.get(_SPACE)
            shape = Shape(found["id"], made.get(_DIMENSIONS, 0), made.get(_METRIC, ""), space)
            self._shapes[collection] = shape
        return shape

    def _on(self, collection: str, verb: str, deadline: Deadline, body: Any = None) -> Any:
        """A call about a collection, which the server knows by an id that is gone when it is made anew."""
        try:
            path = f"collections/{self._shape(collection, deadline).id}/{verb}"
            return self._http.call("GET" if body is None else "POST", path, deadline, body)
        except AdapterError as error:
            if error.failure.cause == "collection_missing":
                self._shapes.pop(collection, None)
            raise

    def _fetch(self, collection: str, ids: Sequence[str], deadline: Deadline) -> dict[str, Held]:
        if not ids:
            return {}
        body = {"ids": list(ids), "include": ["metadatas", "documents"]}
        found = self._on(collection, "get", deadline, body)
        columns = zip(found["ids"], found["metadatas"], found["documents"], strict=True)
        held = (held_of(id_, metadata, text) for id_, metadata, text in columns)
        return {one.point.id: one for one in held if one is not None}

    def _remove(self, collection: str, changes: Changes, deadline: Deadline) -> None:
        stays = {row_id: stay for row_id, stay, _ in changes.removals}
        if not stays:
            return
        body = {"where": {"_vectide_row": {"$in": sorted(stays)}}, "include": ["metadatas"], "limit": _PAGE}
        gone: list[str] = []
        for page in itertools.count():
            found = self._on(collection, "get", deadline, {**body, "offset": page * _PAGE})
            points = zip(found["ids"], found["metadatas"], strict=True)
            gone += [id_ for id_, of in points if id_ not in stays[of["_vectide_row"]]]
            if len(found["ids"]) < _PAGE:
                break
        for start in range(0, len(gone), _PAGE):
            self._on(collection, "delete", deadline, {"ids": gone[start : start + _PAGE]})


create = ChromaStore


def _check(shape: Shape, spec: CollectionSpec) -> None:
    if shape.space is None:
        raise StartupRefused(
            f"there is a collection {spec.name!r} that is not one of this service: choose another name"
        )
    check_made_for(spec, shape.dimensions, shape.metric, shape.space)


def _documents(points: Sequence[Held], held: Mapping[str, Held]) -> dict[str, Any]:
    """Chroma merges metadata: names that shall go are sent as null, a text that shall go as an empty one."""
    return {
        "ids": [one.point.id for one in points],
        "metadatas": [replaced(metadata_of(one), held.get(one.point.id)) for one in points],
        "documents": [one.point.text or "" for one in points],
    }


def _encoded(vector: Vector) -> str:
    """As base64, which the server takes too: a quarter of the bytes."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _hit(id_: str, metadata: Any, text: Any, distance: float, metric: str) -> Hit | None:
    held = held_of(id_, metadata, text)
    if held is None:
        return None
    score = -float(np.sqrt(max(0.0, distance))) if metric == "l2" else 1.0 - distance
    return hit_of(held, score)
