"""The HTTP surface: health, metrics, and whatever routes it is given; in a thread of its own."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vectide.core.health import Health
from vectide.ops.http_connections import CertificateError, Connection, EventLoop, ServerCertificate

#: What probes and scrapers read without a token: these answers hold nothing secret.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics"})

#: Most bytes of a request: its line with its headers, and its body.
MAX_HEAD_BYTES: Final = 16 * 2**10
MAX_BODY_BYTES: Final = 2**20

_KEEP_ALIVE_S: Final = 5
_START_LIMIT_S: Final = 10.0
_STOP_LIMIT_S: Final = 3.0


class ListenError(Exception):
    """The address cannot be listened on. The message is one line for the operator."""


def build_app(
    health: Callable[[], Health],
    exposition: Callable[[], bytes],
    *,
    exposition_type: str = "text/plain; charset=utf-8",
    token: str | None = None,
    routes: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """The application. ``health`` and ``exposition`` are called from the server's thread and must be quick.

    With a ``token`` everything except :data:`OPEN_PATHS` demands ``Authorization: Bearer <token>``.
    """

    async def livez(_request: Request) -> Response:
        """Alive? 503 only while the main loop stands still, which a restart mends. The answer is JSON:
        `live`, `ready`, `state`, and the `reason` where there is one."""
        now = health()
        return _answer(now, ok=now.live)

    async def readyz(_request: Request) -> Response:
        """Ready? 503 while it starts, is halted or stops. The answer is that of `/livez`."""
        now = health()
        return _answer(now, ok=now.ready)

    async def metrics(_request: Request) -> Response:
        """All metrics, in the Prometheus text format."""
        return Response(exposition(), headers={"content-type": exposition_type})

    app = Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics), *routes],
        max_body_size=MAX_BODY_BYTES,
    )
    return app if token is None else _RequireToken(app, token)


def _answer(health: Health, *, ok: bool) -> Response:
    body = {"live": health.live, "ready": health.ready, "state": health.state, "reason": health.reason}
    return JSONResponse(body, status_code=200 if ok else 503, headers={"cache-control": "no-store"})


class _RequireToken:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = b"bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse(
            {"error": "a bearer token is required"}, status_code=401, headers={"www-authenticate": "Bearer"}
        )
        await refusal(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, credentials = given.partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + credentials.strip(), self._expected)


class HttpServer:
    """Serves an application from a daemon thread until :meth:`stop`. Installs no signal handlers.

    ``port`` 0 takes a free one; :attr:`port` tells which. With a ``certificate`` it speaks TLS and nothing
    else. ``connection`` is the class of its connections.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        certificate: ServerCertificate | None = None,
        connection: type[Connection] = Connection,
    ) -> None:
        self._host = host
        self._port = port
        self._certificate = certificate
        self._started = threading.Event()
        self._socket: socket.socket | None = None
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._config = uvicorn.Config(
            app,
            http=connection,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_S,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(self._config, self._started)
        self._loop = partial(EventLoop, connection.request_limit_s)
        self._thread = threading.Thread(target=self._serve, name="vectide-http", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    def start(self) -> None:
        """Listen. Returns when requests are served; raises :class:`ListenError` when the address cannot be
        listened on, or the certificate not be used."""
        if self._certificate is not None:
            self._config.ssl_context_factory = _factory(self._certificate)
        self._socket = _listen(self._host, self._port)
        self._port = int(self._socket.getsockname()[1])
        self._thread.start()
        if not self._started.wait(_START_LIMIT_S) or not self._thread.is_alive():
            raise ListenError(f"the HTTP server on {self._host}:{self._port} did not start")

    def stop(self) -> None:
        """Stop listening, let requests finish for a second, and return. Never raises; may be repeated."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_LIMIT_S)
        if self._socket is not None:
            self._socket.close()

    def _serve(self) -> None:
        assert self._socket is not None
        try:
            with asyncio.Runner(loop_factory=self._loop) as runner:
                runner.run(self._server.serve([self._socket]))
        finally:
            self._started.set()


def _factory(certificate: ServerCertificate) -> Callable[..., ssl.SSLContext]:
    try:
        context = certificate.context()
    except CertificateError as error:
        raise ListenError(f"VECTIDE_HTTP__CERTIFICATE_PATH: {error}") from None
    return lambda *_: context


class _Server(uvicorn.Server):
    """Says when it serves. (uvicorn leaves signals alone outside the main thread.)"""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._started_event = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started_event.set()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}: "
            "set VECTIDE_HTTP__HOST and VECTIDE_HTTP__PORT to a free address of this machine"
        ) from None
