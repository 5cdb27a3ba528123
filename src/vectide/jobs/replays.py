"""Dead letters that an operator wants applied again.

Only the owner of a record's partition can tell that nothing newer of its row is under way, so the owner does
it. Every replica hears every request; the one that owns the partition fetches the record out of its letter,
and looks whether the partition has a newer change of the row. What it has not received yet comes later and is
applied later; so only what came between the operator's look and what it has received is left to look at, and
what arrives during that look is watched. If there is none, the record joins the changes of its row, as the
newest that there is, and at its own old position: every later change goes over it (invariant 3).

It travels in a lane of its own beside that of its partition, which lives no longer than that one, so its
offset is neither committed nor counted with the others. Whatever happens to it, a request may be taken up
again by anybody, until it is answered: what is applied already is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from vectide.core import signals
from vectide.core.failures import Failure
from vectide.core.lane import Entry, Lane
from vectide.core.model import DecodeError, Deleted, Ignored, Record, Row, Upserted
from vectide.core.replays import VALID_S, Answer, Request, same_log
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.intake import Intake
from vectide.jobs.parts import Parts
from vectide.jobs.replay_look import Ended, Fetched, Finding, Look, Replay
from vectide.jobs.rows import Rows
from vectide.jobs.work import Verdict
from vectide.ports import Completion, Deadline, Partition

T = TypeVar("T")

#: Requests that are remembered; more are left to those who ask again.
MOST_REQUESTS: Final = 10_000


@dataclass(slots=True)
class _Watch:
    """Whose rows and keys are watched in what a lane receives."""

    rows: dict[Row, list[Replay]] = field(default_factory=dict)
    keys: dict[bytes, list[Replay]] = field(default_factory=dict)


class Replays:
    """Owned by the pump. ``lanes`` are the pump's; ``bury`` ends a record that can still not be decoded."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        station: Station[Replay],
        rows: Rows,
        intake: Intake,
        lanes: Mapping[Partition, Lane],
        timeout_s: float,
        bury: Callable[[Lane, Record, Verdict], None],
        settle: Callable[[Lane, Record, str, str], None],
    ) -> None:
        self._parts = parts
        self._caller = caller
        self.station = station
        self._rows = rows
        self._intake = intake
        self._lanes = lanes
        self._timeout_s = timeout_s
        self._bury = bury
        self._settle = settle
        #: Requests that wait for their lane, by id.
        self._waiting: dict[str, Replay] = {}
        self._busy: set[str] = set()
        self._watches: dict[Lane, _Watch] = {}
        #: The lanes of the records under way.
        self._running: dict[Lane, Replay] = {}
        self._answers: list[Answer] = []
        self._answering = False
        self._look = False

    @property
    def lanes(self) -> list[Lane]:
        """The lanes of the records under way."""
        return list(self._running)

    # --- what the pump tells ----------------------------------------------------------------------------

    def step(self) -> None:
        """One turn: hear of requests, begin what may begin, answer what ended."""
        desk = self._parts.replays
        if desk is None:
            return
        for heard in desk.take():
            self._hear(heard)
        if self._look:
            self._look = False
            self._begin_due()
        self._answer()

    def tick(self) -> None:
        """Once in a while: lanes may have become ready, and requests too old."""
        now_s = self._caller.now()
        for replay in [replay for replay in self._waiting.values() if now_s >= replay.expires_s]:
            del self._waiting[replay.request.id]
        self._look = bool(self._waiting)

    def met(self, lane: Lane, row: Row) -> None:
        """The lane received a change of this row."""
        watch = self._watches.get(lane)
        for replay in watch.rows.get(row, ()) if watch else ():
            replay.overtaken = True

    def met_poison(self, lane: Lane, key: bytes | None) -> None:
        """The lane received a record with this key, and nobody can tell of which row."""
        watch = self._watches.get(lane)
        for replay in watch.keys.get(key, ()) if watch and key is not None else ():
            replay.overtaken = True

    def met_truncate(self, lane: Lane) -> None:
        """The lane received the end of all its rows."""
        watch = self._watches.get(lane)
        for replays in watch.rows.values() if watch else ():
            for replay in replays:
                replay.overtaken = True

    def settled(self, lane: Lane, outcome: str, reason: str) -> None:
        """The record of this lane of ours reached its terminal state."""
        replay = self._running.pop(lane, None)
        if replay is not None:
            self._end(replay, outcome, reason)

    def beside(self, lanes: Iterable[Lane]) -> list[Lane]:
        """The lanes of ours beside these."""
        wanted = {lane.id for lane in lanes}
        return [lane for lane in self._running if lane.id in wanted]

    def leave(self, lanes: Iterable[Lane]) -> None:
        """These lanes are being given back."""
        for lane in self.beside(lanes):
            lane.leaving = True

    def forget(self, lanes: Iterable[Lane]) -> None:
        """These lanes are gone: so are ours beside them. Their requests wait for the next owner, or for the
        lane to try again."""
        for lane in self.beside(lanes):
            lane.held = False
            self._intake.forget(lane)
            self._wait(self._running.pop(lane))

    # --- requests ---------------------------------------------------------------------------------------

    def _hear(self, heard: Request | Answer) -> None:
        if isinstance(heard, Answer):
            self._waiting.pop(heard.id, None)
            return
        known = heard.id in self._waiting or heard.id in self._busy
        if known or len(self._waiting) >= MOST_REQUESTS or heard.source.partition is None:
            return
        age_s = max(0.0, self._parts.clock.wall_ms() / 1000 - heard.sent_ms / 1000)
        if age_s < VALID_S:
            self._waiting[heard.id] = Replay(heard, self._caller.now() + VALID_S - age_s)
            self._look = True

    def _begin_due(self) -> None:
        for replay in list(self._waiting.values()):
            lane = self._lanes.get(replay.partition)
            if lane is None or not _is_ready(lane):
                continue
            del self._waiting[replay.request.id]
            self._busy.add(replay.request.id)
            if not same_log(lane.log, replay.request.log, lane.topic):
                self._end(replay, "failed", "recreated")
                continue
            replay.lane = lane
            if self._is_ahead(replay, lane):
                self._end(replay, "skipped", "not_read_yet")
                continue
            self._add(replay)

    def _is_ahead(self, replay: Replay, lane: Lane) -> bool:
        """Whether the lane was set back to before the record, and meets it again by itself."""
        received, request = lane.tracker.next, replay.request
        is_same = same_log(request.own_log, request.log, lane.topic)
        return is_same and received is not None and received <= request.source.offset

    def _add(self, replay: Replay) -> None:
        self.station.add(replay, 1, self._caller.now())

    def _wait(self, replay: Replay) -> None:
        """Begin anew when there is a lane for it."""
        self._unwatch(replay)
        self._busy.discard(replay.request.id)
        replay.lane = replay.fetched = None
        replay.overtaken = False
        self._waiting[replay.request.id] = replay

    def _end(self, replay: Replay, outcome: str, reason: str = "") -> None:
        self._unwatch(replay)
        request = replay.request
        self._busy.discard(request.id)
        lane = replay.lane
        table = lane.table if lane is not None else ""
        self._parts.telemetry.count(signals.REPLAYS, table=table, outcome=outcome)
        self._parts.log.info(
            "replayed", where=str(request.source), letter=str(request.letter), outcome=outcome, reason=reason
        )
        self._answers.append(Answer(request.id, request.letter, request.letters_log, outcome, reason))

    # --- looking ----------------------------------------------------------------------------------------

    def start(self, unit: Unit[Replay]) -> None:
        """Fetch the records that are not there yet; look for newer changes of the others' rows."""
        replays = list(unit.items)

        def call() -> Mapping[Replay, Finding]:
            return Look(self._parts, Deadline.after(self._parts.clock, self._timeout_s)).at(replays)

        def succeed(findings: Mapping[Replay, Finding]) -> None:
            self.station.succeeded(unit)
            for replay in replays:
                self._go_on(replay, findings[replay])

        def fail(failure: Failure) -> None:
            # Nothing is lost: the letter is still there. The service must not halt for it.
            self.station.succeeded(unit)
            for replay in replays:
                self._end(replay, "failed", failure.cause)

        self._caller.start(self.station, unit, call, succeed, fail)

    def _go_on(self, replay: Replay, finding: Finding) -> None:
        lane = replay.lane
        if lane is None or not _is_ready(lane):
            self._wait(replay)
            return
        match finding:
            case Ended(outcome, reason):
                self._end(replay, outcome, reason)
                return
            case Fetched():
                replay.fetched = finding
                if self._must_look(replay, lane):
                    self._add(replay)
                    return
        if replay.overtaken:
            self._end(replay, "superseded")
        elif self._intake.room_for_replay():
            self._apply(replay, lane)
        else:
            self._wait(replay)

    def _must_look(self, replay: Replay, lane: Lane) -> bool:
        """Whether the lane has received more than the operator has looked at; it is watched from here on."""
        fetched, received = replay.fetched, lane.tracker.next
        assert fetched is not None
        assert received is not None
        if received <= replay.request.checked or fetched.row is None:
            return False
        replay.until = received
        watch = self._watches.setdefault(lane, _Watch())
        watch.rows.setdefault(fetched.row, []).append(replay)
        if fetched.record.key is not None:
            watch.keys.setdefault(fetched.record.key, []).append(replay)
        return True

    def _unwatch(self, replay: Replay) -> None:
        lane, fetched = replay.lane, replay.fetched
        watch = self._watches.get(lane) if lane is not None else None
        if lane is None or watch is None or fetched is None or fetched.row is None:
            return
        _discard(watch.rows, fetched.row, replay)
        if fetched.record.key is not None:
            _discard(watch.keys, fetched.record.key, replay)
        if not watch.rows:
            del self._watches[lane]

    # --- applying ---------------------------------------------------------------------------------------

    def _apply(self, replay: Replay, lane: Lane) -> None:
        """Nothing newer of the row exists: the record joins its changes."""
        self._unwatch(replay)
        fetched = replay.fetched
        assert fetched is not None
        record, change = fetched.record, fetched.change
        own = Lane(lane.topic, lane.partition, replay.request.own_log or lane.log, lane.mapping)
        own.tried = fetched.tried
        self._running[own] = replay
        self._intake.hold(own, record)
        own.tracker.reach(record.offset + 1)  # nothing newer comes that could complete it
        match change:
            case DecodeError():
                self._bury(own, record, Verdict(change.cause, "decode", change.detail))
            case Upserted() | Deleted() if fetched.row is not None:
                self._rows.add(fetched.row, Entry(own, record, change, self._caller.now()))
            case Ignored(reason):
                self._settle(own, record, "skipped", reason)
            case _:
                self._settle(own, record, "skipped", "keyless_tombstone")

    # --- answering --------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Send what there is to answer; one call at a time. What is not sent is found out by asking again."""
        desk = self._parts.replays
        if self._answering or not self._answers or desk is None:
            return
        answers, self._answers = self._answers, []
        self._answering = True
        parts = self._parts

        def call() -> None:
            desk.answer(answers, Deadline.after(parts.clock, self._timeout_s))

        def done(completion: Completion) -> None:
            self._answering = False
            if completion.error is not None:
                parts.log.warning("replay_answers_lost", answers=len(answers), detail=str(completion.error))

        parts.executor.submit("replay", call, done)


def _is_ready(lane: Lane) -> bool:
    """Whether the lane takes changes, and knows what it has received, and of which rows."""
    idle = lane.resting or lane.barrier is not None or bool(lane.undecoded)
    return lane.active and not idle and lane.mapping is not None and lane.tracker.next is not None


def _discard(watched: dict[T, list[Replay]], what: T, replay: Replay) -> None:
    rest = [one for one in watched.get(what, ()) if one is not replay]
    if rest:
        watched[what] = rest
    else:
        watched.pop(what, None)
