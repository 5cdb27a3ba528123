"""Tokens of Microsoft Entra, for Azure OpenAI without a key: a workload identity, or a client secret.

The client credentials flow of the Microsoft identity platform:
``POST {authority}/{tenant}/oauth2/v2.0/token``, where the client shows either a signed token of its
platform (``client_assertion``: the federated token that Kubernetes renews in a file) or its secret. The
variables are those that Azure's own libraries read, and that the workload identity webhook sets in pods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx2
import msgspec

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_answers import CONNECT_S, read
from vectide.embedders.http_failures import of_status
from vectide.embedders.start import usable_url
from vectide.ports import AdapterError, Deadline, StartupRefused

AUTHORITY: Final = "https://login.microsoftonline.com"
#: What Azure OpenAI's tokens are for (Microsoft's reference of its data plane).
SCOPE: Final = "https://cognitiveservices.azure.com/.default"

_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: A token is renewed so long before it expires, or when half of its life is over if that is later.
_EARLY_S: Final = 300.0
#: How long fetching one may take, and how long a good one serves on before fetching is tried again.
_FETCH_S: Final = 10.0
_PAUSE_S: Final = 30.0
_MOST_BYTES: Final = 1 << 20


class _Answer(msgspec.Struct):
    """Microsoft's reference of the flow: a successful response, and an error."""

    access_token: str = ""
    expires_in: float = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks for tokens: with the token in a file (read anew each time), or with a secret."""

    tenant: str
    client: str
    token_file: str | None = None
    secret: str | None = field(default=None, repr=False)
    authority: str = AUTHORITY


def identity_of(environ: Mapping[str, str]) -> Identity | None:
    """The identity that the environment describes; None where it names no client with a means to show
    itself. Raises :class:`StartupRefused` for an authority that is no address."""
    tenant, client = environ.get("AZURE_TENANT_ID"), environ.get("AZURE_CLIENT_ID")
    token_file, secret = environ.get("AZURE_FEDERATED_TOKEN_FILE"), environ.get("AZURE_CLIENT_SECRET")
    if not (tenant and client and (token_file or secret)):
        return None
    authority = environ.get("AZURE_AUTHORITY_HOST") or AUTHORITY
    if "://" not in authority:
        authority = f"https://{authority}"
    try:
        usable_url(authority)
    except StartupRefused:
        raise StartupRefused(f"AZURE_AUTHORITY_HOST {authority!r} is not an address") from None
    return Identity(tenant, client, token_file, secret, authority.rstrip("/"))


class EntraTokens:
    """The current token of an identity, shared by all threads, and renewed by one of them before it expires.

    Tokens and secrets are in no message. While a token that is still good cannot be renewed, it serves on.
    """

    def __init__(
        self, identity: Identity, http: httpx2.Client, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._identity = identity
        self._http = http
        self._monotonic = monotonic
        self._turn = threading.Lock()
        self._token = ""
        self._renewed_from = self._good_until = 0.0

    def token(self, deadline: Deadline) -> str:
        """A token that is good for now. Raises :class:`AdapterError`: operator ``unauthorized`` where the
        identity is refused, transient where the authority cannot be asked."""
        now = self._monotonic()
        good = now < self._good_until
        if now < self._renewed_from or not self._turn.acquire(timeout=0 if good else deadline.remaining_s()):
            if good:
                return self._token
            raise AdapterError(Failure(Kind.TRANSIENT, "timeout", _told("a token is being fetched")))
        try:
            if self._monotonic() >= self._renewed_from:
                self._renew(deadline)
        except AdapterError:
            if not good:
                raise
            self._renewed_from = min(now + _PAUSE_S, self._good_until)
        finally:
            self._turn.release()
        return self._token

    @property
    def current(self) -> str:
        """What :meth:`token` gave last."""
        return self._token

    def forget(self, token: str) -> None:
        """The provider refused this token: the next call fetches another."""
        with self._turn:
            if token == self._token:
                self._renewed_from = self._good_until = 0.0

    def _renew(self, deadline: Deadline) -> None:
        asked = self._monotonic()
        answer = self._asked(deadline)
        life_s = max(answer.expires_in, 0.0)
        self._token = answer.access_token
        self._good_until = asked + life_s
        self._renewed_from = asked + max(life_s - _EARLY_S, life_s / 2)

    def _asked(self, deadline: Deadline) -> _Answer:
        identity = self._identity
        remaining_s = min(deadline.remaining_s(), _FETCH_S)
        try:
            with self._http.stream(
                "POST",
                f"{identity.authority}/{quote(identity.tenant, safe='')}/oauth2/v2.0/token",
                data=self._form(),
                follow_redirects=False,
                timeout=httpx2.Timeout(remaining_s, connect=min(CONNECT_S, remaining_s)),
            ) as response:
                body = read(response, _MOST_BYTES, deadline)
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as exc:
            # Not chained: the request holds what the client shows of itself.
            raise AdapterError(Failure(Kind.TRANSIENT, "connection", _told(type(exc).__name__))) from None
        return _understood(response.status_code, response.headers, body)

    def _form(self) -> dict[str, str]:
        identity = self._identity
        form = {"grant_type": "client_credentials", "client_id": identity.client, "scope": SCOPE}
        if identity.token_file is None:
            return {**form, "client_secret": identity.secret or ""}
        try:
            assertion = Path(identity.token_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            detail = _told(f"AZURE_FEDERATED_TOKEN_FILE cannot be read: {type(exc).__name__}")
            raise AdapterError(Failure(Kind.OPERATOR, "unauthorized", detail)) from None
        return {**form, "client_assertion_type": _ASSERTION, "client_assertion": assertion}


def _understood(status: int, headers: Mapping[str, str], body: bytes) -> _Answer:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Answer()
    if status == 200:
        if answer.access_token and answer.access_token.isascii() and answer.access_token.isprintable():
            return answer
        raise AdapterError(Failure(Kind.TRANSIENT, "unexpected", _told("an answer without a token")))
    if status in (408, 429) or status >= 500:
        failure = of_status(status, headers)
        raise AdapterError(replace(failure, detail=_told(failure.detail)))
    # The code alone (invalid_client, unauthorized_client): the description beside it may name anything.
    code = answer.error if answer.error.isidentifier() else f"HTTP {status}"
    raise AdapterError(Failure(Kind.OPERATOR, "unauthorized", _told(code)))


def _told(what: str) -> str:
    return f"Microsoft Entra: {what}"
