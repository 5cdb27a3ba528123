"""Dead letters: confirmed by the broker before the offset moves; a flood halts its table instead.

What the breaker let pass is sent and counted before the table halts: who looks into the halt finds those
letters, and even where all records are poison each try gets on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from vectide.core.failures import Failure, Kind
from vectide.core.lane import Lane
from vectide.core.model import Record
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.jobs.rows import Settle
from vectide.jobs.work import LetterItem, Verdict
from vectide.ports import Deadline, Letter


class Letters:
    """``may_send`` asks the table's breaker; ``halt`` stops the table when it says no."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        station: Station[LetterItem],
        timeout_s: float,
        settle: Settle,
        may_send: Callable[[str], bool],
        halt: Callable[[str, str], None],
    ) -> None:
        self._parts = parts
        self._caller = caller
        self.station = station
        self._timeout_s = timeout_s
        self._settle = settle
        self._may_send = may_send
        self._halt = halt
        #: Letters on their way, by table; and why tables halt as soon as they have none.
        self._under_way: Counter[str] = Counter()
        self._floods: dict[str, str] = {}

    def add(self, lane: Lane, record: Record, verdict: Verdict) -> None:
        """The record can never succeed."""
        if not lane.held:
            return
        if not lane.is_replay and not self._may_send(lane.table):
            self._floods[lane.table] = f"too many dead letters ({verdict.cause})"
            self._halt_flooded(lane.table)
            return
        self._parts.log.warning(
            "dead_letter",
            where=record.where,
            table=lane.table,
            cause=verdict.cause,
            stage=verdict.stage,
            detail=verdict.detail,
        )
        lane.busy += 1
        self._under_way[lane.table] += 1
        attempts = verdict.attempts + (lane.tried or 0)
        letter = Letter(record, verdict.cause, verdict.stage, verdict.detail, lane.table, attempts, lane.log)
        self.station.add(LetterItem(lane, letter), record.size_bytes, self._caller.now())

    def start(self, unit: Unit[LetterItem]) -> None:
        """Send; the records settle when the broker has confirmed all of them."""
        items = list(unit.items)
        parts = self._parts

        def call() -> None:
            letters = [item.letter for item in items if item.lane.held]
            if letters:
                parts.dead_letters.send(letters, Deadline.after(parts.clock, self._timeout_s))

        def succeed(_: None) -> None:
            self.station.succeeded(unit)
            for item in items:
                self._left(item)
                self._settle(item.lane, item.letter.record, "dead_lettered", item.letter.cause)
            for table in {item.lane.table: None for item in items}:
                self._halt_flooded(table)

        def fail(failure: Failure) -> None:
            # A dead letter is never given up: losing it would lose the record.
            if failure.kind not in (Kind.TRANSIENT, Kind.THROTTLED):
                failure = replace(failure, kind=Kind.OPERATOR)
            self._caller.react(self.station, unit, failure)

        self._caller.start(self.station, unit, call, succeed, fail)

    def sweep(self) -> None:
        """Forget the letters of lanes that are gone: the new owner will meet the same records."""
        for item in self.station.sweep(lambda item: item.lane.held):
            self._left(item)

    def _left(self, item: LetterItem) -> None:
        item.lane.busy -= 1
        self._under_way[item.lane.table] -= 1

    def _halt_flooded(self, table: str) -> None:
        if table in self._floods and not self._under_way[table]:
            self._halt(table, self._floods.pop(table))
