"""Calls of the Chroma store: its HTTP interface (version 2), and what its errors mean for the driver.

The interface is spoken directly: Chroma's own client has no time limits, and brings a hundred packages.
"""

from __future__ import annotations

import json
import ssl
from typing import Any, Final
from urllib.parse import quote

import certifi
import httpx

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.stores.leases import Leases

#: By the name of the error in the answer's body; it tells more than the status.
NAMES: Final[dict[str, tuple[Kind, str]]] = {
    "InvalidDimension": (Kind.REFUSED, "data"),
    "InvalidArgumentError": (Kind.REFUSED, "data"),
    "IDAlreadyExists": (Kind.REFUSED, "data"),
    "DuplicateID": (Kind.REFUSED, "data"),
    "InvalidUUID": (Kind.REFUSED, "data"),
    "InvalidHTTPVersion": (Kind.OPERATOR, "not_chroma"),
    "AuthorizationError": (Kind.OPERATOR, "credentials"),
    "AuthError": (Kind.OPERATOR, "permission"),
    "NotFoundError": (Kind.OPERATOR, "collection_missing"),
    "BatchSizeExceededError": (Kind.TOO_LARGE, "too_large"),
    "VersionMismatchError": (Kind.OPERATOR, "not_chroma"),
    "RateLimitError": (Kind.THROTTLED, "throttled"),
    "UniqueConstraintError": (Kind.TRANSIENT, "conflict"),
    "QuotaError": (Kind.OPERATOR, "quota"),
    "InternalError": (Kind.TRANSIENT, "server_error"),
}

STATUSES: Final[dict[int, tuple[Kind, str]]] = {
    400: (Kind.REFUSED, "data"),
    401: (Kind.OPERATOR, "credentials"),
    403: (Kind.OPERATOR, "permission"),
    404: (Kind.OPERATOR, "collection_missing"),
    408: (Kind.TRANSIENT, "timeout"),
    409: (Kind.TRANSIENT, "conflict"),
    413: (Kind.TOO_LARGE, "too_large"),
    422: (Kind.REFUSED, "data"),
    429: (Kind.THROTTLED, "throttled"),
    507: (Kind.OPERATOR, "disk_full"),
}


class ChromaHttp:
    """Calls to one database of one server. Raises only :class:`AdapterError`."""

    def __init__(
        self, url: str, *, tenant: str, database: str, api_key: str | None, ca_file: str | None
    ) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise StartupRefused("the URL of the chroma store must start with http:// or https://")
        self._base = (
            f"{url.rstrip('/')}/api/v2/tenants/{quote(tenant, safe='')}/databases/{quote(database, safe='')}"
        )
        # What Chroma's cloud wants, and what a proxy in front of one's own server does.
        headers = {"x-chroma-token": api_key, "Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            trusted = ssl.create_default_context(cafile=ca_file or certifi.where())
        except OSError as error:
            raise StartupRefused(f"the chroma store cannot read {ca_file}: {error}") from None
        self._clients = Leases(lambda: httpx.Client(headers=headers, verify=trusted))

    def call(self, method: str, path: str, deadline: Deadline, body: Any = None) -> Any:
        """The document that answers; ``path`` begins behind the database. The original error is not chained:
        its text may hold row content (invariant 13)."""
        try:
            content = None if body is None else _JSON.encode(body).encode()
            with self._clients.lease() as client:
                answer = client.request(
                    method,
                    f"{self._base}/{path}",
                    content=content,
                    headers={"Content-Type": "application/json"} if content is not None else None,
                    timeout=deadline.remaining_s(),
                )
            if answer.status_code >= 300:
                raise AdapterError(failure_of(answer))
            return answer.json()
        except httpx.HTTPError as error:
            raise AdapterError(failure_of_transport(error)) from None
        except json.JSONDecodeError:  # a proxy in between, or one cut short
            raise AdapterError(Failure(Kind.TRANSIENT, "answer", "an answer that is not JSON")) from None
        except (ValueError, TypeError, RecursionError) as error:
            detail = f"{type(error).__name__} while encoding"
            raise AdapterError(Failure(Kind.REFUSED, "data", detail)) from None

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._clients.close()


#: Made once: json.dumps makes a new one for every call that asks for anything special.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def failure_of(answer: httpx.Response) -> Failure:
    """What an answer that is an error means. The detail holds no row content: what the server says about
    data (kind REFUSED) is reduced to its status."""
    status = answer.status_code
    try:
        told = answer.json()
        name, words = str(told["error"]), str(told.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        name, words = "", answer.text[:200]
    kind, cause = NAMES.get(name) or STATUSES.get(status) or _of_class(status)
    detail = f"HTTP {status} {name}".rstrip()
    if kind is not Kind.REFUSED:
        detail = f"{detail}: {' '.join(words.split())[:300]}"
    return Failure(kind, cause, detail, _retry_after_s(answer))


def failure_of_transport(error: httpx.HTTPError) -> Failure:
    """What it means when no answer came."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    match error:
        case httpx.TimeoutException():
            return Failure(Kind.TRANSIENT, "timeout", words)
        case httpx.UnsupportedProtocol() | httpx.TooManyRedirects():
            return Failure(Kind.OPERATOR, "not_chroma", words)
        case _ if "CERTIFICATE_VERIFY_FAILED" in words:
            return Failure(Kind.OPERATOR, "tls", words)
        case httpx.DecodingError():
            return Failure(Kind.TRANSIENT, "answer", words)
        case _:
            return Failure(Kind.TRANSIENT, "connection", words)


def _of_class(status: int) -> tuple[Kind, str]:
    """Anything else below 500 is not what a Chroma server says: the address is another service's."""
    return (Kind.TRANSIENT, "server_error") if status >= 500 else (Kind.OPERATOR, "not_chroma")


def _retry_after_s(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
