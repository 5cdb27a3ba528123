"""Where the positions of a table's rows stop being comparable: its topic was created again, its keys moved to
other partitions, its source was restored, or another server took over.

Nothing newer is dropped for it: what cannot be compared is accepted (see
:meth:`~vectide.core.model.Position.relation_to`). But it is counted, and said once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from vectide.core import signals
from vectide.core.lane import Lane
from vectide.core.model import Position
from vectide.jobs.work import Work
from vectide.ports import Log, Telemetry

#: What was said is remembered, so that it is said once.
_MOST_SAID: Final = 1000


class Epochs:
    """Owned by the pump: sees every work between its look-up and its plan."""

    def __init__(self, telemetry: Telemetry, log: Log) -> None:
        self._telemetry = telemetry
        self._log = log
        self._said: set[tuple[str, ...]] = set()

    def met(self, work: Work) -> None:
        """What the store holds of the work's row is known."""
        lane, now = work.lane, work.merged.position
        if work.stamp is None or lane.is_replay:
            return
        held = work.stamp.position
        if lane.log == lane.topic and _began_anew(held, now):
            assert now.source is not None
            lane.log = f"{lane.topic}@{now.source.committed_ms}"  # no topic is called like this
        if now.log != lane.log:
            now = replace(now, log=lane.log)
            work.merged = replace(work.merged, position=now)
        reason = break_between(held, now)
        if reason is not None:
            self._tell(lane, reason, held, now)

    def _tell(self, lane: Lane, reason: str, held: Position, now: Position) -> None:
        self._telemetry.count(signals.POSITION_BREAKS, table=lane.table, reason=reason)
        said = (lane.table, reason, _whose(held, reason), _whose(now, reason))
        if said not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(said)
            self._log.warning(
                "positions_broke",
                table=lane.table,
                reason=reason,
                topic=lane.topic,
                position_before=_shown(held, reason),
                position_now=_shown(now, reason),
            )


def break_between(held: Position, now: Position) -> str | None:
    """Why the position of a row's change does not continue the one that the store holds: ``topic``,
    ``partition`` or ``source``; None when it does."""
    if held.log != now.log:
        return "topic"
    if held.partition != now.partition:
        return "partition"
    before, source = held.source, now.source
    if before is None or source is None or held.offset >= now.offset:
        return None
    went_back = source.order < before.order and source.committed_ms > before.committed_ms
    return "source" if source.server != before.server or went_back else None


def _began_anew(held: Position, now: Position) -> bool:
    """Whether a log that is known by its topic's name alone is another one by now: its offsets went back
    while the time of the source went on."""
    if held.source is None or now.source is None:
        return False
    back = (held.log, held.partition) == (now.log, now.partition) and now.offset <= held.offset
    return back and now.source.committed_ms > held.source.committed_ms


def _whose(position: Position, reason: str) -> str:
    source = position.source
    return source.server if reason == "source" and source is not None else position.log


def _shown(position: Position, reason: str) -> str:
    source = position.source
    if reason == "source" and source is not None:
        return f"{source.server} {source.order} at {source.committed_ms}"
    return f"{position.log}[{position.partition}]@{position.offset}"
