"""The composition root of ``vectide run``: from the settings to a service that starts, streams and ends."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from vectide import __version__
from vectide.app import (
    SAMPLE_RECORDS,
    Dependencies,
    build_all,
    build_decoder,
    build_replays,
    check_topics,
    collections_of,
    newest_records,
    once,
    policy_of,
    routes_of,
    unknown_columns,
)
from vectide.core import signals
from vectide.core.failures import Kind
from vectide.core.health import Health, health_of
from vectide.core.lifecycle import State, Status, Trouble, assess
from vectide.jobs.executor import SystemClock, ThreadExecutor, tune_interpreter
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Routes, is_several, providers_of
from vectide.jobs.stream import Stream
from vectide.ops.http import HttpServer, ListenError, build_app
from vectide.ops.http_connections import ServerCertificate
from vectide.ops.logs import Logs
from vectide.ops.metrics import PrometheusTelemetry
from vectide.ops.stopping import Stopping
from vectide.ports import (
    AdapterError,
    Deadline,
    RowReader,
    SchemaCodec,
    StartupRefused,
)
from vectide.settings import Settings, SettingsError, secret_values

T = TypeVar("T")

#: Time for one call of the start-up; it is repeated until it succeeds.
START_CALL_S: Final = 5.0


class Stopped(Exception):
    """The service was asked to stop before it had started."""


@dataclass(slots=True)
class _Stage:
    """What the process is at, for the health endpoints: the pump's own status once it runs."""

    status: Status
    beat: Callable[[], float]


class Service:
    """``vectide run``: everything from the settings to the last commit.

    :meth:`run` blocks until :meth:`stop` (from any thread) and its drain are done. It raises SettingsError
    or StartupRefused for what an operator must mend before a start, and anything else for what is fatal
    while running.
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
        except (SettingsError, StartupRefused) as refusal:
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
        certificate = None
        if given.certificate_path and given.key_path:
            certificate = ServerCertificate(given.certificate_path, given.key_path, self._old_certificate)
        return HttpServer(app, host=given.host, port=given.port, certificate=certificate)

    def _old_certificate(self, detail: str) -> None:
        self._log.warning("certificate_not_renewed", detail=detail)

    def _health(self) -> Health:
        stage = self._stage
        beat_age_s = self._clock.monotonic() - stage.beat()
        limit_s = self._settings.limits.stall_s
        return health_of(stage.status, beat_age_s=beat_age_s, max_beat_age_s=limit_s)

    # --- start ------------------------------------------------------------------------------------------

    def _run(self, ending: Callable[[], None]) -> None:
        settings = self._settings
        given = build_all(settings, self._telemetry, self._logs)
        policy, routes = policy_of(settings), routes_of(settings, given)
        executor = ThreadExecutor(policy.pools(routes))
        replays = build_replays(settings, self._logs)
        try:
            self._start_up(given, routes)
            parts = Parts(
                given.source,
                given.codec.decode,
                settings.mapping_of,
                routes,
                given.dead_letters,
                executor,
                self._clock,
                self._telemetry,
                self._logs.get("stream"),
                random.random,
                given.registry,
                given.codec.learn if isinstance(given.codec, SchemaCodec) else None,
                replays,
                build_decoder(settings, given.codec, given.registry),
                settings.tables_of,
            )
            replays.start()
            self._stream(Stream(parts, policy))
        finally:
            ending()
            deadline = Deadline.after(self._clock, settings.limits.grace_s / 16)
            given.source.close(deadline)
            executor.close(deadline)
            replays.close()
            given.close()

    def _start_up(self, given: Dependencies, routes: Routes) -> None:
        """Wait for what cannot be reached; refuse what can never work."""
        settings, source = self._settings, given.source
        several = is_several(routes)
        for provider in providers_of(routes):
            name = f"embedder {provider.name}" if several else "embedder"
            self._wait_for(name, provider.embedder.prepare)
        for collection in collections_of(settings, routes):
            target = collection.target
            name = f"store {target.name}" if several else "store"
            self._wait_for(name, partial(target.store.prepare, collection.spec))
        for reader in once(given.readers.values()):
            self._ask_source(reader)
        self._wait_for("kafka", lambda deadline: check_topics(settings, source, deadline))
        self._wait_for("dead letters", given.dead_letters.check)
        if given.registry is not None:
            self._wait_for("registry", given.registry.check)
        newest = self._wait_for("kafka", lambda deadline: newest_records(source, SAMPLE_RECORDS, deadline))
        decode = build_decoder(settings, given.codec, given.registry)
        problems = self._wait_for("registry", lambda _deadline: unknown_columns(settings, newest, decode))
        if problems:
            raise SettingsError(problems)

    def _ask_source(self, reader: RowReader) -> None:
        """Refuse a source that refuses us. One that cannot be reached is not waited for: few changes need
        it, and those wait by themselves."""
        try:
            reader.prepare(Deadline.after(self._clock, START_CALL_S))
        except AdapterError as error:
            failure = error.failure
            self._log.warning("source_unreachable", cause=failure.cause, detail=failure.detail)

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
        tune_interpreter()
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
