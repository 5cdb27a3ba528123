"""The composition root of ``vectide topics``: what the service needs of the cluster, and what is there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from vectide.core.needs import (
    DEFAULT_MESSAGE_BYTES,
    Right,
    Role,
    Topic,
    dead_letter_topic,
    replay_topic,
    rights,
)
from vectide.jobs.executor import SystemClock
from vectide.ports import Deadline
from vectide.settings import Settings, SettingsError
from vectide.sources.kafka_provision import DEFAULT_REPLICATION, FoundTopic, KafkaProvision

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class TopicsRequest:
    """``create`` makes missing topics of ours, with these partitions and replicas (None: the broker's
    default). ``principal``: whom the rights are for."""

    create: bool = False
    partitions: int = 1
    replication_factor: int | None = None
    principal: str = "User:vectide"
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """One name or pattern, and what is there: none, one, or what the pattern finds. ``unlike``: where a
    topic of ours is not set up as recommended."""

    topic: Topic
    found: Sequence[FoundTopic]
    created: bool = False
    unlike: Sequence[tuple[str, str, str]] = field(default=())

    @property
    def missing(self) -> bool:
        return not self.found and not self.created


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything, and the commands that grant the rights."""

    topics: Sequence[TopicState]
    rights: Sequence[tuple[Right, str]]

    @property
    def missing(self) -> bool:
        """Whether the service lacks one. Without the replay topic it only cannot replay."""
        return any(state.missing and state.topic.role is not Role.REPLAYS for state in self.topics)


def needs(settings: Settings, request: TopicsRequest) -> Needs:
    """Ask the cluster once; makes nothing unless told to."""
    deadline = Deadline.after(_CLOCK, request.timeout_s)
    with _provision(settings) as cluster:
        found = cluster.find([*settings.topics, settings.dlq.topic, settings.dlq.replays], deadline)
        topics = _topics(settings, found)
        states = [_state(topic, found[topic.name], cluster, request, deadline) for topic in topics]
    servers, principal = settings.kafka.bootstrap_servers, request.principal
    granted = rights(settings.topics, settings.kafka.group_id, settings.dlq.topic, settings.dlq.replays)
    return Needs(states, [(right, _command(right, principal, servers)) for right in granted])


def _command(right: Right, principal: str, bootstrap_servers: str) -> str:
    """The grant as a call of Kafka's own tool."""
    words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add"]
    words += ["--allow-principal", principal]
    for operation in right.operations:
        words += ["--operation", operation.capitalize()]
    words += [f"--{right.resource}", right.name]
    if right.prefixed:
        words += ["--resource-pattern-type", "prefixed"]
    return shlex.join(words)


def _topics(settings: Settings, found: Mapping[str, Sequence[FoundTopic]]) -> Sequence[Topic]:
    sizes = [_message_bytes(topic) for source in settings.topics for topic in found[source]]
    largest = max(sizes, default=DEFAULT_MESSAGE_BYTES)
    return [
        *(Topic(source, Role.SOURCE) for source in settings.topics),
        dead_letter_topic(settings.dlq.topic, largest),
        replay_topic(settings.dlq.replays),
    ]


def _message_bytes(topic: FoundTopic) -> int:
    try:
        return int(topic.config["max.message.bytes"])
    except (KeyError, ValueError):
        return DEFAULT_MESSAGE_BYTES


def _state(
    topic: Topic,
    found: Sequence[FoundTopic],
    cluster: KafkaProvision,
    request: TopicsRequest,
    deadline: Deadline,
) -> TopicState:
    if found or not request.create or not topic.role.is_ours:
        unlike = [one for there in found for one in topic.unlike(there.config)]
        return TopicState(topic, found, unlike=unlike)
    made = cluster.create(
        topic.name,
        topic.config,
        partitions=request.partitions,
        replication_factor=request.replication_factor or DEFAULT_REPLICATION,
        deadline=deadline,
    )
    there = [FoundTopic(topic.name, request.partitions, topic.config)] if made else []
    return TopicState(topic, there, created=True)


@contextmanager
def _provision(settings: Settings) -> Iterator[KafkaProvision]:
    try:
        cluster = KafkaProvision(
            bootstrap_servers=settings.kafka.bootstrap_servers, extra=settings.kafka.properties
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None
    try:
        yield cluster
    finally:
        cluster.close()
