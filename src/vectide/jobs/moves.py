"""Changes of a primary key: the delete of the old key waits until the create has what only the old row has.

The source tells such a change as a delete that names the new key, its tombstone, and a create that names the
old one and lacks the big values that did not change. The old row's point is then the only place where these
are. So the delete (and the tombstone) hold back, within their lane alone, until the create has settled: what
it took over is then safe under the new key, whatever happens to this process. A create that does not come,
because its key lies in another partition or it was left out, is waited for a few seconds.

It cannot lock up. A create waits for older records only, and a delete for the create right behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vectide.core.lane import Entry, RowQueue
from vectide.core.model import Deleted, Row, Upserted
from vectide.jobs.work import Origin, Work


class Moves:
    """Looks after the deletes that hold, in the queues of the rows (which it only reads)."""

    def __init__(self, queues: Mapping[Row, RowQueue], patience_s: float) -> None:
        self._queues = queues
        self._patience_s = patience_s
        self._held: dict[Row, RowQueue] = {}

    def arrived(self, row: Row, entry: Entry) -> RowQueue | None:
        """A change was queued: does it hold, or is it what another one holds for? Returns a queue that need
        not wait any longer."""
        mapping = entry.lane.mapping
        match entry.change:
            case Deleted(new_key=new_key) if new_key is not None and mapping is not None:
                entry.holds = mapping.hands_over and mapping.row_at(new_key) not in (None, row)
            case Upserted(old_key=old_key) if old_key is not None and mapping is not None:
                old = mapping.row_at(old_key)
                if old is not None and old != row:
                    return self._join(row, entry, old)
        return None

    def _join(self, row: Row, create: Entry, old: Row) -> RowQueue | None:
        queue = self._queues.get(old)
        if queue is None:
            return None
        deletes = [
            entry
            for entry in queue.waiting
            if entry.holds
            and entry.awaited_by is None
            and entry.lane is create.lane
            and _new_row(entry) == row
        ]
        lacks_values = _lacks_values(create)
        for delete in deletes:
            delete.holds = lacks_values
            delete.awaited_by = row
        if lacks_values:
            create.takes_from = [(old, delete) for delete in deletes]
            return None
        return queue

    def origin_of(self, work: Work) -> Origin | None:
        """The row whose point may complete the work's change; None when it is complete, or it is too late."""
        create = work.merged.moved_here
        change = work.merged.change
        if create is None or not isinstance(change, Upserted) or not change.unavailable:
            return None
        return next((Origin(row, delete) for row, delete in create.takes_from if delete.holds), None)

    def is_ready(self, origin: Origin) -> bool:
        """Whether the store has of the former row what there will ever be: only its delete is left."""
        queue = self._queues.get(origin.row)
        return queue is None or (queue.held and queue.waiting[0] is origin.delete)

    def hold(self, queue: RowQueue, now_s: float) -> RowQueue | None:
        """A delete that holds has come to the head of its queue. Returns the queue of the create that it
        holds for, if that has arrived."""
        if queue.held_by_s is None:
            queue.held_by_s = now_s + self._patience_s
        self._held[queue.row] = queue
        awaited_by = queue.waiting[0].awaited_by
        return None if awaited_by is None else self._queues.get(awaited_by)

    def settled(self, entries: Iterable[Entry]) -> Iterator[RowQueue]:
        """The queues whose deletes may go on because the create has settled."""
        for entry in entries:
            for row, delete in entry.takes_from:
                delete.holds = False
                if row in self._queues:
                    yield self._queues[row]

    def overdue(self, now_s: float) -> list[RowQueue]:
        """The queues whose deletes go on because no create has come in time."""
        due = []
        for row, queue in list(self._held.items()):
            if queue.held:
                if not _in_vain(queue, now_s):
                    continue
                _let_go(queue)
                due.append(queue)
            queue.held_by_s = None
            del self._held[row]
        return due


def _in_vain(queue: RowQueue, now_s: float) -> bool:
    """Whether the delete at the head need not wait any longer: no create has come, and none will in time, or
    before the truncate that waits for the delete. There is no telling while records cannot be decoded yet."""
    delete = queue.waiting[0]
    if delete.awaited_by is not None:
        return False
    if delete.lane.barrier is not None:
        return True
    return now_s >= (queue.held_by_s or 0.0) and not delete.lane.undecoded


def _let_go(queue: RowQueue) -> None:
    """The delete at the head goes on, and its tombstone with it."""
    row = _new_row(queue.waiting[0])
    for entry in queue.waiting:
        if not entry.holds or _new_row(entry) != row:
            return
        entry.holds = False


def _new_row(delete: Entry) -> Row | None:
    change, mapping = delete.change, delete.lane.mapping
    if not isinstance(change, Deleted) or mapping is None:
        return None
    return mapping.row_at(change.new_key)


def _lacks_values(create: Entry) -> bool:
    change, mapping = create.change, create.lane.mapping
    if not isinstance(change, Upserted) or mapping is None:
        return False
    return not change.unavailable.isdisjoint(mapping.compared_columns)
