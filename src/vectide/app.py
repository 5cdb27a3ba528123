"""The composition root: settings to objects to a job. The only module that knows every adapter."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from vectide import __version__, codecs, embedders, stores
from vectide.core import signals
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import Kind
from vectide.core.health import Health, health_of
from vectide.core.lifecycle import State, Status, Trouble, assess
from vectide.core.model import DecodeError, Record, Upserted
from vectide.deadletters import KafkaDeadLetters
from vectide.jobs.executor import SystemClock, ThreadExecutor
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.stream import Stream
from vectide.ops.http import HttpServer, ListenError, build_app
from vectide.ops.logs import Logs
from vectide.ops.metrics import PrometheusTelemetry
from vectide.ops.stopping import Stopping
from vectide.ports import (
    AdapterError,
    Codec,
    CollectionSpec,
    Deadline,
    Embedder,
    MissingExtra,
    StartupRefused,
    Store,
)
from vectide.settings import Settings, SettingsError, secret_values
from vectide.sources.kafka import KafkaSource

T = TypeVar("T")

#: Time for one call of the start-up; it is repeated until it succeeds.
START_CALL_S: Final = 10.0
#: Records of each partition that the start-up looks at to verify the mapped columns.
SAMPLE_RECORDS: Final = 5
LOOKUP_LINGER_S: Final = 0.005
LOOKUP_CONCURRENCY: Final = 2
#: Planning the rows of one look-up keeps the pump's thread busy: small enough that calls do not wait for it.
LOOKUP_ITEMS: Final = 128
#: Workers need the interpreter only for moments, but at once: a free slot costs throughput.
SWITCH_INTERVAL_S: Final = 0.001


class Stopped(Exception):
    """The service was asked to stop before it had started."""


# --- parts ----------------------------------------------------------------------------------------------


def build_embedder(settings: Settings) -> Embedder:
    """The configured embedder; nothing has been asked of its provider yet."""
    given = settings.embedder
    return embedders.load(
        given.kind,
        model=given.model,
        base_url=given.base_url,
        api_key=given.api_key.get_secret_value() if given.api_key else None,
        dimensions=given.dimensions,
        concurrency=given.concurrency,
    )


def build_store(settings: Settings) -> Store:
    """The configured store; not connected yet."""
    given = settings.store
    # Look-ups run beside the writes.
    connections = given.concurrency + LOOKUP_CONCURRENCY
    return stores.load(given.kind, dsn=given.address, schema=given.schema_name, pool_size=connections)


def build_codec(settings: Settings) -> Codec:
    return codecs.load(
        "json",
        unavailable=settings.codec.unavailable_placeholder,
        lenient_keys=any(mapping.key for mapping in settings.mappings),
    )


def build_source(settings: Settings, telemetry: PrometheusTelemetry, logs: Logs) -> KafkaSource:
    try:
        return KafkaSource(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            group_id=settings.kafka.group_id,
            topics=settings.topics,
            extra=settings.kafka.properties,
            clock=SystemClock(),
            telemetry=telemetry,
            log=logs.get("kafka"),
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None


def build_dead_letters(settings: Settings) -> KafkaDeadLetters:
    try:
        return KafkaDeadLetters(
            bootstrap_servers=settings.kafka.bootstrap_servers,
            topic=settings.dlq.topic,
            extra=settings.kafka.properties,
            clock=SystemClock(),
            version=__version__,
        )
    except ValueError as error:
        raise SettingsError([f"VECTIDE_KAFKA__EXTRA: {error}"]) from None


def policy_of(settings: Settings) -> StreamPolicy:
    """The pump's numbers, from the settings."""
    embedder, store, limits = settings.embedder, settings.store, settings.limits
    write = BatchLimits(store.batch_items, 4 * 2**20, store.linger_ms / 1000, quiet_s=0.002)
    return StreamPolicy(
        lookup=BatchLimits(min(LOOKUP_ITEMS, store.batch_items), None, LOOKUP_LINGER_S, quiet_s=0.002),
        embed=BatchLimits(embedder.batch_items, embedder.batch_tokens, embedder.linger_ms / 1000),
        write=write,
        lookup_concurrency=LOOKUP_CONCURRENCY,
        embed_concurrency=embedder.concurrency,
        write_concurrency=store.concurrency,
        embed_timeout_s=embedder.timeout_s,
        store_timeout_s=store.timeout_s,
        records_in_flight=limits.records_in_flight,
        bytes_in_flight=int(limits.bytes_in_flight),
        commit_interval_s=limits.commit_interval_s,
        grace_s=limits.grace_s,
        breaker=BreakerLimits(settings.dlq.max_in_a_row, settings.dlq.max_share, settings.dlq.window),
    )


def collections_of(settings: Settings, embedder: Embedder) -> Mapping[str, CollectionSpec]:
    """What each collection must be."""
    return {
        mapping.collection: CollectionSpec(mapping.collection, embedder.dimensions, embedder.space)
        for mapping in settings.mappings
    }


def check_topics(settings: Settings, source: KafkaSource, deadline: Deadline) -> None:
    """Raises StartupRefused when a subscribed topic does not exist or Kafka refuses us, AdapterError when it
    cannot be reached."""
    try:
        missing = source.missing_topics(settings.topics, deadline)
    except AdapterError as error:
        if error.failure.kind is Kind.OPERATOR:
            raise StartupRefused(
                f"Kafka refuses us ({error.failure.detail}): check the credentials and TLS properties in "
                "VECTIDE_KAFKA__EXTRA"
            ) from None
        raise
    if missing:
        raise StartupRefused(
            f"Kafka has no topic {', '.join(missing)} (or hides it from us): create it, allow Describe, "
            "or correct the table's source"
        )


def newest_records(source: KafkaSource, per_partition: int, deadline: Deadline) -> Sequence[Record]:
    """The newest records of every partition of the subscribed topics, read outside the group."""
    return source.sample(source.topics_matching(deadline), per_partition, deadline)


def unknown_columns(settings: Settings, records: Sequence[Record], codec: Codec) -> list[str]:
    """Problems with mapped columns, from these events; none for tables that have no event among them.

    A column that no event knows would otherwise halt its table at the first record.
    """
    missing: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}
    for record in records:
        mapping = settings.mapping_of(record.topic)
        try:
            change = codec.decode(record)
        except DecodeError:
            continue  # the stream will meet it, and dead-letter it
        if mapping is not None and isinstance(change, Upserted):
            # Events from before a column was added lack it rightly: one that has it is enough.
            missing.setdefault(mapping.table, set(mapping.mapped_columns)).intersection_update(
                mapping.missing(change)
            )
            known.setdefault(mapping.table, set()).update(change.columns, change.unavailable)
    return [
        f"tables.{table}: the events have no column {', '.join(map(repr, sorted(columns)))}; "
        f"they have {', '.join(sorted(known[table]))}"
        for table, columns in missing.items()
        if columns
    ]


# --- the service ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stage:
    """What the process is at, for the health endpoints: the pump's own status once it runs."""

    status: Status
    beat: Callable[[], float]


class Service:
    """``vectide run``: everything from the settings to the last commit.

    :meth:`run` blocks until :meth:`stop` (from any thread) and its drain are done. It raises SettingsError,
    StartupRefused or MissingExtra for what an operator must mend before a start, and anything else for what
    is fatal while running.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._clock = SystemClock()
        self._logs = Logs(settings.log.format, settings.log.level, secrets=secret_values(settings))
        self._log = self._logs.get("vectide")
        self._telemetry = PrometheusTelemetry()
        self._stage = _Stage(assess(started=False, stopping=False, troubles=()), self._clock.monotonic)

    def stop(self) -> None:
        """Ask the service to end. Only sets a flag."""
        self._stopping.set()

    def run(self, ending: Callable[[], None] = lambda: None) -> None:
        """``ending`` is told when the work is over, well or not, and everything is about to be closed."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._logs.capture_libraries()
        self._telemetry.gauge(signals.BUILD_INFO, 1, version=__version__)
        http = self._http()
        try:
            http.start()
        except ListenError as error:
            raise SettingsError([str(error)]) from None
        self._log.info("listening", host=self._settings.http.host, port=http.port, version=__version__)
        try:
            self._run(ending)
        except Stopped:
            self._log.info("stopped", drained=True, replayed_later=0)
        except (SettingsError, StartupRefused, MissingExtra) as refusal:
            self._log.error("refused", detail="; ".join(str(refusal).splitlines()))
            raise
        except Exception as error:
            self._log.error("fatal", exc_info=error)
            raise
        finally:
            http.stop()

    def _http(self) -> HttpServer:
        given = self._settings.http
        token = given.token.get_secret_value() if given.token else None
        app = build_app(
            self._health,
            self._telemetry.exposition,
            exposition_type=self._telemetry.content_type,
            token=token,
        )
        return HttpServer(app, host=given.host, port=given.port)

    def _health(self) -> Health:
        stage = self._stage
        beat_age_s = self._clock.monotonic() - stage.beat()
        limit_s = self._settings.limits.stall_s
        return health_of(stage.status, beat_age_s=beat_age_s, max_beat_age_s=limit_s)

    # --- start ------------------------------------------------------------------------------------------

    def _run(self, ending: Callable[[], None]) -> None:
        settings = self._settings
        embedder = build_embedder(settings)
        store = build_store(settings)
        letters = build_dead_letters(settings)
        source = build_source(settings, self._telemetry, self._logs)
        codec = build_codec(settings)
        policy = policy_of(settings)
        executor = ThreadExecutor(
            {
                "lookup": policy.lookup_concurrency,
                "embed": policy.embed_concurrency,
                "write": policy.write_concurrency,
                "dead_letter": 1,
            }
        )
        try:
            self._start_up(embedder, store, letters, source, codec)
            parts = Parts(
                source,
                codec.decode,
                settings.mapping_of,
                embedder,
                store,
                letters,
                executor,
                self._clock,
                self._telemetry,
                self._logs.get("stream"),
                random.random,
            )
            self._stream(Stream(parts, policy))
        finally:
            ending()
            deadline = Deadline.after(self._clock, settings.limits.grace_s / 8)
            source.close(deadline)
            executor.close(deadline)
            letters.close()
            store.close()
            embedder.close()

    def _start_up(
        self,
        embedder: Embedder,
        store: Store,
        letters: KafkaDeadLetters,
        source: KafkaSource,
        codec: Codec,
    ) -> None:
        """Wait for what cannot be reached; refuse what can never work."""
        self._wait_for("embedder", embedder.prepare)
        for spec in collections_of(self._settings, embedder).values():
            self._wait_for("store", partial(store.prepare, spec))
        self._wait_for("kafka", lambda deadline: check_topics(self._settings, source, deadline))
        self._wait_for("dead letters", letters.check)
        newest = self._wait_for("kafka", lambda deadline: newest_records(source, SAMPLE_RECORDS, deadline))
        problems = unknown_columns(self._settings, newest, codec)
        if problems:
            raise SettingsError(problems)

    def _wait_for(self, what: str, attempt: Callable[[Deadline], T]) -> T:
        """Repeat until it succeeds; the reason is shown on every surface meanwhile."""

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, AdapterError)
            failure = error.failure
            self._is_starting(Trouble(what, failure.cause, halting=failure.kind is Kind.OPERATOR))
            self._log.warning("waiting", dependency=what, cause=failure.cause, detail=failure.detail)

        def pause(seconds: float) -> None:
            self._stopping.wait(seconds)

        retrying = Retrying(
            retry=retry_if_exception_type(AdapterError),
            wait=wait_exponential_jitter(initial=0.5, max=15.0),
            stop=stop_when_event_set(self._stopping),
            sleep=pause,
            before_sleep=tell,
            reraise=True,
        )
        try:
            result = retrying(lambda: attempt(Deadline.after(self._clock, START_CALL_S)))
        except AdapterError:
            raise Stopped from None
        if self._stopping.is_set():
            raise Stopped
        self._is_starting()
        return result

    def _is_starting(self, *troubles: Trouble) -> None:
        status = assess(started=False, stopping=False, troubles=troubles)
        self._stage = replace(self._stage, status=status)
        for state in State:
            self._telemetry.gauge(signals.STATE, float(state is status.state), state=state.value)

    # --- run --------------------------------------------------------------------------------------------

    def _stream(self, stream: Stream) -> None:
        stream.start()
        self._log.info("started", tables=len(self._settings.mappings), topics=len(self._settings.topics))
        while not stream.finished:
            if self._stopping.is_set():
                stream.stop()
            stream.step()
            self._stage = _Stage(stream.status, lambda: stream.beat_s)


def serve(settings: Settings) -> None:
    """Run the service until a signal ends it. Only from the main thread; raises as :meth:`Service.run`."""
    service = Service(settings)
    stopping = Stopping(service.stop, settings.limits.grace_s)
    stopping.install()
    service.run(ending=stopping.begin)
