"""Whatever the bytes: a change or a DecodeError, and what can be decoded can be mapped."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from vectide.codecs.debezium import DECODE_CAUSES, IGNORED_REASONS, UNAVAILABLE
from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.mapping import KEY_CAUSES, MetadataField, SoftDelete, TableMapping, metadata_hash
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Upserted
from vectide.core.template import Template

NAMES = st.sampled_from(
    ["id", "a", "b", "schema", "payload", "op", "type", "data", "scale", "value", "ts_ms"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([UNAVAILABLE, "AQ==", "r", "BEGIN", "execute-snapshot"])
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
DECIMAL = st.just({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"})
SCHEMAS = (
    st.builds(
        lambda field, scale, items: {
            "type": "struct",
            "fields": [
                {
                    "field": "after",
                    "fields": [
                        {**field, "field": "a", "parameters": {"scale": scale}},
                        {"field": "b", "items": {**items, "parameters": {"scale": "1"}}},
                    ],
                }
            ],
        },
        DECIMAL,
        st.sampled_from(["2", "-2", "99999", "x", 3, None]),
        DECIMAL,
    )
    | VALUES
)
WRAPPED = st.fixed_dictionaries({"schema": SCHEMAS, "payload": ENVELOPES | VALUES})
DOCUMENTS = ENVELOPES | WRAPPED | VALUES

TABLE = TableMapping(
    table="docs",
    source="t",
    collection="docs",
    template=Template.parse("{a}[ {b}] {$ts}"),
    metadata=(MetadataField("a", "a"), MetadataField("value", "v"), MetadataField("$ts", "ts")),
    soft_delete=SoftDelete("op"),
)
KEYED = TableMapping("docs", "t", "docs", Template.of_columns(["a"]), key=("id", "a"))


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def decode(value: bytes | None, key: bytes | None = None, header: bytes | None = None) -> Change | None:
    """The change, None for poison. Any exception but DecodeError fails the test."""
    headers = (("__debezium.newkey", header), ("__debezium.oldkey", header))
    try:
        change = DebeziumJson().decode(Record("t", 0, 0, key, value, headers))
    except DecodeError as error:
        assert error.cause in DECODE_CAUSES  # noqa: PT017 - the closed set is the promise
        return None
    assert not isinstance(change, Ignored) or change.reason in IGNORED_REASONS
    return change


def use(change: Change | None) -> None:
    """Do with the change all that the pump would."""
    if not isinstance(change, Upserted | Deleted):
        return
    for table in (TABLE, KEYED):
        try:
            assert table.row_of(change).head_id
        except DecodeError as error:
            assert error.cause in KEY_CAUSES  # noqa: PT017
    if not isinstance(change, Upserted):
        TABLE.row_at(change.new_key)
        return
    TABLE.row_at(change.old_key)
    rendered = TABLE.rendered(change)
    metadata_hash(TABLE.metadata, TABLE.column_hashes(change, rendered))
    json.dumps(TABLE.metadata_of(change)[0]).encode("utf-8")
    TABLE.is_soft_deleted(change)
    text = TABLE.render({"a": None, "b": None} | rendered, change)
    text.encode("utf-8")
    assert UNAVAILABLE not in change.columns.values()


@given(st.none() | st.binary(), st.none() | st.binary(), st.none() | st.binary())
@example(b"null", b"null", b"null")
@example(b'{"schema":null,"payload":null}', b'{"schema":null,"payload":{}}', b"{}")
def test_any_bytes_are_a_change_or_poison(
    value: bytes | None, key: bytes | None, header: bytes | None
) -> None:
    use(decode(value, key, header))


@given(DOCUMENTS, ROWS | WRAPPED | VALUES, ROWS | VALUES)
def test_any_json_is_a_change_or_poison(value: Any, key: Any, header: Any) -> None:
    use(decode(as_json(value), as_json(key), as_json(header)))


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
