"""The rows and keys of JSON messages: columns with their values read, unavailable ones told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from vectide.codecs.debezium import Unavailable, check_depth, key_hint
from vectide.codecs.json_text import is_wrapped, schema_in, without_bom
from vectide.codecs.logical_types import NO_TYPES, ColumnTypes, Typed
from vectide.core.extended_json import read_document, wrapped_key
from vectide.core.jsontext import MAX_DEPTH
from vectide.core.mapping import TableMapping
from vectide.core.model import Columns, DecodeError, Record, Value
from vectide.core.readers import Decimals, by_shape
from vectide.core.types import ColumnType

_ANY: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the table of a topic says about its events: declared types, their readers, mapped columns."""

    declared: Mapping[str, ColumnType]
    typed: Typed
    columns: tuple[str, ...]


_NOTHING: Final = Expected({}, NO_TYPES, ())


class JsonRows:
    """Reads rows and keys. One instance serves one thread (it caches); for the arguments see
    :class:`~vectide.codecs.debezium_json.DebeziumJson`."""

    def __init__(
        self,
        unavailable: str,
        *,
        lenient_keys: bool,
        mapping_of: Callable[[str], TableMapping | None],
        decimals: Decimals,
    ) -> None:
        self._unavailable = Unavailable(unavailable)
        self._lenient_keys = lenient_keys
        self._mapping_of = mapping_of
        self._decimals = decimals
        self._types = ColumnTypes()
        self._expected: dict[str, Expected] = {}
        self._declared: dict[str, Typed] = {}

    # --- rows -------------------------------------------------------------------------------------------

    def row(self, topic: str, row: Value, typed: Typed, raw: bytes) -> tuple[Columns, frozenset[str]]:
        """The columns whose values are there, and the names of the others. Raises DecodeError."""
        if not isinstance(row, dict):
            return self._document(topic, row)
        unavailable, nested = self._unavailable.names_in(row)
        if unavailable:
            row = {name: value for name, value in row.items() if name not in unavailable}
        if nested:
            # Fewer brackets than levels cannot nest too deep; most rows are let through by this alone.
            if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
                check_depth(row.values())
            row = {name: by_shape(value) for name, value in row.items()}
        if typed:
            _read(row, typed)
        return row, unavailable

    def _document(self, topic: str, text: Value) -> tuple[Columns, frozenset[str]]:
        """The fields of a MongoDB document, which is JSON text; a mapped field that it lacks is null."""
        if not isinstance(text, str):
            raise DecodeError("bad_row", "the row is not an object of columns")
        try:
            document = read_document(text)
        except ValueError:
            raise DecodeError("bad_row", "the document is not JSON") from None
        if not isinstance(document, dict):
            raise DecodeError("bad_row", "the document is not an object of fields")
        expected = self.expected_of(topic)
        unavailable, _ = self._unavailable.names_in(document)
        _read(document, expected.typed)
        whole = dict.fromkeys(expected.columns) | document
        return {name: value for name, value in whole.items() if name not in unavailable}, unavailable

    # --- types ------------------------------------------------------------------------------------------

    def untyped(self, topic: str) -> Typed:
        """The readers for a message without schema: those of the types that its table declares."""
        known = self._declared.get(topic)
        return self.expected_of(topic).typed if known is None else known

    def expected_of(self, topic: str) -> Expected:
        """What the table of the topic says; nothing when there is no such table."""
        known = self._expected.get(topic)
        if known is None:
            mapping = self._mapping_of(topic)
            known = _NOTHING
            if mapping is not None:
                declared = mapping.column_types(self._decimals)
                typed = {name: column.read for name, column in declared.items()}
                known = Expected(declared, typed, mapping.mapped_columns)
            self._expected[topic] = known
            self._declared[topic] = known.typed
        return known

    def typed(self, topic: str, schema: bytes, *, envelope: bool) -> Typed:
        """The readers for a message with this schema: that of an envelope, or of the row itself."""
        declared = self.expected_of(topic).declared
        return self._types.of(schema, envelope=envelope, declared=declared, topic=topic)

    # --- keys -------------------------------------------------------------------------------------------

    def key(self, record: Record) -> Columns | None:
        """The columns of the Kafka key, None for none. Raises DecodeError."""
        if record.key is None:
            return None
        try:
            return self._key_columns(record.topic, record.key)
        except ValueError:
            error = DecodeError("bad_key", "the Kafka key is not JSON")
        except DecodeError as known:
            error = known
        if self._lenient_keys:
            return None
        raise error from None

    def _key_columns(self, topic: str, raw: bytes) -> Columns | None:
        """The columns of a key, None for JSON null. Raises ValueError when it is not JSON."""
        raw = without_bom(raw)
        key = _ANY.decode(raw)
        if type(key) is dict and "payload" in key and is_wrapped(key):
            key = key["payload"]
            typed = self.typed(topic, schema_in(raw), envelope=False)
        else:
            typed = self.untyped(topic)
        if key is None:
            return None
        if not isinstance(key, dict) or not key:
            raise DecodeError("bad_key", "the Kafka key is not an object of columns")
        columns, unavailable = self.row(topic, key, typed, raw)
        if unavailable:
            raise DecodeError("unavailable_key", "the source did not send the value of a key column")
        name = columns.get("id")
        if type(name) is str and len(columns) == 1:
            return {"id": wrapped_key(name)}  # that of a MongoDB document
        return columns

    def key_in_header(self, record: Record, name: str) -> Columns | None:
        """The key in the last header of that name. A hint only: None when it cannot be read."""
        raw = next((value for header, value in reversed(record.headers) if header == name), None)
        if raw is None:
            return None
        try:
            return self._key_columns(record.topic, raw)
        except (ValueError, RecursionError, DecodeError):
            return key_hint(raw)


def _read(row: dict[str, Value], typed: Typed) -> None:
    for name, read in typed.items():
        value = row.get(name)
        if value is not None:
            row[name] = read(value)
