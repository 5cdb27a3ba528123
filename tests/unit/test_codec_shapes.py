"""Shapes of messages besides the plain envelope: flattened rows, cloud events, MongoDB's documents."""

import base64
import json
from typing import Any

import pytest
from tests.recorded import read, table_of

from vectide.codecs.debezium import UNAVAILABLE
from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Row, SourcePosition, Upserted

SOURCE = {"connector": "postgresql", "ts_ms": 5, "db": "shop", "schema": "public", "table": "docs"}
ROW = {"id": 1, "title": "hello"}
ABSENT: Any = object()


def raw(document: Any) -> bytes | None:
    if document is None or isinstance(document, bytes):
        return document
    return json.dumps(document).encode()


def decode(value: Any, key: Any = ABSENT, *, codec: DebeziumJson | None = None, **headers: Any) -> Change:
    pairs = tuple((name, raw(content)) for name, content in headers.items())
    record = Record("t", 0, 0, raw({"id": 1} if key is ABSENT else key), raw(value), pairs)
    return (codec or DebeziumJson()).decode(record)


def upserted(value: Any, key: Any = ABSENT, **more: Any) -> Upserted:
    change = decode(value, key, **more)
    assert isinstance(change, Upserted)
    return change


def cause_of(value: Any, key: Any = ABSENT, **more: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(value, key, **more)
    return caught.value.cause


def envelope(op: str = "c", **more: Any) -> dict[str, Any]:
    return {"before": None, "after": ROW, "source": SOURCE, "op": op, "ts_ms": 6, **more}


def row_schema(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "struct", "fields": list(fields), "name": "shop.public.docs.Value"}


# --- flattened rows: upserts ----------------------------------------------------------------------------


def test_a_flattened_row_without_marks_is_an_upsert() -> None:
    """Case 20: insert, update and snapshot read cannot be told apart, and need not be."""
    assert upserted(ROW) == Upserted({"id": 1}, ROW)


@pytest.mark.parametrize("deleted", ["false", "FALSE", False, None])
def test_a_mark_that_says_not_deleted_is_not_taken_for_true(deleted: Any) -> None:
    """Case 19."""
    assert upserted({**ROW, "__deleted": deleted}).columns == ROW


def test_added_fields_are_event_fields_and_never_columns() -> None:
    marks = {
        "__op": "c",
        "__lsn": 77,
        "__source_ts_ms": 5,
        "__table": "docs",
        "__schema": "public",
        "__db": "shop",
    }
    change = upserted({**ROW, **marks, "__transaction_id": "7:8", "__ts_ms": 9})
    assert change == Upserted({"id": 1}, ROW, op="c", committed_ms=5, table="public.docs")


def test_the_table_of_a_flattened_row_without_schema_is_named_by_its_database() -> None:
    assert upserted({**ROW, "__source_table": "docs", "__source_db": "shop"}).table == "shop.docs"
    assert upserted({**ROW, "__collection": "docs", "__db": "shop"}).table == "shop.docs"
    assert upserted({**ROW, "__db": "shop"}).table == ""


@pytest.mark.parametrize(
    "op", [b"c", b'"c"', {"schema": {"type": "string"}, "payload": "c"}], ids=["plain", "json", "schema"]
)
def test_added_headers_say_what_added_fields_do(op: Any) -> None:
    change = upserted(ROW, __op=op, __source_ts_ms=b"5", __table=b"docs", traceparent=b"\xff")
    assert change == Upserted({"id": 1}, ROW, op="c", committed_ms=5, table="docs")


def test_a_column_that_is_not_a_mark_keeps_its_two_underscores() -> None:
    """Case 53."""
    row = {"id": 1, "__internal": 5, "__": 6, "_op": 7}
    assert upserted(row).columns == row


def test_a_flattened_row_with_a_schema_is_typed_by_it() -> None:
    price = {
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": "2"},
        "field": "price",
    }
    document = {"schema": row_schema(price), "payload": {"id": 1, "price": "AJY=", "__deleted": "false"}}
    assert upserted(document).columns == {"id": 1, "price": "1.50"}


def test_placeholders_in_a_flattened_row_are_unavailable() -> None:
    """Invariant 5."""
    change = upserted({**ROW, "body": UNAVAILABLE, "__op": "u"})
    assert (change.columns, change.unavailable) == (ROW, frozenset({"body"}))


def test_the_second_half_of_a_key_change_names_the_first_in_a_flattened_topic_too() -> None:
    """Case 26."""
    headers = {"__debezium.oldkey": {"id": 9}}
    assert upserted(ROW, **headers).old_key == {"id": 9}


def test_one_topic_may_switch_between_shapes() -> None:
    """Case 54."""
    codec = DebeziumJson()
    seen = [decode(document, codec=codec) for document in (envelope(), ROW, envelope("u"), None, ROW)]
    assert [getattr(change, "columns", None) for change in seen] == [ROW, ROW, ROW, None, ROW]


@pytest.mark.parametrize("name", ["unwrapped", "unwrapped_schemas_on", "unwrapped_rewrite"])
def test_a_topic_that_switches_to_flattened_rows_gives_the_rows_that_it_gave(name: str) -> None:
    """Cases 54 and 2: recorded rows, as envelopes and flattened."""
    table = table_of("{name}", "price", "updated_at", types={"price": "decimal(10,2)"})
    codec = DebeziumJson(mapping_of=lambda _topic: table)

    def rows(recording: str) -> dict[Row, Any]:
        changes = [codec.decode(record) for record in read(recording)[:20]]
        return {
            table.row_of(change): (table.rendered(change), table.metadata_of(change))
            for change in changes
            if isinstance(change, Upserted)
        }

    assert rows(name) == rows("json_schemas_on")


# --- flattened rows: deletes ----------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", ["true", "True", True])
def test_a_rewritten_delete_is_a_delete(deleted: Any) -> None:
    """Cases 18 and 19."""
    row = {"id": 1, "title": "", "tenant": 0}
    assert decode({**row, "__deleted": deleted, "__source_ts_ms": 5}) == Deleted({"id": 1}, row, 5)


def test_a_rewritten_delete_takes_nothing_from_its_row_but_the_key() -> None:
    """Case 18: the other columns may be fillers, which must not name another row either."""
    change = decode({"id": 1, "tenant": 0, "title": "", "__deleted": "true"})
    assert isinstance(change, Deleted)
    assert table_of("{title}").row_of(change) == Row("t", '{"id":1}')
    with pytest.raises(DecodeError, match="filler_in_key"):
        table_of("{title}", key=("id", "tenant")).row_of(change)


def test_a_flattened_row_whose_operation_is_a_delete_is_one() -> None:
    assert isinstance(decode({**ROW, "__op": "d"}), Deleted)
    assert isinstance(decode(ROW, __op=b"d"), Deleted)
    assert isinstance(decode(None, __op=b"d"), Deleted)


@pytest.mark.parametrize("mark", ["yes", 1, "", [], {"a": 1}])
def test_a_mark_that_says_neither_deleted_nor_not_is_poison(mark: Any) -> None:
    assert cause_of({**ROW, "__deleted": mark}) == "bad_value"


@pytest.mark.parametrize("op", ["x", "t", "m", "", 5, ["c"]])
def test_a_flattened_row_of_an_unknown_operation_is_poison(op: Any) -> None:
    """Case 91."""
    assert cause_of({**ROW, "__op": op}) == "unknown_op"


# --- flattened rows: told from everything else ----------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "op": "c", "source": {"a": 1}, "after": {"id": 2}, "before": None},
        {"id": 1, "op": "d", "source": {"ts_ms": 5}},
        {"id": 1, "op": "t", "source": {"ts_ms": 5, "table": "x"}},
        {"id": 1, "op": "m", "source": "web"},
        {"id": 1, "op": 5, "source": None},
        {"id": 1, "source": {"a": 1}},
        {"id": 1, "before": "x", "after": "y"},
        {"id": 1, "schema": "public", "payload": {"op": "c"}},
        {"id": 1, "schema": {"type": "x"}, "payload": {"source": {}, "op": "c"}},
        {"id": 1, "specversion": "1.0", "data": {"after": {}}, "type": "car"},
        {"id": 1, "status": "BEGIN", "event_count": 1},
        {"id": 1, "type": "execute-snapshot", "data": "{}", "more": 1},
        {"id": 1, "ts_ms": 5},
    ],
)
def test_a_row_may_have_columns_called_like_parts_of_other_messages(row: dict[str, Any]) -> None:
    """Case 53."""
    assert upserted(row).columns == row


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"foo": 1}, {"id": 1}),
        ({}, {"id": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"ts_ms": 5}, {"id": 1}),
        ({"_id": 1}, {"key": 1}),
        ({"before": None, "after": ROW}, {"id": 1}),
        ({"before": None, "after": ROW, "op": "c", "ts_ms": 5}, {"id": 1}),
    ],
)
def test_an_object_that_lacks_the_columns_of_its_key_is_poison(document: Any, key: Any) -> None:
    """Case 92: it is not the row, whatever it is; it must not halt the table as if columns had gone."""
    assert cause_of(document, key) == "not_an_envelope"


def test_a_row_without_its_key_columns_is_known_by_a_mark() -> None:
    assert upserted({"title": "hello", "__op": "c"}).columns == {"title": "hello"}


def test_members_that_a_transform_added_to_the_key_need_not_be_in_the_row() -> None:
    key = {"id": 1, "__dbz__sourceIdentifier": "shop"}
    assert upserted(ROW, key).key == key


def test_a_flattened_row_of_the_signal_table_is_ignored() -> None:
    """Case 30."""
    row = {"id": "s1", "type": "execute-snapshot", "data": "{}"}
    assert decode(row, {"id": "s1"}) == Ignored("signal")
    assert decode({**row, "__op": "c"}, {"id": "s1"}) == Ignored("signal")


@pytest.mark.parametrize("source", [{}, {"db": "shop"}, {"ts_ms": None, "db": "shop"}])
def test_an_envelope_with_a_poor_source_block_is_still_one(source: dict[str, Any]) -> None:
    change = upserted({**envelope(), "source": source})
    assert (change.columns, change.op) == (ROW, "c")
    change = upserted({"schema": None, "payload": {**envelope(), "source": source}})
    assert change.columns == ROW
    assert decode({**envelope("d", after=None, before=ROW), "source": source}) == Deleted({"id": 1}, ROW)


@pytest.mark.parametrize("key", [{"id": 1}, None])
def test_an_envelope_with_members_that_a_transform_added_is_still_one(key: Any) -> None:
    for source in (SOURCE, {"table": "docs"}):
        change = upserted({**envelope(), "source": source, "tenant": 7, "trace": {"a": 1}}, key)
        assert change.columns == ROW


def test_a_null_key_leaves_it_to_the_mapping_to_find_the_row() -> None:
    """Case 8."""
    change = upserted(ROW, None)
    assert table_of("{title}", key=("id",)).row_of(change) == Row("t", '{"id":1}')
    with pytest.raises(DecodeError, match="no_key"):
        table_of("{title}").row_of(change)


# --- cloud events ---------------------------------------------------------------------------------------


def cloud_event(op: Any = "c", **data: Any) -> dict[str, Any]:
    attributes = {
        "id": "name:shop;lsn:29274832;txId:565",
        "source": "/debezium/postgresql/shop",
        "specversion": "1.0",
        "type": "io.debezium.connector.postgresql.DataChangeEvent",
        "time": "2020-01-13T13:55:39.738Z",
        "datacontenttype": "application/json",
        "iodebeziumop": op,
        "iodebeziumtsms": "5",
        "iodebeziumdb": "shop",
        "iodebeziumschema": "public",
        "iodebeziumtable": "docs",
        "iodebeziumlsn": "29274832",
        "data": data or {"before": None, "after": ROW},
    }
    return {name: value for name, value in attributes.items() if value is not None}


def test_a_cloud_event_is_the_change_inside_it() -> None:
    """Case 36."""
    assert upserted(cloud_event()) == upserted(envelope())
    assert decode(cloud_event("d", before=ROW, after=None)) == decode(envelope("d", before=ROW, after=None))
    assert decode(cloud_event("t", before=None, after=None), None) == decode(envelope("t", after=None), None)
    assert decode({"schema": None, "payload": cloud_event()}) == decode(envelope())


def test_a_cloud_event_is_typed_by_the_schema_of_its_data() -> None:
    """Case 36."""
    day = {"type": "int32", "name": "io.debezium.time.Date", "field": "day"}
    after = {"type": "struct", "fields": [day], "field": "after"}
    data = {
        "schema": {"type": "struct", "fields": [after]},
        "payload": {"before": None, "after": {"id": 1, "day": 0}},
    }
    assert upserted(cloud_event(**data)).columns == {"id": 1, "day": "1970-01-01"}


def test_without_extension_attributes_the_rows_tell_the_operation() -> None:
    """Case 36."""
    assert upserted(cloud_event(None)).columns == ROW
    assert decode(cloud_event(None, before=ROW, after=None)) == Deleted({"id": 1}, ROW, 5)
    assert cause_of(cloud_event(None, before=None, after=None)) == "no_op"


@pytest.mark.parametrize("data", ["AAAAAAE=", None, 5, [], {"a": 1}, {"schema": {}, "payload": "x"}])
def test_a_cloud_event_whose_data_is_no_change_is_poison(data: Any) -> None:
    assert cause_of({**cloud_event(), "data": data}) == "not_an_envelope"


# --- MongoDB --------------------------------------------------------------------------------------------

OID = "596e275826f08b2730779e1f"
MONGO = {"connector": "mongodb", "ts_ms": 5, "db": "shop", "collection": "docs", "ord": 31}
MONGO_KEY = {"id": json.dumps({"$oid": OID})}


def mongo(op: str, after: Any, **more: Any) -> dict[str, Any]:
    text = json.dumps(after) if isinstance(after, dict) else after
    return {"before": None, "after": text, "source": MONGO, "op": op, "ts_ms": 6, **more}


DOCUMENT = {"_id": OID, "title": "hello", "n": 5, "tags": ["a"], "at": "2026-02-28T21:59:59.123000"}
STRICT = {
    "_id": {"$oid": OID},
    "title": "hello",
    "n": {"$numberLong": "5"},
    "tags": ["a"],
    "at": {"$date": 1772315999123},
}
RELAXED = {**STRICT, "n": 5, "at": {"$date": "2026-02-28T21:59:59.123Z"}}
EXTENDED = {**STRICT, "n": {"$numberInt": "5"}, "at": {"$date": {"$numberLong": "1772315999123"}}}


@pytest.mark.parametrize("document", [STRICT, RELAXED, EXTENDED], ids=["strict", "relaxed", "extended"])
@pytest.mark.parametrize("op", ["c", "r", "u"])
def test_a_document_is_the_same_in_every_flavour_of_its_json(document: dict[str, Any], op: str) -> None:
    """Case 32."""
    change = upserted(mongo(op, document), MONGO_KEY)
    assert change == Upserted(
        {"id": OID}, DOCUMENT, op=op, committed_ms=5, table="shop.docs", is_document=True
    )


def test_a_raw_and_a_flattened_document_are_one_point() -> None:
    """Cases 19, 32 and 54."""
    table = table_of("{title}", "n", "at")
    flattened = {**DOCUMENT, "at": 1772315999123, "__deleted": False}
    at = {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "field": "at"}
    for value in ({"schema": row_schema(at), "payload": flattened}, mongo("c", STRICT)):
        change = upserted(value, MONGO_KEY if "op" in value else {"id": OID})
        assert table.row_of(change) == Row("t", f'{{"id":"{OID}"}}')
        assert table.rendered(change) == {"title": "hello"}
        assert table.metadata_of(change)[0] == {"n": 5, "at": "2026-02-28T21:59:59.123000"}


def test_the_tombstone_of_a_document_names_the_same_row() -> None:
    """Cases 16 and 32."""
    for value in (None, b"null", mongo("d", None)):
        change = decode(value, MONGO_KEY)
        assert isinstance(change, Deleted)
        assert change.key == {"id": OID}
    schema = {"type": "struct", "fields": [{"type": "string", "field": "id"}]}
    assert decode(None, {"schema": schema, "payload": MONGO_KEY}) == Deleted({"id": OID})


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ('{"$binary": "AAEC", "$type": "00"}', "AAEC"),
        ('{"$binary": {"base64": "AAEC", "subType": "00"}}', "AAEC"),
        ('{"$date": 0}', "1970-01-01T00:00:00.000000"),
        ('{"$numberDecimal": "1.50"}', "1.50"),
        ("1004", "1004"),
        ('"a"', '"a"'),
        ('{"a": 1}', '{"a": 1}'),
        ('{"$oid": 5}', '{"$oid": 5}'),
        ('{"$oid"', '{"$oid"'),
        ("{$", "{$"),
    ],
)
def test_only_an_id_that_can_be_nothing_else_is_read_as_extended_json(text: str, read_as: str) -> None:
    """A tombstone has nothing but its key: what the key means must not depend on the value."""
    for value in (None, mongo("c", STRICT)):
        change = decode(value, {"id": text})
        assert isinstance(change, Upserted | Deleted)
        assert change.key == {"id": read_as}


@pytest.mark.parametrize(
    ("text", "read_as"), [("1004", 1004), ('"a"', "a"), ('{"a": 1}', {"a": 1}), (OID, OID)]
)
def test_a_table_may_declare_that_its_ids_are_extended_json(text: str, read_as: Any) -> None:
    table = table_of("{title}", types={"id": "bson"})
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    for value in (None, mongo("c", STRICT), mongo("d", None)):
        change = decode(value, {"id": text}, codec=codec)
        assert isinstance(change, Upserted | Deleted)
        assert change.key == {"id": read_as}


def test_an_update_without_its_document_is_neither_a_delete_nor_an_empty_row() -> None:
    """Case 33: the document was deleted before it could be looked up, and its delete follows."""
    updated = {"updatedFields": '{"title": "new"}', "removedFields": None, "truncatedArrays": None}
    assert decode(mongo("u", None, updateDescription=updated), MONGO_KEY) == Ignored("no_document")
    assert decode(mongo("d", None), MONGO_KEY) == Deleted({"id": OID}, committed_ms=5)
    assert cause_of(mongo("c", None), MONGO_KEY) == "no_after"
    assert cause_of(envelope("u", after=None)) == "no_after"


def test_a_field_that_a_document_lacks_is_null() -> None:
    """Case 35: documents have no columns, so that none can be missing."""
    table = table_of("{title}[ {body}]", "n", "gone")
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    flattened = {"_id": OID, "title": "hello", "n": 5}
    for value, key in ((mongo("u", flattened), MONGO_KEY), (flattened, {"id": OID})):
        change = upserted(value, key, codec=codec)
        assert table.missing(change) == ()
        assert table.render(table.rendered(change), change) == "hello"
        assert table.metadata_of(change) == ({"n": 5, "gone": None}, frozenset())
    relational = upserted({"id": 1, "title": "hello"}, codec=codec)
    assert table.missing(relational) == ("body", "n", "gone")


def test_declared_types_are_read_inside_documents_too() -> None:
    table = table_of("{title}", "owner", "in_stock", types={"owner": "uuid", "in_stock": "boolean"})
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    raw_uuid = base64.b64encode(bytes(range(16))).decode()
    document = {"_id": 1, "title": "x", "owner": {"$binary": raw_uuid, "$type": "04"}, "in_stock": 1}
    columns = upserted(mongo("c", document), {"id": "1"}, codec=codec).columns
    assert columns["owner"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert columns["in_stock"] is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[1]",
        "5",
        "null",
        '{"a": NaN}',
        '{"a": "\\ud800"}',
        "[" * 100_000,
        '{"a":' * 70 + "1" + "}" * 70,
    ],
)
def test_a_document_that_is_none_is_poison(text: str) -> None:
    assert cause_of(mongo("c", text), MONGO_KEY) == "bad_row"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"$numberDouble": "1.5"}, 1.5),
        ({"$numberDouble": "-Infinity"}, float("-inf")),
        ({"$numberDecimal": "12.50"}, "12.50"),
        ({"$date": -1}, "1969-12-31T23:59:59.999000"),
        ({"$date": {"$numberLong": "253402300800000"}}, "+10000-01-01T00:00:00.000000"),
        ({"$uuid": "0b5f"}, "0b5f"),
        ({"$symbol": "s"}, "s"),
        ({"$code": "f()"}, "f()"),
        ({"$code": "f()", "$scope": {"a": {"$numberInt": "1"}}}, {"$code": "f()", "$scope": {"a": 1}}),
        ({"$regex": "^a", "$options": "i"}, "/^a/i"),
        ({"$regularExpression": {"pattern": "^a", "options": "i"}}, "/^a/i"),
        ({"$minKey": 1}, "MinKey"),
        ({"$maxKey": 1}, "MaxKey"),
        ({"$undefined": True}, None),
        ({"$timestamp": {"t": 1, "i": 2}}, {"$timestamp": {"t": 1, "i": 2}}),
        ({"$ref": "x", "$id": {"$oid": OID}}, {"$ref": "x", "$id": OID}),
        ([{"$oid": OID}, [{"$numberInt": "1"}]], [OID, [1]]),
        # what only resembles a wrapper is kept
        ({"$numberLong": "x"}, {"$numberLong": "x"}),
        ({"$numberLong": "9" * 30}, {"$numberLong": "9" * 30}),
        ({"$date": None}, {"$date": None}),
        ({"$date": {"a": 1}}, {"$date": {"a": 1}}),
        ({"$oid": OID, "more": 1}, {"$oid": OID, "more": 1}),
        ({"$binary": {"a": 1}}, {"$binary": {"a": 1}}),
        ({"$price": 5}, {"$price": 5}),
    ],
)
def test_the_wrappers_of_extended_json_are_taken_off(written: Any, value: Any) -> None:
    """Cases 32 and 40."""
    assert upserted(mongo("c", {"_id": 1, "v": written}), MONGO_KEY).columns["v"] == value


# --- documented shapes of other sources -----------------------------------------------------------------

SQL_SERVER = {
    **{"version": "3.7.0.Final", "connector": "sqlserver", "name": "s", "ts_ms": 5, "snapshot": "false"},
    **{"db": "shop", "sequence": None, "schema": "dbo", "table": "docs", "event_serial_no": "2"},
    **{"change_lsn": "00000027:00000758:0003", "commit_lsn": "00000027:00000758:0005"},
}
ORACLE = {
    **{"version": "3.7.0.Final", "connector": "oracle", "name": "o", "ts_ms": 5, "snapshot": "false"},
    **{
        "db": "ORCLPDB1",
        "schema": "SHOP",
        "table": "DOCS",
        "txId": "6.28.807",
        "scn": "99999999999999999999",
    },
    **{"commit_scn": "2122189", "rs_id": "001234", "ssn": 0, "redo_thread": 1, "user_name": "SHOP"},
}
MYSQL = {
    **{
        "version": "3.7.0.Final",
        "connector": "mysql",
        "name": "m",
        "ts_ms": 5,
        "snapshot": False,
        "db": "shop",
    },
    **{"table": "docs", "server_id": 223344, "gtid": None, "file": "mysql-bin.000003", "pos": 484, "row": 0},
}


@pytest.mark.parametrize(
    ("source", "table", "server", "order"),
    [
        (SQL_SERVER, "dbo.docs", "sqlserver/s/shop", "00000027:00000758:0005"),
        (ORACLE, "SHOP.DOCS", "oracle/o/ORCLPDB1", "00000000002061cd"),
        (MYSQL, "shop.docs", "mysql/m/shop/223344/mysql-bin", "000000000000000300000000000001e4"),
    ],
)
def test_envelopes_of_every_relational_connector_are_read_alike(
    source: dict[str, Any], table: str, server: str, order: str
) -> None:
    where = SourcePosition(server, order, 5)
    for op in ("c", "r", "u"):
        value = {**envelope(op), "source": source, "before": ROW, "transaction": None}
        assert upserted(value) == Upserted({"id": 1}, ROW, op=op, committed_ms=5, table=table, source=where)
    change = decode({**envelope("d", after=None, before=ROW), "source": source})
    assert change == Deleted({"id": 1}, ROW, 5, source=where)


def test_oracle_lob_placeholders_in_before_do_not_matter() -> None:
    """Invariant 5."""
    before = {**ROW, "BODY": UNAVAILABLE}
    value = {**envelope("u", before=before), "after": {**ROW, "BODY": "new text"}, "source": ORACLE}
    change = upserted(value)
    assert (change.columns["BODY"], change.unavailable) == ("new text", frozenset())
