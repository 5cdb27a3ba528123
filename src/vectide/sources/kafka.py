"""The Kafka source: sole owner of the consumer, one thread, no lock.

Messages, errors and rebalance callbacks are taken one at a time in the order in which the client gives them,
so what the listener hears and what :meth:`KafkaSource.poll` returns never contradict each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from vectide.core import signals
from vectide.core.failures import Failure
from vectide.core.model import Record
from vectide.ports import (
    Clock,
    Deadline,
    Log,
    Partition,
    SourceFatal,
    SourceListener,
    Telemetry,
)
from vectide.sources.kafka_admin import KafkaTopics, is_pattern, record_of
from vectide.sources.kafka_commits import Commits
from vectide.sources.kafka_config import check_topics, consumer_config
from vectide.sources.kafka_errors import About, about, cause_of, error_of
from vectide.sources.kafka_health import CLUSTER, GROUP, KafkaHealth
from vectide.sources.kafka_holdings import Holdings
from vectide.sources.kafka_watch import KafkaWatch

#: How long an assignment waits to learn the committed offsets.
COMMITTED_TIMEOUT_S: Final = 5.0

_SUBJECTS: Final[Mapping[About, str]] = {
    About.GROUP: GROUP,
    About.CLUSTER: CLUSTER,
    About.UNREACHABLE: CLUSTER,
}


class KafkaSource:
    """Implements :class:`vectide.ports.Source` and :class:`vectide.ports.Watchable`.

    ``topics`` are names or regular expressions that start with ``^``. ``extra`` are librdkafka properties of
    the operator. Raises ValueError when they cannot be used. Repeated warnings are logged each time: ``log``
    must hold them back (an outage brings hundreds a minute).
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        group_id: str,
        topics: Sequence[str],
        extra: Mapping[str, str],
        clock: Clock,
        telemetry: Telemetry,
        log: Log,
        commit_patience_s: float = 5.0,
    ) -> None:
        check_topics(topics)
        config = consumer_config(bootstrap_servers, group_id, extra)
        self._topics = list(topics)
        self._clock = clock
        self._telemetry = telemetry
        self._log = log
        self._listener: SourceListener | None = None
        self._health = KafkaHealth()
        callbacks = {"error_cb": self._on_error, "on_commit": self._on_commit, "logger": _ClientLog(log)}
        try:
            self._consumer = Consumer(config | callbacks)
            self._admin = KafkaTopics(config)
        except KafkaException as exception:
            raise ValueError(f"the Kafka properties are refused: {error_of(exception).str()}") from exception
        named = [topic for topic in topics if not is_pattern(topic)]
        self._watch = KafkaWatch(self._admin, self._health, clock, named)
        self._commits = Commits(self._consumer, clock, telemetry, log, self._health, commit_patience_s)
        self._held = Holdings()
        self._raised: Exception | None = None
        self._broken = False
        self._closing = False

    # --- life ------------------------------------------------------------------------------------------

    def start(self, listener: SourceListener) -> None:
        """Subscribe. Partitions arrive through the listener during :meth:`poll`."""
        self._listener = listener
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as exception:
            raise SourceFatal(f"the subscription is refused: {error_of(exception).str()}") from exception

    def close(self, deadline: Deadline) -> None:
        """Leave the group; commits nothing and tells the listener nothing. Gives up at the deadline."""
        if self._closing:
            return
        self._closing = True
        # The client may hang here, and a thread can be left behind.
        thread = threading.Thread(target=self._leave, name="kafka-close", daemon=True)
        thread.start()
        thread.join(deadline.remaining_s())
        if thread.is_alive():
            self._log.warning("source_close_timed_out")

    def _leave(self) -> None:
        try:
            if not self._broken:
                # Such a client can spin for ever when closed, and has no membership to give back.
                self._consumer.close()
            self._admin.close()
        except (KafkaException, RuntimeError) as error:
            self._log.warning("source_close_failed", detail=str(error))

    # --- reading ---------------------------------------------------------------------------------------

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Records in order per partition; waits at most ``timeout_s`` for the first one.

        Never returns a record of a partition that was revoked, lost or rewound during the call. An end of a
        partition is told when every record before it has been returned, by the next call at the earliest.
        Raises :class:`SourceFatal` when this process can read no more.
        """
        for partition, end in self._held.due_ends().items():
            self._hearer.on_end(partition, end)
        self._guarded(self._commits.send)
        wait_s = timeout_s
        while len(self._held) < max(1, max_records):
            message = self._consumer.poll(wait_s)
            self._raise_if_due()
            if message is None:
                break
            wait_s = 0
            self._take(message)
            self._raise_if_due()
        self._watch.look(self._held.logs)
        return self._held.hand_over()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._met(error, message)
            return
        partition = _partition_of(message)
        offset = cast(int, message.offset())
        if partition not in self._held or self._strayed(partition, offset):
            return
        self._held.read(record_of(message))
        if self._health.ill:
            self._delivered(partition[0])

    def _delivered(self, topic: str) -> None:
        self._health.recovered(topic)
        self._health.recovered(CLUSTER)

    def _met(self, error: KafkaError, message: Message | None) -> None:
        """An error out of the client, as a message or through its callback."""
        subject = about(error)
        if subject is About.END and message is not None:
            self._ended(_partition_of(message), cast(int, message.offset()))
            return
        topic = (message.topic() if message is not None else None) or ""
        self._telemetry.count(signals.SOURCE_ERRORS, cause=cause_of(error))
        self._log.warning("source_error", cause=cause_of(error), detail=error.str(), topic=topic)
        if subject is About.FATAL:
            self._fail(SourceFatal(f"{topic}: {error.str()}" if topic else error.str()))
        elif subject in (About.TOPIC, About.CORRUPT):
            self._health.failed(topic or CLUSTER, error, sticky=subject is About.CORRUPT)
        elif subject in _SUBJECTS:
            self._health.failed(_SUBJECTS[subject], error)

    def _ended(self, partition: Partition, end: int) -> None:
        if partition not in self._held or self._strayed(partition, end):
            return
        self._held.reached(partition, end)
        if self._health.ill:
            self._delivered(partition[0])

    # --- jumps -----------------------------------------------------------------------------------------

    def _strayed(self, partition: Partition, offset: int) -> bool:
        """Whether the log jumped back before ``offset`` and is being read afresh from there.

        Forward jumps are holes, unless the log's start has moved beyond what was expected: then records
        were lost, which is told and lived with.
        """
        expected = self._held.expected.get(partition)
        if expected is None or offset == expected:
            return False
        if offset > expected:
            self._notice_loss(partition, expected)
            return False
        topic, number = partition
        self._telemetry.count(signals.SOURCE_ERRORS, cause="log_truncated")
        self._log.error(
            "log_truncated", topic=topic, partition=number, expected_offset=expected, found_offset=offset
        )
        self._guarded(lambda: self._restart(partition, offset))
        return True

    def _notice_loss(self, partition: Partition, expected: int) -> None:
        low, _high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        if low > expected:
            self._telemetry.count(signals.SOURCE_ERRORS, cause="records_lost")
            self._log.error(
                "records_lost",
                topic=partition[0],
                partition=partition[1],
                expected_offset=expected,
                first_offset=low,
                advice="retention removed records before they were read: reconcile the table",
            )

    def _restart(self, partition: Partition, offset: int) -> None:
        """The same partition as a new assignment, from ``offset``."""
        self._held.forget([partition])
        self._commits.forget([partition])
        self._hearer.on_lost([partition])
        self._consumer.incremental_unassign([TopicPartition(*partition)])
        self._take_over([TopicPartition(*partition, offset)])
        self._commits.restart(partition, offset)

    # --- rebalance -------------------------------------------------------------------------------------

    def _on_assign(self, _consumer: Consumer, parts: list[TopicPartition]) -> None:
        if parts and not self._closing:
            self._guarded(lambda: self._take_over(self._committed(parts)))

    def _on_revoke(self, _consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._guarded(lambda: self._give_up(parts, revoked=True))

    def _on_lost(self, _consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._guarded(lambda: self._give_up(parts, revoked=False))

    def _take_over(self, parts: list[TopicPartition]) -> None:
        """Own the partitions from the given offsets on (negative: wherever the group says)."""
        self._consumer.incremental_assign(parts)
        # A pause outlives the assignment that it was meant for.
        self._consumer.resume([TopicPartition(part.topic, part.partition) for part in parts])
        logs = self._admin.log_ids({part.topic for part in parts})
        for part in parts:
            partition = (part.topic, part.partition)
            self._held.take(partition, logs[part.topic], part.offset if part.offset >= 0 else None)
            self._commits.forget([partition])
        self._watch.soon()
        for subject in (*logs, GROUP, CLUSTER):
            self._health.recovered(subject, afresh=True)
        self._hearer.on_assigned({(part.topic, part.partition): logs[part.topic] for part in parts})

    def _give_up(self, parts: list[TopicPartition], *, revoked: bool) -> None:
        partitions = self._held.mine([(part.topic, part.partition) for part in parts])
        if not partitions or self._closing:
            return
        self._held.discard(partitions)
        if revoked:
            self._hearer.on_revoked(partitions)
        self._held.forget(partitions)
        self._commits.forget(partitions)
        if not revoked:
            self._hearer.on_lost(partitions)

    def _committed(self, parts: list[TopicPartition]) -> list[TopicPartition]:
        """The partitions with the group's committed offsets, where the group has any and tells."""
        try:
            known = self._consumer.committed(parts, timeout=COMMITTED_TIMEOUT_S)
        except KafkaException as exception:
            error = error_of(exception)
            self._telemetry.count(signals.SOURCE_ERRORS, cause=cause_of(error))
            self._log.warning("committed_offsets_unknown", cause=cause_of(error), detail=error.str())
            return parts
        return [part if part.error is None else TopicPartition(part.topic, part.partition) for part in known]

    # --- steering --------------------------------------------------------------------------------------

    def partition_count(self, topic: str) -> int | None:
        """As :meth:`vectide.ports.Source.partition_count`: as of the last assignment of the topic."""
        return self._admin.partition_count(topic)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Fetch no more of these; partitions that are not ours are passed over."""
        mine = self._held.mine(partitions)
        if mine:
            self._held.paused.update(mine)
            self._consumer.pause([TopicPartition(*partition) for partition in mine])

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Fetch these again; partitions that are not ours are passed over."""
        mine = self._held.mine(partitions)
        if mine:
            self._held.paused.difference_update(mine)
            self._consumer.resume([TopicPartition(*partition) for partition in mine])

    def rewind(self, partition: Partition, offset: int | None) -> None:
        """Read again from ``offset``; None: from the last position given to :meth:`commit`, else from where
        the assignment started, else (nothing was read yet) from the beginning. Commits never go back below
        what is committed."""
        if partition not in self._held:
            return
        if offset is None:
            stored = self._commits.stored(partition)
            offset = self._held.started.get(partition) if stored is None else stored
        self._held.rewind(partition, offset)
        self._commits.rewound(partition)
        target = TopicPartition(*partition, OFFSET_BEGINNING if offset is None else offset)
        try:
            self._consumer.seek(target)
        except KafkaException:
            # Not fetched yet, or just being stopped: take it again from there.
            self._guarded(lambda: self._retake(target))

    def _retake(self, target: TopicPartition) -> None:
        self._consumer.incremental_unassign([TopicPartition(target.topic, target.partition)])
        self._consumer.incremental_assign([target])

    # --- committing ------------------------------------------------------------------------------------

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        """Commit next-to-read offsets. Positions of partitions that are not ours, or that do not move
        forward, are passed over. With ``wait``: raises :class:`AdapterError` when the broker refused or did
        not answer in time. Without: a failed commit is repeated by :meth:`poll`, with back-off.
        Raises :class:`SourceFatal` when no commit can succeed any more."""
        mine = {partition: offset for partition, offset in positions.items() if partition in self._held}
        self._commits.store(mine)
        try:
            if wait:
                self._commits.confirm(mine)
            else:
                self._commits.send()
        except SourceFatal:
            self._broken = True
            raise

    # --- watching --------------------------------------------------------------------------------------

    @property
    def failures(self) -> Mapping[str, Failure]:
        """Current troubles by topic, or under ``(group)`` or ``(cluster)``: kind, cause, detail."""
        return self._health.failures

    @property
    def problems(self) -> Mapping[str, str]:
        """:attr:`failures` as one line each."""
        return {subject: failure.detail for subject, failure in self._health.failures.items()}

    def end_offsets(self) -> Mapping[Partition, int]:
        """The end of each assigned partition's log as last heard, paused ones too. Never blocks."""
        return self._watch.ends(self._held.logs)

    def missing_topics(self, names: Sequence[str], deadline: Deadline) -> Sequence[str]:
        """Those of ``names`` that do not exist or may not be described. Raises :class:`AdapterError`."""
        return self._admin.missing(names, deadline)

    def topics_matching(self, deadline: Deadline) -> Sequence[str]:
        """The existing topics that the subscription stands for. Raises :class:`AdapterError`."""
        return self._admin.matching(self._topics, deadline)

    def log_ids(self, topics: Sequence[str]) -> Mapping[str, str]:
        """The identity of each topic's log, as listeners are told it. Never raises."""
        return self._admin.log_ids(topics)

    def sample(self, topics: Sequence[str], per_partition: int, deadline: Deadline) -> Sequence[Record]:
        """The newest records of every partition of ``topics``, read outside the group.
        Raises :class:`AdapterError`."""
        return self._admin.sample(topics, per_partition, deadline)

    # --- callbacks of the client: they must not raise, so what they meet is raised by poll -----------------

    @property
    def _hearer(self) -> SourceListener:
        if self._listener is None:
            raise RuntimeError("the source was not started")
        return self._listener

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except KafkaException as exception:
            self._fail(SourceFatal(f"the rebalance failed: {error_of(exception).str()}"))
        except Exception as error:  # noqa: BLE001 (raised again by poll)
            self._fail(error)

    def _on_error(self, error: KafkaError) -> None:
        if not self._closing:
            self._guarded(lambda: self._met(error, None))

    def _on_commit(self, error: KafkaError | None, _parts: list[TopicPartition]) -> None:
        if not self._closing:
            self._guarded(lambda: self._commits.answered(error))

    def _fail(self, error: Exception) -> None:
        self._raised = self._raised or error

    def _raise_if_due(self) -> None:
        raised, self._raised = self._raised, None
        if raised is not None:
            self._broken = isinstance(raised, SourceFatal)
            raise raised


class _ClientLog:
    """What the client logs by itself, from warnings on. Shaped as the client wants a logger."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def log(self, level: int, form: str, *arguments: Any) -> None:
        warning = 30
        if level >= warning:
            self._log.warning("kafka_client", cause=str(arguments[0]), detail=form % arguments)


def _partition_of(message: Message) -> Partition:
    return cast(str, message.topic()), cast(int, message.partition())
