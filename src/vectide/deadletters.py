"""The dead-letter topic: sends that the broker has confirmed, in the shape in which people read them later.

A letter keeps the record's key, value, headers and timestamp byte for byte, and adds headers that begin with
:data:`PREFIX`: ``cause``, ``stage``, ``detail``, ``topic``, ``partition``, ``offset``, ``timestamp``,
``log``, ``table``, ``attempts``, ``version``, ``failed_at``. All are text, bounded in size, without row
content (invariant 13). Where an original header has the same name, ours is the last.

A record that the broker finds too large becomes a pointer: its key (when short), an empty value, no original
headers, and ``truncated`` (``true``), ``key_bytes`` and ``value_bytes`` besides the above. The empty value is
no tombstone; a tombstone keeps its null. Where even that is too large, its key is left out as well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from vectide.core.failures import Failure, Kind
from vectide.core.letters import PREFIX as PREFIX
from vectide.core.letters import Header
from vectide.core.model import Record
from vectide.ports import AdapterError, Clock, Deadline, Letter, StartupRefused

#: UTF-8 bytes of the free text, and of any other added header.
MAX_DETAIL_BYTES: Final = 1000
MAX_HEADER_BYTES: Final = 300
#: Longer keys are left out of pointers.
MAX_POINTER_KEY_BYTES: Final = 16_384

_POLL_S: Final = 0.05
#: How long a send whose time is up goes on to ask why.
_WHY_TIMEOUT_S: Final = 2.0
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


class Refusal(Enum):
    """What an error of the producer means."""

    #: Goes away by itself.
    TRANSIENT = "transient"
    #: The letter is too large.
    TOO_LARGE = "too_large"
    #: The topic, the credentials or the configuration: an operator must act.
    OPERATOR = "operator"
    #: This producer is broken; another one may work.
    PRODUCER = "producer"


def _names(text: str, meaning: Refusal) -> dict[str, Refusal]:
    return dict.fromkeys(text.split(), meaning)


#: Code name -> what it means. Codes that are not here are taken for the environment's fault.
REFUSALS: Final[Mapping[str, Refusal]] = {
    **_names("MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE INVALID_MSG_SIZE", Refusal.TOO_LARGE),
    **_names(
        "UNKNOWN_TOPIC_OR_PART UNKNOWN_TOPIC_ID TOPIC_EXCEPTION INCONSISTENT_TOPIC_ID "
        "TOPIC_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED SASL_AUTHENTICATION_FAILED "
        "UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE SECURITY_DISABLED UNACCEPTABLE_CREDENTIAL "
        "INVALID_PRINCIPAL_TYPE PRINCIPAL_DESERIALIZATION_FAILURE DELEGATION_TOKEN_AUTHORIZATION_FAILED "
        "DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND "
        "DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED INVALID_RECORD "
        "INVALID_TIMESTAMP POLICY_VIOLATION INVALID_REQUIRED_ACKS INVALID_CONFIG "
        "UNSUPPORTED_COMPRESSION_TYPE UNSUPPORTED_FOR_MESSAGE_FORMAT UNSUPPORTED_VERSION _AUTHENTICATION "
        "_SSL _UNKNOWN_TOPIC _UNKNOWN_PARTITION _INVALID_ARG _INVALID_TYPE _UNSUPPORTED_FEATURE "
        "_NOT_IMPLEMENTED _NOT_CONFIGURED",
        Refusal.OPERATOR,
    ),
    **_names(
        "OUT_OF_ORDER_SEQUENCE_NUMBER DUPLICATE_SEQUENCE_NUMBER INVALID_PRODUCER_EPOCH PRODUCER_FENCED "
        "UNKNOWN_PRODUCER_ID INVALID_PRODUCER_ID_MAPPING INVALID_TXN_STATE CONCURRENT_TRANSACTIONS "
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED TRANSACTION_COORDINATOR_FENCED TRANSACTION_ABORTABLE "
        "INVALID_TRANSACTION_TIMEOUT "
        "_FATAL _FENCED _INCONSISTENT _GAPLESS_GUARANTEE _STATE _CRIT_SYS_RESOURCE _DESTROY",
        Refusal.PRODUCER,
    ),
    **_names(
        "UNKNOWN REQUEST_TIMED_OUT NETWORK_EXCEPTION BROKER_NOT_AVAILABLE LEADER_NOT_AVAILABLE "
        "NOT_LEADER_FOR_PARTITION REPLICA_NOT_AVAILABLE NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND "
        "KAFKA_STORAGE_ERROR LISTENER_NOT_FOUND LOG_DIR_NOT_FOUND NOT_CONTROLLER STALE_CTRL_EPOCH "
        "STALE_BROKER_EPOCH FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH ELIGIBLE_LEADERS_NOT_AVAILABLE "
        "PREFERRED_LEADER_NOT_AVAILABLE THROTTLING_QUOTA_EXCEEDED REBOOTSTRAP_REQUIRED INVALID_MSG "
        "INVALID_REQUEST REASSIGNMENT_IN_PROGRESS "
        "_TRANSPORT _ALL_BROKERS_DOWN _RESOLVE _TIMED_OUT _TIMED_OUT_QUEUE _MSG_TIMED_OUT _QUEUE_FULL "
        "_PURGE_QUEUE _PURGE_INFLIGHT _ISR_INSUFF _FAIL _FS _INTR _RETRY _IN_PROGRESS _PREV_IN_PROGRESS "
        "_UNKNOWN_BROKER _DESTROY_BROKER _NODE_UPDATE _OUTDATED _PARTIAL _WAIT_CACHE _WAIT_COORD _BAD_MSG "
        "_BAD_COMPRESSION _UNDERFLOW _UNKNOWN_PROTOCOL",
        Refusal.TRANSIENT,
    ),
}

_DEFAULTS: Final[Mapping[str, str]] = {
    "client.id": "vectide",
    "log_level": "0",
    # The broker judges each letter for itself: one that is too large must not condemn its neighbours.
    "linger.ms": "0",
    "batch.num.messages": "1",
    # Room for the largest record plus our headers; the topic's own limit is for the broker to apply.
    "message.max.bytes": "104857600",
    # An answer, good or bad, well before the next attempt. The default of five minutes would pile up copies.
    "message.timeout.ms": "15000",
}
#: Duplicates are allowed here, loss is not. An idempotent producer can break for good, and lose reports then.
_FIXED: Final[Mapping[str, str]] = {"acks": "all", "enable.idempotence": "false"}
_NOT_FOR_US: Final = frozenset({"transactional.id", "group.id", "request.required.acks"})


def refusal_of(error: KafkaError) -> Refusal:
    """What an error of the producer means. Whatever its code, one that is fatal breaks the producer."""
    if error.fatal():
        return Refusal.PRODUCER
    return REFUSALS.get(error.name(), Refusal.TRANSIENT)


def refuse_loop(topic: str, subscribed: Sequence[str]) -> None:
    """Raises ValueError when the dead-letter topic is among the subscribed topics or matches a pattern of
    theirs (``^...``): every dead letter would come back as a record."""
    for source in subscribed:
        if source == topic or (source.startswith("^") and re.match(source, topic)):
            raise ValueError(
                f"the dead-letter topic {topic} would be consumed itself, through {source}: "
                "name another one with VECTIDE_DLQ__TOPIC, or narrow the topics"
            )


@dataclass(frozen=True, slots=True)
class _Form:
    """A letter as it goes out."""

    key: bytes | None
    value: bytes | None
    headers: list[Header]
    timestamp_ms: int


class KafkaDeadLetters:
    """Implements :class:`vectide.ports.DeadLetters`. Safe to use from any thread.

    ``extra`` are the operator's librdkafka properties; those for consumers only are without effect.
    ``version`` is written into every letter. Raises ValueError when the properties cannot be used.
    """

    def __init__(
        self, *, bootstrap_servers: str, topic: str, extra: Mapping[str, str], clock: Clock, version: str
    ) -> None:
        self.topic = topic
        self._clock = clock
        self._version = version
        wished = {name: value for name, value in extra.items() if name not in _NOT_FOR_US}
        self._config = {"bootstrap.servers": bootstrap_servers, **_DEFAULTS, **wished, **_FIXED}
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        #: What the cluster has against us, told by connections while letters only time out.
        self._refused: KafkaError | None = None
        try:
            self._current: Producer | None = self._build()
        except KafkaException as exception:
            raise ValueError(f"the Kafka properties are refused: {_error_of(exception).str()}") from exception

    # --- sending ---------------------------------------------------------------------------------------

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        """Returns when the broker has confirmed every letter.

        Raises :class:`AdapterError` else, two seconds after the deadline at the latest: transient, or for an
        operator (topic gone, not allowed, too large even as a pointer). Some letters may have been written;
        a repeat writes them again.
        """
        for form_of in (self._whole, self._pointer, self._bare_pointer):
            too_large = self._deliver([form_of(letter) for letter in letters], deadline)
            letters = [letters[index] for index in too_large]
            if not letters:
                return
        detail = f"{self.topic} takes not even a record's headers: raise its max.message.bytes"
        raise AdapterError(Failure(Kind.OPERATOR, "msg_size_too_large", detail))

    def _deliver(self, forms: Sequence[_Form], deadline: Deadline) -> Sequence[int]:
        """Send and wait for every report. Returns which were too large, raises for anything worse."""
        producer = self._producer()
        # One place per form; the report of another round can never land here.
        reports: dict[int, KafkaError | None] = {}
        for index, form in enumerate(forms):
            self._produce(producer, form, partial(_report, reports, index), deadline)
        while len(reports) < len(forms) and not deadline.passed:
            # One thread at a time serves the reports, whosesoever letters they are about.
            with self._polling:
                if len(reports) < len(forms):
                    producer.poll(_POLL_S)
        # A late report may still come in through another thread: what counts is what is known now.
        reports = dict(reports)
        errors = {index: error for index, error in reports.items() if error is not None}
        too_large = [index for index, error in errors.items() if refusal_of(error) is Refusal.TOO_LARGE]
        if len(too_large) < len(errors) or len(reports) < len(forms):
            raise self._worst(producer, errors, unreported=len(forms) - len(reports))
        if forms and not errors:
            self._refused = None
        return too_large

    def _produce(
        self,
        producer: Producer,
        form: _Form,
        report: Callable[[KafkaError | None, Message | None], None],
        deadline: Deadline,
    ) -> None:
        while not deadline.passed:
            try:
                producer.produce(
                    self.topic,
                    value=form.value,
                    key=form.key,
                    headers=list(form.headers),
                    timestamp=max(0, form.timestamp_ms),
                    on_delivery=report,
                )
            except BufferError:
                with self._polling:
                    producer.poll(_POLL_S)
            except KafkaException as exception:
                report(_error_of(exception), None)
                return
            else:
                return

    def _worst(
        self, producer: Producer, errors: Mapping[int, KafkaError], *, unreported: int
    ) -> AdapterError:
        """The gravest of the errors, as what the caller shall know."""
        refusals = {refusal_of(error): error for error in errors.values()}
        operator = refusals.get(Refusal.OPERATOR) or self._refused
        if operator is not None:
            # It may remember a topic as missing or forbidden long after that is mended.
            self._discard(producer)
            return AdapterError(
                Failure(Kind.OPERATOR, _cause_of(operator), f"{self.topic}: {operator.str()}")
            )
        broken = refusals.get(Refusal.PRODUCER)
        if broken is not None:
            self._discard(producer)
        error = broken or refusals.get(Refusal.TRANSIENT)
        if error is not None and error.name() != "_MSG_TIMED_OUT":
            return AdapterError(Failure(Kind.TRANSIENT, _cause_of(error), f"{self.topic}: {error.str()}"))
        # While the topic is missing the client goes on trying, and in the end only says that time is up.
        why = self._why_unusable()
        if why:
            self._discard(producer)
            return AdapterError(Failure(Kind.OPERATOR, "topic_unusable", why))
        detail = f"{self.topic}: {unreported or len(errors)} letters without an answer"
        return AdapterError(Failure(Kind.TRANSIENT, "timed_out", detail))

    def _why_unusable(self) -> str:
        """What an operator must do so that the topic can be written; empty when nothing is known."""
        try:
            self.check(Deadline.after(self._clock, _WHY_TIMEOUT_S))
        except StartupRefused as refused:
            return str(refused)
        except AdapterError:
            return ""
        return ""

    # --- the producer ----------------------------------------------------------------------------------

    def _build(self) -> Producer:
        return Producer(self._config | {"error_cb": self._on_error})

    def _producer(self) -> Producer:
        with self._lock:
            if self._current is None:
                self._current = self._build()
            return self._current

    def _discard(self, producer: Producer) -> None:
        """Build another one for the next letters. Threads that wait on this one end with it."""
        with self._lock:
            if self._current is producer:
                self._current = self._refused = None
        producer.purge(in_queue=True, in_flight=True)

    def _on_error(self, error: KafkaError) -> None:
        if refusal_of(error) is Refusal.OPERATOR:
            self._refused = error

    def close(self) -> None:
        """Drop what was not confirmed: nobody counts it as sent."""
        with self._lock:
            producer, self._current = self._current, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True)

    # --- start-up --------------------------------------------------------------------------------------

    def check(self, deadline: Deadline) -> None:
        """Verify that the topic exists and that we may write to it, as far as the cluster tells.

        Raises :class:`StartupRefused` naming the topic and the remedy, or :class:`AdapterError` (transient)
        when the cluster cannot be reached. Writes nothing.
        """
        refused: list[KafkaError] = []

        def on_error(error: KafkaError) -> None:
            if refusal_of(error) is Refusal.OPERATOR:
                refused.append(error)

        config: dict[str, Any] = {**self._config, "error_cb": on_error}
        remaining_s = deadline.remaining_s()
        with AdminClient(config) as admin:
            future = admin.describe_topics(
                TopicCollection([self.topic]), include_authorized_operations=True, request_timeout=remaining_s
            )[self.topic]
            try:
                allowed = future.result(remaining_s + 1.0).authorized_operations
            except TimeoutError as timeout:
                detail = f"{self.topic}: no answer about the topic"
                raise AdapterError(Failure(Kind.TRANSIENT, "timed_out", detail)) from timeout
            except KafkaException as exception:
                admin.poll(0)
                raise self._refusal(refused[-1] if refused else _error_of(exception)) from exception
        # A broker that does not tell is believed.
        if allowed and not {AclOperation.WRITE, AclOperation.ALL} & set(allowed):
            raise StartupRefused(self._not_allowed("WRITE"))

    def _refusal(self, error: KafkaError) -> Exception:
        name = error.name()
        if name in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
            return StartupRefused(
                f"the dead-letter topic {self.topic} does not exist: create it, or name another one with "
                "VECTIDE_DLQ__TOPIC (`vectide topics` says how it should be, and makes it with --create)"
            )
        if name == "TOPIC_AUTHORIZATION_FAILED":
            return StartupRefused(self._not_allowed("DESCRIBE and WRITE"))
        if refusal_of(error) is Refusal.OPERATOR:
            return StartupRefused(f"the dead-letter topic {self.topic} cannot be used: {error.str()}")
        return AdapterError(Failure(Kind.TRANSIENT, _cause_of(error), f"{self.topic}: {error.str()}"))

    def _not_allowed(self, operations: str) -> str:
        return f"the dead-letter topic {self.topic} may not be written: grant {operations} on it to this user"

    # --- forms -----------------------------------------------------------------------------------------

    def _whole(self, letter: Letter) -> _Form:
        record = letter.record
        return _Form(record.key, record.value, [*record.headers, *self._headers(letter)], record.timestamp_ms)

    def _pointer(self, letter: Letter) -> _Form:
        record = letter.record
        short = record.key is not None and len(record.key) <= MAX_POINTER_KEY_BYTES
        headers = [
            *self._headers(letter),
            _header("truncated", "true"),
            _header("key_bytes", str(len(record.key or b""))),
            _header("value_bytes", str(len(record.value or b""))),
        ]
        return _Form(record.key if short else None, b"", headers, record.timestamp_ms)

    def _bare_pointer(self, letter: Letter) -> _Form:
        return replace(self._pointer(letter), key=None)

    def _headers(self, letter: Letter) -> list[Header]:
        record: Record = letter.record
        failed_at = datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)
        return [
            _header("cause", letter.cause),
            _header("stage", letter.stage),
            _header("detail", letter.detail, MAX_DETAIL_BYTES),
            _header("topic", record.topic),
            _header("partition", str(record.partition)),
            _header("offset", str(record.offset)),
            _header("timestamp", str(record.timestamp_ms)),
            _header("log", letter.log),
            _header("table", letter.table),
            _header("attempts", str(letter.attempts)),
            _header("version", self._version),
            _header("failed_at", failed_at.isoformat(timespec="milliseconds")),
        ]


def _header(name: str, text: str, limit: int = MAX_HEADER_BYTES) -> Header:
    """One line of text, cut at a character."""
    encoded = _CONTROL.sub(" ", text).encode("utf-8", "replace")
    return PREFIX + name, encoded[:limit].decode("utf-8", "ignore").encode()


def _report(
    reports: dict[int, KafkaError | None], index: int, error: KafkaError | None, _message: Message | None
) -> None:
    reports[index] = error


def _cause_of(error: KafkaError) -> str:
    return error.name().strip("_").lower()


def _error_of(exception: KafkaException) -> KafkaError:
    inner = exception.args[0] if exception.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError.UNKNOWN, str(exception))
