"""Records that name their schemas: Avro and JSON Schema events are what the JSON of the same row is."""

from __future__ import annotations

import base64
import json
import math
import struct
import uuid
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from tests.converters import learned_codec, recorded_avro, schemas_of
from tests.recorded import read

from vectide.codecs.avro_types import AvroSchema
from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.framing import FRAME_CAUSES
from vectide.codecs.registry import MAX_SCHEMAS, RegistryCodec
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Upserted
from vectide.ports import IdKind, RegisteredSchema, SchemaFormat, SchemaId, SchemaMissing

KEY = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]}
KEY_ID, VALUE_ID = SchemaId(IdKind.SCHEMA_ID, "1"), SchemaId(IdKind.SCHEMA_ID, "2")
GUID = uuid.UUID("0b8e2d3e-0000-4000-8000-000000000002")


def avro(schema: Any, value: Any) -> bytes:
    """The body of ``value``."""
    file = BytesIO()
    schemaless_writer(file, parse_schema(schema), value)
    return file.getvalue()


def table(*fields: Any) -> dict[str, Any]:
    """The schema of an envelope whose row has an id and these fields."""
    row = {"type": "record", "name": "Value", "fields": [{"name": "id", "type": "int"}, *fields]}
    source = {"type": "record", "name": "Source", "fields": [{"name": "table", "type": "string"}]}
    members: list[dict[str, Any]] = [
        {"name": "before", "type": ["null", row]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": source},
        {"name": "op", "type": "string"},
    ]
    return {"type": "record", "name": "Envelope", "namespace": "shop", "fields": members}


def field(name: str, type_: Any) -> dict[str, Any]:
    return {"name": name, "type": type_}


def envelope(row: Any, op: str = "c") -> dict[str, Any]:
    return {"before": None, "after": row, "source": {"table": "products"}, "op": op}


def registered(schema: Any, format: SchemaFormat = SchemaFormat.AVRO, *references: Any) -> RegisteredSchema:
    return RegisteredSchema(format, json.dumps(schema), tuple(json.dumps(other) for other in references))


def learned(schema: Any = None, codec: RegistryCodec | None = None) -> RegistryCodec:
    """A codec that knows the key's schema and this one of values."""
    codec = codec or RegistryCodec()
    codec.learn(KEY_ID, registered(KEY))
    codec.learn(VALUE_ID, registered(schema or table(field("name", "string"))))
    return codec


def frame(number: int, body: bytes) -> bytes:
    return struct.pack(">bI", 0, number) + body


def framed(row: Any, schema: Any) -> Record:
    value = frame(2, avro(schema, envelope(row)))
    return Record("shop.public.products", 0, 0, frame(1, avro(KEY, {"id": 1})), value)


def columns(row: dict[str, Any], *fields: Any) -> dict[str, Any]:
    """What becomes of the row's columns."""
    schema = table(*fields)
    change = learned(schema).decode(framed({"id": 1, **row}, schema))
    assert isinstance(change, Upserted)
    return {name: value for name, value in change.columns.items() if name != "id"}


def cause(codec: RegistryCodec, record: Record) -> str:
    with pytest.raises(DecodeError) as raised:
        codec.decode(record)
    return raised.value.cause


NAMED = table(field("name", "string"))
LAMP = {"id": 1, "name": "lamp"}


@pytest.fixture
def lamp() -> Record:
    return framed(LAMP, NAMED)


# --- recordings -------------------------------------------------------------------------------------------


def recorded(name: str) -> list[Change]:
    codec = learned_codec(name, lambda _: None)
    return [codec.decode(record) for record in recorded_avro(name)]


def as_told(change: Change) -> Any:
    """The change without what differs between two runs of the same statements."""
    if not isinstance(change, Upserted | Deleted):
        return change
    source = None if change.source is None else change.source.server.replace("avro", "json_schemas_on")
    return replace(change, committed_ms=None, source=None), source


def test_recorded_avro_tells_what_the_json_of_the_same_statements_tells() -> None:
    """Case 48: text, metadata and identity follow from the same columns, key and operation."""
    codec = DebeziumJson()
    from_json = [codec.decode(record) for record in read("json_schemas_on")]
    from_avro = recorded("avro")
    # The snapshot of the one has 20 rows, that of the other 200.
    same = [*from_avro[:20], *from_avro[200:234]]
    assert len(from_json) == 54
    assert [as_told(change) for change in same] == [as_told(change) for change in from_json]


def test_a_new_schema_in_the_middle_of_a_partition_is_decoded_as_well() -> None:
    """Case 50: a column was added, then another one dropped."""
    before, added, dropped = recorded("avro")[-3:]
    assert isinstance(before, Upserted)
    assert isinstance(added, Upserted)
    assert isinstance(dropped, Upserted)
    assert added.columns.keys() - before.columns.keys() == {"brand"}
    assert before.columns.keys() - dropped.columns.keys() == {"category"}
    assert (added.columns["brand"], dropped.columns["brand"]) == ("Nordlys", "Kaamos")


#: What the two recordings' ``decimal.handling.mode`` makes different: precise has no NaN, and a minus zero
#: keeps its scale only as text.
MODES_DIFFER = {"c_num": {(None, "NAN"), ("0", "0.000")}}


def test_recorded_types_have_the_values_that_json_gives_them() -> None:
    """Case 48, for 45 columns of every type in five rows."""
    codec = DebeziumJson()
    from_json = {
        (str(change.key), change.op): change.columns
        for record in read("types_default_schemas_on")
        if isinstance(change := codec.decode(record), Upserted)
    }
    from_avro = {
        (str(change.key), change.op): change.columns
        for change in recorded("types_avro")
        if isinstance(change, Upserted)
    }
    assert len(from_json) == len(from_avro) == 11
    for row, expected in from_json.items():
        for name, value in expected.items():
            # As they are spelt: a not-a-number equals nothing.
            if repr(value) != repr(from_avro[row][name]):
                assert (value, from_avro[row][name]) in MODES_DIFFER.get(name, set()), name


def test_the_schemas_derived_from_avro_are_those_that_json_carries() -> None:
    """The Connect schema of each column, but for the decimals, which the recordings encode in two ways."""
    record = read("types_default_schemas_on")[0]
    known = {f["field"]: f for f in json.loads(record.value or b"")["schema"]["fields"][1]["fields"]}
    text = json.loads(schemas_of("types_avro").read_text())["by_id"]["8"]["schema"]
    (after,) = (f for f in (AvroSchema(text).connect or {})["fields"] if f["field"] == "after")
    assert len(after["fields"]) == 45

    def bare(schema: dict[str, Any]) -> Any:
        kept = ("type", "optional", "field", "name", "parameters")
        inner = [bare(part) for part in schema.get("fields", ())]
        return {name: schema[name] for name in kept if name in schema} | {"fields": inner}

    decimals = {name for name, f in known.items() if "Decimal" in json.dumps(f)}
    for found in after["fields"]:
        expected = dict(known[found["field"]])
        # The optional one with a default: Avro keeps only the default.
        assert found["field"] in decimals or bare(found) == bare(expected)


# --- naming the schema ------------------------------------------------------------------------------------


def test_a_confluent_frame_names_the_schemas_of_key_and_value(lamp: Record) -> None:
    """Case 48."""
    change = learned().decode(lamp)
    assert change == Upserted({"id": 1}, LAMP, op="c", table="products")


def test_every_schema_that_is_missing_is_told_at_once(lamp: Record) -> None:
    codec = RegistryCodec()
    with pytest.raises(SchemaMissing) as raised:
        codec.decode(lamp)
    assert raised.value.ids == (KEY_ID, VALUE_ID)
    codec.learn(VALUE_ID, registered(NAMED))
    with pytest.raises(SchemaMissing) as raised:
        codec.decode(lamp)
    assert raised.value.ids == (KEY_ID,)


def test_ids_in_headers_leave_the_bytes_bare() -> None:
    """An id of four bytes for the key, a GUID for the value, as Confluent's newer serialisers write them."""
    codec = RegistryCodec()
    codec.learn(KEY_ID, registered(KEY))
    codec.learn(SchemaId(IdKind.GUID, str(GUID)), registered(NAMED))
    headers = (("__key_schema_id", b"\x00\x00\x00\x00\x01"), ("__value_schema_id", b"\x01" + GUID.bytes))
    # The key is a single byte: shorter than any frame.
    record = Record("t", 0, 0, b"\x02", avro(NAMED, envelope(LAMP)), headers)
    assert codec.decode(record) == Upserted({"id": 1}, LAMP, op="c", table="products")


def test_a_guid_may_stand_in_front_of_the_bytes(lamp: Record) -> None:
    codec = learned()
    codec.learn(SchemaId(IdKind.GUID, str(GUID)), registered(NAMED))
    value = b"\x01" + GUID.bytes + avro(NAMED, envelope(LAMP))
    assert codec.decode(replace(lamp, value=value)) == codec.decode(lamp)


@pytest.mark.parametrize("kind", [IdKind.GLOBAL_ID, IdKind.CONTENT_ID])
def test_apicurio_s_headers_leave_the_bytes_bare(lamp: Record, kind: IdKind) -> None:
    name = {IdKind.GLOBAL_ID: "globalId", IdKind.CONTENT_ID: "contentId"}[kind]
    codec = RegistryCodec()
    codec.learn(SchemaId(kind, "11"), registered(KEY))
    codec.learn(SchemaId(kind, "12"), registered(NAMED))
    headers = (
        (f"apicurio.key.{name}", struct.pack(">q", 11)),
        ("apicurio.key.encoding", b"BINARY"),
        (f"apicurio.value.{name}", struct.pack(">q", 12)),
        ("apicurio.value.encoding", b"BINARY"),
    )
    record = Record("t", 0, 0, avro(KEY, {"id": 1}), avro(NAMED, envelope(LAMP)), headers)
    assert codec.decode(record) == learned().decode(lamp)


@pytest.mark.parametrize(
    ("name", "kind", "layout"),
    [("apicurio-2", IdKind.GLOBAL_ID, ">bq"), ("apicurio-3", IdKind.CONTENT_ID, ">bI")],
)
def test_apicurio_s_frames_are_told_by_the_configuration(name: str, kind: IdKind, layout: str) -> None:
    codec = RegistryCodec(name)
    codec.learn(SchemaId(kind, "11"), registered(KEY))
    codec.learn(SchemaId(kind, "12"), registered(NAMED))
    key, value = avro(KEY, {"id": 1}), avro(NAMED, envelope(LAMP))
    record = Record("t", 0, 0, struct.pack(layout, 0, 11) + key, struct.pack(layout, 0, 12) + value)
    assert codec.decode(record) == Upserted({"id": 1}, LAMP, op="c", table="products")


def test_of_several_headers_of_a_name_the_last_one_counts(lamp: Record) -> None:
    headers = (("__value_schema_id", b"\x00\x00\x00\x00\x09"), ("__value_schema_id", b"\x00\x00\x00\x00\x02"))
    record = replace(lamp, value=avro(NAMED, envelope(LAMP)), headers=headers)
    assert learned().decode(record) == learned().decode(lamp)


def test_plain_json_beside_framed_records_is_read_as_json(lamp: Record) -> None:
    """A topic may change its converter; and a key may have another one than its value."""
    codec = learned()
    document = json.dumps(envelope(LAMP)).encode()
    assert codec.decode(replace(lamp, key=b'{"id":1}')) == codec.decode(lamp)
    assert codec.decode(replace(lamp, value=document)) == codec.decode(lamp)
    assert codec.decode(replace(lamp, key=b'{"id":1}', value=document)) == codec.decode(lamp)


def test_a_tombstone_is_a_delete(lamp: Record) -> None:
    headers = (("__value_schema_id", b"\x00\x00\x00\x00\x02"),)
    assert learned().decode(replace(lamp, value=None, headers=headers)) == Deleted({"id": 1})


def test_a_null_key_stays_null(lamp: Record) -> None:
    change = learned().decode(replace(lamp, key=None))
    assert isinstance(change, Upserted)
    assert change.key is None


def test_a_heartbeat_is_recognised() -> None:
    key = {"type": "record", "name": "ServerNameKey", "fields": [field("serverName", "string")]}
    value = {"type": "record", "name": "Heartbeat", "fields": [field("ts_ms", "long")]}
    codec = RegistryCodec()
    codec.learn(KEY_ID, registered(key))
    codec.learn(VALUE_ID, registered(value))
    record = Record(
        "beats", 0, 0, frame(1, avro(key, {"serverName": "shop"})), frame(2, avro(value, {"ts_ms": 1}))
    )
    assert codec.decode(record) == Ignored("heartbeat")


# --- what cannot be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [b"\x00", b"\x00\x00\x00\x00", b"\x01" + GUID.bytes[:-1]],
    ids=["only a zero", "three bytes of an id", "part of a GUID"],
)
def test_a_frame_that_is_cut_short_is_poison(lamp: Record, value: bytes) -> None:
    assert cause(learned(), replace(lamp, value=value)) == "bad_frame"


@pytest.mark.parametrize(
    "header", [b"", b"\x00\x00", b"\x02\x00\x00\x00\x01", b"\x01" + GUID.bytes + b"\x00", b"7"]
)
def test_a_header_that_holds_no_id_is_poison(lamp: Record, header: bytes) -> None:
    assert cause(learned(), replace(lamp, headers=(("__value_schema_id", header),))) == "bad_frame"


def test_a_wrong_magic_byte_is_poison(lamp: Record) -> None:
    """Case 93."""
    assert cause(learned(), replace(lamp, value=b"\x02" + (lamp.value or b"")[1:])) == "not_json"


def test_bytes_that_are_not_of_their_schema_are_poison(lamp: Record) -> None:
    codec = learned()
    good = lamp.value or b""
    assert cause(codec, replace(lamp, value=good[:-1])) == "bad_avro"
    assert cause(codec, replace(lamp, value=good + b"\x00")) == "bad_avro"
    assert cause(codec, replace(lamp, value=good[:5])) == "bad_avro"


def test_text_that_is_not_utf8_is_poison(lamp: Record) -> None:
    """Case 83, in Avro."""
    assert (
        cause(learned(), replace(lamp, value=(lamp.value or b"").replace(b"lamp", b"l\xffmp"))) == "bad_avro"
    )


def test_avro_in_its_json_encoding_is_refused_by_name(lamp: Record) -> None:
    headers = (
        ("apicurio.value.globalId", struct.pack(">q", 12)),
        ("apicurio.value.encoding", b"JSON"),
    )
    assert cause(learned(), replace(lamp, value=b"{}", headers=headers)) == "unsupported_schema"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (RegisteredSchema(SchemaFormat.PROTOBUF, 'syntax = "proto3";'), "unsupported_schema"),
        (RegisteredSchema(SchemaFormat.UNKNOWN, 'syntax = "proto3";'), "unsupported_schema"),
        (RegisteredSchema(SchemaFormat.AVRO, "{"), "bad_schema"),
        (RegisteredSchema(SchemaFormat.AVRO, '{"type": "nothing"}'), "bad_schema"),
        (RegisteredSchema(SchemaFormat.AVRO, '{"type": "record", "name": "R"}'), "bad_schema"),
        (RegisteredSchema(SchemaFormat.JSON_SCHEMA, "[]"), "bad_schema"),
        (registered(field("loop", "int") | {"type": "array", "items": "null"}), "bad_schema"),
        (
            registered({"type": "record", "name": "R", "fields": [field("next", ["null", "R"])]}),
            "bad_schema",
        ),
    ],
    ids=[
        "protobuf",
        "unknown",
        "no JSON",
        "no type",
        "no fields",
        "no JSON Schema",
        "empty items",
        "recursive",
    ],
)
def test_a_schema_that_is_no_good_is_told_by_the_records_that_need_it(
    lamp: Record, schema: RegisteredSchema, expected: str
) -> None:
    codec = learned()
    codec.learn(VALUE_ID, schema)
    assert cause(codec, lamp) == expected
    assert expected in FRAME_CAUSES | {"bad_schema"}
    with pytest.raises(DecodeError, match="schema id 2"):
        codec.decode(lamp)


def test_protobuf_is_refused_by_its_name(lamp: Record) -> None:
    codec = learned()
    codec.learn(VALUE_ID, RegisteredSchema(SchemaFormat.PROTOBUF, 'syntax = "proto3"; message Row {}'))
    with pytest.raises(DecodeError) as raised:
        codec.decode(replace(lamp, value=frame(2, b"\x00\x08\x01")))
    assert raised.value.cause == "unsupported_schema"
    assert raised.value.detail == "schema id 2: protobuf is not read, only Avro and JSON Schema"


def test_a_frame_without_a_registry_is_told_for_one(lamp: Record) -> None:
    with pytest.raises(DecodeError, match="framed by a schema registry, and none is configured"):
        DebeziumJson().decode(lamp)


def test_a_schema_that_grows_without_bounds_is_refused(lamp: Record) -> None:
    """Twenty types, each of them twice in the next one: a million when written out."""
    schema: Any = "int"
    references = []
    for level in range(20):
        fields = [field("a", schema), field("b", schema)]
        references.append({"type": "record", "name": f"T{level}", "fields": fields})
        schema = f"T{level}"
    codec = learned()
    codec.learn(VALUE_ID, registered([schema], SchemaFormat.AVRO, *references))
    assert cause(codec, lamp) == "bad_schema"


def test_a_key_that_cannot_be_read_counts_as_null_where_keys_are_lenient(lamp: Record) -> None:
    codec = learned(codec=RegistryCodec(lenient_keys=True))
    change = codec.decode(replace(lamp, key=frame(1, b"")))
    assert isinstance(change, Upserted)
    assert change.key is None
    assert cause(learned(), replace(lamp, key=frame(1, b""))) == "bad_avro"


def test_only_so_many_schemas_are_kept(lamp: Record) -> None:
    """Invariant 11."""
    codec = learned()
    for number in range(3, MAX_SCHEMAS + 2):
        codec.learn(SchemaId(IdKind.SCHEMA_ID, str(number)), registered(KEY))
    with pytest.raises(SchemaMissing) as raised:
        codec.decode(lamp)
    assert raised.value.ids == (KEY_ID,)


def test_what_a_schema_refers_to_is_taken_from_its_references(lamp: Record) -> None:
    whole = table(field("name", "string"))
    row = whole["fields"][0]["type"][1] | {"namespace": "shop"}
    source = whole["fields"][2]["type"] | {"namespace": "shop"}
    whole["fields"][0]["type"] = ["null", "Value"]
    whole["fields"][2]["type"] = "shop.Source"
    codec = learned()
    codec.learn(VALUE_ID, registered(whole, SchemaFormat.AVRO, row, source))
    assert codec.decode(lamp) == learned().decode(lamp)


@pytest.mark.parametrize("name", ["avro", "auto"])
def test_the_language_of_a_schema_is_told_by_its_looks_where_nobody_says(name: Any, lamp: Record) -> None:
    codec = learned(codec=RegistryCodec(format=name))
    codec.learn(VALUE_ID, registered(NAMED, SchemaFormat.UNKNOWN))
    assert codec.decode(lamp) == learned().decode(lamp)


# --- Avro values ------------------------------------------------------------------------------------------

DECIMAL = "org.apache.kafka.connect.data.Decimal"
CONNECT_DECIMAL = {"type": "bytes", "connect.name": DECIMAL, "connect.parameters": {"scale": "2"}}


@pytest.mark.parametrize(
    "schema",
    [
        CONNECT_DECIMAL,
        CONNECT_DECIMAL | {"logicalType": "decimal", "precision": 3, "scale": 2},
        {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2},
        {"type": "bytes", "connect.name": DECIMAL, "logicalType": "decimal", "precision": 9, "scale": 2},
    ],
)
def test_decimals_are_exact_whatever_precision_is_declared(schema: Any) -> None:
    raw = (123456789).to_bytes(4, "big", signed=True)
    body = avro(table(field("price", "bytes")), envelope({"id": 1, "price": raw}))
    change = learned(table(field("price", schema))).decode(
        Record("t", 0, 0, frame(1, avro(KEY, {"id": 1})), frame(2, body))
    )
    assert isinstance(change, Upserted)
    assert change.columns["price"] == "1234567.89"


def test_bytes_are_base64() -> None:
    assert columns({"raw": b"\x00\xff"}, field("raw", "bytes")) == {"raw": "AP8="}
    fixed = {"type": "fixed", "name": "Two", "size": 2}
    assert columns({"raw": b"\x00\xff"}, field("raw", fixed)) == {"raw": "AP8="}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (0.1, 0.1), (1e300, 1e300)],
)
def test_numbers_that_json_cannot_say_come_through(value: float, expected: Any) -> None:
    """On the way they are the texts that JsonConverter writes, which the schema tells from other texts."""
    schema = table(field("x", ["null", "double"]))
    message = AvroSchema(json.dumps(schema)).to_json(avro(schema, envelope({"id": 1, "x": value})))
    assert json.loads(message)["payload"]["after"]["x"] == expected
    found = columns({"x": value}, field("x", ["null", "double"]))["x"]
    assert struct.pack("d", found) == struct.pack("d", value)
    (inner,) = columns({"x": [value]}, field("x", {"type": "array", "items": "double"}))["x"]
    assert struct.pack("d", inner) == struct.pack("d", value)


@pytest.mark.parametrize(
    "value", [1.1, 1.5, 0.1, 16777217.0, 3.4028234663852886e38, 1e-45, -2.75, 123456.79, 0.0, -math.inf]
)
def test_a_float_of_32_bits_has_no_more_digits_than_it_needs(value: float) -> None:
    found = columns({"x": value}, field("x", "float"))["x"]
    assert struct.pack("f", found) == struct.pack("f", value)
    assert len(repr(found)) <= len(repr(struct.unpack("f", struct.pack("f", value))[0]))


def test_a_map_is_an_object() -> None:
    schema = field("tags", {"type": "map", "values": ["null", "double"]})
    assert columns({"tags": {"a": 1.5, "b": None}}, schema) == {"tags": {"a": 1.5, "b": None}}


def test_a_map_with_other_keys_is_a_list_of_pairs() -> None:
    """A sparse vector, for one."""
    entry = {
        "type": "record",
        "name": "MapEntry",
        "namespace": "io.confluent.connect.avro",
        "fields": [field("key", "int"), field("value", "double")],
    }
    schema = field("vector", {"type": "array", "items": entry})
    rows = [{"key": 3, "value": 0.5}, {"key": 9, "value": math.nan}]
    assert columns({"vector": rows}, schema) == {"vector": [[3, 0.5], [9, "NaN"]]}


def test_records_lists_and_enums_nest() -> None:
    color = {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}
    point = {"type": "record", "name": "Point", "fields": [field("x", "double"), field("color", color)]}
    schema = field("points", {"type": "array", "items": ["null", point]})
    points = [{"x": math.inf, "color": "BLUE"}, None]
    assert columns({"points": points}, schema) == {"points": [{"x": math.inf, "color": "BLUE"}, None]}


def test_a_union_of_several_types_keeps_its_value() -> None:
    schema = field("any", ["null", "string", "double", {"type": "array", "items": "double"}])
    assert columns({"any": "text"}, schema) == {"any": "text"}
    assert columns({"any": [math.nan]}, schema) == {"any": ["NaN"]}


def test_a_placeholder_is_recognised_in_text_and_in_bytes() -> None:
    """Invariant 5."""
    placeholder = "__debezium_unavailable_value"
    schema = table(field("body", "string"), field("raw", "bytes"))
    row = {"id": 1, "body": placeholder, "raw": placeholder.encode()}
    change = learned(schema).decode(framed(row, schema))
    assert isinstance(change, Upserted)
    assert change.unavailable == {"body", "raw"}


# --- JSON Schema ------------------------------------------------------------------------------------------


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [{"type": "null"}, schema]}


PRICE = {"title": DECIMAL, "connect.type": "bytes", "connect.parameters": {"scale": "2"}}


def json_schema(**properties: Any) -> dict[str, Any]:
    row = {"type": "object", "title": "shop.Value", "properties": {"id": {"type": "integer"}, **properties}}
    members = {"before": optional(row), "after": optional(row), "op": {"type": "string"}}
    return {"type": "object", "title": "shop.Envelope", "properties": members}


def decoded_json(schema: Any, row: str, **options: Any) -> Any:
    codec = learned(codec=RegistryCodec(**options))
    format = SchemaFormat.UNKNOWN if options else SchemaFormat.JSON_SCHEMA
    codec.learn(VALUE_ID, registered(schema, format))
    value = f'{{"before":null,"after":{row},"source":{{"table":"products"}},"op":"c"}}'
    change = codec.decode(Record("t", 0, 0, frame(1, avro(KEY, {"id": 1})), frame(2, value.encode())))
    assert isinstance(change, Upserted)
    return change.columns


def test_a_json_schema_frame_is_taken_off() -> None:
    schema = json_schema(name={"type": "string"})
    assert decoded_json(schema, '{"id":1,"name":"lamp"}') == LAMP


def test_a_json_schema_explains_decimals_however_they_are_written() -> None:
    as_text = json_schema(price=optional(PRICE | {"type": "string"}))
    encoded = base64.b64encode((1250).to_bytes(2, "big", signed=True)).decode()
    assert decoded_json(as_text, f'{{"id":1,"price":"{encoded}"}}')["price"] == "12.50"
    as_number = json_schema(price=optional(PRICE | {"type": "number"}), ratio={"type": "number"})
    found = decoded_json(as_number, '{"id":1,"price":12.5,"ratio":0.1}')
    assert found == {"id": 1, "price": "12.50", "ratio": 0.1}
    assert decoded_json(as_number, '{"id":1,"price":-123456789012345678901.05}')["price"] == (
        "-123456789012345678901.05"
    )
    assert decoded_json(as_number, '{"id":1,"price":null}')["price"] is None


def test_a_map_of_entries_is_a_list_of_pairs_as_elsewhere() -> None:
    entry = {"type": "object", "properties": {"key": {"type": "integer"}, "value": {"type": "number"}}}
    schema = json_schema(vector={"type": "array", "connect.type": "map", "items": entry})
    found = decoded_json(schema, '{"id":1,"vector":[{"key":3,"value":0.5}]}')
    assert found["vector"] == [[3, 0.5]]


def test_definitions_are_followed() -> None:
    schema = json_schema(price={"$ref": "#/definitions/money"})
    schema["definitions"] = {"money": PRICE | {"type": "number"}}
    assert decoded_json(schema, '{"id":1,"price":1}')["price"] == "1.00"


@pytest.mark.parametrize("options", [{"format": "auto"}, {"format": "json-schema"}])
def test_a_json_schema_is_recognised_where_nobody_says(options: Any) -> None:
    schema = json_schema(price=PRICE | {"type": "number"})
    assert decoded_json(schema, '{"id":1,"price":1}', **options)["price"] == "1.00"


@pytest.mark.parametrize("body", [b"", b"{", b'{"op":"c"}}', b"\xff"])
def test_a_json_schema_body_that_is_not_json_is_poison(lamp: Record, body: bytes) -> None:
    for price in (PRICE | {"type": "number"}, {"type": "string"}):
        codec = learned()
        codec.learn(VALUE_ID, registered(json_schema(price=price), SchemaFormat.JSON_SCHEMA))
        assert cause(codec, replace(lamp, value=frame(2, body))) in ("not_json", "not_utf8")
