"""Pinecone: a collection is an index, for documents or for vectors with metadata.

What is written is seen later, by a while that nobody promises. A write counts once a look-up of the same
points shows it (:meth:`PineconeStore._see`). Pinecone compares nothing when it writes, so that a writer who
comes late is not noticed.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    Remove,
    StartupRefused,
    Stored,
    Trim,
    Vector,
    Write,
)
from vectide.stores.aliases import not_ours, unless_missing
from vectide.stores.http_calls import HttpCalls, Told
from vectide.stores.pinecone_indexes import DocumentIndex, Index, Record, VectorIndex
from vectide.stores.pinecone_points import DIGEST, ROW, check, conditions, fields_of, held_of
from vectide.stores.pointwise import (
    Changes,
    Held,
    changes_of,
    check_vectors,
    ids_to_read,
    matching,
    stamps_of,
)
from vectide.stores.refusals import check_made_for, refusing

CAPABILITIES: Final = Capabilities(
    kind="pinecone",
    max_batch_items=1000,
    atomic_calls=False,
    read_your_writes=True,
    conditional_writes=False,
    nested_metadata=False,
    null_metadata=False,
    uniform_lists=True,
    text_lists=True,
    max_integer=2**53,
)

METRICS: Final = {"cosine": "cosine", "dot": "dotproduct", "l2": "euclidean"}

#: Of the interface.
_VERSION: Final = "2026-07"

#: The tag that says for which model an index is.
_SPACE: Final = "vectide_space"

#: The vector of the documents in an index of our making.
_VECTOR: Final = "vector"

#: How Pinecone calls the vector of an index that is for vectors only.
_OF_VECTORS: Final = "_values"

#: The most points that one search may give.
_MAX_RESULTS: Final = 10_000

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")

#: How long to wait before looking again whether something can be seen (s): at first, and at most.
_LOOK_AGAIN_S: Final = (0.02, 1.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """An index, and what it is made for; ``space`` None: nobody has said so."""

    index: Index
    dimensions: int
    metric: str
    space: str | None


class PineconeStore:
    """A :class:`~vectide.ports.Store`, searchable and scannable.

    ``api_key``: of the project. ``url``: of its control plane. ``ca_file``: certificates to trust instead of
    the public ones.
    """

    def __init__(
        self, api_key: str, *, url: str = "https://api.pinecone.io", ca_file: str | None = None
    ) -> None:
        self._trusted = ca_file
        self._headers = {"Api-Key": api_key, "X-Pinecone-Api-Version": _VERSION}
        self._control = self._calls(url)
        self._shapes: dict[str, Shape] = {}
        self._data: dict[str, HttpCalls] = {}  # by host
        self._opening = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. An index that is there and has no mark gets one."""
        if not self.verify(spec, deadline):
            with refusing("pinecone", spec):
                self._create(spec, deadline)
            self.verify(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`: an index without a mark counts as missing."""
        if spec.metric not in METRICS:
            raise StartupRefused(f"pinecone has no metric {spec.metric!r}: choose {', '.join(METRICS)}")
        if not _NAME.fullmatch(spec.name):
            raise StartupRefused(
                f"a pinecone index cannot be named {spec.name!r}: up to 45 lower-case letters, digits and "
                "hyphens can"
            )
        with refusing("pinecone", spec):
            try:
                shape = self._shape(spec.name, deadline, fresh=True)
            except AdapterError as error:
                if error.failure.cause == "collection_missing":
                    return False
                raise
        space = _tag(spec.space)
        check_made_for(
            CollectionSpec(spec.name, spec.dimensions, space, spec.metric),
            shape.dimensions,
            shape.metric,
            space if shape.space is None else shape.space,
        )
        return shape.space is not None

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        """As :meth:`vectide.ports.Store.write`. Returns when a look-up shows what was written."""
        shape = self._shape(collection, deadline)
        check_vectors((write.vector for write in writes if isinstance(write, Put)), shape.dimensions)
        index = shape.index
        old = {one.id: one for one in index.fetch(ids_to_read(writes, puts=False), deadline)}
        changes = changes_of(writes, dict(_held(old.values())))
        whole = [held for held, _ in changes.puts]
        check([*whole, *changes.patches], index.field)
        index.put(changes.puts, deadline)
        index.patch(changes.patches, old, deadline)
        removed = self._remove(index, writes, changes, deadline)
        digests: dict[str, str | None] = dict.fromkeys(removed)
        digests |= {held.point.id: fields_of(held)[DIGEST] for held in [*changes.patches, *whole]}
        self._see(index, digests, deadline)
        return changes.outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        """As :meth:`vectide.ports.Store.stamps`."""
        index = self._shape(collection, deadline).index
        ids = list({row.head_id: None for row in rows})
        return stamps_of(rows, dict(_held(index.fetch(ids, deadline, brief=not values))), values=values)

    def search(
        self, collection: str, vector: Vector, limit: int, deadline: Deadline, filters: Mapping[str, Value]
    ) -> Sequence[Hit]:
        """As :meth:`vectide.ports.Searchable.search`, at most 10,000 candidates. Filters on objects, nulls
        and lists compare what became of such a value when it was written."""
        shape = self._shape(collection, deadline)
        check_vectors([vector], shape.dimensions)
        wanted = conditions(filters, CAPABILITIES)
        if wanted is None:
            return []
        legal, where = wanted

        def find(count: int) -> Sequence[Hit | None]:
            found = shape.index.search(vector, min(count, _MAX_RESULTS), where, deadline)
            return [_hit(one, shape.metric) for one in found]

        return matching(find, limit, legal)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        """As :meth:`vectide.ports.Scannable.scan`."""
        index = self._shape(collection, deadline).index
        ids, following = index.page(cursor, limit, deadline)
        while following is not None and len(ids) < limit:
            more, following = index.page(following, limit - len(ids), deadline)
            ids += more
        held = dict(_held(index.fetch(ids, deadline), vectors=vectors))
        return [held[id_].point for id_ in ids if id_ in held], following

    def count(self, collection: str, deadline: Deadline) -> int:
        """The number of points in the collection, a while ago."""
        return self._shape(collection, deadline).index.count(deadline)

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`. Returns when the index is gone, which takes a while."""
        path, asked, (pause_s, most_s) = f"indexes/{collection}", False, _LOOK_AGAIN_S
        while True:
            described = unless_missing(lambda: self._control.call("GET", path, deadline))
            if described is None:
                break
            if not asked:
                self._check_ours(described, deadline)
                unless_missing(lambda: self._control.call("DELETE", path, deadline))
                asked = True
            elif deadline.remaining_s() <= pause_s:
                raise AdapterError(
                    Failure(Kind.TRANSIENT, "index_ending", f"index {collection!r} is still there")
                )
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, most_s)
        self._shapes.pop(collection, None)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        with self._opening:
            for calls in (self._control, *self._data.values()):
                calls.close()

    # --- calls ---

    def _check_ours(self, described: Mapping[str, Any], deadline: Deadline) -> None:
        """Refuse to drop an index without our mark, or with namespaces that we know nothing about."""
        marked, host = (described.get("tags") or {}).get(_SPACE), described.get("host")
        stats = self._calls_to(host).call("POST", "describe_index_stats", deadline, {}) if host else {}
        namespaces = stats.get("namespaces") or {}
        others = [name for name in namespaces if name not in ("", "__default__")]
        if not marked or any(namespaces[name]["vectorCount"] for name in others):
            raise not_ours(described["name"])

    def _see(self, index: Index, digests: Mapping[str, str | None], deadline: Deadline) -> None:
        """Wait until look-ups show these points with these digests (None: do not show them)."""
        unseen = dict(digests)
        pause_s, most_s = _LOOK_AGAIN_S
        while True:
            shown = {
                one.id: one.fields.get(DIGEST) for one in index.fetch(list(unseen), deadline, brief=True)
            }
            unseen = {id_: digest for id_, digest in unseen.items() if shown.get(id_) != digest}
            if not unseen:
                return
            if deadline.remaining_s() <= pause_s:
                detail = f"{len(unseen)} of {len(digests)} points that were written cannot be seen yet"
                raise AdapterError(Failure(Kind.TRANSIENT, "not_visible", detail))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)

    def _remove(
        self, index: Index, writes: Sequence[Write], changes: Changes, deadline: Deadline
    ) -> list[str]:
        """Remove what is named and what is found; the ids."""
        stays = {row_id: stay for row_id, stay, _ in changes.removals}
        if not stays:
            return []
        found = {one.id: one.fields[ROW] for one in index.of_rows(list(stays), deadline)}
        named = {
            id_: write.row.head_id
            for write in writes
            if isinstance(write, Remove | Trim) and write.row.head_id in stays
            for id_ in (*write.ids, *([write.row.head_id] if isinstance(write, Remove) else ()))
        }
        unknown = [id_ for id_ in named if id_ not in found]
        found |= {one.id: one.fields.get(ROW) for one in index.fetch(unknown, deadline, brief=True)}
        gone = [id_ for id_, row_id in found.items() if row_id in stays and id_ not in stays[row_id]]
        index.delete(gone, deadline)
        return gone

    def _create(self, spec: CollectionSpec, deadline: Deadline) -> None:
        tags = {_SPACE: _tag(spec.space)}
        if spec.name in self._shapes:  # it is there, without a mark
            self._control.call("PATCH", f"indexes/{spec.name}", deadline, {"tags": tags})
            return
        field = {"type": "dense_vector", "dimension": spec.dimensions, "metric": METRICS[spec.metric]}
        body = {"name": spec.name, "schema": {"fields": {_VECTOR: field}}, "tags": tags}
        try:
            self._control.call("POST", "indexes", deadline, body)
        except AdapterError as error:
            if error.failure.cause != "conflict":  # another replica makes it
                raise
        while True:
            try:
                self._shape(spec.name, deadline, fresh=True)
                return
            except AdapterError as error:
                if error.failure.cause != "index_starting" or deadline.remaining_s() < _LOOK_AGAIN_S[1]:
                    raise
            time.sleep(_LOOK_AGAIN_S[1])

    def _shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            self._shapes.pop(collection, None)
            described = self._control.call("GET", f"indexes/{collection}", deadline)
            shape = self._shapes[collection] = self._shape_of(described)
        return shape

    def _shape_of(self, described: Mapping[str, Any]) -> Shape:
        name, status = described["name"], described["status"]
        if not status["ready"] or not described.get("host"):
            detail = f"index {name!r} is {status['state']}"
            raise AdapterError(Failure(Kind.TRANSIENT, "index_starting", detail))
        fields = described["schema"]["fields"]
        vectors = {name: made for name, made in fields.items() if made.get("type") == "dense_vector"}
        if len(vectors) != 1:
            detail = f"index {name!r} has {len(vectors)} dense vectors where one is needed"
            raise AdapterError(Failure(Kind.OPERATOR, "vector_missing", detail))
        [(field, made)] = vectors.items()
        http = self._calls_to(described["host"])
        index: Index = VectorIndex(http) if field == _OF_VECTORS else DocumentIndex(http, field)
        metric = next((ours for ours, theirs in METRICS.items() if theirs == made["metric"]), made["metric"])
        return Shape(index, made["dimension"], metric, (described.get("tags") or {}).get(_SPACE))

    def _calls_to(self, host: str) -> HttpCalls:
        with self._opening:
            if host not in self._data:
                self._data[host] = self._calls(host if "://" in host else f"https://{host}")
            return self._data[host]

    def _calls(self, url: str) -> HttpCalls:
        return HttpCalls("pinecone", url, headers=self._headers, ca_file=self._trusted, read_error=read_error)


create = PineconeStore


def read_error(told: Any) -> Told:
    """What the document of an error says, in the shapes of both planes."""
    error = told.get("error", told)
    return Told(str(error.get("code", "")), str(error["message"]))


def _tag(space: str) -> str:
    """The space as a tag can hold it: short, and of plain letters."""
    if len(space) <= 120 and space.isascii() and space.isprintable():
        return space
    digest = hashlib.blake2b(space.encode(), digest_size=8).hexdigest()
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in space)
    return f"{plain[:100]} {digest}"


def _held(records: Iterable[Record], *, vectors: bool = True) -> Iterator[tuple[str, Held]]:
    for one in records:
        held = held_of(one.id, one.fields, one.vector if vectors else None)
        if held is not None:
            yield one.id, held


def _hit(found: Record, metric: str) -> Hit | None:
    held = held_of(found.id, found.fields)
    if held is None:
        return None
    score = -float(np.sqrt(max(0.0, found.score))) if metric == "l2" else found.score
    return Hit(held.point.row, held.point.chunk, score, held.point.text, held.point.metadata)
