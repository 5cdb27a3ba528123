"""A Kafka broker for tests and the demo: the one inside librdkafka, in a process of its own.

It needs nothing but the ``confluent-kafka`` wheel and starts in a tenth of a second. What it is not: data
lives in memory (the newest 5 MiB of each partition), ``read_committed`` is ignored, and there is no
compaction, no retention by time, no ACL, and no topic administration over the protocol
(:meth:`BrokerProcess.create_topic` does that). It runs apart because a failed assertion in it aborts its
process.

The native API is experimental and has no promise of stability: every use of it is in this file.
Clients wait up to ``fetch.wait.max.ms`` for a record that arrives while they poll, since nothing wakes a
waiting fetch: set it to about 10 in tests.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from vectide.core.model import Record

ANSWER_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 5.0
ALL_BROKERS: Final = -1

_PRODUCER: Final = 0
_ERROR_BYTES: Final = 512


class Api(IntEnum):
    """Request types of the Kafka protocol that errors can be injected into."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    CONSUMER_GROUP_HEARTBEAT = 68


class BrokerError(RuntimeError):
    """The broker process refused a command or is gone."""


class BrokerProcess:
    """A running broker (or several of one cluster), to be used as a context manager.

    It lives until :meth:`close`, :meth:`kill` or the death of this process, however it dies. Methods may be
    called from any thread; each returns when the broker has done it and raises :class:`BrokerError` else.

    ``heartbeat_ms`` and ``session_timeout_ms`` are what members of ``group.protocol=consumer`` are told.
    """

    def __init__(self, brokers: int = 1, *, heartbeat_ms: int = 300, session_timeout_ms: int = 6000) -> None:
        self._lock = threading.Lock()
        self._stderr = tempfile.TemporaryFile()
        # Its own session: an interrupt typed at the terminal is for the service, which still needs the
        # broker to commit and leave. The child ends when its stdin does, so it cannot outlive us.
        self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", "vectide.testing.broker", "--brokers", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        try:
            #: What clients put into ``bootstrap.servers``.
            self.bootstrap: str = self._answer()
        except BrokerError:
            self.kill()
            raise
        self.set_group_timing(heartbeat_ms=heartbeat_ms, session_timeout_ms=session_timeout_ms)

    def __enter__(self) -> BrokerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        return self._child.pid

    # --- topics ----------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic; one that is there already is left as it is."""
        self._call("create_topic", name, partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records; created again it has a new topic id."""
        self._call("delete_topic", name)

    def delete_records(self, name: str, partition: int, before: int) -> None:
        """Drop the records before offset ``before``, as retention does."""
        self._call("delete_records", name, partition, before)

    def set_topic_error(self, name: str, code: int) -> None:
        """Answer metadata requests for the topic with this error; 0 ends that."""
        self._call("set_topic_error", name, code)

    # --- faults ----------------------------------------------------------------------------------------

    def push_errors(self, api: Api, codes: Sequence[int]) -> None:
        """Answer the next requests of this type with these error codes, one each (0: no error).

        ``KafkaError._TRANSPORT`` drops the connection instead.
        """
        self._call("push_errors", int(api), list(codes))

    def clear_errors(self, api: Api) -> None:
        """Forget the pushed errors of this request type."""
        self._call("clear_errors", int(api))

    def set_down(self, broker: int = ALL_BROKERS) -> None:
        """Drop all connections and refuse new ones."""
        self._call("set_down", broker)

    def set_up(self, broker: int = ALL_BROKERS) -> None:
        """Accept connections again."""
        self._call("set_up", broker)

    def set_rtt(self, ms: int, broker: int = ALL_BROKERS) -> None:
        """Delay every answer by ``ms`` milliseconds."""
        self._call("set_rtt", broker, ms)

    def set_group_timing(self, *, heartbeat_ms: int, session_timeout_ms: int) -> None:
        """What members of ``group.protocol=consumer`` are told from their next heartbeat on."""
        self._call("set_group_timing", heartbeat_ms, session_timeout_ms)

    # --- end -------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the broker at once; what it held is lost."""
        self._child.kill()
        self.close()

    def close(self) -> None:
        """End the broker. May be called again."""
        with contextlib.suppress(OSError):
            self._pipe_in.close()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._pipe_out.close()
        self._stderr.close()

    # --- the pipe --------------------------------------------------------------------------------------

    @property
    def _pipe_in(self) -> Any:
        return self._child.stdin

    @property
    def _pipe_out(self) -> Any:
        return self._child.stdout

    def _call(self, command: str, *arguments: Any) -> None:
        line = json.dumps([command, *arguments]).encode() + b"\n"
        with self._lock:
            try:
                self._pipe_in.write(line)
                self._pipe_in.flush()
            except (OSError, ValueError) as error:
                raise self._gone() from error
            self._answer()

    def _answer(self) -> str:
        """Read one answer: ``{"ok": text}`` or ``{"error": text}``."""
        # One answer for each command, so nothing can lie in the reader's buffer while we wait.
        if not select.select([self._pipe_out], [], [], ANSWER_TIMEOUT_S)[0]:
            self._child.kill()
        line = self._pipe_out.readline()
        if not line:
            raise self._gone()
        answer = json.loads(line)
        if "error" in answer:
            raise BrokerError(answer["error"])
        return str(answer["ok"])

    def _gone(self) -> BrokerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_TIMEOUT_S)
        said = ""
        if not self._stderr.closed:
            self._stderr.seek(0)
            said = self._stderr.read()[-2000:].decode(errors="replace").strip()
        return BrokerError(f"the broker process is gone (exit code {self._child.poll()}): {said}")


# --- records --------------------------------------------------------------------------------------------


def produce(bootstrap: str, records: Iterable[Record]) -> None:
    """Write the records and wait until the broker has them.

    A negative partition leaves the choice to the key, a negative timestamp to the clock; offsets are ignored.
    """
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    limits = {"message.max.bytes": 64 * 2**20}
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0, **limits})
    for record in records:
        producer.produce(
            record.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            timestamp=max(0, record.timestamp_ms),
            headers=list(record.headers),
            on_delivery=delivered,
        )
        producer.poll(0)
    unsent = producer.flush(ANSWER_TIMEOUT_S)
    if unsent or failures:
        raise BrokerError(f"{unsent + len(failures)} records were not written: {failures[:3]}")


def read_topic(bootstrap: str, topic: str) -> list[Record]:
    """Every record of the topic up to where it ends now, partition by partition. No group is involved."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "vectide.testing.read",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    with contextlib.closing(consumer):
        known = consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        open_ends = set(known[topic].partitions) if topic in known else set()
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_ends])
        found: list[Record] = []
        while open_ends:
            message = consumer.poll(ANSWER_TIMEOUT_S)
            if message is None:
                raise BrokerError(f"{topic} could not be read to its end")
            error = message.error()
            if error is None:
                found.append(_record_of(message))
            elif error.name() == "_PARTITION_EOF":
                open_ends.discard(message.partition())
            else:
                raise BrokerError(str(error))
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _record_of(message: Message) -> Record:
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return Record(
        topic=str(message.topic()),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        key=message.key(),
        value=message.value(),
        headers=tuple(headers),
        timestamp_ms=message.timestamp()[1],
    )


# --- the child ------------------------------------------------------------------------------------------

_TEXT: Final = ctypes.c_char_p
_HANDLE: Final = ctypes.c_void_p
_I16, _I32, _I64 = ctypes.c_int16, ctypes.c_int32, ctypes.c_int64
_INT, _SIZE = ctypes.c_int, ctypes.c_size_t

#: Native functions: name -> (result, arguments). ``rd_kafka_resp_err_t`` is an int.
_SIGNATURES: Final[Mapping[str, tuple[Any, list[Any]]]] = {
    "rd_kafka_conf_new": (_HANDLE, []),
    "rd_kafka_new": (_HANDLE, [_INT, _HANDLE, _TEXT, _SIZE]),
    "rd_kafka_err2str": (_TEXT, [_INT]),
    "rd_kafka_mock_cluster_new": (_HANDLE, [_HANDLE, _INT]),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_HANDLE]),
    "rd_kafka_mock_set_controller_id": (None, [_HANDLE, _I32]),
    "rd_kafka_mock_topic_create": (_INT, [_HANDLE, _TEXT, _INT, _INT]),
    "rd_kafka_mock_topic_delete": (_INT, [_HANDLE, _TEXT]),
    "rd_kafka_mock_topic_set_error": (None, [_HANDLE, _TEXT, _INT]),
    "rd_kafka_mock_partition_delete_records": (_INT, [_HANDLE, _TEXT, _I32, _I64]),
    "rd_kafka_mock_push_request_errors_array": (None, [_HANDLE, _I16, _SIZE, ctypes.POINTER(_INT)]),
    "rd_kafka_mock_clear_request_errors": (None, [_HANDLE, _I16]),
    "rd_kafka_mock_broker_set_down": (_INT, [_HANDLE, _I32]),
    "rd_kafka_mock_broker_set_up": (_INT, [_HANDLE, _I32]),
    "rd_kafka_mock_broker_set_rtt": (_INT, [_HANDLE, _I32, _INT]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_HANDLE, _I32]),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, [_HANDLE, _INT]),
    "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, [_HANDLE, _INT]),
}


def _library() -> ctypes.CDLL:
    """librdkafka as the wheel brings it."""
    for file in metadata.files("confluent-kafka") or ():
        if file.name.startswith("librdkafka") and ".so" in file.name:
            return ctypes.CDLL(str(file.locate()))
    home = Path(str(metadata.distribution("confluent-kafka").locate_file("")))
    for path in [
        *home.glob("confluent_kafka.libs/librdkafka*"),
        *home.glob("confluent_kafka/.dylibs/librdkafka*"),
    ]:
        return ctypes.CDLL(str(path))
    raise BrokerError("the confluent-kafka package brings no librdkafka: install its binary wheel")


class _Cluster:
    """The native mock cluster. Its public methods are the commands of the pipe."""

    def __init__(self, brokers: int) -> None:
        self._native = _library()
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._native, name)
            function.restype, function.argtypes = result, arguments
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        conf = self._native.rd_kafka_conf_new()
        client = self._native.rd_kafka_new(_PRODUCER, conf, error, _ERROR_BYTES)
        if not client:
            raise BrokerError(error.value.decode(errors="replace"))
        self._handle = self._native.rd_kafka_mock_cluster_new(client, brokers)
        if not self._handle:
            raise BrokerError("the native cluster did not start")
        self._brokers = brokers
        # Without a controller that exists, describing topics times out.
        self._native.rd_kafka_mock_set_controller_id(self._handle, 1)
        self._native.rd_kafka_mock_group_initial_rebalance_delay_ms(self._handle, 0)

    @property
    def bootstrap(self) -> str:
        servers: bytes = self._native.rd_kafka_mock_cluster_bootstraps(self._handle)
        return servers.decode()

    def commands(self) -> Mapping[str, Callable[..., None]]:
        """Command name -> what performs it."""
        return {
            "create_topic": self._create_topic,
            "delete_topic": self._delete_topic,
            "delete_records": self._delete_records,
            "set_topic_error": self._set_topic_error,
            "push_errors": self._push_errors,
            "clear_errors": self._clear_errors,
            "set_down": self._set_down,
            "set_up": self._set_up,
            "set_rtt": self._set_rtt,
            "set_group_timing": self._set_group_timing,
        }

    def _create_topic(self, name: str, partitions: int) -> None:
        topic_already_exists = 36
        code = self._native.rd_kafka_mock_topic_create(self._handle, name.encode(), partitions, self._brokers)
        self._check(0 if code == topic_already_exists else code)

    def _delete_topic(self, name: str) -> None:
        self._check(self._native.rd_kafka_mock_topic_delete(self._handle, name.encode()))

    def _delete_records(self, name: str, partition: int, before: int) -> None:
        delete = self._native.rd_kafka_mock_partition_delete_records
        self._check(delete(self._handle, name.encode(), partition, before))

    def _set_topic_error(self, name: str, code: int) -> None:
        self._native.rd_kafka_mock_topic_set_error(self._handle, name.encode(), code)

    def _push_errors(self, api: int, codes: list[int]) -> None:
        array = (_INT * len(codes))(*codes)
        self._native.rd_kafka_mock_push_request_errors_array(self._handle, api, len(codes), array)

    def _clear_errors(self, api: int) -> None:
        self._native.rd_kafka_mock_clear_request_errors(self._handle, api)

    def _set_down(self, broker: int) -> None:
        self._check(self._native.rd_kafka_mock_broker_set_down(self._handle, broker))

    def _set_up(self, broker: int) -> None:
        self._check(self._native.rd_kafka_mock_broker_set_up(self._handle, broker))

    def _set_rtt(self, broker: int, ms: int) -> None:
        self._check(self._native.rd_kafka_mock_broker_set_rtt(self._handle, broker, ms))

    def _set_group_timing(self, heartbeat_ms: int, session_timeout_ms: int) -> None:
        self._native.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._handle, heartbeat_ms)
        self._native.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._handle, session_timeout_ms)

    def _check(self, code: int) -> None:
        if code:
            text: bytes = self._native.rd_kafka_err2str(code)
            raise BrokerError(text.decode(errors="replace"))


def _serve(brokers: int) -> None:
    """Answer commands until stdin ends, which it does when the parent closes it or dies."""
    cluster = _Cluster(brokers)
    commands = cluster.commands()
    _say({"ok": cluster.bootstrap})
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            commands[command](*arguments)
        except BrokerError as error:
            _say({"error": f"{command}: {error}"})
        else:
            _say({"ok": ""})


def _say(answer: Mapping[str, str]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run a broker on the pipe: the first line out has its address, each line in is a command."""
    parser = argparse.ArgumentParser(prog="python -m vectide.testing.broker", description=main.__doc__)
    parser.add_argument("--brokers", type=int, default=1, help="how many brokers the cluster has")
    _serve(parser.parse_args().brokers)


if __name__ == "__main__":
    main()
