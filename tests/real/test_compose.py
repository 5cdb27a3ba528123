"""What ``docker-compose.yml`` starts everything with, on the real stack: the same connector, tables, service
variables and sample rows, with other addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo
from tests.real.jars import DEBEZIUM_VERSION, KAFKA_VERSION
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import RealStack

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
PATIENCE_S = 180.0


def service_variables() -> dict[str, str]:
    """The lines of the env file."""
    lines = (COMPOSE / "vectide.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def environment(real_stack: RealStack) -> dict[str, str]:
    """What the service is told: as in ``docker-compose.yml``, with the addresses of here."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    given = {**compose["services"]["vectide"]["environment"], **service_variables()}
    dsn = real_stack.postgres.tcp_dsn
    here = {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": real_stack.broker.bootstrap,
        "VECTIDE_STORE__DSN": make_conninfo(dsn, dbname="vectors"),
        "VECTIDE_SOURCE__DSN": make_conninfo(dsn, dbname="shop"),
        "VECTIDE_TABLES_FILE": str(COMPOSE / "tables.yaml"),
        "VECTIDE_HTTP__HOST": "127.0.0.1",
    }
    assert here.keys() <= given.keys()
    return given | here


@pytest.fixture
def kafka(real_stack: RealStack) -> Iterator[Kafka]:
    with closing(Kafka(real_stack.broker.bootstrap)) as asker:
        yield asker


def fill(stack: RealStack) -> None:
    """What the PostgreSQL image does with its two files at its first start."""
    with psycopg.connect(stack.postgres.dsn, autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE shop")
        admin.execute((COMPOSE / "vectors.sql").read_bytes())
    with psycopg.connect(make_conninfo(stack.postgres.dsn, dbname="shop"), autocommit=True) as shop:
        shop.execute((COMPOSE / "shop.sql").read_bytes())


def vectide(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
    return subprocess.run(  # noqa: S603 (our own interpreter and module)
        [sys.executable, "-m", "vectide", *arguments],
        env={**outside, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def found(environment: dict[str, str], text: str) -> list[Any]:
    """The metadata of the rows that a search finds, best first."""
    ran = vectide(environment, "search", text, "--json")
    return [json.loads(line)["metadata"] for line in ran.stdout.splitlines()]


def test_what_compose_starts_fills_the_store_and_keeps_it_equal(
    real_stack: RealStack, environment: dict[str, str], kafka: Kafka
) -> None:
    fill(real_stack)
    real_stack.connect.start("shop", json.loads((COMPOSE / "connector.json").read_text("utf-8")))
    service = Service(environment, real_stack.folder / "vectide-compose")
    try:
        wait_until(
            "our topics are made, and Debezium's is there",
            lambda: vectide(environment, "topics", "--create", "--replication-factor", "1").returncode == 0,
            PATIENCE_S,
        )
        service.start()
        wait_until("all rows are in the store", lambda: len(found(environment, "x") or ()) == 10, PATIENCE_S)
        wait_until(
            "all is committed",
            lambda: kafka.lag("vectide", ["shop.public.products"]) == 0,
            PATIENCE_S,
        )
        best = found(environment, "tent for a hike in the rain")[0]
        assert (best["name"], best["price"]) == ("Two-person tent", "279.00")
        with psycopg.connect(make_conninfo(real_stack.postgres.dsn, dbname="shop")) as shop:
            shop.execute(b"UPDATE products SET price = 99 WHERE name = 'Two-person tent'")
            shop.execute(b"DELETE FROM products WHERE name = 'Head torch'")

        def followed() -> bool:
            names = {row["name"]: row["price"] for row in found(environment, "tent, torch, hiking at night")}
            return names.get("Two-person tent") == "99.00" and "Head torch" not in names

        wait_until("the store has followed", followed, PATIENCE_S)
        assert vectide(environment, "check").returncode == 0
        assert service.stop() == 0
    finally:
        service.close()
        real_stack.connect.remove("shop")


def test_what_init_proposes_runs_as_it_is(
    real_stack: RealStack, environment: dict[str, str], tmp_path: Path
) -> None:
    """From a table to its previews, on a broker that makes no topic by itself."""
    with psycopg.connect(real_stack.postgres.dsn, autocommit=True) as admin:
        admin.execute(b"CREATE DATABASE blog")
    dsn = make_conninfo(real_stack.postgres.tcp_dsn, dbname="blog")
    with psycopg.connect(dsn) as blog:
        blog.execute(b"CREATE TABLE articles (id int PRIMARY KEY, title text, body text, written date)")
        blog.execute(
            b"INSERT INTO articles VALUES (1, 'Tomatoes', 'Water them in the morning.', '2026-05-01')"
        )
    target = ["--dsn", dsn, "--table", "articles", "--prefix", "blog"]
    ran = vectide({}, "init", *target, "--directory", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    given = json.loads((tmp_path / "connector.json").read_text("utf-8"))
    real_stack.connect.start(given["name"], given["config"])
    try:
        told = {
            **environment,
            "VECTIDE_TABLES_FILE": str(tmp_path / "tables.yaml"),
            "VECTIDE_SOURCE__DSN": dsn,
        }
        wait_until(
            "the table has become a topic",
            lambda: vectide(told, "preview", "--json").stdout != "",
            PATIENCE_S,
        )
        (event,) = map(json.loads, vectide(told, "preview", "--json").stdout.splitlines())
        assert event["decision"] == "embed"
        assert event["texts"][0]["text"] == "Tomatoes\n\nWater them in the morning."
        assert event["metadata"] == {"id": 1, "written": "2026-05-01"}
    finally:
        real_stack.connect.remove(given["name"])


def test_compose_runs_the_versions_that_are_tested_here() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert services["kafka"]["image"].endswith(f":{KAFKA_VERSION}")
    assert services["connect"]["image"].endswith(f":{DEBEZIUM_VERSION}")
    assert services["connector"]["image"] == services["connect"]["image"]
