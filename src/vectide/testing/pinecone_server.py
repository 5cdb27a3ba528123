"""A Pinecone of its own over HTTP, for tests: as much of it as its client (version 10) uses, for both kinds
of index, with the limits that it publishes.

What is written is seen later: each look-up sees some more of it, at random but the same with the same
``seed``. (None: all of it at once.) Searches see everything.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vectide.core.values import same_value

API_VERSION: Final = "2026-07"
MAX_REQUEST_BYTES: Final = 2 * 2**20
MAX_METADATA_BYTES: Final = 40 * 2**10
MAX_RECORDS: Final = 1000

_ID: Final = re.compile(r"[\x01-\x7f]{1,512}")

#: Says how many of so many changes are seen now.
Dice = Callable[[int], int]

#: Ids and whole records as they are at one time.
Records = dict[str, "_Record"]


@dataclass(frozen=True)
class _Record:
    vector: tuple[float, ...]
    fields: Mapping[str, Any]


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class _Index:
    """One index. ``vector``: the name of its vector, ``_values`` where it is for vectors only."""

    def __init__(self, name: str, vector: str, made: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self.name = name
        self.vector = vector
        self.dimension = int(made["dimension"])
        self.metric = str(made["metric"])
        self.tags = dict(tags)
        self.starting = 1
        #: How often it is still described after it was removed; None: it was not.
        self.ending: int | None = None
        self.records: Records = {}
        self._seen: Records = {}
        self._unseen: list[Callable[[Records], None]] = []

    def change(self, change: Callable[[Records], None]) -> None:
        """It is durable from now on, and seen some time."""
        change(self.records)
        self._unseen.append(change)

    def look(self, dice: Dice) -> Records:
        """The records that a look-up sees now."""
        more = dice(len(self._unseen))
        for change in self._unseen[:more]:
            change(self._seen)
        del self._unseen[:more]
        return self._seen

    def described(self, url: str) -> dict[str, Any]:
        made = {"type": "dense_vector", "dimension": self.dimension, "metric": self.metric}
        ready, self.starting = self.starting <= 0, self.starting - 1
        state = "Terminating" if self.ending is not None else "Ready" if ready else "Initializing"
        return {
            "name": self.name,
            "host": f"{url}/data/{self.name}" if ready else None,
            "status": {"ready": ready, "state": state},
            "schema": {"fields": {self.vector: made}},
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"},
            "deletion_protection": "disabled",
            "tags": self.tags or None,
        }

    def score(self, one: _Record, wanted: list[float]) -> float:
        """As Pinecone has it: the square of the distance for ``euclidean``, where less is better."""
        a, b = np.asarray(one.vector), np.asarray(wanted)
        if self.metric == "euclidean":
            return float(((a - b) ** 2).sum())
        scale = float(np.linalg.norm(a) * np.linalg.norm(b)) if self.metric == "cosine" else 1.0
        return float(a @ b) / scale

    def best(self, body: Mapping[str, Any], wanted: list[float], top: int) -> list[Any]:
        """Ids, records and scores, best first."""
        if len(wanted) != self.dimension or not 1 <= top <= 10_000:
            raise Refused(400, "a vector or a top_k that is not possible")
        found = [
            (id_, one, self.score(one, wanted))
            for id_, one in self.records.items()
            if matches(one.fields, body.get("filter"))
        ]
        return sorted(found, key=lambda one: one[2], reverse=self.metric != "euclidean")[:top]


class PineconeServer(AbstractContextManager["PineconeServer"]):
    """Control plane and data plane at ``url``. ``api_key``: what it takes. ``for_vectors``: what is made here
    is an index for vectors, as those of earlier years are."""

    def __init__(self, *, seed: int | None = None, api_key: str = "key", for_vectors: bool = False) -> None:
        self.api_key = api_key
        self._for_vectors = for_vectors
        #: What the next requests get.
        self.failing: list[Refused] = []
        #: (index, id) of what another writer removes just before the next update of documents.
        self.losing: list[tuple[str, str]] = []
        #: While it is set, look-ups see nothing new.
        self.blind = False
        #: How often an index is still described after it was removed.
        self.lingering = 1
        #: Other namespaces of an index, and how many records they have.
        self.namespaces: dict[str, dict[str, int]] = {}
        self.requests: list[str] = []
        self._random = None if seed is None else random.Random(seed)  # noqa: S311
        self._indexes: dict[str, _Index] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def make(self, name: str, dimension: int, metric: str = "cosine", *, vector: str = "_values") -> None:
        """Make an index as somebody else would, by default one for vectors."""
        made = {"dimension": dimension, "metric": metric}
        with self._lock:
            self._indexes[name] = _Index(name, vector, made, {})
            self._indexes[name].starting = 0

    def drop(self, name: str) -> None:
        """Remove an index."""
        with self._lock:
            del self._indexes[name]

    def forget(self, name: str, id_: str) -> None:
        """Leave of a record what somebody else's would be."""
        with self._lock:
            _put(self._indexes[name], {id_: _Record((1.0,) * self._indexes[name].dimension, {"theirs": 1})})

    def records(self, name: str) -> dict[str, dict[str, Any]]:
        """The fields of everything that was written, seen or not."""
        with self._lock:
            return {id_: dict(one.fields) for id_, one in self._indexes[name].records.items()}

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def _dice(self, unseen: int) -> int:
        if self.blind:
            return 0
        return unseen if self._random is None else self._random.randint(0, unseen)

    # --- requests ---

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _do(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                status, told, headers = answer(self.command, self.path, self.headers, self.rfile.read(size))
                content = json.dumps(told).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _do

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is printed."""

        return Handler

    def _answer(
        self, method: str, target: str, headers: Message, content: bytes
    ) -> tuple[int, Any, Mapping[str, str]]:
        split = urlsplit(target)
        with self._lock:
            self.requests.append(f"{method} {split.path}")
            try:
                self._check(target, headers, content)
                body = json.loads(content) if content else parse_qs(split.query)
                return 200, self._route(method, split.path, body), {}
            except Refused as refused:
                told = {"error": {"code": "ERROR", "message": str(refused)}, "status": refused.status}
                return refused.status, told, refused.headers

    def _check(self, target: str, headers: Message, content: bytes) -> None:
        if headers.get("Api-Key") != self.api_key:
            raise Refused(401, "Invalid API key")
        if headers.get("X-Pinecone-Api-Version") != API_VERSION:
            raise Refused(400, f"this server speaks version {API_VERSION}")
        if self.failing:
            raise self.failing.pop(0)
        if len(content) > MAX_REQUEST_BYTES:
            raise Refused(413, "the request is larger than 2 MB")
        if len(target) > 8192:
            raise Refused(414, "the URL is too long")

    def _route(self, method: str, path: str, body: Any) -> Any:
        parts = path.strip("/").split("/")
        if parts[0] == "indexes":
            return self._control(method, parts[1:], body)
        index = self._indexes.get(parts[1]) if parts[0] == "data" and len(parts) > 2 else None
        if index is None:
            raise Refused(404, "there is no such index")
        if parts[2:] == ["describe_index_stats"]:
            count = len(index.records)
            counts = {"__default__": count, **self.namespaces.get(index.name, {})}
            told = {name: {"vectorCount": of} for name, of in counts.items()}
            return {"namespaces": told, "totalVectorCount": sum(counts.values())}
        of_documents = parts[2] == "namespaces"
        if of_documents is (index.vector == "_values"):
            raise Refused(400, "this index is of the other kind")
        if of_documents:
            while parts[5] == "update" and self.losing:
                name, id_ = self.losing.pop()
                _delete(self._indexes[name], self._dice, {"ids": [id_]})
            told = _DOCUMENTS[parts[5]](index, self._dice, body)
            read = {"namespace": parts[3], "usage": {"read_units": 1}}
            return {**read, **told} if parts[5] in ("fetch", "list", "search") else told
        return {"namespace": "", **_VECTORS[parts[-1]](index, self._dice, body)}

    def _control(self, method: str, parts: list[str], body: Any) -> Any:
        if method == "POST":
            name = body["name"]
            if name in self._indexes:
                raise Refused(409, "Resource already exists")
            [(vector, made)] = body["schema"]["fields"].items()
            vector = "_values" if self._for_vectors else vector
            self._indexes[name] = _Index(name, vector, made, body.get("tags") or {})
            return self._indexes[name].described(self.url)
        if parts[0] not in self._indexes:
            raise Refused(404, f"Resource {parts[0]} not found")
        index = self._indexes[parts[0]]
        if index.ending is not None:
            index.ending -= 1
            if index.ending < 0:
                del self._indexes[parts[0]]
                raise Refused(404, f"Resource {parts[0]} not found")
        if method == "DELETE":
            index.ending = self.lingering
            return None
        if method == "PATCH":
            index.tags |= body.get("tags") or {}
        return index.described(self.url)


# --- what both kinds of index check ---------------------------------------------------------------------


def matches(fields: Mapping[str, Any], condition: Mapping[str, Any] | None) -> bool:
    """Whether a record meets a filter; a list meets what one of its members does."""
    for name, wanted in (condition or {}).items():
        if name == "$and":
            met = all(matches(fields, one) for one in wanted)
        else:
            [(operator, operand)] = wanted.items()
            operands = {"$eq": [operand], "$in": operand}[operator]
            held = fields.get(name)
            members = held if isinstance(held, list) else [held]
            met = any(same_value(one, other) for one in members for other in operands)
        if not met:
            return False
    return True


def _checked(index: _Index, id_: Any, vector: list[float] | None, fields: Mapping[str, Any]) -> None:
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        raise Refused(400, "an id has 1 to 512 ASCII characters")
    if vector is not None and (len(vector) != index.dimension or not any(vector)):
        raise Refused(400, f"a vector of {index.dimension} numbers is needed, one of which is not 0")
    if len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
        raise Refused(400, "metadata is larger than 40 KB")
    for name, value in fields.items():
        if not name or name.startswith(("$", "_")):
            raise Refused(400, "a name that is reserved")
        if not (isinstance(value, str | bool | int | float) or _is_list_of_texts(value)):
            raise Refused(400, "a value is a text, a number, a boolean or a list of texts")
        if "\0" in str(value):
            raise Refused(400, "a text has no NUL")


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _few(records: Any) -> Any:
    if not 1 <= len(records) <= MAX_RECORDS:
        raise Refused(400, f"1 to {MAX_RECORDS} records at once")
    return records


def _put(index: _Index, new: Records) -> None:
    index.change(lambda records: records.update(new))


def _delete(index: _Index, dice: Dice, body: Any) -> Any:
    ids = _few(body["ids"])

    def change(records: Records) -> None:
        for id_ in ids:
            records.pop(id_, None)

    index.change(change)
    return {}


def _page(ids: Iterator[str], body: Any) -> tuple[list[str], dict[str, Any]]:
    """One page of ids in their order; the token is the last of them."""
    [limit] = body["limit"] if isinstance(body["limit"], list) else [body["limit"]]
    token = body.get("pagination_token") or body.get("paginationToken") or ""
    after = token[0] if isinstance(token, list) else token
    if not 1 <= int(limit) <= 100:
        raise Refused(400, "a page has 1 to 100 ids")
    found = sorted(id_ for id_ in ids if id_ > after)
    page = found[: int(limit)]
    return page, {"pagination": {"next": page[-1]}} if len(found) > len(page) else {}


# --- indexes for vectors --------------------------------------------------------------------------------


def _doubles(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers are doubles there."""
    return {n: float(v) if type(v) is int else v for n, v in fields.items()}


def _shown(id_: str, one: _Record) -> dict[str, Any]:
    return {"id": id_, "values": list(one.vector), "metadata": _doubles(one.fields)}


def _upsert_vectors(index: _Index, dice: Dice, body: Any) -> Any:
    new = {}
    for one in _few(body["vectors"]):
        _checked(index, one["id"], one["values"], one.get("metadata") or {})
        new[one["id"]] = _Record(tuple(one["values"]), one.get("metadata") or {})
    _put(index, new)
    return {"upsertedCount": len(new)}


def _fetch_vectors(index: _Index, dice: Dice, body: Any) -> Any:
    seen = index.look(dice)
    return {"vectors": {id_: _shown(id_, seen[id_]) for id_ in _few(body["ids"]) if id_ in seen}}


def _fetch_by_metadata(index: _Index, dice: Dice, body: Any) -> Any:
    seen = index.look(dice)
    ids, following = _page(
        (id_ for id_, one in seen.items() if matches(one.fields, body["filter"])), {"limit": 100, **body}
    )
    return {"vectors": {id_: _shown(id_, seen[id_]) for id_ in ids}, **following}


def _list_vectors(index: _Index, dice: Dice, body: Any) -> Any:
    ids, following = _page(iter(index.look(dice)), body)
    return {"vectors": [{"id": id_} for id_ in ids], **following}


def _query(index: _Index, dice: Dice, body: Any) -> Any:
    found = index.best(body, body["vector"], body["topK"])
    return {"matches": [{**_shown(id_, one), "values": [], "score": score} for id_, one, score in found]}


_VECTORS: Final = {
    "upsert": _upsert_vectors,
    "fetch": _fetch_vectors,
    "fetch_by_metadata": _fetch_by_metadata,
    "list": _list_vectors,
    "delete": _delete,
    "query": _query,
}


# --- indexes for documents ------------------------------------------------------------------------------


def _document(index: _Index, id_: str, one: _Record, names: list[str] | None) -> dict[str, Any]:
    whole = {index.vector: list(one.vector), **one.fields}
    wanted = set(whole) if not names or names == ["*"] else names
    return {"_id": id_, **{name: value for name, value in whole.items() if name in wanted}}


def _upsert_documents(index: _Index, dice: Dice, body: Any) -> Any:
    new = {}
    for document in _few(body["documents"]):
        id_, vector = document.pop("_id"), document.pop(index.vector, [])
        _checked(index, id_, vector, document)
        new[id_] = _Record(tuple(vector), document)
    _put(index, new)
    return {"upserted_count": len(new)}


def _update_documents(index: _Index, dice: Dice, body: Any) -> Any:
    patches = []
    for document in _few(body["documents"]):
        id_, gone = document.pop("_id"), document.pop("_remove_fields", [])
        vector = document.pop(index.vector, None)
        _checked(index, id_, vector, document)
        patches.append((id_, vector, document, set(gone)))

    def change(records: Records) -> None:
        for id_, vector, fields, gone in patches:
            if id_ in records:
                old = {name: value for name, value in records[id_].fields.items() if name not in gone}
                records[id_] = _Record(tuple(vector or records[id_].vector), {**old, **fields})

    index.change(change)
    return {}


def _fetch_documents(index: _Index, dice: Dice, body: Any) -> Any:
    seen, names = index.look(dice), body.get("include_fields")
    if "filter" in body:
        matching = (id_ for id_, one in seen.items() if matches(one.fields, body["filter"]))
        ids, following = _page(matching, {"limit": 100, **body})
    else:
        ids, following = [id_ for id_ in _few(body["ids"]) if id_ in seen], {}
    return {"documents": {id_: _document(index, id_, seen[id_], names) for id_ in ids}, **following}


def _list_documents(index: _Index, dice: Dice, body: Any) -> Any:
    ids, following = _page(iter(index.look(dice)), body)
    return {"documents": [{"_id": id_} for id_ in ids], **following}


def _search_documents(index: _Index, dice: Dice, body: Any) -> Any:
    [by] = body["score_by"]
    if by["type"] != "dense_vector" or by["field"] != index.vector:
        raise Refused(400, "there is no such vector")
    found = index.best(body, by["values"], body["top_k"])
    names = body.get("include_fields")
    shown = [{**_document(index, id_, one, names), "_score": score} for id_, one, score in found]
    return {"matches": shown}


_DOCUMENTS: Final = {
    "upsert": _upsert_documents,
    "update": _update_documents,
    "fetch": _fetch_documents,
    "list": _list_documents,
    "delete": _delete,
    "search": _search_documents,
}
