"""The settings of the schema registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr

from vectide.settings_sections import LOWER, Credential, HttpUrl, HttpUrls, Seconds, Section

_CREDENTIALS: Final = (
    "username",
    "password",
    "token",
    "oauth_url",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
    "cluster",
    "identity_pool",
    "ca_path",
    "certificate_path",
    "key_path",
    "key_password",
)


class RegistrySettings(Section):
    """Where the schemas of Avro and JSON Schema topics are. Without a URL all topics are plain JSON."""

    url: HttpUrls | None = Field(
        default=None,
        description="Address of the schema registry's API, several separated by commas; Apicurio's own API "
        "where it ends in /apis/registry/v2 or /v3, else Confluent's.",
    )
    format: Annotated[Literal["auto", "json", "avro", "json-schema"], LOWER] = Field(
        default="auto",
        description="Language of the schemas where the registry does not tell; auto: by their looks; json: "
        "there are none, and the registry is not asked.",
    )
    frame: Annotated[Literal["confluent", "apicurio-2", "apicurio-3"], LOWER] = Field(
        default="confluent",
        description="What follows a leading zero byte: a schema id of 4 bytes (confluent), a global id of 8 "
        "(apicurio-2), a content id of 4 (apicurio-3); ids in headers are understood without it.",
    )
    username: str | None = Field(default=None, description="User for basic authentication.")
    password: SecretStr | None = Field(default=None, description="Password for basic authentication.")
    token: Credential | None = Field(default=None, description="Bearer token.")
    oauth_url: HttpUrl | None = Field(
        default=None, description="Token endpoint for OAuth client credentials."
    )
    oauth_client_id: str | None = Field(default=None, description="OAuth client.")
    oauth_client_secret: SecretStr | None = Field(default=None, description="Secret of the OAuth client.")
    oauth_scope: str | None = Field(default=None, description="OAuth scope.")
    cluster: str | None = Field(
        default=None, description="Logical cluster, with a token in Confluent Cloud (lsrc-...)."
    )
    identity_pool: str | None = Field(
        default=None, description="Identity pool, with a token in Confluent Cloud (pool-...)."
    )
    ca_path: str | None = Field(
        default=None, description="PEM file with the authorities to trust, where they are not the usual ones."
    )
    certificate_path: str | None = Field(default=None, description="PEM file with the client certificate.")
    key_path: str | None = Field(default=None, description="PEM file with the client certificate's key.")
    key_password: SecretStr | None = Field(default=None, description="Password of that key.")
    timeout_s: Seconds = Field(default=10.0, description="Time limit of one request, in seconds.")

    @property
    def credentials(self) -> dict[str, str | None]:
        """What shows who we are, by the fields' names, in the clear: for the client only."""
        given = {name: getattr(self, name) for name in _CREDENTIALS}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in given.items()
        }

    @property
    def used(self) -> bool:
        """Whether records may be framed."""
        return self.url is not None and self.format != "json"


#: A setting, and the one that it means nothing without.
_NEEDS: Final = {
    "password": "username",
    "oauth_url": "oauth_client_id",
    "oauth_client_id": "oauth_client_secret",
    "oauth_client_secret": "oauth_url",
    "oauth_scope": "oauth_url",
    "key_path": "certificate_path",
    "key_password": "certificate_path",
}


def registry_contradictions(section: str, given: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit together among the given settings; ``section`` is how their variables begin."""
    format_means = {"format"} if given.get("format") in ("avro", "json-schema") else set()
    idle = [name for name in given if name in {*_CREDENTIALS, *format_means}]
    if idle and not given.get("url"):
        yield f"{section}URL: required with {section}{idle[0].upper()}"
    for name, other in _NEEDS.items():
        if given.get(name) and not given.get(other):
            yield f"{section}{other.upper()}: required with {section}{name.upper()}"
    ways = [name for name in ("username", "token", "oauth_url") if given.get(name)]
    if len(ways) > 1:
        names = " and ".join(f"{section}{name.upper()}" for name in ways)
        yield f"{section}{ways[0].upper()}: {names} are different ways to sign in: keep one of them"
