"""The broker of the tests and the demo: it must be a Kafka to its clients and never outlive its owner."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from vectide.core.model import Record
from vectide.testing.broker import Api, BrokerError, BrokerProcess, produce, read_topic


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess() as running:
        yield running


def record(topic: str, value: bytes | None = b"v", **more: object) -> Record:
    fields: dict[str, object] = {"partition": 0, "offset": 0, "key": b"k", "value": value}
    return Record(topic, **(fields | more))  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Ended; a zombie that nobody has reaped counts."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_is_written_is_read_back_byte_for_byte(broker: BrokerProcess) -> None:
    broker.create_topic("bytes", 2)
    headers = (("a", b"\xff\x00"), ("null", None), ("a", b""))
    produce(
        broker.bootstrap,
        [
            record("bytes", b"\x00\xfe", headers=headers, timestamp_ms=1_700_000_000_123),
            record("bytes", None, partition=1, key=None),
        ],
    )
    first, tombstone = read_topic(broker.bootstrap, "bytes")
    assert (first.key, first.value, first.headers) == (b"k", b"\x00\xfe", headers)
    assert first.timestamp_ms == 1_700_000_000_123
    assert (tombstone.partition, tombstone.key, tombstone.value) == (1, None, None)


def test_a_topic_that_does_not_exist_has_no_records_and_cannot_be_deleted(broker: BrokerProcess) -> None:
    assert read_topic(broker.bootstrap, "absent") == []
    with pytest.raises(BrokerError, match=r"delete_topic: .*Unknown topic"):
        broker.delete_topic("absent")


def test_creating_a_topic_twice_keeps_its_records(broker: BrokerProcess) -> None:
    broker.create_topic("twice")
    produce(broker.bootstrap, [record("twice")])
    broker.create_topic("twice")
    assert len(read_topic(broker.bootstrap, "twice")) == 1


def test_deleted_records_are_gone_and_offsets_go_on(broker: BrokerProcess) -> None:
    broker.create_topic("retained")
    for _ in range(3):
        produce(broker.bootstrap, [record("retained")])
    broker.delete_records("retained", 0, before=2)
    assert [kept.offset for kept in read_topic(broker.bootstrap, "retained")] == [2]


def test_a_pushed_error_answers_one_request(broker: BrokerProcess) -> None:
    broker.create_topic("faulty")
    broker.push_errors(Api.PRODUCE, [KafkaError.INVALID_RECORD])
    with pytest.raises(BrokerError, match="record"):
        produce(broker.bootstrap, [record("faulty")])
    produce(broker.bootstrap, [record("faulty")])
    assert len(read_topic(broker.bootstrap, "faulty")) == 1


def test_cleared_errors_hit_nobody(broker: BrokerProcess) -> None:
    broker.create_topic("cleared")
    broker.push_errors(Api.PRODUCE, [KafkaError.INVALID_RECORD])
    broker.clear_errors(Api.PRODUCE)
    produce(broker.bootstrap, [record("cleared")])


def test_a_broker_that_is_down_answers_nobody_until_it_is_up_again(broker: BrokerProcess) -> None:
    client = AdminClient(
        {"bootstrap.servers": broker.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 100}
    )
    broker.set_down()
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.3)
    broker.set_up()
    assert client.list_topics(timeout=10).brokers


def test_a_delay_slows_every_answer(broker: BrokerProcess) -> None:
    client = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    client.list_topics(timeout=10)
    broker.set_rtt(150)
    started_s = time.monotonic()
    client.list_topics(timeout=10)
    broker.set_rtt(0)
    assert time.monotonic() - started_s >= 0.1


def test_a_topic_error_is_told_to_whoever_asks(broker: BrokerProcess) -> None:
    broker.create_topic("forbidden")
    broker.set_topic_error("forbidden", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    client = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    error = client.list_topics(timeout=10).topics["forbidden"].error
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_several_brokers_form_one_cluster() -> None:
    with BrokerProcess(brokers=3) as cluster:
        client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        assert sorted(client.list_topics(timeout=10).brokers) == [1, 2, 3]


def test_a_killed_broker_refuses_commands_and_may_be_closed_again() -> None:
    killed = BrokerProcess()
    killed.kill()
    assert is_gone(killed.pid)
    with pytest.raises(BrokerError, match="is gone"):
        killed.create_topic("t")
    killed.close()


def test_a_closed_broker_has_ended() -> None:
    with BrokerProcess() as closed:
        assert not is_gone(closed.pid)
    assert is_gone(closed.pid)


def test_the_broker_ends_with_a_parent_that_is_killed() -> None:
    program = (
        "import sys, time; from vectide.testing.broker import BrokerProcess; "
        "broker = BrokerProcess(); print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:  # noqa: S603
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_gone(child)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(child))
