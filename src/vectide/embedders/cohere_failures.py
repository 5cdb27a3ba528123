"""What every error of Cohere's SDK and of its HTTP client means: one function, :func:`failure_of`."""

from __future__ import annotations

import re
from typing import Final

from cohere.core.api_error import ApiError
from cohere.core.parse_error import ParsingError

from vectide.core.failures import Failure, Kind
from vectide.embedders.bounded_http import HTTP_ERRORS, failure_of_http
from vectide.embedders.http_failures import of_status

#: A trial key that has used up its month gets the status of a rate limit.
_MONTH_USED_UP: Final = re.compile(r"calls\s*/\s*month", re.IGNORECASE)

#: What a call through the SDK can raise. It trips over a body that is not even text (ValueError), and over
#: JSON of another shape (TypeError).
ERRORS: Final = (ApiError, ParsingError, *HTTP_ERRORS, ValueError, TypeError)


def failure_of(exc: Exception) -> Failure:
    """The failure that ``exc`` stands for. An exception that nothing here knows is transient
    ``unexpected``: it is retried, never blamed on a record."""
    if isinstance(exc, ApiError):
        return _of_answer(exc)
    if isinstance(exc, ParsingError | TypeError):
        return Failure(Kind.INVALID, "malformed", type(exc).__name__)
    if isinstance(exc, ValueError):
        return Failure(Kind.TRANSIENT, "not_json", type(exc).__name__)
    return failure_of_http(exc)


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
