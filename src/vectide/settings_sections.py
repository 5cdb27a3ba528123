"""The sections of the settings: names, types, bounds, defaults and meaning of each value.

Every field is validated by itself, so that all problems can be told at once; what several fields say
together is checked in :mod:`vectide.settings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import (
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vectide.core.readers import Decimals

_TOPIC_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")

#: librdkafka properties that vectide sets itself, and what to do instead.
_OWNED_PROPERTIES: Final[Mapping[str, str]] = {
    "bootstrap.servers": "set VECTIDE_KAFKA__BOOTSTRAP_SERVERS",
    "metadata.broker.list": "set VECTIDE_KAFKA__BOOTSTRAP_SERVERS",
    "group.id": "set VECTIDE_KAFKA__GROUP_ID",
    "enable.auto.commit": "an offset is committed only after the store has confirmed",
    "auto.commit.enable": "an offset is committed only after the store has confirmed",
    "auto.commit.interval.ms": "set VECTIDE_LIMITS__COMMIT_INTERVAL_S",
    "enable.auto.offset.store": "an offset is committed only after the store has confirmed",
    "auto.offset.reset": "a new group starts at the beginning of the topics",
    "enable.partition.eof": "vectide needs to see the end of a partition",
    "isolation.level": "aborted transactions must not be applied",
}


class Section(BaseSettings):
    """What all sections share: immutable, no unknown fields, no input values in error messages.

    It reads nothing by itself: :func:`vectide.settings.load` has the source that reads an environment.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=()
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


# --- kinds of values ------------------------------------------------------------------------------------


def check_topic(name: str) -> str:
    """A legal topic name; raises ValueError."""
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError("must be a topic name: up to 249 of the letters a-z A-Z 0-9 . _ -")
    return name


def check_topic_or_pattern(source: str) -> str:
    """A legal topic name, or a regular expression that starts with ``^``; raises ValueError."""
    if not source.startswith("^"):
        return check_topic(source)
    try:
        re.compile(source)
    except re.error as error:
        raise ValueError(f"must be a valid regular expression: {error.msg} at {error.pos}") from None
    return source


def topic_matches(source: str, topic: str) -> bool:
    """Whether the subscription ``source``, a name or a ``^`` expression, takes in ``topic``."""
    if source.startswith("^"):
        return re.match(source, topic) is not None
    return source == topic


def _topics(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.startswith("^"):
        return (check_topic_or_pattern(value),)
    names = [name.strip() for name in value.split(",") if name.strip()]
    if any(name.startswith("^") for name in names):
        raise ValueError("a regular expression must stand alone, not in a list")
    return tuple(check_topic(name) for name in names)


def _servers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    servers = [server.strip() for server in value.split(",") if server.strip()]
    if not servers or any(re.search(r"[\s@]", server) for server in servers):
        raise ValueError("must be host:port, several separated by commas")
    return ",".join(servers)


def _properties(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        where = f" ({error.msg} at character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f'must be a JSON object like {{"client.id": "a"}}{where}') from None
    if not isinstance(parsed, dict):
        raise ValueError('must be a JSON object like {"client.id": "a"}')
    return {name: _property(name, item) for name, item in parsed.items()}


def _property(name: str, value: Any) -> SecretStr:
    if name in _OWNED_PROPERTIES:
        raise ValueError(f"{name} cannot be set here: {_OWNED_PROPERTIES[name]}")
    if isinstance(value, bool):
        return SecretStr("true" if value else "false")
    if isinstance(value, str | int | float):
        return SecretStr(str(value))
    raise ValueError(f"{name} must be a text, a number or a boolean")


def _one_line(value: Any) -> Any:
    if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("must be one line of printable ASCII without spaces")
    return value


def _http_url(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"(?i)https?://[^\s/@]+(/\S*)?", value):
        raise ValueError("must be a URL that starts with http:// or https://, without credentials in it")
    return value


def _http_urls(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    urls = [url.strip().rstrip("/") for url in value.split(",") if url.strip()]
    return ",".join(_http_url(url) for url in urls)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _or_plugin(group: str) -> WrapValidator:
    """Lets the names of these entry points through, besides what the type allows."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return value if value in entry_points(group=group).names else handler(value)

    return WrapValidator(check)


TopicName = Annotated[str, BeforeValidator(lambda v: check_topic(v) if isinstance(v, str) else v)]
Credential = Annotated[SecretStr, BeforeValidator(_one_line)]
HttpUrl = Annotated[str, BeforeValidator(_http_url)]
#: Several of them, separated by commas, none with a slash at its end.
HttpUrls = Annotated[str, BeforeValidator(_http_urls), Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Concurrency = Annotated[int, Field(ge=1, le=256)]
#: For choices: capitals do not matter.
LOWER: Final = BeforeValidator(_lower)
Milliseconds = Annotated[int, Field(ge=0, le=600_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


# --- sections -------------------------------------------------------------------------------------------


class KafkaSettings(Section):
    """Where the change events come from."""

    bootstrap_servers: Annotated[str, BeforeValidator(_servers)] = Field(
        description="Kafka brokers to start from, host:port, several separated by commas."
    )
    group_id: str = Field(
        default="vectide", max_length=200, description="Consumer group that the replicas form."
    )
    topics: Annotated[tuple[str, ...], BeforeValidator(_topics)] = Field(
        default=(),
        description="Topics to consume, separated by commas, or one regular expression starting with ^; "
        "by default what the tables name.",
    )
    extra: Annotated[dict[str, SecretStr], BeforeValidator(_properties)] = Field(
        default_factory=dict,
        description='More librdkafka properties as JSON, e.g. {"security.protocol": "SASL_SSL"}.',
    )

    @property
    def properties(self) -> dict[str, str]:
        """``extra`` in the clear, for the client only."""
        return {name: value.get_secret_value() for name, value in self.extra.items()}


class EmbedderSettings(Section):
    """What turns texts into vectors."""

    kind: Annotated[
        Literal[
            "openai",
            "azure",
            "cohere",
            "voyage",
            "gemini",
            "onnx",
            "sentence-transformers",
            "model2vec",
            "wordllama",
            "hashing",
        ],
        _or_plugin("vectide.embedders"),
        BeforeValidator(_lower),
    ] = Field(description="Embedding provider, or the name of a plug-in.")
    model: str | None = Field(
        default=None,
        description="Name of the model, as the provider calls it; for models in this process (onnx, "
        "sentence-transformers, model2vec) the path of its folder.",
    )
    deployment: str | None = Field(
        default=None, description="Name under which the model is deployed (azure); the model's if not given."
    )
    api_version: str | None = Field(
        default=None, description="Version of the provider's API (azure); 2024-10-21 if not given."
    )
    base_url: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None, description="Address of the provider's API, where it is not the provider's own."
    )
    api_key: Credential | None = Field(default=None, description="Key of the provider's API.")
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None, description="Numbers per vector; by default what the model gives."
    )
    batch_items: Count = Field(default=64, description="Most texts in one call.")
    batch_tokens: Count | None = Field(
        default=None, description="Most tokens in one call; by default the provider's limit."
    )
    text_tokens: Count | None = Field(
        default=None,
        description="Most tokens of one text that the model reads; known for the providers' usual models. "
        "Larger chunk sizes are refused at start.",
    )
    tokenizer: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Path of the model's tokenizer.json: its tokens are then counted, and not estimated.",
    )
    requests_per_minute: Rate | None = Field(
        default=None,
        description="Calls that the provider allows in a minute; with several replicas, the share of each.",
    )
    tokens_per_minute: Rate | None = Field(
        default=None,
        description="Tokens that the provider allows in a minute; with several replicas, the share of each.",
    )
    usd_per_million_tokens: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = Field(
        default=None,
        description="What a million tokens cost, in USD, for the metrics of cost; by default the list price, "
        "where it is known.",
    )
    linger_ms: Milliseconds = Field(
        default=500, description="Longest wait for a call to fill, in milliseconds."
    )
    concurrency: Concurrency = Field(default=8, description="Most calls at the same time.")
    timeout_s: Seconds = Field(default=30.0, description="Time limit of one call, in seconds.")


class StoreSettings(Section):
    """Where the vectors go."""

    kind: Annotated[
        Literal["pgvector", "qdrant", "chroma", "lancedb", "milvus", "weaviate", "pinecone"],
        _or_plugin("vectide.stores"),
        BeforeValidator(_lower),
    ] = Field(description="Vector store, or the name of a plug-in.")
    dsn: SecretStr | None = Field(default=None, description="How to connect, for stores that speak of a DSN.")
    url: SecretStr | None = Field(
        default=None, description="The same for stores that speak of a URL; give one of the two."
    )
    api_key: Credential | None = Field(
        default=None, description="Key or token of the store's API (not pgvector, whose DSN has it)."
    )
    ca_file: str | None = Field(
        default=None,
        description="Certificates to trust instead of the public ones (not pgvector, lancedb).",
    )
    vector: str | None = Field(
        default=None,
        description="The named vector to write, in collections whose points have several (qdrant).",
    )
    tenant: str | None = Field(
        default=None, description="Tenant of the database (chroma); default_tenant if not given."
    )
    database: str | None = Field(
        default=None,
        description="Database of the collections (chroma, milvus); the server's default one if not given.",
    )
    schema_name: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        default="public", description="PostgreSQL schema of the tables (pgvector)."
    )
    batch_items: Count = Field(default=256, description="Most rows in one read or write.")
    linger_ms: Milliseconds = Field(
        default=50, description="Longest wait for a write to fill, in milliseconds."
    )
    concurrency: Concurrency = Field(default=4, description="Most writes at the same time.")
    timeout_s: Seconds = Field(default=30.0, description="Time limit of one read or write, in seconds.")

    @property
    def address(self) -> str:
        """The DSN or URL in the clear, for the client only; empty when there is none."""
        given = self.dsn or self.url
        return given.get_secret_value() if given else ""

    @property
    def options(self) -> dict[str, str | None]:
        """What only some kinds of store take, by the store's own name for it; None: not given."""
        return {
            "api_key": self.api_key.get_secret_value() if self.api_key else None,
            "ca_file": self.ca_file,
            "vector": self.vector,
            "tenant": self.tenant,
            "database": self.database,
            "schema": self.schema_name if "schema_name" in self.model_fields_set else None,
        }


class SourceSettings(Section):
    """The source's database, where it may be asked for what events leave out."""

    dsn: SecretStr | None = Field(
        default=None,
        description="How to connect to the source's PostgreSQL (the primary), to read again what events "
        "leave out and nothing stored can tell; without it such changes are dead letters.",
    )
    timeout_s: Seconds = Field(default=10.0, description="Time limit of one read, in seconds.")
    connector_user: str = Field(
        default="", description="Role of the Debezium connector, whose rights `vectide check` looks at."
    )

    @property
    def address(self) -> str:
        """The DSN in the clear, for the client only; empty when there is none."""
        return self.dsn.get_secret_value() if self.dsn else ""


class DlqSettings(Section):
    """Where records go that can never succeed, and when there are too many of them."""

    topic: TopicName = Field(default="vectide.dlq", description="Topic for dead letters; it must exist.")
    replay_topic: TopicName | None = Field(
        default=None,
        description="Topic for requests to replay dead letters; the dead-letter topic's name with .replay "
        "behind it if not given. Only `vectide dlq replay` needs it.",
    )
    max_in_a_row: Count = Field(
        default=50, description="A table halts after more dead letters in a row than this."
    )
    max_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=0.2,
        description="A table halts when more than this share (0 to 1) of its last records were dead letters.",
    )
    window: Count = Field(default=500, description="Number of last records over which the share is taken.")

    @property
    def replays(self) -> str:
        """The topic for requests to replay dead letters."""
        return self.replay_topic or f"{self.topic}.replay"


class HttpSettings(Section):
    """Health, metrics and status over HTTP."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8080, description="Port to listen on; 0 for any free one."
    )
    token: Credential | None = Field(
        default=None, description="Bearer token demanded everywhere except /livez, /readyz and /metrics."
    )
    certificate_path: str | None = Field(
        default=None,
        description="PEM file with the certificate to serve, its chain included: then HTTPS is spoken and "
        "nothing else. Read again when it changes.",
    )
    key_path: str | None = Field(
        default=None, description="PEM file with the certificate's key, without a password."
    )


class LimitsSettings(Section):
    """Memory and time."""

    records_in_flight: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=40_000, description="Most records received and not yet committed."
    )
    bytes_in_flight: Annotated[ByteSize, Field(ge=2**20)] = Field(
        default=ByteSize(96 * 2**20),
        description="Most memory for records received and not yet committed, e.g. 64MiB; 1 kB takes 7.",
    )
    grace_s: Seconds = Field(
        default=60.0,
        description="Time from the first stop signal to the end, in seconds; the drain takes 3/4 of it.",
    )
    commit_interval_s: Seconds = Field(
        default=1.0, description="Time between two offset commits, in seconds."
    )
    stall_s: Seconds = Field(
        default=120.0, description="/livez fails when the main loop has not turned for this long, in seconds."
    )


class LogSettings(Section):
    """What is written to stderr."""

    format: Annotated[Literal["json", "console"], BeforeValidator(_lower)] = Field(
        default="json", description="One JSON object per line, or a form for people."
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="Lowest level that is written."
    )


class CacheSettings(Section):
    """Vectors that were made before, so that the same text is not paid for again."""

    kind: Annotated[Literal["memory", "disk", "off"], LOWER] = Field(
        default="memory", description="Where vectors are kept that were made before."
    )
    path: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="File that they are kept in (disk); processes of one machine may share it."
    )
    bytes: Annotated[ByteSize, Field(ge=2**20)] | None = Field(
        default=None,
        description="About what they take at most; 32MiB in memory and 1GiB on disk if not given.",
    )

    @property
    def most_bytes(self) -> int:
        """``bytes``, or what it is for this kind."""
        return int(self.bytes or (2**30 if self.kind == "disk" else 32 * 2**20))


class CodecSettings(Section):
    """How change events are read."""

    unavailable_placeholder: str = Field(
        default="__debezium_unavailable_value",
        description="What the connector sends for an unchanged value that it does not have "
        "(its unavailable.value.placeholder).",
    )
    decimals: Decimals = Field(
        default="auto",
        description="How the connector sends decimals (its decimal.handling.mode), for columns that a table "
        "declares as decimals; auto tells by the value, and refuses digits that could be either.",
    )


# --- describing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One field of a section, seen as an environment variable."""

    name: str
    section: str
    field: str
    type_name: str
    default: str | None
    required: bool
    secret: bool
    meaning: str
    choices: tuple[str, ...]
    adapter: TypeAdapter[Any]


def variables_of(prefix: str, section: str, model: type[Section]) -> list[Variable]:
    """The variables of one section, in the order of its fields."""
    return [
        _variable(f"{prefix}{section}__{name}".upper(), section, name, info)
        for name, info in model.model_fields.items()
    ]


def message_of(error: ErrorDetails) -> str:
    """One validation error as a phrase, without the value."""
    if error["type"].startswith("byte_size"):
        return "must be a number of bytes, with or without a unit, e.g. 256MiB"
    message = error["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "must be")


def _variable(name: str, section: str, field: str, info: FieldInfo) -> Variable:
    parts = _flat(info.annotation)
    choices = tuple(choice for part in parts if get_origin(part) is Literal for choice in get_args(part))
    return Variable(
        name=name,
        section=section,
        field=field,
        type_name=_type_name(parts, choices),
        default=_default(info),
        required=info.is_required(),
        secret=SecretStr in parts,
        meaning=info.description or "",
        choices=choices,
        adapter=TypeAdapter(info.rebuild_annotation(), config=ConfigDict(hide_input_in_errors=True)),
    )


def _flat(annotation: Any) -> list[Any]:
    """The annotation and everything inside it, unions and containers opened."""
    if get_origin(annotation) is Literal:
        return [annotation]
    return [annotation, *(part for inner in get_args(annotation) for part in _flat(inner))]


_TYPE_NAMES: Final[Mapping[Any, str]] = {
    dict: "JSON object",
    tuple: "list",
    ByteSize: "bytes",
    int: "integer",
    float: "number",
}


def _type_name(parts: list[Any], choices: tuple[str, ...]) -> str:
    if choices:
        return " | ".join(choices)
    kinds = [get_origin(part) or part for part in parts]
    return next((name for kind, name in _TYPE_NAMES.items() if kind in kinds), "text")


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    match info.get_default(call_default_factory=True, validated_data={}):
        case None | () | {}:
            return None
        case ByteSize() as size:
            return size.human_readable().replace(".0", "")
        case float() as number:
            return f"{number:g}"
        case value:
            return str(value)
