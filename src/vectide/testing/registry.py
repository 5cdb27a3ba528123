"""A schema registry in memory behind real HTTP: what readers use of Confluent's API and of Apicurio's own,
and its failures.

In a test::

    with RegistryServer() as registry:
        known = registry.register("shop.public.products-value", schema_text)
        registry.fail(503)  # until registry.recover()
        ...  # point the service at registry.url

A schema has four names that never have the same value: its schema id, its GUID, its content id and its global
id. With Confluent's API a content id is a schema id, as with Apicurio's compatible one.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

#: The parts of a path to status and document.
Find = Callable[[Sequence[str]], tuple[int, Any]]

_GUIDS: Final = uuid.UUID("0b8e2d3e-0000-4000-8000-000000000000")
_GLOBAL: Final = 1000
#: The longest that a held request waits.
_HOLD_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What one schema needs of another."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Known:
    """A registered schema."""

    id: int
    subject: str
    version: int
    text: str
    type: str = "AVRO"
    references: tuple[Reference, ...] = ()

    @property
    def guid(self) -> uuid.UUID:
        return uuid.uuid5(_GUIDS, str(self.id))

    @property
    def global_id(self) -> int:
        return _GLOBAL + self.id


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its path, and what it showed of the caller."""

    path: str
    authorization: str | None
    headers: Mapping[str, str]


class RegistryServer:
    """The server, in threads of this process. Methods may be called from any thread.

    ``users`` (name to password), ``tokens`` and ``clients`` (OAuth client to secret) say who is welcome;
    without any of them everybody is. ``tls`` is the server's context for HTTPS. Starts on construction, stops
    with :meth:`close`, or at the end of a ``with`` block.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        users: Mapping[str, str] | None = None,
        tokens: Sequence[str] = (),
        clients: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._schemas: dict[int, Known] = {}
        self._asked: list[Asked] = []
        self._status: int | None = 200
        self._open = threading.Event()
        self._open.set()
        self._routes: dict[str, Find] = {
            r"/schemas/types": self._types,
            r"/schemas/ids/(\d+)": self._by_id,
            r"/schemas/guids/([0-9a-f-]{36})": self._by_guid,
            r"/subjects/([^/]+)/versions/(\d+)": self._by_version,
            r"/apis/registry/v[23]/ids/(globalIds|contentIds)/(\d+)": self._content,
            r"/apis/registry/v[23]/ids/(globalIds|contentIds)/(\d+)/references": self._references,
            r"/apis/registry/v2/groups/default/artifacts/([^/]+)/versions/(\d+)": self._artifact,
            r"/apis/registry/v3/groups/default/artifacts/([^/]+)/versions/(\d+)/content": self._artifact,
            r"/apis/registry/v[23]/groups/default/artifacts/([^/]+)/versions/(\d+)/references": (
                self._artifact_references
            ),
            r"/apis/registry/v[23]/system/info": self._info,
        }
        self._clients = {_basic(*pair) for pair in (clients or {}).items()}
        self._issued = f"token-for-{len(self._clients)}-clients"
        self._welcome = {_basic(*pair) for pair in (users or {}).items()} | {f"Bearer {t}" for t in tokens}
        if self._clients:
            self._welcome.add(f"Bearer {self._issued}")
        self._scheme = "http" if tls is None else "https"
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="registry-server", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def url(self) -> str:
        """The URL of Confluent's API."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        """Where OAuth clients get their token."""
        return f"{self.url}/token"

    def apicurio_url(self, version: int = 2) -> str:
        """The URL of Apicurio's own API."""
        return f"{self.url}/apis/registry/v{version}"

    def close(self) -> None:
        """Stop listening and let every request end."""
        self._open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> RegistryServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- schemas ------------------------------------------------------------------------------------------

    def register(
        self,
        subject: str,
        text: str,
        type: str = "AVRO",
        *,
        references: Sequence[Reference] = (),
        id: int | None = None,
    ) -> Known:
        """Add a version to the subject; ``id`` where it shall be a certain one."""
        with self._lock:
            taken = id if id is not None else max(self._schemas, default=0) + 1
            version = 1 + sum(known.subject == subject for known in self._schemas.values())
            known = Known(taken, subject, version, text, type, tuple(references))
            self._schemas[taken] = known
            return known

    def load(self, path: str | PathLike[str]) -> None:
        """The schemas beside a recording: ``{"by_id": {"7": {"schema": ..., "used_as": subject}}}``."""
        for id_, found in json.loads(Path(path).read_text(encoding="utf-8"))["by_id"].items():
            type_ = found.get("schemaType") or "AVRO"
            self.register(found.get("used_as", ""), found["schema"], type_, id=int(id_))

    def forget(self, known: Known) -> None:
        """Remove the schema."""
        with self._lock:
            del self._schemas[known.id]

    # --- failures -----------------------------------------------------------------------------------------

    def fail(self, status: int | None) -> None:
        """Answer everything with this status; None: hang up without an answer."""
        self._status = status

    def recover(self) -> None:
        """Answer again."""
        self._status = 200
        self._open.set()

    def hold(self) -> None:
        """Let every request wait until :meth:`recover`."""
        self._open.clear()

    @property
    def asked(self) -> list[Asked]:
        """Every request so far that was not for a token."""
        with self._lock:
            return list(self._asked)

    # --- what the handlers ask ----------------------------------------------------------------------------

    def answer(self, asked: Asked) -> tuple[int, Any] | None:
        """Status and document, None to hang up."""
        with self._lock:
            self._asked.append(asked)
        self._open.wait(_HOLD_S)
        if self._status is None:
            return None
        if self._status != 200:
            return self._status, {"error_code": self._status, "message": "planned"}
        if self._welcome and asked.authorization not in self._welcome:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        with self._lock:
            for pattern, find in self._routes.items():
                match = re.fullmatch(pattern, asked.path)
                if match:
                    return find(match.groups())
        return 404, {"error_code": 404, "message": "Could not find resource"}

    def token(self, authorization: str | None) -> tuple[int, Any]:
        """The answer of the token endpoint."""
        if self._status not in (200, None):
            return self._status, {}
        if authorization not in self._clients:
            return 401, {"error": "invalid_client"}
        return 200, {"access_token": self._issued, "token_type": "Bearer", "expires_in": 300}

    def _types(self, _: Sequence[str]) -> tuple[int, Any]:
        return 200, ["JSON", "PROTOBUF", "AVRO"]

    def _by_id(self, parts: Sequence[str]) -> tuple[int, Any]:
        return _confluent(self._schemas.get(int(parts[0])))

    def _by_guid(self, parts: Sequence[str]) -> tuple[int, Any]:
        return _confluent(next((k for k in self._schemas.values() if str(k.guid) == parts[0]), None))

    def _by_version(self, parts: Sequence[str]) -> tuple[int, Any]:
        known = self._version(parts[0], int(parts[1]))
        if known is None:
            return 404, {"error_code": 40402, "message": "Version not found."}
        status, document = _confluent(known)
        return status, document | {"subject": known.subject, "id": known.id, "version": known.version}

    def _version(self, subject: str, version: int) -> Known | None:
        of_subject = (known for known in self._schemas.values() if known.subject == subject)
        return next((known for known in of_subject if known.version == version), None)

    def _info(self, _: Sequence[str]) -> tuple[int, Any]:
        return 200, {"name": "Apicurio Registry (In Memory)"}

    def _content(self, parts: Sequence[str]) -> tuple[int, Any]:
        known = self._named(*parts)
        return _no_content(parts[1]) if known is None else (200, _document(known))

    def _references(self, parts: Sequence[str]) -> tuple[int, Any]:
        known = self._named(*parts)
        return _no_content(parts[1]) if known is None else (200, _artifacts(known))

    def _named(self, kind: str, number: str) -> Known | None:
        return self._schemas.get(int(number) - (_GLOBAL if kind == "globalIds" else 0))

    def _artifact(self, parts: Sequence[str]) -> tuple[int, Any]:
        known = self._version(parts[0], int(parts[1]))
        return _no_content(parts[0]) if known is None else (200, _document(known))

    def _artifact_references(self, parts: Sequence[str]) -> tuple[int, Any]:
        known = self._version(parts[0], int(parts[1]))
        return _no_content(parts[0]) if known is None else (200, _artifacts(known))


def _no_content(id_: str) -> tuple[int, Any]:
    message = f"No content with id/hash '{id_}' was found."
    return 404, {"error_code": 404, "message": message, "name": "ContentNotFoundException"}


def _document(known: Known) -> Any:
    """A schema as Apicurio's own API gives it: nothing around it."""
    return known.text.encode() if known.type == "PROTOBUF" else json.loads(known.text)


def _artifacts(known: Known) -> list[dict[str, Any]]:
    """The references as Apicurio's own API gives them: an artifact is called as its subject, its group is the
    default one, and not named."""
    return [{"artifactId": r.subject, "name": r.name, "version": str(r.version)} for r in known.references]


def _confluent(known: Known | None) -> tuple[int, Any]:
    """A schema as Confluent's API gives it: the type is left out when it is Avro."""
    if known is None:
        return 404, {"error_code": 40403, "message": "Schema not found"}
    document: dict[str, Any] = {"schema": known.text}
    if known.type != "AVRO":
        document["schemaType"] = known.type
    if known.references:
        document["references"] = [
            {"name": r.name, "subject": r.subject, "version": r.version} for r in known.references
        ]
    return 200, document


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    owner: RegistryServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up, or trusts another certificate, is none of the server's trouble."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = 5

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        asked = Asked(path, self.headers["Authorization"], dict(self.headers))
        self._send(self.server.owner.answer(asked))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(self.server.owner.token(self.headers["Authorization"]))

    def _send(self, answer: tuple[int, Any] | None) -> None:
        if answer is None:
            return
        status, document = answer
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
