"""Kafka Connect's schemas: which columns need theirs to be understood, and how those are read.

With schemas on, every message says what its columns are. Numbers, texts and booleans mean themselves; what
has a logical name of Debezium or Connect (decimals, dates, times, JSON, bits, ...) is read by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from vectide.core import moments, readers, time_readers
from vectide.core.model import DecodeError, Value
from vectide.core.readers import Reader
from vectide.core.types import ColumnType

DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"

_MAX_CACHED_BYTES: Final = 16 * 2**20


class Schema(msgspec.Struct, gc=False):
    """A schema as Kafka Connect's JsonConverter writes it; what vectide has no use for is left out."""

    type: Any = None
    name: str | None = None
    field: str | None = None
    parameters: dict[str, Any] | None = None
    fields: list[Schema] | None = None
    items: Schema | None = None
    values: Schema | None = None

    def member(self, name: str) -> Schema | None:
        """The schema of the struct member ``name``."""
        return next((member for member in self.fields or () if member.field == name), None)


_SCHEMA: Final = msgspec.json.Decoder(Schema)


def read_schema(raw: bytes) -> Schema:
    """Parse a schema. Raises DecodeError ``bad_schema``."""
    try:
        return _SCHEMA.decode(raw)
    except ValueError:
        raise DecodeError("bad_schema", "the schema of the message is not a Connect schema") from None


#: Column to reader, for the columns whose values do not mean themselves.
Typed = Mapping[str, Reader]

NO_TYPES: Final[Typed] = {}


def reader_of(name: str, parameters: Mapping[str, Any]) -> Reader | None:
    """The reader for a logical type's name, None for one whose values mean themselves (or nobody knows)."""
    build = _BY_PARAMETERS.get(name)
    return _BY_NAME.get(name) if build is None else build(parameters)


def reader_for(schema: Schema) -> Reader | None:
    """The reader for values of this schema, None where they mean themselves."""
    if schema.name is not None:
        read = reader_of(schema.name, schema.parameters or {})
        if read is not None:
            return read
    if schema.items is not None:
        item = reader_for(schema.items)
        return None if item is None else readers.each(item)
    if schema.fields is not None:
        members = {member.field: read for member in schema.fields if (read := reader_for(member)) is not None}
        return _members(members) if members else None
    if schema.values is not None:
        value = reader_for(schema.values)
        return None if value is None else _values(value)
    return readers.floating if schema.type in ("float", "double") else None


class ColumnTypes:
    """Finds out once per schema how its columns are read: a topic has few schemas and many messages."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bool, str], Typed] = {}
        self._bytes = 0

    def of(
        self,
        schema: bytes,
        *,
        envelope: bool,
        declared: Mapping[str, ColumnType] | None = None,
        topic: str = "",
    ) -> Typed:
        """The readers for the columns of this schema: that of an envelope, or that of the row (or key)
        itself. ``declared`` are the types that the table of ``topic`` declares: they count where the schema
        has no logical name. Raises DecodeError ``bad_schema``."""
        key = (schema, envelope, topic if declared else "")
        typed = self._known.get(key)
        if typed is None:
            typed = _typed_columns(schema, declared or {}, envelope=envelope)
            self._bytes += len(schema)
            if self._bytes > _MAX_CACHED_BYTES:
                self._known.clear()
                self._bytes = len(schema)
            self._known[key] = typed
        return typed


def _typed_columns(raw: bytes, declared: Mapping[str, ColumnType], *, envelope: bool) -> Typed:
    if raw == b"null":
        return {name: column.read for name, column in declared.items()}
    schema: Schema | None = read_schema(raw)
    if envelope and schema is not None:
        schema = schema.member("after")
    typed: dict[str, Reader] = {}
    for member in (schema.fields or ()) if schema is not None else ():
        if member.field is None:
            continue
        read = reader_for(member)
        if read is None and member.name is None and member.field in declared:
            # As text a decimal is there already; its digits must not be taken for base64.
            column = declared[member.field]
            one = member if member.items is None else member.items
            read = None if column.is_decimal and one.type == "string" else column.read
        if read is not None:
            typed[member.field] = read
    return typed


def _members(members: Mapping[str | None, Reader]) -> Reader:
    def read(value: Value) -> Value:
        if not isinstance(value, dict):
            return value
        return {
            name: members[name](item) if item is not None and name in members else item
            for name, item in value.items()
        }

    return read


def _values(read_one: Reader) -> Reader:
    def read(value: Value) -> Value:
        if not isinstance(value, dict):
            return value
        return {name: None if item is None else read_one(item) for name, item in value.items()}

    return read


_MILLIS, _MICROS, _NANOS = 1_000, 1_000_000, 1_000_000_000

_BY_NAME: Final[Mapping[str, Reader]] = {
    "io.debezium.data.VariableScaleDecimal": readers.variable_decimal,
    "io.debezium.time.Date": time_readers.date,
    "io.debezium.time.Time": time_readers.time(_MILLIS),
    "io.debezium.time.MicroTime": time_readers.time(_MICROS),
    "io.debezium.time.NanoTime": time_readers.time(_NANOS),
    "io.debezium.time.Timestamp": time_readers.timestamp(_MILLIS),
    "io.debezium.time.MicroTimestamp": time_readers.timestamp(_MICROS),
    "io.debezium.time.NanoTimestamp": time_readers.timestamp(_NANOS),
    "io.debezium.time.ZonedTimestamp": time_readers.moment,
    "io.debezium.time.ZonedTime": time_readers.zoned_time,
    "io.debezium.time.IsoDate": time_readers.date,
    "io.debezium.time.IsoTime": time_readers.time(_MILLIS),
    "io.debezium.time.IsoTimestamp": time_readers.timestamp(_MILLIS),
    "io.debezium.time.StructuredDate": time_readers.structured(moments.date_of_parts),
    "io.debezium.time.StructuredTime": time_readers.structured(moments.time_of_parts),
    "io.debezium.time.StructuredTimestamp": time_readers.structured(moments.timestamp_of_parts),
    "io.debezium.time.StructuredZonedTimestamp": time_readers.structured(moments.timestamp_of_parts),
    "io.debezium.time.StructuredZonedTime": time_readers.structured(moments.time_of_parts),
    "io.debezium.time.StructuredDuration": time_readers.structured(moments.duration_of_parts),
    "io.debezium.time.MicroDuration": time_readers.duration(_MICROS),
    "io.debezium.time.NanoDuration": time_readers.duration(_NANOS),
    "org.apache.kafka.connect.data.Date": time_readers.date,
    "org.apache.kafka.connect.data.Time": time_readers.time(_MILLIS),
    "org.apache.kafka.connect.data.Timestamp": time_readers.timestamp(_MILLIS),
    "io.debezium.data.Json": readers.json,
    "io.debezium.data.Uuid": readers.uuid,
    "io.debezium.data.EnumSet": readers.name_set,
    "io.debezium.data.geometry.Point": readers.geometry,
    "io.debezium.data.geometry.Geometry": readers.geometry,
    "io.debezium.data.geometry.Geography": readers.geometry,
    "io.debezium.data.SparseDoubleVector": readers.sparse_vector,
    "io.debezium.data.SparseVector": readers.sparse_vector,
}
_BY_PARAMETERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Reader]]] = {
    DECIMAL: lambda parameters: readers.encoded_decimal(parameters.get("scale")),
    "io.debezium.data.Bits": lambda parameters: readers.bits(parameters.get("length")),
}
