"""Kafka Connect's schemas inside JSON messages, and the values that only a schema explains.

With schemas on, every message says what its columns are. Exact decimals need that: their scale stands only
in the schema. The other logical types (dates, times, bits) pass as Debezium sends them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from vectide.core.model import DecodeError, Value

DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
VARIABLE_SCALE_DECIMAL: Final = "io.debezium.data.VariableScaleDecimal"

#: PostgreSQL's numeric has at most 16,383 digits after the point. A forged scale must not fill the memory.
_MAX_SCALE: Final = 16_383
_MAX_CACHED_BYTES: Final = 16 * 2**20


class Schema(msgspec.Struct, gc=False):
    """A schema as Kafka Connect's JsonConverter writes it; what vectide has no use for is left out."""

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


#: Column to schema, for the columns whose values only the schema explains.
Typed = Mapping[str, Schema]

NO_TYPES: Final[Typed] = {}


class ColumnTypes:
    """Finds out once per schema which columns need it: a topic has few schemas and many messages."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bool], Typed] = {}
        self._bytes = 0

    def of(self, schema: bytes, *, envelope: bool) -> Typed:
        """The columns that need this schema: that of an envelope, or that of the row (or key) itself.
        Raises DecodeError ``bad_schema``."""
        key = (schema, envelope)
        typed = self._known.get(key)
        if typed is None:
            typed = _typed_columns(schema, envelope=envelope)
            self._bytes += len(schema)
            if self._bytes > _MAX_CACHED_BYTES:
                self._known.clear()
                self._bytes = len(schema)
            self._known[key] = typed
        return typed


def _typed_columns(raw: bytes, *, envelope: bool) -> Typed:
    if raw == b"null":
        return NO_TYPES
    schema: Schema | None = read_schema(raw)
    if envelope and schema is not None:
        schema = schema.member("after")
    members = (schema.fields or ()) if schema is not None else ()
    return {member.field: member for member in members if member.field is not None and needs_schema(member)}


def needs_schema(schema: Schema) -> bool:
    """Whether values of this schema have to pass through :func:`convert`."""
    if schema.name in (DECIMAL, VARIABLE_SCALE_DECIMAL):
        return True
    parts = [*(schema.fields or ()), *(part for part in (schema.items, schema.values) if part is not None)]
    return any(needs_schema(part) for part in parts)


def convert(schema: Schema, value: Value) -> Value:
    """The value with every exact decimal in it as plain text (``"-12.50"``), the rest as it was.

    Raises DecodeError ``bad_value`` when the value is not what its schema says.
    """
    match value:
        case None:
            return None
        case str() if schema.name == DECIMAL:
            return _exact(decimal_text(value, (schema.parameters or {}).get("scale")))
        case dict() if schema.name == VARIABLE_SCALE_DECIMAL:
            return _exact(decimal_text(value.get("value"), value.get("scale")))
        case list() if schema.items is not None:
            return [convert(schema.items, item) for item in value]
        case dict() if schema.fields is not None:
            return {name: _convert_member(schema.member(name), item) for name, item in value.items()}
        case dict() if schema.values is not None:
            return {name: convert(schema.values, item) for name, item in value.items()}
    return value


def convert_unschemed(value: Value) -> Value:
    """As :func:`convert` where there is no schema: for the one decimal that carries its scale itself."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [convert_unschemed(item) for item in value]
    if isinstance(value, dict) and value.keys() == {"scale", "value"}:
        text = decimal_text(value["value"], value["scale"])
        return value if text is None else text
    return value


def decimal_text(encoded: Value, scale: Value) -> str | None:
    """Plain text of a decimal: base64 of a big-endian two's complement integer, and its scale (an integer,
    or its digits). None when it is not that."""
    try:
        places = int(scale)
        unscaled = int.from_bytes(base64.b64decode(encoded, validate=True), "big", signed=True)
    except (TypeError, ValueError, binascii.Error):
        return None
    if not encoded or abs(places) > _MAX_SCALE:
        return None
    # By way of Decimal: the text of a long int is limited by the interpreter.
    digits = str(Decimal(abs(unscaled)))
    sign = "-" if unscaled < 0 else ""
    if places <= 0:
        return sign + (digits + "0" * -places if unscaled else "0")
    digits = digits.rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def _exact(text: str | None) -> str:
    if text is None:
        raise DecodeError("bad_value", "a decimal is not what its schema says")
    return text


def _convert_member(schema: Schema | None, value: Value) -> Value:
    return value if schema is None else convert(schema, value)
