"""The pump in a small world of its own: logs in memory, the memory store, virtual time, faults on demand."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vectide.cache import CachingEmbedder, VectorCache
from vectide.core import signals
from vectide.core.failures import Failure, Kind
from vectide.core.mapping import MetadataField, TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Record, Row, Stamp, Upserted, Value
from vectide.core.signals import Metric
from vectide.core.template import Template
from vectide.embedders.hashing import HashingEmbedder
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.routes import Provider as CalledProvider
from vectide.jobs.routes import Route, Routes, Target
from vectide.jobs.stream import Stream
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
    Remove,
    ReplayDesk,
    SourceListener,
    Stored,
    Write,
)
from vectide.testing.store import CAPABILITIES, MemoryStore

DIMENSIONS = 8
#: Points on a page of a scan.
SCAN_POINTS = 20
#: What one poll that brings records costs, in virtual seconds.
POLL_S = 0.001
DOWN = Failure(Kind.TRANSIENT, "server_error")
GARBAGE = None
NOTHING: Mapping[str, Any] = {}


def table(name: str) -> TableMapping:
    return TableMapping(
        table=name,
        source=f"shop.public.{name}",
        collection=name,
        template=Template.parse("{title}[\n{body}]"),
        metadata=(MetadataField("price", "price"),),
    )


PRODUCTS = table("products")
USERS = table("users")
FIRST: Partition = (PRODUCTS.source, 0)


def upsert(key: int, title: str, body: str | None = None, price: Value = 1) -> Upserted:
    return Upserted({"id": key}, {"id": key, "title": title, "body": body, "price": price})


def delete(key: int) -> Deleted:
    return Deleted({"id": key})


def row(key: int, of: TableMapping = PRODUCTS) -> Row:
    return Row.of(of.table, {"id": key})


class VirtualClock:
    """Implements :class:`vectide.ports.Clock`."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


class VirtualExecutor:
    """A call takes effect and returns ``takes_s`` of its station after it was made (at the next look for
    completions when 0), never while its station is ``held``. With its station in ``answers_held`` it takes
    effect at once and only its answer is late. A station is meant by its name, with whom it calls or without.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._calls: list[tuple[float, str, Callable[[], Any], Callable[[Completion], None]]] = []
        self.takes_s: dict[str, float] = {}
        self.held: set[str] = set()
        self.answers_held: set[str] = set()
        self._frozen = self._calls[:0]

    def freeze(self) -> None:
        """The calls that are on the way hang until :meth:`thaw`; later ones do not."""
        self._frozen, self._calls = self._calls, []

    def thaw(self) -> None:
        self._calls += self._frozen

    def take_effect(self, pool: str) -> None:
        """The pool's calls that are on the way happen now; their answers come when they may."""
        self._calls = [
            (due_s, name, partial(_repeat, _run(call, done)) if name == pool else call, done)
            for due_s, name, call, done in self._calls
        ]

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        if pool not in self.takes_s.keys() | self.held | self.answers_held:
            pool = pool.split(" ")[0]
        if pool in self.answers_held:
            answer = _run(call, done)
            call = partial(_repeat, answer)
        self._calls.append((self._clock.now_s + self.takes_s.get(pool, 0.0), pool, call, done))

    def completed(self, wait_s: float) -> Sequence[Completion]:
        if not any(self._is_due(entry) for entry in self._calls):
            self._clock.now_s += wait_s
        due = [entry for entry in self._calls if self._is_due(entry)]
        self._calls = [entry for entry in self._calls if entry not in due]
        return [_run(call, done) for _, _, call, done in due]

    def pending(self, pool: str) -> int:
        """Calls that have not returned."""
        return sum(name == pool for _, name, _, _ in self._calls)

    def _is_due(self, entry: tuple[float, str, Callable[[], Any], Callable[[Completion], None]]) -> bool:
        return entry[0] <= self._clock.now_s and entry[1] not in self.held | self.answers_held

    def close(self, deadline: Deadline) -> None:
        """Nothing runs in the background."""


def _repeat(answer: Completion) -> Any:
    if answer.error is not None:
        raise answer.error
    return answer.result


def _run(call: Callable[[], Any], done: Callable[[Completion], None]) -> Completion:
    try:
        return Completion(done, result=call())
    except AdapterError as error:
        return Completion(done, error=error)


@dataclass
class Log:
    """The partitions of all topics and what the group committed; outlives the pumps that read it."""

    records: dict[Partition, list[Record]] = field(default_factory=dict)
    changes: dict[tuple[str, int, int], Change | None] = field(default_factory=dict)
    #: Beyond the last record where markers follow it.
    ends: Counter[Partition] = field(default_factory=Counter)
    committed: dict[Partition, int] = field(default_factory=dict)
    #: The identities of the topics' logs; ``id of TOPIC`` else.
    ids: dict[str, str] = field(default_factory=dict)

    def append(
        self,
        *changes: Change | None,
        to: Partition = FIRST,
        hole: int = 0,
        key: bytes = b"key",
        value: bytes = b"v" * 100,
    ) -> None:
        """Produce the changes (``GARBAGE``: bytes that cannot be decoded), each followed by a hole."""
        for change in changes:
            record = Record(*to, self.ends[to], key, value)
            self.records.setdefault(to, []).append(record)
            self.changes[(*to, record.offset)] = change
            self.ends[to] = record.offset + 1 + hole

    def decode(self, record: Record) -> Change:
        change = self.changes[(record.topic, record.partition, record.offset)]
        if change is None:
            raise DecodeError("not_json", "garbage")
        return change


class LogSource:
    """A member of the group: :class:`vectide.ports.Source` over a :class:`Log`. ``polls`` counts the polls;
    ``next_poll`` does something during the next one, as the group does."""

    def __init__(self, log: Log, clock: VirtualClock) -> None:
        self._log = log
        self._clock = clock
        self._listener: SourceListener
        self._next: dict[Partition, int] = {}
        self._told: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.polls = 0
        self.next_poll: list[Callable[[], None]] = []
        self.failures: Mapping[str, Failure] = {}

    def start(self, listener: SourceListener) -> None:
        self._listener = listener
        self.next_poll.append(lambda: self.assign(*self._log.records))

    def assign(self, *partitions: Partition) -> None:
        for partition in partitions:
            self._seek(partition, self._log.committed.get(partition, 0))
        ids = {topic: self._log.ids.get(topic, f"id of {topic}") for topic, _ in partitions}
        self._listener.on_assigned({partition: ids[partition[0]] for partition in partitions})

    def revoke(self, *partitions: Partition) -> None:
        self._listener.on_revoked(partitions)
        self._drop(partitions)

    def lose(self, *partitions: Partition) -> None:
        self._drop(partitions)
        self._listener.on_lost(partitions)

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        assert max_records >= 1
        self.polls += 1
        happenings, self.next_poll = self.next_poll, []
        for happen in happenings:
            happen()
        self._tell_ends()
        taken: list[Record] = []
        for partition in self._next.keys() - self.paused:
            start = self._next[partition]
            records = self._log.records[partition][start : start + max_records - len(taken)]
            self._next[partition] += len(records)
            taken += records
        self._clock.now_s += POLL_S if taken else timeout_s
        return taken

    def partition_count(self, topic: str) -> int | None:
        return sum(name == topic for name, _ in self._log.records)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self.paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self.paused -= set(partitions)

    def rewind(self, partition: Partition, offset: int | None) -> None:
        self._seek(partition, self._log.committed.get(partition, 0) if offset is None else offset)

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        assert positions.keys() <= self._next.keys(), "a commit of what is not owned"
        for partition, position in positions.items():
            assert position >= self._log.committed.get(partition, 0), "a commit that goes back"
        self._log.committed.update(positions)

    def end_offsets(self) -> Mapping[Partition, int]:
        return {partition: self._log.ends[partition] for partition in self._next}

    def at_end(self) -> bool:
        return all(self._is_read(partition) for partition in self._next)

    def close(self, deadline: Deadline) -> None:
        """Nothing to leave."""

    def _seek(self, partition: Partition, offset: int) -> None:
        offsets = [record.offset for record in self._log.records[partition]]
        self._next[partition] = bisect_left(offsets, offset)
        self._told.pop(partition, None)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            del self._next[partition]
        self.paused -= set(partitions)

    def _is_read(self, partition: Partition) -> bool:
        return self._next[partition] == len(self._log.records[partition])

    def _tell_ends(self) -> None:
        for partition in self._next.keys() - self.paused:
            end = self._log.ends[partition]
            if self._is_read(partition) and self._told.get(partition) != end:
                self._told[partition] = end
                self._listener.on_end(partition, end)


Fault = Callable[[Sequence[str]], Failure | None]


def always(failure: Failure) -> Fault:
    return lambda texts: failure


class Provider(HashingEmbedder):
    """The hashing embedder, which remembers what it sold and fails when it is told to. ``fault`` sees the
    texts of a call."""

    def __init__(self, limits: EmbedderLimits | None = None) -> None:
        super().__init__(DIMENSIONS)
        self.calls: list[list[str]] = []
        self.tries = 0
        self.fault: Fault | None = None
        self._limits = limits or super().limits

    @property
    def limits(self) -> EmbedderLimits:
        return self._limits

    @property
    def sold(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        self.tries += 1
        failure = None if self.fault is None else self.fault(texts)
        if failure is not None:
            raise AdapterError(failure)
        self.calls.append(list(texts))
        return super().embed(texts, deadline)


class FaultyStore:
    """The memory store behind a network. ``fault`` fails a call before it takes effect, ``answer_lost``
    after; both see what is called (``stamps`` or ``write``) on which collection. ``refusal`` sees writes."""

    def __init__(self, *tables: TableMapping, able: Capabilities = CAPABILITIES) -> None:
        self.inner = MemoryStore(able)
        self.fault: Callable[[str, str], Failure | None] = lambda call, collection: None
        self.answer_lost: Callable[[str, str], Failure | None] = lambda call, collection: None
        self.refusal: Callable[[Sequence[Write]], Failure | None] = lambda writes: None
        self.before_write: Callable[[Sequence[Write]], None] = lambda writes: None
        self.writes: list[Write] = []
        #: Rows of each look-up.
        self.looked_up: list[int] = []
        self._soon = Deadline(VirtualClock(), 9e9)
        for mapping in tables:
            self.prepare(CollectionSpec(mapping.collection, DIMENSIONS, Provider().space), self._soon)

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def prepare(self, spec: CollectionSpec, deadline: Deadline) -> None:
        self.inner.prepare(spec, deadline)

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        _raise(self.fault("write", collection))
        _raise(self.refusal(writes))
        self.before_write(writes)
        outcomes = self.inner.write(collection, writes, deadline)
        self.writes += writes
        _raise(self.answer_lost("write", collection))
        return outcomes

    def stamps(
        self, collection: str, rows: Sequence[Row], deadline: Deadline, *, values: bool = False
    ) -> Sequence[Stamp | None]:
        _raise(self.fault("stamps", collection))
        self.looked_up.append(len(rows))
        return self.inner.stamps(collection, rows, deadline, values=values)

    def scan(
        self, collection: str, cursor: str | None, limit: int, deadline: Deadline, *, vectors: bool = False
    ) -> tuple[Sequence[Stored], str | None]:
        _raise(self.fault("scan", collection))
        return self.inner.scan(collection, cursor, min(limit, SCAN_POINTS), deadline, vectors=vectors)

    def remove(self, key: Row, of: TableMapping = PRODUCTS) -> None:
        """Another hand takes the row's point away."""
        self.inner.write(of.collection, [Remove(key, (key.head_id,))], self._soon)

    def points(self, of: TableMapping = PRODUCTS) -> dict[Row, Stored]:
        page, cursor = self.inner.scan(of.collection, None, 10**6, self._soon, vectors=True)
        assert cursor is None
        return {point.row: point for point in page}

    def texts(self, of: TableMapping = PRODUCTS) -> dict[Row, str | None]:
        return {key: point.text for key, point in self.points(of).items()}

    def close(self) -> None:
        """Nothing to close."""


def _raise(failure: Failure | None) -> None:
    if failure is not None:
        raise AdapterError(failure)


class Drawer:
    """Dead letters, kept. ``fault`` fails the sends while it is set."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.fault: Failure | None = None

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        _raise(self.fault)
        self.letters += letters

    def close(self) -> None:
        """Nothing to close."""


class Counters:
    """Telemetry that remembers: counters by name and by name with labels (``sums``: not rounded), gauges and
    observed values by name with labels."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.sums: dict[Any, float] = defaultdict(float)
        self.gauges: dict[Any, float] = {}
        self.observed: dict[Any, list[float]] = defaultdict(list)

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        assert isinstance(name, Metric)
        assert labels.keys() == set(name.labels)
        self.counts[name] += int(amount)
        self.counts[name, *labels.values()] += int(amount)
        self.sums[name, *labels.values()] += amount

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.gauges[name, *labels.values()] = value

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self.observed[name, *labels.values()].append(value)


class Events:
    """The log: what happened, with its fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info


class Pump:
    """One process: a stream and the parts around it. The log and the store may be those of an earlier one.
    ``embedding`` and ``storing``: how provider and store are called; ``cache``: of the vectors; ``others``:
    the way of the rows of tables that go elsewhere, given that of those that do not.

    Every step checks that the books balance (invariant 12) and that no commit passes what is unsettled
    (invariant 1).
    """

    def __init__(
        self,
        log: Log,
        *,
        store: FaultyStore | None = None,
        tables: Sequence[TableMapping] = (PRODUCTS, USERS),
        replays: ReplayDesk | None = None,
        limits: EmbedderLimits | None = None,
        now_s: float = VirtualClock.now_s,
        embedding: Mapping[str, Any] = NOTHING,
        storing: Mapping[str, Any] = NOTHING,
        cache: VectorCache | None = None,
        others: Callable[[Route], Routes] = lambda usual: {},
        **policy: Any,
    ) -> None:
        self.log = log
        self.store = store or FaultyStore(*tables)
        self.provider = Provider(limits)
        self.letters = Drawer()
        self.clock = VirtualClock()
        self.clock.now_s = now_s
        self.executor = VirtualExecutor(self.clock)
        self.source = LogSource(log, self.clock)
        self.telemetry = Counters()
        self.events = Events()
        embedder = self.provider if cache is None else CachingEmbedder(self.provider, cache)
        usual = Route(CalledProvider("models", embedder, **embedding), Target("store", self.store, **storing))
        parts = Parts(
            source=self.source,
            decode=lambda record: self.log.decode(record),
            mapping_of=lambda topic: next((table for table in tables if table.matches(topic)), None),
            routes={**{mapping.table: usual for mapping in tables}, **others(usual)},
            dead_letters=self.letters,
            executor=self.executor,
            clock=self.clock,
            telemetry=self.telemetry,
            log=self.events,
            random=lambda: 0.5,
            replays=replays,
            tables_of=lambda topic: [table.table for table in tables if table.matches(topic)],
        )
        self.stream = Stream(parts, StreamPolicy(**policy))
        self.stream.start()

    # --- go on ------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.stream.step()
        self.check()

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.step()

    def run_for(self, seconds: float) -> None:
        end_s = self.clock.now_s + seconds
        self.until(lambda: self.clock.now_s >= end_s, "time to pass")

    def until(self, condition: Callable[[], object], what: str, steps: int = 100_000) -> None:
        for _ in range(steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"made {steps} steps for {what}: {self.events.lines[-5:]}")

    def run(self) -> None:
        """Until everything in the log is settled and committed."""
        self.until(self._is_done, "everything to be settled and committed")

    def _is_done(self) -> bool:
        assigned = self.stream.lanes.keys() == self.log.records.keys()
        ends = all(self.committed(partition) == end for partition, end in self.log.ends.items())
        return assigned and ends and self.in_flight == 0

    # --- what there is to see ---------------------------------------------------------------------------

    def count(self, name: str, *labels: str) -> int:
        return self.telemetry.counts[(name, *labels) if labels else name]

    def settled(self, outcome: str, of: TableMapping = PRODUCTS) -> int:
        return self.count(signals.RECORDS_SETTLED, of.table, outcome)

    def committed(self, partition: Partition = FIRST) -> int:
        return self.log.committed.get(partition, 0)

    @property
    def received(self) -> int:
        return self.count(signals.RECORDS_RECEIVED)

    @property
    def in_flight(self) -> int:
        """Records received and not settled."""
        lanes = [*self.stream.lanes.values(), *self.stream.stations.replays.lanes]
        trackers = [lane.tracker for lane in lanes]
        return sum(len(tracker) - tracker.settled_ahead for tracker in trackers)

    def check(self) -> None:
        done = self.count(signals.RECORDS_SETTLED) + self.count(signals.RECORDS_FORGOTTEN)
        assert self.received == done + self.in_flight
        for partition, lane in self.stream.lanes.items():
            if lane.tracker.behind is not None:
                assert self.committed(partition) <= lane.tracker.behind[0]
