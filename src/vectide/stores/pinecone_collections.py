"""Collections of the Pinecone store, as its control plane has them: indexes, and what they are made for."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, CollectionSpec, Deadline, StartupRefused
from vectide.stores.aliases import not_ours, unless_missing
from vectide.stores.http_calls import HttpCalls, Told
from vectide.stores.pinecone_indexes import DocumentIndex, Index, VectorIndex
from vectide.stores.refusals import check_made_for, check_metric, found, refusing

METRICS: Final = {"cosine": "cosine", "dot": "dotproduct", "l2": "euclidean"}

#: Of the interface.
_VERSION: Final = "2026-07"

#: The tag that says for which model an index is.
_SPACE: Final = "vectide_space"

#: The vector of the documents in an index of our making.
_VECTOR: Final = "vector"

#: How Pinecone calls the vector of an index that is for vectors only.
_OF_VECTORS: Final = "_values"

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")

#: How long to wait before looking again whether an index has started (s).
_LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """An index, and what it is made for; ``space`` None: nobody has said so."""

    index: Index
    dimensions: int
    metric: str
    space: str | None


class Collections:
    """The indexes of one project. ``api_key``: of the project. ``url``: of its control plane. ``ca_file``:
    certificates to trust instead of the public ones."""

    def __init__(self, api_key: str, url: str, ca_file: str | None) -> None:
        self._trusted = ca_file
        self._headers = {"Api-Key": api_key, "X-Pinecone-Api-Version": _VERSION}
        self._control = self._calls(url)
        self._shapes: dict[str, Shape] = {}
        self._data: dict[str, HttpCalls] = {}  # by host
        self._opening = threading.Lock()
        #: All that were looked at keep what was deleted from coming back.
        self.updates_only = True

    def shape(self, collection: str, deadline: Deadline, *, fresh: bool = False) -> Shape:
        """That of this collection, as it was found last, or as it is now."""
        shape = None if fresh else self._shapes.get(collection)
        if shape is None:
            self._shapes.pop(collection, None)
            described = self._control.call("GET", f"indexes/{collection}", deadline)
            shape = self._shapes[collection] = self._shape_of(described)
        return shape

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Store.prepare`. An index that is there and has no mark gets one."""
        if not self.verify(spec, deadline):
            with refusing("pinecone", spec):
                self._create(spec, deadline)
            self.verify(spec, deadline)

    def verify(self, spec: CollectionSpec, deadline: Deadline) -> bool:
        """As :meth:`vectide.ports.Verifiable.verify`: an index without a mark counts as missing."""
        check_metric("pinecone", spec, METRICS)
        if not _NAME.fullmatch(spec.name):
            raise StartupRefused(
                f"a pinecone index cannot be named {spec.name!r}: up to 45 lower-case letters, digits and "
                "hyphens can"
            )
        shape = found("pinecone", spec, lambda: self.shape(spec.name, deadline, fresh=True))
        if shape is None:
            return False
        wanted = replace(spec, space=_tag(spec.space))
        check_made_for(wanted, shape.dimensions, shape.metric, shape.space or wanted.space)
        return shape.space is not None

    def drop(self, collection: str, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.Droppable.drop`."""
        path, asked, pause_s = f"indexes/{collection}", False, 0.05
        while True:
            described = unless_missing(lambda: self._control.call("GET", path, deadline))
            if described is None:
                break
            if not asked:
                self._check_ours(described, deadline)
                unless_missing(lambda: self._control.call("DELETE", path, deadline))
                asked = True
            elif deadline.remaining_s() <= pause_s:
                detail = f"index {collection!r} is still there"
                raise AdapterError(Failure(Kind.TRANSIENT, "index_ending", detail))
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LOOK_AGAIN_S)
        self._shapes.pop(collection, None)

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        with self._opening:
            for calls in (self._control, *self._data.values()):
                calls.close()

    def _check_ours(self, described: Mapping[str, Any], deadline: Deadline) -> None:
        """Refuse to drop an index without our mark, or with namespaces that we know nothing about."""
        marked, host = (described.get("tags") or {}).get(_SPACE), described.get("host")
        stats = self._calls_to(host).call("POST", "describe_index_stats", deadline, {}) if host else {}
        namespaces = stats.get("namespaces") or {}
        others = [name for name in namespaces if name not in ("", "__default__")]
        if not marked or any(namespaces[name]["vectorCount"] for name in others):
            raise not_ours(described["name"])

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
                self.shape(spec.name, deadline, fresh=True)
                return
            except AdapterError as error:
                if error.failure.cause != "index_starting" or deadline.remaining_s() < _LOOK_AGAIN_S:
                    raise
            time.sleep(_LOOK_AGAIN_S)

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
        self.updates_only &= index.updates_only
        metric = next((ours for ours, theirs in METRICS.items() if theirs == made["metric"]), made["metric"])
        return Shape(index, made["dimension"], metric, (described.get("tags") or {}).get(_SPACE))

    def _calls_to(self, host: str) -> HttpCalls:
        with self._opening:
            if host not in self._data:
                self._data[host] = self._calls(host if "://" in host else f"https://{host}")
            return self._data[host]

    def _calls(self, url: str) -> HttpCalls:
        return HttpCalls("pinecone", url, headers=self._headers, ca_file=self._trusted, read_error=read_error)


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
