"""The simulated Kafka: the logs, the committed offsets, and one consumer of the group."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.simulation.clock import START_S, SimClock
from tests.simulation.scenario import PARTITIONS, Event

from vectide.core.failures import Failure, Kind
from vectide.core.model import Change, Columns, DecodeError, Record, Upserted
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
    SourceListener,
)

#: The schema that nobody registered.
UNKNOWN = "unknown"

#: A record's place: topic, partition, offset.
Place = tuple[str, int, int]


def place_of(record: Record) -> Place:
    return (record.topic, record.partition, record.offset)


def _offset(stored: tuple[float, Record]) -> int:
    return stored[1].offset


def log_of(topic: str) -> str:
    """The identity of the topic's log, as a broker would tell it."""
    return f"id of {topic}"


class SimBroker:
    """The logs of all topics, their committed offsets, and the dead letters."""

    def __init__(self, clock: SimClock, events: Sequence[Event], per_schema: int) -> None:
        self._clock = clock
        self._per_schema = per_schema
        #: The schemas that the living process has been told.
        self.learned: set[SchemaId] = set()
        partitions = [(topic, p) for topic, count in PARTITIONS.items() for p in range(count)]
        self.logs: dict[Partition, list[tuple[float, Record]]] = {partition: [] for partition in partitions}
        self.ends: dict[Partition, int] = dict.fromkeys(partitions, 0)
        self._there: dict[Partition, int] = dict.fromkeys(partitions, 0)
        #: In the order in which they were produced.
        self.changes: dict[Place, Change | None] = {}
        #: What the events leave out, too.
        self.whole: dict[Place, Columns] = {}
        self.committed: dict[Partition, int] = {}
        self.dead: list[Letter] = []
        #: While it is on, events come without a mapped column, as after a schema change.
        self.drifting = False
        for event in events:
            partition = (event.topic, event.partition)
            record = Record(*partition, self.ends[partition], b"key", b"value")
            self.logs[partition].append((event.at_s + START_S, record))
            self.changes[place_of(record)] = event.change
            self.whole[place_of(record)] = event.whole or {}
            self.ends[partition] = record.offset + 1 + event.hole
        for moment_s in {event.at_s + START_S for event in events}:
            clock.at(moment_s, clock.stir)

    def decode(self, record: Record) -> Change:
        """The codec of this world."""
        change = self.changes[place_of(record)]
        schema = self.schema_of(record)
        if schema is not None and schema not in self.learned:
            raise SchemaMissing((schema,))
        if change is None:
            raise DecodeError("not_json", "garbage")
        if self.drifting and isinstance(change, Upserted):
            return replace(change, columns={k: v for k, v in change.columns.items() if k != "price"})
        return change

    def schema_of(self, record: Record) -> SchemaId | None:
        """What the record says of its schema. That of some garbage does not exist."""
        if not self._per_schema:
            return None
        if self.changes[place_of(record)] is None and record.offset % 2:
            return SchemaId(IdKind.SCHEMA_ID, UNKNOWN)
        number = record.offset // self._per_schema
        # Two connectors write to the topic: one goes on with the old schema, the other has ever new ones.
        return SchemaId(IdKind.SCHEMA_ID, f"{record.topic} {record.partition} {number if number % 2 else 0}")

    def learn(self, schema_id: SchemaId, schema: RegisteredSchema) -> None:
        """The codec of this world has been told."""
        self.learned.add(schema_id)

    def read(self, partition: Partition, offset: int, limit: int) -> tuple[list[Record], bool]:
        """Arrived records from ``offset`` on, and whether they reach the end of the log."""
        log = self.logs[partition]
        first = bisect_left(log, offset, key=_offset)
        found = log[first : self._arrived(partition)]
        whole = self._arrived(partition) == len(log)
        return [record for _, record in found[:limit]], whole and len(found) <= limit

    def end_now(self, partition: Partition) -> int:
        """The end of the log as it is at this moment: the last holes come with the last record."""
        log, arrived = self.logs[partition], self._arrived(partition)
        if arrived == len(log):
            return self.ends[partition]
        return log[arrived - 1][1].offset + 1 if arrived else 0

    def _arrived(self, partition: Partition) -> int:
        """How many records of the partition there are by now."""
        log, arrived = self.logs[partition], self._there[partition]
        while arrived < len(log) and log[arrived][0] <= self._clock.now_s:
            arrived += 1
        self._there[partition] = arrived
        return arrived


class SimSource:
    """One consumer of the group. Rebalances and lost partitions come from the scenario's faults."""

    def __init__(self, broker: SimBroker, clock: SimClock, rng: random.Random, commits_lost: float) -> None:
        self._broker = broker
        self._clock = clock
        self._rng = rng
        self._listener: SourceListener
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._ended: dict[Partition, int] = {}
        self._stored: dict[Partition, int] = {}
        self._pending: list[str] = []
        self._away: list[Partition] = list(broker.logs)
        self._back_at_s = 0.0
        self._commits_lost = commits_lost
        self.commits_fail = False

    def start(self, listener: SourceListener) -> None:
        self._listener = listener

    def disturb(self, what: str) -> None:
        """``lost`` or ``rebalance`` with the next poll."""
        self._pending.append(what)

    def oust(self) -> None:
        """The group gives everything to somebody else."""
        mine = list(self._positions)
        self._drop(mine)
        self._listener.on_lost(mine)

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        self._rebalance()
        self._report_ends()
        records = self._take(max_records)
        end_s = self._clock.now_s + timeout_s
        self._clock.stirred = False
        while not records and self._clock.now_s < end_s and not self._clock.stirred:
            due = self._clock.next_s()
            self._clock.advance_to(min(end_s, max(due, self._clock.now_s) if due is not None else end_s))
            records = self._take(max_records)
        return records

    def _rebalance(self) -> None:
        for what in self._pending:
            chosen = [partition for partition in self._positions if self._rng.random() < 0.7]
            if what == "lost":
                self._drop(chosen)
                self._listener.on_lost(chosen)
            else:
                self._listener.on_revoked(chosen)
                self._drop(chosen)
            self._away += chosen
            self._back_at_s = self._clock.now_s + self._rng.choice((0.0, 0.01, 0.2))
        self._pending = []
        if self._away and self._clock.now_s >= self._back_at_s:
            back, self._away = self._away, []
            for partition in back:
                self._positions[partition] = self._broker.committed.get(partition, 0)
            self._listener.on_assigned({partition: log_of(partition[0]) for partition in back})
        elif self._away:
            self._clock.at(self._back_at_s, lambda: None)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            del self._positions[partition]
            self._paused.discard(partition)
            self._ended.pop(partition, None)
            self._stored.pop(partition, None)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        order = [partition for partition in self._positions if partition not in self._paused]
        self._rng.shuffle(order)
        for partition in order:
            if len(taken) >= max_records:
                break
            limit = self._rng.randint(1, max_records - len(taken))
            records, whole = self._broker.read(partition, self._positions[partition], limit)
            taken += records
            if records:
                self._positions[partition] = records[-1].offset + 1
            if whole:
                self._positions[partition] = self._broker.ends[partition]
        return taken

    def _report_ends(self) -> None:
        # Of paused partitions too: the end may have been met before the pause.
        for partition, position in self._positions.items():
            if position == self._broker.end_now(partition) and position != self._ended.get(partition):
                self._ended[partition] = position
                self._listener.on_end(partition, position)

    def partition_count(self, topic: str) -> int | None:
        return PARTITIONS[topic]

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused -= set(partitions)

    def rewind(self, partition: Partition, offset: int | None) -> None:
        self._positions[partition] = self._broker.committed.get(partition, 0) if offset is None else offset
        self._ended.pop(partition, None)

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        for partition, offset in positions.items():
            assert partition in self._positions, f"commit for {partition}, which is not assigned"
            self._stored[partition] = offset
        if self.commits_fail or (not wait and self._rng.random() < self._commits_lost):
            if wait:
                raise AdapterError(Failure(Kind.TRANSIENT, "coordinator"))
            return  # what is stored goes with the next commit
        self._broker.committed.update(self._stored)

    @property
    def problems(self) -> Mapping[str, str]:
        return {}

    def end_offsets(self) -> Mapping[Partition, int]:
        return {partition: self._broker.ends[partition] for partition in self._positions}

    def close(self, deadline: Deadline) -> None:
        pass


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
