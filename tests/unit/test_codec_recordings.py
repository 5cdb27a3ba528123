"""Recorded events of real connectors: each decodes to what it is, and their fold is the source table."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.mapping import SoftDelete, TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Row, Truncated, Upserted
from vectide.core.template import Template
from vectide.testing.recordings import read_recording

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


def read(name: str) -> list[Record]:
    return read_recording(RECORDINGS / f"{name}.jsonl")


def final_rows(name: str, table: str) -> list[dict[str, Any]]:
    tables = json.loads((RECORDINGS / f"{name}.final.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = tables[table]
    return rows


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
    "heartbeat": {"upserted": 14, "heartbeat": 9},
    "incremental_snapshot_excerpt": {"upserted": 6, "deleted": 2, "notification": 23, "signal": 39},
    "json_schemas_off": {"upserted": 224, "deleted": 10},
    "json_schemas_on": {"upserted": 44, "deleted": 10},
    "logical_message": {"upserted": 3, "logical_message": 2},
    "mariadb_excerpt": {"upserted": 25, "deleted": 10, "schema_change": 8},
    "mariadb_schemas_on_excerpt": {"upserted": 8, "deleted": 4, "schema_change": 3},
    "no_primary_key": {"upserted": 12, "deleted": 6},
    "schema_change": {"upserted": 13, "deleted": 2},
    "soft_delete": {"upserted": 12, "deleted": 2},
    "toasted": {"upserted": 7, "deleted": 4},
    "tombstones_off": {"upserted": 8, "deleted": 2},
    "transaction_metadata": {"upserted": 10, "deleted": 4, "transaction": 8},
    "truncate": {"upserted": 10, "truncated": 3},
    "types_default_schemas_off": {"upserted": 11, "deleted": 2},
    "types_default_schemas_on": {"upserted": 5, "deleted": 2},
    "unwrapped_mode_tombstone": {"not_an_envelope": 8, "deleted": 2},
    "unwrapped_schemas_on_excerpt": {"not_an_envelope": 2, "deleted": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_recorded_event_is_decoded_to_what_it_is(name: str) -> None:
    codec = DebeziumJson()
    assert Counter(kind_of(codec, record) for record in read(name)) == KINDS[name]


def test_no_recording_is_left_out() -> None:
    assert {path.stem for path in RECORDINGS.glob("*.jsonl")} == set(KINDS)


def fold(changes: list[Change], table: TableMapping) -> dict[Row, str]:
    """The text of every row after the changes, in order."""
    texts: dict[Row, str] = {}
    for change in changes:
        if isinstance(change, Truncated):
            texts.clear()
        elif isinstance(change, Deleted):
            texts.pop(table.row_of(change), None)
        elif isinstance(change, Upserted):
            row = table.row_of(change)
            text = table.render(table.rendered(change), change)
            if table.is_soft_deleted(change) or not text:
                texts.pop(row, None)
            else:
                texts[row] = text
    return texts


def table_of(template: str, *key: str, soft_delete: str = "") -> TableMapping:
    rule = SoftDelete(soft_delete) if soft_delete else None
    return TableMapping("t", "t", "t", Template.parse(template), key=key, soft_delete=rule)


@pytest.mark.parametrize(
    ("name", "source", "key", "template", "soft_delete"),
    [
        ("json_schemas_off", "products", ("id",), "{name}\n\n{description}", "deleted_at"),
        ("json_schemas_on", "products", ("id",), "{name}\n\n{description}", "deleted_at"),
        ("tombstones_off", "products", ("id",), "{name}\n\n{description}", ""),
        ("transaction_metadata", "products", ("id",), "{name}[ {description}]", ""),
        ("soft_delete", "notes", ("id",), "{body}", "is_deleted"),
        ("composite_key", "order_lines", ("tenant", "order_id", "line_no"), "{note}", ""),
    ],
)
def test_the_fold_of_a_recording_is_the_table_at_its_end(
    name: str, source: str, key: tuple[str, ...], template: str, soft_delete: str
) -> None:
    """Cases 1, 2, 15, 16, 26, 41: identities, texts, deletes, key changes and soft deletes together."""
    table = table_of(template, soft_delete=soft_delete)
    expected = fold(
        [Upserted({column: row[column] for column in key}, row) for row in final_rows(name, source)], table
    )
    assert expected
    assert fold(decoded(name, f".public.{source}"), table) == expected


def test_rows_without_a_primary_key_are_found_by_configured_columns() -> None:
    """Case 8."""
    changes = [change for change in decoded("no_primary_key", ".keyless")]
    table = table_of("{body}", "ref", "body")
    skipped = [change for change in changes if table.skip_reason(change) is not None]  # type: ignore[arg-type]
    assert skipped == [Deleted(None)]
    texts = fold([change for change in changes if change not in skipped], table)
    assert sorted(texts.values()) == ["hei", "hello", "moi", "no lang"]


def test_null_components_of_recorded_keys_are_refused() -> None:
    """Case 10."""
    table = table_of("{body}")
    refused = []
    for change in decoded("no_primary_key", ".keyed"):
        assert isinstance(change, Upserted | Deleted)
        try:
            table.row_of(change)
        except DecodeError as error:
            refused.append(error.cause)
    assert refused == ["null_in_key"] * 3


def test_schemas_on_and_off_give_the_same_row_but_for_decimals() -> None:
    """Case 2: without a schema the scale of a decimal is not in the event."""
    off = {change.key["id"]: change for change in upserts("types_default_schemas_off") if change.key}
    on = {change.key["id"]: change for change in upserts("types_default_schemas_on") if change.key}
    assert set(on) <= set(off)
    for number, change in on.items():
        differing = {name for name, value in change.columns.items() if off[number].columns[name] != value}
        assert differing <= {"c_num102", "c_num380", "c_money", "c_numarr"}


def upserts(name: str) -> list[Upserted]:
    """The snapshot reads of the recording."""
    return [change for change in decoded(name) if isinstance(change, Upserted) and change.op == "r"]


def test_recorded_decimals_are_exact_with_a_schema() -> None:
    """Case 37."""
    first = upserts("types_default_schemas_on")[0].columns
    assert first["c_num102"] == "-12345678.90"
    assert first["c_num"] == "12345678901234567890.123456789"
    assert first["c_num380"] == "99999999999999999999999999999999999999"
    assert first["c_money"] == "1234.56"
    assert first["c_numarr"] == ["1.25", "2.50"]


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
