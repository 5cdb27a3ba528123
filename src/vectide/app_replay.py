"""The composition root of ``vectide dlq replay``: which letters may be applied again, and asking for it.

What may be applied again is decided from the source topic: a letter is superseded when a newer change of its
row follows it. Then the owner of the partition is asked, who looks at what has come since (see
:mod:`vectide.jobs.replays`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vectide.app import Decode
from vectide.app_letters import (
    LettersRequest,
    choice_of,
    decoder_of,
    reader_of,
    stored_letters,
)
from vectide.core.letters import DeadLetter, Place
from vectide.core.mapping import TableMapping
from vectide.core.model import (
    DecodeError,
    Deleted,
    Ignored,
    Record,
    Row,
    Truncated,
    Upserted,
)
from vectide.core.replays import VALID_S, Answer, Request, read, same_log
from vectide.jobs.candidates import Candidate as Candidate
from vectide.jobs.candidates import Identity, identity, settle_rows, settle_twins
from vectide.jobs.candidates import Replayed as Replayed
from vectide.jobs.executor import SystemClock
from vectide.jobs.newer import Newer
from vectide.jobs.originals import Lost, is_wanted, key_of, original_of, recreated
from vectide.ports import Deadline, Partition, StartupRefused
from vectide.settings import Settings
from vectide.sources.kafka_config import consumer_config
from vectide.sources.kafka_reader import KafkaReader
from vectide.sources.kafka_sender import KafkaSender

_CLOCK: Final = SystemClock()
#: Requests that are under way at a time.
_AT_ONCE: Final = 500
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """``letters``: which. ``dry_run`` asks nobody. ``again``: those too that were replayed before.
    ``accept_recreated``, ``accept_gone``: those too whose order cannot be known for certain any more.
    ``wait_s``: how long to wait for the next answer."""

    letters: LettersRequest
    dry_run: bool = False
    again: bool = False
    accept_recreated: bool = False
    accept_gone: bool = False
    wait_s: float = 60.0


def replay(
    settings: Settings, request: ReplayRequest, tell: Callable[[Candidate], None] = lambda _one: None
) -> Replayed:
    """Decide, ask, and wait for the answers. ``tell`` hears of each letter when its outcome is known.
    Raises StartupRefused when a topic of ours is missing, AdapterError when Kafka does not answer."""
    with reader_of(settings) as reader, decoder_of(settings) as decode:
        return _Run(settings, request, reader, decode, tell).perform()


@dataclass(slots=True)
class _Run:
    settings: Settings
    request: ReplayRequest
    reader: KafkaReader
    decode: Decode
    tell: Callable[[Candidate], None]
    _newer: dict[Partition, Newer[Candidate]] = field(init=False, default_factory=dict)
    _letters_log: str = field(init=False, default="")

    def perform(self) -> Replayed:
        replays = self.settings.dlq.replays
        if not self.request.dry_run and not self.reader.partitions(replays, self._deadline()):
            raise StartupRefused(
                f"Kafka has no topic {replays} (or hides it from us): `vectide topics --create` makes it"
            )
        self._letters_log = self.reader.log_id(self.settings.dlq.topic)
        candidates = self._candidates()
        chosen = [one for one in candidates if one.chosen]
        limit = self.request.letters.limit
        for one in chosen[: max(0, len(chosen) - limit)] if limit is not None else ():
            one.chosen = False
        self._leave_out_replayed(candidates)
        settle_twins(candidates)
        self._look_into_topics(candidates)
        self._look_for_newer(candidates)
        settle_rows(candidates)
        chosen = [one for one in candidates if one.chosen]
        for one in chosen:
            if one.outcome:
                self.tell(one)
        self._ask([one for one in chosen if not one.outcome])
        return Replayed(chosen)

    def _deadline(self) -> Deadline:
        return Deadline.after(_CLOCK, self.request.letters.timeout_s)

    # --- letters ----------------------------------------------------------------------------------------

    def _candidates(self) -> list[Candidate]:
        """Every letter of the topic, oldest failure first: those not chosen may supersede others."""
        choice, wanted = choice_of(self.settings, self.request.letters)
        found: list[Candidate] = []
        for letter in stored_letters(self.settings, self.reader, self.request.letters.timeout_s):
            one = self._candidate(letter)
            named = wanted is None or is_wanted(letter, one.key, wanted)
            one.chosen = choice.takes(letter) and named
            found.append(one)
        found.sort(key=lambda one: (one.letter.failed_ms or 0, one.letter.at))
        return found

    def _candidate(self, letter: DeadLetter) -> Candidate:
        topic = letter.record.topic
        mapping = self.settings.mapping_of(topic)
        light = letter.without_content()
        if mapping is None:
            return Candidate(light, None, None, chosen=False, outcome="unmapped")
        try:
            record = original_of(letter, self.reader, self._deadline())
        except Lost as lost:
            key = key_of(letter.record, self.decode, mapping)
            return Candidate(light, key, None, chosen=False, outcome="lost", reason=str(lost))
        key = key_of(record, self.decode, mapping)
        outcome, reason, row = self._meaning(record, mapping)
        light = replace(light, record=replace(light.record, key=record.key))
        return Candidate(light, key, row, chosen=False, outcome=outcome, reason=reason)

    def _meaning(self, record: Record, mapping: TableMapping) -> tuple[str, str, Row | None]:
        """Outcome and reason where the record need not be replayed, and the row that it is about."""
        try:
            change = self.decode(record)
            match change:
                case Upserted() | Deleted() if mapping.skip_reason(change) is None:
                    return "", "", mapping.row_of(change)
                case Ignored(reason):
                    return "skipped", reason, None
                case Truncated():
                    return "still_fails", "truncate", None
            return "skipped", "keyless_tombstone", None
        except DecodeError as error:
            return "still_fails", error.cause, None

    # --- what was asked before --------------------------------------------------------------------------

    def _leave_out_replayed(self, candidates: Iterable[Candidate]) -> None:
        if self.request.again:
            return
        done, open_ = self._history()
        for one in candidates:
            if one.letter.at in done:
                one.outcome = one.outcome or "replayed_before"
            elif one.letter.at in open_:
                one.outcome = one.outcome or "under_way"

    def _history(self) -> tuple[set[Place], set[Place]]:
        """The letters whose replay is done, and those for which it may still happen."""
        deadline = self._deadline()
        bounds = self.reader.bounds(self.reader.partitions(self.settings.dlq.replays, deadline), deadline)
        asked: dict[str, Request] = {}
        done: set[Place] = set()
        for stored in self.reader.read(bounds, patience_s=self.request.letters.timeout_s):
            heard = read(stored.value, stored.timestamp_ms)
            if heard is None or not same_log(heard.letters_log, self._letters_log, heard.letter.topic):
                continue
            if isinstance(heard, Answer):
                asked.pop(heard.id, None)
                if heard.done:
                    done.add(heard.letter)
            elif _CLOCK.wall_ms() - heard.sent_ms < VALID_S * 1000:
                asked[heard.id] = heard
        return done, {request.letter for request in asked.values()}

    # --- the source -------------------------------------------------------------------------------------

    def _look_into_topics(self, candidates: Iterable[Candidate]) -> None:
        """Which logs the letters' topics are now, and where looking has to begin."""
        logs: dict[str, str] = {}
        for one in candidates:
            if one.outcome:
                continue
            topic, offset = one.letter.record.topic, one.letter.record.offset
            log = logs[topic] = logs.get(topic) or self.reader.log_id(topic)
            one.log = one.own_log = log
            one.after = offset
            if recreated(one.letter, log):
                one.own_log, one.after = one.letter.log, -1
                if not self.request.accept_recreated:
                    one.outcome = "recreated"

    def _look_for_newer(self, candidates: Sequence[Candidate]) -> None:
        """One pass over each partition, up to where it ends now."""
        opened = [one for one in candidates if not one.outcome]
        partitions = sorted({one.partition for one in opened if one.chosen})
        there = {
            partition
            for topic in {topic for topic, _ in partitions}
            for partition in self.reader.partitions(topic, self._deadline())
        }
        bounds = self.reader.bounds([p for p in partitions if p in there], self._deadline())
        wanted: dict[Partition, tuple[int, int]] = {}
        own: dict[Place, Identity] = {}
        for one in opened:
            stretch = bounds.get(one.partition)
            if stretch is None:
                one.outcome = "gone" if one.chosen else "left_out"
                continue
            low, end = stretch
            if one.own_log == one.log:
                if one.after >= end:
                    # Whatever its identity says: the log has not come so far, so it is another one.
                    one.outcome = "recreated"
                    continue
                own[one.letter.source] = identity(one.letter.record)
            self._seek(one)
            one.checked = end
            first = wanted.get(one.partition, (end, end))[0]
            wanted[one.partition] = (min(first, max(low, one.after)), end)
        present = self._scan(wanted, own)
        for one in opened:
            self._judge(one, present)

    def _seek(self, one: Candidate) -> None:
        topic = one.letter.record.topic
        mapping = self.settings.mapping_of(topic)
        assert mapping is not None
        assert one.row is not None
        newer = self._newer.setdefault(one.partition, Newer(self.decode, mapping))
        newer.seek(one, one.row, one.letter.record.key, one.after)

    def _scan(self, wanted: Mapping[Partition, tuple[int, int]], own: Mapping[Place, Identity]) -> set[Place]:
        """Show every record to the search of its partition; returns which of ``own`` are still there."""
        present = set()
        for record in self.reader.read(wanted, patience_s=self.request.letters.timeout_s):
            place = Place.of(record)
            if own.get(place) == identity(record):
                present.add(place)
            self._newer[(record.topic, record.partition)].see(record)
        return present

    def _judge(self, one: Candidate, present: set[Place]) -> None:
        """A record that is still there was not removed for a newer one of its key, and nothing that followed
        it has been removed for its age: else nobody knows what followed."""
        if one.outcome:
            return
        is_same = one.own_log == one.log
        if one in self._newer[one.partition].found:
            one.outcome = "superseded"
        elif is_same and one.letter.source not in present and not self.request.accept_gone:
            one.outcome = "gone"

    # --- asking -----------------------------------------------------------------------------------------

    def _ask(self, ready: Sequence[Candidate]) -> None:
        if self.request.dry_run:
            for one in ready:
                one.outcome = "would_replay"
                self.tell(one)
            return
        for start in range(0, len(ready), _AT_ONCE):
            if start:
                self._catch_up(ready[start:])
            self._ask_some([one for one in ready[start : start + _AT_ONCE] if not one.outcome])
            if any(one.outcome == "unanswered" for one in ready):
                for one in ready[start:]:
                    if not one.outcome:
                        one.outcome = "unanswered"
                        self.tell(one)
                return

    def _catch_up(self, rest: Sequence[Candidate]) -> None:
        """Look at what the partitions have got since."""
        partitions = {one.partition for one in rest}
        bounds = self.reader.bounds(sorted(partitions), self._deadline())
        seen = {one.partition: one.checked for one in rest}
        self._scan({p: (seen[p], end) for p, (_low, end) in bounds.items()}, {})
        for one in rest:
            low, end = bounds[one.partition]
            if one in self._newer[one.partition].found:
                one.outcome = "superseded"
                self.tell(one)
            elif low <= one.checked:
                one.checked = end

    def _ask_some(self, some: Sequence[Candidate]) -> None:
        """Send the requests, and wait for their answers."""
        waiting = {uuid.uuid4().hex: one for one in some}
        if not waiting:
            return
        replays = self.settings.dlq.replays
        partitions = self.reader.partitions(replays, self._deadline())
        heard_to = {p: end for p, (_low, end) in self.reader.bounds(partitions, self._deadline()).items()}
        given = self.settings.kafka
        config = consumer_config(given.bootstrap_servers, "vectide.replay", given.properties)
        sender = KafkaSender(config, replays)
        try:
            sender.send(
                [self._request(id_, one).to_bytes() for id_, one in waiting.items()], self._deadline()
            )
            for answer in self._answers(heard_to, waiting):
                one = waiting.pop(answer.id)
                one.outcome, one.reason = answer.outcome, answer.reason
                self.tell(one)
        finally:
            sender.close()
        for one in waiting.values():
            one.outcome = "unanswered"
            self.tell(one)

    def _request(self, id_: str, one: Candidate) -> Request:
        letter = one.letter
        return Request(id_, letter.at, letter.source, self._letters_log, one.log, one.own_log, one.checked)

    def _answers(self, heard_to: dict[Partition, int], waiting: Mapping[str, Candidate]) -> Iterator[Answer]:
        """The answers to these requests as they come, until none came for the time to wait."""
        patience = Deadline.after(_CLOCK, self.request.wait_s)
        while waiting and not patience.passed:
            bounds = self.reader.bounds(list(heard_to), self._deadline())
            wanted = {p: (heard_to[p], end) for p, (_low, end) in bounds.items() if heard_to[p] < end}
            for stored in self.reader.read(wanted, patience_s=self.request.letters.timeout_s):
                answer = read(stored.value, stored.timestamp_ms)
                if isinstance(answer, Answer) and answer.id in waiting:
                    patience = Deadline.after(_CLOCK, self.request.wait_s)
                    yield answer
            heard_to |= {p: end for p, (_start, end) in wanted.items()}
            if not wanted:
                time.sleep(_PAUSE_S)
