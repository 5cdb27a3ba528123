"""The simulated world: a clock, a broker, a store and a provider that delay, reorder, fail and forget.

One thread. Calls that the pump hands to the executor run when the clock passes their moment and come back
when it passes another one, so that a crash can fall between the two.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.simulation.scenario import POISON_PRICE, POISON_TEXT, TOPIC, Event, Fault, Scenario
from vectide.core.failures import Failure, Kind
from vectide.core.model import Change, DecodeError, Record, Row, Stamp, text_hash
from vectide.ports import (
    AdapterError,
    Capabilities,
    CollectionSpec,
    Completion,
    Deadline,
    EmbedderLimits,
    Embeddings,
    Letter,
    Outcome,
    Partition,
    Patch,
    Put,
    SourceListener,
    Vector,
    Write,
)
from vectide.testing.store import MemoryStore

DIMENSIONS = 4


class SimClock:
    """Virtual time; things happen when it passes their moment."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def at(self, moment_s: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (moment_s, self._count, happen))

    def next_s(self) -> float | None:
        return self._agenda[0][0] if self._agenda else None

    def advance_to(self, moment_s: float) -> None:
        while self._agenda and self._agenda[0][0] <= moment_s:
            due, _, happen = heapq.heappop(self._agenda)
            self.now_s = max(self.now_s, due)
            happen()
        self.now_s = max(self.now_s, moment_s)


class SimExecutor:
    """A call takes effect after a random while and returns after another one."""

    def __init__(self, clock: SimClock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._finished: list[Completion] = []
        self._pending: list[Callable[[], None]] = []

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        def apply() -> None:
            if apply not in self._pending:
                return
            self._pending.remove(apply)
            try:
                completion = Completion(done, result=call())
            except AdapterError as error:
                completion = Completion(done, error=error)
            delay = self._rng.choice((0.0, 0.001, 0.02))
            self._clock.at(self._clock.now_s + delay, lambda: self._finished.append(completion))

        self._pending.append(apply)
        self._clock.at(self._clock.now_s + self._rng.choice((0.0, 0.001, 0.01, 0.1)), apply)

    def crash(self) -> None:
        """The process dies: requests on the wire arrive or do not, nobody hears the answers."""
        for apply in list(self._pending):
            if self._rng.random() < 0.5:
                apply()
        self._pending.clear()

    def completed(self, wait_s: float) -> Sequence[Completion]:
        self._clock.advance_to(self._clock.now_s)
        end_s = self._clock.now_s + wait_s
        while not self._finished and (due := self._clock.next_s()) is not None and due <= end_s:
            self._clock.advance_to(due)
        if not self._finished:
            self._clock.advance_to(end_s)
        finished, self._finished = self._finished, []
        self._rng.shuffle(finished)
        return finished

    def close(self, deadline: Deadline) -> None:
        pass


class SimBroker:
    """The log of one topic, its committed offsets, and the dead letters."""

    def __init__(self, clock: SimClock, events: Sequence[Event], partitions: int) -> None:
        self._clock = clock
        self.logs: dict[Partition, list[tuple[float, Record]]] = {(TOPIC, p): [] for p in range(partitions)}
        self.ends: dict[Partition, int] = dict.fromkeys(self.logs, 0)
        self.changes: dict[tuple[int, int], Change | None] = {}
        self.committed: dict[Partition, int] = {}
        self.dead: list[Letter] = []
        for event in events:
            partition = (TOPIC, event.row % partitions)
            offset = self.ends[partition]
            record = Record(TOPIC, partition[1], offset, b"key", b"value")
            self.logs[partition].append((event.at_s + 1000.0, record))
            self.changes[(partition[1], offset)] = event.change
            self.ends[partition] = offset + 1 + event.hole

    def decode(self, record: Record) -> Change:
        change = self.changes[(record.partition, record.offset)]
        if change is None:
            raise DecodeError("not_json", "garbage")
        return change

    def read(self, partition: Partition, offset: int, limit: int) -> tuple[list[Record], bool]:
        """Arrived records from ``offset`` on, and whether they reach the end of the log."""
        log = self.logs[partition]
        found = [record for at_s, record in log if record.offset >= offset and at_s <= self._clock.now_s]
        whole = not log or log[-1][0] <= self._clock.now_s
        return found[:limit], whole and len(found) <= limit


class SimSource:
    """One consumer of the group. Rebalances and lost partitions come from the scenario's faults."""

    def __init__(self, broker: SimBroker, clock: SimClock, rng: random.Random) -> None:
        self._broker = broker
        self._clock = clock
        self._rng = rng
        self._listener: SourceListener
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._ended: set[Partition] = set()
        self._stored: dict[Partition, int] = {}
        self._pending: list[str] = []
        self._away: list[Partition] = list(broker.logs)
        self._back_at_s = 0.0
        self.commits_fail = False
        self.polls_while_paused = 0

    def start(self, listener: SourceListener) -> None:
        self._listener = listener

    def disturb(self, what: str) -> None:
        self._pending.append(what)

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        self._rebalance()
        self._report_ends()
        records = self._take(max_records)
        end_s = self._clock.now_s + timeout_s
        while not records and self._clock.now_s < end_s:
            due = self._clock.next_s()
            self._clock.advance_to(min(end_s, max(due, self._clock.now_s) if due is not None else end_s))
            records = self._take(max_records)
        return records

    def _rebalance(self) -> None:
        for what in self._pending:
            chosen = [p for p in self._positions if self._rng.random() < 0.7]
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
            self._listener.on_assigned(dict.fromkeys(back, "log-1"))
        elif self._away:
            self._clock.at(self._back_at_s, lambda: None)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            del self._positions[partition]
            self._paused.discard(partition)
            self._ended.discard(partition)
            self._stored.pop(partition, None)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        order = [partition for partition in self._positions if partition not in self._paused]
        self._rng.shuffle(order)
        for partition in order:
            limit = self._rng.randint(1, max(1, max_records - len(taken)))
            if len(taken) >= max_records:
                break
            records, whole = self._broker.read(partition, self._positions[partition], limit)
            taken += records
            if records:
                self._positions[partition] = records[-1].offset + 1
            if whole:
                self._positions[partition] = self._broker.ends[partition]
        return taken

    def _report_ends(self) -> None:
        for partition, position in self._positions.items():
            if position == self._broker.ends[partition] and partition not in self._ended:
                self._ended.add(partition)
                self._listener.on_end(partition, position)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused -= set(partitions)

    def rewind(self, partition: Partition, offset: int | None) -> None:
        self._positions[partition] = self._broker.committed.get(partition, 0) if offset is None else offset
        self._ended.discard(partition)

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        for partition, offset in positions.items():
            assert partition in self._positions, f"commit for {partition}, which is not assigned"
            self._stored[partition] = offset
        if self.commits_fail or (not wait and self._rng.random() < 0.1):
            if wait:
                raise AdapterError(Failure(Kind.TRANSIENT, "coordinator"))
            return  # what is stored goes with the next commit
        self._broker.committed.update(self._stored)

    def close(self, deadline: Deadline) -> None:
        pass


class SimProvider:
    """Embeds a text as a vector that only this text has."""

    space = "sim/4"
    dimensions = DIMENSIONS
    limits = EmbedderLimits(max_items=64)

    def __init__(self, rng: random.Random, error_rate: float) -> None:
        self._rng = rng
        self.error_rate = error_rate
        self.down = False
        self.throttled = False
        self.sent: list[str] = []
        self.watch: Callable[[Sequence[str]], None] = lambda texts: None

    def count_tokens(self, text: str) -> int:
        return len(text)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        if self.down:
            raise AdapterError(Failure(Kind.TRANSIENT, "server_error"))
        if self.throttled:
            raise AdapterError(Failure(Kind.THROTTLED, "rate_limited", retry_after_s=0.2))
        if self._rng.random() < self.error_rate:
            kind = self._rng.choice((Kind.TRANSIENT, Kind.INVALID))
            raise AdapterError(Failure(kind, "flaky"))
        if any(POISON_TEXT in text for text in texts):
            raise AdapterError(Failure(Kind.REFUSED, "bad_request"))
        self.watch(texts)
        self.sent += texts
        return Embeddings(np.stack([vector_of(text) for text in texts]), tokens=None)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        return vector_of(text)

    def prepare(self, deadline: Deadline) -> None:
        pass

    def close(self) -> None:
        pass


def vector_of(text: str) -> Vector:
    digest = text_hash(text)
    return np.array([int(digest[at : at + 4], 16) + 1 for at in range(0, 16, 4)], dtype=np.float32)


class SimStore:
    """The contract's memory store behind a network that loses requests and answers."""

    def __init__(self, rng: random.Random, error_rate: float) -> None:
        self._rng = rng
        self.inner = MemoryStore()
        self.error_rate = error_rate
        self.down = False
        self.inner.prepare(CollectionSpec("products", DIMENSIONS, "sim/4"), Deadline(SimClock(), 9e9))

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        self.inner.prepare(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        self._maybe_fail()
        if any(_is_poison(write) for write in writes):
            raise AdapterError(Failure(Kind.REFUSED, "bad_value"))
        outcomes = self.inner.write(collection, writes, deadline)
        self._maybe_fail(after=True)
        return outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        self._maybe_fail()
        return self.inner.stamps(collection, rows, deadline, values=values)

    def close(self) -> None:
        pass

    def _maybe_fail(self, *, after: bool = False) -> None:
        if self.down:
            raise AdapterError(Failure(Kind.TRANSIENT, "connection"))
        if self._rng.random() < self.error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "answer_lost" if after else "timeout"))


def _is_poison(write: Write) -> bool:
    match write:
        case Put(point):
            return POISON_PRICE in point.metadata.values()
        case Patch(_, metadata):
            return POISON_PRICE in metadata.values()
    return False


class SimDeadLetters:
    """Appends to the broker's list, or fails before or after it."""

    def __init__(self, broker: SimBroker, rng: random.Random, error_rate: float) -> None:
        self._broker = broker
        self._rng = rng
        self.error_rate = error_rate
        self.down = False

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        if self.down or self._rng.random() < self.error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "delivery"))
        self._broker.dead += letters
        if self._rng.random() < self.error_rate:
            raise AdapterError(Failure(Kind.TRANSIENT, "report_lost"))

    def close(self) -> None:
        pass


class SimTelemetry:
    """Counts, so that tests can ask."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        self.counts[(name, tuple(sorted(labels.items())))] += int(amount)

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        pass

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        pass


class SimLog:
    """Keeps what was logged; shown with a failing trace."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self.lines: list[str] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append(f"{self._clock.now_s - 1000:8.3f} {event} {fields}")

    warning = error = info


def schedule_faults(
    scenario: Scenario, clock: SimClock, world: Mapping[str, Any], crash: Callable[[], None]
) -> None:
    """Put the scenario's faults on the agenda. ``world`` holds provider, store, letters and ``source`` (a
    callable that gives the living one)."""
    for fault in scenario.faults:
        moment_s = 1000.0 + fault.at_s
        clock.at(moment_s, _start_of(fault, world, crash))
        if fault.for_s:
            clock.at(moment_s + fault.for_s, _end_of(fault, world))


def _start_of(fault: Fault, world: Mapping[str, Any], crash: Callable[[], None]) -> Callable[[], None]:
    match fault.what:
        case "crash":
            return crash
        case "rebalance" | "lost":
            return lambda: world["source"]().disturb(fault.what)
    return lambda: _switch(fault, world, on=True)


def _end_of(fault: Fault, world: Mapping[str, Any]) -> Callable[[], None]:
    return lambda: _switch(fault, world, on=False)


def _switch(fault: Fault, world: Mapping[str, Any], *, on: bool) -> None:
    match fault.what:
        case "provider_down":
            world["provider"].down = on
        case "throttle":
            world["provider"].throttled = on
        case "store_down":
            world["store"].down = on
        case "dlq_down":
            world["letters"].down = on
        case "commits_fail":
            world["source"]().commits_fail = on
