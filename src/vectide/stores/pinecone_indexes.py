"""The two kinds of index that Pinecone has, made alike: for vectors with metadata, and for documents.

An index for vectors always gives them back, and cannot take a name of metadata away: a change of metadata
goes with the vector that was read a moment before. One for documents can do both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from vectide.ports import Deadline, Vector
from vectide.stores.http_calls import HttpCalls
from vectide.stores.pinecone_points import BRIEF, ROW, fields_of, size_of
from vectide.stores.pointwise import Held

#: Bytes of one request (2 MB), less what is around the records.
_MAX_REQUEST_BYTES: Final = 1_900_000

#: Records of one request.
_MAX_RECORDS: Final = 1000

#: Ids that fit into a URL.
_MAX_IDS_IN_URL: Final = 100

#: Ids on one page of a list.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Record:
    """What an index holds under an id. ``score``: how well it matches, in a search."""

    id: str
    fields: Mapping[str, Any]
    vector: Sequence[float] | None = None
    score: float = 0.0


#: Points and their new vectors; None: it stays.
Patches = Sequence[tuple[Held, Vector | None]]


class Index(Protocol):
    """One index. ``field``: which of the fields is the vector; empty where it is none of them.
    ``updates_only``: a change of what is not there any more makes nothing."""

    field: str
    updates_only: bool

    def fetch(self, ids: Sequence[str], deadline: Deadline, *, brief: bool = False) -> Iterator[Record]:
        """What is there of these. ``brief``: at least the fields :data:`BRIEF`, and no vector needed."""
        ...

    def of_rows(self, row_ids: Sequence[str], deadline: Deadline) -> Iterator[Record]:
        """Every point of the rows whose chunks 0 have these ids, with at least the field ``ROW``."""
        ...

    def put(self, points: Sequence[tuple[Held, Vector]], deadline: Deadline) -> None:
        """Write whole points."""
        ...

    def patch(self, points: Patches, old: Mapping[str, Record], deadline: Deadline) -> None:
        """Change points that are there; ``old``: as they were, by id."""
        ...

    def delete(self, ids: Sequence[str], deadline: Deadline) -> None:
        """Remove these, wherever they are."""
        ...

    def search(
        self, vector: Vector, limit: int, where: Mapping[str, Any] | None, deadline: Deadline
    ) -> list[Record]:
        """The most similar points, best first."""
        ...

    def page(self, cursor: str | None, limit: int, deadline: Deadline) -> tuple[list[str], str | None]:
        """Ids in their order, and where the next page begins."""
        ...

    def count(self, deadline: Deadline) -> int:
        """How many points there are, or were a while ago."""
        ...


class VectorIndex:
    """An :class:`Index` for vectors with metadata."""

    field = ""
    updates_only = False

    def __init__(self, http: HttpCalls) -> None:
        self._http = http

    def fetch(self, ids: Sequence[str], deadline: Deadline, *, brief: bool = False) -> Iterator[Record]:
        """As :meth:`Index.fetch`; all of it anyhow."""
        for part in _parts(ids, _MAX_IDS_IN_URL):
            answer = self._http.call("GET", f"vectors/fetch?{urlencode({'ids': part}, doseq=True)}", deadline)
            yield from _records(answer)

    def of_rows(self, row_ids: Sequence[str], deadline: Deadline) -> Iterator[Record]:
        """As :meth:`Index.of_rows`."""
        for part in _parts(row_ids, _MAX_RECORDS):
            body = {"filter": {ROW: {"$in": part}}}
            for answer in _pages(lambda body: self._post("fetch_by_metadata", deadline, body), body):
                yield from _records(answer)

    def put(self, points: Sequence[tuple[Held, Vector]], deadline: Deadline) -> None:
        """As :meth:`Index.put`."""
        self._upsert([(held, vector.tolist()) for held, vector in points], deadline)

    def patch(self, points: Patches, old: Mapping[str, Record], deadline: Deadline) -> None:
        """As :meth:`Index.patch`; what is gone is made anew."""
        vectors = (old[held.point.id].vector or () if new is None else new.tolist() for held, new in points)
        self._upsert([(held, numbers) for (held, _), numbers in zip(points, vectors, strict=True)], deadline)

    def delete(self, ids: Sequence[str], deadline: Deadline) -> None:
        """As :meth:`Index.delete`."""
        for part in _parts(ids, _MAX_RECORDS):
            self._post("delete", deadline, {"ids": part})

    def search(
        self, vector: Vector, limit: int, where: Mapping[str, Any] | None, deadline: Deadline
    ) -> list[Record]:
        """As :meth:`Index.search`."""
        asked = {"vector": vector.tolist(), "topK": limit, "includeMetadata": True, "includeValues": False}
        body = asked if where is None else {**asked, "filter": where}
        found = self._http.call("POST", "query", deadline, body)["matches"]
        return [Record(one["id"], one.get("metadata") or {}, score=one["score"]) for one in found]

    def page(self, cursor: str | None, limit: int, deadline: Deadline) -> tuple[list[str], str | None]:
        """As :meth:`Index.page`."""
        asked = {"limit": min(limit, _PAGE), **({} if cursor is None else {"paginationToken": cursor})}
        answer = self._http.call("GET", f"vectors/list?{urlencode(asked)}", deadline)
        return [one["id"] for one in answer.get("vectors") or ()], _next(answer)

    def count(self, deadline: Deadline) -> int:
        """As :meth:`Index.count`."""
        return _count(self._http, deadline)

    def _upsert(self, points: Sequence[tuple[Held, Sequence[float]]], deadline: Deadline) -> None:
        records = [
            {"id": held.point.id, "values": list(numbers), "metadata": fields_of(held)}
            for held, numbers in points
        ]
        for part in _by_size(records):
            self._post("upsert", deadline, {"vectors": part})

    def _post(self, verb: str, deadline: Deadline, body: Mapping[str, Any]) -> Any:
        return self._http.call("POST", f"vectors/{verb}", deadline, body)


class DocumentIndex:
    """An :class:`Index` for documents."""

    updates_only = True

    def __init__(self, http: HttpCalls, field: str) -> None:
        self._http = http
        self.field = field

    def fetch(self, ids: Sequence[str], deadline: Deadline, *, brief: bool = False) -> Iterator[Record]:
        """As :meth:`Index.fetch`."""
        names = {"include_fields": BRIEF} if brief else {}
        for part in _parts(ids, _MAX_RECORDS):
            answer = self._post("fetch", deadline, {"ids": part, **names})
            yield from (self._record(one) for one in answer["documents"].values())

    def of_rows(self, row_ids: Sequence[str], deadline: Deadline) -> Iterator[Record]:
        """As :meth:`Index.of_rows`."""
        for part in _parts(row_ids, _MAX_RECORDS):
            body = {"filter": {ROW: {"$in": part}}, "include_fields": [ROW]}
            for answer in _pages(lambda body: self._post("fetch", deadline, body), body, "pagination_token"):
                yield from (self._record(one) for one in answer["documents"].values())

    def put(self, points: Sequence[tuple[Held, Vector]], deadline: Deadline) -> None:
        """As :meth:`Index.put`."""
        documents = [
            {"_id": held.point.id, self.field: vector.tolist(), **fields_of(held)} for held, vector in points
        ]
        for part in _by_size(documents):
            self._post("upsert", deadline, {"documents": part})

    def patch(self, points: Patches, old: Mapping[str, Record], deadline: Deadline) -> None:
        """As :meth:`Index.patch`. What is not there any more is passed over."""
        patches = []
        for held, vector in points:
            fields = fields_of(held)
            gone = sorted(old[held.point.id].fields.keys() - fields.keys())
            fields |= {} if vector is None else {self.field: vector.tolist()}
            patches.append({"_id": held.point.id, **fields} | ({"_remove_fields": gone} if gone else {}))
        for part in _by_size(patches):
            self._post("update", deadline, {"documents": part})

    def delete(self, ids: Sequence[str], deadline: Deadline) -> None:
        """As :meth:`Index.delete`."""
        for part in _parts(ids, _MAX_RECORDS):
            self._post("delete", deadline, {"ids": part})

    def search(
        self, vector: Vector, limit: int, where: Mapping[str, Any] | None, deadline: Deadline
    ) -> list[Record]:
        """As :meth:`Index.search`."""
        by = {"type": "dense_vector", "field": self.field, "values": vector.tolist()}
        asked = {"score_by": [by], "top_k": limit, "include_fields": ["*"]}
        answer = self._post("search", deadline, asked if where is None else {**asked, "filter": where})
        return [self._record(one) for one in answer["matches"]]

    def page(self, cursor: str | None, limit: int, deadline: Deadline) -> tuple[list[str], str | None]:
        """As :meth:`Index.page`."""
        asked = {"limit": min(limit, _PAGE), **({} if cursor is None else {"pagination_token": cursor})}
        answer = self._post("list", deadline, asked)
        return [one["_id"] for one in answer["documents"]], _next(answer)

    def count(self, deadline: Deadline) -> int:
        """As :meth:`Index.count`."""
        return _count(self._http, deadline)

    def _post(self, verb: str, deadline: Deadline, body: Mapping[str, Any]) -> Any:
        return self._http.call("POST", f"namespaces/{_NAMESPACE}/documents/{verb}", deadline, body)

    def _record(self, document: Mapping[str, Any]) -> Record:
        fields = dict(document)
        vector, score = fields.pop(self.field, None), fields.pop("_score", 0.0)
        return Record(fields.pop("_id"), fields, vector, score)


#: The namespace that is meant where an index for vectors is told none.
_NAMESPACE: Final = "__default__"


def _records(answer: Mapping[str, Any]) -> Iterator[Record]:
    vectors = answer.get("vectors") or {}
    return (Record(id_, one.get("metadata") or {}, one.get("values")) for id_, one in vectors.items())


def _pages(
    read: Callable[[Mapping[str, Any]], Any], body: Mapping[str, Any], at: str = "paginationToken"
) -> Iterator[Any]:
    answer = read(body)
    yield answer
    while (following := _next(answer)) is not None:
        answer = read({**body, at: following})
        yield answer


def _next(answer: Mapping[str, Any]) -> str | None:
    return (answer.get("pagination") or {}).get("next") or None


def _count(http: HttpCalls, deadline: Deadline) -> int:
    namespaces = http.call("POST", "describe_index_stats", deadline, {}).get("namespaces") or {}
    return sum(namespaces[name]["vectorCount"] for name in ("", _NAMESPACE) if name in namespaces)


def _parts(ids: Sequence[str], most: int) -> Iterator[list[str]]:
    return (list(ids[start : start + most]) for start in range(0, len(ids), most))


def _by_size(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many records at once as a request may carry."""
    part: list[dict[str, Any]] = []
    total = 0
    for record in records:
        size = size_of(record) + 1
        if part and (total + size > _MAX_REQUEST_BYTES or len(part) == _MAX_RECORDS):
            yield part
            part, total = [], 0
        part.append(record)
        total += size
    if part:
        yield part
