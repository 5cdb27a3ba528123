"""The HTTP surface over a real socket: health in each state, metrics, token, start and stop (case 193)."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vectide.core import signals
from vectide.core.health import Health, health_of
from vectide.core.lifecycle import State, Status
from vectide.ops.http import HttpServer, ListenError, build_app
from vectide.ops.metrics import PrometheusTelemetry

TOKEN = "open-sesame"  # noqa: S105


class Service:
    """A stand-in for the main loop: its status, the age of its last turn, its metrics."""

    def __init__(self) -> None:
        self.status = Status(State.RUNNING)
        self.beat_age_s = 0.1
        self.telemetry = PrometheusTelemetry()

    def health(self) -> Health:
        return health_of(self.status, beat_age_s=self.beat_age_s, max_beat_age_s=60)


async def private(_request: Request) -> Response:
    return JSONResponse({"secret": False})


def server_for(service: Service, *, token: str | None = None, port: int = 0) -> HttpServer:
    app = build_app(
        service.health,
        service.telemetry.exposition,
        exposition_type=service.telemetry.content_type,
        token=token,
        routes=[Route("/v1/private", private)],
    )
    return HttpServer(app, port=port)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(service: Service) -> Iterator[HttpServer]:
    server = server_for(service)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def guarded() -> Iterator[HttpServer]:
    server = server_for(Service(), token=TOKEN)
    server.start()
    yield server
    server.stop()


def get(server: HttpServer, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask(server: HttpServer, path: str) -> tuple[int, Any]:
    status, _, body = get(server, path)
    return status, json.loads(body)


# --- health ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (State.STARTING, 503),
        (State.RUNNING, 200),
        (State.WAITING, 200),
        (State.HALTED, 503),
        (State.STOPPING, 503),
    ],
)
def test_every_state_is_live_and_says_whether_it_is_ready(
    service: Service, server: HttpServer, state: State, ready: int
) -> None:
    """Case 193."""
    service.status = Status(state, "embed: quota_exhausted")
    body = {"live": True, "ready": ready == 200, "state": state.value, "reason": "embed: quota_exhausted"}
    assert ask(server, "/livez") == (200, body)
    assert ask(server, "/readyz") == (ready, body)


def test_a_stalled_main_loop_is_neither_live_nor_ready_and_says_why(
    service: Service, server: HttpServer
) -> None:
    """Case 193."""
    service.beat_age_s = 61
    body = {
        "live": False,
        "ready": False,
        "state": "running",
        "reason": "the main loop has not turned for 61 s (limit 60 s)",
    }
    assert ask(server, "/livez") == (503, body)
    assert ask(server, "/readyz") == (503, body)


def test_health_is_never_cached(server: HttpServer) -> None:
    _, headers, _ = get(server, "/readyz")
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "application/json"
    assert headers["server"] is None


# --- metrics --------------------------------------------------------------------------------------------


def test_metrics_are_served_in_the_prometheus_format(service: Service, server: HttpServer) -> None:
    service.telemetry.count(signals.RECORDS_RECEIVED, 7, topic="naïve")
    status, headers, body = get(server, "/metrics")
    assert status == 200
    assert headers["content-type"] == service.telemetry.content_type
    assert 'vectide_records_received_total{topic="naïve"} 7.0' in body.decode()


def test_an_unknown_path_is_not_found(server: HttpServer) -> None:
    assert get(server, "/nothing")[0] == 404


# --- token ----------------------------------------------------------------------------------------------


def test_without_a_token_everything_is_open(server: HttpServer) -> None:
    assert ask(server, "/v1/private") == (200, {"secret": False})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_and_scrapers_need_no_token(guarded: HttpServer, path: str) -> None:
    assert get(guarded, path)[0] == 200


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"],
)
@pytest.mark.parametrize("path", ["/v1/private", "/nothing", "/livez/../v1/private", "//livez"])
def test_everything_else_is_refused_without_the_token(
    guarded: HttpServer, path: str, given: str | None
) -> None:
    status, headers, body = get(guarded, path, **({} if given is None else {"authorization": given}))
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert TOKEN not in body.decode()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens(guarded: HttpServer, scheme: str) -> None:
    assert get(guarded, "/v1/private", authorization=f"{scheme} {TOKEN}")[0] == 200


# --- start and stop -------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_clear_error(service: Service, server: HttpServer) -> None:
    second = server_for(service, port=server.port)
    with pytest.raises(ListenError, match=rf"cannot listen on 127\.0\.0\.1:{server.port}: .*in use"):
        second.start()
    second.stop()
    assert get(server, "/livez")[0] == 200


def test_a_host_that_is_not_ours_is_one_clear_error(service: Service) -> None:
    server = HttpServer(build_app(service.health, service.telemetry.exposition), host="192.0.2.1", port=0)
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        server.start()


def test_the_port_can_be_taken_again_after_a_stop_and_stopping_is_quick(service: Service) -> None:
    first = server_for(service)
    first.start()
    get(first, "/livez")
    began = time.monotonic()
    first.stop()
    first.stop()
    assert time.monotonic() - began < 2
    second = server_for(service, port=first.port)
    second.start()
    assert get(second, "/livez")[0] == 200
    second.stop()


def test_a_client_that_keeps_its_connection_does_not_hold_up_a_stop(service: Service) -> None:
    threads = set(threading.enumerate())
    server = server_for(service)
    server.start()
    idle = socket.create_connection(("127.0.0.1", server.port))
    busy = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    busy.request("GET", "/livez")
    busy.getresponse().read()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 2.5
    idle.close()
    busy.close()
    assert set(threading.enumerate()) <= threads


def test_stopping_before_starting_is_harmless(service: Service) -> None:
    server_for(service).stop()


def test_signals_stay_with_the_main_thread(service: Service) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = server_for(service)
    server.start()
    assert {number: signal.getsignal(number) for number in before} == before
    server.stop()
    assert {number: signal.getsignal(number) for number in before} == before
