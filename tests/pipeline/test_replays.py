"""Requests to replay dead letters, in the pump: what is applied again never goes over what is newer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from tests.pipeline.pump import (
    FIRST,
    GARBAGE,
    PRODUCTS,
    FaultyStore,
    Log,
    Pump,
    delete,
    row,
    upsert,
)

from vectide.core import signals
from vectide.core.breaker import BreakerLimits
from vectide.core.failures import Failure, Kind
from vectide.core.letters import PREFIX, Place
from vectide.core.model import Change, Deleted, Record, Row, Truncated, Upserted
from vectide.core.replays import VALID_S, Answer, Request
from vectide.ports import AdapterError, Deadline, Partition

DLQ: Partition = ("letters", 0)
LOG = f"id of {FIRST[0]}"
#: What is replayed here: the garbage record, which can be decoded by now.
MENDED = upsert(1, "mended")


@dataclass
class Desk:
    """Implements :class:`vectide.ports.ReplayDesk`, and its reader, over the pump's log."""

    log: Log
    letters: list[Record] = field(default_factory=list)
    arrived: list[Request | Answer] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    lows: dict[Partition, int] = field(default_factory=dict)
    fault: Failure | None = None
    reads: int = 0
    ids: Iterator[int] = field(default_factory=itertools.count)

    def put_aside(self, offset: int, *, log: str = LOG, of: Partition = FIRST) -> Place:
        """A letter about the record at this offset of the source."""
        (record,) = [record for record in self.log.records[of] if record.offset == offset]
        ours = {"cause": "not_json", "topic": of[0], "partition": of[1], "offset": offset, "log": log}
        ours |= {"attempts": 3, "timestamp": record.timestamp_ms}
        headers = tuple((PREFIX + name, str(value).encode()) for name, value in ours.items())
        self.letters.append(Record(*DLQ, len(self.letters), record.key, record.value, headers))
        return Place.of(self.letters[-1])

    def ask(
        self,
        letter: Place,
        offset: int,
        *,
        checked: int,
        log: str = LOG,
        own_log: str = LOG,
        sent_s: float = 1000.0,
    ) -> str:
        """A request arrives about a letter of the record at ``offset``."""
        id_ = f"request {next(self.ids)}"
        source = Place(*FIRST, offset)
        sent_ms = int(sent_s * 1000)
        self.arrived.append(Request(id_, letter, source, "letters' log", log, own_log, checked, sent_ms))
        return id_

    def outcomes(self) -> list[tuple[str, str]]:
        return [(answer.outcome, answer.reason) for answer in self.answers]

    # --- the desk ---------------------------------------------------------------------------------------

    @property
    def logs(self) -> Desk:
        return self

    def take(self) -> Sequence[Request | Answer]:
        taken, self.arrived = self.arrived, []
        return taken

    def answer(self, answers: Sequence[Answer], deadline: Deadline) -> None:
        self.answers += answers

    def close(self) -> None:
        """Nothing to close."""

    # --- its reader -------------------------------------------------------------------------------------

    def partitions(self, topic: str, deadline: Deadline) -> Sequence[Partition]:
        return [partition for partition in [*self.log.records, DLQ] if partition[0] == topic]

    def log_id(self, topic: str) -> str:
        return "letters' log" if topic == DLQ[0] else f"id of {topic}"

    def bounds(
        self, partitions: Iterable[Partition], deadline: Deadline
    ) -> Mapping[Partition, tuple[int, int]]:
        ends = {**self.log.ends, DLQ: len(self.letters)}
        return {partition: (self.lows.get(partition, 0), ends[partition]) for partition in partitions}

    def read(self, wanted: Mapping[Partition, tuple[int, int]], *, patience_s: float) -> Iterator[Record]:
        self.reads += 1
        if self.fault is not None:
            raise AdapterError(self.fault)
        for partition, (start, end) in wanted.items():
            records = self.letters if partition == DLQ else self.log.records[partition]
            yield from (record for record in records if start <= record.offset < end)


@dataclass
class Scene:
    """A pump whose record at offset 0 was dead-lettered, and can be decoded now."""

    log: Log
    desk: Desk
    pump: Pump
    letter: Place

    def mend(self, change: Change | None = MENDED) -> None:
        self.log.changes[(*FIRST, 0)] = change

    def ask(self, checked: int | None = None) -> None:
        self.desk.ask(self.letter, 0, checked=self.log.ends[FIRST] if checked is None else checked)

    def until_answered(self, number: int = 1) -> list[tuple[str, str]]:
        self.pump.until(lambda: len(self.desk.answers) == number, "the answer")
        self.pump.run()
        return self.desk.outcomes()


def scene(*later: Change | None, store: FaultyStore | None = None) -> Scene:
    log = Log()
    log.append(GARBAGE, *later)
    desk = Desk(log)
    letter = desk.put_aside(0)
    pump = Pump(log, replays=desk, store=store)
    pump.run()
    made = Scene(log, desk, pump, letter)
    made.mend()
    return made


def test_a_replayed_record_is_applied_and_answered() -> None:
    shop = scene()
    shop.ask()
    assert shop.until_answered() == [("written", "")]
    assert shop.pump.store.texts() == {row(1): "mended"}
    assert shop.pump.count(signals.REPLAYS, PRODUCTS.table, "written") == 1


def test_a_replay_clears_the_mark_of_a_stale_row() -> None:
    log = Log()
    log.append(upsert(1, "old"), upsert(1, "poison"))
    desk = Desk(log)
    pump = Pump(log, replays=desk)
    pump.provider.fault = lambda texts: Failure(Kind.REFUSED, "bad_request") if "poison" in texts[0] else None
    pump.run()
    point = pump.store.points()[row(1)]
    assert point.stamp is not None
    assert point.stamp.stale
    pump.provider.fault = None
    desk.ask(desk.put_aside(1), 1, checked=2)
    pump.until(lambda: desk.answers, "the answer")
    point = pump.store.points()[row(1)]
    assert point.stamp is not None
    assert (point.text, point.stamp.stale, point.stamp.position.offset) == ("poison", False, 1)


def test_the_offset_of_a_replayed_record_is_not_committed() -> None:
    """Invariant 1."""
    shop = scene(upsert(2, "b"), upsert(3, "c"))
    shop.ask()
    assert shop.until_answered() == [("written", "")]
    assert shop.pump.committed() == 3


@pytest.mark.parametrize("newer", [upsert(1, "newer"), delete(1), GARBAGE, Truncated()])
def test_what_came_after_the_operators_look_supersedes_the_letter(newer: Change | None) -> None:
    """Invariant 3: a delete, in particular, is not undone."""
    shop = scene(upsert(2, "b"), newer)
    before = shop.pump.store.texts()
    shop.ask(checked=2)
    assert shop.until_answered() == [("superseded", "")]
    assert shop.pump.store.texts() == before
    assert "mended" not in shop.pump.provider.sold


def test_what_came_after_the_look_and_is_of_other_rows_does_no_harm() -> None:
    shop = scene(upsert(2, "b"), delete(3))
    shop.ask(checked=1)
    assert shop.until_answered() == [("written", "")]
    assert shop.pump.store.texts() == {row(1): "mended", row(2): "b"}


@pytest.mark.parametrize("newer", [upsert(1, "newer"), delete(1), GARBAGE, Truncated()])
def test_what_arrives_during_the_services_own_look_supersedes_the_letter(newer: Change | None) -> None:
    shop = scene(upsert(2, "b"))
    pump = shop.pump
    shop.ask(checked=1)
    pump.until(lambda: shop.desk.reads == 1, "the letter to be fetched")
    pump.executor.answers_held.add("replay")
    pump.until(lambda: pump.executor.pending("replay"), "the look to be under way")
    shop.log.append(newer)
    pump.run()
    pump.executor.answers_held.clear()
    assert shop.until_answered() == [("superseded", "")]
    assert row(1) not in pump.store.points() or pump.store.texts()[row(1)] == "newer"


def test_a_newer_change_that_comes_while_the_record_is_written_goes_over_it() -> None:
    """Invariant 3."""
    shop = scene()
    pump = shop.pump
    pump.executor.held.add("write")
    shop.ask()
    pump.until(lambda: pump.executor.pending("write"), "the write to be under way")
    shop.log.append(delete(1))
    pump.run_for(0.5)
    pump.executor.held.clear()
    assert shop.until_answered() == [("written", "")]
    assert pump.store.points() == {}


def test_a_truncate_waits_for_the_replay_before_it() -> None:
    shop = scene()
    pump = shop.pump
    pump.executor.held.add("write")
    shop.ask()
    pump.until(lambda: pump.executor.pending("write"), "the write to be under way")
    shop.log.append(Truncated())
    pump.run_for(0.5)
    assert pump.committed() == 1
    pump.executor.held.clear()
    assert shop.until_answered() == [("written", "")]
    assert pump.store.points() == {}


def test_a_record_that_fails_again_becomes_a_letter_again() -> None:
    shop = scene()
    shop.mend(None)
    shop.ask()
    assert shop.until_answered() == [("dead_lettered", "not_json")]
    first, again = shop.pump.letters.letters
    assert (first.attempts, again.attempts) == (1, 4)
    assert again.record == first.record
    assert again.log == LOG


def test_replays_that_fail_say_nothing_about_their_table() -> None:
    """No halt for a flood of them, nor for events from before a column was added."""
    log = Log()
    log.append(*[GARBAGE] * 3, upsert(9, "a lamp"))
    desk = Desk(log)
    pump = Pump(log, replays=desk)
    pump.run()
    for offset in range(3):
        letter = desk.put_aside(offset)
        for _ in range(30):
            desk.ask(letter, offset, checked=4)
    old = upsert(1, "old")
    columns = {name: value for name, value in old.columns.items() if name != "price"}
    log.changes[(*FIRST, 2)] = type(old)(old.key, columns)
    pump.until(lambda: len(desk.answers) == 90, "the answers")
    assert {answer.outcome for answer in desk.answers} == {"dead_lettered"}
    assert {answer.reason for answer in desk.answers} == {"not_json", "drift"}
    assert not pump.stream.lanes[FIRST].halted
    assert pump.stream.status.state.value == "running"


def test_a_request_waits_for_the_owner_of_its_partition() -> None:
    """Invariant 4."""
    shop = scene()
    pump = shop.pump
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    shop.ask()
    pump.run_for(5)
    assert shop.desk.answers == []
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    assert shop.until_answered() == [("written", "")]


@pytest.mark.parametrize("pool", ["replay", "lookup", "embed", "write"])
def test_a_replay_is_taken_up_again_when_its_partition_went_away(pool: str) -> None:
    shop = scene()
    pump = shop.pump
    pump.executor.held.add(pool)
    shop.ask()
    pump.until(lambda: pump.executor.pending(pool), "the call to be under way")
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    pump.executor.held.clear()
    pump.run_for(1)
    assert shop.desk.answers == []
    assert pump.in_flight == 0
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    assert shop.until_answered() == [("written", "")]


def test_a_replay_that_is_under_way_ends_before_its_partition_is_given_back() -> None:
    shop = scene()
    pump = shop.pump
    pump.executor.takes_s["write"] = 0.2
    shop.ask()
    pump.until(lambda: pump.executor.pending("write"), "the write to be under way")
    pump.source.next_poll.append(lambda: pump.source.revoke(FIRST))
    pump.step()
    assert pump.store.texts() == {row(1): "mended"}
    assert not pump.stream.stations.replays.lanes


def test_a_request_that_another_replica_answers_is_dropped() -> None:
    shop = scene()
    pump = shop.pump
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    shop.ask()
    pump.step()
    shop.desk.arrived.append(Answer("request 0", shop.letter, "", "written"))
    pump.step()
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run_for(5)
    assert shop.desk.answers == []


def test_a_record_that_the_lane_meets_again_by_itself_is_left_to_it() -> None:
    """As after the group was set back."""
    log = Log()
    log.append(*(upsert(key, f"text {key}") for key in range(9)))
    desk = Desk(log)
    pump = Pump(log, replays=desk, poll_records=1)
    desk.ask(desk.put_aside(8), 8, checked=9)
    pump.until(lambda: desk.answers, "the answer")
    assert desk.outcomes() == [("skipped", "not_read_yet")]
    pump.run()
    assert len(pump.store.texts()) == 9


def test_an_incomplete_record_is_a_letter_again_at_once() -> None:
    shop = scene(upsert(2, "b"))
    shop.mend(replace(MENDED, columns={"id": 1, "title": "a", "price": 1}, unavailable=frozenset({"body"})))
    shop.ask()
    assert shop.until_answered() == [("dead_lettered", "incomplete_row")]


def test_an_old_request_is_not_taken_up() -> None:
    shop = scene()
    shop.pump.clock.now_s += VALID_S
    shop.ask()
    shop.pump.run_for(5)
    assert shop.desk.answers == []
    assert shop.pump.store.points() == {}


def test_a_request_that_is_repeated_changes_nothing() -> None:
    """Invariant 7."""
    shop = scene()
    shop.ask()
    shop.until_answered()
    shop.ask()
    assert shop.until_answered(2)[1] == ("skipped", "already_applied")
    assert shop.pump.provider.sold == ["mended"]


def test_what_cannot_be_found_out_is_said() -> None:
    shop = scene(upsert(2, "b"))
    shop.desk.ask(Place(*DLQ, 7), 0, checked=2)
    assert shop.until_answered() == [("lost", "no_letter")]
    shop.desk.fault = Failure(Kind.OPERATOR, "topic_authorization_failed")
    shop.ask()
    assert shop.until_answered(2)[1] == ("failed", "topic_authorization_failed")
    assert shop.pump.stream.status.state.value == "running"
    shop.desk.fault = None
    shop.desk.lows[FIRST] = 2
    shop.ask(checked=1)
    assert shop.until_answered(3)[2] == ("gone", "")
    shop.desk.ask(shop.letter, 0, checked=2, log="another")
    assert shop.until_answered(4)[3] == ("failed", "recreated")


def test_a_letter_of_an_older_log_takes_effect_at_its_own_position() -> None:
    shop = scene()
    shop.desk.ask(shop.letter, 0, checked=1, own_log="older log")
    assert shop.until_answered() == [("written", "")]
    stamp = shop.pump.store.points()[row(1)].stamp
    assert stamp is not None
    assert (stamp.position.log, stamp.position.offset) == ("older log", 0)


# --- any history ----------------------------------------------------------------------------------------


class History:
    """Changes of three rows, some of them poison until they are mended, and what disturbs their way.

    ``truth`` is what each record says, once it is mended, and of which row.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 (no secret)
        self.log = Log()
        self.desk = Desk(self.log)
        never = BreakerLimits(in_a_row=10**6, share=1.0)
        self.pump = Pump(self.log, replays=self.desk, breaker=never)
        self.truth: list[tuple[int, Upserted | Deleted]] = []
        self.letters: dict[int, Place] = {}

    def produce(self) -> None:
        offset, key = len(self.truth), self.rng.randint(1, 3)
        gone = self.rng.random() < 0.3
        change = delete(key) if gone else upsert(key, f"text {offset}", price=offset)
        self.truth.append((key, change))
        poison = self.rng.random() < 0.4
        self.log.append(GARBAGE if poison else change, key=b"%d" % key)
        if poison:
            self.letters[offset] = self.desk.put_aside(offset)

    def ask(self) -> None:
        """As the command does: look up to the end, or to where that was a little ago, then ask."""
        if self.letters:
            offset = self.rng.choice(list(self.letters))
            self.ask_about(offset, self.rng.randint(offset + 1, len(self.truth)))

    def ask_about(self, offset: int, checked: int) -> str | None:
        key, change = self.truth[offset]
        if any(other == key for other, _ in self.truth[offset + 1 : checked]):
            return None
        self.log.changes[(*FIRST, offset)] = change
        now_s = self.pump.clock.now_s
        return self.desk.ask(self.letters[offset], offset, checked=checked, sent_s=now_s)

    def disturb(self) -> None:
        """The partition goes away and comes back; calls take their time."""
        source = self.pump.source
        if FIRST in self.pump.stream.lanes and self.rng.random() < 0.5:
            leave = self.rng.choice((source.lose, source.revoke))
            source.next_poll.append(lambda: leave(FIRST))
            self.pump.step()
            source.next_poll.append(lambda: source.assign(FIRST))
        for pool in ("replay", "lookup", "embed", "write"):
            self.pump.executor.takes_s[pool] = self.rng.choice((0.0, 0.0, 0.05, 0.3))

    def go(self) -> None:
        self.produce()
        self.pump.steps(3)
        for _ in range(80):
            self.rng.choice((self.produce, self.ask, self.ask, self.disturb))()
            self.pump.steps(self.rng.randint(0, 5))
        self.pump.run()

    def replay_all(self) -> None:
        """Every letter that no newer change supersedes is replayed in the end."""
        for offset in self.letters:
            id_ = self.ask_about(offset, len(self.truth))
            if id_ is not None:
                self.pump.until(partial(self.is_answered, id_), "an answer")
        self.pump.run()

    def is_answered(self, id_: str) -> bool:
        return any(answer.id == id_ for answer in self.desk.answers)

    def fold(self) -> dict[Row, str]:
        last = dict(self.truth)
        return {
            row(key): change.columns["title"] for key, change in last.items() if isinstance(change, Upserted)
        }


@pytest.mark.parametrize("seed", range(60))
def test_any_history_with_replays_ends_as_the_fold(seed: int) -> None:
    """Invariant 14: whatever comes between the operator's look, the request, its looks and its write."""
    history = History(seed)
    history.go()
    history.replay_all()
    points = history.pump.store.points()
    assert history.pump.store.texts() == history.fold()
    assert not [key for key, point in points.items() if point.stamp is None or point.stamp.stale]
    assert history.pump.in_flight == 0
