"""Columns that change their type or their name, or go, as PostgreSQL's connector was recorded telling it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from tests.converters import learned_codec, recorded_avro
from tests.pipeline.recorded_pump import Pump
from tests.recorded import Case, final_rows, read, table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, Row
from vectide.stores.pgvector import PgVectorStore
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.store import MemoryStore

#: Records 0-6 have ``category`` and ``description``; 7 lacks the first; from 8 on the second is ``details``.
WITHOUT_CATEGORY, WITHOUT_DESCRIPTION, AFTERWARDS = 7, 8, 14
FIRST = Row.of("t", {"id": 1})


def placed(mapping: TableMapping) -> TableMapping:
    return Case("schema_change", "products", mapping).placed


def events(mapping: TableMapping, start: int = 0) -> list[Record]:
    """The recorded events of the table, from an offset on."""
    return [r for r in read("schema_change") if mapping.matches(r.topic) and r.offset >= start]


def pump_over(records: list[Record], mapping: TableMapping, store: MemoryStore) -> Pump:
    codec = DebeziumJson(lenient_keys=True, mapping_of=lambda _: mapping)
    return Pump(records, mapping, codec.decode, store)


@pytest.mark.parametrize(
    ("template", "metadata", "lost", "at"),
    [
        ("{name}[\n\n{description}]", (), "description", WITHOUT_DESCRIPTION),
        ("{description}", (), "description", WITHOUT_DESCRIPTION),
        ("{name}", ("category",), "category", WITHOUT_CATEGORY),
    ],
)
def test_a_column_that_disappears_halts_its_table_and_costs_no_text(
    template: str, metadata: tuple[str, ...], lost: str, at: int
) -> None:
    """Invariant 2: also where it stands in an optional part. Nothing is embedded again with less text."""
    mapping = placed(table_of(template, *metadata, key=("id",)))
    store = MemoryStore()
    pump = pump_over(events(mapping), mapping, store)
    assert pump.run_until_halted() == f"the events lack mapped columns: {lost}"
    assert list(pump.source.committed.values()) == [at]
    before = pump_over([r for r in events(mapping) if r.offset < at], mapping, MemoryStore())
    before.run()
    assert pump.stored() == before.stored()
    assert sorted(pump.sold) == sorted(before.sold)
    assert not pump.dead


def test_a_mapping_that_knows_the_new_name_goes_on_where_the_table_halted() -> None:
    """Invariant 14."""
    store = MemoryStore()
    old = placed(table_of("{name}[\n\n{description}]", key=("id",)))
    halted = pump_over(events(old), old, store)
    halted.run_until_halted()
    new = placed(table_of("{name}[\n\n{details}]", key=("id",)))
    pump = pump_over(events(new, start=WITHOUT_DESCRIPTION), new, store)
    pump.run()
    assert not pump.dead
    finals = {row["id"]: row for row in final_rows("schema_change", "products")}
    assert pump.stored()[FIRST].text == f"{finals[1]['name']}\n\nafter rename"
    assert {row.key for row in pump.stored()} == {f'{{"id":{id_}}}' for id_ in finals}


def test_other_partitions_of_the_table_go_on_until_they_meet_it_too() -> None:
    """Whoever corrects the mapping finds nothing left that needs the old one."""
    mapping = placed(table_of("{name}[\n\n{description}]", key=("id",)))
    drifting = events(mapping)
    others = [replace(record, partition=1) for record in drifting if record.offset < WITHOUT_DESCRIPTION]
    pump = pump_over([*drifting, *others], mapping, MemoryStore())
    pump.run_until_halted()
    assert {partition: at for (_, partition), at in pump.source.committed.items()} == {
        0: WITHOUT_DESCRIPTION,
        1: WITHOUT_DESCRIPTION,
    }


def test_avro_tells_a_lost_column_by_its_schema() -> None:
    """Case 50: the recorded table gains a column, and loses one in the end."""
    mapping = table_of("{name}[\n\n{description}]", "category", source="^.*products$")
    codec = learned_codec("avro", lambda _: mapping)
    pump = Pump(recorded_avro("avro"), mapping, codec.decode)
    assert pump.run_until_halted() == "the events lack mapped columns: category"


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


def test_a_metadata_column_may_change_its_type(postgres: EmbeddedPostgres) -> None:
    """Case 52: from a number to a text, in PostgreSQL; with a declared type only that record is refused."""
    number = events(placed(table_of("{name}", "tenant_id", key=("id",))))[0]
    assert b'"tenant_id":4' in (number.value or b"")
    text = Record(
        number.topic,
        0,
        AFTERWARDS,
        number.key,
        (number.value or b"").replace(b'"tenant_id":4', b'"tenant_id":"4 b"'),
    )
    for declared, tenant, letters in (
        ({}, "4 b", {}),
        ({"tenant_id": "decimal(9,2)"}, "4.00", {"bad_value": 1}),
    ):
        mapping = placed(table_of("{name}", "tenant_id", key=("id",), types=declared))
        records = [*events(mapping)[:WITHOUT_CATEGORY], text]
        codec = DebeziumJson(lenient_keys=True, mapping_of=lambda _, mapping=mapping: mapping)  # type: ignore[misc]
        with psycopg.connect(postgres.dsn, autocommit=True) as database:
            database.execute("DROP SCHEMA IF EXISTS drift CASCADE")
        with closing(PgVectorStore(postgres.dsn, schema="drift")) as store:
            pump = Pump(records, mapping, codec.decode, store)
            pump.run()
            assert pump.stored()[FIRST].metadata == {"tenant_id": tenant}
            assert len(pump.stored()) == 3
        assert pump.dead == letters


def test_a_recorded_column_that_becomes_a_text_is_stored_or_refused_record_by_record() -> None:
    """Case 52: a price that turns from a decimal into ``5 EUR``."""
    for declared, price, letters in (({}, "5 EUR", 0), ({"price": "numeric(10,2)"}, "5.00", 1)):
        mapping = placed(table_of("{name}", "price", key=("id",), types=declared))
        pump = pump_over(events(mapping), mapping, MemoryStore())
        pump.run()
        assert pump.stored()[FIRST].metadata == {"price": price}
        assert pump.dead.total() == pump.dead["bad_value"] == letters
