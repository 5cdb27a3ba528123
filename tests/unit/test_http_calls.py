"""Calls to stores over HTTP: their limits hold, whatever the server does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from vectide.core.failures import Kind
from vectide.jobs.executor import SystemClock
from vectide.ports import AdapterError, Deadline
from vectide.stores.http_calls import HttpCalls, Told

CLOCK = SystemClock()


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that answers one byte at a time, and never ends."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not over.wait(0.02):
                    connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.close()
        thread.join()


def test_an_answer_in_drips_ends_at_the_deadline(dripping: str) -> None:
    calls = HttpCalls("test", dripping, headers={}, ca_file=None, read_error=lambda _document: Told())
    began = CLOCK.monotonic()
    with closing(calls), pytest.raises(AdapterError) as caught:
        calls.call("GET", "x", Deadline.after(CLOCK, 0.5))
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.TRANSIENT, "timeout")
    assert CLOCK.monotonic() - began < 10
