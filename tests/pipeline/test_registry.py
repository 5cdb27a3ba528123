"""``vectide`` on topics whose schemas are in a registry, from the broker to PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.converters import recorded_avro, schemas_of
from tests.pipeline.shop import Shop, refused, running, until

from vectide import app
from vectide.core.model import Record
from vectide.ports import MissingExtra
from vectide.settings import load
from vectide.testing.broker import BrokerProcess
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.registry import RegistryServer

METADATA = ["category", "in_stock", "price", "updated_at", "tenant_id"]


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as process:
        yield process


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture
def shop(broker: BrokerProcess, postgres: EmbeddedPostgres) -> Shop:
    return Shop(broker, postgres)


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        server.load(schemas_of("avro"))
        yield server


def recorded(shop: Shop) -> list[Record]:
    """The Avro recording with fewer rows in the beginning, as if it were of this table; its last two records
    have new schemas."""
    whole = recorded_avro("avro")
    records = whole[:20] + whole[200:]
    return [replace(record, topic=shop.topic, partition=0) for record in records]


def with_registry(shop: Shop, registry: RegistryServer, **changes: str) -> dict[str, str]:
    # Not the category: the last record lacks that column.
    given = {"VECTIDE_TABLES": shop.tables(metadata=["in_stock", "price"])}
    return shop.environment(**(given | {"VECTIDE_REGISTRY__URL": registry.url} | changes))


def test_avro_gives_what_the_json_of_the_same_rows_gives(
    broker: BrokerProcess, postgres: EmbeddedPostgres, registry: RegistryServer
) -> None:
    """Case 48: texts and metadata, exact decimals among them."""
    framed, plain = Shop(broker, postgres), Shop(broker, postgres)
    framed.produce(*recorded(framed)[:54])
    plain.produce(*plain.recorded("json_schemas_on"))
    with (
        running(with_registry(framed, registry, VECTIDE_TABLES=framed.tables(metadata=METADATA))) as service,
        running(plain.environment(VECTIDE_TABLES=plain.tables(metadata=METADATA))),
    ):
        until(lambda: framed.committed() == plain.committed() == 54, "every record to be committed")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    assert framed.stored() == plain.stored()
    assert framed.metadata() == plain.metadata()
    assert framed.metadata()[4]["price"] == plain.metadata()[4]["price"] != ""
    assert framed.letters() == []
    assert len([asked for asked in registry.asked if asked.path.startswith("/schemas/ids/")]) <= 4


def test_a_new_schema_waits_for_a_registry_that_is_down(shop: Shop, registry: RegistryServer) -> None:
    """Cases 50 and 94."""
    *known, added, dropped = recorded(shop)
    shop.produce(*known)
    with running(with_registry(shop, registry)) as service:
        until(lambda: shop.committed() == len(known), "the records with the first schema")
        registry.fail(503)
        shop.produce(added, dropped)
        until(lambda: service.readiness()[1].get("reason", "").startswith("schema"), "the trouble to be told")
        assert service.readiness()[0] == 200
        assert shop.committed() == len(known)
        registry.recover()
        until(lambda: shop.committed() == len(known) + 2, "the records with new schemas")
    assert 21 in shop.stored()
    assert shop.letters() == []


def test_a_registry_that_refuses_the_credentials_halts_what_needs_it(shop: Shop) -> None:
    """Case 95: at start it is refused, later it halts."""
    user, password = "reader", "sesame"
    with RegistryServer(users={user: password}) as registry:
        registry.load(schemas_of("avro"))
        signed = {"VECTIDE_REGISTRY__USERNAME": user, "VECTIDE_REGISTRY__PASSWORD": password}
        code, told = refused(with_registry(shop, registry, **signed | {"VECTIDE_REGISTRY__PASSWORD": "x"}))
        assert code == 3
        assert "VECTIDE_REGISTRY__USERNAME" in told[0]
        *known, added, _ = recorded(shop)
        shop.produce(*known)
        with running(with_registry(shop, registry, **signed)) as service:
            until(lambda: shop.committed() == len(known), "the records with the first schema")
            registry.fail(401)
            shop.produce(added)
            until(lambda: service.readiness()[0] == 503, "it to be halted")
            assert service.readiness()[1]["reason"] == "schema: unauthorized"
            assert shop.letters() == []
            assert password not in "".join(service.lines)


def test_a_schema_that_nobody_registered_makes_a_dead_letter(shop: Shop, registry: RegistryServer) -> None:
    """Case 93."""
    first, *_ = recorded(shop)
    assert first.value is not None
    stray = replace(first, value=b"\x00\x00\x00\x0f\xff" + first.value[5:])
    cut = replace(first, value=first.value[:-1])
    shop.produce(first, stray, cut, first)
    with running(with_registry(shop, registry)):
        until(lambda: shop.committed() == 4, "every record to be committed")
    causes = [dict(letter.headers)["vectide.dlq.cause"] for letter in shop.letters()]
    assert sorted(causes, key=str) == [b"bad_avro", b"schema_unknown"]
    assert {letter.value for letter in shop.letters()} == {stray.value, cut.value}
    assert len(shop.stored()) == 1


def test_protobuf_makes_dead_letters_that_say_so(shop: Shop, registry: RegistryServer) -> None:
    """The rest of the topic goes on."""
    known = registry.register(f"{shop.topic}-value", 'syntax = "proto3"; message Row {}', "PROTOBUF")
    first, *_ = recorded(shop)
    proto = replace(first, value=b"\x00" + known.id.to_bytes(4, "big") + b"\x00\x08\x01")
    shop.produce(proto, first)
    with running(with_registry(shop, registry)):
        until(lambda: shop.committed() == 2, "every record to be committed")
    (letter,) = shop.letters()
    assert letter.value == proto.value
    assert dict(letter.headers)["vectide.dlq.cause"] == b"unsupported_schema"
    assert b"protobuf is not read" in (dict(letter.headers)["vectide.dlq.detail"] or b"")
    assert len(shop.stored()) == 1


def test_the_start_waits_for_a_registry_that_is_down(shop: Shop, registry: RegistryServer) -> None:
    registry.fail(None)
    records = recorded(shop)
    shop.produce(*records)
    with running(with_registry(shop, registry)) as service:
        until(lambda: service.events("waiting"), "it to wait")
        assert service.events("waiting")[0]["dependency"] == "registry"
        assert service.readiness()[0] == 503
        registry.recover()
        until(lambda: shop.committed() == len(records), "every record to be committed")


def vectide(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "vectide", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_tells_how_the_registry_is(shop: Shop, registry: RegistryServer) -> None:
    shop.produce(*recorded(shop))
    good = vectide(with_registry(shop, registry), "check", "--json")
    checks = {found["name"]: found for found in json.loads(good.stdout)["checks"]}
    assert good.returncode == 0, good.stdout
    assert checks["registry"]["detail"] == registry.url
    assert "newest events fit" in checks["events"]["detail"]
    registry.fail(503)
    bad = vectide(with_registry(shop, registry), "check", "--json")
    checks = {found["name"]: found for found in json.loads(bad.stdout)["checks"]}
    assert bad.returncode == 1
    assert "VECTIDE_REGISTRY__URL" in checks["registry"]["advice"]


def test_preview_reads_framed_records(shop: Shop, registry: RegistryServer) -> None:
    shop.produce(*recorded(shop)[:3])
    ran = vectide(with_registry(shop, registry), "preview", "--json")
    assert ran.returncode == 0, ran.stderr
    shown = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["decision"] for one in shown] == ["embed"] * 3
    assert all(one["metadata"]["price"] for one in shown)


def test_a_topic_without_frames_needs_no_word_from_the_registry(shop: Shop, registry: RegistryServer) -> None:
    """A group of topics may be in the middle of a change of converters."""
    shop.produce(*shop.recorded("json_schemas_on"), *recorded(shop)[54:])
    with running(with_registry(shop, registry)):
        until(lambda: shop.committed() == 56, "every record to be committed")
    assert 21 in shop.stored()
    assert shop.letters() == []


def test_a_client_that_is_not_installed_is_named_with_its_extra(
    shop: Shop, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(with_registry(shop, registry))
    monkeypatch.delitem(sys.modules, "vectide.registry", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra, match=r'httpx2.*pip install "vectide\[registry\]"'):
        app.build_registry(settings)


def test_nothing_of_it_is_loaded_without_a_registry() -> None:
    code = "import sys, vectide.app_service; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"authlib", "fastavro", "httpx2"}
