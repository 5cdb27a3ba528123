"""What a worker finds out about requests to replay: their records, and newer changes of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from vectide.core.failures import Failure, Kind
from vectide.core.lane import Lane
from vectide.core.letters import DeadLetter, Place
from vectide.core.model import Change, DecodeError, Ignored, Record, Row, Truncated
from vectide.core.replays import Request, same_log
from vectide.jobs.newer import Newer
from vectide.jobs.originals import Lost, original_of
from vectide.jobs.parts import Parts
from vectide.ports import AdapterError, Deadline, LogReader, Partition

#: Letters that lie no further apart are read together.
_NEAR: Final = 1000


@dataclass(frozen=True, slots=True)
class Fetched:
    """A letter's record and what it says now."""

    record: Record
    tried: int
    change: Change | DecodeError
    row: Row | None


@dataclass(eq=False, slots=True)
class Replay:
    """One request here. ``lane`` is that of its partition while it is worked on; ``until``: what was received
    there when the look for newer changes began; ``overtaken``: one arrived since then."""

    request: Request
    expires_s: float
    lane: Lane | None = None
    fetched: Fetched | None = None
    until: int = 0
    overtaken: bool = False

    @property
    def partition(self) -> Partition:
        source = self.request.source
        assert source.partition is not None
        return (source.topic, source.partition)


@dataclass(frozen=True, slots=True)
class Ended:
    """A finding that ends the request here."""

    outcome: str
    reason: str = ""


class Clear:
    """A finding: no newer change."""


Finding = Fetched | Ended | Clear


class Look:
    """What one call finds out, on a worker."""

    def __init__(self, parts: Parts, deadline: Deadline) -> None:
        assert parts.replays is not None
        self._logs: LogReader = parts.replays.logs
        self._deadline = deadline
        self._decode = parts.decode_now or parts.decode

    def at(self, replays: Sequence[Replay]) -> dict[Replay, Finding]:
        """A finding about each: its record, or whether there is a newer change of its row."""
        findings: dict[Replay, Finding] = {}
        new = [replay for replay in replays if replay.fetched is None]
        letters = self._letters(new)
        for replay in new:
            findings[replay] = self._fetched(replay, letters.get(replay.request.letter))
        by_partition: dict[Partition, list[Replay]] = {}
        for replay in replays:
            if replay.fetched is not None:
                by_partition.setdefault(replay.partition, []).append(replay)
        for partition, group in by_partition.items():
            findings |= self._newer(partition, group)
        return findings

    def _letters(self, replays: Sequence[Replay]) -> dict[Place, DeadLetter]:
        """The letters that are still there, by their place."""
        places = {replay.request.letter for replay in replays if self._is_same_log(replay.request)}
        found: dict[Place, DeadLetter] = {}
        for partition, start, end in _stretches(places):
            low, high = self._logs.bounds([partition], self._deadline)[partition]
            wanted = {partition: (max(low, start), min(high, end))}
            for stored in self._logs.read(wanted, patience_s=self._deadline.remaining_s()):
                letter = DeadLetter.read(stored) if Place.of(stored) in places else None
                if letter is not None:
                    found[letter.at] = letter
        return found

    def _is_same_log(self, request: Request) -> bool:
        topic = request.letter.topic
        return same_log(self._logs.log_id(topic), request.letters_log, topic)

    def _fetched(self, replay: Replay, letter: DeadLetter | None) -> Finding:
        lane = replay.lane
        assert lane is not None
        mapping = lane.mapping
        assert mapping is not None
        if letter is None or letter.source != replay.request.source:
            return Ended("lost", "no_letter")
        try:
            record = original_of(letter, self._logs, self._deadline)
        except Lost:
            return Ended("lost", "truncated")
        try:
            change = self._decode(record)
            if isinstance(change, Truncated):
                return Ended("failed", "truncate")
            if isinstance(change, Ignored) or mapping.skip_reason(change) is not None:
                return Fetched(record, letter.attempts, change, None)
            return Fetched(record, letter.attempts, change, mapping.row_of(change))
        except DecodeError as error:
            return Fetched(record, letter.attempts, error, None)

    def _newer(self, partition: Partition, group: Sequence[Replay]) -> dict[Replay, Finding]:
        """Whether the partition holds newer changes of their rows, among what nobody has looked at."""
        lane = group[0].lane
        assert lane is not None
        assert lane.mapping is not None
        low, _end = self._logs.bounds([partition], self._deadline)[partition]
        looking: Newer[Replay] = Newer(self._decode, lane.mapping)
        gone = [replay for replay in group if replay.request.checked < low]
        for replay in group:
            fetched = replay.fetched
            assert fetched is not None
            assert fetched.row is not None
            looking.seek(replay, fetched.row, fetched.record.key, replay.request.checked - 1)
        start = min(replay.request.checked for replay in group)
        end = max(replay.until for replay in group)
        for record in self._logs.read({partition: (start, end)}, patience_s=self._deadline.remaining_s()):
            if self._deadline.passed:
                raise AdapterError(
                    Failure(Kind.TRANSIENT, "timed_out", f"{partition[0]}: too much to look at")
                )
            looking.see(record)
        findings: dict[Replay, Finding] = dict.fromkeys(group, Clear())
        findings |= dict.fromkeys(looking.found, Ended("superseded"))
        return findings | dict.fromkeys(gone, Ended("gone"))


def _stretches(places: Iterable[Place]) -> Iterator[tuple[Partition, int, int]]:
    """Partitions and what to read of them so that every place is in it."""
    by_partition: dict[Partition, list[int]] = {}
    for place in places:
        if place.partition is not None:
            by_partition.setdefault((place.topic, place.partition), []).append(place.offset)
    for partition, offsets in by_partition.items():
        start = end = min(offsets)
        for offset in sorted(offsets):
            if offset - end > _NEAR:
                yield partition, start, end
                start = offset
            end = offset + 1
        yield partition, start, end
