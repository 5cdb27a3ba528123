"""The Kafka source against a broker: order, ownership, commits, ends, troubles. Invariants 1 and 4."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from vectide.core import signals
from vectide.core.failures import Kind
from vectide.core.model import Record
from vectide.ports import AdapterError, Deadline, Partition, Source, SourceFatal, Watchable
from vectide.sources.kafka import KafkaSource
from vectide.sources.kafka_admin import matches
from vectide.sources.kafka_config import FIXED, consumer_config
from vectide.sources.kafka_errors import (
    MEANINGS,
    NOT_OURS,
    VERDICTS,
    About,
    Verdict,
    about,
    verdict_of,
)
from vectide.sources.kafka_health import KafkaHealth
from vectide.sources.kafka_holdings import Holdings
from vectide.testing.broker import Api, BrokerProcess, produce, read_topic

QUICK = {
    "fetch.wait.max.ms": "10",
    "reconnect.backoff.max.ms": "100",
    "topic.metadata.refresh.interval.ms": "200",
}
#: Both group protocols. In the classic one, this broker lets a group form again only after nearly a session.
NEW = {"group.protocol": "consumer"}
CLASSIC = {"group.protocol": "classic", "session.timeout.ms": "2000", "heartbeat.interval.ms": "300"}
TIMEOUT_S = 20.0

_names = itertools.count()


class Time:
    """The real clock: the client below us has no other."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return int(time.time() * 1000)


class Counts:
    """Telemetry that remembers its counters."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, ...]] = Counter()

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        metric = signals.CATALOGUE[name]
        assert set(labels) == set(metric.labels)
        self.seen[(name, *labels.values())] += int(amount)

    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...

    def observe(self, name: str, value: float, /, **labels: str) -> None: ...


class Lines:
    """Log that remembers its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.events.append(event)

    warning = error = info


@dataclass
class Member:
    """A source and the listener that a job would be: it keeps what it hears and checks what it gets."""

    source: KafkaSource
    counts: Counts
    lines: Lines
    logs: dict[Partition, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    ends: dict[Partition, int] = field(default_factory=dict)
    read_when_ended: dict[Partition, int] = field(default_factory=dict)
    heard: list[tuple[str, Partition]] = field(default_factory=list)
    when_assigned: Callable[[list[Partition]], None] = field(default=lambda _partitions: None)
    when_revoked: Callable[[list[Partition]], None] = field(default=lambda _partitions: None)

    def on_assigned(self, partitions: Mapping[Partition, str]) -> None:
        self.logs.update(partitions)
        self.heard += [("assigned", partition) for partition in partitions]
        self.when_assigned(list(partitions))

    def on_revoked(self, partitions: Sequence[Partition]) -> None:
        self.when_revoked(list(partitions))
        self._gone("revoked", partitions)

    def on_lost(self, partitions: Sequence[Partition]) -> None:
        self._gone("lost", partitions)

    def _gone(self, how: str, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            del self.logs[partition]
            self.ends.pop(partition, None)
        self.heard += [(how, partition) for partition in partitions]

    def on_end(self, partition: Partition, offset: int) -> None:
        assert partition in self.logs
        assert offset >= self.records_end(partition)
        self.ends[partition] = offset
        self.read_when_ended[partition] = len(self.of(partition))

    def of(self, partition: Partition) -> list[Record]:
        return [record for record in self.records if (record.topic, record.partition) == partition]

    def records_end(self, partition: Partition) -> int:
        """Next offset after what was read of the partition; 0 when nothing was."""
        return max((record.offset + 1 for record in self.of(partition)), default=0)

    def step(self, timeout_s: float = 0.05) -> Sequence[Record]:
        got = self.source.poll(100, timeout_s)
        assert {(record.topic, record.partition) for record in got} <= set(self.logs)
        self.records += got
        return got

    def until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not in time: {self.heard} {self.source.problems}"
            self.step()

    def offsets(self, partition: Partition) -> list[int]:
        return [record.offset for record in self.of(partition)]


@dataclass
class Stage:
    """One topic and one group on the shared broker."""

    broker: BrokerProcess
    topic: str
    group: str
    stack: ExitStack

    def member(self, *topics: str, extra: Mapping[str, str] = NEW, start: bool = True, **more: Any) -> Member:
        counts, lines = Counts(), Lines()
        source = KafkaSource(
            bootstrap_servers=self.broker.bootstrap,
            group_id=self.group,
            topics=topics or [self.topic],
            extra={**QUICK, **extra},
            clock=Time(),
            telemetry=counts,
            log=lines,
            **more,
        )
        self.stack.callback(lambda: source.close(soon(5)))
        member = Member(source, counts, lines)
        if start:
            source.start(member)
        return member

    def write(self, *partitions: int, topic: str = "") -> None:
        """One record into each of these, so that each is a batch of its own."""
        for partition in partitions:
            produce(self.broker.bootstrap, [Record(topic or self.topic, partition, 0, b"k", b"v")])

    def committed(self, partition: int = 0, topic: str = "") -> int:
        """What the group has committed, asked from outside; negative when nothing."""
        settings: dict[str, Any] = {"bootstrap.servers": self.broker.bootstrap, "group.id": self.group}
        with closing(Consumer(settings | {"log_level": 0})) as consumer:
            return consumer.committed([TopicPartition(topic or self.topic, partition)], timeout=10)[0].offset

    def commit(self, offset: int) -> None:
        """Commit an offset of partition 0 from outside, for a group without members."""
        settings: dict[str, Any] = {"bootstrap.servers": self.broker.bootstrap, "group.id": self.group}
        with closing(Consumer(settings | {"log_level": 0})) as consumer:
            consumer.commit(offsets=[TopicPartition(self.topic, 0, offset)], asynchronous=False)


def coded(name: str) -> KafkaError:
    return KafkaError(getattr(KafkaError, name))


def soon(seconds: float) -> Deadline:
    return Deadline.after(Time(), seconds)


@pytest.fixture(scope="module")
def shared_broker() -> Iterator[BrokerProcess]:
    with BrokerProcess() as running:
        yield running


@pytest.fixture
def stage(shared_broker: BrokerProcess) -> Iterator[Stage]:
    number = next(_names)
    with ExitStack() as stack:
        topic = f"topic{number}"
        shared_broker.create_topic(topic, 2)
        yield Stage(shared_broker, topic, f"group{number}", stack)


@pytest.fixture
def own_stage() -> Iterator[Stage]:
    """With a broker of its own, for what would disturb others."""
    with BrokerProcess() as broker, ExitStack() as stack:
        broker.create_topic("topic", 2)
        yield Stage(broker, "topic", "group", stack)


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [NEW, CLASSIC], ids=["new", "classic"])
def test_records_arrive_in_order_and_unchanged(stage: Stage, protocol: Mapping[str, str]) -> None:
    """Case 119: a new group starts at the beginning."""
    headers = (("h", b"\xff"), ("n", None))
    produce(
        stage.broker.bootstrap,
        [
            Record(stage.topic, 0, 0, b"\x00", b"\xfe", headers, 1_700_000_000_000),
            Record(stage.topic, 1, 0, None, None),
        ],
    )
    stage.write(0, 0)
    member = stage.member(extra=protocol)
    member.until(lambda: len(member.records) == 4)
    assert member.offsets((stage.topic, 0)) == [0, 1, 2]
    first, (tombstone,) = member.of((stage.topic, 0))[0], member.of((stage.topic, 1))
    assert (first.key, first.value, first.headers) == (b"\x00", b"\xfe", headers)
    assert first.timestamp_ms == 1_700_000_000_000
    assert (tombstone.key, tombstone.value) == (None, None)


def test_the_source_honours_its_ports(stage: Stage) -> None:
    source: Source = stage.member(start=False).source
    assert isinstance(source, Watchable)


def test_a_poll_returns_no_more_than_it_was_asked_for(stage: Stage) -> None:
    produce(stage.broker.bootstrap, [Record(stage.topic, 0, 0, b"k", b"v")] * 5)
    member = stage.member()
    member.until(lambda: bool(member.records))
    member.source.rewind((stage.topic, 0), 0)
    sizes: list[int] = []
    while sum(sizes) < 5:
        sizes.append(len(member.source.poll(2, 0.1)))
    assert max(sizes) == 2


def test_an_end_is_told_after_the_records_before_it_were_returned(stage: Stage) -> None:
    stage.write(0, 0, 0)
    member = stage.member()
    # The client reads ahead meanwhile, so that records and end are met by one poll.
    member.when_assigned = lambda _partitions: time.sleep(0.3)
    member.until(lambda: member.ends == {(stage.topic, 0): 3, (stage.topic, 1): 0})
    assert member.read_when_ended[stage.topic, 0] == 3
    stage.write(0)
    member.until(lambda: member.ends[stage.topic, 0] == 4)
    assert member.read_when_ended[stage.topic, 0] == 4


def test_a_pattern_subscribes_to_what_it_matches(stage: Stage) -> None:
    other = f"{stage.topic}.more"
    stage.broker.create_topic(other)
    stage.write(0)
    stage.write(0, topic=other)
    member = stage.member(rf"^{stage.topic}(\..*)?$", extra=CLASSIC)
    member.until(lambda: {record.topic for record in member.records} == {stage.topic, other})
    assert member.source.topics_matching(soon(5)) == [stage.topic, other]


def test_a_new_topic_that_the_pattern_matches_joins_in(stage: Stage) -> None:
    late = f"{stage.topic}.late"
    member = stage.member(rf"^{stage.topic}", extra=CLASSIC)
    member.until(lambda: bool(member.logs))
    stage.broker.create_topic(late)
    stage.write(0, topic=late)
    member.until(lambda: bool(member.of((late, 0))))


def test_a_listener_that_fails_is_heard_of(stage: Stage) -> None:
    def fail(_partitions: list[Partition]) -> None:
        raise LookupError("a bug")

    member = stage.member()
    member.when_assigned = fail
    with pytest.raises(LookupError, match="a bug"):
        member.until(lambda: False)


# --- pausing and rewinding ------------------------------------------------------------------------------


def test_a_paused_partition_is_silent_and_stays_ours(stage: Stage) -> None:
    stage.write(0, 1)
    member = stage.member()
    member.until(lambda: len(member.ends) == 2)
    member.source.pause([(stage.topic, 0), ("not ours", 0)])
    stage.write(0, 0, 1, 1)
    member.until(lambda: member.ends[stage.topic, 1] == 3)
    assert member.offsets((stage.topic, 0)) == [0]
    member.source.resume([(stage.topic, 0), ("not ours", 0)])
    member.until(lambda: member.offsets((stage.topic, 0)) == [0, 1, 2])
    assert {how for how, _partition in member.heard} == {"assigned"}


def test_the_listener_may_pause_what_it_is_given(stage: Stage) -> None:
    stage.write(0, 1)
    member = stage.member()
    member.when_assigned = lambda _partitions: member.source.pause([(stage.topic, 0)])
    member.until(lambda: (stage.topic, 1) in member.ends)
    assert not member.of((stage.topic, 0))
    member.source.resume([(stage.topic, 0)])
    member.until(lambda: bool(member.of((stage.topic, 0))))


def test_a_pause_does_not_outlive_its_assignment(stage: Stage) -> None:
    first = stage.member()
    first.until(lambda: len(first.logs) == 2)
    first.source.pause(list(first.logs))
    second = stage.member()

    def both() -> bool:
        second.step()
        return len(first.logs) == len(second.logs) == 1

    first.until(both)
    second.source.close(soon(5))
    first.until(lambda: len(first.logs) == 2)
    (regained,) = [partition for how, partition in first.heard[2:] if how == "assigned"]
    stage.write(regained[1])
    first.until(lambda: bool(first.of(regained)))


def test_a_rewound_partition_is_read_again(stage: Stage) -> None:
    stage.write(0, 0, 0)
    member = stage.member()
    partition = (stage.topic, 0)
    member.until(lambda: len(member.records) == 3)
    member.source.rewind(partition, 1)
    member.until(lambda: member.offsets(partition) == [0, 1, 2, 1, 2])
    member.source.rewind(partition, None)
    member.until(lambda: member.offsets(partition)[5:] == [1, 2])


def test_a_partition_without_position_is_rewound_to_where_reading_began(stage: Stage) -> None:
    stage.write(0, 0, 0)
    stage.broker.delete_records(stage.topic, 0, before=1)
    member = stage.member()
    member.until(lambda: len(member.records) == 2)
    member.source.rewind((stage.topic, 0), None)
    member.until(lambda: member.offsets((stage.topic, 0)) == [1, 2, 1, 2])
    assert member.counts.seen[signals.SOURCE_ERRORS, "records_lost"] == 0


def test_a_rewind_goes_to_the_last_position_given_to_commit(stage: Stage) -> None:
    stage.write(0, 0, 0)
    member = stage.member()
    partition = (stage.topic, 0)
    member.until(lambda: len(member.records) == 3)
    member.source.commit({partition: 2}, wait=False)
    member.source.pause([partition])
    member.source.rewind(partition, None)
    member.step()
    member.source.resume([partition])
    member.until(lambda: member.offsets(partition) == [0, 1, 2, 2])


def test_a_rewind_inside_the_assignment_works(stage: Stage) -> None:
    stage.write(0, 0, 0)
    member = stage.member()
    member.when_assigned = lambda _partitions: member.source.rewind((stage.topic, 0), 2)
    member.until(lambda: (stage.topic, 0) in member.ends)
    assert member.offsets((stage.topic, 0)) == [2]


def test_what_was_read_of_a_partition_that_goes_is_not_returned() -> None:
    held = Holdings()
    for partition in [("t", 0), ("t", 1)]:
        held.take(partition, "log", None)
        held.read(Record("t", partition[1], 7, None, None))
        held.reached(partition, 8)
    held.forget([("t", 0)])
    assert [record.partition for record in held.hand_over()] == [1]
    assert held.due_ends() == {("t", 1): 8}


def test_the_end_of_a_paused_partition_waits_and_a_rewind_takes_it_back() -> None:
    held = Holdings()
    held.take(("t", 0), "log", None)
    held.reached(("t", 0), 8)
    held.paused.add(("t", 0))
    assert held.due_ends() == {}
    held.rewind(("t", 0), 3)
    held.paused.clear()
    assert held.due_ends() == {}
    held.reached(("t", 0), 8)
    assert held.due_ends() == {("t", 0): 8}
    assert held.due_ends() == {}


# --- committing -----------------------------------------------------------------------------------------


@pytest.fixture
def reader(stage: Stage) -> Member:
    """A member that has read three records of partition 0."""
    stage.write(0, 0, 0)
    member = stage.member(commit_patience_s=1.0)
    member.until(lambda: len(member.records) == 3)
    return member


def test_a_commit_that_is_waited_for_has_landed(stage: Stage, reader: Member) -> None:
    reader.source.commit({(stage.topic, 0): 2}, wait=True)
    assert stage.committed() == 2
    assert reader.counts.seen[signals.COMMITS, "ok"] == 1


def test_a_commit_that_is_not_waited_for_lands_soon(stage: Stage, reader: Member) -> None:
    reader.source.commit({(stage.topic, 0): 2}, wait=False)
    reader.until(lambda: reader.counts.seen[signals.COMMITS, "ok"] == 1)
    assert stage.committed() == 2


def test_a_position_that_goes_back_is_passed_over(stage: Stage, reader: Member) -> None:
    reader.source.commit({(stage.topic, 0): 3}, wait=True)
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    assert stage.committed() == 3


def test_a_position_that_goes_back_does_not_replace_one_that_is_still_to_be_committed(
    stage: Stage, reader: Member
) -> None:
    stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.GROUP_AUTHORIZATION_FAILED])
    reader.source.commit({(stage.topic, 0): 3}, wait=False)
    reader.until(lambda: reader.counts.seen[signals.COMMITS, "failed"] == 1)
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    assert stage.committed() == 3


def test_nothing_to_commit_is_no_failure(stage: Stage, reader: Member) -> None:
    reader.source.commit({}, wait=True)
    reader.source.commit({}, wait=False)
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    assert reader.counts.seen[signals.COMMITS, "failed"] == 0


def test_a_partition_of_somebody_else_is_never_committed(stage: Stage, reader: Member) -> None:
    other = f"{stage.topic}.other"
    stage.broker.create_topic(other)
    stage.write(0, topic=other)
    reader.source.commit({(other, 0): 1, (stage.topic, 0): 1}, wait=True)
    assert stage.committed(topic=other) < 0
    assert stage.committed() == 1


def test_a_restart_goes_on_at_the_committed_offset(stage: Stage, reader: Member) -> None:
    reader.source.commit({(stage.topic, 0): 2}, wait=True)
    reader.source.close(soon(5))
    successor = stage.member()
    successor.until(lambda: (stage.topic, 0) in successor.ends)
    assert successor.offsets((stage.topic, 0)) == [2]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.REBALANCE_IN_PROGRESS,
    ],
)
def test_a_passing_trouble_only_delays_a_commit(stage: Stage, code: int) -> None:
    """Cases 101 and 103."""
    stage.write(0)
    member = stage.member(commit_patience_s=15.0)
    member.until(lambda: len(member.records) == 1)
    stage.broker.push_errors(Api.OFFSET_COMMIT, [code] * 4)
    member.source.commit({(stage.topic, 0): 1}, wait=True)
    stage.broker.clear_errors(Api.OFFSET_COMMIT)
    assert stage.committed() == 1


def test_a_commit_that_is_refused_for_longer_than_our_patience_says_so(stage: Stage, reader: Member) -> None:
    stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.REBALANCE_IN_PROGRESS] * 1000)
    with pytest.raises(AdapterError) as caught:
        reader.source.commit({(stage.topic, 0): 1}, wait=True)
    stage.broker.clear_errors(Api.OFFSET_COMMIT)
    assert caught.value.failure.kind is Kind.TRANSIENT
    assert caught.value.failure.cause == "rebalance_in_progress"
    assert reader.counts.seen[signals.COMMITS, "failed"] == 1


def test_a_group_that_refuses_us_is_for_an_operator(stage: Stage, reader: Member) -> None:
    """Case 121."""
    stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.GROUP_AUTHORIZATION_FAILED])
    with pytest.raises(AdapterError) as caught:
        reader.source.commit({(stage.topic, 0): 1}, wait=True)
    assert caught.value.failure.kind is Kind.OPERATOR
    assert reader.source.failures["(group)"].kind is Kind.OPERATOR
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    assert reader.source.problems == {}


def test_a_failed_commit_that_nobody_waits_for_is_repeated(stage: Stage, reader: Member) -> None:
    stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.GROUP_AUTHORIZATION_FAILED])
    reader.source.commit({(stage.topic, 0): 1}, wait=False)
    reader.until(lambda: "(group)" in reader.source.problems)
    reader.until(lambda: reader.source.problems == {})
    assert stage.committed() == 1
    assert reader.counts.seen[signals.COMMITS, "failed"] == 1


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
def test_a_member_that_was_thrown_out_joins_again(own_stage: Stage, code: int) -> None:
    """Case 102: what is not committed comes again."""
    own_stage.write(0, 0)
    member = own_stage.member(extra=CLASSIC)
    member.until(lambda: len(member.records) == 2)
    own_stage.broker.push_errors(Api.OFFSET_COMMIT, [code])
    with pytest.raises(AdapterError) as caught:
        member.source.commit({("topic", 0): 1}, wait=True)
    assert caught.value.failure.kind is Kind.TRANSIENT
    member.until(lambda: ("lost", ("topic", 0)) in member.heard)
    member.until(lambda: member.offsets(("topic", 0)) == [0, 1, 0, 1])
    member.source.commit({("topic", 0): 2}, wait=True)
    assert own_stage.committed() == 2


def test_a_fenced_member_is_fatal(own_stage: Stage) -> None:
    own_stage.write(0)
    member = own_stage.member(extra=CLASSIC)
    member.until(lambda: len(member.records) == 1)
    own_stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.FENCED_INSTANCE_ID])
    with pytest.raises(SourceFatal):
        member.source.commit({("topic", 0): 1}, wait=True)


def test_a_fenced_member_is_fatal_also_when_nobody_waits_for_the_commit(own_stage: Stage) -> None:
    own_stage.write(0)
    member = own_stage.member(extra=CLASSIC)
    member.until(lambda: len(member.records) == 1)
    own_stage.broker.push_errors(Api.OFFSET_COMMIT, [KafkaError.FENCED_INSTANCE_ID])
    member.source.commit({("topic", 0): 1}, wait=False)
    with pytest.raises(SourceFatal):
        member.until(lambda: False)


# --- rebalances -----------------------------------------------------------------------------------------


def test_a_partition_is_handed_over_at_what_was_committed_while_it_was_revoked(stage: Stage) -> None:
    """Case 105."""
    stage.write(0, 0, 1, 1)
    first = stage.member()
    first.until(lambda: len(first.records) == 4)
    first.when_revoked = lambda partitions: first.source.commit(dict.fromkeys(partitions, 1), wait=True)
    second = stage.member()

    def split() -> bool:
        second.step()
        return len(first.logs) == 1 and len(second.ends) == 1

    first.until(split)
    ((moved, _log),) = second.logs.items()
    assert ("revoked", moved) in first.heard
    assert second.offsets(moved) == [1]
    assert "lost" not in {how for how, _partition in first.heard}


def test_members_that_come_and_go_miss_and_repeat_nothing_that_was_committed(stage: Stage) -> None:
    members: list[Member] = []

    def join() -> Member:
        member = stage.member()
        member.when_revoked = lambda partitions: member.source.commit(
            {partition: member.records_end(partition) for partition in partitions}, wait=True
        )
        members.append(member)
        return member

    first = join()
    written = 0
    for second in (join(), join()):
        for _ in range(10):
            stage.write(0, 1)
            written += 2
            for member in (first, second):
                member.step(0.01)
        second.when_revoked = lambda _partitions: None
        second.source.commit({p: second.records_end(p) for p in second.logs}, wait=True)
        second.source.close(soon(5))
    first.until(lambda: sum(len(member.records) for member in members) >= written)
    seen = Counter((record.partition, record.offset) for member in members for record in member.records)
    assert len(seen) == written
    assert set(seen.values()) == {1}


def test_a_deleted_topic_is_lost_and_the_others_flow_on(own_stage: Stage) -> None:
    """Case 115."""
    own_stage.broker.create_topic("doomed")
    own_stage.write(0)
    own_stage.write(0, topic="doomed")
    member = own_stage.member("topic", "doomed", extra=CLASSIC)
    member.until(lambda: len(member.records) == 2)
    own_stage.broker.delete_topic("doomed")
    member.until(lambda: "doomed" in member.source.problems)
    member.until(lambda: ("doomed", 0) not in member.logs)
    own_stage.write(0)
    member.until(lambda: member.offsets(("topic", 0))[-1:] == [1])
    member.source.commit({("topic", 0): 2}, wait=False)
    member.until(lambda: member.counts.seen[signals.COMMITS, "ok"] > 0)
    assert own_stage.committed() == 2


# --- logs that are not what they were -------------------------------------------------------------------


def test_a_topic_created_again_is_another_log(own_stage: Stage) -> None:
    own_stage.write(0)
    first = own_stage.member()
    first.until(lambda: len(first.records) == 1)
    first.source.close(soon(5))
    own_stage.broker.delete_topic("topic")
    own_stage.broker.create_topic("topic", 2)
    own_stage.write(0, 0)
    second = own_stage.member()
    second.until(lambda: second.ends.get(("topic", 0)) == 2)
    assert second.offsets(("topic", 0)) == [0, 1]
    assert second.logs["topic", 0] != first.logs["topic", 0]


@pytest.mark.parametrize("written", [0, 2])
def test_a_committed_offset_beyond_the_end_hides_neither_records_nor_commits(
    stage: Stage, written: int
) -> None:
    """Case 113: the log is read from its beginning, and commits may be lower than the old one."""
    stage.write(*[0] * written)
    stage.commit(100)
    member = stage.member()
    partition = (stage.topic, 0)
    member.until(lambda: ("lost", partition) in member.heard and member.ends.get(partition) == written)
    assert member.counts.seen[signals.SOURCE_ERRORS, "log_truncated"] == 1
    stage.write(0)
    member.until(lambda: member.offsets(partition) == [*range(written + 1)])
    member.source.commit({partition: written + 1}, wait=True)
    assert stage.committed() == written + 1
    assert member.heard[-2:] == [("lost", partition), ("assigned", partition)]


def test_the_log_identity_is_the_topic_id_and_the_same_for_all_partitions(stage: Stage) -> None:
    member = stage.member()
    member.until(lambda: len(member.logs) == 2)
    assert len(set(member.logs.values())) == 1
    assert stage.topic not in member.logs.values()


def test_the_partitions_of_an_assigned_topic_are_counted(stage: Stage) -> None:
    member = stage.member()
    assert member.source.partition_count(stage.topic) is None
    member.until(lambda: len(member.logs) == 2)
    assert member.source.partition_count(stage.topic) == 2


def test_records_that_retention_took_before_they_were_read_are_noticed(stage: Stage, reader: Member) -> None:
    """Case 111."""
    reader.source.commit({(stage.topic, 0): 1}, wait=True)
    reader.source.close(soon(5))
    stage.broker.delete_records(stage.topic, 0, before=2)
    successor = stage.member()
    successor.until(lambda: (stage.topic, 0) in successor.ends)
    assert successor.offsets((stage.topic, 0)) == [2]
    assert successor.counts.seen[signals.SOURCE_ERRORS, "records_lost"] == 1
    assert "records_lost" in successor.lines.events


def test_retention_behind_the_committed_offset_loses_nothing(stage: Stage, reader: Member) -> None:
    reader.source.commit({(stage.topic, 0): 2}, wait=True)
    reader.source.close(soon(5))
    stage.broker.delete_records(stage.topic, 0, before=2)
    successor = stage.member()
    successor.until(lambda: (stage.topic, 0) in successor.ends)
    assert successor.counts.seen[signals.SOURCE_ERRORS, "records_lost"] == 0


def test_retention_that_overtakes_a_paused_partition_is_noticed(stage: Stage, reader: Member) -> None:
    partition = (stage.topic, 0)
    reader.source.pause([partition])
    stage.write(0, 0, 0)
    stage.broker.delete_records(stage.topic, 0, before=5)
    reader.source.resume([partition])
    reader.until(lambda: reader.offsets(partition) == [0, 1, 2, 5])
    assert reader.counts.seen[signals.SOURCE_ERRORS, "records_lost"] == 1


# --- troubles -------------------------------------------------------------------------------------------


def test_a_broker_that_was_down_is_waited_for(own_stage: Stage) -> None:
    """Cases 99 and 100."""
    own_stage.write(0)
    member = own_stage.member()
    member.until(lambda: len(member.records) == 1)
    own_stage.broker.set_down()
    member.until(lambda: "(cluster)" in member.source.problems)
    assert member.source.failures["(cluster)"].kind is Kind.TRANSIENT
    own_stage.broker.set_up()
    own_stage.write(0)
    member.until(lambda: member.offsets(("topic", 0))[-1:] == [1])
    assert member.source.problems == {}
    assert member.counts.seen[signals.SOURCE_ERRORS, "all_brokers_down"] >= 1
    assert "source_error" in member.lines.events


@pytest.mark.parametrize("protocol", [NEW, CLASSIC], ids=["new", "classic"])
def test_a_missing_topic_is_named_while_the_others_flow(stage: Stage, protocol: Mapping[str, str]) -> None:
    """Case 114."""
    missing = f"{stage.topic}.missing"
    stage.write(0)
    member = stage.member(stage.topic, missing, extra=protocol)
    member.until(lambda: missing in member.source.problems and bool(member.records))
    assert "unknown topic" in member.source.problems[missing].lower()
    assert member.source.failures[missing].kind is Kind.OPERATOR
    assert member.source.missing_topics([stage.topic, missing, "^any"], soon(5)) == [missing]


def test_a_topic_that_appears_is_no_problem_any_more(stage: Stage) -> None:
    missing = f"{stage.topic}.missing"
    member = stage.member(stage.topic, missing, extra=CLASSIC)
    member.until(lambda: missing in member.source.problems)
    stage.broker.create_topic(missing)
    stage.write(0, topic=missing)
    member.until(lambda: bool(member.of((missing, 0))))
    assert member.source.problems == {}


def test_refused_credentials_are_for_an_operator(stage: Stage) -> None:
    """Case 120."""
    sasl = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u"}
    member = stage.member(extra={**NEW, **sasl, "sasl.password": "hidden"})
    with pytest.raises(AdapterError) as caught:
        member.source.missing_topics([stage.topic], soon(1))
    assert caught.value.failure.kind is Kind.OPERATOR
    member.until(lambda: "(cluster)" in member.source.problems)
    member.step(0.5)
    assert member.source.failures["(cluster)"].kind is Kind.OPERATOR
    assert "hidden" not in str(member.source.failures)


def test_what_needs_an_operator_is_not_hidden_by_what_passes() -> None:
    health = KafkaHealth()
    health.failed("(cluster)", coded("_AUTHENTICATION"))
    health.failed("(cluster)", coded("_ALL_BROKERS_DOWN"))
    assert health.failures["(cluster)"].cause == "authentication"
    health.recovered("(cluster)")
    assert not health.ill


def test_unreadable_records_stay_a_problem_until_the_topic_is_assigned_again() -> None:
    health = KafkaHealth()
    health.failed("topic", coded("_BAD_MSG"), sticky=True)
    health.recovered("topic")
    assert health.failures["topic"].kind is Kind.OPERATOR
    health.recovered("topic", afresh=True)
    assert not health.ill


def test_that_a_topic_can_be_described_does_not_prove_that_it_can_be_read() -> None:
    health = KafkaHealth()
    health.failed("topic", KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    health.failed("other", KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    health.exists("topic")
    health.exists("other")
    assert set(health.failures) == {"topic"}


def test_a_cluster_that_cannot_be_reached_is_waited_for(stage: Stage) -> None:
    nowhere = KafkaSource(
        bootstrap_servers="127.0.0.1:1",
        group_id="g",
        topics=["t"],
        extra={},
        clock=Time(),
        telemetry=Counts(),
        log=Lines(),
    )
    with pytest.raises(AdapterError) as caught:
        nowhere.missing_topics(["t"], soon(0.3))
    assert caught.value.failure.kind is Kind.TRANSIENT
    nowhere.close(soon(5))


def test_without_a_valid_offset_a_source_that_may_not_choose_one_stops(stage: Stage) -> None:
    stage.write(0)
    member = stage.member(extra={**NEW, "auto.offset.reset": "error"})
    with pytest.raises(SourceFatal):
        member.until(lambda: False)


def test_closing_returns_at_its_deadline_even_when_nobody_answers(own_stage: Stage) -> None:
    """Case 168."""
    own_stage.write(0)
    member = own_stage.member()
    member.until(lambda: len(member.records) == 1)
    own_stage.broker.set_rtt(5000)
    started_s = time.monotonic()
    member.source.close(soon(0.2))
    member.source.close(soon(0.2))
    assert time.monotonic() - started_s < 2
    assert "revoked" not in {how for how, _partition in member.heard}


# --- watching -------------------------------------------------------------------------------------------


def test_the_ends_of_the_logs_are_known_also_of_paused_partitions(stage: Stage, reader: Member) -> None:
    """Lag must grow while we are paused, or nothing would scale us up."""
    reader.source.pause([(stage.topic, 0), (stage.topic, 1)])
    stage.write(0, 0, 1)
    expected = {(stage.topic, 0): 5, (stage.topic, 1): 1}
    reader.until(lambda: reader.source.end_offsets() == expected)
    assert len(reader.records) == 3


def test_a_sample_is_the_newest_records_and_commits_nothing(stage: Stage) -> None:
    stage.write(0, 0, 0, 1)
    member = stage.member(start=False)
    sample = member.source.sample([stage.topic, "absent"], 2, soon(10))
    assert sorted((record.partition, record.offset) for record in sample) == [(0, 1), (0, 2), (1, 0)]
    assert member.source.sample(["absent"], 2, soon(10)) == []
    assert stage.committed() < 0
    assert len(read_topic(stage.broker.bootstrap, stage.topic)) == 4


# --- configuration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FIXED, "group.id", "bootstrap.servers", "partition.assignment.strategy"])
def test_what_would_break_correctness_may_not_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        consumer_config("b:9092", "g", {name: "range" if "strategy" in name else "other"})


def test_what_agrees_with_us_may_be_set() -> None:
    assert consumer_config("b:9092", "g", {"enable.auto.commit": "False"})["enable.auto.commit"] == "false"


def test_the_operator_overrides_a_default() -> None:
    config = consumer_config("b:9092", "g", {"session.timeout.ms": "45000"})
    assert config["session.timeout.ms"] == "45000"
    assert config["partition.assignment.strategy"] == "cooperative-sticky"


def test_the_newer_protocol_leaves_timing_and_assignment_to_the_broker() -> None:
    config = consumer_config("b:9092", "g", {"group.protocol": "Consumer"})
    assert {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"}.isdisjoint(config)


def test_large_messages_may_be_asked_for(stage: Stage) -> None:
    stage.member(extra={**NEW, "message.max.bytes": "50000000"}, start=False)


@pytest.mark.parametrize(
    ("topics", "extra", "named"),
    [
        ([], {}, "no topic"),
        (["^("], {}, r"\^\("),
        (["t"], {"no.such.property": "1"}, "no.such.property"),
        (["t"], {"session.timeout.ms": "soon"}, "session.timeout.ms"),
    ],
)
def test_a_useless_configuration_is_refused(topics: list[str], extra: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        KafkaSource(
            bootstrap_servers="127.0.0.1:1",
            group_id="g",
            topics=topics,
            extra=extra,
            clock=Time(),
            telemetry=Counts(),
            log=Lines(),
        )


@pytest.mark.parametrize(
    ("subscribed", "whole", "found"),
    [
        ("shop.a", False, True),
        ("shop", False, False),
        ("^shop", False, True),
        ("^shop", True, False),
        (r"^shop\..*", True, True),
        ("^a", False, False),
    ],
)
def test_a_pattern_finds_what_the_group_protocol_would_find(
    subscribed: str, whole: bool, found: bool
) -> None:
    assert matches("shop.a", subscribed, whole=whole) is found


# --- codes ----------------------------------------------------------------------------------------------


def error_names() -> set[str]:
    names = {name for name in dir(KafkaError) if not name.startswith("__")}
    return {name for name in names if isinstance(getattr(KafkaError, name), int)}


def test_every_code_of_the_client_has_a_meaning() -> None:
    assert error_names() == set(MEANINGS) | NOT_OURS
    assert error_names() == set(VERDICTS) | NOT_OURS
    assert NOT_OURS.isdisjoint({*MEANINGS, *VERDICTS})


@pytest.mark.parametrize(
    ("name", "meaning", "verdict"),
    [
        ("_PARTITION_EOF", About.END, Verdict.RETRY),
        ("UNKNOWN_TOPIC_OR_PART", About.TOPIC, Verdict.TOPIC),
        ("_BAD_MSG", About.CORRUPT, Verdict.OPERATOR),
        ("GROUP_AUTHORIZATION_FAILED", About.GROUP, Verdict.OPERATOR),
        ("SASL_AUTHENTICATION_FAILED", About.CLUSTER, Verdict.OPERATOR),
        ("_ALL_BROKERS_DOWN", About.UNREACHABLE, Verdict.RETRY),
        ("_TRANSPORT", About.ENVIRONMENT, Verdict.RETRY),
        ("_MAX_POLL_EXCEEDED", About.ENVIRONMENT, Verdict.REJOIN),
        ("ILLEGAL_GENERATION", About.ENVIRONMENT, Verdict.REJOIN),
        ("_NO_OFFSET", About.ENVIRONMENT, Verdict.DONE),
        ("OFFSET_METADATA_TOO_LARGE", About.ENVIRONMENT, Verdict.OPERATOR),
        ("_FATAL", About.FATAL, Verdict.FATAL),
        ("FENCED_INSTANCE_ID", About.FATAL, Verdict.FATAL),
    ],
)
def test_codes_mean_what_they_mean(name: str, meaning: About, verdict: Verdict) -> None:
    error = coded(name)
    assert (about(error), verdict_of(error)) == (meaning, verdict)


def test_an_error_that_says_it_is_fatal_is() -> None:
    error = KafkaError(KafkaError.REQUEST_TIMED_OUT, "x", fatal=True)
    assert (about(error), verdict_of(error)) == (About.FATAL, Verdict.FATAL)
