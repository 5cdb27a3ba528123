"""What stands in for Debezium in the demo: writes the shop's changes to Kafka as they happen."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from vectide.core.model import Record
from vectide.demo.shop import Change, Kind, Shop

#: Makes one change of the shop at a time given in ms since the epoch.
Make = Callable[[Shop, int], Change]

_TIMEOUT_S: Final = 30.0


class FeedError(RuntimeError):
    """A record could not be written, or the topic lost some."""


class Feeder:
    """Owns the shop: every change of it goes through here and to the topic, in order.

    Random changes and imports happen in a thread; :meth:`change` may be called meanwhile.
    """

    def __init__(self, bootstrap: str, shop: Shop) -> None:
        # As Connect does it: the partition by Java's hash of the key, acknowledged by all. The embedded
        # broker keeps the newest 5 MiB of each partition, which compression makes last.
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "compression.type": "zstd",
                "acks": "all",
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        self._shop = shop
        self._lock = threading.Lock()
        self._failed: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Changes by kind; records are more, since a delete is two.
        self.changes: Counter[Kind] = Counter()
        self.records = 0
        self.last_statement = ""

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_TIMEOUT_S)

    def replay(self, records: Iterable[Record]) -> None:
        """Write records as they are. Returns when the broker has them."""
        with self._lock:
            for record in records:
                self._produce(record)
        self._flush()

    def change(self, make: Make) -> Change:
        """Let one change happen now; returns when the broker has it."""
        made = self._make(make)
        self._flush()
        return made

    def trade(self, per_second: float) -> None:
        """Let random changes happen from now on, at this rate, until :meth:`rest`."""
        self._start(Shop.random_change, per_second, None)

    def rest(self) -> None:
        """End the trade; returns when the broker has every record."""
        self._stopping.set()
        self.wait()

    def import_products(self, count: int, per_second: float) -> None:
        """Insert new products at this rate, in the background."""
        self._start(Shop.insert, per_second, count)

    def wait(self) -> None:
        """Wait for what happens in the background; returns when the broker has every record."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._flush()

    def _start(self, make: Make, per_second: float, count: int | None) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._paced, args=(make, per_second, count), name="feeder", daemon=True
        )
        self._thread.start()

    def _paced(self, make: Make, per_second: float, count: int | None) -> None:
        began_s = time.monotonic()
        done = 0
        try:
            while done != count and not self._stopping.is_set():
                wait_s = began_s + done / per_second - time.monotonic()
                if wait_s > 0:
                    time.sleep(wait_s)
                self._make(make)
                done += 1
        except (KafkaException, BufferError) as error:
            self._failed = str(error)

    def _make(self, make: Make) -> Change:
        with self._lock:
            made = make(self._shop, time.time_ns() // 1_000_000)
            for record in made.records:
                self._produce(record)
            self.changes[made.kind] += 1
            self.last_statement = made.statement
        return made

    def _produce(self, record: Record) -> None:
        self._producer.produce(
            record.topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            timestamp=max(0, record.timestamp_ms),
            on_delivery=self._delivered,
        )
        self._producer.poll(0)
        self.records += 1

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed = error.str()

    def _flush(self) -> None:
        left = self._producer.flush(_TIMEOUT_S)
        if left or self._failed:
            raise FeedError(f"the broker did not take every record: {self._failed or f'{left} left'}")


class Offsets:
    """What the broker itself says about a topic and a group: never what the worker believes."""

    def __init__(self, bootstrap: str, topic: str, group: str, partitions: int) -> None:
        # Asks for the group's offsets without being a member of it.
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 0}
        )
        self._partitions = [TopicPartition(topic, partition) for partition in range(partitions)]

    def __enter__(self) -> Offsets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):
            self._consumer.close()

    def ends(self) -> dict[int, int]:
        """The end offset of every partition."""
        return {at.partition: self._watermarks(at)[1] for at in self._partitions}

    def committed(self) -> dict[int, int]:
        """The group's next offset of every partition; 0 where it has none."""
        found = self._consumer.committed(self._partitions, timeout=_TIMEOUT_S)
        return {at.partition: max(0, at.offset) for at in found}

    def behind(self) -> int:
        """Records that the group has not committed."""
        return sum(self.ends().values()) - sum(self.committed().values())

    def _watermarks(self, at: TopicPartition) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)
        if low:
            raise FeedError("the embedded broker dropped old records: run the demo for fewer seconds")
        return low, high
