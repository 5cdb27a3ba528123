"""The HTTP interface (version 2) of Chroma: where its documents are, and what its errors are called."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from vectide.core.failures import Kind
from vectide.stores.http_calls import HttpCalls, Told

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


def calls(url: str, *, tenant: str, database: str, api_key: str | None, ca_file: str | None) -> HttpCalls:
    """Calls to one database of one server."""
    base = f"{url.rstrip('/')}/api/v2/tenants/{quote(tenant, safe='')}/databases/{quote(database, safe='')}"
    # What Chroma's cloud wants, and what a proxy in front of one's own server does.
    headers = {"x-chroma-token": api_key, "Authorization": f"Bearer {api_key}"} if api_key else {}
    return HttpCalls("chroma", base, headers=headers, ca_file=ca_file, read_error=read_error)


def read_error(told: Any) -> Told:
    """What an error says."""
    name = str(told["error"])
    return Told(name, str(told.get("message", "")), NAMES.get(name))
