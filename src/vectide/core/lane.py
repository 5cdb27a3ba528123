"""Lanes, the changes of a row that wait in them, and how waiting changes merge.

One row's changes take effect in order: at most one *work* of a row is in flight, newer changes of that row
wait and are merged into the next one. Different rows run in parallel, also inside one partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from vectide.core.completion import completed
from vectide.core.mapping import TableMapping
from vectide.core.model import DecodeError, Deleted, Position, Record, Row, SourcePosition, Upserted
from vectide.core.tracker import Tracker
from vectide.core.value import value


@dataclass(eq=False, slots=True)
class Lane:
    """One assigned partition during one assignment.

    ``held`` is cleared when the partition is gone: workers look at it just before each send, and results
    of a lane that is not held any more are dropped (invariant 4). ``leaving``: the partition is being given
    back; what is in flight or paid for finishes, the rest is left to the next owner.
    """

    topic: str
    partition: int
    log: str
    #: None: the topic belongs to no table, its records are skipped.
    mapping: TableMapping | None
    tracker: Tracker = field(default_factory=Tracker)
    held: bool = True
    leaving: bool = False
    paused: bool = False
    #: Set while the lane is halted: why, and when it tries again (monotonic seconds). ``resting``: it does
    #: not try yet and takes nothing.
    halted: str = ""
    probe_at_s: float = 0.0
    resting: bool = False
    committed: int | None = None
    #: Size and arrival (monotonic) of each record that is not behind the position yet, oldest first.
    arrivals: dict[int, tuple[int, float]] = field(default_factory=dict)
    bytes_held: int = 0
    #: A truncate: what was received before it has to end first, what comes after it is not taken in, and what
    #: was taken in undecoded waits behind it.
    barrier: Record | None = None
    #: The first record that the mapping does not fit: all before it is done, then the lane halts for
    #: ``stop_cause``. ``stopped``: the record was met, and nothing more is taken in.
    stop_at: int | None = None
    stop_cause: str = ""
    stopped: bool = False
    #: Works and letters that are under way for this lane.
    busy: int = 0
    #: Set where the lane is there for one dead letter that is replayed, beside the lane of its partition:
    #: how often the record was tried before.
    tried: int | None = None
    #: Received records that wait for a schema, or behind one that does, in their order.
    undecoded: deque[Record] = field(default_factory=deque)

    @property
    def id(self) -> tuple[str, int]:
        return (self.topic, self.partition)

    @property
    def table(self) -> str:
        """Id of the lane's table, empty when it has none."""
        return "" if self.mapping is None else self.mapping.table

    @property
    def is_replay(self) -> bool:
        """Whether it is there for one record that is applied again: that says nothing of its table."""
        return self.tried is not None

    @property
    def at_end(self) -> bool:
        """Whether everything that the partition held at the last look has been received and decoded."""
        return self.tracker.at_end and not self.undecoded

    @property
    def only_barrier_left(self) -> bool:
        """Whether everything before the barrier is settled."""
        return self.tracker.outstanding == 1 + len(self.undecoded)

    @property
    def active(self) -> bool:
        """Whether new calls may be made for it."""
        return self.held and not self.leaving

    def halted_successor(self, cause: str, probe_at_s: float) -> Lane:
        """The lane that takes over from this one when it halts: nothing received, same position."""
        return Lane(
            self.topic,
            self.partition,
            self.log,
            self.mapping,
            Tracker(self.tracker.position),
            leaving=self.leaving,
            halted=cause,
            probe_at_s=probe_at_s,
            resting=True,
            committed=self.committed,
        )

    def stopping_successor(self, offset: int, cause: str) -> Lane:
        """The lane that takes over from this one to do what comes before ``offset``, and then to halt."""
        return Lane(
            self.topic,
            self.partition,
            self.log,
            self.mapping,
            Tracker(self.tracker.position),
            leaving=self.leaving,
            paused=self.paused,
            committed=self.committed,
            stop_at=offset,
            stop_cause=cause,
        )

    def position_of(self, record: Record, source: SourcePosition | None = None) -> Position:
        """Where the record stands; ``source``: as its change tells."""
        return Position(self.log, record.partition, record.offset, source)


@dataclass(eq=False, slots=True)
class Entry:
    """One decoded record on its way; ``received_s`` is on the monotonic clock.

    ``before_dead``: the change right after it was dead-lettered, so the row is stale once this is applied.
    ``holds``: a delete that may not be applied yet, because the row lives on under a new key and only its
    point still has the text. ``awaited_by``: the new row, once its create has arrived. ``takes_from``: on
    that create, the deletes (and tombstones) that hold for it, and their row. ``unreadable``: nothing but the
    key could be decoded, and ``change`` says no more than that. It is a dead letter when its turn comes, and
    the row stale.
    """

    lane: Lane
    record: Record
    change: Upserted | Deleted
    received_s: float
    before_dead: bool = False
    holds: bool = False
    awaited_by: Row | None = None
    takes_from: list[tuple[Row, Entry]] = field(default_factory=list)
    unreadable: DecodeError | None = None


@dataclass(eq=False, slots=True)
class RowQueue:
    """The changes of one row: those that wait, and whether one is being worked on.

    ``parked``: they cannot be completed and wait for a newer one, until ``news_by_s`` (monotonic), which is
    ``certain`` to come when the source says that the row is gone. ``held_by_s``: until when the delete at
    the head waits for the create that needs the row's text (monotonic).
    """

    row: Row
    #: A list: an empty deque takes ten times as much memory, and a row seldom has more than one change here.
    waiting: list[Entry] = field(default_factory=list)
    busy: bool = False
    queued: bool = False
    parked: bool = False
    news_by_s: float | None = None
    certain: bool = False
    held_by_s: float | None = None

    @property
    def held(self) -> bool:
        """Whether a delete stands at the head that may not be applied yet: everything before it is done."""
        if self.busy or not self.waiting:
            return False
        return self.waiting[0].holds and self.waiting[0].lane.active

    def take(self) -> list[Entry]:
        """The longest run of waiting entries of one lane that may be merged. Entries of lanes that are
        gone or leaving are forgotten on the way. A delete that holds is left, and ends the run: what comes
        before it has to be in the store when the text is taken from there. So does a second create that
        takes over from another row: what holds for the first one is let go when that has settled. What cannot
        be read is taken alone."""
        taken: list[Entry] = []
        passed = 0
        for entry in self.waiting:
            if entry.holds and entry.lane.active:
                break
            if taken and entry.lane is not taken[0].lane:
                break
            if entry.takes_from and any(before.takes_from for before in taken):
                break
            if taken and (entry.unreadable or taken[0].unreadable):
                break
            passed += 1
            if entry.lane.active:
                taken.append(entry)
        del self.waiting[:passed]
        return taken


@value
class Merged:
    """Several changes of one row as one.

    ``fresh``: it follows a delete or a dead-lettered change among them, so nothing stored may complete it.
    ``stale``: the change after it was dead-lettered. ``moved_here``: the create after a change of the
    primary key that the change follows: what it lacks, the row under its former key had.
    """

    change: Upserted | Deleted
    position: Position
    fresh: bool
    stale: bool
    absorbed: int
    moved_here: Entry | None = None


def merge(entries: Sequence[Entry]) -> Merged:
    """The last full row wins, an unavailable column keeps the value of the change that it follows, and
    nothing carries across a delete or a dead-lettered change. ``entries`` is not empty and in order."""
    change = entries[0].change
    fresh = False
    moved_here = entries[0] if entries[0].takes_from else None
    for earlier, entry in pairwise(entries):
        following = entry.change
        fresh = fresh or isinstance(change, Deleted) or earlier.before_dead
        if isinstance(following, Deleted):
            fresh = False
        if entry.takes_from:
            moved_here = entry
        elif earlier.before_dead or isinstance(following, Deleted):
            moved_here = None
        change = following if earlier.before_dead else _follow(change, following)
    last = entries[-1]
    position = last.lane.position_of(last.record, last.change.source)
    return Merged(change, position, fresh, last.before_dead, len(entries) - 1, moved_here)


def _follow(earlier: Upserted | Deleted, later: Upserted | Deleted) -> Upserted | Deleted:
    if isinstance(later, Deleted) or isinstance(earlier, Deleted) or not later.unavailable:
        return later
    followed = completed(later, earlier.columns)
    passed = earlier.offloaded & followed.unavailable
    return replace(followed, offloaded=followed.offloaded | passed) if passed else followed
