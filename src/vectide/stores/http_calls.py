"""Calls of the stores whose HTTP interface is spoken directly, and what errors mean for the driver.

Such a store's own client has no time limits, or cannot be kept from trying again, or takes seconds to import;
the interface is a dozen JSON documents.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import certifi
import httpx

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.stores.leases import Leases

STATUSES: Final[dict[int, tuple[Kind, str]]] = {
    400: (Kind.REFUSED, "data"),
    401: (Kind.OPERATOR, "credentials"),
    402: (Kind.OPERATOR, "quota"),
    403: (Kind.OPERATOR, "permission"),
    404: (Kind.OPERATOR, "collection_missing"),
    408: (Kind.TRANSIENT, "timeout"),
    409: (Kind.TRANSIENT, "conflict"),
    412: (Kind.OPERATOR, "precondition"),
    413: (Kind.TOO_LARGE, "too_large"),
    422: (Kind.REFUSED, "data"),
    425: (Kind.TRANSIENT, "overloaded"),
    429: (Kind.THROTTLED, "throttled"),
    507: (Kind.OPERATOR, "disk_full"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the document of an error says. ``means`` None: its status decides."""

    name: str = ""
    words: str = ""
    means: tuple[Kind, str] | None = None


#: Reads the document of an error. What it raises for one of another shape (LookupError, TypeError,
#: AttributeError) counts as no document.
ReadError = Callable[[Any], Told]


class HttpCalls:
    """Calls to one server of the store ``kind``. Raises only :class:`AdapterError`.

    ``headers`` go with each call. ``ca_file``: certificates to trust instead of the public ones.
    """

    def __init__(
        self, kind: str, url: str, *, headers: Mapping[str, str], ca_file: str | None, read_error: ReadError
    ) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise StartupRefused(f"the URL of the {kind} store must start with http:// or https://")
        try:
            trusted = ssl.create_default_context(cafile=ca_file or certifi.where())
        except OSError as error:
            raise StartupRefused(f"the {kind} store cannot read {ca_file}: {error}") from None
        self._kind = kind
        self._base = url.rstrip("/")
        self._read_error = read_error
        self._clients = Leases(lambda: httpx.Client(headers=dict(headers), verify=trusted))

    def call(self, method: str, path: str, deadline: Deadline, body: Any = None) -> Any:
        """The document that answers, None where there is none; ``path`` begins behind the URL. The original
        error is not chained: its text may hold row content (invariant 13)."""
        answer = self.answer(method, path, deadline, body)
        try:
            return answer.json() if answer.content else None
        except json.JSONDecodeError:  # a proxy in between, or one cut short
            raise AdapterError(Failure(Kind.TRANSIENT, "answer", "an answer that is not JSON")) from None

    def answer(self, method: str, path: str, deadline: Deadline, body: Any = None) -> httpx.Response:
        """As :meth:`call`, with the headers of the answer."""
        if deadline.passed:  # the client waits for no time at all then, which can be enough
            raise AdapterError(Failure(Kind.TRANSIENT, "timeout", "no time is left for the call"))
        try:
            content = None if body is None else _JSON.encode(body).encode()
            with (
                self._clients.lease() as client,
                client.stream(
                    method,
                    f"{self._base}/{path}",
                    content=content,
                    headers={"Content-Type": "application/json"} if content is not None else None,
                    timeout=deadline.remaining_s(),
                ) as coming,
            ):
                answer = _read(coming, deadline)
        except httpx.HTTPError as error:
            raise AdapterError(failure_of_transport(error, self._kind)) from None
        except (ValueError, TypeError, RecursionError) as error:
            detail = f"{type(error).__name__} while encoding"
            raise AdapterError(Failure(Kind.REFUSED, "data", detail)) from None
        if answer.status_code >= 300:
            raise AdapterError(failure_of(answer, self._kind, self._read_error))
        return answer

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._clients.close()


def _read(coming: httpx.Response, deadline: Deadline) -> httpx.Response:
    """The whole answer. The client's limit is for each wait alone: an answer in drips would never meet it."""
    parts = []
    for part in coming.iter_bytes():
        if deadline.passed:
            raise httpx.ReadTimeout("the answer came too slowly")
        parts.append(part)
    headers = [(name, value) for name, value in coming.headers.items() if name not in _DONE_WITH]
    return httpx.Response(coming.status_code, headers=headers, content=b"".join(parts))


#: Headers of the answer as it was sent, which the one that was read is not any more.
_DONE_WITH: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
#: Made once: json.dumps makes a new one for every call that asks for anything special.
_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def failure_of(answer: httpx.Response, kind: str, read_error: ReadError) -> Failure:
    """What an answer that is an error means. The detail holds no row content: what the server says about
    data (kind REFUSED) is reduced to its status."""
    status = answer.status_code
    try:
        told = read_error(answer.json())
    except (ValueError, LookupError, TypeError, AttributeError):
        told = Told(words=answer.text[:200])
    reaction, cause = told.means or STATUSES.get(status) or _of_class(status, kind)
    detail = f"HTTP {status} {told.name}".rstrip()
    if reaction is not Kind.REFUSED:
        detail = f"{detail}: {' '.join(told.words.split())[:300]}"
    return Failure(reaction, cause, detail, _retry_after_s(answer))


def failure_of_transport(error: httpx.HTTPError, kind: str) -> Failure:
    """What it means when no answer came."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    match error:
        case httpx.TimeoutException():
            return Failure(Kind.TRANSIENT, "timeout", words)
        case httpx.UnsupportedProtocol() | httpx.TooManyRedirects():
            return Failure(Kind.OPERATOR, f"not_{kind}", words)
        case _ if "CERTIFICATE_VERIFY_FAILED" in words:
            return Failure(Kind.OPERATOR, "tls", words)
        case httpx.DecodingError():
            return Failure(Kind.TRANSIENT, "answer", words)
        case _:
            return Failure(Kind.TRANSIENT, "connection", words)


def _of_class(status: int, kind: str) -> tuple[Kind, str]:
    """Anything else below 500 is not what such a server says: the address is another service's."""
    return (Kind.TRANSIENT, "server_error") if status >= 500 else (Kind.OPERATOR, f"not_{kind}")


def _retry_after_s(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
