"""The real pump over records in memory: decode, look up, embed, write, settle; no Kafka, no waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.routes import shared_route

from vectide.core.mapping import TableMapping
from vectide.core.model import Change, Record, Row
from vectide.embedders.hashing import HashingEmbedder, expected_vector
from vectide.jobs.parts import Parts, StreamPolicy
from vectide.jobs.routes import Provider, Target
from vectide.jobs.stream import Stream
from vectide.ports import (
    AdapterError,
    CollectionSpec,
    Completion,
    Deadline,
    Embeddings,
    Letter,
    Partition,
    RowReader,
    Scannable,
    SourceListener,
    Store,
)
from vectide.testing.fold import Expected
from vectide.testing.store import MemoryStore

DIMENSIONS = 16
#: Turns in which any recording comes to rest; more means that something is stuck.
MAX_STEPS = 20_000


class ManualClock:
    """A clock that only moves when it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


class RecordedSource:
    """A :class:`~vectide.ports.Source` over records that are there; offsets are those of the records."""

    def __init__(self, records: Sequence[Record], clock: ManualClock) -> None:
        self._records: dict[Partition, list[Record]] = {}
        for record in records:
            self._records.setdefault((record.topic, record.partition), []).append(record)
        self.committed: dict[Partition, int] = {}
        self._clock = clock
        self._read: dict[Partition, int] = dict.fromkeys(self._records, 0)
        self._paused: set[Partition] = set()
        self._started = False
        #: One record at a time, and only when all before it is committed.
        self.trickles = False
        self._listener: SourceListener

    @property
    def ends(self) -> Mapping[Partition, int]:
        return {partition: records[-1].offset + 1 for partition, records in self._records.items()}

    def start(self, listener: SourceListener) -> None:
        self._listener = listener

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        if not self._started:
            self._started = True
            self._listener.on_assigned({partition: partition[0] for partition in self._records})
        taken: list[Record] = []
        for partition, records in self._records.items():
            if partition in self._paused:
                continue
            at = self._read[partition]
            most = max_records - len(taken)
            if self.trickles:
                most = int(at == 0 or self.committed.get(partition) == records[at - 1].offset + 1)
            chunk = records[at : at + most]
            taken += chunk
            self._read[partition] = at + len(chunk)
        if not taken:
            for partition, end in self.ends.items():
                if self._read[partition] == len(self._records[partition]):
                    self._listener.on_end(partition, end)
            self._clock.now_s += timeout_s
        return taken

    def partition_count(self, topic: str) -> int | None:
        return sum(name == topic for name, _ in self._records)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused -= set(partitions)

    def rewind(self, partition: Partition, offset: int | None) -> None:
        start = self.committed.get(partition, 0) if offset is None else offset
        earlier = [record for record in self._records[partition] if record.offset < start]
        self._read[partition] = len(earlier)

    def commit(self, positions: Mapping[Partition, int], *, wait: bool) -> None:
        self.committed.update(positions)

    def close(self, deadline: Deadline) -> None:
        pass


class DirectExecutor:
    """Runs a call when it is submitted; its result is handed out with the next turn."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._finished: list[Completion] = []

    def submit(self, pool: str, call: Callable[[], Any], done: Callable[[Completion], None]) -> None:
        try:
            self._finished.append(Completion(done, result=call()))
        except AdapterError as error:
            self._finished.append(Completion(done, error=error))

    def completed(self, wait_s: float) -> Sequence[Completion]:
        self._clock.now_s += wait_s + 0.001
        finished, self._finished = self._finished, []
        return finished

    def close(self, deadline: Deadline) -> None:
        pass


class Silent:
    """Telemetry and log that keep nothing."""

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, /, **labels: str) -> None: ...
    def observe(self, name: str, value: float, /, **labels: str) -> None: ...
    def info(self, event: str, /, **fields: Any) -> None: ...
    def warning(self, event: str, /, **fields: Any) -> None: ...
    def error(self, event: str, /, **fields: Any) -> None: ...


class Letters:
    """Dead letters in a list."""

    def __init__(self) -> None:
        self.sent: list[Letter] = []

    def send(self, letters: Sequence[Letter], deadline: Deadline) -> None:
        self.sent += letters

    def close(self) -> None:
        pass


class CountingEmbedder(HashingEmbedder):
    """Remembers the texts that it was asked for."""

    def __init__(self) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.sold: list[str] = []

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        self.sold += texts
        return super().embed(texts, deadline)


class Pump:
    """One run over records that ends when everything is settled."""

    def __init__(
        self,
        records: Sequence[Record],
        mapping: TableMapping,
        decode: Callable[[Record], Change],
        store: Store | None = None,
        reader: RowReader | None = None,
    ) -> None:
        self._clock = ManualClock()
        self._mapping = mapping
        self.source = RecordedSource(records, self._clock)
        self.store = MemoryStore() if store is None else store
        self.letters = Letters()
        self._embedder = CountingEmbedder()
        self.store.prepare(CollectionSpec(mapping.collection, DIMENSIONS, self._embedder.space), self._soon())
        silent = Silent()
        parts = Parts(
            source=self.source,
            decode=decode,
            mapping_of=lambda topic: mapping if mapping.matches(topic) else None,
            routes=shared_route(
                [mapping], Provider("models", self._embedder), Target("store", self.store), reader
            ),
            dead_letters=self.letters,
            executor=DirectExecutor(self._clock),
            clock=self._clock,
            telemetry=silent,
            log=silent,
            random=lambda: 0.5,
        )
        policy = StreamPolicy(breaker=replace(StreamPolicy().breaker, in_a_row=1_000, window=10_000))
        self._stream = Stream(parts, policy)

    def run(self) -> None:
        """Until every record is settled and committed."""
        self._run(lambda: self.source.committed == self.source.ends)

    def run_until_halted(self) -> str:
        """Until a table halts; then long enough to see that it stays so. The cause."""
        self._run(lambda: self._halts())
        halts = self._halts()
        for _ in range(200):
            self._stream.step()
            assert self._halts() == halts
        return halts[0]

    def _halts(self) -> list[str]:
        return [trouble.cause for trouble in self._stream.troubles() if trouble.halting]

    def _run(self, is_done: Callable[[], object]) -> None:
        self._stream.start()
        for _ in range(MAX_STEPS):
            self._stream.step()
            if is_done():
                return
        raise AssertionError(f"stuck at {self.source.committed} of {self.source.ends}")

    @property
    def sold(self) -> list[str]:
        """The texts that were embedded."""
        return self._embedder.sold

    @property
    def tally(self) -> Counter[str]:
        """Records by what became of them."""
        return self._stream.intake.tally

    @property
    def dead(self) -> Counter[str]:
        """Dead letters by cause."""
        return Counter(letter.cause for letter in self.letters.sent)

    def stored(self) -> dict[Row, Expected]:
        """What the store holds; verifies that every vector is that of its text."""
        assert isinstance(self.store, Scannable)
        points, cursor = self.store.scan(self._mapping.collection, None, 100_000, self._soon(), vectors=True)
        assert cursor is None
        for point in points:
            assert point.id == point.row.head_id
            assert point.text is not None
            assert point.vector is not None
            # Not to the last bit: some stores scale the vectors of metric cosine.
            assert np.allclose(point.vector, expected_vector(point.text, DIMENSIONS), atol=1e-6)
        return {point.row: Expected(point.text or "", dict(point.metadata)) for point in points}

    def stale(self) -> set[Row]:
        """The rows that the store has as stale."""
        assert isinstance(self.store, Scannable)
        points, _ = self.store.scan(self._mapping.collection, None, 100_000, self._soon())
        return {point.row for point in points if point.stamp is not None and point.stamp.stale}

    def _soon(self) -> Deadline:
        return Deadline.after(self._clock, 60)
