"""What an error of the Qdrant client means for the driver: by HTTP status where the server answered, else by
what went wrong on the way there."""

from __future__ import annotations

from json import JSONDecodeError
from typing import Final

import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from vectide.core.failures import Failure, Kind

STATUSES: Final[dict[int, tuple[Kind, str]]] = {
    400: (Kind.REFUSED, "data"),
    401: (Kind.OPERATOR, "credentials"),
    403: (Kind.OPERATOR, "permission"),
    404: (Kind.OPERATOR, "collection_missing"),
    408: (Kind.TRANSIENT, "timeout"),
    409: (Kind.TRANSIENT, "conflict"),
    413: (Kind.TOO_LARGE, "too_large"),
    422: (Kind.REFUSED, "data"),
    425: (Kind.TRANSIENT, "overloaded"),
    429: (Kind.THROTTLED, "throttled"),
    507: (Kind.OPERATOR, "disk_full"),
}

UNMAPPED: Final = Failure(Kind.TRANSIENT, "unmapped")


def failure_of(error: BaseException) -> Failure:
    """The failure that ``error`` means. The detail holds no row content: what the server says about data
    (kind REFUSED) is reduced to its status."""
    match error:
        case ResourceExhaustedResponse():
            asked = float(error.retry_after_s)
            return Failure(Kind.THROTTLED, "throttled", "the server asks to wait", asked)
        case UnexpectedResponse():
            return _of_status(error)
        case ResponseHandlingException():
            return _of_transport(error.source)
        case httpx.HTTPError() | httpx.InvalidURL():
            return _of_transport(error)
        case QdrantException() | ApiException():
            return Failure(Kind.TRANSIENT, "server_error", type(error).__name__)
        case ValidationError() | JSONDecodeError():  # not Qdrant's: a proxy in between, or one cut short
            return Failure(Kind.TRANSIENT, "answer", type(error).__name__)
        case ValueError() | TypeError() | RecursionError():
            return Failure(Kind.REFUSED, "data", f"{type(error).__name__} in the client")
        case _:
            return Failure(UNMAPPED.kind, UNMAPPED.cause, type(error).__name__)


def _of_status(error: UnexpectedResponse) -> Failure:
    status = error.status_code or 0
    kind, cause = STATUSES.get(status) or _of_class(status)
    if kind is Kind.REFUSED:
        return Failure(kind, cause, f"HTTP {status}")
    words = " ".join(error.content[:300].decode("utf-8", "replace").split())
    if status == 404 and "No point with id" in words:  # one that we update has gone meanwhile
        return Failure(Kind.TRANSIENT, "conflict", f"HTTP {status}")
    if status >= 500 and "No space left on device" in words:
        kind, cause = Kind.OPERATOR, "disk_full"
    return Failure(kind, cause, f"HTTP {status}: {words}")


def _of_class(status: int) -> tuple[Kind, str]:
    """Anything else below 500 is not what a Qdrant server says: the address is another service's."""
    return (Kind.TRANSIENT, "server_error") if status >= 500 else (Kind.OPERATOR, "not_qdrant")


def _of_transport(source: BaseException) -> Failure:
    words = f"{type(source).__name__}: {' '.join(str(source).split())}"
    match source:
        case httpx.TimeoutException():
            return Failure(Kind.TRANSIENT, "timeout", words)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL() | httpx.TooManyRedirects():
            return Failure(Kind.OPERATOR, "not_qdrant", words)
        case httpx.TransportError() if "CERTIFICATE_VERIFY_FAILED" in words:
            return Failure(Kind.OPERATOR, "tls", words)
        case httpx.TransportError():
            return Failure(Kind.TRANSIENT, "connection", words)
        case _:
            return Failure(Kind.TRANSIENT, "answer", type(source).__name__)
