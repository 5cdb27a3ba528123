"""``vectide run`` as its user runs it: what it does with events, signals, and everything that is wrong."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from tests.certificates import write_certificate
from tests.pipeline.shop import RECORDINGS, Shop, refused, running, until

from vectide.testing.broker import Api, BrokerProcess
from vectide.testing.embedding_server import EmbeddingServer
from vectide.testing.postgres import EmbeddedPostgres

KEY = "sesame-open-up"


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
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY, record_texts=True) as server:
        yield server


def with_provider(server: EmbeddingServer, **changes: str) -> dict[str, str | None]:
    """The variables of the embedder when it is a provider behind HTTP."""
    return {
        "VECTIDE_EMBEDDER__KIND": "openai",
        "VECTIDE_EMBEDDER__MODEL": "stub",
        "VECTIDE_EMBEDDER__BASE_URL": server.url,
        "VECTIDE_EMBEDDER__API_KEY": KEY,
        "VECTIDE_EMBEDDER__DIMENSIONS": None,
        **changes,
    }


# --- the main job ---------------------------------------------------------------------------------------


def test_events_become_rows_of_the_store_and_a_signal_ends_it_with_everything_committed(shop: Shop) -> None:
    records = shop.recorded("json_schemas_off")
    shop.produce(*records)
    final = json.loads((RECORDINGS / "json_schemas_off.final.json").read_text())["products"]
    texts = {row["id"]: "\n\n".join(filter(None, [row["name"], row["description"]])) for row in final}
    expected = {id_: text for id_, text in texts.items() if text}
    with running(shop.environment()) as service:
        until(lambda: shop.committed() == len(records), "every record to be committed")
        assert shop.stored() == expected
        assert service.get("/livez")[0] == 200
        assert service.readiness() == (
            200,
            {"live": True, "ready": True, "state": "running", "reason": ""},
        )
        metrics = service.get("/metrics")[1]
        assert f'vectide_records_received_total{{topic="{shop.topic}"}} {len(records)}.0' in metrics
        assert 'vectide_state{state="running"} 1.0' in metrics
        shop.produce(shop.upsert(7001, "last minute"), shop.delete(7001), shop.upsert(7002, "very last"))
        until(lambda: 7002 in shop.stored(), "the last row")
        asked_s = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert time.monotonic() - asked_s < 3  # nothing is under way: no part of the grace is needed
    assert shop.committed() == len(records) + 3
    assert 7001 not in shop.stored()
    assert service.events("stopped")[0]["replayed_later"] == 0
    assert service.told == []


def test_a_text_that_comes_again_is_taken_from_the_cache_on_disk_also_after_a_restart(
    shop: Shop, provider: EmbeddingServer, tmp_path: Path
) -> None:
    on_disk = {"VECTIDE_CACHE__KIND": "disk", "VECTIDE_CACHE__PATH": str(tmp_path / "cache" / "vectors.db")}
    environment = shop.environment(**with_provider(provider, **on_disk))
    with running(environment):
        shop.produce(shop.upsert(1, "lamp"))
        until(lambda: shop.committed() == 1, "the record to be committed")
    with running(environment):
        shop.produce(shop.upsert(2, "lamp"))
        until(lambda: shop.committed() == 2, "the record to be committed")
    assert shop.stored() == {1: "lamp", 2: "lamp"}
    assert provider.texts().count("lamp") == 1


def test_after_a_kill_no_text_is_sent_again_that_is_stored(shop: Shop, provider: EmbeddingServer) -> None:
    names = {id_: f"product number {id_}" for id_ in range(400)}
    shop.produce(*(shop.upsert(id_, name) for id_, name in names.items()))
    provider.latency_ms = 30
    changes = {"VECTIDE_EMBEDDER__BATCH_ITEMS": "8", "VECTIDE_EMBEDDER__CONCURRENCY": "2"}
    environment = shop.environment(**with_provider(provider, **changes))
    with running(environment) as service:
        until(lambda: len(shop.stored()) >= 50, "a first part to be stored")
        service.signal(signal.SIGKILL)
        assert service.wait() == -signal.SIGKILL
    provider.forget()
    stored = set(shop.stored().values())
    assert 50 <= len(stored) < len(names)
    assert shop.committed() < len(names)
    provider.latency_ms = 0
    with running(environment):
        until(lambda: shop.committed() == len(names), "the rest to be committed")
    assert shop.stored() == names
    assert stored.isdisjoint(provider.texts())


def test_a_message_of_five_megabytes_is_processed_and_its_neighbours_too(shop: Shop) -> None:
    """Case 90: as it comes, with nothing configured for it."""
    big = shop.upsert(2, "with a photo", photo="a photo in base64 " * 277_800)
    assert 5_000_000 < len(big.value or b"") < 5 * 2**20  # more than that the embedded broker does not keep
    with running(shop.environment(VECTIDE_LIMITS__BYTES_IN_FLIGHT="4MiB")):
        shop.produce(shop.upsert(1, "before"))
        until(lambda: shop.committed() == 1, "the one before to be committed")
        shop.produce(big)
        until(lambda: shop.committed() == 2, "the big one to be committed")
        shop.produce(shop.upsert(3, "after"))
        until(lambda: shop.committed() == 3, "the one after to be committed")
    assert shop.stored() == {1: "before", 2: "with a photo", 3: "after"}
    assert shop.letters() == []


def test_garbage_goes_to_the_dead_letters_and_its_neighbours_to_the_store(shop: Shop) -> None:
    garbage = b"\x00\xff not an event"
    shop.produce(shop.upsert(1, "before"), shop.raw(garbage, key=b"{"), shop.upsert(2, "after"))
    with running(shop.environment()) as service:
        until(lambda: shop.committed() == 3, "all three to be committed")
        assert service.readiness()[0] == 200
    assert shop.stored() == {1: "before", 2: "after"}
    (letter,) = shop.letters()
    assert (letter.key, letter.value) == (b"{", garbage)
    headers = {name: (value or b"").decode() for name, value in letter.headers}
    assert headers["vectide.dlq.stage"] == "decode"
    assert headers["vectide.dlq.topic"] == shop.topic
    assert headers["vectide.dlq.offset"] == "1"
    assert headers["vectide.dlq.cause"]
    assert not any("not an event" in line for line in service.lines)


# --- what cannot be reached is waited for ---------------------------------------------------------------


def test_an_unreachable_store_is_waited_for_alive_and_not_ready(
    shop: Shop, postgres: EmbeddedPostgres
) -> None:
    shop.produce(shop.upsert(1, "patience"))
    postgres.stop()
    try:
        with running(shop.environment()) as service:
            until(lambda: service.events("waiting"), "it to say that it waits")
            assert service.state() == (503, "starting", "store: connection")
            assert service.get("/livez")[0] == 200
            assert 'vectide_state{state="starting"} 1.0' in service.get("/metrics")[1]
            assert "Connection refused" in service.events("waiting")[0]["detail"]
            postgres.start()
            service.until_ready()
            until(lambda: shop.stored() == {1: "patience"}, "the row")
    finally:
        if postgres.pid is None:
            postgres.start()


def test_an_outage_of_kafka_is_shown_until_it_is_over(shop: Shop, broker: BrokerProcess) -> None:
    with running(shop.environment()) as service:
        service.until_ready()
        broker.set_down()
        try:
            outage = (200, "waiting", "kafka (cluster): all_brokers_down")
            until(lambda: service.state() == outage, "the outage to be shown")
            over_s = time.monotonic() + 2.5  # longer than it takes to look at what the cluster answered
            while time.monotonic() < over_s:
                assert service.state() == outage
                time.sleep(0.1)
        finally:
            broker.set_up()
        until(lambda: service.state() == (200, "running", ""), "the outage to be over")
        shop.produce(shop.upsert(1, "after the outage"))
        until(lambda: shop.stored() == {1: "after the outage"}, "the row")


def test_it_can_be_stopped_while_it_waits(shop: Shop) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"postgresql://vectors@127.0.0.1:{unused.getsockname()[1]}/vectors"
        with running(shop.environment(VECTIDE_STORE__DSN=nobody)) as service:
            until(lambda: service.events("waiting"), "it to say that it waits")
            service.signal(signal.SIGINT)
            assert service.wait() == 0
            assert service.told == []


# --- what an operator must mend -------------------------------------------------------------------------


def test_every_problem_of_the_configuration_is_told_at_once(shop: Shop) -> None:
    """Cases 161 and 169: a misspelt variable, a dead-letter topic that would feed itself."""
    environment = shop.environment(VECTIDE_DLQ__TOPIC=shop.topic, VECTIDE_KAFKA__GROUP="shop")
    code, told = refused(environment)
    assert code == 2
    assert told == [
        "VECTIDE_KAFKA__GROUP: unknown variable; did you mean VECTIDE_KAFKA__GROUP_ID?",
        f"VECTIDE_DLQ__TOPIC: is the source of table {shop.table}, which would be an endless loop",
    ]


def test_settings_that_a_part_has_no_use_for_are_told_for_all_parts_at_once(shop: Shop) -> None:
    environment = shop.environment(
        VECTIDE_EMBEDDER__MODEL="some-model", VECTIDE_KAFKA__EXTRA='{"no.such.property": 1}'
    )
    code, told = refused(environment)
    assert code == 2
    assert told == [
        "VECTIDE_EMBEDDER__KIND: the embedder 'hashing' takes no model: leave it out",
        "VECTIDE_KAFKA__EXTRA: the Kafka properties are refused: No such configuration property: "
        '"no.such.property"',
    ]


def test_an_unknown_column_is_named(shop: Shop) -> None:
    shop.produce(shop.upsert(1, "a name"), shop.delete(1))
    tables = shop.tables(embed={"columns": ["nmae"]})
    code, told = refused(shop.environment(VECTIDE_TABLES=tables))
    assert code == 2
    assert told == [
        f"tables.{shop.table}: the events have no column 'nmae'; "
        "they have category, description, id, in_stock, name"
    ]
    assert shop.committed() < 0
    assert shop.letters() == []


def test_a_column_that_only_newer_events_have_is_no_unknown_column(shop: Shop) -> None:
    old = shop.upsert(1, "before the column was added")
    shop.produce(old, shop.upsert(2, "after", colour="red"))
    with running(shop.environment(VECTIDE_TABLES=shop.tables(metadata=["colour"]))) as service:
        until(lambda: service.events("started"), "it to start")


def test_a_missing_topic_is_named(shop: Shop) -> None:
    tables = shop.tables(source="no.such.topic")
    code, told = refused(shop.environment(VECTIDE_TABLES=tables))
    assert code == 3
    assert len(told) == 1
    assert told[0].startswith("Kafka has no topic no.such.topic ")


def test_a_topic_that_several_tables_take_in_is_named(shop: Shop) -> None:
    """What the expressions have in common is seen only where the topics are."""
    first = json.loads(shop.tables(source=f"^{shop.topic}"))
    (wanted,) = first.values()
    tables = {**first, "other": {**wanted, "source": f"^.*{shop.topic[5:]}$", "collection": "other"}}
    code, told = refused(shop.environment(VECTIDE_TABLES=json.dumps(tables)))
    assert code == 3
    assert told == [
        "a topic may fill one table only, and these are taken in by several: "
        f"{shop.topic} by {shop.table} and other: make the expressions in their source narrower"
    ]


def test_a_missing_dead_letter_topic_is_named(shop: Shop) -> None:
    code, told = refused(shop.environment(VECTIDE_DLQ__TOPIC="no.such.dlq"))
    assert code == 3
    assert told == [
        "the dead-letter topic no.such.dlq does not exist: create it, or name another one with "
        "VECTIDE_DLQ__TOPIC (`vectide topics` says how it should be, and makes it with --create)"
    ]


def test_a_wrong_dimension_is_refused_with_both_numbers(shop: Shop) -> None:
    with running(shop.environment()) as service:
        until(lambda: service.events("started"), "the collection to be made")
    code, told = refused(shop.environment(VECTIDE_EMBEDDER__DIMENSIONS="32"))
    assert code == 3
    assert told == [
        f"collection '{shop.table}' has dimensions 64, but 32 is configured: configure what it has, "
        "or use another collection"
    ]


def test_a_wrong_key_is_refused_and_not_shown(shop: Shop, provider: EmbeddingServer) -> None:
    changes = with_provider(provider, VECTIDE_EMBEDDER__API_KEY="wrong-but-secret")
    with running(shop.environment(**changes)) as service:
        assert service.wait() == 3
    assert len(service.told) == 1
    assert service.told[0].endswith("check VECTIDE_EMBEDDER__API_KEY")
    assert "wrong-but-secret" not in "".join(service.lines)


def test_a_wrong_password_is_refused_and_not_shown(shop: Shop, postgres: EmbeddedPostgres) -> None:
    dsn = postgres.tcp_dsn.replace(postgres.password, "wrong-but-secret")
    with running(shop.environment(VECTIDE_STORE__DSN=dsn)) as service:
        assert service.wait() == 3
    assert len(service.told) == 1
    assert "password authentication failed" in service.told[0]
    assert "wrong-but-secret" not in "".join(service.lines)


def test_a_port_in_use_is_wrong_configuration(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = refused(shop.environment(VECTIDE_HTTP__PORT=str(port)))
    assert code == 2
    assert len(told) == 1
    assert told[0].startswith(f"cannot listen on 127.0.0.1:{port}: ")


def test_it_speaks_https_with_a_certificate_and_is_refused_one_that_is_missing(
    shop: Shop, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    given = {"VECTIDE_HTTP__CERTIFICATE_PATH": str(certificate), "VECTIDE_HTTP__KEY_PATH": str(key)}
    code, told = refused(shop.environment(**given))
    assert (code, told) == (2, [f"VECTIDE_HTTP__CERTIFICATE_PATH: {certificate}: No such file or directory"])
    write_certificate(certificate, key)
    with running(shop.environment(**given)) as service:
        assert service.get("/livez")[0] == 0
        context = ssl.create_default_context(cafile=str(certificate))
        address = f"https://127.0.0.1:{service.events('listening')[0]['port']}/livez"
        assert urllib.request.urlopen(address, context=context, timeout=10).status == 200


# --- ends -----------------------------------------------------------------------------------------------


def test_a_fatal_error_ends_it_with_70_and_a_traceback_without_messages(shop: Shop) -> None:
    broker = shop.broker
    with running(shop.environment()) as service:
        service.until_ready()
        broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.FENCED_INSTANCE_ID] * 20)
        try:
            shop.produce(shop.upsert(1, "precious content"))
            assert service.wait() == 70
        finally:
            broker.clear_errors(Api.OFFSET_COMMIT)
    (fatal,) = service.events("fatal")
    assert fatal["exception"][0] == "SourceFatal"
    assert fatal["traceback"]
    assert len(service.told) == 1
    assert service.told[0].startswith("fatal: Kafka: ")
    assert "precious content" not in "".join(service.lines)


def test_a_stop_gives_up_when_its_grace_is_over_and_says_what_comes_again(
    shop: Shop, provider: EmbeddingServer
) -> None:
    shop.produce(shop.upsert(1, "quick to embed"))
    changes = with_provider(provider, VECTIDE_LIMITS__GRACE_S="8")  # a quarter of it is for leaving
    with running(shop.environment(**changes)) as service:
        until(lambda: shop.committed() == 1, "the first row")
        provider.latency_ms = 60_000
        shop.produce(shop.upsert(2, "slow to embed"))
        until(lambda: "slow to embed" in provider.texts(), "the text to be under way")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    (stopped,) = service.events("stopped")
    assert (stopped["drained"], stopped["replayed_later"]) == (False, 1)
    assert shop.committed() == 1


def test_a_second_signal_ends_it_at_once_and_says_what_comes_again(
    shop: Shop, provider: EmbeddingServer
) -> None:
    with running(shop.environment(**with_provider(provider))) as service:
        service.until_ready()
        provider.latency_ms = 60_000
        shop.produce(shop.upsert(1, "slow to embed"))
        until(lambda: "slow to embed" in provider.texts(), "the text to be under way")
        service.signal(signal.SIGTERM)
        until(lambda: service.events("stopping"), "it to stop")
        service.signal(signal.SIGTERM)  # an echo of the first: wrappers send what their group received too
        time.sleep(0.6)  # the time in which a signal counts as an echo
        assert service.process.poll() is None
        service.signal(signal.SIGINT)
        assert service.wait() == 128 + signal.SIGINT
    assert service.told == [
        "told to stop a second time: ending at once; what is not committed is done again after the next start"
    ]
    assert shop.committed() <= 0  # 0: the empty topic was read to its end


HANGS = """
import sys, time
from vectide.ops.stopping import Stopping
stopping = Stopping(lambda: print("stopping", flush=True), 0.3)
stopping.install()
print("ready", flush=True)
if sys.argv[1] == "by-itself":
    stopping.begin()
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["by-a-signal", "by-itself"])
def test_a_stop_that_hangs_is_ended_with_70_after_the_grace(how: str) -> None:
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HANGS, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if how == "by-a-signal":
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "stopping\n"
        _, told = process.communicate(timeout=10)
    assert process.returncode == 70
    assert told.startswith("vectide: the stop took longer than 0.3 s")
