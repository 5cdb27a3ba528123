"""What `init` proposes for real tables, and that the service takes it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from vectide.app_init import InitRequest, init
from vectide.settings import SettingsError
from vectide.settings_tables import parse_tables
from vectide.testing.postgres import EmbeddedPostgres

PRODUCTS = """
CREATE TYPE {schema}.kind AS ENUM ('book', 'toy');
CREATE TABLE {schema}.products (
    id bigint PRIMARY KEY, name varchar(200) NOT NULL, description text, review text, status text,
    kind {schema}.kind, price numeric(10,2), in_stock boolean, tags text[], attributes jsonb,
    image_url text, password_hash text,
    created_at timestamptz, day date, deleted_at timestamp, search tsvector, "on" int, raw bytea,
    shout text GENERATED ALWAYS AS (upper(name)) STORED);
INSERT INTO {schema}.products (id, name, description, review, status, image_url, password_hash)
    SELECT n, 'product ' || n, repeat('words ', n), 'what customer ' || n || ' wrote about it at length',
        (ARRAY['live', 'draft'])[1 + n % 2], 'https://shop.example/images/' || n || '.jpg', md5(n::text)
    FROM generate_series(1, 50) n
"""


def prepare(postgres: EmbeddedPostgres, schema: str, *statements: str) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as link:
        link.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
        for statement in statements:
            for part in statement.format(schema=schema).split(";\n"):
                link.execute(part.encode())


def test_a_table_is_proposed_from_its_types_and_its_rows(
    postgres: EmbeddedPostgres, schema: str, tmp_path: Path
) -> None:
    prepare(postgres, schema, PRODUCTS)
    request = InitRequest(postgres.dsn, [f"{schema}.products"], tmp_path, prefix="shop")
    tables_file, connector_file = init(request)
    tables = parse_tables(tables_file.read_text(encoding="utf-8"))
    assert tables.problems == ()
    (mapping,) = tables.mappings
    assert (mapping.table, mapping.source) == ("products", f"shop.{schema}.products")
    assert mapping.embed_columns == ("name", "description", "review")
    assert [field.source for field in mapping.metadata] == [
        *("id", "status", "kind", "price", "in_stock", "tags", "image_url", "created_at", "day", "on"),
    ]
    assert mapping.soft_delete is not None
    assert mapping.soft_delete.column == "deleted_at"
    assert dict(mapping.types) == {
        "price": "numeric(10,2)",
        "created_at": "timestamp with time zone",
        "day": "date",
        "deleted_at": "timestamp without time zone",
    }
    assert '#   "password_hash": may be a secret' in tables_file.read_text(encoding="utf-8")
    connector = json.loads(connector_file.read_text(encoding="utf-8"))["config"]
    assert connector["topic.prefix"] == "shop"
    assert connector["table.include.list"] == f"{schema}\\.products"
    assert connector["topic.creation.default.partitions"] == "-1"  # that Connect makes the topics at all
    assert connector["topic.creation.default.replication.factor"] == "-1"
    assert connector["database.hostname"] == "localhost"
    assert postgres.password not in connector_file.read_text(encoding="utf-8")


def test_odd_names_and_tables_of_one_name_are_told_apart(
    postgres: EmbeddedPostgres, schema: str, tmp_path: Path
) -> None:
    other = f"{schema}_b"
    prepare(postgres, schema, 'CREATE TABLE {schema}."Odd Näme" ("no" text, "I: d" int PRIMARY KEY)')
    prepare(postgres, other, 'CREATE TABLE {schema}."Odd Näme" (id int PRIMARY KEY, "# c" text)')
    names = [f"{schema}.Odd Näme", f"{other}.Odd Näme"]
    tables_file, _ = init(InitRequest(postgres.dsn, names, tmp_path, prefix="shop"))
    tables = parse_tables(tables_file.read_text(encoding="utf-8"))
    assert tables.problems == ()
    first, second = tables.mappings
    assert (first.table, second.table) == ("odd_n_me", f"{other}_odd_n_me")
    assert first.source == f"shop.{schema}.Odd_N_me"
    assert (first.embed_columns, second.embed_columns) == (("no",), ("# c",))


def test_files_that_are_there_are_left_alone(postgres: EmbeddedPostgres, schema: str, tmp_path: Path) -> None:
    prepare(postgres, schema, "CREATE TABLE {schema}.t (id int PRIMARY KEY, body text)")
    mine = tmp_path / "connector.json"
    mine.write_text("mine", encoding="utf-8")
    request = InitRequest(postgres.dsn, [f"{schema}.t"], tmp_path)
    with pytest.raises(SettingsError, match=r"connector\.json is there already: --force overwrites it"):
        init(request)
    assert mine.read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["connector.json"]
    init(InitRequest(postgres.dsn, [f"{schema}.t"], tmp_path, force=True))
    assert mine.read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("CREATE TABLE {schema}.t (id int, body text)", "has no primary key, so its rows have no identity"),
        (
            "CREATE TABLE {schema}.t (id int PRIMARY KEY, n int)",
            "has no column of texts that could be embedded",
        ),
        ("CREATE TABLE {schema}.other (id int)", "the source has no table "),
    ],
)
def test_a_table_that_cannot_be_taken_in_is_refused_and_nothing_is_written(
    postgres: EmbeddedPostgres, schema: str, tmp_path: Path, table: str, told: str
) -> None:
    prepare(postgres, schema, table)
    with pytest.raises(SettingsError, match=told):
        init(InitRequest(postgres.dsn, [f"{schema}.t"], tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_whole_decimals_are_left_as_the_digits_that_the_connector_sends(
    postgres: EmbeddedPostgres, schema: str, tmp_path: Path
) -> None:
    """Case 37: declared, the digits 1234 could be taken for base64."""
    prepare(
        postgres,
        schema,
        "CREATE TABLE {schema}.plans"
        " (id numeric(8,0) PRIMARY KEY, title text, year numeric(4,0), n numeric(12,0)[])",
    )
    tables_file, connector_file = init(
        InitRequest(postgres.dsn, [f"{schema}.plans"], tmp_path, prefix="shop")
    )
    (mapping,) = parse_tables(tables_file.read_text(encoding="utf-8")).mappings
    assert dict(mapping.types) == {}
    assert '"decimal.handling.mode": "string"' in connector_file.read_text(encoding="utf-8")


def test_a_collection_is_not_called_like_a_table_of_the_source(
    postgres: EmbeddedPostgres, schema: str, tmp_path: Path
) -> None:
    """Collections lie in the schema public unless told otherwise, perhaps of this very database."""
    name = f"books_{schema}"
    tables = f"CREATE TABLE {name} (id int PRIMARY KEY, title text);\nCREATE VIEW {name}_vectors AS SELECT 1"
    prepare(postgres, schema, tables, f"CREATE TABLE {{schema}}.{name} (id int PRIMARY KEY, title text)")
    for place, source in enumerate((name, f"{schema}.{name}")):
        request = InitRequest(postgres.dsn, [source], tmp_path / str(place), prefix="shop")
        (mapping,) = parse_tables(init(request)[0].read_text(encoding="utf-8")).mappings
        assert (mapping.table, mapping.collection) == (name, f"{name}_vectors2")
    other = InitRequest(postgres.dsn, [f"{schema}.only_here"], tmp_path / "other", prefix="shop")
    prepare(postgres, schema, "CREATE TABLE {schema}.only_here (id int PRIMARY KEY, title text)")
    (mapping,) = parse_tables(init(other)[0].read_text(encoding="utf-8")).mappings
    assert mapping.collection == "only_here"
