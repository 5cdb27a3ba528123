"""What lies below the HTTP application: connections that end, and the certificate they are served with."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Time from the connection, or from the answer before, to the end of an answer. With TLS the handshake, which
#: comes before, has as long for itself.
REQUEST_LIMIT_S: Final = 30.0
#: One more than this, and the connection whose request began first is dropped.
MAX_CONNECTIONS: Final = 256


class CertificateError(Exception):
    """The certificate cannot be used. The message is one line for the operator."""


class Connection(H11Protocol):
    """A connection of uvicorn's that neither lasts for ever nor keeps others out.

    A client that sends or reads too slowly is dropped. Of too many connections the oldest goes, so that
    a flood does not keep probes out: those are answered at once.
    """

    request_limit_s = REQUEST_LIMIT_S
    max_connections = MAX_CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, and the time begins."""
        super().connection_made(transport)
        self.began_s = self.loop.time()
        self._limit = self.loop.call_later(self.request_limit_s, transport.abort)
        ours = [each for each in self.connections if isinstance(each, Connection)]
        if len(ours) > self.max_connections:
            oldest = min(ours, key=lambda each: each.began_s)
            self.connections.discard(oldest)  # its end comes later, and others may come before
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's, and nothing is left behind."""
        self._limit.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """uvicorn's, and the time begins anew."""
        self._limit.cancel()
        self.began_s = self.loop.time()
        self._limit = self.loop.call_later(self.request_limit_s, self.transport.abort)
        super().on_response_complete()


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's, whose TLS servers drop who has not ended the handshake in ``handshake_limit_s``.

    Until then there is no :class:`Connection` that would do so.
    """

    def __init__(self, handshake_limit_s: float) -> None:
        super().__init__()
        self._handshake_limit_s = handshake_limit_s

    async def create_server(self, *args: Any, **more: Any) -> asyncio.Server:
        """asyncio's, with the limit."""
        if more.get("ssl") is not None:
            more["ssl_handshake_timeout"] = self._handshake_limit_s
        return await super().create_server(*args, **more)


class ServerCertificate:
    """A certificate with its key, in PEM files that are read again when they have changed.

    Each handshake looks at the files. While they cannot be used (one of the two was replaced, and the other
    not yet) the old certificate stays; ``on_failure`` is told why.
    """

    def __init__(self, certificate_path: str, key_path: str, on_failure: Callable[[str], None]) -> None:
        self._paths = (certificate_path, key_path)
        self._on_failure = on_failure
        self._seen: object = None
        self._newest = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def context(self) -> ssl.SSLContext:
        """For the server. Raises :class:`CertificateError` where the files cannot be used."""
        self._seen = self._look()
        self._newest = self._load()
        context = self._load()
        context.sni_callback = self._hand_over
        return context

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: Any) -> None:
        try:
            if (now := self._look()) != self._seen:
                self._newest, self._seen = self._load(), now
        except CertificateError as error:
            self._on_failure(str(error))
        connection.context = self._newest

    def _look(self) -> object:
        try:
            found = [os.stat(path) for path in self._paths]
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password it would be asked for at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            why = (error.reason or str(error)).replace("_", " ").lower()
            raise CertificateError(
                f"{certificate} and {key} are no PEM certificate and its key, without a password: {why}"
            ) from None
        except OSError as error:
            raise CertificateError(f"{certificate} or {key}: {error.strerror}") from None
        return context
