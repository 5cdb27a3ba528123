"""Recorded events of real connectors: each decodes to what it is, and their fold is the source table."""

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from tests.recorded import (
    CASES,
    FULL_TYPES_ROW,
    PRODUCTS,
    TYPES_BY_COLUMN,
    Case,
    names,
    read,
    table_of,
)

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.model import (
    Change,
    DecodeError,
    Deleted,
    Ignored,
    Record,
    Row,
    Truncated,
    Upserted,
    Value,
)
from vectide.testing.fold import Fold
from vectide.testing.recordings import read_recording


def kind_of(codec: DebeziumJson, record: Record) -> str:
    try:
        change = codec.decode(record)
    except DecodeError as error:
        return error.cause
    match change:
        case Ignored(reason):
            return reason
        case Truncated():
            return "truncated"
        case Upserted():
            return "upserted"
        case Deleted():
            return "deleted"


def decoded(name: str, topic_end: str = "") -> list[Change]:
    codec = DebeziumJson()
    return [codec.decode(record) for record in read(name) if record.topic.endswith(topic_end)]


KINDS = {
    "column_filters": {"upserted": 8, "deleted": 4},
    "composite_key": {"upserted": 15, "deleted": 8},
    "heartbeat": {"heartbeat": 9, "upserted": 14},
    "incremental_snapshot_kafka": {"notification": 23, "signal": 38, "upserted": 272, "deleted": 36},
    "incremental_snapshot_table": {"notification": 23, "signal": 39, "upserted": 272, "deleted": 36},
    "json_schemas_off": {"upserted": 224, "deleted": 10},
    "json_schemas_on": {"upserted": 44, "deleted": 10},
    "logical_message": {"logical_message": 2, "upserted": 3},
    "lost_delete": {"upserted": 5},
    "mariadb_json_schemas_off": {"schema_change": 8, "upserted": 83, "deleted": 10},
    "mariadb_json_schemas_on": {"schema_change": 15, "upserted": 8, "deleted": 4},
    "multi_partition": {"upserted": 64, "deleted": 10},
    "no_primary_key": {"upserted": 12, "deleted": 6},
    "no_primary_key_default_identity": {"upserted": 2},
    "replica_identity_full": {"upserted": 44, "deleted": 10},
    "restarts": {"upserted": 244},
    "schema_change": {"upserted": 13, "deleted": 2},
    "soft_delete": {"upserted": 12, "deleted": 2},
    "toasted": {"upserted": 7, "deleted": 4},
    "toasted_full": {"upserted": 7, "deleted": 4},
    "toasted_reselect": {"upserted": 7, "deleted": 4},
    "toasted_unwrapped": {"upserted": 7, "deleted": 2},
    "tombstones_off": {"upserted": 8, "deleted": 2},
    "transaction_metadata": {"upserted": 10, "deleted": 4, "transaction": 8},
    "truncate": {"upserted": 10, "truncated": 3},
    "types_default_schemas_off": {"upserted": 11, "deleted": 2},
    "types_default_schemas_on": {"upserted": 11, "deleted": 2},
    "types_double": {"upserted": 11, "deleted": 2},
    "types_string": {"upserted": 11, "deleted": 2},
    "unwrapped": {"upserted": 44, "deleted": 5},
    "unwrapped_mode_delete_to_tombstone": {"upserted": 8, "deleted": 2},
    "unwrapped_mode_drop": {"upserted": 8},
    "unwrapped_mode_tombstone": {"upserted": 8, "deleted": 2},
    "unwrapped_rewrite": {"upserted": 44, "deleted": 5},
    "unwrapped_schemas_on": {"upserted": 23, "deleted": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_recorded_event_is_decoded_to_what_it_is(name: str) -> None:
    codec = DebeziumJson()
    assert Counter(kind_of(codec, record) for record in read(name)) == KINDS[name]


def test_no_recording_is_left_out() -> None:
    assert names() == set(KINDS)
    # What has unavailable columns after a key change is in tests of its own.
    apart = {"toasted", "toasted_unwrapped"}
    apart |= {name for name in KINDS if name.startswith("types_")}
    assert {case.name for case in CASES} == set(KINDS) - apart


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_fold_of_a_recording_is_the_table_at_its_end(case: Case) -> None:
    """Cases 1-4, 6, 8-11, 15, 16, 18, 20, 26, 30, 37, 41 and 63: every shape, delete mode and key."""
    codec = DebeziumJson(mapping_of=lambda topic: case.placed if topic == case.topic else None)
    fold, letters = Fold(case.placed), Counter[str]()
    for record in read(case.name):
        change = codec.decode(record)
        if record.topic == case.topic and isinstance(change, Truncated):
            fold.truncate()
        if record.topic != case.topic or not isinstance(change, Upserted | Deleted):
            continue
        if case.mapping.skip_reason(change) is not None:
            continue
        try:
            fold.apply(change)
        except DecodeError as error:
            letters[error.cause] += 1
    assert fold.rows == case.expected()
    assert letters == case.letters


def test_rows_without_a_primary_key_are_found_by_configured_columns() -> None:
    """Case 8."""
    table = table_of("{body}", key=("ref", "body"))
    changes = [change for change in decoded("no_primary_key", ".keyless")]
    skipped = [change for change in changes if table.skip_reason(change) is not None]  # type: ignore[arg-type]
    assert skipped == [Deleted(None)]
    fold = Fold(table)
    for change in changes:
        if change not in skipped:
            fold.apply(change)  # type: ignore[arg-type]
    assert sorted(point.text for point in fold.rows.values()) == ["hei", "hello", "moi", "no lang"]


def test_a_key_that_loses_its_column_is_a_dead_letter_unless_the_table_names_it() -> None:
    """Cases 8 and 9: after DROP COLUMN and RENAME the connector sends null keys."""
    changes = [change for change in decoded("schema_change", ".products")]
    keyless = [change for change in changes if isinstance(change, Upserted | Deleted) and change.key is None]
    assert len(keyless) == 6
    named = table_of("{name}", key=("id",))
    for change in keyless:
        with pytest.raises(DecodeError, match="no_key"):
            table_of("{name}").row_of(change)
        if named.skip_reason(change) is None:
            assert named.row_of(change).key in ('{"id":1}', '{"id":2}')


# --- types ----------------------------------------------------------------------------------------------


def typed(name: str, **changes: str) -> list[Upserted]:
    """The upserts of a recording of every type, where the table declares the types."""
    table = table_of("{c_text}", types=TYPES_BY_COLUMN | changes)
    codec = DebeziumJson(mapping_of=lambda _topic: table)
    return [change for change in map(codec.decode, read(name)) if isinstance(change, Upserted)]


def differing(one: Upserted, other: Upserted) -> dict[str, tuple[Value, Value]]:
    """The columns in which two rows differ; not-a-number equals itself."""
    assert one.columns.keys() == other.columns.keys()
    return {
        name: (value, other.columns[name])
        for name, value in one.columns.items()
        if repr(value) != repr(other.columns[name])
    }


def test_recorded_values_of_every_type_have_their_one_spelling() -> None:
    """Cases 37 and 39."""
    for change in (typed("types_default_schemas_on")[0], typed("types_default_schemas_off")[0]):
        assert {name: change.columns[name] for name in FULL_TYPES_ROW} == FULL_TYPES_ROW


@pytest.mark.parametrize("name", ["types_default_schemas_on", "types_default_schemas_off"])
@pytest.mark.parametrize("at", [1, 6], ids=["snapshot", "stream"])
def test_recorded_infinities_and_not_a_number_are_kept(name: str, at: int) -> None:
    """Case 40."""
    columns = typed(name)[at].columns
    assert (columns["c_tstz"], columns["c_ts"], columns["c_date"]) == ("infinity", "-infinity", "infinity")
    assert math.isnan(columns["c_real"])
    assert columns["c_double"] == math.inf
    assert (columns["c_time"], columns["c_bit"], columns["c_point"]) == (
        "24:00:00.000000",
        "000",
        "POINT(0 0)",
    )
    assert typed(name)[at + 2].columns["c_date"] == "-infinity"


def test_declared_types_make_up_for_the_schema_that_a_message_lacks() -> None:
    """Cases 2, 37 and 39: the same row has the same values, hence the same text, metadata and id."""
    with_schema, without = typed("types_default_schemas_on"), typed("types_default_schemas_off")
    assert len(with_schema) == len(without) == 11
    for one, other in zip(with_schema, without, strict=True):
        assert one.key == other.key
        assert differing(one, other) == {}


def test_declared_types_change_nothing_where_the_message_has_a_schema() -> None:
    declared = typed("types_default_schemas_on")
    plain = [change for change in decoded("types_default_schemas_on") if isinstance(change, Upserted)]
    assert [differing(*pair) for pair in zip(declared, plain, strict=True)] == [{}] * 11


def test_the_modes_of_text_give_the_same_values_but_for_what_they_say_otherwise() -> None:
    """Case 39: decimals as text, hstore as a map, binary as base64. An interval as text has other units."""
    for one, other in zip(typed("types_default_schemas_on"), typed("types_string"), strict=True):
        found = differing(one, other)
        found.pop("c_interval", None)
        # A decimal without declared scale: precise mode loses not-a-number and the scale of zero.
        assert found in ({}, {"c_num": (None, "NAN")}, {"c_num": ("0", "0.000")})


def test_numbers_and_milliseconds_are_read_as_far_as_they_tell() -> None:
    """Case 39: decimals as doubles, times of Kafka Connect (milliseconds), binary as hex."""
    doubles = typed("types_double", c_ts="timestamp(3)", c_time="time(3)")
    found = differing(typed("types_default_schemas_on")[0], doubles[0])
    assert {name: value for name, (_, value) in found.items()} == {
        "c_num": 1.2345678901234567e19,
        "c_num380": "100000000000000000000000000000000000000",
        "c_ts": "2026-02-28T23:59:59.123000",
        "c_time": "23:59:59.123000",
        "c_bytea": "00ff10",
    }
    assert doubles[1].columns["c_ts"] == "-infinity"


@pytest.mark.parametrize(
    "pair", [("json_schemas_on", "json_schemas_off"), ("unwrapped_schemas_on", "unwrapped")]
)
def test_schemas_make_no_difference_to_text_metadata_and_id(pair: tuple[str, str]) -> None:
    """Cases 2 and 20: envelopes and flattened rows, with a schema and with declared types."""

    def made(name: str) -> dict[str, tuple[str, dict[str, Value]]]:
        codec = DebeziumJson(mapping_of=lambda _topic: PRODUCTS)
        changes = [change for change in map(codec.decode, read(name)) if isinstance(change, Upserted)]
        return {
            PRODUCTS.row_of(change).head_id: (
                PRODUCTS.render(PRODUCTS.rendered(change), change),
                PRODUCTS.metadata_of(change)[0],
            )
            for change in changes[:20]
        }

    assert made(pair[0]) == {row: made(pair[1])[row] for row in made(pair[0])}


def test_recorded_placeholders_of_every_type_are_unavailable() -> None:
    """Case 21."""
    toasted = [change for change in decoded("toasted") if isinstance(change, Upserted)]
    unavailable = [change.unavailable for change in toasted]
    every = frozenset({"body", "vc", "j", "b", "arr", "iarr", "h"})
    assert unavailable == [frozenset(), frozenset(), every, every, every - {"body"}, every - {"j"}, every]
    for change in toasted:
        assert "__debezium_unavailable_value" not in json.dumps(change.columns)


def test_the_create_of_a_changed_key_names_the_row_that_has_its_text() -> None:
    """Case 26."""
    table = table_of("{title}\n\n{body}")
    change = next(
        change for change in decoded("toasted") if isinstance(change, Upserted) and change.old_key is not None
    )
    assert change.unavailable
    assert table.row_of(change) == Row("t", '{"id":3}')
    assert table.row_at(change.old_key) == Row("t", '{"id":1}')


# --- the loader -----------------------------------------------------------------------------------------


def test_a_recording_is_read_as_the_records_that_were(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(
        '{"topic":"a","partition":2,"offset":5,"timestamp":9,"timestamp_type":1,"key":"eyJpZCI6MX0=",'
        '"value":null,"headers":[["h","AA=="],["n",null]]}\n\n'
        '{"topic":"a","partition":2,"offset":6,"key":null,"value":""}\n'
    )
    assert read_recording(path) == [
        Record("a", 2, 5, b'{"id":1}', None, (("h", b"\x00"), ("n", None)), 9),
        Record("a", 2, 6, None, b""),
    ]


def test_a_compressed_recording_is_read_as_the_plain_one(tmp_path: Path) -> None:
    line = b'{"topic":"a","partition":0,"offset":0,"key":null,"value":null}\n'
    (tmp_path / "some.jsonl.gz").write_bytes(gzip.compress(line))
    assert read_recording(tmp_path / "some.jsonl.gz") == [Record("a", 0, 0, None, None)]
    for broken in (b"", line, gzip.compress(line)[:-5]):
        (tmp_path / "broken.jsonl.gz").write_bytes(broken)
        if broken:
            with pytest.raises(ValueError, match="not a gzip file"):
                read_recording(tmp_path / "broken.jsonl.gz")


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        '{"topic":"a"}',
        '{"topic":"a","partition":0,"offset":0,"key":"?","value":null}',
        '{"topic":"a","partition":0,"offset":0,"key":null,"value":null,"headers":[1]}',
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"topic":"a","partition":0,"offset":0,"key":null,"value":null}\n' + line)
    with pytest.raises(ValueError, match=r"some\.jsonl:2"):
        read_recording(path)
