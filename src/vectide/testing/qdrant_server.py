"""A Qdrant server for tests: its REST interface as far as the store uses it, over Qdrant's own engine.

The engine is the real one (package ``qdrant-edge-py``): filters, conditional updates, ids and scores behave
as on a server. Only what a server adds to it is written here: collections, JSON, statuses. In a test::

    with QdrantServer() as server:
        server.fail(503, times=2)
        ...  # point the store at server.url
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge

_DISTANCES: Final = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
_INDEXES: Final = {
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "float": edge.PayloadSchemaType.Float,
    "integer": edge.PayloadSchemaType.Integer,
    "keyword": edge.PayloadSchemaType.Keyword,
    "uuid": edge.PayloadSchemaType.Uuid,
}
_MODES: Final = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


@dataclass(eq=False, slots=True)
class _Collection:
    shard: edge.EdgeShard
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a request gets instead of its answer. ``applied``: it has its effect nevertheless."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    applied: bool


class Refused(Exception):
    """An answer that is an error: status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class QdrantServer:
    """Listens on a port of this machine until it is closed; what it holds is then gone."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self.api_key = api_key
        #: What updates say of themselves; a loaded server says ``wait_timeout`` in a successful answer.
        self.update_status = "completed"
        self._faults: list[Fault] = []
        self._collections: dict[str, _Collection] = {}
        self._aliases: dict[str, str] = {}
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="vectide-qdrant-")
        self._made = 0
        self._http = _Listener(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> QdrantServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop listening, and forget everything."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        with self._lock:
            for collection in self._collections.values():
                collection.shard.close()
            self._collections.clear()
        self._folder.cleanup()

    def fail(
        self,
        status: int,
        *,
        times: int = 1,
        body: bytes = b'{"status":{"error":"asked for by the test"}}',
        headers: Mapping[str, str] | None = None,
        applied: bool = False,
    ) -> None:
        """The next requests fail in this way."""
        self._faults += [Fault(status, body, headers or {}, applied)] * times

    def answer(
        self, method: str, path: str, key: str | None, body: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, document (bytes are sent as they are) and headers for a request."""
        fault = self._faults.pop(0) if self._faults else None
        if fault is None or fault.applied:
            status, document = self._answered(method, path, key, body)
            if fault is None:
                return status, document, {}
        return fault.status, fault.body, fault.headers

    def _answered(self, method: str, path: str, key: str | None, body: Any) -> tuple[int, Any]:
        try:
            if self.api_key is not None and key != self.api_key:
                raise Refused(401, "Must provide an API key or an Authorization bearer token")
            with self._lock:
                result = self._result(
                    method, [unquote(part) for part in path.strip("/").split("/")], body or {}
                )
        except Refused as refusal:
            return refusal.status, {"status": {"error": str(refusal)}, "time": 0.0}
        except Exception as error:  # noqa: BLE001  (whatever the engine refuses is the request's fault)
            if "No point with id" in str(error):
                return 404, {"status": {"error": f"Not found: {error}"}, "time": 0.0}
            return 400, {"status": {"error": f"Wrong input: {error}"}, "time": 0.0}
        return 200, {"result": result, "status": "ok", "time": 0.0}

    def _result(self, method: str, parts: list[str], body: Any) -> Any:
        if (method, parts) == ("GET", ["aliases"]):
            return {
                "aliases": [{"alias_name": one, "collection_name": of} for one, of in self._aliases.items()]
            }
        if (method, parts) == ("GET", ["collections"]):
            return {"collections": [{"name": name} for name in self._collections]}
        if parts[0] != "collections" or len(parts) < 2:
            raise Refused(404, "no such path")
        name, rest = parts[1], "/".join(parts[2:])
        if (method, rest) == ("PUT", ""):
            return self._create(name, body)
        if (method, rest) == ("DELETE", ""):
            return self._delete(name)
        if (method, name, rest) == ("POST", "aliases", ""):
            return self._change_aliases(body)
        found = self._collections.get(self._aliases.get(name, name))
        if (method, rest) == ("GET", "exists"):
            return {"exists": found is not None}
        if found is None:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        answer = _ANSWERS.get((method, rest))
        if answer is None:
            raise Refused(404, "no such path")
        return answer(self, found, body)

    def _create(self, name: str, body: Any) -> bool:
        if name in self._collections:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self._aliases:
            raise Refused(400, f"Wrong input: Can't create collection with name {name}. Alias already exists")
        vectors = body["vectors"]
        if "size" in vectors:
            params: Any = _vector_params(vectors)
        else:
            params = {one: _vector_params(of) for one, of in vectors.items()}
        self._made += 1
        path = Path(self._folder.name) / str(self._made)
        path.mkdir()
        shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=params))
        self._collections[name] = _Collection(
            shard, {"params": {"vectors": vectors}, "metadata": body.get("metadata") or {}}
        )
        return True

    def _delete(self, name: str) -> bool:
        """Its aliases go with it. One that is not there, or an alias, is no error."""
        found = self._collections.pop(name, None)
        if found is not None:
            found.shard.close()
            self._aliases = {one: of for one, of in self._aliases.items() if of != name}
        return found is not None

    def _change_aliases(self, body: Any) -> bool:
        """``POST /collections/aliases``: in order, one at a time, nobody in between."""
        for action in body["actions"]:
            match action:
                case {"create_alias": {"collection_name": name, "alias_name": alias}}:
                    if name not in self._collections:
                        raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
                    if alias in self._collections:
                        raise Refused(409, f"Wrong input: Collection `{alias}` already exists!")
                    self._aliases[alias] = name
                case {"delete_alias": {"alias_name": alias}}:
                    self._aliases.pop(alias, None)
                case _:
                    raise Refused(400, "no such change")
        return True

    def drop(self, name: str) -> None:
        """Delete a collection behind everybody's back."""
        with self._lock:
            self._collections.pop(name).shard.close()

    # --- what can be asked of a collection ---

    def info(self, of: _Collection, body: Any) -> Any:
        """``GET /collections/{name}``"""
        settings = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "flush_interval_sec": 5}
        config = {**of.config, "hnsw_config": settings}
        config["optimizer_config"] = {**optimizer, "default_segment_number": 0}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": config,
            "payload_schema": {
                name: {
                    "data_type": _name_of(found.data_type),
                    "params": _params_of(found.params),
                    "points": found.points,
                }
                for name, found in of.shard.info().payload_schema.items()
            },
        }

    def change(self, of: _Collection, body: Any) -> bool:
        """``PATCH /collections/{name}``: merges metadata."""
        of.config["metadata"] |= body.get("metadata") or {}
        return True

    def index(self, of: _Collection, body: Any) -> Any:
        """``PUT /collections/{name}/index``"""
        wanted = body["field_schema"]
        schema: Any = (
            edge.KeywordIndexParams(is_tenant=True) if isinstance(wanted, dict) else _INDEXES[wanted]
        )
        of.shard.update(edge.UpdateOperation.create_field_index(body["field_name"], schema))
        return {"operation_id": 0, "status": "completed"}

    def update(self, of: _Collection, body: Any) -> Any:
        """``POST /collections/{name}/points/batch``: in order, each by itself, as a server does."""
        for operation in body["operations"]:
            [(kind, given)] = operation.items()
            of.shard.update(_OPERATIONS[kind](given))
        return [{"operation_id": 0, "status": self.update_status} for _ in body["operations"]]

    def retrieve(self, of: _Collection, body: Any) -> Any:
        """``POST /collections/{name}/points``"""
        found = of.shard.retrieve(body["ids"], with_payload=True, with_vector=body.get("with_vector", False))
        return [_record(one) for one in found]

    def scroll(self, of: _Collection, body: Any) -> Any:
        """``POST /collections/{name}/points/scroll``"""
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=True,
            with_vector=body.get("with_vector", False),
        )
        found, following = of.shard.scroll(request)
        return {
            "points": [_record(one) for one in found],
            "next_page_offset": None if following is None else str(following),
        }

    def query(self, of: _Collection, body: Any) -> Any:
        """``POST /collections/{name}/points/query``"""
        wanted = body["query"]
        numbers = wanted["nearest"] if isinstance(wanted, dict) else wanted
        nearest = edge.Query.Nearest(numbers, body.get("using"))
        request = edge.QueryRequest(
            limit=body["limit"], query=nearest, filter=_filter(body.get("filter")), with_payload=True
        )
        found = of.shard.query(request)
        return {"points": [{**_record(one), "score": one.score, "version": 0} for one in found]}

    def count(self, of: _Collection, body: Any) -> Any:
        """``POST /collections/{name}/points/count``"""
        return {"count": of.shard.count(edge.CountRequest(exact=True, filter=_filter(body.get("filter"))))}


_ANSWERS: Final[dict[tuple[str, str], Callable[[QdrantServer, _Collection, Any], Any]]] = {
    ("GET", ""): QdrantServer.info,
    ("PATCH", ""): QdrantServer.change,
    ("PUT", "index"): QdrantServer.index,
    ("POST", "points/batch"): QdrantServer.update,
    ("POST", "points"): QdrantServer.retrieve,
    ("POST", "points/scroll"): QdrantServer.scroll,
    ("POST", "points/query"): QdrantServer.query,
    ("POST", "points/count"): QdrantServer.count,
}


# --- JSON to the engine's types -------------------------------------------------------------------------


def _vector_params(of: Any) -> edge.EdgeVectorParams:
    return edge.EdgeVectorParams(size=of["size"], distance=_DISTANCES[of["distance"]])


def _params_of(params: Any) -> Any:
    return {"type": "keyword", "is_tenant": params.is_tenant} if params else None


def _name_of(type_: Any) -> str:
    return next(name for name, of in _INDEXES.items() if of == type_)


def _record(one: Any) -> Any:
    return {"id": str(one.id), "payload": one.payload, "vector": one.vector}


def _upsert(given: Any) -> edge.UpdateOperation:
    points = [edge.Point(one["id"], one["vector"], one.get("payload")) for one in given["points"]]
    condition = _filter(given.get("update_filter"))
    return edge.UpdateOperation.upsert_points(points, condition, _MODES[given.get("update_mode") or "upsert"])


def _update_vectors(given: Any) -> edge.UpdateOperation:
    points = [edge.PointVectors(one["id"], one["vector"]) for one in given["points"]]
    return edge.UpdateOperation.update_vectors(points, _filter(given.get("update_filter")))


def _overwrite(given: Any) -> edge.UpdateOperation:
    return edge.UpdateOperation.overwrite_payload_by_filter(_filter(given["filter"]), given["payload"])


def _delete(given: Any) -> edge.UpdateOperation:
    return edge.UpdateOperation.delete_points_by_filter(_filter(given["filter"]))


_OPERATIONS: Final[dict[str, Callable[[Any], edge.UpdateOperation]]] = {
    "upsert": _upsert,
    "update_vectors": _update_vectors,
    "overwrite_payload": _overwrite,
    "delete": _delete,
}


def _filter(given: Any) -> Any:
    if given is None:
        return None
    clauses = {
        name: [_condition(one) for one in (of if isinstance(of, list) else [of])]
        for name, of in given.items()
        if of is not None
    }
    return edge.Filter(
        must=clauses.get("must"), should=clauses.get("should"), must_not=clauses.get("must_not")
    )


def _condition(given: Any) -> Any:
    match given:
        case {"has_id": ids}:
            return edge.HasIdCondition(set(ids))
        case {"is_empty": {"key": key}}:
            return edge.IsEmptyCondition(key)
        case {"is_null": {"key": key}}:
            return edge.IsNullCondition(key)
        case {"key": key, "match": {"value": bool()}}:  # the engine's Python binding takes it for an integer
            return edge.Filter(must_not=[edge.IsEmptyCondition(key)])
        case {"key": key, "match": {"value": value}}:
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case {"key": key, "range": bounds}:
            return edge.FieldCondition(key, range=edge.RangeFloat(**bounds))
        case _:
            return _filter(given)


# --- HTTP -----------------------------------------------------------------------------------------------


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler_for(server: QdrantServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body go in two packets: Nagle would hold the second back.
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(sent) if sent else None
            path = urlsplit(self.path).path
            status, document, headers = server.answer(self.command, path, self.headers.get("api-key"), body)
            encoded = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    return Handler
