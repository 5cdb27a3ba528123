"""A station between look-up and embed: what a change lacks, and nothing stored can tell, is read again from
the source's table.

The value may be newer than the event. That is right in the end, since whatever made it newer is still to come
as an event of its own, and finds the value there already. It is never older: the source commits before it
tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from vectide.core import signals
from vectide.core.completion import completed
from vectide.core.failures import Failure
from vectide.core.model import Columns, Upserted
from vectide.core.station import Station, Unit
from vectide.jobs.calls import Caller
from vectide.jobs.parts import Parts
from vectide.jobs.routes import Route
from vectide.jobs.rows import Rows
from vectide.jobs.work import Reread, Verdict, Work
from vectide.ports import Deadline, RowsRead


class ReRead:
    """``plan`` takes the works on, completed or not."""

    def __init__(self, parts: Parts, caller: Caller, rows: Rows, timeout_s: float) -> None:
        self._parts = parts
        self._caller = caller
        self._rows = rows
        self._timeout_s = timeout_s
        self.plan: Callable[[Work], None]

    def start(self, route: Route, table: str, station: Station[Work], unit: Unit[Work]) -> None:
        """Read the rows of the unit's works from the ``table`` of their source."""
        for work in [work for work in unit.items if not work.lane.active]:
            self._rows.forget(work)
        unit.items = [work for work in unit.items if work.lane.active]
        if not unit.items:
            station.withdraw(unit)
            return
        works = list(unit.items)
        keys: list[Columns] = [json.loads(work.row.key) for work in works]
        columns = sorted({name for work in works for name in missing_columns(work)})
        clock, reader = self._parts.clock, route.reader
        assert reader is not None

        def call() -> RowsRead:
            deadline = Deadline.after(clock, self._timeout_s)
            return reader.read(table, keys, columns, deadline)

        def succeed(read: RowsRead) -> None:
            station.succeeded(unit)
            for work, row in zip(works, read.rows, strict=True):
                self._arrived(work, row, read)

        def fail(failure: Failure) -> None:
            poison = self._caller.react(station, unit, failure)
            if poison is not None:
                verdict = Verdict(poison.cause, "reread", failure.detail, unit.attempt + 1)
                self._rows.poison(works[0], verdict)

        self._caller.start(station, unit, call, succeed, fail)

    def skip(self, work: Work, why: str) -> None:
        """The source cannot be asked about this work."""
        work.reread = Reread(why=why)
        self.plan(work)

    def _arrived(self, work: Work, row: Columns | None, read: RowsRead) -> None:
        if not work.lane.held:
            self._rows.drop_result(work, "reread")
            return
        change = work.merged.change
        assert isinstance(change, Upserted)
        if row is None:
            work.reread = Reread(gone=True, why="the source no longer has the row")
        else:
            refused = [
                f"{name}: {read.refused[name]}" for name in missing_columns(work) if name in read.refused
            ]
            more = completed(change, row, present=True)
            told = change.unavailable - more.unavailable
            work.reread = Reread(why="; ".join(refused), columns=told)
            if more is not change:
                work.complete(more)
                self._parts.telemetry.count(signals.COMPLETED, table=work.lane.table, reason="reread")
        self.plan(work)


def missing_columns(work: Work) -> Sequence[str]:
    """The mapped columns that the work's change lacks."""
    change, mapping = work.merged.change, work.lane.mapping
    if not isinstance(change, Upserted) or mapping is None:
        return ()
    return [name for name in mapping.mapped_columns if name in change.unavailable]


def source_table(work: Work) -> str:
    """``schema.table`` of the work's row, from the event or else from the name of its topic (which is
    ``prefix.schema.table`` unless it was renamed); empty when neither tells."""
    change = work.merged.change
    if isinstance(change, Upserted) and change.table.count(".") == 1:
        return change.table
    parts = work.lane.topic.split(".")
    return ".".join(parts[-2:]) if len(parts) > 2 else ""
