"""Debezium change events as JSON, with and without schemas.

Each message tells its own shape, key and value apart: ``{"schema": ..., "payload": ...}`` is unwrapped,
anything else is taken as it is. So a topic may switch from one to the other between two records.

Choices that a reader may wonder about:

- ``NaN`` and ``Infinity`` literals are not JSON and make the record poison; the texts ``"NaN"`` and
  ``"Infinity"``, which Debezium sends for such floats, are texts.
- Of two members with the same name the last one counts.
- Integers stay exact up to 4,300 digits; numbers with a point or an exponent are 64-bit floats.
- A byte order mark before UTF-8 is skipped; UTF-16 and UTF-32 are refused; so are lone surrogates.
- A JSON ``null`` value is a delete, as a missing value is: the converter writes it for the deletes of
  flattened topics.
- Content is never taken from ``before``, which may hold fillers. It is decoded for deletes alone, where
  configured key columns may need it.
"""

from __future__ import annotations

import codecs
from typing import Any, Final, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType

from vectide.codecs.debezium import (
    MAX_DEPTH,
    NEW_KEY_HEADER,
    OLD_KEY_HEADER,
    UNAVAILABLE,
    Unavailable,
    check_depth,
    ignored_reason,
    is_signal,
    key_hint,
)
from vectide.codecs.logical_types import NO_TYPES, ColumnTypes, Typed, convert, convert_unschemed
from vectide.core.model import (
    Change,
    Columns,
    DecodeError,
    Deleted,
    Ignored,
    Record,
    Truncated,
    Upserted,
    Value,
)

#: Beyond it a source time is nonsense.
_MAX_INT64: Final = 2**63 - 1


class _Source(msgspec.Struct, gc=False):
    """The part of ``source`` that vectide reads. Loosely typed: oddities here must not cost the record."""

    ts_ms: Any = None
    db: Any = None
    schema: Any = None
    table: Any = None


class _Envelope(msgspec.Struct, gc=False):
    op: Any = None
    source: _Source | None = None
    after: Any = None
    #: Left as bytes: rarely needed, and as large as the row.
    before: Raw | UnsetType = UNSET


class _Message(_Envelope, gc=False):
    """An envelope, or the wrapper around one: one pass over the bytes serves both."""

    schema: Raw | UnsetType = UNSET
    payload: _Envelope | UnsetType | None = UNSET


class _Wrapped(msgspec.Struct, gc=False):
    schema: Raw


_MESSAGE: Final = msgspec.json.Decoder(_Message | None)
_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)
_ANY: Final = msgspec.json.Decoder()


class DebeziumJson:
    """Decodes Debezium's JSON. One instance serves one thread (it caches schemas).

    ``unavailable`` is the connector's ``unavailable.value.placeholder``. With ``lenient_keys`` a Kafka key
    that is not an object counts as null instead of as poison: for tables whose mapping names its key
    columns because a converter spoils the key.
    """

    def __init__(self, unavailable: str = UNAVAILABLE, *, lenient_keys: bool = False) -> None:
        self._unavailable = Unavailable(unavailable)
        self._lenient_keys = lenient_keys
        self._types = ColumnTypes()

    def decode(self, record: Record) -> Change:
        """The change that the record tells. Raises DecodeError, and nothing else, for any other bytes.

        A null Kafka key gives a change without key: the mapping may find one in the row. A key that is
        there but is not an object of columns is refused (``bad_key``).
        """
        try:
            return self._decode(record)
        except RecursionError:
            raise DecodeError("too_deep", "lists and objects nest too deep") from None

    def _decode(self, record: Record) -> Change:
        if record.value is None:
            return self._deleted(record)
        raw = _without_bom(record.value)
        try:
            message = _MESSAGE.decode(raw)
        except msgspec.ValidationError:
            return self._without_envelope(record, raw)
        except ValueError as error:
            _refuse(raw, error)
        if message is None:
            return self._deleted(record)
        if message.payload is UNSET:
            return self._change(record, message, NO_TYPES, raw)
        if message.schema is UNSET or message.payload is None:
            return self._without_envelope(record, raw)
        typed = self._types.of(bytes(message.schema), envelope=True)
        return self._change(record, message.payload, typed, raw)

    def _change(self, record: Record, envelope: _Envelope, typed: Typed, raw: bytes) -> Change:
        source = envelope.source
        if source is None or envelope.op is None:
            return self._without_envelope(record, raw)
        committed_ms = _time(source.ts_ms)
        match envelope.op.lower() if isinstance(envelope.op, str) else None:
            case "c" | "r" | "u" as op:
                return self._upserted(record, envelope.after, typed, raw, op, committed_ms, source)
            case "d":
                return self._deleted(record, self._before(envelope, typed, raw), committed_ms)
            case "t":
                return Truncated(committed_ms)
            case "m":
                return Ignored("logical_message")
        raise DecodeError("unknown_op", "op is none of c, r, u, d, t, m")

    def _upserted(
        self,
        record: Record,
        after: Value,
        typed: Typed,
        raw: bytes,
        op: str,
        committed_ms: int | None,
        source: _Source,
    ) -> Change:
        if after is None:
            raise DecodeError("no_after", f"op {op} without the row after it")
        columns, unavailable = self._row(after, typed, raw)
        if is_signal(columns):
            return Ignored("signal")
        return Upserted(
            self._key(record.key),
            columns,
            unavailable,
            op,
            committed_ms,
            _table(source),
            self._key_in_header(record, OLD_KEY_HEADER) if op == "c" else None,
        )

    def _deleted(
        self, record: Record, before: Columns | None = None, committed_ms: int | None = None
    ) -> Deleted:
        return Deleted(
            self._key(record.key), before, committed_ms, self._key_in_header(record, NEW_KEY_HEADER)
        )

    # --- rows -------------------------------------------------------------------------------------------

    def _row(self, row: Value, typed: Typed, raw: bytes) -> tuple[Columns, frozenset[str]]:
        """The columns whose values are there, and the names of the others."""
        if not isinstance(row, dict):
            raise DecodeError("bad_row", "the row is not an object of columns")
        unavailable, nested = self._unavailable.names_in(row)
        if unavailable:
            row = {name: value for name, value in row.items() if name not in unavailable}
        if nested:
            # Fewer brackets than levels cannot nest too deep; most rows are let through by this alone.
            if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
                check_depth(row.values())
            row = {name: convert_unschemed(value) for name, value in row.items()}
        for name, schema in typed.items():
            if name in row:
                row[name] = convert(schema, row[name])
        return row, unavailable

    def _before(self, envelope: _Envelope, typed: Typed, raw: bytes) -> Columns | None:
        """The row before a delete, None where it cannot be read: the key alone is enough for most."""
        if envelope.before is UNSET:
            return None
        try:
            return self._row(_ANY.decode(envelope.before), typed, raw)[0]
        except (ValueError, RecursionError, DecodeError):
            return None

    # --- keys -------------------------------------------------------------------------------------------

    def _key(self, raw: bytes | None) -> Columns | None:
        if raw is None:
            return None
        try:
            return self._key_columns(raw)
        except ValueError:
            error = DecodeError("bad_key", "the Kafka key is not JSON")
        except DecodeError as known:
            error = known
        if self._lenient_keys:
            return None
        raise error from None

    def _key_columns(self, raw: bytes) -> Columns | None:
        """The columns of a key, None for JSON null. Raises ValueError when it is not JSON."""
        raw = _without_bom(raw)
        key = _ANY.decode(raw)
        typed = NO_TYPES
        if _is_wrapped(key):
            key = key["payload"]
            typed = self._types.of(bytes(_WRAPPED.decode(raw).schema), envelope=False)
        if key is None:
            return None
        if not isinstance(key, dict) or not key:
            raise DecodeError("bad_key", "the Kafka key is not an object of columns")
        columns, unavailable = self._row(key, typed, raw)
        if unavailable:
            raise DecodeError("unavailable_key", "the source did not send the value of a key column")
        return columns

    def _key_in_header(self, record: Record, name: str) -> Columns | None:
        """The key in the last header of that name. A hint only: None when it cannot be read."""
        raw = next((value for header, value in reversed(record.headers) if header == name), None)
        if raw is None:
            return None
        try:
            return self._key_columns(raw)
        except (ValueError, RecursionError, DecodeError):
            return key_hint(raw)

    # --- everything else --------------------------------------------------------------------------------

    def _without_envelope(self, record: Record, raw: bytes) -> Change:
        """A document that is no envelope: a wrapped null or a known other kind, else DecodeError."""
        try:
            document = _ANY.decode(raw)
        except ValueError as error:
            _refuse(raw, error)
        if _is_wrapped(document):
            document = document["payload"]
            if document is None:
                return self._deleted(record)
        if not isinstance(document, dict):
            raise DecodeError("not_an_envelope", f"the value is a JSON {_json_type(document)}")
        if document.get("op") is not None:
            raise DecodeError("not_an_envelope", "op is there, but no source block to go with it")
        reason = ignored_reason(document, self._key_or_none(record.key), record.topic)
        if reason is not None:
            return Ignored(reason)
        if isinstance(document.get("source"), dict):
            raise DecodeError("no_op", "a source block is there, but no op")
        raise DecodeError("not_an_envelope", "an object without op and source")

    def _key_or_none(self, raw: bytes | None) -> Columns | None:
        try:
            return self._key(raw)
        except DecodeError:
            return None


def _time(value: Value) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_INT64 else None


def _table(source: _Source) -> str:
    """``schema.table``, ``database.table`` where the source has no schemas, or what is there of it."""
    names = [source.schema or source.db, source.table]
    return ".".join(name for name in names if isinstance(name, str) and name)


def _is_wrapped(document: Value) -> bool:
    """Whether this is the converter's wrapper. A row may have columns of these names: then the schema is
    neither null nor an object with a type."""
    if not isinstance(document, dict) or document.keys() != {"schema", "payload"}:
        return False
    schema = document["schema"]
    return schema is None or (isinstance(schema, dict) and "type" in schema)


def _without_bom(raw: bytes) -> bytes:
    return raw[len(codecs.BOM_UTF8) :] if raw.startswith(codecs.BOM_UTF8) else raw


def _refuse(raw: bytes, error: ValueError) -> NoReturn:
    """Say why the bytes are not JSON that can be used. Never quotes them."""
    if isinstance(error, msgspec.ValidationError):
        raise DecodeError("number_out_of_range", "a number is too large") from None
    if raw.startswith(b"\x00"):
        raise DecodeError("not_json", "the value starts like one framed by a schema registry") from None
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as invalid:
        raise DecodeError("not_utf8", f"the value is not UTF-8 (byte {invalid.start})") from None
    raise DecodeError(
        "not_json", str(error) if raw else "the value is empty, which is not a delete"
    ) from None


def _json_type(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return "array"
