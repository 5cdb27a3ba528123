"""What the consumer holds: its partitions, where each one stands, and what was read but not yet returned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vectide.core.model import Record
from vectide.ports import Partition


class Holdings:
    """Plain state of the source, no I/O. Owned by the polling thread."""

    def __init__(self) -> None:
        #: Partition -> identity of its log.
        self.logs: dict[Partition, str] = {}
        self.paused: set[Partition] = set()
        #: Where the next record is expected. Absent while unknown.
        self.expected: dict[Partition, int] = {}
        #: Where the assignment, or the last rewind, started; where it turned out to start if nobody knew.
        self.started: dict[Partition, int] = {}
        #: Records of the poll under way.
        self._batch: list[Record] = []
        #: Ends of which the caller may hear only after the records before them.
        self._ends: dict[Partition, int] = {}

    def __contains__(self, partition: object) -> bool:
        return partition in self.logs

    def __len__(self) -> int:
        """Records read and not yet returned."""
        return len(self._batch)

    def mine(self, partitions: Collection[Partition]) -> list[Partition]:
        """Those of ``partitions`` that are held."""
        return [partition for partition in partitions if partition in self.logs]

    def take(self, partition: Partition, log: str, offset: int | None) -> None:
        """Hold the partition from ``offset`` on (None: the group knows where)."""
        self.forget([partition])
        self.logs[partition] = log
        if offset is not None:
            self.expected[partition] = self.started[partition] = offset

    def rewind(self, partition: Partition, offset: int | None) -> None:
        """The partition is read again from ``offset``; None: from its beginning."""
        self.discard([partition])
        self.expected.pop(partition, None)
        if offset is not None:
            self.expected[partition] = self.started[partition] = offset

    def discard(self, partitions: Collection[Partition]) -> None:
        """Take back what of the partitions was read but not returned."""
        self._batch = [record for record in self._batch if (record.topic, record.partition) not in partitions]
        for partition in partitions:
            self._ends.pop(partition, None)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Hold the partitions no longer."""
        self.discard(partitions)
        for partition in partitions:
            self.logs.pop(partition, None)
            self.expected.pop(partition, None)
            self.started.pop(partition, None)
            self.paused.discard(partition)

    # --- what was read ---------------------------------------------------------------------------------

    def read(self, record: Record) -> None:
        """A record was read. An end that was not told yet is the end no more."""
        partition = (record.topic, record.partition)
        self.expected[partition] = record.offset + 1
        self.started.setdefault(partition, record.offset)
        self._ends.pop(partition, None)
        self._batch.append(record)

    def reached(self, partition: Partition, end: int) -> None:
        """The partition was read up to its end."""
        self.expected[partition] = self._ends[partition] = end
        self.started.setdefault(partition, end)

    def hand_over(self) -> Sequence[Record]:
        """The records read, for the caller to keep."""
        batch, self._batch = self._batch, []
        return batch

    def due_ends(self) -> Mapping[Partition, int]:
        """The ends to be told, once everything read before was handed over; they are told once.

        Those of paused partitions wait: their owner may have forgotten their records and be about to rewind,
        which takes the end back.
        """
        due = {partition: end for partition, end in self._ends.items() if partition not in self.paused}
        for partition in due:
            del self._ends[partition]
        return due
