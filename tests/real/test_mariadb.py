"""MariaDB through its Debezium connector: as JSON with schemas, as JSON without, and as Avro.

Each way leads to a collection of its own, and each must end as the source table is.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.real.mariadb import MariaDb, MariaDbConnector
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import RealStack, Registry

PATIENCE_S = 180.0
SEED = 20
ROWS, STATEMENTS = 200, 600
BARRIER = 1_000_000
GROUP, STORE, DEAD_LETTERS = "vectide-mariadb", "mariadb_vectors", "vectide.mariadb.dlq"

DDL = """CREATE TABLE goods (id bigint PRIMARY KEY, name varchar(200) NOT NULL, description longtext,
    price decimal(12,2), weight double, ratio float, kind enum('tool','toy','food') NOT NULL DEFAULT 'tool',
    tags set('new','sale','used') NOT NULL DEFAULT '', attributes json, made date, sold datetime(6),
    changed timestamp(3) NULL, opens time(6), bits bit(4), picture varbinary(20), in_stock boolean NOT NULL
    DEFAULT true, amount int unsigned, deleted_at datetime)"""
#: What the store must hold, spelt as docs/types.md says, by the server's own account.
WANTED = """SELECT JSON_OBJECT('id', id, 'text',
    IF(description IS NULL OR description = '', name, CONCAT(name, '\n\n', description)), 'metadata',
    JSON_OBJECT('price', CAST(price AS CHAR), 'weight', weight, 'ratio', ratio, 'kind', kind, 'tags', tags,
    'attributes', CAST(attributes AS CHAR), 'made', CAST(made AS CHAR),
    'sold', DATE_FORMAT(sold, '%Y-%m-%dT%H:%i:%s.%f'),
    'changed', DATE_FORMAT(CONVERT_TZ(changed, @@time_zone, '+00:00'), '%Y-%m-%dT%H:%i:%s.%fZ'),
    'opens', TIME_FORMAT(opens, '%H:%i:%s.%f'), 'bits', LPAD(BIN(bits), 4, '0'),
    'picture', TO_BASE64(picture), 'in_stock', in_stock, 'amount', amount))
    FROM goods WHERE deleted_at IS NULL"""
METADATA = ["price", "weight", "ratio", "kind", "tags", "attributes", "made", "sold", "changed", "opens"]
METADATA += ["bits", "picture", "in_stock", "amount"]
#: To MariaDB a boolean is a small number, and JSON is text: no schema says more.
ALIASES = {"in_stock": "boolean", "attributes": "json"}
#: The rest is what JSON without schemas does not tell.
TYPES = ALIASES | {
    "price": "decimal(12,2)",
    "weight": "double",
    "ratio": "float",
    "tags": "set",
    "made": "date",
    "sold": "datetime(6)",
    "changed": "timestamptz",
    "opens": "time(6)",
    "bits": "bit(4)",
}
VALUES = {
    "price": ("NULL", "0", "0.10", "-0.01", "1234567890.50", "99.99"),
    "weight": ("NULL", "0.1", "-2.5e10", "3"),
    "ratio": ("NULL", "1.1", "0.25", "-1024.5"),
    "kind": ("'tool'", "'toy'", "'food'"),
    "tags": ("''", "'new'", "'new,used'", "'sale'"),
    "attributes": ("NULL", """'{"b": [1, 2.5, null], "a": "ä"}'""", "'[]'", "'\"text\"'", "'7'"),
    "made": ("NULL", "'2026-02-28'", "'1969-12-31'", "'9999-12-31'", "'1000-01-01'"),
    "sold": ("NULL", "'2026-02-28 23:59:59.123456'", "'1969-12-31 23:59:59.999999'", "'1999-01-01'"),
    "changed": ("NULL", "'2026-02-28 23:59:59.123'", "'1970-01-02 00:00:00'"),
    "opens": ("NULL", "'08:30:00'", "'23:59:59.999999'", "'00:00:00'"),
    "bits": ("NULL", "b'0101'", "b'1111'", "b'0'"),
    "picture": ("NULL", "x'00ff10'", "'text'"),
    "in_stock": ("true", "false"),
    "amount": ("NULL", "0", "4294967295"),
}

#: Texts and metadata by id.
Rows = dict[int, tuple[str, Any]]

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


class Workload:
    """Seeded statements; those about rows that are not there change nothing."""

    def __init__(self) -> None:
        self._rng = random.Random(SEED)  # noqa: S311
        self._words = 0

    def insert(self, id_: int) -> str:
        given = {name: self._rng.choice(choices) for name, choices in VALUES.items()}
        given |= {"id": str(id_), "name": self._text(), "description": self._description()}
        return f"INSERT IGNORE INTO goods ({','.join(given)}) VALUES ({','.join(given.values())})"  # noqa: S608

    def statement(self) -> str:
        id_ = self._rng.randrange(1, 2 * ROWS)
        match self._rng.choice(("insert", "insert", "text", "metadata", "metadata", "both", "other")):
            case "insert":
                return self.insert(id_)
            case "text":
                return self._update(id_, f"name = {self._text()}")
            case "metadata":
                return self._update(id_, self._column())
            case "both":
                return self._update(id_, f"description = {self._description()}, {self._column()}")
        return self._rng.choice(
            (
                f"DELETE FROM goods WHERE id = {id_}",  # noqa: S608  ids of ours
                f"REPLACE INTO goods (id, name) VALUES ({id_}, {self._text()})",  # noqa: S608
                self._update(id_, "id = id + 10000"),
                self._update(id_, "deleted_at = now()"),
                self._update(id_, "deleted_at = NULL"),
                self._update(id_, "name = name"),
                f"UPDATE goods SET {self._column()} WHERE id BETWEEN {id_} AND {id_ + 5}",  # noqa: S608
                f"BEGIN; {self._update(id_, 'name = 42')}; DELETE FROM goods; ROLLBACK",  # noqa: S608
                f"BEGIN; {self.insert(id_)}; {self._update(id_, self._column())}; COMMIT",
            )
        )

    def _update(self, id_: int, what: str) -> str:
        return f"UPDATE goods SET {what} WHERE id = {id_}"  # noqa: S608

    def _column(self) -> str:
        name = self._rng.choice(list(VALUES))
        return f"{name} = {self._rng.choice(VALUES[name])}"

    def _text(self) -> str:
        self._words += 1
        return f"'Ware {self._words} ü 😀'"

    def _description(self) -> str:
        return self._rng.choice(("NULL", "''", f"repeat({self._text()}, 500)"))


def wanted(server: MariaDb) -> Rows:
    """The source table, as the store must hold it."""
    found = {}
    for row in server.rows(WANTED):
        metadata = row["metadata"]
        metadata["tags"] = [tag for tag in metadata["tags"].split(",") if tag]
        metadata["in_stock"] = bool(metadata["in_stock"])
        if metadata["attributes"] is not None:
            metadata["attributes"] = json.loads(metadata["attributes"])
        found[row["id"]] = (row["text"], metadata)
    return found


def stored(connection: psycopg.Connection[Any], table: str) -> Rows:
    query = f"SELECT row_key, text, metadata FROM {table}"  # noqa: S608  a name of ours
    try:
        rows = connection.execute(query.encode()).fetchall()
    except psycopg.errors.UndefinedTable:
        return {}
    return {json.loads(key)["id"]: (text, metadata) for key, text, metadata in rows}


def differences(wanted: Rows, found: Rows) -> list[str]:
    """Rows and columns in which the two are not equal."""
    told = [f"{id_}: only in one" for id_ in sorted(wanted.keys() ^ found.keys())]
    for id_ in sorted(wanted.keys() & found.keys()):
        (text, metadata), (other_text, other_metadata) = wanted[id_], found[id_]
        if text != other_text:
            told.append(f"{id_}: text {other_text[:80]!r} instead of {text[:80]!r}")
        told += [
            f"{id_}: {name} is {other_metadata.get(name)!r} instead of {metadata.get(name)!r}"
            for name in sorted(metadata.keys() | other_metadata.keys())
            if metadata.get(name) != other_metadata.get(name)
        ]
    return told


def environment(stack: RealStack, registry: Registry, topics: Mapping[str, str]) -> dict[str, str]:
    embed = {"template": "{name}[\n\n{description}]"}
    tables = {
        name: {
            "source": topic,
            "embed": embed,
            "metadata": METADATA,
            "soft_delete": "deleted_at",
            "types": TYPES if name == "from_plain" else ALIASES,
        }
        for name, topic in topics.items()
    }
    return {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": GROUP,
        "VECTIDE_REGISTRY__URL": registry.confluent_url,
        "VECTIDE_EMBEDDER__KIND": "hashing",
        "VECTIDE_EMBEDDER__DIMENSIONS": "16",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": make_conninfo(stack.postgres.dsn, dbname=STORE),
        "VECTIDE_DLQ__TOPIC": DEAD_LETTERS,
        "VECTIDE_TABLES": json.dumps(tables),
    }


def test_the_store_equals_a_table_of_mariadb_whichever_converter_wrote_it(
    real_stack: RealStack, registry: Registry, mariadb: MariaDb
) -> None:
    """Cases 2, 48 and 63; invariant 14."""
    workload = Workload()
    mariadb.run([DDL, *(workload.insert(id_) for id_ in range(1, ROWS))])
    connectors = {
        "from_schemas": MariaDbConnector("maria_schemas", 101, ("goods",), schemas=True),
        "from_plain": MariaDbConnector("maria_plain", 102, ("goods",)),
        "from_avro": MariaDbConnector("maria_avro", 103, ("goods",), registry=registry.confluent_url),
    }
    topics = {name: connector.topic("goods") for name, connector in connectors.items()}
    with psycopg.connect(real_stack.postgres.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {STORE}".encode())
    with (
        psycopg.connect(make_conninfo(real_stack.postgres.dsn, dbname=STORE), autocommit=True) as store,
        closing(Kafka(real_stack.broker.bootstrap)) as kafka,
        ExitStack() as running,
    ):
        for connector in connectors.values():
            config = connector.config(mariadb, real_stack.broker.bootstrap)
            real_stack.connect.start(connector.name, config)
            running.callback(real_stack.connect.remove, connector.name)
        wait_until("the topics are there", lambda: kafka.exist(list(topics.values())), PATIENCE_S)
        kafka.create_topic(DEAD_LETTERS)
        service = Service(environment(real_stack, registry, topics), real_stack.folder / "vectide-mariadb")

        def holds(name: str, *ids: int) -> bool:
            service.readings()  # complains where it has ended
            found = stored(store, name)
            return bool(found) and found.keys() >= set(ids)

        try:
            service.start()
            mariadb.run([workload.statement() for _ in range(STATEMENTS // 2)])
            wait_until("something is stored", lambda: holds("from_avro"), PATIENCE_S)
            service.kill()
            mariadb.run([workload.statement() for _ in range(STATEMENTS // 2)])
            mariadb.run([workload.insert(BARRIER)])
            service.start()
            for name in topics:
                wait_until("the last event is stored", partial(holds, name, BARRIER), PATIENCE_S)
            wait_until("all is committed", lambda: kafka.lag(GROUP, list(topics.values())) == 0, PATIENCE_S)
            assert service.stop() == 0
        finally:
            service.close()
        expected = wanted(mariadb)
        assert len(expected) > ROWS
        complaints = {name: differences(expected, stored(store, name))[:10] for name in topics}
        assert complaints == {name: [] for name in topics}
        assert list(kafka.messages([DEAD_LETTERS])) == []
        starts = {(message.value() or b"\x00")[:1] for message in kafka.messages([topics["from_avro"]])}
        assert starts == {b"\x00"}, "the topic was not Avro"
