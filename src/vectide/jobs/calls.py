"""How a station's call is made and how its end comes back, once for all stations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from vectide.core import signals
from vectide.core.failures import DeadLetter, Failure, Kind
from vectide.core.station import Station, Unit
from vectide.jobs.parts import Parts
from vectide.ports import AdapterError, Completion

T = TypeVar("T")


class Caller:
    """Runs calls in the executor, measures them, and turns exceptions into failures."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def now(self) -> float:
        return self._parts.clock.monotonic()

    def start(
        self,
        station: Station[T],
        unit: Unit[T],
        call: Callable[[], Any],
        succeed: Callable[[Any], None],
        fail: Callable[[Failure], None],
    ) -> None:
        """Run ``call`` on a worker; then exactly one of ``succeed`` and ``fail`` on the pump's thread."""
        started_s = self.now()
        telemetry, labels = self._parts.telemetry, station.labels
        telemetry.count(signals.STATION_CALLS, **labels)
        telemetry.observe(signals.STATION_BATCH, len(unit.items), **labels)

        def done(completion: Completion) -> None:
            telemetry.observe(signals.STATION_LATENCY, self.now() - started_s, **labels)
            failure = self._failure_of(station.full_name, completion.error)
            if failure is None:
                succeed(completion.result)
                return
            telemetry.count(signals.STATION_ERRORS, **labels, cause=failure.cause)
            fail(failure)

        self._parts.executor.submit(station.full_name, call, done)

    def react(self, station: Station[T], unit: Unit[T], failure: Failure) -> DeadLetter | None:
        """Let the station decide about a failed unit. A :class:`DeadLetter` is the caller's to perform."""
        reaction = station.failed(unit, failure, self.now())
        self._parts.log.warning(
            "call_failed",
            station=station.full_name,
            cause=failure.cause,
            detail=failure.detail,
            items=len(unit.items),
            reaction=type(reaction).__name__,
        )
        if isinstance(reaction, DeadLetter):
            return reaction
        self._parts.telemetry.count(signals.STATION_RETRIES, **station.labels, cause=failure.cause)
        return None

    def _failure_of(self, name: str, error: BaseException | None) -> Failure | None:
        match error:
            case None:
                return None
            case AdapterError():
                return error.failure
            case Exception():
                # An adapter broke its contract: never lose a record over it, never hide it.
                self._parts.log.error("unexpected_error", station=name, error=repr(type(error)))
                return Failure(Kind.TRANSIENT, "unexpected", type(error).__name__)
            case _:
                raise error
