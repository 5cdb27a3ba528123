"""An HTTP client that reads an answer within its call's deadline, and within bounds; what its errors mean.

Of itself it knows one time limit for each wait, none for a call, and neither does an SDK that calls it; the
deadline therefore travels beside it, in the thread that calls.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_answers import CONNECT_S, KEEPALIVE_S, read
from vectide.ports import Deadline

#: Of a body that has been decoded and is there as a whole.
_DONE_WITH: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


#: Its exceptions, which have no HTTP status; most special first.
_BY_CLASS: Final[tuple[tuple[type[Exception], Kind, str], ...]] = (
    (httpx.TimeoutException, Kind.TRANSIENT, "timeout"),
    (httpx.UnsupportedProtocol, Kind.OPERATOR, "bad_url"),
    (httpx.TooManyRedirects, Kind.OPERATOR, "bad_url"),
    (httpx.InvalidURL, Kind.OPERATOR, "bad_url"),
    (httpx.HTTPError, Kind.TRANSIENT, "connection"),
    (httpx.StreamError, Kind.TRANSIENT, "connection"),
    (httpx.CookieConflict, Kind.TRANSIENT, "connection"),
    (OSError, Kind.TRANSIENT, "connection"),
)

#: What a call can raise.
HTTP_ERRORS: Final = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, httpx.CookieConflict, OSError)


def failure_of_http(exc: Exception) -> Failure:
    """The failure that ``exc`` stands for. An exception that nothing here knows is transient
    ``unexpected``: it is retried, never blamed on a record."""
    for known, kind, cause in _BY_CLASS:
        if isinstance(exc, known):
            return Failure(kind, cause, type(exc).__name__)
    return Failure(Kind.TRANSIENT, "unexpected", type(exc).__name__)


class BoundedClient(httpx.Client):
    """Sends only inside :meth:`bounds`. Raises there what :func:`~vectide.embedders.http_answers.read`
    raises, too."""

    def __init__(self, concurrency: int) -> None:
        super().__init__(
            limits=httpx.Limits(
                max_connections=None,  # the callers are bounded; a call never queues for a connection
                max_keepalive_connections=concurrency + 1,
                keepalive_expiry=KEEPALIVE_S,
            )
        )
        self._bounds = threading.local()

    @contextmanager
    def bounds(self, deadline: Deadline, most_bytes: int) -> Iterator[None]:
        """The bounds of what this thread sends meanwhile."""
        self._bounds.now = (deadline, most_bytes)
        try:
            yield
        finally:
            del self._bounds.now

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """As in the base class; the whole answer has been read."""
        deadline, most_bytes = self._bounds.now
        remaining_s = deadline.remaining_s()
        waits = dict.fromkeys(("read", "write", "pool"), remaining_s)
        request.extensions["timeout"] = {**waits, "connect": min(CONNECT_S, remaining_s)}
        response = super().send(request, **{**options, "stream": True})
        try:
            body = read(response, most_bytes, deadline)
        finally:
            response.close()
        headers = [(name, value) for name, value in response.headers.items() if name not in _DONE_WITH]
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)
