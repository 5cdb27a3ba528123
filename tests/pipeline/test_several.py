"""Several models and several real stores in one process: pgvector, Qdrant's engine and LanceDB."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.shop import DIMENSIONS, Shop, refused, running, until
from tests.pipeline.verbs import Vectide

from vectide.jobs.executor import SystemClock
from vectide.ports import Deadline
from vectide.stores.lancedb import LanceDbStore
from vectide.stores.qdrant import QdrantStore
from vectide.testing.broker import BrokerProcess
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.qdrant_server import QdrantServer

OTHER_DIMENSIONS = 32


class Mall:
    """Three shops in one process: in PostgreSQL, in Qdrant, and with a model of its own in LanceDB."""

    def __init__(self, broker: BrokerProcess, postgres: EmbeddedPostgres, qdrant: str, folder: Path) -> None:
        self.shops = [Shop(broker, postgres) for _ in range(3)]
        self.usual, self.second, self.third = self.shops
        self.qdrant = qdrant
        self.folder = str(folder / "lance")

    def environment(self, **own: Any) -> dict[str, str]:
        """``own``: more keys of the third table."""
        ways: list[dict[str, Any]] = [
            {},
            {"store": {"kind": "qdrant", "url": self.qdrant}},
            {
                "store": {"kind": "lancedb", "url": "${LANCE_FOLDER}"},
                "embedder": {"dimensions": OTHER_DIMENSIONS},
                **own,
            },
        ]
        tables: dict[str, Any] = {}
        for shop, way in zip(self.shops, ways, strict=True):
            tables |= json.loads(shop.tables(**way))
        return self.usual.environment(VECTIDE_TABLES=json.dumps(tables)) | {"LANCE_FOLDER": self.folder}

    def stored(self) -> list[dict[int, str | None]]:
        """The texts of each shop's rows, in its own store."""
        with closing(QdrantStore(self.qdrant)) as qdrant, closing(LanceDbStore(self.folder)) as lance:
            return [
                dict(self.usual.stored()),
                _texts(qdrant, self.second.table),
                _texts(lance, self.third.table),
            ]


def _texts(store: QdrantStore | LanceDbStore, collection: str) -> dict[int, str | None]:
    deadline = Deadline.after(SystemClock(), 20)
    page, cursor = store.scan(collection, None, 100, deadline)
    assert cursor is None
    return {json.loads(point.row.key)["id"]: point.text for point in page}


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as process:
        yield process


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def qdrant() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


@pytest.fixture
def mall(broker: BrokerProcess, postgres: EmbeddedPostgres, qdrant: QdrantServer, tmp_path: Path) -> Mall:
    mall = Mall(broker, postgres, qdrant.url, tmp_path)
    for shop in mall.shops:
        shop.produce(shop.upsert(1, "lamp"), shop.upsert(2, "chair"), shop.delete(2))
    return mall


def test_each_table_ends_in_its_own_store_with_vectors_of_its_own_model(mall: Mall, vectide: Vectide) -> None:
    environment = mall.environment()
    checked = vectide(environment, "check", "--json")
    assert checked.code == 0, checked.out
    details = {check["name"]: check["detail"] for check in checked.json["checks"]}
    assert details["embedder hashing"].endswith(f": {DIMENSIONS} dimensions")
    assert details[f"embedder hashing:{mall.third.table}"].endswith(f": {OTHER_DIMENSIONS} dimensions")
    for kind, shop in zip(("pgvector", "qdrant", "lancedb"), mall.shops, strict=True):
        assert details[f"store {kind}"] == f"{shop.table} is made at the first start"
    wanted: list[dict[int, str | None]] = [{1: "lamp"}] * 3
    with running(environment) as service:
        until(lambda: [shop.committed_by(mall.usual.group) for shop in mall.shops] == [3] * 3, "the commits")
        assert mall.stored() == wanted
        metrics = service.get("/metrics")[1]
        for kind in ("pgvector", "qdrant", "lancedb"):
            assert f'vectide_station_calls_total{{provider="",station="write",store="{kind}"}}' in metrics
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    previewed = vectide(environment, "preview", "--json", "--store")
    assert [line["reason"] for line in previewed.json_lines].count("already_applied") == len(mall.shops)
    for shop in mall.shops:
        found = vectide(environment, "search", "lamp", "--table", shop.table, "--json")
        assert [(hit["key"], hit["table"]) for hit in found.json_lines] == [({"id": 1}, shop.table)]
        assert found.json_lines[0]["score"] == pytest.approx(1.0, abs=1e-3)


def test_a_store_that_cannot_be_reached_is_named_until_it_can(mall: Mall) -> None:
    environment = {**mall.environment(store={"kind": "qdrant", "url": "http://127.0.0.1:9"})}
    with running(environment) as service:
        named = f"store qdrant:{mall.third.table}: connection"
        until(lambda: service.state() == (503, "starting", named), "the store to be waited for")


def test_a_collection_is_not_filled_with_vectors_of_two_spaces(mall: Mall, vectide: Vectide) -> None:
    """Invariant 6."""
    environment = mall.environment(
        store={"kind": "pgvector", "dsn": mall.usual.postgres.tcp_dsn}, collection=mall.usual.table
    )
    code, told = refused(environment)
    assert (code, len(told)) == (2, 1)
    assert told[0].startswith(f"tables.{mall.third.table}.collection: table {mall.usual.table} fills ")
    assert told[0].endswith("give it a collection of its own")
    checked = vectide(environment, "check", "--json")
    assert checked.code == 1
    failed = [check for check in checked.json["checks"] if check["result"] == "failed"]
    assert [check["name"] for check in failed] == ["store pgvector"]
    assert told[0] in failed[0]["detail"]


def test_a_store_that_is_the_same_under_another_address_refuses_the_second_space_itself(mall: Mall) -> None:
    """Invariant 6."""
    dsn = f"{mall.usual.postgres.tcp_dsn}?application_name=other"
    code, told = refused(
        mall.environment(store={"kind": "pgvector", "dsn": dsn}, collection=mall.usual.table)
    )
    assert code == 3
    assert str(DIMENSIONS) in told[0]
    assert str(OTHER_DIMENSIONS) in told[0]
