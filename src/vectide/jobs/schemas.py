"""Decoding, where records only name their schemas: those whose schema is not there yet wait for it.

Asking the registry is a call like any other: it runs on a worker, and fails and is repeated as the station's
policy says. Meanwhile the records of the lane wait in their order, behind the one that cannot be decoded;
other lanes go on. What waits is received and not settled, so the budgets bound it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vectide.core.failures import Failure, Kind
from vectide.core.lane import Lane
from vectide.core.model import Change, DecodeError, Record
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.ports import (
    AdapterError,
    Clock,
    Codec,
    Deadline,
    RegisteredSchema,
    SchemaCodec,
    SchemaId,
    SchemaMissing,
    SchemaRegistry,
)

#: Waiting records that are decoded at a stretch: the pump has other things to do as well.
SLICE: Final = 200
#: How long an id that the registry does not know is believed to be unknown.
UNKNOWN_FOR_S: Final = 30.0
_MOST_UNKNOWN: Final = 1000


class Schemas:
    """``decode`` decodes a record and takes it on, or raises SchemaMissing; ``refuse`` ends one that can
    never be decoded, or raises SchemaMissing where its key can be later; ``caught_up`` hears of lanes in
    which no record waits any more."""

    def __init__(self, parts: Parts, caller: Caller, station: Station[SchemaId], timeout_s: float) -> None:
        self._parts = parts
        self._caller = caller
        self._timeout_s = timeout_s
        self.station = station
        self.decode: Callable[[Lane, Record], None]
        self.refuse: Callable[[Lane, Record, DecodeError], None]
        self.caught_up: Callable[[Lane], None]
        #: The schemas that are asked for, and the lanes that wait for them.
        self._wanted: dict[SchemaId, dict[Lane, None]] = {}
        #: The lanes whose first waiting record may be tried again, in the order in which that became so.
        self._ready: dict[Lane, None] = {}
        #: Until when (monotonic) ids are known to be unknown, and why.
        self._unknown: dict[SchemaId, tuple[float, Failure]] = {}

    def take(self, lane: Lane, record: Record) -> None:
        """A record arrived: decode it, or let it wait."""
        if lane.undecoded or not self._decoded(lane, record):
            lane.undecoded.append(record)

    def drain(self) -> None:
        """Decode what need not wait any more, at most :data:`SLICE` records; nothing behind a barrier."""
        for _ in range(SLICE):
            lane = next(iter(self._ready), None)
            if lane is None:
                return
            if not lane.undecoded or lane.barrier is not None:
                del self._ready[lane]
                continue
            record = lane.undecoded.popleft()
            if not self._decoded(lane, record):
                lane.undecoded.appendleft(record)
                del self._ready[lane]
            elif not lane.undecoded:
                self._ready.pop(lane, None)
                self.caught_up(lane)

    def resume(self, lane: Lane) -> None:
        """The lane's barrier is gone: what waits behind it may be tried again."""
        if lane.undecoded:
            self._ready[lane] = None

    @property
    def due_s(self) -> list[float]:
        """When :meth:`drain` should be called again (monotonic seconds); empty when it has nothing to do."""
        return [self._caller.now()] if self._ready else []

    def start(self, unit: Unit[SchemaId]) -> None:
        """Ask the registry for the unit's schema, if anybody still waits for it."""
        (wanted,) = unit.items
        if not self._wanted.get(wanted):
            self._wanted.pop(wanted, None)
            self.station.withdraw(unit)
            return
        parts = self._parts
        registry, learn = parts.registry, parts.learn
        assert registry is not None
        assert learn is not None

        def call() -> RegisteredSchema:
            return registry.fetch(wanted, Deadline.after(parts.clock, self._timeout_s))

        def succeed(schema: RegisteredSchema) -> None:
            self.station.succeeded(unit)
            learn(wanted, schema)
            parts.log.info("schema", id=str(wanted), format=schema.format.value)
            self._release(wanted)

        def fail(failure: Failure) -> None:
            if self._caller.react(self.station, unit, failure) is None:
                return
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[wanted] = (self._caller.now() + UNKNOWN_FOR_S, failure)
            self._release(wanted)

        self._caller.start(self.station, unit, call, succeed, fail)

    def sweep(self) -> None:
        """Forget what waits in lanes that are gone or leaving: those records are the next owner's."""
        waiting = {lane: None for lanes in self._wanted.values() for lane in lanes} | self._ready
        for lane in [lane for lane in waiting if not lane.active]:
            lane.undecoded.clear()
            self._ready.pop(lane, None)
            for lanes in self._wanted.values():
                lanes.pop(lane, None)
        for unwanted in self.station.sweep(lambda wanted: bool(self._wanted.get(wanted))):
            self._wanted.pop(unwanted, None)

    def _decoded(self, lane: Lane, record: Record) -> bool:
        """Whether the record is done with here; else its schemas are being asked for."""
        try:
            self._decode_or_refuse(lane, record)
        except SchemaMissing as missing:
            self._want(lane, missing.ids)
            return False
        return True

    def _decode_or_refuse(self, lane: Lane, record: Record) -> None:
        try:
            self.decode(lane, record)
        except SchemaMissing as missing:
            unknown = self.unknown_among(missing.ids)
            if unknown is None:
                raise
            self.refuse(lane, record, unknown)

    def _want(self, lane: Lane, ids: tuple[SchemaId, ...]) -> None:
        for wanted in ids:
            if wanted not in self._wanted:
                self._wanted[wanted] = {}
                self.station.add(wanted, 1, self._caller.now())
            self._wanted[wanted][lane] = None

    def _release(self, schema_id: SchemaId) -> None:
        for lane in self._wanted.pop(schema_id, ()):
            self._ready[lane] = None

    def unknown_among(self, ids: tuple[SchemaId, ...]) -> DecodeError | None:
        """Why a record that needs these can never be decoded; None while nothing says so."""
        for schema_id in ids:
            until_s, failure = self._unknown.get(schema_id, (0.0, None))
            if failure is not None and self._caller.now() < until_s:
                return unknown_schema(schema_id, failure)
        return None


def unknown_schema(schema_id: SchemaId, failure: Failure) -> DecodeError:
    """What to say of a record whose schema the registry does not have."""
    return DecodeError(failure.cause, f"{schema_id}: {failure.detail}")


def patient_decoder(
    codec: Codec, registry: SchemaRegistry | None, clock: Clock, timeout_s: float
) -> Callable[[Record], Change]:
    """Decodes at once, asking the registry on the way: for those who have nothing else to do meanwhile.

    What comes back raises DecodeError as a codec does, and AdapterError when the registry does not answer
    within ``timeout_s``.
    """
    if registry is None or not isinstance(codec, SchemaCodec):
        return codec.decode

    def decode(record: Record) -> Change:
        deadline = Deadline.after(clock, timeout_s)
        while True:
            try:
                return codec.decode(record)
            except SchemaMissing as missing:
                wanted = missing.ids[0]
            try:
                codec.learn(wanted, registry.fetch(wanted, deadline))
            except AdapterError as error:
                if error.failure.kind is not Kind.REFUSED:
                    raise
                raise unknown_schema(wanted, error.failure) from None

    return decode
