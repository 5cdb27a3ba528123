"""Every logical type of Debezium and Kafka Connect: by its schema, and by the type that a table declares."""

import base64
import json
import math
import struct
from typing import Any

import pytest
from tests.recorded import table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.logical_types import reader_of
from vectide.core.jsontext import read_json
from vectide.core.mapping import MappingError
from vectide.core.model import DecodeError, Record, Upserted, Value
from vectide.core.softdelete import SoftDelete
from vectide.core.types import TYPE_NAMES, TypeNameError, parse_type

TIME = "io.debezium.time."
DATA = "io.debezium.data."
CONNECT = "org.apache.kafka.connect.data."


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def by_schema(schema: dict[str, Any], value: Value) -> Value:
    """The value of a column with this schema, in a whole message."""
    member = {**schema, "field": "v", "optional": True}
    row = {"type": "struct", "field": "after", "fields": [member]}
    source = {"ts_ms": 5, "db": "shop"}
    payload = {"op": "c", "source": source, "after": {"id": 1, "v": value}}
    return decoded({"schema": {"type": "struct", "fields": [row]}, "payload": payload}, {})


def by_declaration(type_name: str, value: Value) -> Value:
    """The value of a column of this declared type, in a message without schema."""
    payload = {"op": "c", "source": {"ts_ms": 5, "db": "shop"}, "after": {"id": 1, "v": value}}
    return decoded(payload, {"v": type_name})


def decoded(document: Any, types: dict[str, str]) -> Value:
    table = table_of("{v}", types=types)
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    change = codec.decode(Record("t", 0, 0, b'{"id":1}', json.dumps(document).encode()))
    assert isinstance(change, Upserted)
    return change.columns["v"]


def named(name: str, type_: str = "int64", **parameters: str) -> dict[str, Any]:
    return {"type": type_, "name": name, "parameters": parameters}


POINT = b64(struct.pack("<BIdd", 1, 1, 1.5, -2.0))
POINT_SRID = b64(struct.pack(">BIIdd", 0, 0x20000001, 4326, 1.5, -2.0))
LINE = struct.pack("<BII4d", 1, 2, 2, 0.0, 0.0, 1.0, 1.0)

SPELLINGS = [
    (named(TIME + "Date", "int32"), "date", 20512, "2026-02-28"),
    (named(TIME + "Date", "int32"), "date", 2146033979, "infinity"),
    (named(TIME + "Date", "int32"), "date", -625821272, "-infinity"),
    (named(CONNECT + "Date", "int32"), "date", -719529, "-0001-12-31"),
    (named(TIME + "IsoDate", "string"), "date", "2023-11-21Z", "2023-11-21"),
    (named(TIME + "IsoDate", "string"), "date", "-5877611-06-21Z", "infinity"),
    (named(TIME + "Time", "int32"), "time(3)", 86399123, "23:59:59.123000"),
    (named(TIME + "MicroTime"), "time", 86399123456, "23:59:59.123456"),
    (named(TIME + "NanoTime"), "time(9)", 86399123456789, "23:59:59.123456789"),
    (named(CONNECT + "Time", "int32"), "time(0)", 0, "00:00:00.000000"),
    (named(TIME + "IsoTime", "string"), "time", "10:15:30Z", "10:15:30.000000"),
    (named(TIME + "Timestamp"), "timestamp(3)", 1772323199123, "2026-02-28T23:59:59.123000"),
    (named(TIME + "MicroTimestamp"), "timestamp", 1772323199123456, "2026-02-28T23:59:59.123456"),
    (named(TIME + "NanoTimestamp"), "timestamp(7)", 1772323199123456700, "2026-02-28T23:59:59.123456700"),
    (named(CONNECT + "Timestamp"), "datetime", 0, "1970-01-01T00:00:00.000000"),
    (named(TIME + "MicroTimestamp"), "timestamp", 9223372036825200000, "infinity"),
    (named(TIME + "MicroTimestamp"), "timestamp", -9223372036832400000, "-infinity"),
    (named(TIME + "Timestamp"), "timestamp(3)", 9223372036825200, "infinity"),
    (named(TIME + "Timestamp"), "timestamp(3)", -9223372036832400000, "-infinity"),
    (named(TIME + "MicroTimestamp"), "timestamp", 253402300799999999, "9999-12-31T23:59:59.999999"),
    (
        named(TIME + "IsoTimestamp", "string"),
        "timestamp without time zone",
        "2011-12-03T10:15:30Z",
        "2011-12-03T10:15:30.000000",
    ),
    (
        named(TIME + "ZonedTimestamp", "string"),
        "timestamp(6)",
        "2026-02-28T23:59:00+01:00",
        "2026-02-28T22:59:00.000000Z",
    ),
    (
        named(TIME + "ZonedTimestamp", "string"),
        "timestamptz",
        "2026-02-28T23:59Z",
        "2026-02-28T23:59:00.000000Z",
    ),
    (named(TIME + "ZonedTimestamp", "string"), "datetimeoffset", "infinity", "infinity"),
    (named(TIME + "ZonedTime", "string"), "timetz", "01:00:00+02:00", "23:00:00.000000Z"),
    (named(TIME + "MicroDuration"), "interval", 37091106789000, "PT10303H5M6.789S"),
    (named(TIME + "Interval", "string"), "interval", "P1Y2M3DT4H5M6.789S", "P1Y2M3DT4H5M6.789S"),
    (named(TIME + "Year", "int32"), "year", 1999, 1999),
    (named(DATA + "Json", "string"), "jsonb", '{"b": [1, 2.50, null]}', {"b": [1, 2.5, None]}),
    (named(DATA + "Json", "string"), "json", '"text"', "text"),
    (named(DATA + "Json", "string"), "json", "null", None),
    (named(DATA + "Json", "string"), "json", '{"cut off', '{"cut off'),
    (named(DATA + "Json", "string"), "hstore", '{"k":"v","n":null}', {"k": "v", "n": None}),
    ({"type": "map", "values": {"type": "string"}}, "hstore", {"k": "v", "n": None}, {"k": "v", "n": None}),
    (
        named(DATA + "Uuid", "string"),
        "uuid",
        "0B5F3C0E-5A0B-4A45-9C4E-0D4F2D0B7A11",
        "0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a11",
    ),
    (named(DATA + "Uuid", "string"), "uuid", "not one", "not one"),
    (named(DATA + "Xml", "string"), "xml", "<a/>", "<a/>"),
    (named(DATA + "Enum", "string", allowed="a,b"), "enum", "a", "a"),
    (named(DATA + "EnumSet", "string", allowed="a,b"), "set", "a,b", ["a", "b"]),
    (named(DATA + "EnumSet", "string", allowed="a,b"), "set", "", []),
    (named(DATA + "Bits", "bytes", length="3"), "bit(3)", "BQ==", "101"),
    (named(DATA + "Bits", "bytes", length="10"), "bits(10)", "AQI=", "1000000001"),
    (named(DATA + "Bits", "bytes", length="3"), "bit(3)", "", "000"),
    (named(DATA + "Bits", "bytes", length="2147483647"), "bit varying", "BQ==", "101"),
    ({"type": "bytes"}, "bytea", "AP8Q", "AP8Q"),
    (
        named(DATA + "geometry.Point", "struct"),
        "point",
        {"x": 1.5, "y": -2.0, "wkb": POINT, "srid": None},
        "POINT(1.5 -2)",
    ),
    (
        named(DATA + "geometry.Geometry", "struct"),
        "geometry",
        {"wkb": POINT, "srid": 4326},
        "SRID=4326;POINT(1.5 -2)",
    ),
    (
        named(DATA + "geometry.Geography", "struct"),
        "geography",
        {"wkb": POINT_SRID, "srid": 4326},
        "SRID=4326;POINT(1.5 -2)",
    ),
    (
        named(DATA + "geometry.Geometry", "struct"),
        "geometry",
        {"wkb": b64(LINE), "srid": None},
        LINE.hex().upper(),
    ),
    (
        {"type": "array", "items": {"type": "double"}, "name": DATA + "DoubleVector"},
        "vector",
        [1.0, 0.5],
        [1.0, 0.5],
    ),
    (
        named(DATA + "SparseDoubleVector", "struct"),
        "sparsevec",
        {"dimensions": 5, "vector": {"3": 2.0, "1": 0.5}},
        "{1:0.5,3:2}/5",
    ),
    (
        named(DATA + "SparseVector", "struct"),
        "sparsevec",
        {"dimensions": 5, "vector": [[3, 2.0], [1, 0.5]]},
        "{1:0.5,3:2}/5",
    ),
    ({"type": "double"}, "double precision", "Infinity", math.inf),
    ({"type": "float"}, "real", 1.5, 1.5),
    ({"type": "boolean"}, "boolean", True, True),
    (named(CONNECT + "Decimal", "bytes", scale="2"), "numeric(10,2)", "ALeC", "469.78"),
    (named(CONNECT + "Decimal", "bytes", scale="2"), "money(2)", 469.5, "469.50"),
    (named(CONNECT + "Decimal", "bytes", scale="4"), "money(4)", "ALeC", "4.6978"),
    (named(CONNECT + "Decimal", "bytes", scale="4"), "smallmoney", "ALeC", "4.6978"),
    (named(CONNECT + "Decimal", "bytes", scale="0"), "number(19)", "ALeC", "46978"),
    (
        named(CONNECT + "Decimal", "bytes", scale="0"),
        "bigint unsigned",
        "AP//////////",
        "18446744073709551615",
    ),
    ({"type": "int32"}, "number(9)", 469780, 469780),
    ({"type": "boolean"}, "bit", True, True),
    (named(DATA + "VariableScaleDecimal", "struct"), "numeric", {"scale": 3, "value": "+iQ="}, "-1.500"),
    (
        {"type": "array", "items": named(TIME + "Date", "int32")},
        "date[]",
        [0, None, 1],
        ["1970-01-01", None, "1970-01-02"],
    ),
]


@pytest.mark.parametrize(("schema", "type_name", "value", "spelt"), SPELLINGS)
def test_a_value_is_spelt_the_same_by_its_schema_and_by_its_declared_type(
    schema: dict[str, Any], type_name: str, value: Value, spelt: Value
) -> None:
    """Cases 37, 39, 40 and 46."""
    assert by_schema(schema, value) == spelt
    assert by_declaration(type_name, value) == spelt


@pytest.mark.parametrize(("schema", "type_name", "value", "spelt"), SPELLINGS)
def test_what_is_spelt_right_already_is_read_as_itself(
    schema: dict[str, Any], type_name: str, value: Value, spelt: Value
) -> None:
    """So that a table may declare types whether its events have schemas or not."""
    if type_name.startswith(("bit", "json", "bigint")):
        return  # digits are base64 too, a text may be JSON
    assert spelt is None or parse_type(type_name).read(spelt) == spelt


def test_every_type_name_that_is_listed_is_shown_here_or_is_one_of_its_aliases() -> None:
    shown = {parse_type(name).read.__qualname__ for _, name, _, _ in SPELLINGS}
    listed = {"money(4)" if name == "money" else name for name in TYPE_NAMES if name != "bson"}
    assert shown >= {parse_type(name).read.__qualname__ for name in listed}


STRUCTURED = [
    ("StructuredDate", {"year": 2026, "month": 2, "day": 28, "specialValue": None}, "2026-02-28"),
    (
        "StructuredDate",
        {"year": None, "month": None, "day": None, "specialValue": "POSITIVE_INFINITY"},
        "infinity",
    ),
    (
        "StructuredTime",
        {"hour": 1, "minute": 2, "second": 3, "nanos": 4000, "precision": 6},
        "01:02:03.000004",
    ),
    (
        "StructuredTimestamp",
        {
            "year": -1,
            "month": 2,
            "day": 3,
            "hour": 1,
            "minute": 2,
            "second": 3,
            "nanos": 0,
            "specialValue": None,
        },
        "-0001-02-03T01:02:03.000000",
    ),
    (
        "StructuredZonedTimestamp",
        {
            "year": 2026,
            "month": 1,
            "day": 1,
            "hour": 1,
            "minute": 0,
            "second": 0,
            "nanos": 0,
            "offsetSeconds": 7200,
            "zoneId": None,
        },
        "2025-12-31T23:00:00.000000Z",
    ),
    (
        "StructuredZonedTime",
        {"hour": 1, "minute": 0, "second": 0, "nanos": 0, "offsetSeconds": 7200},
        "23:00:00.000000Z",
    ),
    (
        "StructuredDuration",
        {
            "years": 1,
            "months": 2,
            "days": 3,
            "hours": 4,
            "minutes": 5,
            "seconds": 6,
            "nanos": 789000000,
            "precision": None,
        },
        "P1Y2M3DT4H5M6.789S",
    ),
]


@pytest.mark.parametrize(("name", "parts", "spelt"), STRUCTURED)
def test_times_that_come_as_their_parts_have_the_same_spelling(name: str, parts: Value, spelt: str) -> None:
    """Case 39."""
    schema = {
        "type": "struct",
        "name": TIME + name,
        "fields": [{"type": "int32", "field": part} for part in parts],
    }
    assert by_schema(schema, parts) == spelt


@pytest.mark.parametrize("value", [None, "x", 5, [], {"a": 1}, {"hour": 1}, {"specialValue": 5}])
@pytest.mark.parametrize("name", [name for name, _, _ in STRUCTURED])
def test_parts_that_are_none_are_poison_or_null(name: str, value: Value) -> None:
    read = reader_of(TIME + name, {})
    assert read is not None
    if value is None:
        assert by_schema({"type": "struct", "name": TIME + name}, None) is None
        return
    with pytest.raises(DecodeError, match="bad_value"):
        read(value)


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("date", 1.5),
        ("date", True),
        ("date", 2**63),
        ("timestamp", {"a": 1}),
        ("timestamp", -(2**63) - 1),
        ("time", [1]),
        ("timestamptz", 5),
        ("timetz", 5),
        ("interval", 1.5),
        ("decimal(10,2)", "not a number"),
        ("decimal(10,2)", "1e5"),
        ("boolean", "perhaps"),
        ("boolean", 0.5),
        ("bit(3)", "???"),
        ("bit(3)", 5.5),
        ("sparsevec", {"dimensions": 5, "vector": {"a": "b"}}),
        ("sparsevec", {"dimensions": None, "vector": {}}),
        ("date[]", [0, "1970-01-01", True]),
    ],
)
def test_a_value_that_its_type_cannot_be_is_poison_and_never_quoted(type_name: str, value: Value) -> None:
    """Case 52; invariant 13."""
    with pytest.raises(DecodeError) as caught:
        by_declaration(type_name, value)
    assert caught.value.cause == "bad_value"
    assert "perhaps" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12.50", "12.50"),
        ("12.5", "12.50"),
        ("-0.1", "-0.10"),
        (".5", ".50"),
        (12, "12.00"),
        (12.5, "12.50"),
        (1e20, "100000000000000000000.00"),
    ],
)
def test_decimals_in_every_mode_have_the_scale_of_their_type(value: Value, text: str) -> None:
    """Case 37."""
    assert by_declaration("decimal(10,2)", value) == text


def test_no_digit_of_a_decimal_is_cut() -> None:
    assert by_declaration("decimal(10,2)", 0.125) == "0.125"
    assert by_declaration("decimal(10,2)", "0.1250") == "0.125"
    assert by_declaration("decimal(10,2)", "NAN") == "NaN"


def test_a_declared_decimal_is_not_read_into_a_text_that_a_schema_calls_text() -> None:
    """``1234`` is base64 too. With schemas the connector says that it sends decimals as text."""
    member = {"type": "string", "field": "v"}
    schema = {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": [member]}]}
    payload = {"op": "c", "source": {"ts_ms": 5, "db": "shop"}, "after": {"v": "1234"}}
    assert decoded({"schema": schema, "payload": payload}, {"v": "decimal(10,0)"}) == "1234"


def test_a_declared_type_counts_where_the_schema_has_only_a_number() -> None:
    """MariaDB's booleans are small integers, with a schema and without."""
    member = {"type": "int16", "field": "v"}
    schema = {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": [member]}]}
    payload = {"op": "c", "source": {"ts_ms": 5, "db": "shop"}, "after": {"v": 1}}
    assert decoded({"schema": schema, "payload": payload}, {"v": "boolean"}) is True
    assert decoded({"schema": None, "payload": payload}, {"v": "boolean"}) is True


def test_types_of_key_columns_are_read_in_the_key() -> None:
    """Case 6: an id must not depend on the converter."""
    table = table_of("{v}", types={"day": "date", "no": "decimal(10,2)"})
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    value = b'{"op":"c","source":{"ts_ms":5,"db":"shop"},"after":{"day":0,"no":"ALeC","v":"x"}}'
    change = codec.decode(Record("t", 0, 0, b'{"no":"ALeC","day":0}', value))
    assert isinstance(change, Upserted)
    assert change.key == {"no": "469.78", "day": "1970-01-01"}
    fields = [
        {**named(TIME + "Date", "int32"), "field": "day"},
        {**named(CONNECT + "Decimal", "bytes", scale="2"), "field": "no"},
    ]
    key = json.dumps({"schema": {"type": "struct", "fields": fields}, "payload": {"day": 0, "no": "ALeC"}})
    other = codec.decode(Record("t", 0, 0, key.encode(), value))
    assert isinstance(other, Upserted)
    assert table.row_of(other) == table.row_of(change)


def test_types_inside_structs_maps_and_arrays_are_read() -> None:
    day = named(TIME + "Date", "int32")
    nested = {"type": "struct", "fields": [{**day, "field": "d"}, {"type": "string", "field": "s"}]}
    assert by_schema(nested, {"d": 0, "s": "x", "more": None}) == {"d": "1970-01-01", "s": "x", "more": None}
    assert by_schema({"type": "map", "values": day}, {"k": 0, "n": None}) == {"k": "1970-01-01", "n": None}
    assert by_schema({"type": "array", "items": {"type": "array", "items": day}}, [[0], []]) == [
        ["1970-01-01"],
        [],
    ]
    assert by_schema(nested, "not a struct") == "not a struct"
    assert by_schema({"type": "map", "values": day}, [[1, 0]]) == [[1, 0]]


def test_a_geometry_is_known_by_its_shape_wherever_it_is() -> None:
    point = {"x": 1.5, "y": -2.0, "wkb": POINT, "srid": None}
    payload = {
        "op": "c",
        "source": {"ts_ms": 5, "db": "shop"},
        "after": {"v": {"center": point, "radius": 2.0}},
    }
    assert decoded(payload, {}) == {"center": "POINT(1.5 -2)", "radius": 2.0}
    payload["after"] = {"v": [point, None]}
    assert decoded(payload, {}) == ["POINT(1.5 -2)", None]
    payload["after"] = {"v": {"wkb": "x", "srid": 1, "other": 2}}
    assert decoded(payload, {}) == {"wkb": "x", "srid": 1, "other": 2}


@pytest.mark.parametrize(
    ("wkb", "srid", "text"),
    [
        (struct.pack("<BIdd", 1, 1, math.nan, math.nan), None, "POINT EMPTY"),
        (struct.pack("<BIdd", 1, 1, 1e-7, 1e20), 0, "POINT(0.0000001 100000000000000000000)"),
        (
            struct.pack("<BIddd", 1, 1001, 1, 2, 3),
            None,
            struct.pack("<BIddd", 1, 1001, 1, 2, 3).hex().upper(),
        ),
        (b"\x01\x01", 4326, "SRID=4326;0101"),
        (b"\x07garbage", None, "0767617262616765"),
    ],
)
def test_what_is_no_plain_point_is_shown_as_hex(wkb: bytes, srid: int | None, text: str) -> None:
    assert by_declaration("geometry", {"wkb": b64(wkb), "srid": srid}) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12345678901234567890.12", "12345678901234567890.12"),
        ("0.1", 0.1),
        ("2.50", 2.5),
        ("1e2", 100.0),
        ("1e400", "1e400"),
        ("-0.0", -0.0),
        ("12345678901234567890123", 12345678901234567890123),
        ('{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_numbers_inside_json_are_exact(text: str, value: Value) -> None:
    """Cases 46 and 87."""
    assert read_json(text) == value


@pytest.mark.parametrize(
    "text", ["", "NaN", "[Infinity]", "{", '"\\ud800"', "[" * 100_000, "[" * 65 + "]" * 65, "9" * 5000]
)
def test_a_text_that_is_not_json_is_told(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the wording is the parser's
        read_json(text)
    assert by_declaration("json", text) == text


@pytest.mark.parametrize(
    "name",
    [
        "DECIMAL( 10 , 2 )",
        "Timestamp(3) without time zone",
        " timestamp  with time zone ",
        "character varying(20)",
        "text[]",
        "numeric(8,2)[][]",
        "bigint",
    ],
)
def test_type_names_are_those_of_sql_in_any_case(name: str) -> None:
    assert parse_type(name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "decimel", "decimal(", "decimal(x)", "decimal(1,2,3)", "[]", "date;", "timestamp(-1)", "int)", "1"],
)
def test_a_type_that_does_not_exist_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(TypeNameError, match=r"is not a type; (there are decimal, |in its brackets)"):
        parse_type(name)


def test_a_mapping_with_an_unknown_type_cannot_be_built() -> None:
    with pytest.raises(MappingError, match="types: v: 'decimel' is not a type"):
        table_of("{v}", types={"v": "decimel"})


@pytest.mark.parametrize(
    ("type_name", "value", "deleted"),
    [
        ("timestamp", None, False),
        ("timestamp", 0, False),
        ("timestamp(3)", 0, False),
        ("date", 0, False),
        ("timestamp", 9223372036825200000, False),
        ("date", 2146033979, False),
        ("timestamptz", "1970-01-01T00:00:00Z", False),
        ("timestamp", 1772323199123456, True),
        ("date", 20512, True),
        ("boolean", 1, True),
        ("boolean", 0, False),
        ("bit(1)", "AQ==", True),
        ("bit(1)", "", False),
    ],
)
def test_a_soft_delete_column_means_the_same_whether_its_type_is_known_or_not(
    type_name: str, value: Value, deleted: bool
) -> None:
    """Cases 39 and 41: zero dates and infinity ("deleted never") are not deleted."""
    rule = SoftDelete("v")
    assert rule.says_deleted(None if value is None else by_declaration(type_name, value)) is deleted
    if not isinstance(value, str) and type_name != "date":
        assert rule.says_deleted(value) is deleted
