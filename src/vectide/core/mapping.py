"""What one vector table takes from its source rows: identity, text, metadata, soft deletes.

Everything here is a pure function of a change and the configuration. The same row gives the same answers
whichever codec or job it came through.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final
from uuid import UUID

from vectide.core.chunks import Chunking
from vectide.core.filters import FilterField, tenant_of
from vectide.core.model import (
    RESERVED_NAMES,
    STAMP_KEY,
    Columns,
    DecodeError,
    Deleted,
    Row,
    Upserted,
    Value,
    canonical_json,
    short_hash,
)
from vectide.core.readers import Decimals
from vectide.core.render import RENDERER_VERSION, is_blank, render_value
from vectide.core.softdelete import SoftDelete as SoftDelete
from vectide.core.softdelete import is_zero
from vectide.core.template import EVENT_FIELDS, Template
from vectide.core.types import ColumnType, TypeNameError, parse_type
from vectide.core.where import Where

#: Where the text of an unavailable column may come from.
ON_INCOMPLETE: Final = ("stored", "reread", "dead-letter")

#: Where the hashes of a row's columns hold the identity of the filter that it passed.
WHERE_IDENTITY: Final = "$where"

#: Causes of the :class:`~vectide.core.model.DecodeError` that :meth:`TableMapping.row_of` raises.
KEY_CAUSES: Final = frozenset({"no_key", "null_in_key", "key_column_missing", "filler_in_key"})


class MappingError(ValueError):
    """The mapping of a table contradicts itself. ``problems`` holds all of them, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class MetadataField:
    """One metadata value: from the column ``source`` (or ``$ts``, ``$op``, ``$table``), stored as ``name``.

    ``$ts`` is an integer (ms since the epoch), so that every store can filter by range. An event field in
    the metadata is written with every change of the row. ``as_text``: whatever the value is, it is stored as
    its text.
    """

    source: str
    name: str
    as_text: bool = False

    @property
    def is_event(self) -> bool:
        return self.source.startswith("$")


@dataclass(frozen=True)
class TableMapping:
    """The mapping of one vector table.

    ``table`` is its id. ``source`` is a topic, or a regular expression when it starts with ``^``. ``key``
    names the key columns where the Kafka key does not carry the primary key. ``chunking`` None: a row's text
    is one chunk, however long. ``on_incomplete``: where an unavailable column's text comes from, in order.
    ``types`` names the type of columns (also of key columns) for events that do not tell it. ``where``: rows
    that do not match it have no points. ``on_truncate``: ``purge`` removes all points, ``skip`` none.
    ``may_vanish``: embedded fields that any number of documents may lose, without an alarm. ``filters``: the
    metadata that searches filter by. ``vector``: the named vector of the collection's points that is filled,
    where they have several.
    Building one raises :class:`MappingError` with every problem found.
    """

    table: str
    source: str
    collection: str
    template: Template
    metadata: tuple[MetadataField, ...] = ()
    key: tuple[str, ...] = ()
    soft_delete: SoftDelete | None = None
    chunking: Chunking | None = None
    store_text: bool = True
    keep_values: bool = True
    on_incomplete: tuple[str, ...] = ON_INCOMPLETE
    types: tuple[tuple[str, str], ...] = ()
    where: Where | None = None
    on_truncate: str = "purge"
    may_vanish: tuple[str, ...] = ()
    filters: tuple[FilterField, ...] = ()
    vector: str | None = None

    def __post_init__(self) -> None:
        problems = [
            *_naming_problems(self),
            *_column_problems(self),
            *_metadata_problems(self.metadata),
            *_filter_problems(self),
            *_type_problems(self.types),
        ]
        if problems:
            raise MappingError(problems)

    # --- what it names ----------------------------------------------------------------------------------

    @cached_property
    def embed_columns(self) -> tuple[str, ...]:
        """The columns that make the text, in order of appearance."""
        return self.template.columns

    @cached_property
    def mapped_columns(self) -> tuple[str, ...]:
        """Every column used: embedded, metadata, soft delete, filter."""
        metadata = [field.source for field in self.metadata if not field.is_event]
        soft_delete = [] if self.soft_delete is None else [self.soft_delete.column]
        return tuple(dict.fromkeys([*self.embed_columns, *metadata, *soft_delete, *self.where_columns]))

    @cached_property
    def tenant(self) -> str | None:
        """The name of the metadata that says whose a row is."""
        return tenant_of(self.filters)

    @cached_property
    def where_columns(self) -> tuple[str, ...]:
        """The columns that the filter looks at."""
        return () if self.where is None else self.where.columns

    @cached_property
    def hashed_columns(self) -> tuple[str, ...]:
        """Names of :meth:`column_hashes` that no point may lack: embed columns, then the sources of the
        metadata (event fields too)."""
        return tuple(dict.fromkeys([*self.embed_columns, *(field.source for field in self.metadata)]))

    @cached_property
    def keeps_values(self) -> bool:
        """Whether chunk 0 keeps the embed columns' texts: only useful when there are several of them, or
        when the text is cut into chunks, none of which is the whole."""
        return self.keep_values and (len(self.embed_columns) > 1 or self.chunking is not None)

    @property
    def uses_stored(self) -> bool:
        """Whether stored values may complete a change."""
        return "stored" in self.on_incomplete

    @cached_property
    def hands_over(self) -> bool:
        """Whether the point of a row tells values that may complete a change of another row: the one that
        the row became when its primary key changed."""
        return self.uses_stored and (self.keeps_values or self.store_text or bool(self.metadata))

    @property
    def rereads(self) -> bool:
        """Whether the source may be asked for what a change lacks."""
        return "reread" in self.on_incomplete

    @cached_property
    def rereads_first(self) -> bool:
        """Whether it is asked before the stored values are used."""
        ways = [way for way in self.on_incomplete if way in ("stored", "reread")]
        return ways[:1] == ["reread"]

    def column_types(self, decimals: Decimals = "auto") -> Mapping[str, ColumnType]:
        """The declared types, by column; ``decimals`` is how the connector sends decimals."""
        return {name: parse_type(text, decimals) for name, text in self.types}

    @cached_property
    def layout(self) -> str:
        """Identity of how texts are made and cut; a row with another layout gets the new one at its next
        change."""
        chunked = "" if self.chunking is None else f"\0{self.chunking.identity}"
        return short_hash(f"{RENDERER_VERSION}:{self.template.source}{chunked}")

    @cached_property
    def identity(self) -> str:
        """Identity of all that says what becomes of a row; not where its changes come from."""
        soft_delete = self.soft_delete
        return short_hash(
            canonical_json(
                [
                    self.layout,
                    [[field.source, field.name, *["text"] * field.as_text] for field in self.metadata],
                    None if soft_delete is None else [soft_delete.column, repr(soft_delete.values)],
                    None if self.where is None else self.where.identity,
                    [self.store_text, self.keep_values, sorted(self.types)],
                ]
            )
        )

    @property
    def of_one_topic(self) -> bool:
        """Whether the table's events can only arrive on one topic."""
        return self._source_pattern is None

    def matches(self, topic: str) -> bool:
        """Whether the table's events arrive on this topic."""
        if self._source_pattern is None:
            return topic == self.source
        return self._source_pattern.match(topic) is not None

    # --- identity ---------------------------------------------------------------------------------------

    def row_of(self, change: Upserted | Deleted) -> Row:
        """The row that the change is about.

        The Kafka key names it, or the configured key columns: each from the Kafka key where that has it,
        else from the row. Raises DecodeError ``no_key`` (nothing identifies the row), ``null_in_key``,
        ``key_column_missing``, or ``filler_in_key``: a delete's ``before`` may hold fillers ("", 0) instead
        of values when the source logs only the primary key, and a filler must not name another row.
        """
        if not self.key:
            if change.key is None:
                raise DecodeError("no_key", "the Kafka key is null and the table names no key columns")
            return self._row(change.key)
        return self._row({name: self._key_column(name, change) for name in self.key})

    def row_at(self, key: Columns | None) -> Row | None:
        """The row that a bare key names (that of a primary key change), None when it does not tell."""
        if key is None or not all(name in key for name in self.key):
            return None
        try:
            return self._row({name: key[name] for name in self.key or key})
        except DecodeError:
            return None

    def skip_reason(self, change: Upserted | Deleted) -> str | None:
        """Why the change needs no row: ``keyless_tombstone``, else None.

        With configured key columns a delete is told by its envelope, which holds them. The tombstone after
        it holds nothing but the Kafka key; when that lacks them, it adds nothing.
        """
        if not self.key or isinstance(change, Upserted) or change.columns is not None:
            return None
        return None if all(name in (change.key or ()) for name in self.key) else "keyless_tombstone"

    def _key_column(self, name: str, change: Upserted | Deleted) -> Value:
        value = None if change.key is None else change.key.get(name)
        if value is not None:
            return value
        if change.columns is None:
            raise DecodeError("no_key", f"neither the Kafka key nor the value has the key column {name!r}")
        if name not in change.columns:
            if change.key is not None and name in change.key:
                return None
            raise DecodeError("key_column_missing", f"the event has no value of the key column {name!r}")
        value = change.columns[name]
        if isinstance(change, Deleted) and change.key is not None and value is not None and is_zero(value):
            raise DecodeError("filler_in_key", f"the delete may hold a filler for the key column {name!r}")
        return value

    def _row(self, key: Columns) -> Row:
        null = [name for name, value in key.items() if value is None]
        if null:
            raise DecodeError("null_in_key", f"the key column {null[0]!r} is null")
        return Row.of(self.table, {name: canonical_key(value) for name, value in key.items()})

    # --- content ----------------------------------------------------------------------------------------

    def missing(self, change: Upserted) -> tuple[str, ...]:
        """Mapped columns that the event does not know at all: source and configuration have drifted."""
        return tuple(
            name
            for name in self.mapped_columns
            if name not in change.columns and name not in change.unavailable
        )

    def is_soft_deleted(self, change: Upserted) -> bool | None:
        """Whether the row counts as deleted; None when the event does not hold the column's value."""
        if self.soft_delete is None:
            return False
        if self.soft_delete.column not in change.columns:
            return None
        return self.soft_delete.says_deleted(change.columns[self.soft_delete.column])

    def matches_where(self, columns: Columns) -> bool | None:
        """Whether a row with these columns passes the filter; None when that depends on others.

        Raises :class:`~vectide.core.where.WhereMismatch` for a value that cannot be compared.
        """
        return True if self.where is None else self.where.matches(columns)

    def was_matched(self, hashes: Mapping[str, str], stored: Mapping[str, str]) -> bool:
        """Whether a row that is stored under this very filter still passes it, because no column that it
        looks at has changed: ``hashes`` of those that the event holds, ``stored`` of all."""
        if self.where is None:
            return True
        same = all(
            name in stored and hashes.get(name, stored[name]) == stored[name] for name in self.where_columns
        )
        return same and stored.get(WHERE_IDENTITY) == self.where.identity

    def rendered(self, change: Upserted) -> dict[str, str | None]:
        """The text of every embed column that the event holds (None: null)."""
        columns = change.columns
        return {name: render_value(columns[name]) for name in self.embed_columns if name in columns}

    def render(self, values: Mapping[str, str | None], change: Upserted) -> str:
        """The row's text from the texts of all embed columns (KeyError when one is absent).

        Empty when every embed column is blank, whatever fixed words the template has: such a row says
        nothing, and is not worth a vector.
        """
        if all(is_blank(values[name]) for name in self.embed_columns):
            return ""
        return self.template.render(values, _event_texts(change) if self._event_fields else {})

    def metadata_of(self, change: Upserted) -> tuple[dict[str, Value], frozenset[str]]:
        """The metadata that the event holds, by its name in the store, and the names whose value is
        unavailable and has to stay as stored."""
        metadata = {}
        for field in self.metadata:
            if field.is_event:
                metadata[field.name] = _event_value(field.source, change)
            elif field.source in change.columns:
                value = change.columns[field.source]
                metadata[field.name] = _text_of(value) if field.as_text else value
        keep = frozenset(field.name for field in self.metadata if field.source in change.unavailable)
        return metadata, keep

    def column_hashes(self, change: Upserted, rendered: Mapping[str, str | None]) -> dict[str, str]:
        """A short hash of each of :attr:`hashed_columns`, and of those of the filter, that the event holds,
        and the filter's identity.

        A column that is metadata, or that the filter looks at, is hashed as the value it is (so that 1 and
        "1" differ), one that is only embedded as its text in ``rendered``.
        """
        hashes = {} if self.where is None else {WHERE_IDENTITY: self.where.identity}
        for name in self.compared_columns:
            if name not in self.value_columns:
                if name in rendered:
                    hashes[name] = short_hash(rendered[name])
            elif name in EVENT_FIELDS:
                hashes[name] = value_hash(_event_value(name, change))
            elif name in change.columns:
                hashes[name] = value_hash(change.columns[name])
        return hashes

    @cached_property
    def compared_columns(self) -> tuple[str, ...]:
        """:attr:`hashed_columns` and those of the filter, each once."""
        return tuple(dict.fromkeys([*self.hashed_columns, *self.where_columns]))

    @cached_property
    def value_columns(self) -> Mapping[str, None]:
        """Those whose value counts, not only the text that is made of it: metadata and the filter's. In
        order, each once."""
        return dict.fromkeys([*(field.source for field in self.metadata), *self.where_columns])

    @cached_property
    def _event_fields(self) -> tuple[str, ...]:
        return self.template.fields

    @cached_property
    def _source_pattern(self) -> re.Pattern[str] | None:
        return re.compile(self.source) if self.source.startswith("^") else None


def metadata_hash(fields: Iterable[MetadataField], hashes: Mapping[str, str]) -> str:
    """Identity of a row's metadata, from the hash of each source: a stored hash can stand in for the value
    of an unavailable column. Fields whose source has no hash do not count."""
    pairs = sorted(
        (field.name, f"text {hashes[field.source]}" if field.as_text else hashes[field.source])
        for field in fields
        if field.source in hashes
    )
    # The canonical JSON of the pairs, spelt here: it is made for every change.
    spelt = ",".join([f'[{canonical_json(name)},"{digest}"]' for name, digest in pairs])
    return short_hash(f"[{spelt}]")


def canonical_key(value: Value) -> Value:
    """A key component as identities spell it.

    Integers, booleans and texts are themselves; floats stay numbers (shortest digits, -0.0 is 0.0) unless
    not finite; decimals are plain text, UUIDs text in lower case, bytes base64. So ``1`` and ``1.0`` are two
    keys: no source sends both for one column.
    """
    match value:
        case float():
            return (value or 0.0) if math.isfinite(value) else render_value(value)
        case Decimal():
            return render_value(value)
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case list() | tuple():
            return [canonical_key(part) for part in value]
        case dict():
            return {name: canonical_key(part) for name, part in value.items()}
    return value


# --- event fields ---------------------------------------------------------------------------------------

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _event_value(name: str, change: Upserted) -> Value:
    return {"$ts": change.committed_ms, "$op": change.op, "$table": change.table}[name]


def _event_texts(change: Upserted) -> dict[str, str | None]:
    return {"$ts": _iso(change.committed_ms), "$op": change.op, "$table": change.table}


def _iso(epoch_ms: int | None) -> str | None:
    """``2026-11-21T06:42:36.331Z``; the plain number where the calendar ends."""
    if epoch_ms is None:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    except OverflowError:
        return str(epoch_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_of(value: Value) -> str | None:
    """A text is itself, to the last character."""
    return value if isinstance(value, str) else render_value(value)


def value_hash(value: Value) -> str:
    """Identity of a metadata value: 1 and "1" differ, and null has its own."""
    return short_hash(None if value is None else canonical_json(value))


# --- what a mapping must not be -------------------------------------------------------------------------


def _naming_problems(mapping: TableMapping) -> Iterator[str]:
    for what in ("table", "source", "collection"):
        if not getattr(mapping, what).strip():
            yield f"{what} is empty"
    if mapping.source.startswith("^"):
        try:
            re.compile(mapping.source)
        except re.error as error:
            yield f"source is not a regular expression: {error}"
    unknown = [name for name in mapping.on_incomplete if name not in ON_INCOMPLETE]
    if unknown:
        yield f"on_incomplete knows {' and '.join(ON_INCOMPLETE)}, not {', '.join(unknown)}"


def _column_problems(mapping: TableMapping) -> Iterator[str]:
    if not mapping.template.source.strip():
        yield "the template is empty: name at least one column to embed"
    elif not mapping.template.columns:
        yield "the template names no column: every row would have the same text"
    for name in mapping.may_vanish:
        if name not in mapping.template.columns:
            yield f"may_vanish names {name!r}, which is not embedded"
    yield from _chunking_problems(mapping.chunking)
    for name in _repeated(mapping.key):
        yield f"key names the column {name!r} more than once"
    if any(not name.strip() for name in mapping.key):
        yield "key holds an empty column name"
    if mapping.soft_delete is not None:
        if not mapping.soft_delete.column.strip():
            yield "soft_delete names no column"
        if mapping.soft_delete.values == ():
            yield "soft_delete has an empty list of values: nothing would ever count as deleted"


def _chunking_problems(chunking: Chunking | None) -> Iterator[str]:
    if chunking is None:
        return
    if chunking.tokens < 1:
        yield f"chunk.tokens is {chunking.tokens}: a chunk needs at least 1"
    elif not 0 <= chunking.overlap <= chunking.tokens // 2:
        half = chunking.tokens // 2
        yield f"chunk.overlap is {chunking.overlap}: it can be 0 to {half}, half of chunk.tokens"


def _metadata_problems(fields: Sequence[MetadataField]) -> Iterator[str]:
    for name in _repeated(field.name for field in fields):
        yield f"metadata has two values named {name!r}: rename one"
    for field in fields:
        if field.is_event and field.source not in EVENT_FIELDS:
            yield f"metadata: {field.source} is not an event field; there are {', '.join(EVENT_FIELDS)}"
        if not field.source.strip() or not field.name.strip():
            yield "metadata holds an empty name"
        elif field.name in RESERVED_NAMES or field.name.startswith(STAMP_KEY):
            yield f"metadata: the name {field.name!r} is reserved: write {{{field.source}: another_name}}"


def _filter_problems(mapping: TableMapping) -> Iterator[str]:
    names = [field.name for field in mapping.filters]
    for name in _repeated(names):
        yield f"filter names {name!r} more than once"
    known = {field.name for field in mapping.metadata}
    for name in dict.fromkeys(names):
        if name not in known:
            yield f"filter names {name!r}, which is not among the metadata: write it there as well"


def _type_problems(types: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name in _repeated(name for name, _ in types):
        yield f"types names the column {name!r} more than once"
    for name, text in types:
        try:
            parse_type(text)
        except TypeNameError as error:
            yield f"types: {name}: {error}"


def _repeated(names: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name for name, count in seen.items() if count > 1]
