"""Every setting, once: what it is called in the environment, what it means, and what it may be.

Variables are ``VECTIDE_<SECTION>__<NAME>``; a secret may be given as ``<VARIABLE>_FILE`` instead, the path
of a file that holds it. :func:`load` reads a given environment and reports every problem of it at once;
nothing here looks at the process's own. No variable's value appears in a problem, since it might be a secret
in the wrong place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from vectide.core.mapping import TableMapping
from vectide.settings_filters import shared_collections
from vectide.settings_own import OWN_SECTIONS, OwnValues, own_values, read_file
from vectide.settings_registry import RegistrySettings, registry_contradictions
from vectide.settings_sections import (
    CacheSettings,
    CodecSettings,
    DlqSettings,
    EmbedderSettings,
    HttpSettings,
    KafkaSettings,
    LimitsSettings,
    LogSettings,
    Section,
    SourceSettings,
    StoreSettings,
    Variable,
    message_of,
    topic_matches,
    variables_of,
)
from vectide.settings_tables import Tables, TableSettings, parse_tables

PREFIX: Final = "VECTIDE_"
HIDDEN: Final = "***"

_TABLES: Final = f"{PREFIX}TABLES"
_TABLES_MEANING: Final = (
    "The tables as YAML or JSON; usually given as VECTIDE_TABLES_FILE, the path of a file."
)
#: What Kubernetes puts into the environment of a pod for a Service called vectide or vectide-something.
_KUBERNETES: Final = re.compile(
    r"VECTIDE_(?!.*__)(PORT.*|SERVICE_.*|.+_SERVICE_(HOST|PORT|PORT_.+)|.+_PORT_\d+_(TCP|UDP|SCTP)(_.+)?)"
)
_KUBERNETES_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
#: Kinds of embedder that need a model, with an example of one; all but onnx need a key, too.
EMBEDDER_MODELS: Final = {
    "openai": "text-embedding-3-small",
    "azure": "text-embedding-3-small",
    "cohere": "embed-v4.0",
    "voyage": "voyage-4",
    "gemini": "gemini-embedding-001",
    "onnx": "/models/all-MiniLM-L6-v2",
}
#: Kinds of store that have a URL, with an example of one. (Pinecone has one of its own.)
STORE_URLS: Final = {
    "qdrant": "http://qdrant:6333",
    "chroma": "http://chroma:8000",
    "lancedb": "/var/lib/vectide/vectors",
    "milvus": "http://milvus:19530",
    "weaviate": "http://weaviate:8080",
    "pinecone": "https://api.pinecone.io",
}

_POSTGRES_DSN: Final = re.compile(r"(?i)postgres(ql)?://|\w+\s*=")
_NO_POSTGRES: Final = "must start with postgresql:// or be a list of key=value"
_DSN_PASSWORD: Final = re.compile(r"(?i)\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
#: Which librdkafka properties are hidden in logs too (a user name is not: it may be a common word).
_SECRET_PROPERTY: Final = re.compile(r"(?i)(password|secret|token|jaas|pem$|oauthbearer\.config)")


class SettingsError(Exception):
    """The configuration is wrong. ``problems`` has one line for each thing to mend, without any value."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = [" ".join(problem.split()) for problem in problems]
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, valid. Printing it shows no secret."""

    kafka: KafkaSettings
    embedder: EmbedderSettings
    store: StoreSettings
    source: SourceSettings
    dlq: DlqSettings
    http: HttpSettings
    limits: LimitsSettings
    cache: CacheSettings
    log: LogSettings
    codec: CodecSettings
    registry: RegistrySettings
    tables: Mapping[str, TableSettings]
    mappings: tuple[TableMapping, ...]
    #: What tables give for themselves, by table.
    own: Mapping[str, OwnValues]

    def embedder_of(self, table: str) -> EmbedderSettings:
        """What turns the table's texts into vectors."""
        return EmbedderSettings(**self.own[table].over("embedder", _values(self.embedder)))

    def store_of(self, table: str) -> StoreSettings:
        """Where the table's vectors go."""
        return StoreSettings(**self.own[table].over("store", _values(self.store)))

    def source_of(self, table: str) -> SourceSettings:
        """The database of the table's rows."""
        return SourceSettings(**self.own[table].over("source", _values(self.source)))

    @property
    def topics(self) -> tuple[str, ...]:
        """What to subscribe to: names, and regular expressions that start with ``^``."""
        named = self.kafka.topics or tuple(table.source for table in self.tables.values())
        return tuple(dict.fromkeys(named))

    def name_of(self, table: str, key: str) -> str:
        """Where ``section.key`` of the table is said, for messages."""
        section, _, field = key.partition(".")
        if section not in self.own[table].given:
            return f"{PREFIX}{section}__{field}".upper()
        return f"tables.{table}.{key}" if section in OWN_SECTIONS else f"tables.{table}.{section}_{field}"

    def mapping_of(self, topic: str) -> TableMapping | None:
        """The table that is filled from ``topic``."""
        return next((mapping for mapping in self.mappings if mapping.matches(topic)), None)

    def tables_of(self, topic: str) -> tuple[str, ...]:
        """The tables whose source takes in ``topic``: with several regular expressions more than one may,
        and then it fills none."""
        return tuple(mapping.table for mapping in self.mappings if mapping.matches(topic))


@dataclass(frozen=True, slots=True)
class VariableDoc:
    """One environment variable, described. ``default`` is None where there is none."""

    name: str
    type: str
    default: str | None
    required: bool
    secret: bool
    meaning: str


_SECTIONS: Final[Mapping[str, type[Section]]] = {
    "kafka": KafkaSettings,
    "embedder": EmbedderSettings,
    "store": StoreSettings,
    "source": SourceSettings,
    "dlq": DlqSettings,
    "http": HttpSettings,
    "limits": LimitsSettings,
    "cache": CacheSettings,
    "log": LogSettings,
    "codec": CodecSettings,
    "registry": RegistrySettings,
}
_VARIABLES: Final = tuple(
    variable for name, section in _SECTIONS.items() for variable in variables_of(PREFIX, name, section)
)
_KNOWN: Final = frozenset(
    {_TABLES, f"{_TABLES}_FILE"}
    | {variable.name for variable in _VARIABLES}
    | {f"{variable.name}_FILE" for variable in _VARIABLES if variable.secret}
)

_Values = dict[str, dict[str, Any]]


def load(environ: Mapping[str, str]) -> Settings:
    """Read the configuration out of ``environ`` (and the files that it names).

    Raises :class:`SettingsError` with every problem, not just the first.
    """
    problems: list[str] = []
    values: _Values = {
        name: _Environment(section, name, environ, problems)() for name, section in _SECTIONS.items()
    }
    tables = _read_tables(environ, problems)
    own = {name: own_values(name, table, environ, problems) for name, table in tables.settings.items()}
    problems += _unknown(environ)
    problems += _contradictions(values, tables, own)
    if problems:
        raise SettingsError(problems)
    sections: dict[str, Any] = {name: model(**values[name]) for name, model in _SECTIONS.items()}
    return Settings(**sections, tables=tables.settings, mappings=tables.mappings, own=own)


def _values(section: Section) -> Mapping[str, Any]:
    """What was given for the section."""
    return {name: getattr(section, name) for name in section.model_fields_set}


def effective(settings: Settings) -> dict[str, Any]:
    """What is in force, as plain nested data, secrets shown as ``***``."""
    shown: dict[str, Any] = {
        name: _shown(getattr(settings, name).model_dump(mode="python")) for name in _SECTIONS
    }
    shown["kafka"]["topics"] = list(settings.topics)
    shown["tables"] = {
        name: {"collection": name}
        | table.model_dump(mode="json", exclude_none=True)
        | _shown_own(settings.own[name])
        for name, table in settings.tables.items()
    }
    return shown


def _shown_own(own: OwnValues) -> dict[str, Any]:
    shown = {section: _shown(own.given[section]) for section in OWN_SECTIONS if section in own.given}
    return shown | ({"source_dsn": HIDDEN} if "source" in own.given else {})


def describe() -> list[VariableDoc]:
    """Every variable with its default and meaning, in the order of the sections."""
    documented = [
        VariableDoc(v.name, v.type_name, v.default, v.required, v.secret, v.meaning) for v in _VARIABLES
    ]
    return [*documented, VariableDoc(_TABLES, "YAML or JSON", None, True, False, _TABLES_MEANING)]


def secret_values(settings: Settings) -> frozenset[str]:
    """Every secret text of the configuration, for logs to hide wherever it turns up."""
    found: set[str] = set()
    for name in _SECTIONS:
        found.update(_secrets_in(getattr(settings, name).model_dump(mode="python")))
    for own in settings.own.values():
        found.update(_secrets_in(own.given))
    return frozenset(found)


# --- reading --------------------------------------------------------------------------------------------


class _Environment(PydanticBaseSettingsSource):
    """The source of one section: its variables in a given environment, and the files that they name.

    Calling it gives the valid values; what is wrong with the others is added to ``problems``.
    """

    def __init__(
        self, section: type[Section], name: str, environ: Mapping[str, str], problems: list[str]
    ) -> None:
        super().__init__(section)
        self._variables = {v.field: v for v in _VARIABLES if v.section == name}
        self._environ = environ
        self._problems = problems

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The field's text (None: not given), its variable, and that the text is validated as it is."""
        variable = self._variables[field_name]
        raw = _given(variable.name, self._environ, self._problems, from_file=variable.secret)
        return raw, variable.name, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            self._read(name, field, values)
        return values

    def _read(self, name: str, field: FieldInfo, values: dict[str, Any]) -> None:
        variable, before = self._variables[name], len(self._problems)
        raw, key, _ = self.get_field_value(field, name)
        if raw is None:
            if variable.required and len(self._problems) == before:
                choices = f" {variable.type_name}" if variable.choices else ""
                self._problems.append(f"{key}: required: {variable.meaning}{choices}")
            return
        try:
            values[name] = variable.adapter.validate_python(raw.strip())
        except ValidationError as error:
            self._problems += [
                f"{key}: {message_of(found)}{_or(raw, variable)}"
                for found in error.errors(include_url=False, include_context=False, include_input=False)
            ]


def _given(name: str, environ: Mapping[str, str], problems: list[str], *, from_file: bool) -> str | None:
    """The variable's text, its file's text, or None. Blank is the same as not given."""
    value = environ.get(name, "")
    path = environ.get(f"{name}_FILE", "").strip() if from_file else ""
    if value.strip() and path:
        problems.append(f"{name}: given twice, also as {name}_FILE: keep one of them")
        return None
    if path:
        return read_file(f"{name}_FILE", path, problems)
    return value if value.strip() else None


def _read_tables(environ: Mapping[str, str], problems: list[str]) -> Tables:
    before = len(problems)
    text = _given(_TABLES, environ, problems, from_file=True)
    if text is None:
        if len(problems) == before:
            problems.append(f"{_TABLES}_FILE: required (or {_TABLES}): {_TABLES_MEANING}")
        return Tables()
    tables = parse_tables(text)
    problems += tables.problems
    return tables


def _or(raw: str, variable: Variable) -> str:
    close = difflib.get_close_matches(raw.strip().lower(), variable.choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _KNOWN or _from_kubernetes(name, environ[name]):
            continue
        close = difflib.get_close_matches(name.upper(), _KNOWN, n=1, cutoff=0.7)
        yield f"{name}: unknown variable" + (f"; did you mean {close[0]}?" if close else "")


def _from_kubernetes(name: str, value: str) -> bool:
    if _KUBERNETES.fullmatch(name):
        return True
    return name.endswith("_PORT") and _KUBERNETES_ADDRESS.match(value) is not None


# --- what does not fit together -------------------------------------------------------------------------


def _contradictions(values: _Values, tables: Tables, own: Mapping[str, OwnValues]) -> Iterator[str]:
    for section, check in (("embedder", _embedder_contradictions), ("store", _store_contradictions)):
        if not own or any(section not in said.given for said in own.values()):
            yield from check(values[section], lambda field: f"{PREFIX}{section}__{field}".upper())  # noqa: B023
        for name, said in own.items():
            if section in said.given:
                path = f"tables.{name}.{section}."
                yield from check(said.over(section, values[section]), lambda field: path + field)  # noqa: B023
    yield from _source_contradictions(values["source"], tables, own)
    stores = {name: said.over("store", values["store"]) for name, said in own.items()}
    yield from shared_collections(tables.mappings, stores)
    yield from registry_contradictions(f"{PREFIX}REGISTRY__", values["registry"])
    yield from _http_contradictions(values["http"])
    yield from _cache_contradictions(values["cache"])
    topics: tuple[str, ...] = values["kafka"].get("topics", ())
    yield from _topic_contradictions(topics, tables)
    yield from _loops(values["dlq"], topics, tables)


def _embedder_contradictions(given: Mapping[str, Any], name: Callable[[str], str]) -> Iterator[str]:
    kind = given.get("kind")
    if kind not in EMBEDDER_MODELS:
        return
    if not given.get("model"):
        yield f"{name('model')}: required with the {kind} embedder, e.g. {EMBEDDER_MODELS[kind]}"
    if kind == "azure" and not given.get("base_url"):
        yield f"{name('base_url')}: required with the azure embedder: https://NAME.openai.azure.com"
    keyless = kind == "onnx" or (kind == "openai" and given.get("base_url"))
    if not given.get("api_key") and not keyless:
        unless = f", unless {name('base_url')} names a server that needs none"
        unless = unless if kind == "openai" else ""
        yield f"{name('api_key')}: required with the {kind} embedder{unless}"


def _http_contradictions(given: Mapping[str, Any]) -> Iterator[str]:
    for name, other in (("certificate_path", "key_path"), ("key_path", "certificate_path")):
        if given.get(name) and not given.get(other):
            yield f"{PREFIX}HTTP__{other.upper()}: required with {PREFIX}HTTP__{name.upper()}"


def _cache_contradictions(given: Mapping[str, Any]) -> Iterator[str]:
    on_disk = str(given.get("kind", "")).lower() == "disk"
    if on_disk and not given.get("path"):
        yield f"{PREFIX}CACHE__PATH: required with {PREFIX}CACHE__KIND=disk"
    if given.get("path") and not on_disk:
        yield f"{PREFIX}CACHE__PATH: only for {PREFIX}CACHE__KIND=disk: leave it out"


def _store_contradictions(given: Mapping[str, Any], name: Callable[[str], str]) -> Iterator[str]:
    if given.get("dsn") and given.get("url"):
        yield f"{name('dsn')}: given twice, also as {name('url')}: keep one of them"
    address = given.get("dsn") or given.get("url")
    kind = given.get("kind")
    if kind in STORE_URLS:
        if given.get("dsn"):
            yield f"{name('dsn')}: the {kind} store has a URL: give {name('url')}"
        elif kind == "pinecone":
            if not given.get("api_key"):
                yield f"{name('api_key')}: required with the pinecone store"
        elif address is None:
            yield f"{name('url')}: required with the {kind} store, e.g. {STORE_URLS[kind]}"
        return
    if kind != "pgvector":
        return
    if address is None:
        yield f"{name('dsn')}: required with the pgvector store, e.g. postgresql://user@host/database"
    elif not _POSTGRES_DSN.match(address.get_secret_value()):
        yield f"{name('dsn' if given.get('dsn') else 'url')}: {_NO_POSTGRES}"


def _source_contradictions(
    given: Mapping[str, Any], tables: Tables, own: Mapping[str, OwnValues]
) -> Iterator[str]:
    dsn = given.get("dsn")
    if dsn is not None and not _POSTGRES_DSN.match(dsn.get_secret_value()):
        yield f"{PREFIX}SOURCE__DSN: {_NO_POSTGRES}"
    for name, table in tables.settings.items():
        mine = own[name].over("source", given).get("dsn")
        if mine is None and "reread" in table.on_incomplete and "on_incomplete" in table.model_fields_set:
            yield f"tables.{name}.on_incomplete: reread needs {PREFIX}SOURCE__DSN, or the table's source_dsn"
        elif mine is not None and mine is not dsn and not _POSTGRES_DSN.match(mine.get_secret_value()):
            yield f"tables.{name}.source_dsn: {_NO_POSTGRES}"


def _topic_contradictions(topics: tuple[str, ...], tables: Tables) -> Iterator[str]:
    if not topics:
        return
    for name, source in tables.sources.items():
        if source.startswith("^") or any(topic_matches(topic, source) for topic in topics):
            continue
        yield f"tables.{name}.source: {PREFIX}KAFKA__TOPICS does not take in this topic"


def _loops(given: Mapping[str, Any], topics: tuple[str, ...], tables: Tables) -> Iterator[str]:
    """A topic of ours that is consumed as a source feeds itself for ever."""
    ours = DlqSettings(**given)
    if ours.topic == ours.replays:
        yield f"{PREFIX}DLQ__REPLAY_TOPIC: must be another topic than {PREFIX}DLQ__TOPIC"
    problems = list(_taken_in(f"{PREFIX}DLQ__TOPIC", ours.topic, topics, tables))
    yield from problems or _taken_in(f"{PREFIX}DLQ__REPLAY_TOPIC", ours.replays, topics, tables)


def _taken_in(variable: str, own: str, topics: tuple[str, ...], tables: Tables) -> Iterator[str]:
    if any(topic_matches(topic, own) for topic in topics):
        yield f"{variable}: is taken in by {PREFIX}KAFKA__TOPICS, which would be an endless loop"
    for name, source in tables.sources.items():
        if topic_matches(source, own):
            yield f"{variable}: is the source of table {name}, which would be an endless loop"


# --- showing --------------------------------------------------------------------------------------------


def _shown(value: Any) -> Any:
    match value:
        case SecretStr():
            return HIDDEN
        case Mapping():
            return {name: _shown(item) for name, item in value.items()}
        case list() | tuple():
            return [_shown(item) for item in value]
        case _:
            return value


def _secrets_in(value: Any, name: str = "") -> Iterator[str]:
    match value:
        case SecretStr():
            secret = value.get_secret_value()
            if "." not in name or _SECRET_PROPERTY.search(name):
                yield secret
            yield from _passwords_in(secret)
        case Mapping():
            for inner, item in value.items():
                yield from _secrets_in(item, inner)


def _passwords_in(address: str) -> Iterator[str]:
    """The password inside a URL or a key=value DSN, as written and decoded."""
    for quoted, plain in _DSN_PASSWORD.findall(address):
        yield quoted or plain
    try:
        password = urlsplit(address).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
