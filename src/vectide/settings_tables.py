"""The tables file: which Debezium topic fills which collection, and how.

YAML or JSON, one entry per vector table. All problems are told at once, each with its path
(``tables.products.embed.template: ...``).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from vectide.core.chunks import Chunking
from vectide.core.filters import EVENT_FIELD_TYPES, FilterField, FilterType, filter_type_of
from vectide.core.mapping import MappingError, MetadataField, TableMapping
from vectide.core.softdelete import SoftDelete
from vectide.core.template import Template, TemplateError
from vectide.core.types import parse_type
from vectide.core.where import Where, WhereError
from vectide.settings_sections import Section, check_topic_or_pattern, message_of, topic_matches

_TABLE_ID: Final = re.compile(r"[a-z0-9_-]{1,63}")

#: A chunk of fewer tokens says nothing, and may be too small for a single character.
MIN_CHUNK_TOKENS: Final = 16

#: What takes the place of required keys that are wrong, so that the others can be checked.
_STAND_IN: Final = {"source": "-", "embed": {"columns": ["-"]}}

_FILTER_TYPES: Final = [kind.value for kind in FilterType]

Scalar = str | int | float | bool


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _soft_delete(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _scalars(value: Any) -> Any:
    """Values of a column as they were written: a coerced ``true`` or ``1`` would match something else."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of values")
    if not all(isinstance(item, Scalar) for item in value):
        raise ValueError("must hold only texts, numbers and booleans")
    return tuple(value)


def _metadata(value: Any) -> Any:
    """``[a, {b: c}]`` and ``{b: c}`` as pairs (column or event field, name in the store)."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of names and of {column: name in the store}")
    return tuple(pair for item in value for pair in _pairs(item))


def _pairs(item: Any) -> Iterator[tuple[str, str]]:
    if isinstance(item, str):
        yield item, item
    elif isinstance(item, Mapping) and all(isinstance(text, str) for pair in item.items() for text in pair):
        yield from item.items()
    elif isinstance(item, tuple) and len(item) == 2:
        yield item
    else:
        raise ValueError("must be a list of names and of {column: name in the store}")


def _filter(value: Any) -> Any:
    """``[a, {b: integer}]`` and ``{b: integer}`` as pairs (name in the store, type or None)."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(pair for item in items for pair in _filter_pairs(item))


def _filter_pairs(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, str):
        yield item, None
    elif isinstance(item, Mapping):
        unknown = [kind for kind in item.values() if kind not in _FILTER_TYPES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a type: there are {', '.join(_FILTER_TYPES)}")
        yield from item.items()
    else:
        raise ValueError("must be a list of names and of {name: type}")


def _known_type(text: str) -> str:
    parse_type(text)
    return text


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)]


class EmbedSettings(Section):
    """What is embedded: a template, or columns one after the other."""

    template: Name | None = Field(default=None, description="Text with {column} and [optional part].")
    columns: Names | None = Field(default=None, description="Columns whose texts are joined by blank lines.")

    @model_validator(mode="after")
    def _exactly_one(self) -> EmbedSettings:
        if (self.template is None) == (not self.columns):
            raise ValueError("needs either template or columns")
        return self


class SoftDeleteSettings(Section):
    """When a row that still exists counts as deleted."""

    column: Name = Field(description="Column that says so.")
    values: Annotated[tuple[Any, ...], BeforeValidator(_scalars)] | None = Field(
        default=None, description="Values that mean deleted; by default any value that is not null or false."
    )


class ChunkSettings(Section):
    """How long texts are cut."""

    tokens: Annotated[int, Field(ge=MIN_CHUNK_TOKENS)] = Field(
        description=f"Most tokens in a chunk, as the embedder counts them; at least {MIN_CHUNK_TOKENS}."
    )
    overlap: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Tokens at the end of a chunk with which the next one begins; at most half of tokens.",
    )


class TableSettings(Section):
    """One vector table."""

    source: Name = Field(description="Debezium topic, or a regular expression starting with ^.")
    key: Names = Field(
        default=(), description="Primary key columns, where the Kafka key does not carry them."
    )
    collection: Name | None = Field(
        default=None, description="Collection in the store; by default the table's id."
    )
    vector: Name | None = Field(
        default=None,
        description="The named vector to fill, in collections whose points have several (qdrant, milvus).",
    )
    embed: EmbedSettings = Field(description="What is embedded.")
    metadata: Annotated[tuple[tuple[Name, Name], ...], BeforeValidator(_metadata)] = Field(
        default=(),
        description="Columns and event fields kept beside the vector, each a name or {column: name}.",
    )
    filter: Annotated[
        tuple[tuple[Name, str | None], ...],
        BeforeValidator(_filter),
    ] = Field(
        default=(),
        description="Metadata that searches filter by, each a name in the store or {name: type}; the store "
        "makes an index of that type.",
    )
    tenant: Name | None = Field(
        default=None,
        description="Column that says whose a row is: it is metadata, as text, and the store keeps rows of "
        "a tenant together.",
    )
    soft_delete: Annotated[SoftDeleteSettings, BeforeValidator(_soft_delete)] | None = Field(
        default=None, description="Column, or column and values, that mark a row as deleted."
    )
    where: Name | None = Field(
        default=None,
        description="SQL condition over the columns; a row that does not match it has no point.",
    )
    chunk: ChunkSettings | None = Field(
        default=None,
        description="Cut the text into chunks of at most so many tokens, each with a vector of its own; "
        "by default a row has one vector.",
    )
    types: dict[Name, Annotated[str, AfterValidator(_known_type)]] = Field(
        default_factory=dict,
        description="Types of columns, for events that do not tell them (JSON without schemas).",
    )
    store_text: bool = Field(default=True, description="Whether the text is kept beside the vector.")
    on_incomplete: Annotated[
        tuple[Literal["stored", "reread", "dead-letter"], ...], BeforeValidator(_one_or_many)
    ] = Field(
        default=("stored", "reread", "dead-letter"),
        description="Where the text of an unavailable column comes from, in this order; reread asks the "
        "database of VECTIDE_SOURCE__DSN, if that is given.",
    )

    on_truncate: Literal["purge", "skip"] = Field(
        default="purge",
        description="What an emptied source table means: its rows are removed, or the event is passed over.",
    )

    may_vanish: Names = Field(
        default=(),
        description="Embedded fields that many documents (MongoDB) may lose one after the other; others are "
        "taken for renamed then, and halt the table.",
    )

    embedder: dict[Name, Any] | None = Field(
        default=None,
        repr=False,
        exclude=True,
        description="The table's own embedder: keys like the names of VECTIDE_EMBEDDER__..., over those.",
    )
    store: dict[Name, Any] | None = Field(
        default=None,
        repr=False,
        exclude=True,
        description="The table's own store: keys like the names of VECTIDE_STORE__..., over those.",
    )
    source_dsn: SecretStr | None = Field(
        default=None,
        exclude=True,
        description="The database of the table's rows, where it is not that of VECTIDE_SOURCE__DSN.",
    )
    source_dsn_file: Name | None = Field(
        default=None, exclude=True, description="The same, as the path of a file that holds it."
    )

    @field_validator("source")
    @classmethod
    def _source_is_a_topic(cls, source: str) -> str:
        return check_topic_or_pattern(source)

    @field_validator("on_incomplete")
    @classmethod
    def _ends_with_dead_letter(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        if not steps or len(set(steps)) < len(steps) or "dead-letter" in steps[:-1]:
            raise ValueError("must name each way once, dead-letter last")
        return steps

    @field_serializer("metadata")
    def _metadata_as_written(self, pairs: tuple[tuple[str, str], ...]) -> list[str | dict[str, str]]:
        return [name if name == source else {source: name} for source, name in pairs]

    @field_serializer("filter")
    def _filter_as_written(self, pairs: tuple[tuple[str, str | None], ...]) -> list[str | dict[str, str]]:
        return [name if kind is None else {name: kind} for name, kind in pairs]


#: The keys of a table that are mappings themselves.
INNER_SECTIONS: Final[Mapping[Any, type[Section]]] = {
    "embed": EmbedSettings,
    "soft_delete": SoftDeleteSettings,
    "chunk": ChunkSettings,
}


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables file says. ``sources`` has every table whose source could be read, valid or not."""

    settings: Mapping[str, TableSettings] = field(default_factory=dict)
    mappings: tuple[TableMapping, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def parse_tables(text: str) -> Tables:
    """Read the tables. Never raises: what is wrong is in ``problems``."""
    try:
        document = _document(text)
    except _Unreadable as error:
        return Tables(problems=(f"tables: {error}",))
    if not isinstance(document, dict) or not document:
        return Tables(problems=("tables: must map each table's id to its settings",))
    settings: dict[str, TableSettings] = {}
    mappings: list[TableMapping] = []
    problems: list[str] = []
    for name, content in document.items():
        found = list(_check(name, content))
        problems += found
        if not found:
            settings[name] = TableSettings.model_validate(content)
            mappings.append(_mapping(name, settings[name], _template(settings[name].embed)))
    sources = {
        name: content["source"]
        for name, content in document.items()
        if isinstance(content, dict) and isinstance(content.get("source"), str)
    }
    problems += _shared_sources(sources)
    problems += _shared_collections(mappings)
    return Tables(settings, tuple(mappings), sources, tuple(problems))


# --- the document ---------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """The text is neither YAML nor JSON."""


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, instead of silently taking the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len([key for key, _ in node.value]):
            line = node.start_mark.line + 1
            raise _Unreadable(f"a key is given twice in the mapping that starts at line {line}")
        return mapping


def _document(text: str) -> Any:
    if "\n" not in text.strip():
        text = text.strip()  # else the indentation of the first line matters
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            pass  # YAML has a form with braces too
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _Unreadable(f"not valid YAML: {error.problem}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _Unreadable(f"not valid YAML ({type(error).__name__})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"the key {twice} is given twice")
    return mapping


# --- one table ------------------------------------------------------------------------------------------


def _check(name: Any, content: Any) -> Iterator[str]:
    if not isinstance(name, str) or not _TABLE_ID.fullmatch(name):
        yield f"tables.{name}: a table's id must be up to 63 of the letters a-z 0-9 _ -"
        return
    if not isinstance(content, dict):
        yield f"tables.{name}: must be a mapping with at least source and embed"
        return
    wrong = _shape_problems(content)
    for problem in wrong:
        path = ".".join(["tables", name, *map(str, problem["loc"])])
        unknown = problem["type"] == "extra_forbidden"
        yield f"{path}: {_unknown(problem['loc']) if unknown else message_of(problem)}"
    # The keys that are in order are looked at further even if others are not.
    usable = {key: value for key, value in content.items() if key not in {p["loc"][0] for p in wrong}}
    yield from _meaning_problems(name, TableSettings.model_validate(_STAND_IN | usable))


def _shape_problems(content: dict[Any, Any]) -> list[ErrorDetails]:
    try:
        TableSettings.model_validate(content)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)
    return []


def _unknown(path: tuple[int | str, ...]) -> str:
    model = INNER_SECTIONS.get(path[0], TableSettings) if len(path) > 1 else TableSettings
    close = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else "unknown key"


def _meaning_problems(name: str, table: TableSettings) -> Iterator[str]:
    try:
        template = _template(table.embed)
    except TemplateError as error:
        part = "columns" if table.embed.template is None else "template"
        yield f"tables.{name}.embed.{part}: {error}"
        template = Template.of_columns(["-"])
    try:
        _where(table)
    except WhereError as error:
        yield f"tables.{name}.where: {error}"
        table = table.model_copy(update={"where": None})
    untyped = [by for by, kind in table.filter if kind is None and _filter_type(table, by) is None]
    for by in untyped:
        kinds = ", ".join(_FILTER_TYPES)
        yield f"tables.{name}.filter: {by!r} has no declared type: write {{{by}: type}}, one of {kinds}"
    if untyped:
        table = table.model_copy(update={"filter": ()})
    try:
        _mapping(name, table, template)
    except MappingError as error:
        yield from (f"tables.{name}: {problem}" for problem in error.problems)


def _template(embed: EmbedSettings) -> Template:
    if embed.template is not None:
        return Template.parse(embed.template)
    return Template.of_columns(embed.columns or ())


def _where(table: TableSettings) -> Where | None:
    if table.where is None:
        return None
    from vectide.settings_where import parse_where  # the SQL parser is only for those who need it

    return parse_where(table.where)


def _filter_type(table: TableSettings, name: str) -> FilterType | None:
    """The type of this name of metadata, where the table tells it. What is no metadata is refused later."""
    source = next((source for source, target in table.metadata if target == name), None)
    if source is None:
        return FilterType.TEXT
    if source == table.tenant:
        return FilterType.TEXT
    if source in EVENT_FIELD_TYPES:
        return EVENT_FIELD_TYPES[source]
    return filter_type_of(table.types[source]) if source in table.types else None


def _filters(table: TableSettings) -> Iterator[FilterField]:
    tenant = next((name for source, name in table.metadata if source == table.tenant), table.tenant)
    if tenant is not None:
        yield FilterField(tenant, FilterType.TEXT, tenant=True)
    for name, kind in table.filter:
        of = FilterType(kind) if kind else _filter_type(table, name) or FilterType.TEXT
        if (name, of) != (tenant, FilterType.TEXT):
            yield FilterField(name, of)


def _metadata_fields(table: TableSettings) -> Iterator[MetadataField]:
    for source, name in table.metadata:
        yield MetadataField(source, name, as_text=source == table.tenant)
    if table.tenant is not None and table.tenant not in dict(table.metadata):
        yield MetadataField(table.tenant, table.tenant, as_text=True)


def _mapping(name: str, table: TableSettings, template: Template) -> TableMapping:
    deleted = table.soft_delete
    return TableMapping(
        table=name,
        source=table.source,
        collection=table.collection or name,
        template=template,
        metadata=tuple(_metadata_fields(table)),
        key=table.key,
        soft_delete=None if deleted is None else SoftDelete(deleted.column, deleted.values),
        where=_where(table),
        chunking=None if table.chunk is None else Chunking(table.chunk.tokens, table.chunk.overlap),
        store_text=table.store_text,
        # What is kept serves only to complete an incomplete change.
        keep_values="stored" in table.on_incomplete,
        on_incomplete=table.on_incomplete,
        types=tuple(table.types.items()),
        on_truncate=table.on_truncate,
        may_vanish=table.may_vanish,
        filters=tuple(_filters(table)),
        vector=table.vector,
    )


def _shared_sources(sources: Mapping[str, str]) -> Iterator[str]:
    """A record fills one table: two that claim the same topic would leave one of them empty."""
    names = list(sources)
    for at, name in enumerate(names):
        for other in names[:at]:
            mine, theirs = sources[name], sources[other]
            if mine == theirs or _matches(mine, theirs) or _matches(theirs, mine):
                yield f"tables.{name}.source: takes in the same topic as tables.{other}.source"


def _shared_collections(mappings: Sequence[TableMapping]) -> Iterator[str]:
    """A collection has one vector that is filled, one index for a name, and one tenant."""
    for at, mine in enumerate(mappings):
        for other in mappings[:at]:
            if mine.collection != other.collection:
                continue
            pairs = (("tenant", mine.tenant, other.tenant), ("vector", mine.vector, other.vector))
            for key, here, there in pairs:
                if here != there:
                    yield (
                        f"tables.{mine.table}.{key}: is {here or 'not given'} here and "
                        f"{there or 'not given'} in tables.{other.table}, of the same collection"
                    )
            theirs = {by.name: by.type for by in other.filters}
            for by in mine.filters:
                if theirs.get(by.name, by.type) != by.type:
                    yield (
                        f"tables.{mine.table}.filter: {by.name!r} is {by.type.value} here and "
                        f"{theirs[by.name].value} in tables.{other.table}, of the same collection"
                    )


def _matches(source: str, topic: str) -> bool:
    try:
        return not topic.startswith("^") and topic_matches(source, topic)
    except re.error:
        return False
