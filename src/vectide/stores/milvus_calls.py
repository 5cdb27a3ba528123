"""Calls to a server of Milvus: the connection, time limits, and what errors mean."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.stores.milvus_errors import failure_of

#: A read sees every write that was confirmed before it.
STRONG: Final = "Strong"

T = TypeVar("T")


class Calls:
    """Of one server. ``api_key``: a token, or ``user:password``. ``ca_file``: certificates to trust instead
    of the public ones."""

    def __init__(self, url: str, *, api_key: str | None, ca_file: str | None, database: str) -> None:
        if not url.startswith(("http://", "https://", "tcp://")):
            raise StartupRefused("the URL of the milvus store must start with http:// or https://")
        # It logs what it sends when something fails; the service logs failures without content.
        logging.getLogger("pymilvus").disabled = True
        logging.getLogger("pymilvus.decorators").disabled = True
        self._settings: dict[str, Any] = {"uri": url, "token": api_key or "", "db_name": database}
        if ca_file is not None:
            self._settings |= {"server_pem_path": ca_file, "secure": True}
        self._client: Any = None
        self._connecting = threading.Lock()

    def __call__(self, deadline: Deadline, call: Callable[[Any, Mapping[str, Any]], T]) -> T:
        """``call`` gets the client and the limits of the call: its own retries end with the time. The
        original error is not chained: its text may hold row content (invariant 13)."""
        limits = {"timeout": deadline.remaining_s(), "retry_on_rate_limit": False}
        try:
            return call(self._connected(limits["timeout"]), limits)
        except (MilvusException, grpc.RpcError, ValueError, TypeError, RecursionError) as error:
            raise AdapterError(failure_of(error)) from None

    def _connected(self, timeout_s: float) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = MilvusClient(**self._settings, timeout=timeout_s)
            return self._client

    def close(self) -> None:
        """Close the connection."""
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()
