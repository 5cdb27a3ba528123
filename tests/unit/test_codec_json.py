"""Debezium's JSON: every shape of message, and every broken one."""

import base64
import json
from typing import Any

import pytest

from vectide.codecs import load
from vectide.codecs.debezium import UNAVAILABLE
from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Truncated, Upserted

SOURCE = {
    "connector": "postgresql",
    "ts_ms": 1795243356331,
    "db": "shop",
    "schema": "public",
    "table": "docs",
}
KEY_SCHEMA = {"type": "struct", "fields": [{"type": "int64", "optional": False, "field": "id"}]}
DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
VARIABLE = {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}
ABSENT: Any = object()


def envelope(op: Any = "c", after: Any = ABSENT, **more: Any) -> dict[str, Any]:
    row = {"id": 1, "title": "hello"} if after is ABSENT else after
    return {"before": None, "after": row, "source": SOURCE, "op": op, "ts_ms": 1795243356416, **more}


def with_schema(payload: Any, *fields: dict[str, Any]) -> dict[str, Any]:
    row = {"type": "struct", "fields": list(fields), "optional": True}
    members = [{**row, "field": "before"}, {**row, "field": "after"}, {"type": "string", "field": "op"}]
    return {"schema": {"type": "struct", "fields": members, "name": "docs.Envelope"}, "payload": payload}


def raw(document: Any) -> bytes | None:
    if document is None or isinstance(document, bytes):
        return document
    return json.dumps(document).encode()


def record(value: Any, key: Any = ABSENT, topic: str = "shop.public.docs", **headers: Any) -> Record:
    pairs = tuple((f"__debezium.{name}", raw(content)) for name, content in headers.items())
    return Record(topic, 0, 7, raw({"id": 1} if key is ABSENT else key), raw(value), pairs)


def decode(value: Any, key: Any = ABSENT, topic: str = "shop.public.docs", **headers: Any) -> Change:
    return DebeziumJson().decode(record(value, key, topic, **headers))


def upserted(value: Any, key: Any = ABSENT, **headers: Any) -> Upserted:
    change = decode(value, key, **headers)
    assert isinstance(change, Upserted)
    return change


def deleted(value: Any, key: Any = ABSENT, **headers: Any) -> Deleted:
    change = decode(value, key, **headers)
    assert isinstance(change, Deleted)
    return change


def cause_of(value: Any, key: Any = ABSENT, **headers: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(value, key, **headers)
    return caught.value.cause


# --- upserts --------------------------------------------------------------------------------------------


def test_an_insert_is_an_upsert_with_its_columns_key_time_and_table() -> None:
    """Case 1."""
    assert upserted(envelope("c")) == Upserted(
        key={"id": 1},
        columns={"id": 1, "title": "hello"},
        op="c",
        committed_ms=1795243356331,
        table="public.docs",
    )


def test_schemas_make_no_difference() -> None:
    """Cases 2 and 3: key and value tell on their own whether they carry a schema."""
    plain = upserted(envelope())
    wrapped_key = {"schema": KEY_SCHEMA, "payload": {"id": 1}}
    assert upserted(with_schema(envelope()), wrapped_key) == plain
    assert upserted(envelope(), wrapped_key) == plain
    assert upserted(with_schema(envelope())) == plain
    assert upserted({"schema": None, "payload": envelope()}, {"schema": None, "payload": {"id": 1}}) == plain
    assert upserted(dict(reversed(with_schema(envelope()).items()))) == plain


@pytest.mark.parametrize(
    "snapshot", ["true", "first", "last", "incremental", "false", True, False, None, ABSENT]
)
def test_a_snapshot_read_is_an_upsert_whatever_the_snapshot_field_says(snapshot: Any) -> None:
    """Cases 4 and 5."""
    source = SOURCE if snapshot is ABSENT else {**SOURCE, "snapshot": snapshot}
    assert upserted({**envelope("r"), "source": source}).op == "r"


@pytest.mark.parametrize("op", ["C", "R", "U"])
def test_the_op_is_read_in_either_case(op: str) -> None:
    """Case 5."""
    assert upserted(envelope(op)).op == op.lower()


def test_an_update_needs_no_before() -> None:
    """Cases 11 and 12."""
    assert upserted(envelope("u", {"id": 1, "title": "new"})).columns == {"id": 1, "title": "new"}
    without = {name: member for name, member in envelope("u").items() if name != "before"}
    assert upserted(without).op == "u"


def test_a_before_that_cannot_be_read_does_not_cost_an_upsert() -> None:
    """Case 13: a full before is not decoded at all."""
    document = raw(envelope("u"))
    assert document is not None
    assert upserted(document.replace(b'"before": null', b'"before": {"id": 1e999}')).op == "u"


def test_the_table_of_a_source_without_schemas_is_named_by_its_database() -> None:
    source = {"ts_ms": 5, "db": "shop", "table": "docs"}
    assert upserted({**envelope(), "source": source}).table == "shop.docs"


@pytest.mark.parametrize("ts_ms", [None, "soon", 1.5, True, -1, 2**63, ABSENT])
def test_a_source_time_that_is_no_time_is_unknown(ts_ms: Any) -> None:
    source = {name: member for name, member in SOURCE.items() if name != "ts_ms"}
    if ts_ms is not ABSENT:
        source["ts_ms"] = ts_ms
    assert upserted({**envelope(), "source": source}).committed_ms is None


def test_integers_beyond_64_bits_stay_exact() -> None:
    number = 123456789012345678901234567890
    assert upserted(envelope(after={"id": 1, "n": number})).columns["n"] == number


def test_of_two_members_with_one_name_the_last_counts() -> None:
    """Case 87."""
    value = b'{"op":"d","op":"u","source":{},"after":{"id":1,"t":"first","t":"last"}}'
    change = upserted(value, b'{"id":9,"id":1}')
    assert (change.op, change.columns["t"], change.key) == ("u", "last", {"id": 1})


def test_the_texts_nan_and_infinity_stay_texts() -> None:
    """Case 86."""
    row = {"id": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    assert upserted(envelope(after=row)).columns == row


def test_a_byte_order_mark_is_skipped() -> None:
    """Case 83."""
    value, key = raw(envelope()), raw({"id": 1})
    assert value is not None
    assert key is not None
    assert upserted(b"\xef\xbb\xbf" + value, b"\xef\xbb\xbf" + key) == upserted(envelope())


def test_a_message_of_five_megabytes_is_decoded() -> None:
    """Case 90."""
    body = "ünï " * 1_100_000
    assert upserted(envelope(after={"id": 1, "body": body})).columns["body"] == body


def test_a_row_may_have_columns_named_like_the_wrapper_or_the_envelope() -> None:
    row = {"id": 1, "schema": "public", "payload": {"a": 1}, "op": "d", "source": 7, "after": None}
    assert upserted(envelope(after=row)).columns == row
    assert upserted(envelope(), {"schema": "public", "payload": 3}).key == {"schema": "public", "payload": 3}
    assert upserted(envelope(), {"schema": "public", "id": 3}).key == {"schema": "public", "id": 3}


# --- deletes --------------------------------------------------------------------------------------------


def test_a_delete_keeps_the_row_before_it() -> None:
    """Case 15."""
    change = deleted({**envelope("d", None), "before": {"id": 1, "title": ""}})
    assert change == Deleted({"id": 1}, {"id": 1, "title": ""}, 1795243356331)


@pytest.mark.parametrize(
    "value",
    [None, b"null", b" null\n", {"schema": None, "payload": None}, {"schema": KEY_SCHEMA, "payload": None}],
)
def test_a_value_that_says_null_in_any_way_is_a_delete(value: Any) -> None:
    """Case 16, and the deletes that converters of flattened topics write."""
    assert decode(value) == Deleted({"id": 1})


def test_a_row_with_a_null_column_called_payload_is_not_a_delete() -> None:
    assert cause_of({"schema": "public", "payload": None}) == "not_an_envelope"
    assert cause_of({"payload": None}) == "not_an_envelope"
    row = {"schema": "public", "payload": None, "id": 3}
    assert upserted(row).columns == row


def test_a_record_without_key_and_value_has_nothing_to_name_a_row() -> None:
    assert decode(None, None) == Deleted(None)


@pytest.mark.parametrize("before", [b'"text"', b'{"n": 1e999}', b'{"t": "\xff"}', b"[" * 300 + b"]" * 300])
def test_a_before_that_cannot_be_read_does_not_cost_a_delete(before: bytes) -> None:
    value = b'{"op":"d","source":{"ts_ms":5,"db":"x"},"after":null,"before":' + before + b"}"
    assert deleted(value) == Deleted({"id": 1}, committed_ms=5)


def test_a_placeholder_in_the_row_before_a_delete_is_left_out() -> None:
    change = deleted({**envelope("d", None), "before": {"id": 1, "body": UNAVAILABLE}})
    assert change.columns == {"id": 1}


def test_both_halves_of_a_primary_key_change_name_each_other() -> None:
    """Case 26."""
    new, old = {"id": 2}, {"id": 1}
    assert deleted(envelope("d", None), old, newkey=new).new_key == new
    assert deleted(None, old, newkey=new).new_key == new
    assert upserted(envelope("c"), new, oldkey=old).old_key == old


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b'{"schema":{"type":"struct"},"payload":{"id":2}}', {"id": 2}),
        (b'{"id":2,"name":"two\nlines"}', {"id": 2, "name": "two\nlines"}),
        (b"Struct{id=2}", None),
        (b"2", None),
        (b"", None),
        (b"null", None),
        (None, None),
        (b"\xff\xfe", None),
        (b'{"id":NaN}', None),
        (b'{"id":"\\ud800"}', None),
        (b"[" * 100_000, None),
        (b'{"a":' * 300 + b"1" + b"}" * 300, None),
    ],
)
def test_a_key_in_a_header_is_a_hint_that_may_be_unreadable(header: bytes | None, key: Any) -> None:
    assert deleted(None, newkey=header).new_key == key


def test_of_two_headers_with_one_name_the_last_counts() -> None:
    headers = (("__debezium.newkey", b'{"id":2}'), ("__debezium.newkey", b'{"id":3}'))
    change = DebeziumJson().decode(Record("t", 0, 0, b'{"id":1}', None, headers))
    assert change == Deleted({"id": 1}, new_key={"id": 3})


# --- what is not about one row --------------------------------------------------------------------------


def test_a_truncate_is_told_apart_and_needs_no_key() -> None:
    assert decode(envelope("t", None), None) == Truncated(1795243356331)


HEARTBEAT = {"ts_ms": 1795243428518}
TRANSACTION = {"status": "BEGIN", "id": "1:2", "event_count": None, "data_collections": None, "ts_ms": 5}
DDL = {"source": SOURCE, "ts_ms": 5, "databaseName": "shop", "ddl": "DROP TABLE x", "tableChanges": []}
NOTIFICATION = {"id": "a", "type": "STARTED", "aggregate_type": "x", "additional_data": {}, "timestamp": 5}
MESSAGE = {"op": "m", "ts_ms": 5, "source": SOURCE, "message": {"prefix": "x", "content": "eA=="}}
SIGNAL = envelope(after={"id": "1", "type": "execute-snapshot", "data": "{}"})


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (HEARTBEAT, {"serverName": "shop"}, "heartbeat"),
        (TRANSACTION, {"id": "1:2"}, "transaction"),
        (DDL, {"databaseName": "shop"}, "schema_change"),
        (NOTIFICATION, {"id": "a"}, "notification"),
        (MESSAGE, {"prefix": "x"}, "logical_message"),
        (SIGNAL, {"id": "1"}, "signal"),
    ],
)
def test_what_is_not_about_a_row_is_ignored_by_its_shape(
    value: dict[str, Any], key: dict[str, Any], reason: str, wrapped: bool
) -> None:
    """Case 30: on whatever topic, with and without schemas."""
    assert decode(with_schema(value) if wrapped else value, key, "any.topic") == Ignored(reason)


def test_a_heartbeat_is_known_by_its_topic_too() -> None:
    assert decode(HEARTBEAT, None, "__debezium-heartbeat.shop") == Ignored("heartbeat")


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "type": "invoice", "data": "{}"},
        {"id": "1", "type": ["execute-snapshot"], "data": "{}"},
        {"id": "1", "type": "execute-snapshot", "data": "{}", "more": 1},
    ],
)
def test_a_table_that_only_resembles_the_signal_table_is_kept(row: dict[str, Any]) -> None:
    assert upserted(envelope(after=row)).columns == row


# --- broken messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (b"", "not_json"),
        (b"   ", "not_json"),
        (b"Struct{id=1}", "not_json"),
        (b'{"op":"c","after":{"id":1}', "not_json"),
        (b'{"op":"c"} trailing', "not_json"),
        (b"{'op':'c'}", "not_json"),
        (b'{"op":"c","source":{},"after":{"id":NaN}}', "not_json"),
        (b'{"op":"c","source":{},"after":{"id":-Infinity}}', "not_json"),
        (b'{"op":"c","source":{},"after":{"t":"a\x00b"}}', "not_json"),
        (b'{"op":"c","source":{},"after":{"t":"\\ud800"}}', "not_json"),
        (b'{"op":"c","source":{},"after":{"t":"\\ude00\\ud83d"}}', "not_json"),
        (b"\x00\x00\x00\x00\x05\x02", "not_json"),
        (b'{"op":"c","source":{},"after":{"t":"\xff"}}', "not_utf8"),
        (b'{"op":"c","source":{},"after":{"t":"\xed\xa0\x80"}}', "not_utf8"),
        ('{"op":"c"}'.encode("utf-16"), "not_utf8"),
        ('{"op":"c"}'.encode("utf-32"), "not_utf8"),
        ('{"op":"c"}'.encode("utf-16-le"), "not_json"),
        (b'{"op":"c","source":{},"after":{"n":1e999}}', "number_out_of_range"),
        (b'{"op":"c","source":{},"after":{"n":' + b"9" * 5000 + b"}}", "number_out_of_range"),
    ],
)
def test_bytes_that_are_not_json_are_poison(value: bytes, cause: str) -> None:
    """Cases 82, 83 and 86."""
    assert cause_of(value) == cause


@pytest.mark.parametrize(
    "value", [b"[]", b"[{}]", b"5", b"true", b'"abc"', {"schema": None, "payload": "abc"}]
)
def test_anything_but_an_object_at_the_top_is_poison(value: Any) -> None:
    """Case 92."""
    assert cause_of(value) == "not_an_envelope"


@pytest.mark.parametrize("op", ["x", "", "create", 5, ["c"], {"op": "c"}, True])
def test_an_unknown_op_is_poison(op: Any) -> None:
    """Case 91."""
    assert cause_of(envelope(op)) == "unknown_op"


@pytest.mark.parametrize("op", [None, ABSENT])
def test_a_source_without_an_op_is_poison(op: Any) -> None:
    """Case 91."""
    value = {name: member for name, member in envelope(op).items() if member is not ABSENT}
    assert cause_of(value) == "no_op"


@pytest.mark.parametrize("source", [None, "urn:shop", 5, []])
def test_an_op_without_a_source_block_is_poison(source: Any) -> None:
    assert cause_of({**envelope(), "source": source}) == "not_an_envelope"


@pytest.mark.parametrize("op", ["c", "r", "u"])
def test_an_upsert_without_a_row_is_neither_a_delete_nor_an_empty_row(op: str) -> None:
    assert cause_of(envelope(op, None)) == "no_after"


@pytest.mark.parametrize("row", ["{_id: 1}", "[1]", "", 5, [1], True])
def test_a_row_that_is_not_an_object_is_poison(row: Any) -> None:
    assert cause_of(envelope(after=row)) == "bad_row"


@pytest.mark.parametrize("nested", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 70 + b"1" + b"}" * 70])
def test_endless_nesting_is_poison_and_no_crash(nested: bytes) -> None:
    assert cause_of(b'{"op":"c","source":{},"after":{"id":1,"n":' + nested + b"}}") == "too_deep"
    assert cause_of(nested) in ("too_deep", "not_an_envelope")
    assert cause_of(None, b'{"id":' + nested + b"}") == "too_deep"


def test_nesting_within_reason_is_kept() -> None:
    value: Any = 1
    for _ in range(60):
        value = [value]
    assert upserted(envelope(after={"id": 1, "n": value})).columns["n"] == value


def test_no_error_quotes_the_row() -> None:
    """Invariant 13."""
    for value in (
        b'{"op":"c","after":{"t":"s3cret\xff"}}',
        b's3cret{"op"',
        envelope("s3cret"),
        {"s3cret": 1},
    ):
        with pytest.raises(DecodeError) as caught:
            decode(value)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b"null", {"schema": None, "payload": None}])
def test_a_null_key_is_no_key(key: Any) -> None:
    """Case 8: the mapping may find the key in the row."""
    assert upserted(envelope(), key).key is None


BAD_KEYS = [b"", b"5", b'"1"', b"[1]", b"{}", b"Struct{id=1}", b"\xff", {"schema": KEY_SCHEMA, "payload": 1}]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_not_an_object_of_columns_is_poison(key: Any) -> None:
    assert cause_of(envelope(), key) == "bad_key"
    assert cause_of(None, key) == "bad_key"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_spoiled_key_may_count_as_null_where_the_mapping_names_the_key_columns(key: Any) -> None:
    change = DebeziumJson(lenient_keys=True).decode(record(envelope(), key))
    assert isinstance(change, Upserted)
    assert change.key is None


def test_null_components_of_a_key_are_left_to_the_mapping() -> None:
    """Case 10."""
    assert deleted(None, {"ref": "b", "lang": None}).key == {"ref": "b", "lang": None}


def test_a_placeholder_in_the_key_never_becomes_an_identity() -> None:
    assert cause_of(envelope(), {"id": UNAVAILABLE}) == "unavailable_key"


# --- unavailable values ---------------------------------------------------------------------------------

ENCODED = base64.b64encode(UNAVAILABLE.encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        UNAVAILABLE,
        ENCODED,
        [UNAVAILABLE],
        [ENCODED],
        ["b68a35a7-17ad-35b3-af2a-ae46edb4545a"],
        list(UNAVAILABLE.encode()),
        {UNAVAILABLE: UNAVAILABLE},
        f'{{"{UNAVAILABLE}":"{UNAVAILABLE}"}}',
    ],
)
def test_a_placeholder_of_any_type_leaves_the_columns_and_is_named(value: Any) -> None:
    """Invariant 5."""
    change = upserted(envelope("u", {"id": 1, "title": "new", "body": value}))
    assert change.columns == {"id": 1, "title": "new"}
    assert change.unavailable == frozenset({"body"})


@pytest.mark.parametrize(
    "value",
    [
        f"see {UNAVAILABLE}",
        UNAVAILABLE.upper(),
        [UNAVAILABLE, UNAVAILABLE],
        [UNAVAILABLE.encode()[0]],
        {UNAVAILABLE: "x"},
        [],
        {},
        "x" * len(UNAVAILABLE),
    ],
)
def test_a_value_that_only_resembles_a_placeholder_is_kept(value: Any) -> None:
    change = upserted(envelope("u", {"id": 1, "body": value}))
    assert change.columns["body"] == value
    assert not change.unavailable


def test_a_reference_to_a_value_in_object_storage_is_no_text() -> None:
    """The value that it stands for may be a new one: it is not merely unchanged."""
    row = {
        "id": 1,
        "body": "__debezium:s3:ref:v1:bucket|shop/1",
        "more": UNAVAILABLE,
        "near": "__debezium:s3",
    }
    change = upserted(envelope(after=row))
    assert change.unavailable == {"body", "more"}
    assert change.offloaded == {"body"}
    assert change.columns["near"] == "__debezium:s3"
    flat = upserted({**row, "__op": "u"})
    assert flat.unavailable == {"body", "more"}
    assert flat.offloaded == {"body"}


def test_the_placeholder_is_the_connectors_setting_with_its_hex_form() -> None:
    codec = DebeziumJson("hex:e28ba1")
    row = {"id": 1, "a": "⋡", "b": "4ouh", "c": [-30, -117, -95], "d": UNAVAILABLE}
    change = codec.decode(record(envelope("u", row)))
    assert isinstance(change, Upserted)
    assert change.unavailable == {"a", "b", "c"}
    assert change.columns == {"id": 1, "d": UNAVAILABLE}


@pytest.mark.parametrize("placeholder", ["", "hex:", "hex:zz"])
def test_a_placeholder_that_cannot_be_is_refused_at_once(placeholder: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - bytes.fromhex words one of them
        DebeziumJson(placeholder)


# --- decimals -------------------------------------------------------------------------------------------


def encoded(unscaled: int) -> str:
    size = max(1, (unscaled.bit_length() + 8) // 8)
    return base64.b64encode(unscaled.to_bytes(size, "big", signed=True)).decode()


@pytest.mark.parametrize(
    ("unscaled", "scale", "text"),
    [
        (123456, 2, "1234.56"),
        (-123456, 2, "-1234.56"),
        (5, 2, "0.05"),
        (-5, 3, "-0.005"),
        (0, 2, "0.00"),
        (0, 0, "0"),
        (7, 0, "7"),
        (7, -3, "7000"),
        (0, -3, "0"),
        (10**37 + 1, 10, "1000000000000000000000000000.0000000001"),
    ],
)
def test_decimals_with_a_schema_are_exact_text(unscaled: int, scale: int, text: str) -> None:
    """Case 37."""
    field = {**DECIMAL, "parameters": {"scale": str(scale)}, "field": "price"}
    row = {"id": 1, "price": encoded(unscaled)}
    assert upserted(with_schema(envelope(after=row), field)).columns["price"] == text


def test_decimals_inside_lists_and_objects_are_converted_too() -> None:
    fields = (
        {"type": "array", "items": DECIMAL, "field": "list"},
        {"type": "map", "values": DECIMAL, "field": "map"},
        {"type": "struct", "fields": [{**DECIMAL, "field": "p"}], "field": "struct"},
        {**DECIMAL, "field": "null"},
    )
    price = encoded(150)
    row = {"list": [price, None], "map": {"k": price}, "struct": {"p": price, "q": price}, "null": None}
    assert upserted(with_schema(envelope(after=row), *fields)).columns == {
        "list": ["1.50", None],
        "map": {"k": "1.50"},
        "struct": {"p": "1.50", "q": price},
        "null": None,
    }


def test_a_decimal_that_carries_its_scale_is_the_same_text_with_and_without_schema() -> None:
    row = {
        "id": 1,
        "n": {"scale": 3, "value": encoded(-1500)},
        "a": [None, {"scale": 0, "value": encoded(7)}],
    }
    fields = ({**VARIABLE, "field": "n"}, {"type": "array", "items": VARIABLE, "field": "a"})
    expected = {"id": 1, "n": "-1.500", "a": [None, "7"]}
    assert upserted(envelope(after=row)).columns == expected
    assert upserted(with_schema(envelope(after=row), *fields)).columns == expected
    assert upserted(envelope(), {"n": row["n"]}).key == {"n": "-1.500"}


@pytest.mark.parametrize(
    "value", [{"scale": 3, "value": "!"}, {"scale": "x", "value": "AQ=="}, {"scale": 10**6, "value": "AQ=="}]
)
def test_an_object_that_only_resembles_a_decimal_is_kept(value: Any) -> None:
    assert upserted(envelope(after={"v": value})).columns["v"] == value


@pytest.mark.parametrize("value", ["not base64!", "", {"a": 1}])
@pytest.mark.parametrize("scale", ["2", "1000000000", None, "x"])
def test_a_decimal_that_is_not_what_its_schema_says_is_poison_or_kept_but_no_crash(
    value: Any, scale: Any
) -> None:
    field = {**DECIMAL, "parameters": {"scale": scale}, "field": "price"}
    document = with_schema(envelope(after={"price": value}), field)
    if isinstance(value, str):
        assert cause_of(document) == "bad_value"
    else:
        assert upserted(document).columns["price"] == value


def test_an_unavailable_decimal_is_not_converted() -> None:
    document = with_schema(envelope("u", {"id": 1, "price": ENCODED}), {**DECIMAL, "field": "price"})
    assert upserted(document).unavailable == {"price"}


@pytest.mark.parametrize("schema", ["public", 5, [], {"fields": 5}, {"fields": [{"name": 1}]}])
def test_a_schema_that_is_none_is_poison(schema: Any) -> None:
    assert cause_of({"schema": schema, "payload": envelope()}) == "bad_schema"


def test_decimals_in_the_key_are_converted_by_the_keys_own_schema() -> None:
    key = {
        "schema": {"type": "struct", "fields": [{**DECIMAL, "field": "no"}]},
        "payload": {"no": encoded(150)},
    }
    assert upserted(envelope(), key).key == {"no": "1.50"}


# --- the seam -------------------------------------------------------------------------------------------


def test_codecs_are_loaded_by_kind() -> None:
    codec = load("json", unavailable="gone")
    change = codec.decode(record(envelope("u", {"id": 1, "body": "gone"})))
    assert isinstance(change, Upserted)
    assert change.unavailable == {"body"}


def test_an_unknown_kind_of_codec_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'xml'.*json"):
        load("xml")
