"""What every error of the openai SDK and of its HTTP client means: one function, :func:`failure_of`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import httpx2
import openai

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_failures import of_status

#: Exceptions without an HTTP status, most special first.
_BY_CLASS: Final[tuple[tuple[type[Exception], Kind, str], ...]] = (
    (openai.APITimeoutError, Kind.TRANSIENT, "timeout"),
    (httpx2.TimeoutException, Kind.TRANSIENT, "timeout"),
    (openai.APIConnectionError, Kind.TRANSIENT, "connection"),
    (openai.APIResponseValidationError, Kind.INVALID, "malformed"),
    (openai.LengthFinishReasonError, Kind.INVALID, "malformed"),
    (openai.ContentFilterFinishReasonError, Kind.REFUSED, "refused"),
    (openai.WebSocketConnectionClosedError, Kind.TRANSIENT, "connection"),
    (openai.WebSocketQueueFullError, Kind.TRANSIENT, "connection"),
    (openai.InvalidWebhookSignatureError, Kind.INVALID, "malformed"),
    (httpx2.DecodingError, Kind.TRANSIENT, "connection"),
    (httpx2.UnsupportedProtocol, Kind.OPERATOR, "bad_url"),
    (httpx2.TooManyRedirects, Kind.OPERATOR, "bad_url"),
    (httpx2.InvalidURL, Kind.OPERATOR, "bad_url"),
    (httpx2.CookieConflict, Kind.TRANSIENT, "connection"),
    (httpx2.HTTPError, Kind.TRANSIENT, "connection"),
    (httpx2.StreamError, Kind.TRANSIENT, "connection"),
    (OSError, Kind.TRANSIENT, "connection"),
)

#: Classes that the SDK does not export.
_BY_NAME: Final[dict[str, tuple[Kind, str]]] = {
    "SubjectTokenProviderError": (Kind.OPERATOR, "unauthorized"),
}

#: What a call through the SDK can raise.
ERRORS: Final = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.StreamError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    OSError,
)


def failure_of(exc: Exception, wall_s: Callable[[], float] = time.time) -> Failure:
    """The failure that ``exc`` stands for. An exception that nothing here knows is transient
    ``unexpected``: it is retried, never blamed on a record."""
    if isinstance(exc, openai.APIStatusError):
        return of_status(exc.status_code, exc.response.headers, (exc.code, exc.type), exc.message, wall_s)
    for known, kind, cause in _BY_CLASS:
        if isinstance(exc, known):
            return Failure(kind, cause, type(exc).__name__)
    name = type(exc).__name__
    kind, cause = _BY_NAME.get(name, (Kind.TRANSIENT, "unexpected"))
    return Failure(kind, cause, name)
