"""The HTTP port against clients that are slow, greedy or many, and what it says over TLS (case 193)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.certificates import write_certificate

from vectide.core.health import Health
from vectide.ops.http import MAX_BODY_BYTES, MAX_HEAD_BYTES, HttpServer, ListenError, build_app
from vectide.ops.http_connections import Connection, ServerCertificate

TOKEN = "open-sesame"  # noqa: S105
HEALTHY = Health(live=True, ready=True, state="running", reason="")


async def measure(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def server_of(
    *, certificate: ServerCertificate | None = None, connection: type[Connection] = Connection
) -> HttpServer:
    app = build_app(
        lambda: HEALTHY, lambda: b"", token=TOKEN, routes=[Route("/v1/measure", measure, methods=["POST"])]
    )
    return HttpServer(app, port=0, certificate=certificate, connection=connection)


@contextlib.contextmanager
def serving(server: HttpServer) -> Iterator[HttpServer]:
    threads = set(threading.enumerate())
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with serving(server_of()) as server:
        yield server


def live(server: HttpServer) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/livez")
        return connection.getresponse().status


def post(server: HttpServer, body: bytes | Iterator[bytes], token: str = TOKEN) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        headers = {"authorization": f"Bearer {token}"}
        connection.request("POST", "/v1/measure", body, headers, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, response.read()


def ended(client: socket.socket) -> bytes:
    """What a connection still says until the server ends it."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            said += part
    return said


# --- sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MAX_BODY_BYTES])
def test_a_body_may_be_this_large(server: HttpServer, size: int) -> None:
    assert post(server, bytes(size)) == (200, str(size).encode())


def test_a_larger_body_is_refused_whether_it_says_so_or_not(server: HttpServer) -> None:
    assert post(server, bytes(MAX_BODY_BYTES + 1))[0] == 413
    parts = (bytes(2**16) for _ in range(MAX_BODY_BYTES // 2**16 + 1))
    assert post(server, parts)[0] == 413


def test_a_body_without_the_token_is_not_even_read(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        head = f"POST /v1/measure HTTP/1.1\r\nhost: a\r\ncontent-length: {2**60}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("begins", ["GET /", "GET /livez HTTP/1.1\r\nhost: a\r\nx: "])
def test_a_request_that_has_no_end_is_refused(server: HttpServer, begins: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(begins.encode() + b"a" * (MAX_HEAD_BYTES + 1))
        assert ended(client).startswith(b"HTTP/1.1 400 ")
    assert live(server) == 200


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\r\n\r\n\x00", b"GET\x00 / HTTP/9\r\n\r\n"]
)
def test_what_is_no_http_is_refused(server: HttpServer, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(noise + b"\r\n\r\n")
        assert ended(client).startswith(b"HTTP/1.1 400 ")
    assert live(server) == 200


# --- time -----------------------------------------------------------------------------------------------


class Impatient(Connection):
    request_limit_s = 0.3


@pytest.mark.parametrize(
    "begins",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nx: ",
        b"POST /v1/measure HTTP/1.1\r\nhost: a\r\nauthorization: Bearer open-sesame\r\n"
        b"content-length: 99\r\n\r\n",
    ],
)
def test_a_client_that_sends_drop_by_drop_is_dropped(begins: bytes) -> None:
    with serving(server_of(connection=Impatient)) as server:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        stopped = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                client.sendall(begins)
                while begins and not stopped.wait(0.05):
                    client.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert ended(client) == b""
        stopped.set()
        dripping.join()
        client.close()
        assert live(server) == 200


def test_each_request_of_a_kept_connection_has_the_time_anew() -> None:
    with serving(server_of(connection=Impatient)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        began_s, answers = time.monotonic(), 0
        with contextlib.closing(connection):
            while time.monotonic() < began_s + 3 * Impatient.request_limit_s:
                connection.request("GET", "/livez")
                assert connection.getresponse().read()
                answers += 1
        assert answers > 3


class Crowded(Connection):
    max_connections = 8


def test_a_flood_of_connections_does_not_keep_probes_out() -> None:
    with serving(server_of(connection=Crowded)) as server, contextlib.ExitStack() as held:
        address = ("127.0.0.1", server.port)
        crowd = [held.enter_context(socket.create_connection(address, timeout=20)) for _ in range(40)]
        assert live(server) == 200
        for client in crowd[:32]:
            assert ended(client) == b""


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "tls.crt", tmp_path / "tls.key"
    write_certificate(*made)
    return made


def handshake(server: HttpServer, authority: Path) -> bytes:
    """The certificate that is shown to a client who trusts this one."""
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
        context.wrap_socket(client, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert ended(secured).startswith(b"HTTP/1.1 200 ")
        return secured.getpeercert(binary_form=True) or b""


def certificate_of(files: tuple[Path, Path], failures: list[str]) -> ServerCertificate:
    return ServerCertificate(str(files[0]), str(files[1]), failures.append)


def test_with_a_certificate_https_is_spoken_and_nothing_else(files: tuple[Path, Path]) -> None:
    failures: list[str] = []
    with serving(server_of(certificate=certificate_of(files, failures))) as server:
        assert handshake(server, files[0])
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"HTTP/1.1" not in ended(plain)
        unnamed = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unnamed.check_hostname, unnamed.verify_mode = False, ssl.CERT_NONE
        unnamed.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
            unnamed.wrap_socket(client) as secured,  # as probes do: no name, no authority
        ):
            assert secured.version() == "TLSv1.2"
    assert failures == []


@pytest.mark.parametrize("begins", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_client_that_does_not_end_the_handshake_is_dropped(files: tuple[Path, Path], begins: bytes) -> None:
    server = server_of(certificate=certificate_of(files, []), connection=Impatient)
    with serving(server), socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(begins)
        assert ended(client) == b""  # asyncio's own limit is longer than this waits
        assert handshake(server, files[0])


def test_a_certificate_that_was_renewed_is_shown_from_the_next_connection_on(
    files: tuple[Path, Path],
) -> None:
    failures: list[str] = []
    with serving(server_of(certificate=certificate_of(files, failures))) as server:
        first = handshake(server, files[0])
        write_certificate(*files)
        second = handshake(server, files[0])
        assert second != first
        assert handshake(server, files[0]) == second
    assert failures == []


def test_a_half_renewed_certificate_is_told_and_the_old_one_stays(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    failures: list[str] = []
    old = tmp_path / "old.crt"
    old.write_bytes(files[0].read_bytes())
    with serving(server_of(certificate=certificate_of(files, failures))) as server:
        first = handshake(server, old)
        new = tmp_path / "new.crt", tmp_path / "new.key"
        write_certificate(*new)
        new[0].replace(files[0])
        assert handshake(server, old) == first
        assert len(failures) == 1
        assert "key values mismatch" in failures[0]
        files[1].unlink()
        assert handshake(server, old) == first
        assert failures[1] == f"{files[1]}: No such file or directory"
        new[1].replace(files[1])
        assert handshake(server, files[0]) != first
    assert len(failures) == 2


def test_files_that_are_no_certificate_and_its_key_are_refused_at_start(files: tuple[Path, Path]) -> None:
    certificate, key = files
    for wrong in (key, certificate.with_name("absent.crt")):
        with pytest.raises(ListenError, match=rf"VECTIDE_HTTP__CERTIFICATE_PATH: .*{wrong.name}"):
            server_of(certificate=certificate_of((wrong, key), [])).start()
    write_certificate(certificate, key, password=b"sesame")
    with pytest.raises(ListenError, match="without a password"):
        server_of(certificate=certificate_of(files, [])).start()
