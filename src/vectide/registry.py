"""The schema registry: Confluent's API, and the part of Apicurio's own that finds a schema by its id.

The HTTP, TLS and OAuth of confluent-kafka's registry client serve both. Its retries are off: repeating is the
driver's business. Which API is spoken is told by the URL: one that ends in ``/apis/registry/v2`` or ``/v3``
is Apicurio's own, any other is Confluent's, which Karapace and Apicurio (``/apis/ccompat/v7``) speak as well.
"""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from vectide.core.failures import Failure, Kind
from vectide.ports import (
    AdapterError,
    Deadline,
    IdKind,
    RegisteredSchema,
    SchemaFormat,
    SchemaId,
    StartupRefused,
)

#: How a schema looks that is no JSON.
_PROTOBUF: Final = re.compile(r"\bsyntax\s*=|\bmessage\s+\w+\s*\{")
_APICURIO: Final = re.compile(r"/apis/registry/v(\d+)/?$")
_FORMATS: Final = {
    "AVRO": SchemaFormat.AVRO,
    "JSON": SchemaFormat.JSON_SCHEMA,
    "PROTOBUF": SchemaFormat.PROTOBUF,
}
#: Confluent's error codes for a subject, a version and a schema that do not exist.
_NOT_FOUND: Final = frozenset({40401, 40402, 40403})
#: Apicurio's own API has one code for what is not there, and for paths that it does not know.
_NO_CONTENT: Final = re.compile(r"No (content|artifact|version)\b")
#: References of references, and so on: more than this is a circle.
_MAX_REFERENCES: Final = 100


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """How to show who we are; at most one of basic, bearer token and OAuth client credentials.

    ``cluster`` and ``identity_pool`` are Confluent Cloud's, and go with a token. The paths are PEM files:
    authorities to trust, and a client certificate with its key.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    oauth_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: str | None = field(default=None, repr=False)
    oauth_scope: str | None = None
    cluster: str | None = None
    identity_pool: str | None = None
    ca_path: str | None = None
    certificate_path: str | None = None
    key_path: str | None = None
    key_password: str | None = field(default=None, repr=False)

    def properties(self) -> dict[str, Any]:
        """The client's properties for it."""
        given = {
            "ssl.ca.location": self.ca_path,
            "ssl.certificate.location": self.certificate_path,
            "ssl.key.location": self.key_path,
            "ssl.key.password": self.key_password,
        }
        if self.username is not None:
            given["basic.auth.user.info"] = f"{self.username}:{self.password or ''}"
        if self.token is not None:
            given |= {"bearer.auth.credentials.source": "STATIC_TOKEN", "bearer.auth.token": self.token}
        if self.oauth_url is not None:
            given |= {
                "bearer.auth.credentials.source": "OAUTHBEARER",
                "bearer.auth.issuer.endpoint.url": self.oauth_url,
                "bearer.auth.client.id": self.oauth_client_id,
                "bearer.auth.client.secret": self.oauth_client_secret,
                "bearer.auth.scope": self.oauth_scope or "",
            }
        if "bearer.auth.credentials.source" in given:
            # The client insists on a cluster; registries other than Confluent Cloud pass over it.
            given["bearer.auth.logical.cluster"] = self.cluster or ""
            given["bearer.auth.identity.pool.id"] = self.identity_pool
        return {name: value for name, value in given.items() if value is not None}


class Registry:
    """Implements :class:`vectide.ports.SchemaRegistry`. Methods may be called from several threads.

    ``url`` may name several addresses, separated by commas; the first that answers serves. ``timeout_s`` is
    for one request. Raises :class:`~vectide.ports.StartupRefused` for an address or a file that the client
    cannot use.
    """

    def __init__(self, url: str, auth: RegistryAuth | None = None, *, timeout_s: float = 10.0) -> None:
        self._url = url
        apicurio = _APICURIO.search(url)
        self._apicurio = int(apicurio[1]) if apicurio else None
        try:
            self._client = SchemaRegistryClient(
                {"url": url, "timeout": timeout_s, "max.retries": 0} | (auth or RegistryAuth()).properties()
            )
        except (ValueError, TypeError, OSError, ssl.SSLError) as error:
            raise StartupRefused(f"the registry's client refuses its settings: {_reason(error)}") from None

    def fetch(self, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        """The schema of this id with all that it refers to. Raises AdapterError."""
        try:
            if self._apicurio is not None:
                return self._from_apicurio(schema_id, deadline)
            return self._from_confluent(schema_id, deadline)
        except AdapterError:
            raise
        except Exception as error:  # noqa: BLE001  mapped in one place
            failure = failure_of(error)
            raise AdapterError(failure) from None

    def check(self, deadline: Deadline) -> str:
        """Ask for something small. Any answer will do but one that we are not welcome: what the credentials
        do not allow here, they may allow for the schemas. Returns the address."""
        path = "schemas/types" if self._apicurio is None else "system/info"
        try:
            self._get(path)
        except Exception as error:  # noqa: BLE001  mapped in one place
            failure = failure_of(error)
            if failure.cause in ("unauthorized", "oauth_refused"):
                raise StartupRefused(
                    f"the schema registry refuses us ({failure.detail}): check the credentials in "
                    "VECTIDE_REGISTRY__USERNAME, __TOKEN or __OAUTH_*"
                ) from None
            if failure.kind in (Kind.TRANSIENT, Kind.THROTTLED):
                raise AdapterError(failure) from None
        return self._url

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- Confluent ----------------------------------------------------------------------------------------

    def _from_confluent(self, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        match schema_id.kind:
            case IdKind.GUID:
                found = self._client.get_schema_by_guid(schema_id.value)
            case IdKind.SCHEMA_ID | IdKind.CONTENT_ID:
                found = self._client.get_schema(int(schema_id.value))
            case IdKind.GLOBAL_ID:
                detail = "global ids are for Apicurio's own API: let the URL end in /apis/registry/v2"
                raise AdapterError(Failure(Kind.OPERATOR, "wrong_api", detail))
        references: dict[tuple[str, int], str] = {}
        self._collect(found, references, deadline)
        language = _FORMATS.get(str(found.schema_type or "AVRO").upper(), SchemaFormat.UNKNOWN)
        return RegisteredSchema(language, found.schema_str or "", tuple(references.values()))

    def _collect(self, schema: Any, found: dict[tuple[str, int], str], deadline: Deadline) -> None:
        """The texts of everything that a schema refers to, each once."""
        for reference in schema.references or ():
            name = (reference.subject, reference.version)
            if name in found or len(found) >= _MAX_REFERENCES:
                continue
            _require_time(deadline)
            other = self._client.get_version(reference.subject, reference.version).schema
            found[name] = other.schema_str or ""
            self._collect(other, found, deadline)

    # --- Apicurio -----------------------------------------------------------------------------------------

    def _from_apicurio(self, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        match schema_id.kind:
            case IdKind.GUID:
                detail = "Apicurio's own API knows no GUIDs: give the URL of a Confluent API"
                raise AdapterError(Failure(Kind.OPERATOR, "wrong_api", detail))
            case IdKind.GLOBAL_ID:
                path = f"ids/globalIds/{schema_id.value}"
            case IdKind.CONTENT_ID | IdKind.SCHEMA_ID:
                path = f"ids/contentIds/{schema_id.value}"
        try:
            text = json.dumps(self._get(path))  # the answer is the schema itself
        except json.JSONDecodeError as error:
            if _PROTOBUF.search(error.doc):
                return RegisteredSchema(SchemaFormat.PROTOBUF, error.doc)
            raise
        references: dict[str, str] = {}
        self._collect_versions(path, references, deadline)
        return RegisteredSchema(SchemaFormat.UNKNOWN, text, tuple(references.values()))

    def _collect_versions(self, path: str, found: dict[str, str], deadline: Deadline) -> None:
        """The texts of everything that the schema at ``path`` refers to, each once."""
        for reference in self._get(f"{path}/references") or ():
            group, artifact, version = (
                quote(str(reference.get(part) or "default"), safe="")
                for part in ("groupId", "artifactId", "version")
            )
            other = f"groups/{group}/artifacts/{artifact}/versions/{version}"
            if other in found or len(found) >= _MAX_REFERENCES:
                continue
            _require_time(deadline)
            found[other] = json.dumps(self._get(other if self._apicurio == 2 else f"{other}/content"))
            self._collect_versions(other, found, deadline)

    def _get(self, path: str) -> Any:
        # The only way to ask for another path with the client's credentials, TLS and fail-over.
        return self._client._rest_client.get(path)  # noqa: SLF001


def _require_time(deadline: Deadline) -> None:
    if deadline.passed:
        raise AdapterError(Failure(Kind.TRANSIENT, "timeout", "too many references for the time"))


# --- errors ---------------------------------------------------------------------------------------------


def failure_of(error: Exception) -> Failure:
    """What an exception of the client means, without anything of the answer's text in it."""
    match error:
        case SchemaRegistryError():
            return _answered(error.http_status_code, error.error_code, str(error.error_message))
        case OAuthTokenError():
            return _without_token(error.__context__)
        case httpx2.TimeoutException():
            return Failure(Kind.TRANSIENT, "timeout", type(error).__name__)
        case httpx2.TransportError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            detail = "its certificate is not trusted, see VECTIDE_REGISTRY__CA_PATH"
            return Failure(Kind.TRANSIENT, "tls", detail)
        case httpx2.TransportError():
            return Failure(Kind.TRANSIENT, "connection", type(error).__name__)
        case ValueError():
            return Failure(Kind.TRANSIENT, "bad_answer", "the answer is not JSON")
    return Failure(Kind.TRANSIENT, "unexpected", type(error).__name__)


def _without_token(cause: BaseException | None) -> Failure:
    """Why the token endpoint gave no token."""
    match cause:
        case httpx2.HTTPStatusError(response=response) if response.status_code >= 500:
            return Failure(Kind.TRANSIENT, "oauth_unavailable", f"HTTP {response.status_code}")
        case httpx2.TransportError():
            return Failure(Kind.TRANSIENT, "oauth_unavailable", type(cause).__name__)
    return Failure(Kind.OPERATOR, "oauth_refused", f"no token: {type(cause).__name__}")


def _answered(status: int, code: int | None, message: str) -> Failure:
    """What an answer that is no success means."""
    detail = f"HTTP {status}"
    if status == 401:
        return Failure(Kind.OPERATOR, "unauthorized", detail)
    if status == 403:
        return Failure(Kind.OPERATOR, "forbidden", detail)
    if status == 404 and (code in _NOT_FOUND or (code == 404 and _NO_CONTENT.match(message))):
        return Failure(Kind.REFUSED, "schema_unknown", "the registry has no such schema")
    if status == 429:
        return Failure(Kind.THROTTLED, "rate_limited", detail)
    if status == 408 or status >= 500:
        return Failure(Kind.TRANSIENT, "server_error", detail)
    # Nobody's record is to blame for what a proxy or a wrong path answers.
    return Failure(Kind.OPERATOR, "wrong_api", f"{detail}: not how a registry answers, check the URL")


def _reason(error: Exception) -> str:
    """Why, without values: a property might hold a secret."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    return type(error).__name__
