"""Clients that one call at a time uses: an SDK's own sharing between threads is not relied on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What has connections of its own."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Leases(Generic[C]):
    """As many clients as calls run at the same time; ``make`` makes one more."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._idle: list[C] = []
        self._closed = False

    @contextmanager
    def lease(self) -> Iterator[C]:
        """A client for the caller alone."""
        try:
            client = self._idle.pop()  # the last one used: its connection is the least likely to be stale
        except IndexError:
            client = self._make()
        try:
            yield client
        finally:
            if self._closed:
                client.close()
            else:
                self._idle.append(client)

    def close(self) -> None:
        """Close the idle ones; calls still running close theirs when they end."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
