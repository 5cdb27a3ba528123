"""A real HTTP server that speaks the APIs of embedding providers, counts its calls, and fails on demand.

In a test::

    with EmbeddingServer(latency_ms=20) as server:
        server.plan(Fault("status", status=429, headers={"Retry-After": "1"}, times=3))
        ...  # point the service at server.url
        assert server.stats().texts_sent_twice == 0

As a process of its own (prints its URL; controlled from anywhere with :class:`RemoteControl`)::

    python -m vectide.testing.embedding_server --port 0 --latency-ms 20

Vectors come from a function of the text alone, by default the one of the hashing embedder; it is named, not
imported, as this package knows no adapter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from vectide.testing.embedding_apis import Call
from vectide.testing.embedding_contract import (
    Answer,
    Contract,
    Vectorise,
    answer,
    refused,
    tokens_of,
)
from vectide.testing.embedding_faults import Counts, Fault, Plan, Stats
from vectide.testing.embedding_limits import Admission, Limiter

__all__ = ["Contract", "EmbeddingServer", "Fault", "RemoteControl", "Stats"]

DEFAULT_VECTORS: Final = "vectide.embedders.hashing:expected_vector"
_PIECES: Final = 20


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    plan: list[Fault] = []
    clear: bool = False
    forget: bool = False
    latency_ms: float | None = None


class EmbeddingServer:
    """The server, in threads of this process. Methods may be called from any thread.

    ``port`` 0 takes a free one. ``vectors`` is the function (or its name, ``module:function``) that makes
    the vectors. ``latency_ms`` may be changed at any time. ``limiter`` refuses what is too much for a
    minute. Starts on construction, stops with
    :meth:`close`, or at the end of a ``with`` block; the same port may then be used again.
    """

    def __init__(
        self,
        contract: Contract | None = None,
        *,
        port: int = 0,
        latency_ms: float = 0,
        record_texts: bool = False,
        vectors: Vectorise | str = DEFAULT_VECTORS,
        limiter: Limiter | None = None,
        **contract_fields: Any,
    ) -> None:
        self.contract = contract or Contract(**contract_fields)
        self.latency_ms = latency_ms
        self.counts = Counts(record_texts=record_texts)
        self.faults = Plan()
        self._limiter = limiter
        self._limiter_lock = threading.Lock()
        self.vectorise = vectors if callable(vectors) else named(vectors)
        self.stopping = threading.Event()
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="embedding-server", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def url(self) -> str:
        """The base URL to configure where the API is OpenAI's, ending in ``/v1``."""
        return f"{self.address}/v1"

    @property
    def address(self) -> str:
        """The URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def plan(self, *faults: Fault) -> None:
        """Faults of the calls to come, after those planned before."""
        self.faults.add(faults)

    def clear(self) -> None:
        """No more faults."""
        self.faults.clear()

    def stats(self) -> Stats:
        return self.counts.stats()

    def texts(self) -> list[str]:
        """Every text received, in order, if ``record_texts`` was set."""
        return self.counts.texts()

    def answered_texts(self) -> list[str]:
        """Every text that was part of a faultless answer, in order, if ``record_texts`` was set."""
        return self.counts.answered_texts()

    def forget(self) -> None:
        """Count from zero again."""
        self.counts.forget()

    def close(self) -> None:
        """Stop listening and cut every connection. Returns when all threads are done."""
        self.stopping.set()
        self._http.shutdown()
        self._http.cut_connections()
        self._http.server_close()
        self._http.wait_for_handlers()
        self._thread.join()

    def __enter__(self) -> EmbeddingServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the handlers ask.

    def admit(self, tokens: int) -> Admission:
        """Whether the limits allow a call of so many tokens now."""
        if self._limiter is None:
            return Admission(True)
        with self._limiter_lock:
            return self._limiter.admit(tokens, time.monotonic())

    def control(self, body: bytes) -> None:
        control = msgspec.json.decode(body, type=_Control)
        if control.clear:
            self.clear()
        if control.forget:
            self.forget()
        if control.latency_ms is not None:
            self.latency_ms = control.latency_ms
        self.plan(*control.plan)


def named(name: str) -> Vectorise:
    """The function called ``module:function``."""
    module, _, function = name.partition(":")
    return cast(Vectorise, getattr(import_module(module), function))


# --- HTTP -----------------------------------------------------------------------------------------------


class _Http(ThreadingHTTPServer):
    request_queue_size = 128
    owner: EmbeddingServer

    def __init__(self, *args: Any) -> None:
        self._handlers: list[threading.Thread] = []
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A daemon thread per connection, as in the base class, but one that can be waited for."""
        handler = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._handlers = [*filter(threading.Thread.is_alive, self._handlers), handler]
        handler.start()

    def keep(self, connection: socket.socket) -> None:
        with self._connections_lock:
            self._connections.add(connection)
        if self.owner.stopping.is_set():  # accepted just before the others were cut
            self.cut_connections()

    def drop(self, connection: socket.socket) -> None:
        with self._connections_lock:
            self._connections.discard(connection)

    def cut_connections(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # gone already

    def wait_for_handlers(self) -> None:
        for handler in self._handlers:
            handler.join(5)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.keep(self.connection)

    def finish(self) -> None:
        self.server.drop(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if self.path != "/stats":
            return self._aside(b"")
        self._send(Answer(200, json.dumps(self.server.owner.counts.as_json()).encode()))

    def do_POST(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.path == "/control":
                owner.control(body)
                return self._send(Answer(200, b"{}"))
            call = owner.contract.api.call(self.path, cast(Mapping[str, str], self.headers), body)
            if call is None:
                return self._aside(body)
        except msgspec.MsgspecError as exc:
            return self._refuse(400, str(exc))
        self._embeddings(call)

    def _aside(self, body: bytes) -> None:
        contract = self.server.owner.contract
        found = contract.api.aside(self.path, body, contract.max_text_tokens)
        if found is None:
            return self._refuse(404, "no such path")
        self._send(Answer(200, json.dumps(found).encode()))

    def _refuse(self, status: int, message: str) -> None:
        self._send(refused(self.server.owner.contract, status, message))

    def _embeddings(self, call: Call) -> None:
        owner, texts = self.server.owner, call.texts
        owner.counts.began(texts, sum(map(tokens_of, texts)))
        try:
            fault = owner.faults.next(texts)
            delay_s = owner.latency_ms / 1000
            if fault is not None and fault.kind == "delay":
                delay_s += fault.every_s
            if delay_s and owner.stopping.wait(delay_s):
                return self._cut()
            if fault is not None and fault.kind == "reset_before":
                return self._reset()
            admission = owner.admit(sum(map(tokens_of, texts)))
            if admission.allowed:
                reply = answer(owner.contract, owner.vectorise, call, fault)
            else:
                reply = refused(owner.contract, 429, "Rate limit reached", "rate_limit_exceeded", "requests")
            reply = replace(reply, headers={**admission.headers, **reply.headers})
            owner.counts.answered(reply.status, reply.answered)
            self._send(reply, fault)
        finally:
            owner.counts.ended()

    def _send(self, answer: Answer, fault: Fault | None = None) -> None:
        body, kind = answer.body, fault.kind if fault else None
        if kind == "cut":
            body = body[: len(body) // 2]
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        match kind:
            case "reset_after":
                self.wfile.flush()
                self._reset()
            case "truncated":
                self.wfile.write(body[: len(body) // 2])
                self._cut()
            case "drip":
                assert fault is not None
                self._drip(body, fault.every_s)
            case _:
                self.wfile.write(body)

    def _drip(self, body: bytes, every_s: float) -> None:
        step = -(-len(body) // _PIECES)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
            if self.server.owner.stopping.wait(every_s):
                return self._cut()

    def _cut(self) -> None:
        self.close_connection = True

    def _reset(self) -> None:
        """RST instead of FIN: linger for no time, then close the descriptor under everybody's feet."""
        self._cut()
        self.server.drop(self.connection)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


class RemoteControl:
    """The server's controls from another process. ``url`` is the server's base URL."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def stats(self) -> Stats:
        return msgspec.json.decode(self._ask("GET", "/stats"), type=Stats)

    def plan(self, *faults: Fault) -> None:
        self._control(plan=[asdict(fault) for fault in faults])

    def clear(self) -> None:
        self._control(clear=True)

    def forget(self) -> None:
        self._control(forget=True)

    def set_latency_ms(self, latency_ms: float) -> None:
        self._control(latency_ms=latency_ms)

    def _control(self, **fields: Any) -> None:
        self._ask("POST", "/control", json.dumps(fields).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = HTTPConnection(self._address, timeout=10)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{path}: {response.status} {answer.decode()}")
        return answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until a signal comes; print the base URL once calls are accepted."""
    parser = argparse.ArgumentParser(description="A test server for the OpenAI embeddings API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--max-items", type=int, default=2048)
    parser.add_argument("--api-key")
    parser.add_argument("--vectors", default=DEFAULT_VECTORS, help="module:function")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    contract = Contract(options.dimensions, api_key=options.api_key, max_items=options.max_items)
    with EmbeddingServer(
        contract, port=options.port, latency_ms=options.latency_ms, vectors=options.vectors
    ) as server:
        print(server.url, flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
