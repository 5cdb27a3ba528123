"""Every recording of a real connector through the very pump: the store ends up as the source's table."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from tests.backends import BACKENDS, EVERY_BACKEND
from tests.pipeline.recorded_pump import Pump
from tests.recorded import CASES, DOCS, TYPES_BY_COLUMN, Case, points, read, table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.mapping import MetadataField, TableMapping
from vectide.core.model import Row
from vectide.core.values import normalise
from vectide.ports import Store
from vectide.stores.pgvector import PgVectorStore
from vectide.testing.fold import Expected
from vectide.testing.postgres import EmbeddedPostgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture(params=EVERY_BACKEND)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param != "pgvector":
        with BACKENDS[request.param](request) as backend:
            yield backend.store
        return
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    with psycopg.connect(server.dsn, autocommit=True) as database:
        database.execute("DROP SCHEMA IF EXISTS recorded CASCADE")
    with closing(PgVectorStore(server.dsn, schema="recorded")) as empty:
        yield empty


def ran(name: str, mapping: TableMapping, store: Store | None = None) -> Pump:
    """The pump after all records of the recording, heartbeats and other tables included."""
    codec = DebeziumJson(
        lenient_keys=bool(mapping.key),
        mapping_of=lambda topic: mapping if mapping.matches(topic) else None,
    )
    pump = Pump(read(name), mapping, codec.decode, store)
    pump.run()
    return pump


def held(points: Mapping[Row, Expected], store: Store) -> dict[Row, Expected]:
    """The points as the store holds them."""
    legal = store.capabilities.legal
    return {row: replace(one, metadata=legal(one.metadata)) for row, one in points.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_store_holds_the_rows_of_the_source_table(case: Case, store: Store) -> None:
    """Cases 1-4, 8-10, 15, 16, 18, 20, 26, 29, 30, 37, 41 and 63; invariants 12 and 14."""
    pump = ran(case.name, case.placed, store)
    assert pump.stored() == held(case.expected(), store)
    assert pump.dead == case.letters
    counted = ("written", "deleted", "skipped", "dead_lettered")
    assert pump.tally["received"] == sum(pump.tally[outcome] for outcome in counted) == len(read(case.name))


@pytest.mark.parametrize("name", ["toasted", "toasted_unwrapped"])
def test_unavailable_values_are_completed_or_named_and_never_embedded(name: str, store: Store) -> None:
    """Cases 21, 22 and 26; invariant 5. The row whose key changed has its old text."""
    case = Case(name, "docs", DOCS)
    pump = ran(name, case.placed, store)
    assert pump.stored() == held(case.expected(), store)
    assert not pump.dead


METADATA = (
    "c_num102",
    "c_num",
    "c_real",
    "c_double",
    "c_jsonb",
    "c_hstore",
    "c_tstz",
    "c_ts",
    "c_date",
    "c_bit",
)
TYPES = table_of("{c_text}[ {c_num102}][ {c_date}][ {c_jsonb}]", *METADATA, types=TYPES_BY_COLUMN, source="^")


def test_rows_of_every_type_are_one_point_with_schemas_and_with_declared_types() -> None:
    """Cases 2, 37, 39 and 46: equal ids, texts and metadata."""
    with_schemas, without = (ran(f"types_default_schemas_{mode}", TYPES).stored() for mode in ("on", "off"))
    assert with_schemas == without
    ids = {row.head_id for row in with_schemas}
    assert ids == {row.head_id for row in points(TYPES, ["id"], EXPECTED_TYPES)}
    by_key = {row.key: point for row, point in with_schemas.items()}
    assert by_key['{"id":1}'].text == 'updated -12345678.90 2026-02-28 {"a":[1,2.5,null],"b":1}'
    assert by_key['{"id":15}'] == Expected("0.10 1970-01-01", by_key['{"id":5}'].metadata)
    assert by_key['{"id":14}'].metadata["c_real"] is None  # an infinity: no store has such a number


@pytest.mark.parametrize(
    ("name", "otherwise", "types"),
    [
        ("types_default_schemas_on", (), {}),
        ("types_default_schemas_off", (), {}),
        # A decimal without declared scale loses not-a-number and the scale of zero in the precise mode.
        ("types_string", ("c_num",), {}),
        # Decimals are doubles, and times without zone have milliseconds.
        ("types_double", ("c_num", "c_ts"), {"c_ts": "timestamp(3)", "c_time": "time(3)"}),
    ],
)
def test_rows_of_every_type_are_the_same_points_whatever_modes_they_came_in(
    name: str, otherwise: tuple[str, ...], types: Mapping[str, str], store: Store
) -> None:
    """Cases 2, 37 and 39, but for what the connector's modes say ``otherwise``."""
    metadata = [column for column in METADATA if column not in otherwise]
    mapping = replace(
        TYPES,
        metadata=tuple(MetadataField(column, column) for column in metadata),
        types=tuple({**TYPES_BY_COLUMN, **types}.items()),
    )
    pump = ran(name, mapping, store)
    assert pump.stored() == held(ran("types_default_schemas_on", mapping).stored(), store)
    assert {row.key for row in pump.stored()} == {f'{{"id":{point["id"]}}}' for point in EXPECTED_TYPES}
    assert not pump.dead


#: Only their keys matter: what is in them is shown elsewhere. Rows 3 and 13 have no text, 2 was deleted.
EXPECTED_TYPES = [
    {"id": id_, "c_text": "x", "c_num102": None, "c_date": None, "c_jsonb": None, **dict.fromkeys(METADATA)}
    for id_ in (1, 4, 5, 11, 12, 14, 15)
]


def test_metadata_of_every_recording_is_what_every_store_can_hold() -> None:
    for case in CASES:
        for point in case.expected().values():
            legal = normalise(
                point.metadata, max_integer=2**53, nested_metadata=True, null_metadata=True, nul_in_text=False
            )
            assert legal == point.metadata
