"""Topics as a cluster has them, and the making of missing ones."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.sources.kafka_admin import KafkaTopics, admin_config, matches
from vectide.sources.kafka_config import consumer_config
from vectide.sources.kafka_errors import error_of, refused

#: The broker's own default.
DEFAULT_REPLICATION: Final = -1
_REFUSALS: Final = frozenset(
    "INVALID_REPLICATION_FACTOR INVALID_PARTITIONS INVALID_CONFIG POLICY_VIOLATION TOPIC_EXCEPTION "
    "TOPIC_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED _UNSUPPORTED_FEATURE INVALID_REQUEST".split()
)


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """``config`` is empty when the cluster does not tell it to us."""

    name: str
    partitions: int
    config: Mapping[str, str]


class KafkaProvision:
    """``extra`` are librdkafka properties of the operator. Raises ValueError when they cannot be used."""

    def __init__(self, *, bootstrap_servers: str, extra: Mapping[str, str]) -> None:
        config = consumer_config(bootstrap_servers, "vectide.topics", extra)
        self._open = contextlib.ExitStack()
        try:
            self._topics = KafkaTopics(config)
            self._open.callback(self._topics.close)
            self._admin = self._open.enter_context(AdminClient({"log_level": "0", **admin_config(config)}))
        except KafkaException as exception:
            raise ValueError(f"the Kafka properties are refused: {error_of(exception).str()}") from exception
        self._whole = config.get("group.protocol", "").lower() == "consumer"

    def close(self) -> None:
        self._open.close()

    def find(self, wanted: Sequence[str], deadline: Deadline) -> Mapping[str, Sequence[FoundTopic]]:
        """For each name or pattern (``^...``) the topics that exist. Raises :class:`AdapterError`."""
        counts = self._topics.partition_counts(deadline)
        names = {
            one: sorted(name for name in counts if matches(name, one, whole=self._whole)) for one in wanted
        }
        every = sorted({name for found in names.values() for name in found})
        configs = self._configs(every, deadline)
        return {
            one: [FoundTopic(name, counts[name], configs.get(name, {})) for name in found]
            for one, found in names.items()
        }

    def _configs(self, topics: Sequence[str], deadline: Deadline) -> Mapping[str, Mapping[str, str]]:
        """The properties of those topics that may be seen."""
        if not topics:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        found: dict[str, Mapping[str, str]] = {}
        with contextlib.suppress(KafkaException):
            futures = self._admin.describe_configs(resources, request_timeout=deadline.remaining_s())
            for resource, future in futures.items():
                with contextlib.suppress(KafkaException, AdapterError):
                    entries = _result(future, deadline).values()
                    found[resource.name] = {one.name: one.value for one in entries if one.value is not None}
        return found

    def create(
        self,
        name: str,
        config: Mapping[str, str],
        *,
        partitions: int,
        replication_factor: int,
        deadline: Deadline,
    ) -> bool:
        """Make the topic; False when it is there already. Raises :class:`StartupRefused` when the cluster
        will not, :class:`AdapterError` when it does not answer."""
        topic = NewTopic(name, partitions, replication_factor, config=dict(config))
        try:
            futures = self._admin.create_topics([topic], request_timeout=deadline.remaining_s())
            _result(futures[name], deadline)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if error.name() in _REFUSALS:
                raise StartupRefused(f"the topic {name} cannot be created: {error.str()}") from exception
            raise refused(error) from exception
        return True


def _result(future: Future[Any], deadline: Deadline) -> Any:
    try:
        return future.result(deadline.remaining_s() + 1.0)
    except TimeoutError as timeout:
        raise AdapterError(Failure(Kind.TRANSIENT, "timed_out", "the cluster does not answer")) from timeout
