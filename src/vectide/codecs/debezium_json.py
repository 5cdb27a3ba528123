"""Debezium change events as JSON, in every shape that its connectors, transforms and converters give them.

Each message tells its own shape, key and value apart: an envelope, a flattened row, a cloud event, with or
without schema. So a topic may switch from one to the other between two records.

Choices that a reader may wonder about:

- ``NaN`` and ``Infinity`` literals are not JSON and make the record poison; the texts ``"NaN"`` and
  ``"Infinity"``, which Debezium sends for such floats, are texts unless the column is known to be a float.
- Of two members with the same name the last one counts.
- Integers stay exact up to 4,300 digits; numbers with a point or an exponent are 64-bit floats.
- A byte order mark before UTF-8 is skipped; UTF-16 and UTF-32 are refused; so are lone surrogates.
- A JSON ``null`` value is a delete, as a missing value is: the converter writes it for the deletes of
  flattened topics.
- Content is never taken from ``before``, nor from the row of a rewritten delete, which may hold fillers.
  They are decoded for deletes alone, where configured key columns may need them.
- Where a message has no schema, the types that its table declares take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from vectide.codecs.cloud_events import is_cloud_event, read_cloud_event
from vectide.codecs.debezium import (
    NEW_KEY_HEADER,
    OLD_KEY_HEADER,
    UNAVAILABLE,
    ignored_reason,
    is_signal,
    offloaded_in,
)
from vectide.codecs.flattened import is_document, is_row, read_row
from vectide.codecs.json_rows import JsonRows
from vectide.codecs.json_text import is_wrapped, json_type, refuse, schema_in, without_bom
from vectide.codecs.logical_types import Typed
from vectide.codecs.source_block import Source, position_of, source_from, table_of, time_of
from vectide.core.mapping import TableMapping
from vectide.core.model import (
    Change,
    Columns,
    DecodeError,
    Deleted,
    Ignored,
    Record,
    SourcePosition,
    Truncated,
    Upserted,
    Value,
)
from vectide.core.readers import Decimals


class _Envelope(msgspec.Struct, gc=False):
    op: Any = None
    source: Source | None = None
    after: Any = None
    #: Left as bytes: rarely needed, and as large as the row.
    before: Raw | UnsetType = UNSET


class _Message(_Envelope, gc=False):
    """An envelope, or the wrapper around one: one pass over the bytes serves both."""

    schema: Raw | UnsetType = UNSET
    payload: _Envelope | UnsetType | None = UNSET


_MESSAGE: Final = msgspec.json.Decoder(_Message | None)
_ANY: Final = msgspec.json.Decoder()
_ENCODE: Final = msgspec.json.Encoder().encode

#: What an envelope may hold. A row has other columns too, its key at least.
_ENVELOPE: Final = frozenset(
    {
        "op",
        "source",
        "before",
        "after",
        "ts_ms",
        "ts_us",
        "ts_ns",
        "transaction",
        "message",
        "updateDescription",
    }
)
_TELLING: Final = frozenset({"op", "source", "before", "after"})


class DebeziumJson:
    """Decodes Debezium's JSON. One instance serves one thread (it caches schemas).

    ``unavailable`` is the connector's ``unavailable.value.placeholder``. With ``lenient_keys`` a Kafka key
    that is not an object counts as null instead of as poison: for tables whose mapping names its key
    columns because a converter spoils the key. ``mapping_of`` finds the table of a topic: its declared types
    count where a message has none of its own. ``decimals``: how the connector sends those that are declared
    as decimals.
    """

    def __init__(
        self,
        unavailable: str = UNAVAILABLE,
        *,
        lenient_keys: bool = False,
        mapping_of: Callable[[str], TableMapping | None] = lambda _topic: None,
        decimals: Decimals = "auto",
    ) -> None:
        self._rows = JsonRows(
            unavailable, lenient_keys=lenient_keys, mapping_of=mapping_of, decimals=decimals
        )

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
        raw = without_bom(record.value)
        try:
            message = _MESSAGE.decode(raw)
        except msgspec.ValidationError:
            return self._without_envelope(record, raw)
        except ValueError as error:
            refuse(raw, error)
        if message is None:
            return self._deleted(record)
        envelope: _Envelope = message
        wrapped = message.payload is not UNSET
        if wrapped:
            if message.schema is UNSET or message.payload is None:
                return self._without_envelope(record, raw)
            envelope = message.payload
        source = envelope.source
        if source is None or envelope.op is None or type(source.ts_ms) is not int or source.db is None:
            # Not what every connector writes: a row may have columns called op and source.
            return self._without_envelope(record, raw)
        if not wrapped:
            typed = self._rows.untyped(record.topic)
        else:
            typed = self._rows.typed(record.topic, bytes(message.schema), envelope=True)
        return self._change(record, envelope, source, typed, raw)

    def _change(
        self, record: Record, envelope: _Envelope, source: Source, typed: Typed, raw: bytes
    ) -> Change:
        committed_ms = time_of(source)
        match envelope.op.lower() if isinstance(envelope.op, str) else None:
            case "c" | "r" | "u" as op:
                return self._upserted(record, envelope.after, typed, raw, op, committed_ms, source)
            case "d":
                before = self._before(record.topic, envelope, typed, raw)
                return self._deleted(record, before, committed_ms, position_of(source))
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
        source: Source,
    ) -> Change:
        if after is None:
            if op == "u" and source.collection is not None:
                # MongoDB looks the document up later; by then it was deleted, and its delete follows.
                return Ignored("no_document")
            raise DecodeError("no_after", f"op {op} without the row after it")
        columns, unavailable = self._rows.row(record.topic, after, typed, raw)
        if is_signal(columns):
            return Ignored("signal")
        return Upserted(
            self._rows.key(record),
            columns,
            unavailable,
            op,
            committed_ms,
            table_of(source),
            self._rows.key_in_header(record, OLD_KEY_HEADER) if op == "c" else None,
            position_of(source),
            is_document=isinstance(after, str),
            offloaded=offloaded_in(after, unavailable),
        )

    def _deleted(
        self,
        record: Record,
        before: Columns | None = None,
        committed_ms: int | None = None,
        position: SourcePosition | None = None,
    ) -> Deleted:
        new_key = self._rows.key_in_header(record, NEW_KEY_HEADER)
        return Deleted(self._rows.key(record), before, committed_ms, new_key, position)

    def _before(self, topic: str, envelope: _Envelope, typed: Typed, raw: bytes) -> Columns | None:
        """The row before a delete, None where it cannot be read: the key alone is enough for most."""
        if envelope.before is UNSET:
            return None
        try:
            return self._rows.row(topic, _ANY.decode(envelope.before), typed, raw)[0]
        except (ValueError, RecursionError, DecodeError):
            return None

    # --- everything else --------------------------------------------------------------------------------

    def _without_envelope(self, record: Record, raw: bytes) -> Change:
        """A document that is no usual envelope: a wrapped null, an unusual or a broken envelope, a cloud
        event, a known other kind, a row by itself, else DecodeError."""
        try:
            document = _ANY.decode(raw)
        except ValueError as error:
            refuse(raw, error)
        schema = None
        if is_wrapped(document):
            document, schema = document["payload"], schema_in(raw)
            if document is None:
                return self._deleted(record)
        if not isinstance(document, dict):
            raise DecodeError("not_an_envelope", f"the value is a JSON {json_type(document)}")
        if is_cloud_event(document):
            return self._cloud_event(record, document, raw)
        if self._is_envelope(record, document):
            return self._unusual_envelope(record, document, schema, raw)
        # Only a heartbeat is so small that its key has to tell.
        key = self._key_or_none(record) if len(document) <= 3 else None
        reason = ignored_reason(document, key, record.topic)
        return self._flattened(record, document, schema, raw) if reason is None else Ignored(reason)

    def _is_envelope(self, record: Record, document: dict[str, Value]) -> bool:
        """Whether the document is an envelope, or was meant to be one: it has nothing but members of an
        envelope, or all those that tell one and not the columns of its key."""
        names = document.keys()
        if names <= _ENVELOPE:
            return bool(names & _TELLING)
        if not names >= _TELLING or not isinstance(document["source"], dict):
            return False
        key = self._key_or_none(record)
        return key is None or not all(name in document for name in key)

    def _unusual_envelope(
        self, record: Record, document: dict[str, Value], schema: bytes | None, raw: bytes
    ) -> Change:
        """An envelope that the quick way does not know for one, or a broken one."""
        source = document.get("source")
        if not isinstance(source, dict):
            raise DecodeError("not_an_envelope", "an envelope without a source block")
        if document.get("op") is None:
            raise DecodeError("no_op", "a source block is there, but no op")
        typed = self._rows.untyped(record.topic)
        if schema is not None:
            typed = self._rows.typed(record.topic, schema, envelope=True)
        before = _raw(document["before"]) if "before" in document else UNSET
        source = source_from(source)
        envelope = _Envelope(document["op"], source, document.get("after"), before)
        return self._change(record, envelope, source, typed, raw)

    def _cloud_event(self, record: Record, document: dict[str, Value], raw: bytes) -> Change:
        event = read_cloud_event(document)
        typed = self._rows.untyped(record.topic)
        if event.schema is not None:
            typed = self._rows.typed(record.topic, _ENCODE(event.schema), envelope=True)
        source = source_from(event.source)
        return self._change(
            record, _Envelope(event.op, source, event.after, _raw(event.before)), source, typed, raw
        )

    def _flattened(
        self, record: Record, document: dict[str, Value], schema: bytes | None, raw: bytes
    ) -> Change:
        key = self._rows.key(record)
        if not is_row(document, key):
            raise DecodeError(
                "not_an_envelope",
                "an object that is neither an envelope nor a row with the columns of its key",
            )
        row = read_row(document, record, _ANY.decode)
        expected = self._rows.expected_of(record.topic)
        typed = expected.typed if schema is None else self._rows.typed(record.topic, schema, envelope=False)
        columns, unavailable = self._rows.row(record.topic, row.columns, typed, raw)
        if row.deleted:
            new_key = self._rows.key_in_header(record, NEW_KEY_HEADER)
            return Deleted(key, columns, row.committed_ms, new_key, row.position)
        if is_signal(columns):
            return Ignored("signal")
        document_like = is_document(document, key)
        if document_like:
            columns = dict.fromkeys(expected.columns) | dict(columns)
        old_key = self._rows.key_in_header(record, OLD_KEY_HEADER)
        return Upserted(
            key,
            columns,
            unavailable,
            row.op,
            row.committed_ms,
            row.table,
            old_key,
            row.position,
            document_like,
            offloaded_in(row.columns, unavailable),
        )

    def _key_or_none(self, record: Record) -> Columns | None:
        try:
            return self._rows.key(record)
        except DecodeError:
            return None


def _raw(value: Value) -> Raw:
    return Raw(_ENCODE(value))
