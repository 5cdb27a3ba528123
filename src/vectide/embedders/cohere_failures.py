"""What every error of Cohere's SDK and of its HTTP client means: one function, :func:`failure_of`."""

from __future__ import annotations

import re
from typing import Final

import httpx
from cohere.core.api_error import ApiError
from cohere.core.parse_error import ParsingError

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_failures import of_status

#: A trial key that has used up its month gets the status of a rate limit.
_MONTH_USED_UP: Final = re.compile(r"calls\s*/\s*month", re.IGNORECASE)

#: Exceptions without an HTTP status, most special first.
_BY_CLASS: Final[tuple[tuple[type[Exception], Kind, str], ...]] = (
    (ParsingError, Kind.INVALID, "malformed"),
    (httpx.TimeoutException, Kind.TRANSIENT, "timeout"),
    (httpx.UnsupportedProtocol, Kind.OPERATOR, "bad_url"),
    (httpx.TooManyRedirects, Kind.OPERATOR, "bad_url"),
    (httpx.InvalidURL, Kind.OPERATOR, "bad_url"),
    (httpx.HTTPError, Kind.TRANSIENT, "connection"),
    (httpx.StreamError, Kind.TRANSIENT, "connection"),
    (httpx.CookieConflict, Kind.TRANSIENT, "connection"),
    (OSError, Kind.TRANSIENT, "connection"),
    (ValueError, Kind.TRANSIENT, "not_json"),
    (TypeError, Kind.INVALID, "malformed"),
)

#: What a call through the SDK can raise. It trips over a body that is not even text (ValueError), and over
#: JSON of another shape (TypeError).
ERRORS: Final = (
    ApiError,
    ParsingError,
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    OSError,
    ValueError,
    TypeError,
)


def failure_of(exc: Exception) -> Failure:
    """The failure that ``exc`` stands for. An exception that nothing here knows is transient
    ``unexpected``: it is retried, never blamed on a record."""
    if isinstance(exc, ApiError):
        return _of_answer(exc)
    for known, kind, cause in _BY_CLASS:
        if isinstance(exc, known):
            return Failure(kind, cause, type(exc).__name__)
    return Failure(Kind.TRANSIENT, "unexpected", type(exc).__name__)


def _of_answer(exc: ApiError) -> Failure:
    status = exc.status_code
    if status is None or 200 <= status < 300:  # the SDK could not read a good answer
        return Failure(Kind.TRANSIENT, "not_json", f"status {status}")
    message = exc.body.get("message") if isinstance(exc.body, dict) else None
    message = message if isinstance(message, str) else ""
    if status == 429 and _MONTH_USED_UP.search(message):
        return Failure(Kind.OPERATOR, "quota_exhausted", f"status {status}")
    headers = {name.lower(): value for name, value in (exc.headers or {}).items()}
    return of_status(status, headers, message=message)
