"""Records that only name their schemas: Avro and JSON Schema topics with a schema registry.

A framed part (see :mod:`vectide.codecs.framing`) becomes the message that Connect's JsonConverter would have
written of the same row, a part without frame stays as it is, and the JSON codec decodes what comes out. So
every shape of event is understood the same, whichever converter wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Literal

from vectide.codecs.avro_types import AvroSchema
from vectide.codecs.debezium import UNAVAILABLE
from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.framing import Frame, Framed, framed_parts
from vectide.codecs.json_schema_types import JsonSchema
from vectide.core.mapping import TableMapping
from vectide.core.model import Change, DecodeError, Record
from vectide.core.readers import Decimals
from vectide.ports import RegisteredSchema, SchemaFormat, SchemaId, SchemaMissing

#: Schemas that are kept ready to read with. The one that was learned first goes first.
MAX_SCHEMAS: Final = 1000

_READABLE: Final = frozenset({SchemaFormat.AVRO, SchemaFormat.JSON_SCHEMA})
_JSON_SCHEMA_MEMBERS: Final = frozenset({"$schema", "properties", "oneOf", "anyOf", "$ref", "title", "$id"})

_Reader = AvroSchema | JsonSchema


class RegistryCodec:
    """Decodes framed records. Implements :class:`vectide.ports.SchemaCodec`; one instance serves one thread.

    ``frame`` is what a leading zero byte announces. ``format`` is the language of schemas of which the
    registry does not tell it; ``auto``: they tell by their looks. ``unavailable``, ``lenient_keys``,
    ``mapping_of`` and ``decimals`` are those of :class:`~vectide.codecs.debezium_json.DebeziumJson`.
    """

    def __init__(
        self,
        frame: str = Frame.CONFLUENT.value,
        format: Literal["auto", "avro", "json-schema"] = "auto",
        *,
        unavailable: str = UNAVAILABLE,
        lenient_keys: bool = False,
        mapping_of: Callable[[str], TableMapping | None] = lambda _topic: None,
        decimals: Decimals = "auto",
    ) -> None:
        self._frame = Frame(frame)
        self._format = None if format == "auto" else SchemaFormat(format)
        self._json = DebeziumJson(
            unavailable, lenient_keys=lenient_keys, mapping_of=mapping_of, decimals=decimals
        )
        self._lenient_keys = lenient_keys
        self._schemas: dict[SchemaId, _Reader | DecodeError] = {}

    def learn(self, schema_id: SchemaId, schema: RegisteredSchema) -> None:
        """Keep the schema ready. What is wrong with it is told by the records that need it."""
        self._schemas.pop(schema_id, None)
        if len(self._schemas) >= MAX_SCHEMAS:
            del self._schemas[next(iter(self._schemas))]
        try:
            self._schemas[schema_id] = _reader(schema, self._format)
        except DecodeError as error:
            self._schemas[schema_id] = DecodeError(error.cause, f"{schema_id}: {error.detail}")

    def decode(self, record: Record) -> Change:
        """The change that the record tells. Raises DecodeError when it never can, SchemaMissing with every
        id that has to be learned first, and nothing else."""
        key, value = framed_parts(record, self._frame)
        if key is None and value is None:
            return self._json.decode(record)
        missing = tuple(part.id for part in (key, value) if part is not None and part.id not in self._schemas)
        if missing:
            raise SchemaMissing(missing)
        return self._json.decode(
            Record(
                record.topic,
                record.partition,
                record.offset,
                record.key if key is None else self._key(key),
                record.value if value is None else self._to_json(value),
                record.headers,
                record.timestamp_ms,
            )
        )

    def _key(self, framed: Framed) -> bytes | None:
        try:
            return self._to_json(framed)
        except DecodeError:
            if self._lenient_keys:
                return None
            raise

    def _to_json(self, framed: Framed) -> bytes:
        reader = self._schemas[framed.id]
        if isinstance(reader, DecodeError):
            # Another one each time: an exception that is raised again keeps what it was raised through.
            raise DecodeError(reader.cause, reader.detail)
        return reader.to_json(framed.body)


def _reader(schema: RegisteredSchema, expected: SchemaFormat | None) -> _Reader:
    """What turns bodies of this schema into JSON. Raises DecodeError."""
    language = schema.format
    if language is SchemaFormat.UNKNOWN:
        language = expected or _language_of(schema.text)
    if language not in _READABLE:
        raise DecodeError("unsupported_schema", f"{language.value} is not read, only Avro and JSON Schema")
    if language is SchemaFormat.JSON_SCHEMA:
        return JsonSchema(schema.text)
    return AvroSchema(schema.text, schema.references)


def _language_of(text: str) -> SchemaFormat:
    """The language of a schema, by its looks."""
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError):
        return SchemaFormat.PROTOBUF
    if not isinstance(schema, dict) or schema.get("type") in ("record", "enum", "fixed", "map"):
        return SchemaFormat.AVRO
    is_json = schema.get("type") == "object" or not _JSON_SCHEMA_MEMBERS.isdisjoint(schema)
    return SchemaFormat.JSON_SCHEMA if is_json else SchemaFormat.AVRO
