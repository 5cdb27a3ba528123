"""Toxiproxy: what stands between the service and everything that it talks to, and breaks on demand.

Built once from its Go module into the folder of the real stack's jars (:func:`tests.real.jars.home`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType

from tests.real.jars import StackError, StackUnavailable, filled, ran
from tests.real.processes import Child, accepts_connections, free_port

VERSION = "2.12.0"
_MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"


def fetch() -> Path:
    """The program. Raises :class:`StackUnavailable` where it would have to be built and Go is missing."""
    return filled(f"toxiproxy-{VERSION}", _build) / "server"


def _build(into: Path, scratch: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise StackUnavailable("no go on the PATH to build toxiproxy")
    ran(
        [go, "install", "-trimpath", f"{_MODULE}@v{VERSION}"],
        env={**os.environ, "GOBIN": str(into), "CGO_ENABLED": "0"},
    )


class Toxiproxy(AbstractContextManager["Toxiproxy"]):
    """The program, and what it can be told over its API."""

    def __init__(self, program: Path, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._child = Child("toxiproxy", [str(program), "-port", str(self._port)], folder)
        self._child.wait_ready("listens", lambda: accepts_connections(self._port), 30)

    def add(self, name: str, upstream: str, port: int | None = None) -> Proxy:
        """A new proxy on a loopback port (by default a free one) before ``upstream`` (host:port)."""
        port = port or free_port()
        listen = f"127.0.0.1:{port}"
        self.ask("POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream})
        return Proxy(self, name, port)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        """One call of the API; raises :class:`StackError` with its answer when it is refused."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise StackError(f"toxiproxy refused {method} {path}: {response.status} {answer}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()


class Proxy:
    """One way to one server."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, port: int):
        self._toxiproxy = toxiproxy
        self._path = f"/proxies/{name}"
        self.port = port

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._toxiproxy.ask("POST", self._path, {"enabled": False})

    def swallow(self) -> None:
        """Take everything and answer nothing, as a network does that has fallen apart."""
        for stream in ("upstream", "downstream"):
            self._add(stream, "timeout", {"timeout": 0})

    def delay(self, milliseconds: int) -> None:
        """Answer that much later."""
        self._add("downstream", "latency", {"latency": milliseconds, "jitter": milliseconds // 2})

    def cut_after(self, bytes_: int) -> None:
        """End each connection when that much has been answered."""
        self._add("downstream", "limit_data", {"bytes": bytes_})

    def heal(self) -> None:
        """All is well again. Connections that were being swallowed end."""
        self._toxiproxy.ask("POST", self._path, {"enabled": False})
        for stream in ("upstream", "downstream"):
            for kind in ("timeout", "latency", "limit_data"):
                try:
                    self._toxiproxy.ask("DELETE", f"{self._path}/toxics/{kind}_{stream}")
                except StackError as error:
                    if " 404 " not in str(error):
                        raise
        self._toxiproxy.ask("POST", self._path, {"enabled": True})

    def remove(self) -> None:
        self._toxiproxy.ask("DELETE", self._path)

    def _add(self, stream: str, kind: str, attributes: Mapping[str, int]) -> None:
        toxic = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._toxiproxy.ask("POST", f"{self._path}/toxics", toxic)
