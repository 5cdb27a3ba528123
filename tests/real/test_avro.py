"""Avro through a real registry: Debezium with Confluent's Avro converter and Apicurio.

The same rows come as JSON as well. Both must lead to the same texts and metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import Connector, RealStack, Registry

PATIENCE_S = 180.0
DATABASE, STORE, DEAD_LETTERS = "avro_source", "avro_vectors", "vectide.avro.dlq"
DDL = """CREATE TABLE gadgets (id bigint PRIMARY KEY, name text NOT NULL, price numeric(12,2),
    ratio real, weight double precision, tags text[], picture bytea, made date, sold timestamptz,
    attributes jsonb, in_stock boolean NOT NULL DEFAULT true)"""
METADATA = ["price", "ratio", "weight", "tags", "picture", "made", "sold", "attributes", "in_stock"]
INSERT = """INSERT INTO gadgets VALUES (%s, %s, %s, 1.1, 'NaN', ARRAY['a', NULL, 'c'], '\\x00ff'::bytea,
    '2026-02-28', '2026-02-28 23:59:59.123456+02', '{"k": [1, 2.5]}', true)"""

pytestmark = pytest.mark.real


def environment(stack: RealStack, url: str, topics: Mapping[str, str]) -> dict[str, str]:
    tables = {
        name: {"source": topic, "embed": {"columns": ["name"]}, "metadata": METADATA}
        for name, topic in topics.items()
    }
    return {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": "vectide-avro",
        "VECTIDE_REGISTRY__URL": url,
        "VECTIDE_EMBEDDER__KIND": "hashing",
        "VECTIDE_EMBEDDER__DIMENSIONS": "16",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": make_conninfo(stack.postgres.dsn, dbname=STORE),
        "VECTIDE_DLQ__TOPIC": DEAD_LETTERS,
        "VECTIDE_TABLES": json.dumps(tables),
    }


def stored(connection: psycopg.Connection[Any], table: str) -> dict[int, tuple[str, Any]]:
    query = f"SELECT row_key, text, metadata FROM {table}"  # noqa: S608  a name of ours
    try:
        rows = connection.execute(query.encode()).fetchall()
    except psycopg.errors.UndefinedTable:
        return {}
    return {json.loads(key)["id"]: (text, metadata) for key, text, metadata in rows}


def test_avro_and_json_of_the_same_rows_become_the_same(real_stack: RealStack, registry: Registry) -> None:
    """Cases 48 and 50."""
    dsn = real_stack.postgres.dsn
    with psycopg.connect(dsn, autocommit=True) as admin:
        for database in (DATABASE, STORE):
            admin.execute(f"CREATE DATABASE {database}".encode())
    as_avro = Connector("avro", DATABASE, ("gadgets",), False, 1, registry=registry.confluent_url)
    as_json = Connector("plain", DATABASE, ("gadgets",), True, 1)
    topics = {"from_avro": as_avro.topic("gadgets"), "from_json": as_json.topic("gadgets")}
    with (
        psycopg.connect(make_conninfo(dsn, dbname=DATABASE), autocommit=True) as source,
        psycopg.connect(make_conninfo(dsn, dbname=STORE), autocommit=True) as store,
        closing(Kafka(real_stack.broker.bootstrap)) as kafka,
        ExitStack() as connectors,
    ):
        source.execute(DDL.encode())
        for id_ in range(1, 51):
            source.execute(INSERT.encode(), (id_, f"gadget {id_}", f"{id_}.50"))
        for connector in (as_avro, as_json):
            real_stack.connect.create(connector, real_stack.postgres)
            connectors.callback(real_stack.connect.remove, connector.name)
        wait_until("the topics are there", lambda: kafka.exist(list(topics.values())), PATIENCE_S)
        kafka.create_topic(DEAD_LETTERS)
        given = environment(real_stack, registry.confluent_url, topics)
        service = Service(given, real_stack.folder / "vectide-avro")
        try:
            service.start()
            source.execute(b"UPDATE gadgets SET price = -0.01 WHERE id = 1")
            source.execute(b"DELETE FROM gadgets WHERE id = 2")
            source.execute(b"UPDATE gadgets SET id = 103 WHERE id = 3")
            source.execute(b"ALTER TABLE gadgets ADD COLUMN brand text DEFAULT 'none'")
            source.execute(b"UPDATE gadgets SET name = 'renamed', brand = 'new' WHERE id = 4")
            expected = {*range(1, 51), 103} - {2, 3}

            def arrived() -> bool:
                service.readings()
                found = [stored(store, name) for name in topics]
                return all(rows.keys() == expected and rows[4][0] == "renamed" for rows in found)

            wait_until("both collections hold the rows", arrived, PATIENCE_S)
            lag = list(topics.values())
            wait_until("all is committed", lambda: kafka.lag("vectide-avro", lag) == 0, PATIENCE_S)
            from_avro, from_json = (stored(store, name) for name in topics)
            assert service.stop() == 0
        finally:
            service.close()
        assert from_avro == from_json
        assert from_avro[1][1]["price"] == "-0.01"
        assert list(kafka.messages([DEAD_LETTERS])) == []
        values = [message.value() or b"" for message in kafka.messages([topics["from_avro"]])]
        assert {value[:1] for value in values} == {b"\x00", b""}, "the topic was not Avro at all"
        assert len({value[:5] for value in values}) == 3, "a new schema after the new column"
