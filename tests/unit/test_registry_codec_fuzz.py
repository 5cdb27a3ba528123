"""Whatever the bytes and whatever the schema: a change, a missing schema, or a DecodeError."""

from __future__ import annotations

import json
import struct
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from vectide.codecs.debezium import DECODE_CAUSES
from vectide.codecs.framing import FRAME_CAUSES, Frame
from vectide.codecs.registry import RegistryCodec
from vectide.core.model import Change, DecodeError, Record
from vectide.ports import IdKind, RegisteredSchema, SchemaFormat, SchemaId, SchemaMissing

CAUSES = DECODE_CAUSES | FRAME_CAUSES
ROW = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "real", "type": "float"},
        {"name": "tags", "type": {"type": "array", "items": ["null", "double"]}},
        {"name": "map", "type": {"type": "map", "values": "bytes"}},
        {"name": "any", "type": ["null", "string", {"type": "array", "items": "double"}]},
    ],
}
ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "after", "type": ["null", ROW]},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": []}},
        {"name": "op", "type": "string"},
    ],
}
FLOATS = st.floats()
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "text": st.none() | st.text(max_size=8),
        "real": st.floats(width=32),
        "tags": st.lists(st.none() | FLOATS, max_size=4),
        "map": st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=3),
        "any": st.none() | st.text(max_size=4) | st.lists(FLOATS, max_size=3),
    }
)
ENVELOPES = st.fixed_dictionaries(
    {"after": st.none() | ROWS, "source": st.just({}), "op": st.sampled_from(["c", "u", "d", "x"])}
)

NAMES = st.sampled_from(["R", "S", "a.R", "string", "null", "record", "array"])
#: Anything that looks a little like a schema.
SCHEMAS = st.recursive(
    NAMES
    | st.sampled_from(["int", "long", "bytes", "float", "double", "boolean"])
    | st.integers()
    | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["record", "array", "map", "enum", "fixed", "bytes", "object"]) | inner},
            optional={
                "name": NAMES,
                "namespace": NAMES | st.none(),
                "fields": st.lists(st.fixed_dictionaries({"name": NAMES, "type": inner}), max_size=3),
                "items": inner,
                "values": inner,
                "symbols": st.lists(NAMES, max_size=2),
                "size": st.integers(-1, 3),
                "connect.name": NAMES | st.just("org.apache.kafka.connect.data.Decimal"),
                "connect.parameters": st.dictionaries(NAMES, NAMES, max_size=2) | st.integers(),
                "logicalType": st.sampled_from(["decimal", "date", "uuid"]),
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "oneOf": st.lists(inner, max_size=3),
                "$ref": st.sampled_from(["#/definitions/R", "#", "x"]),
                "definitions": st.dictionaries(NAMES, inner, max_size=2),
                "title": NAMES | st.just("org.apache.kafka.connect.data.Decimal"),
                "connect.type": st.sampled_from(["map", "bytes", "int8", "float32"]),
            },
        )
    ),
    max_leaves=8,
)
FORMATS = st.sampled_from([SchemaFormat.AVRO, SchemaFormat.JSON_SCHEMA, SchemaFormat.UNKNOWN])


def decode(codec: RegistryCodec, record: Record) -> Change | None:
    """The change, None for poison or a missing schema. Any other exception fails the test."""
    try:
        return codec.decode(record)
    except SchemaMissing:
        return None
    except DecodeError as error:
        assert error.cause in CAUSES  # noqa: PT017 - the closed set is the promise
    return None


def framed(body: bytes) -> bytes:
    return struct.pack(">bI", 0, 1) + body


def codec_of(schema: Any, format: SchemaFormat = SchemaFormat.AVRO, *references: str) -> RegistryCodec:
    codec = RegistryCodec()
    codec.learn(
        SchemaId(IdKind.SCHEMA_ID, "1"), RegisteredSchema(format, json.dumps(schema), tuple(references))
    )
    return codec


KNOWN = codec_of(ENVELOPE)


@given(st.binary(), st.binary())
def test_any_body_is_a_change_or_poison(value: bytes, key: bytes) -> None:
    decode(KNOWN, Record("t", 0, 0, framed(key), framed(value)))


@given(ENVELOPES, st.data())
def test_any_cut_or_flipped_body_is_a_change_or_poison(envelope: Any, data: st.DataObject) -> None:
    file = BytesIO()
    schemaless_writer(file, parse_schema(ENVELOPE), envelope)
    raw = bytearray(framed(file.getvalue()))
    whole = decode(KNOWN, Record("t", 0, 0, b'{"id":1}', bytes(raw)))
    assert whole is not None or envelope["op"] == "x" or (envelope["after"] is None and envelope["op"] != "d")
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[at:]
    else:
        raw[at] = data.draw(st.integers(0, 255))
    decode(KNOWN, Record("t", 0, 0, b'{"id":1}', bytes(raw)))


@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["__value_schema_id", "__key_schema_id", "apicurio.value.globalId", "apicurio.key.encoding"]
            ),
            st.none() | st.binary(max_size=17) | st.just(b"JSON"),
        ),
        max_size=3,
    ),
    st.sampled_from(Frame),
)
def test_any_frame_and_header_is_a_change_or_poison(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]], frame: Frame
) -> None:
    decode(RegistryCodec(frame.value), Record("t", 0, 0, key, value, tuple(headers)))


@given(SCHEMAS, FORMATS, st.lists(SCHEMAS, max_size=2), st.binary(max_size=20) | st.just(b'{"a":1}'))
@example(
    {"type": "array", "items": "null"}, SchemaFormat.AVRO, [], b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
)
def test_any_schema_is_learned_and_reads_or_refuses(
    schema: Any, format: SchemaFormat, references: list[Any], body: bytes
) -> None:
    codec = codec_of(schema, format, *map(json.dumps, references))
    decode(codec, Record("t", 0, 0, b'{"id":1}', framed(body)))
    decode(codec, Record("t", 0, 0, framed(body), None))


@given(st.text())
def test_any_text_is_learned_as_a_schema(text: str) -> None:
    for format in SchemaFormat:
        codec = RegistryCodec()
        codec.learn(SchemaId(IdKind.SCHEMA_ID, "1"), RegisteredSchema(format, text))
        decode(codec, Record("t", 0, 0, None, framed(b"\x00")))
