"""The simulated Kafka: the logs and the committed offsets; the dead letters; the schema registry."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from tests.simulation.clock import START_S, SimClock
from tests.simulation.scenario import PARTITIONS, UNREADABLE, Event

from vectide.core.failures import Failure, Kind
from vectide.core.model import Change, Columns, DecodeError, Deleted, Record, Upserted
from vectide.ports import (
    AdapterError,
    Deadline,
    IdKind,
    Letter,
    Partition,
    RegisteredSchema,
    SchemaFormat,
    SchemaId,
    SchemaMissing,
)

#: The schema that nobody registered.
UNKNOWN = "unknown"

#: A record's place: topic, partition, offset.
Place = tuple[str, int, int]


def place_of(record: Record) -> Place:
    return (record.topic, record.partition, record.offset)


def _offset(stored: tuple[float, Record]) -> int:
    return stored[1].offset


#: Where the offsets of a topic begin that was created again: no other record has them.
NEW_LOG = 100_000


def log_of(topic: str, offset: int) -> str:
    """The identity of the topic's log that has this offset, as a broker would tell it."""
    generation = offset // NEW_LOG
    return f"id {generation} of {topic}" if generation else f"id of {topic}"


class SimBroker:
    """The logs of all topics, their committed offsets, and the dead letters."""

    def __init__(
        self,
        clock: SimClock,
        events: Sequence[Event],
        per_schema: int,
        first: int,
        added: Collection[Partition] = (),
    ) -> None:
        self._clock = clock
        self._per_schema = per_schema
        #: How many each topic has, those that are still to be added left out.
        self.counts = dict(PARTITIONS)
        there = [(topic, p) for topic, count in PARTITIONS.items() for p in range(count)]
        partitions = [*there, *added]
        self.logs: dict[Partition, list[tuple[float, Record]]] = {partition: [] for partition in partitions}
        self.ends: dict[Partition, int] = dict.fromkeys(there, first) | dict.fromkeys(added, 0)
        self._there: dict[Partition, int] = dict.fromkeys(partitions, 0)
        #: Where the logs begin that are there now.
        self.begins: dict[Partition, int] = dict.fromkeys(partitions, 0)
        #: In the order in which they were produced.
        self.changes: dict[Place, Change | None] = {}
        #: The keys of those records of which nothing else can be read.
        self.keys: dict[Place, Columns] = {}
        #: What the events leave out, too.
        self.whole: dict[Place, Columns] = {}
        self.committed: dict[Partition, int] = {}
        self.dead: list[Letter] = []
        #: While it is on, events come without a mapped column, as after a schema change.
        self.drifting = False
        #: While it is on, no commit succeeds.
        self.commits_fail = False
        for event in events:
            partition = (event.topic, event.partition)
            self.ends[partition] = max(self.ends[partition], event.generation * NEW_LOG)
            record = Record(*partition, self.ends[partition], b"%d" % event.row, b"value")
            self.logs[partition].append((event.at_s + START_S, record))
            self.changes[place_of(record)] = event.change
            self.whole[place_of(record)] = event.whole or {}
            if event.kind == UNREADABLE:
                self.keys[place_of(record)] = {"id": event.row}
            self.ends[partition] = record.offset + 1 + event.hole
        for moment_s in {event.at_s + START_S for event in events}:
            clock.at(moment_s, clock.stir)

    def schema_of(self, record: Record) -> SchemaId | None:
        """What the record says of its schema. That of some garbage does not exist."""
        if not self._per_schema:
            return None
        if record.value is None:
            return SchemaId(IdKind.SCHEMA_ID, f"{record.topic} key")
        if self.changes[place_of(record)] is None and record.offset % 2:
            return SchemaId(IdKind.SCHEMA_ID, UNKNOWN)
        number = record.offset // self._per_schema
        # Two connectors write to the topic: one goes on with the old schema, the other has ever new ones.
        return SchemaId(IdKind.SCHEMA_ID, f"{record.topic} {record.partition} {number if number % 2 else 0}")

    def add(self, partition: Partition) -> None:
        """From now on the topic has this partition, too."""
        self.counts[partition[0]] += 1

    def recreate(self, topic: str) -> list[Partition]:
        """The topic is deleted and created again; its partitions."""
        parts = [partition for partition in self.logs if partition[0] == topic]
        for partition in parts:
            self.begins[partition] += NEW_LOG
            self.committed[partition] = self.begins[partition]
            self.ends[partition] = max(self.ends[partition], self.begins[partition])
        return parts

    def commit(self, stored: dict[Partition, int]) -> None:
        """Offsets of logs that are gone mean nothing any more."""
        self.committed |= {part: at for part, at in stored.items() if at >= self.begins[part]}

    def read(self, partition: Partition, offset: int, limit: int) -> tuple[list[Record], bool]:
        """Arrived records from ``offset`` on, and whether they reach the end of the log."""
        log = self.logs[partition]
        if offset < self.begins[partition]:
            return [], False
        first = bisect_left(log, offset, key=_offset)
        found = log[first : self._arrived(partition)]
        whole = self._arrived(partition) == len(log)
        return [record for _, record in found[:limit]], whole and len(found) <= limit

    def end_now(self, partition: Partition) -> int:
        """The end of the log as it is at this moment: the last holes come with the last record."""
        log, arrived = self.logs[partition], self._arrived(partition)
        if arrived == len(log):
            return self.ends[partition]
        return max(self.begins[partition], log[arrived - 1][1].offset + 1 if arrived else 0)

    def _arrived(self, partition: Partition) -> int:
        """How many records of the partition there are by now."""
        log, arrived = self.logs[partition], self._there[partition]
        while arrived < len(log) and log[arrived][0] <= self._clock.now_s:
            arrived += 1
        self._there[partition] = arrived
        return arrived


class SimCodec:
    """The codec of one process, with the schemas that it has been told."""

    def __init__(self, broker: SimBroker) -> None:
        self._broker = broker
        self._learned: set[SchemaId] = set()

    def decode(self, record: Record) -> Change:
        """As :meth:`vectide.ports.Codec.decode`."""
        change = self._broker.changes[place_of(record)]
        schema = self._broker.schema_of(record)
        if schema is not None and schema not in self._learned:
            raise SchemaMissing((schema,))
        if record.value is None and place_of(record) in self._broker.keys:
            return Deleted(self._broker.keys[place_of(record)])
        if change is None:
            raise DecodeError("not_json", "garbage")
        if self._broker.drifting and isinstance(change, Upserted):
            return replace(change, columns={k: v for k, v in change.columns.items() if k != "price"})
        return change

    def learn(self, schema_id: SchemaId, schema: RegisteredSchema) -> None:
        """As :meth:`vectide.ports.SchemaCodec.learn`."""
        self._learned.add(schema_id)


class SimRegistry:
    """Knows every schema but one, when it answers."""

    def __init__(self, rng: random.Random, error_rate: float) -> None:
        self._rng = rng
        self._error_rate = error_rate
        self.down = False
        self.refuses = False
        #: It fails for the schemas whose id holds this text.
        self.held_back: str | None = None
        self.asked: Counter[str] = Counter()

    def fetch(self, schema_id: SchemaId, deadline: Deadline) -> RegisteredSchema:
        self.asked[schema_id.value] += 1
        if self.held_back is not None and self.held_back in schema_id.value:
            raise AdapterError(Failure(Kind.TRANSIENT, "server_error"))
        if self.refuses:
            raise AdapterError(Failure(Kind.OPERATOR, "unauthorized"))
        if self.down or self._rng.random() < self._error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "server_error"))
        if schema_id.value == UNKNOWN:
            raise AdapterError(Failure(Kind.REFUSED, "schema_unknown"))
        return RegisteredSchema(SchemaFormat.AVRO, schema_id.value)

    def check(self, deadline: Deadline) -> str:
        return "registry"

    def close(self) -> None:
        pass


class SimDeadLetters:
    """Appends to the broker's list, or fails before or after it."""

    def __init__(self, broker: SimBroker, rng: random.Random, error_rate: float) -> None:
        self._broker = broker
        self._rng = rng
        self._error_rate = error_rate
        self.down = False
        self.refuses = False

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        if self.refuses:
            raise AdapterError(Failure(Kind.OPERATOR, "topic_missing"))
        if self.down or self._rng.random() < self._error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "delivery"))
        self._broker.dead += letters
        if self._rng.random() < self._error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "report_lost"))

    def close(self) -> None:
        pass
