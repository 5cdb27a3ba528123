"""The same row is the same point, whichever converter wrote it: JSON with schemas, JSON without, Avro.

Through the very pump, into memory and into PostgreSQL: equal text, metadata and id.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.converters import AvroConverter, learned_codec, recorded_avro, without_schemas
from tests.pipeline.recorded_pump import Pump
from tests.recorded import (
    CASES,
    FULL_TYPES_ROW,
    PRODUCTS,
    TYPES_BY_COLUMN,
    final_rows,
    points,
    read,
    table_of,
)

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.registry import RegistryCodec
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, Row
from vectide.ports import Store
from vectide.stores.pgvector import PgVectorStore
from vectide.testing.fold import Expected
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.store import MemoryStore

Points = dict[Row, Expected]
MakeStore = Callable[[], Store]


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture(params=["memory", "pgvector"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """Makes empty stores of one kind."""
    if request.param == "memory":
        yield MemoryStore
        return
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    made: list[closing[PgVectorStore]] = []

    def make() -> Store:
        store = PgVectorStore(server.dsn, schema=f"converters_{request.node.name[:20]}_{len(made)}")
        made.append(closing(store))
        return store

    yield make
    for store in made:
        store.__exit__(None, None, None)


def ran(records: list[Record], mapping: TableMapping, codec: Any, store: Store) -> Points:
    """What the store holds after these records; no dead letter among them."""
    pump = Pump(records, mapping, codec.decode, store)
    pump.run()
    assert not pump.dead
    return pump.stored()


def from_json(name: str, mapping: TableMapping, store: Store) -> Points:
    return ran(read(name), mapping, DebeziumJson(mapping_of=lambda _: mapping), store)


def from_avro(name: str, mapping: TableMapping, store: Store) -> Points:
    return ran(recorded_avro(name), mapping, learned_codec(name, lambda _: mapping), store)


# --- recorded -----------------------------------------------------------------------------------------------

#: Without the category, a column that the Avro recording drops at its end, and what a dropped column was
#: is not what a column is.
SHOP = table_of(
    "{name}[\n\n{description}]",
    *("price", "in_stock", "updated_at", "tenant_id"),
    soft_delete="deleted_at",
    types=dict(PRODUCTS.types),
    source="^.*products$",
)


def test_recorded_converters_lead_to_the_rows_of_the_source_table(make_store: MakeStore) -> None:
    """Cases 2, 48 and 50; invariant 14. The same statements, recorded once with each converter."""
    without = from_json("json_schemas_off", SHOP, make_store())
    assert from_avro("avro", SHOP, make_store()) == without
    assert without == points(SHOP, ["id"], final_rows("json_schemas_off", "products"))
    with_schemas = from_json("json_schemas_on", SHOP, make_store())
    # Recorded with fewer rows in the beginning.
    assert with_schemas == {row: point for row, point in without.items() if row in with_schemas}
    assert len(with_schemas) == 24


#: A column of every type.
ALL_TYPES = list(FULL_TYPES_ROW)
TYPES = table_of(
    "{id}" + "".join(f"[ {name}={{{name}}}]" for name in ALL_TYPES),
    *ALL_TYPES,
    types=TYPES_BY_COLUMN,
    source="^.*types$",
)
#: What ``decimal.handling.mode`` itself makes different: as a decimal there is no not-a-number, and a zero
#: has no scale.
BY_MODE = {(None, "NAN"), ("0", "0.000")}


def test_recorded_values_of_every_type_are_spelt_the_same(make_store: MakeStore) -> None:
    """Cases 2, 37, 39, 46 and 48: 45 columns, in metadata and text, with the decimals in both modes."""
    with_schemas = from_json("types_default_schemas_on", TYPES, make_store())
    assert from_json("types_default_schemas_off", TYPES, make_store()) == with_schemas
    avro = from_avro("types_avro", TYPES, make_store())
    assert avro.keys() == with_schemas.keys()
    for row, point in with_schemas.items():
        differing = {
            name: (value, avro[row].metadata[name])
            for name, value in point.metadata.items()
            if value != avro[row].metadata[name]
        }
        assert set(differing.values()) <= BY_MODE
        assert differing.keys() <= {"c_num"}
        if not differing:
            assert avro[row] == point
    assert sum(avro[row] == point for row, point in with_schemas.items()) == 6


# --- converted ----------------------------------------------------------------------------------------------

WITH_SCHEMAS = [*(case for case in CASES if case.name.endswith("schemas_on"))]


@pytest.mark.parametrize("case", WITH_SCHEMAS, ids=str)
def test_every_recording_with_schemas_is_the_same_without_them_and_in_avro(case: Any) -> None:
    """Cases 2, 18 and 48: flattened rows and MariaDB's events among them."""
    three_ways(read(case.name), case.placed)


def test_values_of_every_type_are_the_same_without_schemas_and_in_avro() -> None:
    """Case 48: decimals as numbers, which the recorded Avro has as text."""
    three_ways(read("types_default_schemas_on"), TYPES)


def three_ways(records: list[Record], mapping: TableMapping) -> None:
    def mapping_of(topic: str) -> TableMapping | None:
        return mapping if mapping.matches(topic) else None

    expected = ran(records, mapping, DebeziumJson(mapping_of=mapping_of), MemoryStore())
    assert expected
    bare = without_schemas(records)
    assert bare != records
    assert ran(bare, mapping, DebeziumJson(mapping_of=mapping_of), MemoryStore()) == expected
    codec = RegistryCodec(mapping_of=mapping_of)
    framed = AvroConverter(codec).convert(records)
    assert all((record.value or b"\0")[:1] == b"\0" for record in framed if mapping_of(record.topic))
    assert ran(framed, mapping, codec, MemoryStore()) == expected
