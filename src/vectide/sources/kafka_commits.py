"""Offset commits of one consumer: stored per partition, sent together, retried until they are home.

Always ``store_offsets`` and then a bare ``commit``: the client refuses to store for a partition that it does
not own, while brokers accept a commit of explicit offsets for somebody else's partition and rewind its owner.
The one exception is a log that begins anew (:meth:`Commits.restart`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from vectide.core import signals
from vectide.ports import Clock, Deadline, Log, Partition, SourceFatal, Telemetry
from vectide.sources.kafka_errors import Verdict, cause_of, error_of, refused, verdict_of
from vectide.sources.kafka_health import GROUP, KafkaHealth

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 30.0
#: After this time an asynchronous commit without an answer is taken for lost.
ANSWER_TIMEOUT_S: Final = 60.0
#: Between the attempts of a commit that is waited for.
PAUSE_S: Final = 0.1
#: For reading back what was committed.
READ_TIMEOUT_S: Final = 5.0


class Commits:
    """Owned by the polling thread. ``patience_s`` bounds the retries of a commit that is waited for."""

    def __init__(
        self,
        consumer: Consumer,
        clock: Clock,
        telemetry: Telemetry,
        log: Log,
        health: KafkaHealth,
        patience_s: float,
    ) -> None:
        self._consumer = consumer
        self._clock = clock
        self._telemetry = telemetry
        self._log = log
        self._health = health
        self._patience_s = patience_s
        self._stored: dict[Partition, int] = {}
        #: Partitions whose log begins anew, and from where; until the broker knows.
        self._restarts: dict[Partition, int] = {}
        self._restart_at_s = 0.0
        self._due = False
        self._due_at_s = 0.0
        self._failures = 0
        self._sent_at_s: float | None = None

    # --- positions -------------------------------------------------------------------------------------

    def stored(self, partition: Partition) -> int | None:
        """The newest position stored during this assignment; None when there is none."""
        return self._stored.get(partition)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """The partitions are gone, or new: any position may follow."""
        for partition in partitions:
            self.rewound(partition)
            self._restarts.pop(partition, None)

    def rewound(self, partition: Partition) -> None:
        """The partition is read again: any position may follow."""
        self._stored.pop(partition, None)

    def restart(self, partition: Partition, position: int) -> None:
        """The log of a partition that is ours begins anew at ``position``: say so, whatever was committed.

        A bare commit would leave out every position below the last one that this client has committed, and
        whoever takes the partition over would go on from there, beyond records that nobody has read.
        """
        self._restarts[partition] = position
        self._restart_at_s = self._clock.monotonic() + RETRY_FIRST_S
        error = self._commit_restarts()
        if error is not None:  # tried again with the next commit
            self._failed(error, verdict_of(error))

    def _commit_restarts(self) -> KafkaError | None:
        if not self._restarts:
            return None
        anew = [TopicPartition(*partition, position) for partition, position in self._restarts.items()]
        try:
            self._consumer.commit(offsets=anew, asynchronous=False)
        except KafkaException as exception:
            return error_of(exception)
        self._restarts.clear()
        self._due = True  # what was stored meanwhile, and left out
        return None

    def store(self, positions: Mapping[Partition, int]) -> None:
        """Take down positions for the next commit. One that does not move forward is left out."""
        for partition, position in positions.items():
            if position <= self._stored.get(partition, -1):
                continue
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(*partition, position)])
            except KafkaException as exception:
                # No longer ours: whoever owns it now reads from the last commit.
                self._count(error_of(exception))
                continue
            self._stored[partition] = position
            self._due = True

    # --- asynchronous ----------------------------------------------------------------------------------

    def send(self) -> None:
        """Start a commit of what is stored, unless one is under way or a failed one is backing off."""
        now = self._clock.monotonic()
        if self._restarts and now >= self._restart_at_s:
            self._restart_at_s = now + RETRY_FIRST_S
            error = self._commit_restarts()
            if error is not None:
                self._failed(error, verdict_of(error))
        under_way = self._sent_at_s is not None and now < self._sent_at_s + ANSWER_TIMEOUT_S
        if not self._due or under_way or now < self._due_at_s:
            return
        self._due = False
        self._sent_at_s = now
        try:
            self._consumer.commit(asynchronous=True)
        except KafkaException as exception:
            self.answered(error_of(exception))

    def answered(self, error: KafkaError | None) -> None:
        """The client's answer to :meth:`send`. Raises :class:`SourceFatal` when there can be no other."""
        self._sent_at_s = None
        verdict = Verdict.DONE if error is None else verdict_of(error)
        if error is None or verdict is Verdict.DONE:
            self._succeeded(any_sent=error is None)
            return
        self._due = True
        self._failures += 1
        backoff_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        self._due_at_s = self._clock.monotonic() + backoff_s
        self._failed(error, verdict)
        if verdict is Verdict.FATAL:
            raise SourceFatal(f"offsets can no longer be committed: {error.str()}")

    # --- synchronous -----------------------------------------------------------------------------------

    def confirm(self, positions: Mapping[Partition, int]) -> None:
        """Commit what is stored and wait for the answer; retried while that can help.

        Raises :class:`AdapterError` when the broker refused ``positions`` or did not answer in time, and
        :class:`SourceFatal` when no commit of this process can succeed any more.
        """
        if not self._due and self._sent_at_s is None:
            return
        deadline = Deadline.after(self._clock, self._patience_s)
        while True:
            error = self._ask()
            verdict = Verdict.DONE if error is None else verdict_of(error)
            if verdict is Verdict.TOPIC and self._landed(positions):
                verdict = Verdict.DONE
            if error is None or verdict is Verdict.DONE:
                self._due = False
                self._succeeded(any_sent=error is None)
                return
            if verdict is not Verdict.RETRY or deadline.passed:
                break
            time.sleep(PAUSE_S)
        self._failed(error, verdict)
        if verdict is Verdict.FATAL:
            raise SourceFatal(f"offsets can no longer be committed: {error.str()}")
        raise refused(error, operator=verdict in (Verdict.OPERATOR, Verdict.TOPIC))

    def _ask(self) -> KafkaError | None:
        error = self._commit_restarts()
        if error is not None:
            return error
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as exception:
            return error_of(exception)
        return None

    def _landed(self, positions: Mapping[Partition, int]) -> bool:
        """Whether all of ``positions`` are committed, although the commit as a whole reported an error.

        It does so when a single topic of it is gone; the others may well have been committed.
        """
        try:
            known = self._consumer.committed(
                [TopicPartition(*partition) for partition in positions], timeout=READ_TIMEOUT_S
            )
        except KafkaException:
            return False
        return all(part.offset >= positions[part.topic, part.partition] for part in known)

    # --- outcomes --------------------------------------------------------------------------------------

    def _succeeded(self, *, any_sent: bool) -> None:
        self._failures = 0
        self._due_at_s = 0.0
        if any_sent:
            self._telemetry.count(signals.COMMITS, outcome="ok")
            self._health.recovered(GROUP)

    def _failed(self, error: KafkaError, verdict: Verdict) -> None:
        self._telemetry.count(signals.COMMITS, outcome="failed")
        self._count(error)
        self._log.warning("commit_failed", cause=cause_of(error), detail=error.str())
        # A topic's trouble is told by its fetches: the client marks every partition of the commit with it.
        if verdict is Verdict.OPERATOR:
            self._health.failed(GROUP, error, operator=True)

    def _count(self, error: KafkaError) -> None:
        self._telemetry.count(signals.SOURCE_ERRORS, cause=cause_of(error))
