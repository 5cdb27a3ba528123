"""Dead letters that are replayed: an operator who looks and asks, and the desks where processes hear it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.simulation.broker import SimBroker, SimCodec, log_of, place_of
from tests.simulation.scenario import TABLES

from vectide.core.letters import PREFIX, Place
from vectide.core.model import DecodeError, Deleted, Record, Upserted
from vectide.core.replays import Answer, Request
from vectide.jobs.newer import Newer
from vectide.ports import Deadline, Letter, Partition

DLQ: Partition = ("letters", 0)


class SimReplays:
    """The replay topic, the logs as they are read from outside of the group, and the operator."""

    def __init__(self, broker: SimBroker, rng: random.Random) -> None:
        self._broker = broker
        self._rng = rng
        self.said: list[Request | Answer] = []
        self.asked: dict[str, Place] = {}
        #: What was poison to the provider and the store is so no more.
        self.mended = False

    @property
    def open(self) -> bool:
        """Whether requests wait for their answers."""
        return len({one.id for one in self.said if isinstance(one, Answer)}) < len(self.asked)

    def ask(self, now_ms: int) -> None:
        """The operator picks a letter, and asks to replay it unless there is a newer change of its row, as
        far as that can be seen (or could a little ago)."""
        self.mended = True
        letters = [at for at, letter in enumerate(self._broker.dead) if self._is_of_today(letter)]
        readable = [at for at in letters if self._broker.changes[place_of(self._broker.dead[at].record)]]
        letters = readable if readable and self._rng.random() < 0.9 else letters
        if not letters:
            return
        at = self._rng.choice(letters)
        letter = self._broker.dead[at]
        source = letter.record
        partition = (source.topic, source.partition)
        checked = source.offset + 1
        if self._rng.random() < 0.5:
            checked = self._rng.randint(checked, max(checked, self.end_of(partition)))
        if self._is_overtaken(source, checked):
            return
        id_ = f"request {len(self.asked)}"
        self.asked[id_] = Place.of(source)
        now = log_of(source.topic, source.offset)
        place = Place(*DLQ, at)
        self.said.append(Request(id_, place, Place.of(source), "letters' log", now, now, checked, now_ms))

    def _is_of_today(self, letter: Letter) -> bool:
        record = letter.record
        return record.offset >= self._broker.begins[record.topic, record.partition]

    def _is_overtaken(self, source: Record, checked: int) -> bool:
        codec, mapping = SimCodec(self._broker), TABLES[source.topic]
        try:
            change = codec.decode(source)
        except DecodeError:
            return False
        assert isinstance(change, Upserted | Deleted)
        looking: Newer[str] = Newer(codec.decode, mapping)
        looking.seek("it", mapping.row_of(change), source.key, source.offset)
        for record in self.read(
            {(source.topic, source.partition): (source.offset + 1, checked)}, patience_s=1
        ):
            looking.see(record)
        return bool(looking.found)

    def end_of(self, partition: Partition) -> int:
        """Where the log ends at this moment."""
        return self._broker.end_now(partition)

    # --- the reader -------------------------------------------------------------------------------------

    def partitions(self, topic: str, deadline: Deadline) -> Sequence[Partition]:
        return [partition for partition in [*self._broker.logs, DLQ] if partition[0] == topic]

    def log_id(self, topic: str) -> str:
        if topic == DLQ[0]:
            return "letters' log"
        return log_of(topic, self._broker.begins[topic, 0])

    def bounds(
        self, partitions: Iterable[Partition], deadline: Deadline
    ) -> Mapping[Partition, tuple[int, int]]:
        return {
            one: (0, len(self._broker.dead)) if one == DLQ else (self._broker.begins[one], self.end_of(one))
            for one in partitions
        }

    def read(self, wanted: Mapping[Partition, tuple[int, int]], *, patience_s: float) -> Iterator[Record]:
        for partition, (start, end) in wanted.items():
            if partition == DLQ:
                yield from (_stored(at, self._broker.dead[at]) for at in range(start, end))
                continue
            records, _ = self._broker.read(partition, start, 10**6)
            yield from (record for record in records if record.offset < end)


class SimDesk:
    """The desk of one process."""

    def __init__(self, replays: SimReplays) -> None:
        self.logs = replays
        self._heard = 0

    def take(self) -> Sequence[Request | Answer]:
        said = self.logs.said[self._heard :]
        self._heard += len(said)
        return said

    def answer(self, answers: Sequence[Answer], deadline: Deadline) -> None:
        self.logs.said += answers

    def close(self) -> None:
        pass


def _stored(at: int, letter: Letter) -> Record:
    """The letter as it lies in its topic."""
    record = letter.record
    ours = {"cause": letter.cause, "topic": record.topic, "partition": record.partition}
    ours |= {"offset": record.offset, "log": letter.log, "timestamp": record.timestamp_ms}
    headers = tuple((PREFIX + name, str(value).encode()) for name, value in ours.items())
    return Record(*DLQ, at, record.key, record.value, headers)
