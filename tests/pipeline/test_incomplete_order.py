"""Where the value of a column that an event leaves out comes from: in the order that the table names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.pipeline.recorded_pump import Pump
from tests.recorded import table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, Row
from vectide.testing.rows import MemoryRows
from vectide.testing.store import MemoryStore

TABLE = "public.docs"
UNAVAILABLE = "__debezium_unavailable_value"
STORED, REREAD, DEAD = "stored", "reread", "dead-letter"


def mapping_with(ways: Sequence[str]) -> TableMapping:
    mapping = table_of("{title}\n\n{body}", source="a.public.docs")
    return replace(mapping, on_incomplete=tuple(ways), keep_values=STORED in ways)


def event(offset: int, title: str, body: str) -> Record:
    source = {"ts_ms": 5, "db": "shop", "schema": "public", "table": "docs"}
    value = {"op": "u", "source": source, "after": {"id": 1, "title": title, "body": body}}
    return Record("a.public.docs", 0, offset, b'{"id":1}', json.dumps(value).encode())


def ran(mapping: TableMapping, store: MemoryStore, reader: MemoryRows | None, *records: Record) -> Pump:
    codec = DebeziumJson(mapping_of=lambda _: mapping)
    pump = Pump(records, mapping, codec.decode, store, reader)
    pump.run()
    return pump


def the_source(**changes: str) -> MemoryRows:
    return MemoryRows({TABLE: {'{"id":1}': {"id": 1, "title": "second", "body": "of the source"}}}, changes)


@pytest.mark.parametrize(
    ("ways", "body", "asked"),
    [
        ([STORED, REREAD, DEAD], "kept", 0),
        ([REREAD, STORED, DEAD], "of the source", 1),
        ([STORED, DEAD], "kept", 0),
        ([REREAD, DEAD], "of the source", 1),
        ([STORED], "kept", 0),
        ([REREAD], "of the source", 1),
    ],
)
def test_the_first_way_that_knows_the_value_gives_it(ways: list[str], body: str, asked: int) -> None:
    """Case 22; invariant 5."""
    mapping, store, reader = mapping_with(ways), MemoryStore(), the_source()
    ran(mapping, store, reader, event(0, "first", "kept"))
    pump = ran(mapping, store, reader, event(1, "second", UNAVAILABLE))
    assert not pump.dead
    assert pump.sold == [f"second\n\n{body}"]
    assert [point.text for point in pump.stored().values()] == [f"second\n\n{body}"]
    assert reader.asked == asked


def test_the_next_way_is_tried_where_one_does_not_know() -> None:
    """Case 22: the source refuses the column; the store never saw the row."""
    mapping, store, reader = mapping_with([REREAD, STORED, DEAD]), MemoryStore(), the_source(body="a secret")
    ran(mapping, store, reader, event(0, "first", "kept"))
    assert ran(mapping, store, reader, event(1, "second", UNAVAILABLE)).sold == ["second\n\nkept"]
    assert reader.asked == 1
    mapping, reader = mapping_with([STORED, REREAD, DEAD]), the_source()
    pump = ran(mapping, MemoryStore(), reader, event(1, "second", UNAVAILABLE))
    assert pump.sold == ["second\n\nof the source"]
    assert reader.asked == 1


@pytest.mark.parametrize(
    ("ways", "reader", "told"),
    [
        ([DEAD], the_source(), "unavailable columns: body"),
        ([STORED, DEAD], the_source(), "unavailable columns: body"),
        ([STORED, REREAD, DEAD], None, "unavailable columns: body"),
        (
            [STORED, REREAD, DEAD],
            the_source(body="nobody may read it"),
            "unavailable columns: body (body: nobody may read it)",
        ),
        (
            [REREAD, DEAD],
            MemoryRows({TABLE: {}}),
            "unavailable columns: body (the source no longer has the row)",
        ),
    ],
)
def test_what_nobody_knows_is_a_dead_letter_that_says_why(
    ways: list[str], reader: MemoryRows | None, told: str
) -> None:
    """Case 22: of a row that the store does not have; and nothing is embedded."""
    pump = ran(mapping_with(ways), MemoryStore(), reader, event(0, "second", UNAVAILABLE))
    ((cause, detail),) = [(letter.cause, letter.detail) for letter in pump.letters.sent]
    assert (cause, detail) == ("incomplete_row", told)
    assert (pump.sold, pump.stored()) == ([], {})


def test_what_was_deleted_since_is_no_dead_letter_although_a_change_between_cannot_be_read() -> None:
    """Invariant 10: as a replay meets them, long after the delete was applied."""
    garbage = Record("a.public.docs", 0, 1, b'{"id":1}', b"\x00 this is no event")
    deleted = Record("a.public.docs", 0, 2, b'{"id":1}', None)
    partial = event(0, "second", UNAVAILABLE)
    pump = ran(mapping_with([STORED]), MemoryStore(), None, partial, garbage, deleted)
    assert [(letter.record.offset, letter.cause) for letter in pump.letters.sent] == [(1, "not_json")]
    assert pump.stored() == {}


def test_without_stored_values_none_are_kept_and_none_are_used() -> None:
    """Case 22: the row keeps its old text, marked as one that lacks a change."""
    mapping, store = mapping_with([DEAD]), MemoryStore()
    ran(mapping, store, None, event(0, "first", "kept"))
    pump = ran(mapping, store, None, event(1, "second", UNAVAILABLE))
    assert pump.dead == {"incomplete_row": 1}
    assert [point.text for point in pump.stored().values()] == ["first\n\nkept"]
    assert pump.sold == []


def test_metadata_that_was_read_again_marks_the_row_as_ahead_of_its_events() -> None:
    """Invariant 14: it may be that of a later row with the same key, and is not handed on to another one."""
    mapping, store = table_of("{title}", "body", source="a.public.docs"), MemoryStore()
    ran(mapping, store, the_source(), event(0, "first", UNAVAILABLE))
    assert held(store) == ({"body": "of the source"}, True)
    ran(mapping, store, the_source(), event(1, "first", "of the event"))
    assert held(store) == ({"body": "of the event"}, False)


def held(store: MemoryStore) -> tuple[object, bool]:
    """The metadata of the row, and whether it says that it is ahead of its events."""
    (point,) = store.of_row("rows", Row.of("t", {"id": 1}))
    assert point.stamp is not None
    return point.metadata, point.stamp.ahead
