"""Calls to a server of Qdrant: connections, time limits, and what errors mean."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from typing import Final, TypeVar

import certifi
import httpx
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.stores.leases import Leases
from vectide.stores.qdrant_errors import failure_of

#: Of the few calls that take no time limit of their own.
_TIMEOUT_S: Final = 10

T = TypeVar("T")


class Calls:
    """Of one server. ``api_key``: a key or a token. ``ca_file``: certificates to trust instead of the public
    ones."""

    def __init__(self, url: str, *, api_key: str | None, ca_file: str | None) -> None:
        try:
            trusted = ssl.create_default_context(cafile=ca_file or certifi.where())
        except OSError as error:
            raise StartupRefused(f"the qdrant store cannot read {ca_file}: {error}") from None

        def connect() -> QdrantClient:
            return QdrantClient(
                url=url,
                port=6333,
                # As the client itself would send it, without its warning about plain HTTP.
                headers={"api-key": api_key} if api_key else None,
                timeout=_TIMEOUT_S,
                check_compatibility=False,
                verify=trusted,
                # Its own choice for a server on this machine is a new connection for every call.
                limits=httpx.Limits(max_connections=1),
            )

        self._clients = Leases(connect)
        try:
            with self._clients.lease():
                """An address that is no good shows now."""
        except ValueError as error:
            raise StartupRefused(f"the qdrant store cannot use its URL: {error}") from None

    def __call__(self, deadline: Deadline, call: Callable[[QdrantClient, int], T]) -> T:
        """``call`` gets its time limit in whole seconds, rounded up. The original error is not chained: its
        text may hold row content (invariant 13)."""
        try:
            with self._clients.lease() as client:
                return call(client, max(1, math.ceil(deadline.remaining_s())))
        except (
            ApiException,
            QdrantException,
            httpx.HTTPError,
            ValueError,
            TypeError,
            RecursionError,
        ) as error:
            raise AdapterError(failure_of(error)) from None

    def close(self) -> None:
        """Close the connections; calls still running keep theirs until they end."""
        self._clients.close()
