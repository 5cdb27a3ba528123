"""The dead-letter topic: nothing counts as sent before the broker said so, and what is there can be read."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import KafkaError

from vectide.core.failures import Failure, Kind
from vectide.core.model import Record
from vectide.deadletters import (
    MAX_DETAIL_BYTES,
    MAX_HEADER_BYTES,
    MAX_POINTER_KEY_BYTES,
    PREFIX,
    REFUSALS,
    KafkaDeadLetters,
    Refusal,
    refusal_of,
    refuse_loop,
)
from vectide.ports import AdapterError, DeadLetters, Deadline, Letter, StartupRefused
from vectide.testing.broker import Api, BrokerProcess, read_topic

_names = itertools.count()


class Time:
    """The real monotonic clock, and a wall clock that stands still."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return 1_700_000_000_123


def soon(seconds: float = 10) -> Deadline:
    return Deadline.after(Time(), seconds)


def letter(**fields: object) -> Letter:
    record = Record("shop.products", 3, 42, b"\x00key", b"\xfevalue", (("h", b"\xff"),), 1_600_000_000_000)
    given: dict[str, object] = {
        "record": record,
        "cause": "decode",
        "stage": "decode",
        "detail": "not JSON at byte 0",
        "table": "products",
        "attempts": 2,
        "log": "AbC",
    }
    return Letter(**(given | fields))  # type: ignore[arg-type]


def sized(key: bytes | None, value: bytes | None) -> Letter:
    return letter(record=Record("t", 0, 1, key, value))


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess() as running:
        yield running


@pytest.fixture
def topic(broker: BrokerProcess) -> str:
    name = f"dlq{next(_names)}"
    broker.create_topic(name)
    return name


def letters_to(broker: BrokerProcess, topic: str, **extra: str) -> KafkaDeadLetters:
    return KafkaDeadLetters(
        bootstrap_servers=broker.bootstrap,
        topic=topic,
        extra={"reconnect.backoff.max.ms": "100", **extra},
        clock=Time(),
        version="1.2.3",
    )


@pytest.fixture
def dead_letters(broker: BrokerProcess, topic: str) -> Iterator[KafkaDeadLetters]:
    adapter = letters_to(broker, topic)
    yield adapter
    broker.clear_errors(Api.PRODUCE)
    adapter.close()


def added(record: Record) -> dict[str, str]:
    """The headers that we added, without their prefix."""
    return {
        name.removeprefix(PREFIX): (value or b"").decode()
        for name, value in record.headers
        if name.startswith(PREFIX)
    }


# --- content --------------------------------------------------------------------------------------------


def test_a_letter_keeps_the_record_byte_for_byte_and_says_why(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    """Case 155."""
    port: DeadLetters = dead_letters
    port.send([letter()], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    original = letter().record
    assert (stored.key, stored.value, stored.timestamp_ms) == (
        original.key,
        original.value,
        original.timestamp_ms,
    )
    assert stored.headers[:1] == original.headers
    assert added(stored) == {
        "cause": "decode",
        "stage": "decode",
        "detail": "not JSON at byte 0",
        "topic": "shop.products",
        "partition": "3",
        "offset": "42",
        "timestamp": "1600000000000",
        "log": "AbC",
        "table": "products",
        "attempts": "2",
        "version": "1.2.3",
        "failed_at": "2023-11-14T22:13:20.123+00:00",
    }


def test_nulls_stay_null(broker: BrokerProcess, dead_letters: KafkaDeadLetters) -> None:
    dead_letters.send([sized(None, None), sized(b"", b"")], soon())
    tombstone, empty = read_topic(broker.bootstrap, dead_letters.topic)
    assert (tombstone.key, tombstone.value) == (None, None)
    assert (empty.key, empty.value) == (b"", b"")


def test_a_header_of_the_same_name_is_kept_and_ours_is_the_last(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    record = Record("t", 0, 1, b"k", b"v", ((PREFIX + "cause", b"earlier"),))
    dead_letters.send([letter(record=record)], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    assert [value for name, value in stored.headers if name == PREFIX + "cause"] == [b"earlier", b"decode"]


def test_added_headers_are_bounded_single_lines(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    """Case 163."""
    long = "line one\nline two \x00" + "é" * 5000 + "\ud800"
    dead_letters.send([letter(detail=long, table="t" * 5000)], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    headers = added(stored)
    assert len(headers["detail"].encode()) in range(MAX_DETAIL_BYTES - 3, MAX_DETAIL_BYTES + 1)
    assert headers["detail"].startswith("line one line two  é")
    assert len(headers["table"]) == MAX_HEADER_BYTES


def test_a_record_of_the_largest_size_still_fits_with_our_headers(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    value = b"x" * 1_500_000
    dead_letters.send([sized(b"k", value)], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    assert stored.value == value


@pytest.mark.parametrize(
    ("key", "kept"),
    [(b"k", b"k"), (None, None), (b"k" * (MAX_POINTER_KEY_BYTES + 1), None)],
    ids=["key", "no key", "long key"],
)
def test_what_the_topic_finds_too_large_becomes_a_pointer(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters, key: bytes | None, kept: bytes | None
) -> None:
    broker.push_errors(Api.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE])
    dead_letters.send([sized(key, b"v" * 1000)], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    assert (stored.key, stored.value) == (kept, b"")  # no tombstone
    headers = added(stored)
    assert headers["truncated"] == "true"
    assert (headers["key_bytes"], headers["value_bytes"]) == (str(len(key or b"")), "1000")
    assert (headers["topic"], headers["partition"], headers["offset"]) == ("t", "0", "1")


def test_what_is_too_large_for_our_own_client_becomes_a_pointer(broker: BrokerProcess, topic: str) -> None:
    adapter = letters_to(broker, topic, **{"message.max.bytes": "2000"})
    adapter.send([sized(b"k", b"v" * 3000), sized(b"small", b"v")], soon())
    stored = {record.key: record for record in read_topic(broker.bootstrap, topic)}
    assert added(stored[b"k"])["truncated"] == "true"
    assert "truncated" not in added(stored[b"small"])
    adapter.close()


def test_a_pointer_that_is_too_large_itself_goes_without_its_key(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    broker.push_errors(Api.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 2)
    dead_letters.send([sized(b"k" * 10_000, b"v" * 1000)], soon())
    (stored,) = read_topic(broker.bootstrap, dead_letters.topic)
    headers = added(stored)
    assert (stored.key, stored.value, headers["key_bytes"]) == (None, b"", "10000")
    assert (headers["topic"], headers["partition"], headers["offset"]) == ("t", "0", "1")


def test_a_topic_too_small_even_for_pointers_is_for_an_operator(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    broker.push_errors(Api.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 3)
    failure = failing(dead_letters, [letter()])
    assert (failure.kind, failure.cause) == (Kind.OPERATOR, "msg_size_too_large")


# --- confirmation ---------------------------------------------------------------------------------------


def failing(dead_letters: KafkaDeadLetters, letters: Sequence[Letter], seconds: float = 10) -> Failure:
    with pytest.raises(AdapterError) as caught:
        dead_letters.send(letters, soon(seconds))
    return caught.value.failure


def test_nothing_to_send_is_sent_at_once(dead_letters: KafkaDeadLetters) -> None:
    dead_letters.send([], soon(0.01))


def test_every_letter_of_a_large_batch_is_there_when_send_returns(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    dead_letters.send([sized(str(n).encode(), b"v") for n in range(500)], soon(30))
    assert len(read_topic(broker.bootstrap, dead_letters.topic)) == 500


def test_one_refused_letter_fails_the_call_and_a_repeat_loses_none(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    """Case 157: duplicates are allowed, loss is not."""
    letters = [sized(str(n).encode(), b"v") for n in range(10)]
    broker.push_errors(Api.PRODUCE, [KafkaError.NO_ERROR] * 4 + [KafkaError.INVALID_RECORD])
    failure = failing(dead_letters, letters)
    assert (failure.kind, failure.cause) == (Kind.OPERATOR, "invalid_record")
    dead_letters.send(letters, soon())
    keys = {record.key for record in read_topic(broker.bootstrap, dead_letters.topic)}
    assert keys == {sent.record.key for sent in letters}


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    ],
)
def test_what_an_operator_must_mend_says_so_and_works_once_mended(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters, code: int
) -> None:
    broker.push_errors(Api.PRODUCE, [code])
    failure = failing(dead_letters, [letter()])
    assert failure.kind is Kind.OPERATOR
    assert dead_letters.topic in failure.detail
    dead_letters.send([letter()], soon())
    assert len(read_topic(broker.bootstrap, dead_letters.topic)) == 1


def test_passing_troubles_of_the_broker_are_survived_within_the_call(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    broker.push_errors(Api.PRODUCE, [KafkaError.NOT_ENOUGH_REPLICAS] * 2)
    dead_letters.send([letter()], soon())
    assert len(read_topic(broker.bootstrap, dead_letters.topic)) == 1


def test_a_topic_that_is_deleted_at_run_time_is_for_an_operator(broker: BrokerProcess, topic: str) -> None:
    adapter = letters_to(broker, topic, **{"message.timeout.ms": "1000"})
    adapter.send([letter()], soon())
    broker.push_errors(Api.PRODUCE, [KafkaError.UNKNOWN_TOPIC_OR_PART] * 100)
    broker.set_topic_error(topic, KafkaError.UNKNOWN_TOPIC_OR_PART)
    failure = failing(adapter, [letter()])
    assert (failure.kind, failure.cause) == (Kind.OPERATOR, "topic_unusable")
    assert "does not exist" in failure.detail
    broker.clear_errors(Api.PRODUCE)
    broker.set_topic_error(topic, KafkaError.NO_ERROR)
    adapter.send([letter()], soon())
    assert len(read_topic(broker.bootstrap, topic)) == 2
    adapter.close()


def test_without_an_answer_at_the_deadline_nothing_counts_as_sent() -> None:
    with BrokerProcess() as broken:
        broken.create_topic("dlq")
        adapter = letters_to(broken, "dlq")
        adapter.send([letter()], soon())
        broken.set_down()
        failure = failing(adapter, [letter(), letter()], seconds=0.3)
        assert (failure.kind, failure.cause) == (Kind.TRANSIENT, "timed_out")
        broken.set_up()
        adapter.send([letter()], soon())
        assert len(read_topic(broken.bootstrap, "dlq")) >= 2
        adapter.close()


def test_several_threads_may_send_at_once(broker: BrokerProcess, dead_letters: KafkaDeadLetters) -> None:
    failures: list[Exception] = []

    def send(name: str) -> None:
        try:
            for n in range(10):
                dead_letters.send([sized(f"{name}-{n}".encode(), b"v")], soon(30))
        except AdapterError as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    keys = [record.key for record in read_topic(broker.bootstrap, dead_letters.topic)]
    assert len(keys) == len(set(keys)) == 40


def test_a_closed_adapter_may_be_closed_again_and_used_again(
    broker: BrokerProcess, dead_letters: KafkaDeadLetters
) -> None:
    dead_letters.close()
    dead_letters.close()
    dead_letters.send([letter()], soon())
    assert len(read_topic(broker.bootstrap, dead_letters.topic)) == 1


def test_properties_for_consumers_do_no_harm_and_confirmation_cannot_be_wished_away(
    broker: BrokerProcess, topic: str
) -> None:
    extra = {"group.protocol": "consumer", "auto.offset.reset": "earliest", "acks": "0", "group.id": "g"}
    adapter = letters_to(broker, topic, **extra)
    broker.push_errors(Api.PRODUCE, [KafkaError.INVALID_RECORD])
    assert failing(adapter, [letter()]).cause == "invalid_record"
    adapter.close()


def test_properties_that_cannot_be_used_are_refused(broker: BrokerProcess) -> None:
    with pytest.raises(ValueError, match=r"no\.such"):
        letters_to(broker, "dlq", **{"no.such": "1"})


# --- start-up -------------------------------------------------------------------------------------------


def test_a_topic_that_is_there_passes(broker: BrokerProcess, dead_letters: KafkaDeadLetters) -> None:
    dead_letters.check(soon())
    assert read_topic(broker.bootstrap, dead_letters.topic) == []


def test_a_missing_topic_is_refused_by_name_with_the_remedy(broker: BrokerProcess) -> None:
    """Case 156."""
    adapter = letters_to(broker, "dlq.missing")
    with pytest.raises(StartupRefused, match=r"dlq\.missing does not exist: create it") as caught:
        adapter.check(soon())
    assert "\n" not in str(caught.value)
    with pytest.raises(StartupRefused):
        adapter.check(soon())  # the question has not created it
    adapter.close()


def test_a_topic_that_we_may_not_see_is_refused(broker: BrokerProcess, topic: str) -> None:
    broker.set_topic_error(topic, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    adapter = letters_to(broker, topic)
    with pytest.raises(StartupRefused, match=f"{topic} may not be written: grant DESCRIBE and WRITE"):
        adapter.check(soon())
    adapter.close()


def test_refused_credentials_are_refused_at_start_and_told_at_run_time(
    broker: BrokerProcess, topic: str
) -> None:
    sasl = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u"}
    adapter = letters_to(broker, topic, **sasl, **{"sasl.password": "hidden"})
    with pytest.raises(StartupRefused, match="cannot be used") as caught:
        adapter.check(soon(1))
    assert "hidden" not in str(caught.value)
    assert failing(adapter, [letter()], seconds=1).kind is Kind.OPERATOR
    adapter.close()


def test_a_cluster_that_cannot_be_reached_is_waited_for() -> None:
    adapter = KafkaDeadLetters(
        bootstrap_servers="127.0.0.1:1", topic="dlq", extra={}, clock=Time(), version="1"
    )
    with pytest.raises(AdapterError) as caught:
        adapter.check(soon(0.3))
    assert caught.value.failure.kind is Kind.TRANSIENT
    adapter.close()


@pytest.mark.parametrize("subscribed", [["a", "vectide.dlq"], ["^vectide"], ["a", "^.*dlq$"]])
def test_a_dead_letter_topic_that_would_be_consumed_is_refused(subscribed: list[str]) -> None:
    """Case 161."""
    with pytest.raises(ValueError, match=r"vectide\.dlq would be consumed"):
        refuse_loop("vectide.dlq", subscribed)


@pytest.mark.parametrize("subscribed", [[], ["vectide"], ["vectide.dlq2"], ["^dlq"], [r"^vectide\.[^d]"]])
def test_a_dead_letter_topic_beside_the_subscription_is_fine(subscribed: list[str]) -> None:
    refuse_loop("vectide.dlq", subscribed)


# --- codes ----------------------------------------------------------------------------------------------

#: Codes that no producer of ours can meet: groups, fetching, administration, share groups, streams,
#: (de)serialisers, events and values that are internal to the client.
NOT_OURS = frozenset(
    "NO_ERROR COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR DUPLICATE_RESOURCE "
    "DUPLICATE_VOTER ELECTION_NOT_NEEDED FEATURE_UPDATE_FAILED FENCED_INSTANCE_ID FENCED_MEMBER_EPOCH "
    "FENCED_STATE_EPOCH FETCH_SESSION_ID_NOT_FOUND GROUP_AUTHORIZATION_FAILED GROUP_ID_NOT_FOUND "
    "GROUP_MAX_SIZE_REACHED GROUP_SUBSCRIBED_TO_TOPIC ILLEGAL_GENERATION INCONSISTENT_GROUP_PROTOCOL "
    "INCONSISTENT_VOTER_SET INVALID_COMMIT_OFFSET_SIZE INVALID_FETCH_SESSION_EPOCH INVALID_GROUP_ID "
    "INVALID_PARTITIONS INVALID_RECORD_STATE INVALID_REGISTRATION INVALID_REGULAR_EXPRESSION "
    "INVALID_REPLICATION_FACTOR INVALID_REPLICA_ASSIGNMENT INVALID_SESSION_TIMEOUT "
    "INVALID_SHARE_SESSION_EPOCH INVALID_UPDATE_VERSION INVALID_VOTER_KEY MEMBER_ID_REQUIRED "
    "MISMATCHED_ENDPOINT_TYPE NON_EMPTY_GROUP NO_REASSIGNMENT_IN_PROGRESS OFFSET_METADATA_TOO_LARGE "
    "OFFSET_NOT_AVAILABLE OFFSET_OUT_OF_RANGE OPERATION_NOT_ATTEMPTED REBALANCE_IN_PROGRESS "
    "RESOURCE_NOT_FOUND SHARE_SESSION_LIMIT_REACHED SHARE_SESSION_NOT_FOUND STALE_MEMBER_EPOCH "
    "STREAMS_INVALID_TOPOLOGY STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED TELEMETRY_TOO_LARGE "
    "TOPIC_ALREADY_EXISTS TOPIC_DELETION_DISABLED UNKNOWN_CONTROLLER_ID UNKNOWN_MEMBER_ID "
    "UNKNOWN_SUBSCRIPTION_ID UNRELEASED_INSTANCE_ID UNSTABLE_OFFSET_COMMIT UNSUPPORTED_ASSIGNOR "
    "UNSUPPORTED_ENDPOINT_TYPE VOTER_NOT_FOUND _APPLICATION _ASSIGNMENT_LOST _ASSIGN_PARTITIONS "
    "_AUTO_OFFSET_RESET _CONFLICT _EXISTING_SUBSCRIPTION _INVALID_DIFFERENT_RECORD _KEY_DESERIALIZATION "
    "_KEY_SERIALIZATION _LOG_TRUNCATION _MAX_POLL_EXCEEDED _NOENT _NOOP _NO_OFFSET _PARTITION_EOF "
    "_READ_ONLY _REVOKE_PARTITIONS _UNKNOWN_GROUP _VALUE_DESERIALIZATION _VALUE_SERIALIZATION".split()
)


def test_every_code_that_a_producer_can_meet_has_a_meaning() -> None:
    names = {name for name in dir(KafkaError) if isinstance(getattr(KafkaError, name), int)}
    assert names == set(REFUSALS) | NOT_OURS
    assert NOT_OURS.isdisjoint(REFUSALS)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), Refusal.TOO_LARGE),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), Refusal.OPERATOR),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER), Refusal.PRODUCER),
        (KafkaError(KafkaError.NOT_ENOUGH_REPLICAS), Refusal.TRANSIENT),
        (KafkaError(KafkaError.GROUP_ID_NOT_FOUND), Refusal.TRANSIENT),
        (KafkaError(KafkaError.REQUEST_TIMED_OUT, "x", fatal=True), Refusal.PRODUCER),
    ],
)
def test_codes_mean_what_they_mean(error: KafkaError, refusal: Refusal) -> None:
    assert refusal_of(error) is refusal
