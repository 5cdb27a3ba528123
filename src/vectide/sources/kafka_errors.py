"""What every error code of the Kafka client means when reading and when committing. Pure tables.

``KafkaError.retriable()`` is False even for a coordinator that loads, so the code decides. Codes are known by
their name; one that a newer client brings is taken for the environment's fault (:func:`about`,
:func:`verdict_of`), and a test fails until the tables know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError


class About(Enum):
    """What an error that :meth:`poll` meets is about."""

    #: Not an error: the end of a partition was read.
    END = "end"
    #: One topic is missing or forbidden; the others flow.
    TOPIC = "topic"
    #: Bytes of one topic cannot be read, records may have been skipped.
    CORRUPT = "corrupt"
    #: The group refuses us; an operator must act.
    GROUP = "group"
    #: The cluster refuses us; an operator must act.
    CLUSTER = "cluster"
    #: No broker answers.
    UNREACHABLE = "unreachable"
    #: Goes away by itself.
    ENVIRONMENT = "environment"
    #: This client will never deliver again.
    FATAL = "fatal"


class Verdict(Enum):
    """What the answer to a commit means."""

    DONE = "done"
    #: Ask again soon: the same commit can succeed.
    RETRY = "retry"
    #: We are no longer the member we were; whoever owns the partitions now reads them again.
    REJOIN = "rejoin"
    #: One topic is gone or forbidden; other partitions of the commit may have been committed.
    TOPIC = "topic"
    OPERATOR = "operator"
    FATAL = "fatal"


_TOPIC: Final = frozenset(
    "UNKNOWN_TOPIC_OR_PART UNKNOWN_TOPIC_ID INCONSISTENT_TOPIC_ID TOPIC_EXCEPTION TOPIC_AUTHORIZATION_FAILED "
    "_UNKNOWN_TOPIC _UNKNOWN_PARTITION".split()
)
_CORRUPT: Final = frozenset(
    "INVALID_MSG INVALID_MSG_SIZE UNSUPPORTED_COMPRESSION_TYPE UNSUPPORTED_FOR_MESSAGE_FORMAT "
    "_BAD_MSG _BAD_COMPRESSION _LOG_TRUNCATION _UNDERFLOW".split()
)
_GROUP: Final = frozenset("GROUP_AUTHORIZATION_FAILED GROUP_MAX_SIZE_REACHED".split())
_CLUSTER: Final = frozenset(
    "CLUSTER_AUTHORIZATION_FAILED SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE "
    "SECURITY_DISABLED UNACCEPTABLE_CREDENTIAL PRINCIPAL_DESERIALIZATION_FAILURE INVALID_PRINCIPAL_TYPE "
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_EXPIRED "
    "DELEGATION_TOKEN_NOT_FOUND DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED "
    "_AUTHENTICATION _SSL".split()
)
_UNREACHABLE: Final = frozenset(["_ALL_BROKERS_DOWN"])
_FATAL: Final = frozenset(
    "FENCED_INSTANCE_ID UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR INCONSISTENT_GROUP_PROTOCOL "
    "INVALID_GROUP_ID INVALID_SESSION_TIMEOUT INVALID_REGULAR_EXPRESSION INVALID_CONFIG UNSUPPORTED_VERSION "
    "_FATAL _FENCED _AUTO_OFFSET_RESET _UNSUPPORTED_FEATURE _INVALID_ARG _INVALID_TYPE _NOT_IMPLEMENTED "
    "_NOT_CONFIGURED _CRIT_SYS_RESOURCE _DESTROY _UNKNOWN_PROTOCOL _UNKNOWN_GROUP".split()
)
#: The group moves on without us; the client joins again by itself.
_REJOIN: Final = frozenset(
    "ILLEGAL_GENERATION UNKNOWN_MEMBER_ID FENCED_MEMBER_EPOCH MEMBER_ID_REQUIRED _ASSIGNMENT_LOST "
    "_MAX_POLL_EXCEEDED _STATE".split()
)
#: Passes: coordinators that move or load, connections, time-outs, leaders, storage, throttling.
_PASSING: Final = frozenset(
    "UNKNOWN REQUEST_TIMED_OUT NETWORK_EXCEPTION BROKER_NOT_AVAILABLE COORDINATOR_LOAD_IN_PROGRESS "
    "COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR REBALANCE_IN_PROGRESS STALE_MEMBER_EPOCH "
    "UNSTABLE_OFFSET_COMMIT LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION REPLICA_NOT_AVAILABLE "
    "FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH OFFSET_NOT_AVAILABLE OFFSET_OUT_OF_RANGE KAFKA_STORAGE_ERROR "
    "LISTENER_NOT_FOUND ELIGIBLE_LEADERS_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE STALE_BROKER_EPOCH "
    "STALE_CTRL_EPOCH NOT_CONTROLLER UNKNOWN_CONTROLLER_ID LOG_DIR_NOT_FOUND FETCH_SESSION_ID_NOT_FOUND "
    "INVALID_FETCH_SESSION_EPOCH THROTTLING_QUOTA_EXCEEDED REBOOTSTRAP_REQUIRED GROUP_ID_NOT_FOUND "
    "INVALID_REQUEST REASSIGNMENT_IN_PROGRESS "
    "_TRANSPORT _RESOLVE _TIMED_OUT _TIMED_OUT_QUEUE _MSG_TIMED_OUT _WAIT_COORD _WAIT_CACHE _RETRY _INTR "
    "_UNKNOWN_BROKER _DESTROY_BROKER _NODE_UPDATE _IN_PROGRESS _PREV_IN_PROGRESS _OUTDATED _PARTIAL _FAIL "
    "_QUEUE_FULL _ISR_INSUFF _FS".split()
)
#: Only about commits.
_COMMIT_REFUSED: Final = frozenset("OFFSET_METADATA_TOO_LARGE INVALID_COMMIT_OFFSET_SIZE".split())
#: Codes that no consumer of ours can meet: producing, transactions, administration, share groups, streams,
#: (de)serialisers, events and values that are internal to the client.
NOT_OURS: Final = frozenset(
    "MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE INVALID_RECORD INVALID_TIMESTAMP INVALID_REQUIRED_ACKS "
    "NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND OUT_OF_ORDER_SEQUENCE_NUMBER "
    "DUPLICATE_SEQUENCE_NUMBER INVALID_PRODUCER_EPOCH INVALID_PRODUCER_ID_MAPPING UNKNOWN_PRODUCER_ID "
    "PRODUCER_FENCED CONCURRENT_TRANSACTIONS INVALID_TXN_STATE INVALID_TRANSACTION_TIMEOUT "
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED TRANSACTION_ABORTABLE TRANSACTION_COORDINATOR_FENCED "
    "OPERATION_NOT_ATTEMPTED DUPLICATE_RESOURCE DUPLICATE_VOTER ELECTION_NOT_NEEDED FEATURE_UPDATE_FAILED "
    "FENCED_STATE_EPOCH GROUP_SUBSCRIBED_TO_TOPIC INCONSISTENT_VOTER_SET INVALID_PARTITIONS "
    "INVALID_RECORD_STATE INVALID_REGISTRATION INVALID_REPLICATION_FACTOR INVALID_REPLICA_ASSIGNMENT "
    "INVALID_SHARE_SESSION_EPOCH INVALID_UPDATE_VERSION INVALID_VOTER_KEY MISMATCHED_ENDPOINT_TYPE "
    "NON_EMPTY_GROUP NO_REASSIGNMENT_IN_PROGRESS POLICY_VIOLATION RESOURCE_NOT_FOUND "
    "SHARE_SESSION_LIMIT_REACHED SHARE_SESSION_NOT_FOUND STREAMS_INVALID_TOPOLOGY "
    "STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED TELEMETRY_TOO_LARGE TOPIC_ALREADY_EXISTS "
    "TOPIC_DELETION_DISABLED UNKNOWN_SUBSCRIPTION_ID UNSUPPORTED_ENDPOINT_TYPE VOTER_NOT_FOUND "
    "_APPLICATION _ASSIGN_PARTITIONS _REVOKE_PARTITIONS _CONFLICT _EXISTING_SUBSCRIPTION _GAPLESS_GUARANTEE "
    "_INCONSISTENT _INVALID_DIFFERENT_RECORD _KEY_DESERIALIZATION _KEY_SERIALIZATION _NOENT _NOOP "
    "_PURGE_INFLIGHT _PURGE_QUEUE _READ_ONLY _VALUE_DESERIALIZATION _VALUE_SERIALIZATION".split()
)


_Meaning = TypeVar("_Meaning", About, Verdict)


def _table(*parts: tuple[frozenset[str], _Meaning]) -> dict[str, _Meaning]:
    return {name: meaning for names, meaning in parts for name in names}


#: Code name -> what it means when it comes out of poll (as a message or through the error callback).
MEANINGS: Final[Mapping[str, About]] = _table(
    (frozenset(["_PARTITION_EOF"]), About.END),
    (_TOPIC, About.TOPIC),
    (_CORRUPT, About.CORRUPT),
    (_GROUP, About.GROUP),
    (_CLUSTER, About.CLUSTER),
    (_UNREACHABLE, About.UNREACHABLE),
    (_FATAL, About.FATAL),
    (_REJOIN | _PASSING | _COMMIT_REFUSED | {"NO_ERROR", "_NO_OFFSET"}, About.ENVIRONMENT),
)
#: Code name -> what it means as the answer to a commit.
VERDICTS: Final[Mapping[str, Verdict]] = _table(
    (frozenset(["NO_ERROR", "_NO_OFFSET"]), Verdict.DONE),
    (_PASSING | _UNREACHABLE | {"_PARTITION_EOF"}, Verdict.RETRY),
    (_REJOIN, Verdict.REJOIN),
    (_TOPIC, Verdict.TOPIC),
    (_GROUP | _CLUSTER | _COMMIT_REFUSED | _CORRUPT, Verdict.OPERATOR),
    (_FATAL, Verdict.FATAL),
)

_OPERATOR: Final = frozenset({About.TOPIC, About.CORRUPT, About.GROUP, About.CLUSTER, About.FATAL})


def about(error: KafkaError) -> About:
    """What an error met by polling is about. Whatever its code, an error that says it is fatal is."""
    if error.fatal():
        return About.FATAL
    return MEANINGS.get(error.name(), About.ENVIRONMENT)


def verdict_of(error: KafkaError) -> Verdict:
    """What the answer to a commit means. Whatever its code, an error that says it is fatal is."""
    if error.fatal():
        return Verdict.FATAL
    return VERDICTS.get(error.name(), Verdict.RETRY)


def cause_of(error: KafkaError) -> str:
    """The code as a metric label, from the closed set of the client's codes: ``unknown_topic_or_part``."""
    return error.name().strip("_").lower()


def error_of(exception: KafkaException) -> KafkaError:
    """The error that the client's exception carries."""
    inner = exception.args[0] if exception.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError.UNKNOWN, str(exception))


def failure_of(error: KafkaError, *, operator: bool | None = None) -> Failure:
    """The error as data. ``operator`` says who must act; None: decided by what the error is about."""
    if operator is None:
        operator = about(error) in _OPERATOR
    return Failure(Kind.OPERATOR if operator else Kind.TRANSIENT, cause_of(error), error.str())


def refused(error: KafkaError, *, operator: bool | None = None) -> AdapterError:
    """:func:`failure_of` as the exception that adapters raise."""
    return AdapterError(failure_of(error, operator=operator))
