"""Whatever the bytes: a change or a DecodeError, and what can be decoded can be mapped."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from vectide.codecs.debezium import DECODE_CAUSES, IGNORED_REASONS, UNAVAILABLE
from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.chunks import Chunking, chunks_of
from vectide.core.mapping import KEY_CAUSES, MetadataField, SoftDelete, TableMapping, metadata_hash
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Upserted
from vectide.core.template import Template
from vectide.core.types import TYPE_NAMES
from vectide.core.where import WhereMismatch
from vectide.settings_where import parse_where

NAMES = st.sampled_from(
    (
        "id _id a b c d schema payload op type data scale value ts_ms wkb srid dimensions vector "
        "__deleted __op __source_ts_ms __table specversion"
    ).split()
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([UNAVAILABLE, "AQ==", "r", "BEGIN", "execute-snapshot", "true", "infinity", "NaN"])
    | st.sampled_from([2**63 - 1, -(2**63), 2**63, 9223372036825200000, 0, "AQEAAAAAAAAAAAD4PwAAAAAAAADA"])
    | st.sampled_from(["2026-02-28T23:59:59.1+02:00", "9999-99-99T99:99:99Z", "24:00:00Z", '{"a":[1e999]}'])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
ROWS = st.dictionaries(NAMES, VALUES, max_size=5)
OPS = st.sampled_from(["c", "r", "u", "d", "t", "m", "C", "x", "", None, 5])
SOURCES = st.just({"ts_ms": 5, "schema": "public", "table": "docs"}) | VALUES
ENVELOPES = st.fixed_dictionaries(
    {}, optional={"op": OPS, "source": SOURCES, "before": ROWS | VALUES, "after": ROWS | VALUES}
)
LOGICAL = st.sampled_from(
    [
        f"io.debezium.time.{name}"
        for name in ("Date", "MicroTime", "NanoTimestamp", "ZonedTime", "StructuredDate")
    ]
    + [f"io.debezium.data.{name}" for name in ("Bits", "Json", "Uuid", "EnumSet", "SparseDoubleVector")]
    + [
        "io.debezium.data.geometry.Point",
        "io.debezium.time.MicroDuration",
        "io.debezium.data.VariableScaleDecimal",
    ]
)
DECIMAL = st.just({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"})
SCHEMAS = (
    st.builds(
        lambda field, scale, items, logical: {
            "type": "struct",
            "fields": [
                {
                    "field": "after",
                    "fields": [
                        {**field, "field": "a", "parameters": {"scale": scale}},
                        {"field": "b", "items": {**items, "parameters": {"scale": "1"}}},
                        {"field": "c", "name": logical, "parameters": {"length": scale}, "type": "double"},
                        {"field": "d", "fields": [{"field": "a", "name": logical}], "type": "struct"},
                    ],
                }
            ],
        },
        DECIMAL,
        st.sampled_from(["2", "-2", "99999", "x", 3, None]),
        DECIMAL,
        LOGICAL,
    )
    | VALUES
)
WRAPPED = st.fixed_dictionaries({"schema": SCHEMAS, "payload": ENVELOPES | VALUES})
FLATTENED = ROWS.map(lambda row: {"id": 1, **row})
CLOUD_EVENTS = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "type": st.just("io.debezium.x"), "data": ENVELOPES | WRAPPED | VALUES},
    optional={"iodebeziumop": OPS, "iodebeziumtsms": SCALARS, "iodebeziumtable": SCALARS},
)
EXTENDED = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(
            st.sampled_from(
                ["a", "b", "_id", "$oid", "$date", "$numberLong", "$binary", "$regex", "$options", "base64"]
            ),
            inner,
            max_size=3,
        )
        | st.lists(inner, max_size=2)
    ),
    max_leaves=8,
)
MONGO = st.builds(
    lambda op, document: {
        "op": op,
        "source": {"ts_ms": 5, "db": "x", "collection": "docs"},
        "after": json.dumps(document),
        "before": json.dumps(document),
    },
    OPS,
    EXTENDED,
)
DOCUMENTS = ENVELOPES | WRAPPED | FLATTENED | CLOUD_EVENTS | MONGO | VALUES

TABLE = TableMapping(
    table="docs",
    source="t",
    collection="docs",
    template=Template.parse("{a}[ {b}] {$ts}"),
    metadata=(MetadataField("a", "a"), MetadataField("value", "v"), MetadataField("$ts", "ts")),
    soft_delete=SoftDelete("op"),
)
TYPED = [
    TableMapping(
        table="docs",
        source="t",
        collection="docs",
        template=Template.of_columns(["a"]),
        types=tuple((column, name) for column in ("id", "a", "b", "value")),
    )
    for name in (
        *(name for name in TYPE_NAMES if name != "money"),
        "money(4)",
        "decimal(10,2)",
        "decimal(5,0)",
        "timestamp(9)",
        "date[]",
        "bit(9)",
    )
]
#: What may be made of the change that is found.
MAPPINGS = st.builds(
    lambda key, template, metadata, soft_delete, where, chunking: TableMapping(
        "docs", "t", "docs", Template.parse(template), metadata, key, soft_delete, chunking, where=where
    ),
    st.sampled_from([(), ("id",), ("id", "a")]),
    st.sampled_from(["{a}[ {b}] {$ts}", "{a}", "{value}{c}"]),
    st.lists(
        st.sampled_from([MetadataField(name, name.strip("$")) for name in ("a", "b", "value", "$ts", "$op")]),
        unique=True,
    ).map(tuple),
    st.sampled_from([None, SoftDelete("op"), SoftDelete("a", (1, "x"))]),
    st.sampled_from(
        [None, *map(parse_where, ("a > 1", "b LIKE 'x%' OR a IS NULL", "NOT (value IN ('a', 'b'))"))]
    ),
    st.sampled_from([None, Chunking(3), Chunking(5, overlap=2)]),
)
KEYED = TableMapping("docs", "t", "docs", Template.of_columns(["a"]), key=("id", "a"))


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def decode(
    value: bytes | None,
    key: bytes | None = None,
    header: bytes | None = None,
    table: TableMapping | None = None,
) -> Change | None:
    """The change, None for poison. Any exception but DecodeError fails the test."""
    headers = (("__debezium.newkey", header), ("__debezium.oldkey", header), ("__op", header))
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    try:
        change = codec.decode(Record("t", 0, 0, key, value, headers))
    except DecodeError as error:
        assert error.cause in DECODE_CAUSES  # noqa: PT017 - the closed set is the promise
        return None
    assert not isinstance(change, Ignored) or change.reason in IGNORED_REASONS
    return change


def use(change: Change | None, *tables: TableMapping) -> None:
    """Do with the change all that the pump would, for these tables and some more."""
    for table in (TABLE, KEYED, *tables):
        if isinstance(change, Upserted | Deleted):
            use_for(change, table)


def use_for(change: Upserted | Deleted, table: TableMapping) -> None:
    try:
        assert table.row_of(change).head_id
    except DecodeError as error:
        assert error.cause in KEY_CAUSES  # noqa: PT017
    if not isinstance(change, Upserted):
        table.row_at(change.new_key)
        return
    table.row_at(change.old_key)
    rendered = table.rendered(change)
    metadata_hash(table.metadata, table.column_hashes(change, rendered))
    json.dumps(table.metadata_of(change)[0]).encode("utf-8")
    table.is_soft_deleted(change)
    with suppress(WhereMismatch):
        table.matches_where(change.columns)
    text = table.render(dict.fromkeys(table.embed_columns) | rendered, change)
    text.encode("utf-8")
    if table.chunking is not None:
        for chunk in chunks_of(text, table.chunking, len):
            chunk.text.encode("utf-8")
    assert UNAVAILABLE not in change.columns.values()


@given(st.none() | st.binary(), st.none() | st.binary(), st.none() | st.binary())
@example(b"null", b"null", b"null")
@example(b'{"schema":null,"payload":null}', b'{"schema":null,"payload":{}}', b"{}")
def test_any_bytes_are_a_change_or_poison(
    value: bytes | None, key: bytes | None, header: bytes | None
) -> None:
    use(decode(value, key, header))


@given(DOCUMENTS, ROWS | WRAPPED | VALUES, ROWS | VALUES | OPS, MAPPINGS)
def test_any_json_is_a_change_or_poison(value: Any, key: Any, header: Any, table: TableMapping) -> None:
    """Whatever the headers call the old key and the new one, and whatever a table makes of it."""
    use(decode(as_json(value), as_json(key), as_json(header)), table)


@given(DOCUMENTS, ROWS | WRAPPED | VALUES, st.sampled_from(TYPED))
def test_any_json_is_a_change_or_poison_whatever_types_a_table_declares(
    value: Any, key: Any, table: TableMapping
) -> None:
    """Case 52."""
    use(decode(as_json(value), as_json(key), None, table))


@given(FLATTENED)
def test_a_flattened_row_is_the_row_of_its_envelope_or_poison(row: Any) -> None:
    """Case 54: whatever the columns are called, as long as no mark of the transform is among them."""
    row = {name: value for name, value in row.items() if not name.startswith("__")}
    envelope = {"op": "u", "source": {"ts_ms": 5, "db": "x"}, "after": row}
    flattened = decode(as_json(row), as_json({"id": 1}))
    whole = decode(as_json(envelope), as_json({"id": 1}))
    if isinstance(flattened, Upserted):
        assert isinstance(whole, Upserted)
        assert repr(flattened.columns) == repr(whole.columns)
        assert flattened.unavailable == whole.unavailable


@given(ENVELOPES, st.data())
def test_any_cut_or_flipped_message_is_a_change_or_poison(value: Any, data: st.DataObject) -> None:
    raw = bytearray(as_json(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        del raw[at:]
    else:
        raw[at] = data.draw(st.integers(0, 255))
    use(decode(bytes(raw), b'{"id":1}'))


@given(st.fixed_dictionaries({"op": OPS, "source": SOURCES, "before": ROWS, "after": ROWS}), ROWS)
def test_a_schema_without_types_makes_no_difference_to_any_message(value: Any, key: Any) -> None:
    """Cases 2 and 3."""
    schema = {"type": "struct", "fields": []}
    plain = decode(as_json(value), as_json(key))
    wrapped = decode(
        as_json({"schema": schema, "payload": value}), as_json({"schema": schema, "payload": key})
    )
    assert wrapped == plain
