"""The rows under way: which one is worked on, and the few ways in which a work ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vectide.core import signals
from vectide.core.lane import Entry, Lane, RowQueue
from vectide.core.model import Deleted, Order, Record, Row, Upserted
from vectide.core.planner import MarkStale, RemoveRow
from vectide.jobs.moves import Moves
from vectide.jobs.parts import Parts
from vectide.jobs.savings import Savings, tokens_in
from vectide.jobs.work import Verdict, Work

Settle = Callable[[Lane, Record, str, str], None]
SendLetter = Callable[[Lane, Record, Verdict], None]


class Rows:
    """Every row with waiting or running changes; at most one work of a row at a time (invariant 3).

    ``look_up`` queues a row for its look-up, ``write`` a work for its write; ``settle`` and ``send_letter``
    end a record.
    """

    def __init__(
        self, parts: Parts, settle: Settle, incomplete_patience_s: float, move_patience_s: float
    ) -> None:
        self._parts = parts
        self._settle = settle
        self._patience_s = incomplete_patience_s
        self._queues: dict[Row, RowQueue] = {}
        self._parked: dict[Row, RowQueue] = {}
        self._moves = Moves(self._queues, move_patience_s)
        self.savings = Savings(parts)
        self.look_up: Callable[[RowQueue], None]
        self.send_letter: SendLetter
        self.write: Callable[[Work], None]
        #: Told of every work that has ended and whose chunks took memory.
        self.let_go: Callable[[Work], None]

    def __len__(self) -> int:
        return len(self._queues)

    def waiting(self) -> int:
        """Changes that wait for a work (not those inside one)."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def oldest_s(self) -> float | None:
        """When the oldest waiting change was received (monotonic)."""
        times = (queue.waiting[0].received_s for queue in self._queues.values() if queue.waiting)
        return min(times, default=None)

    def add(self, row: Row, entry: Entry) -> None:
        """A change of ``row`` arrived."""
        queue = self._queues.get(row)
        if queue is None:
            queue = self._queues[row] = RowQueue(row)
        queue.waiting.append(entry)
        freed = self._moves.arrived(row, entry)
        if freed is not None:
            self._release(freed)
        self._unpark(queue)
        self._schedule(queue)

    def begin(self, queue: RowQueue) -> Work | None:
        """The work of the row's waiting changes, merged; None when none of them is ours any more, or they
        have to wait."""
        queue.queued = False
        entries = queue.take()
        if not entries:
            self._release(queue)
            return None
        work = Work.of(queue, entries)
        work.moved_from = self._moves.origin_of(work)
        if work.moved_from is not None and not self._moves.is_ready(work.moved_from):
            # What it lacks is not in the store yet: changes of the former key are still under way.
            queue.waiting[:0] = entries
            self._park(queue)
            return None
        queue.busy = True
        work.lane.busy += 1
        return work

    # --- ends of a work ---------------------------------------------------------------------------------

    def finish(self, work: Work, outcome: str, reason: str = "") -> None:
        """The change is applied or needs nothing: all its records settle."""
        lane, last = work.lane, work.entries[-1]
        for entry in work.entries[:-1]:
            self._settle(lane, entry.record, "skipped", "superseded")
        self._settle(lane, last.record, outcome, reason)
        self._count_savings(work, outcome, reason)
        if outcome in ("written", "deleted") and not lane.is_replay:
            self._observe_freshness(lane, last.change)
        work.queue.news_by_s = None
        work.queue.certain = False
        self._end(work)
        self._let_go(work.entries)

    def poison(self, work: Work, verdict: Verdict) -> None:
        """The newest change of the work can never succeed; those that it absorbed get their own try.

        What the store then holds of the row is stale. It is marked before the letter leaves: the next
        change of the row must not be completed from it. A row that was only begun is taken back.
        """
        if work.ended or work.verdict is not None:
            return
        work.verdict = verdict
        stamp = work.stamp
        if stamp is not None and stamp.unborn:
            work.plan = RemoveRow(work.row.chunk_ids(stamp.chunks), verdict.cause)
            self.write(work)
        elif len(work.entries) == 1 and stamp is not None and not stamp.stale and not _is_overtaken(work):
            work.plan = MarkStale(stamp.made_stale(work.merged.position.before()), verdict.cause)
            self.write(work)
        else:
            self.bury(work)

    def bury(self, work: Work) -> None:
        """The row is marked, or need not be: the letter about the work's newest change may leave."""
        assert work.verdict is not None
        *absorbed, last = work.entries
        if absorbed:
            absorbed[-1].before_dead = True
            work.queue.waiting[:0] = absorbed
        self._end(work)
        self._let_go([last])
        self.send_letter(work.lane, last.record, work.verdict)

    def may_merge(self, work: Work) -> bool:
        """Whether a newer change of the row waits that could make up for what the work's change lacks."""
        return _is_followed(work) and not work.queue.waiting[0].holds

    def await_news(self, work: Work, verdict: Verdict, *, certain: bool = False) -> None:
        """The change cannot be completed. That is poison only when no newer change of the row makes up for
        it: a replay meets changes whose successors (a delete, say) have long been applied. So it waits
        until the partition has been read to its end, a newer change (of all rows: a truncate) arrives, or
        patience ends. ``certain``: the source no longer has the row, so its delete is on the way, even if the
        partition ends here. There is no telling while records of its lane cannot be decoded yet."""
        queue, lane = work.queue, work.lane
        if lane.barrier is not None:
            self.finish(work, "skipped", "superseded")  # a truncate waits behind it: the row is gone
            return
        if lane.is_replay and queue.waiting:
            self.finish(work, "skipped", "superseded")  # whatever waits behind a replay is newer
            return
        now_s = self._parts.clock.monotonic()
        if queue.news_by_s is None:
            queue.news_by_s = now_s + self._patience_s
        queue.certain = certain
        if _is_followed(work):
            queue.waiting[0].holds = False  # what cannot be completed here has nothing to hand over
            self.retry(work)
        elif _is_deleted_since(work):
            self.finish(work, "skipped", "superseded")
        elif (lane.at_end and not certain) or (now_s >= queue.news_by_s and not lane.undecoded):
            queue.news_by_s = None
            self.poison(work, verdict)
        else:
            self._park(queue)
            self.retry(work)

    def wake_lane(self, lane: Lane) -> None:
        """Try all parked rows of the lane again: a truncate has come."""
        self._wake(lambda queue: queue.waiting[0].lane is lane)

    def wake_at_end(self, lane: Lane) -> None:
        """Try the parked rows again for which nothing newer may come any more: the partition was read to
        its end."""
        self._wake(lambda queue: queue.waiting[0].lane is lane and not queue.certain)

    def wake_overdue(self) -> None:
        """Try the parked rows again whose patience has ended, and let go what was held long enough."""
        now_s = self._parts.clock.monotonic()
        self._wake(
            lambda queue: (
                queue.news_by_s is None or (now_s >= queue.news_by_s and not queue.waiting[0].lane.undecoded)
            )
        )
        for queue in self._moves.overdue(now_s):
            self._release(queue)

    def _wake(self, is_due: Callable[[RowQueue], bool]) -> None:
        for queue in [queue for queue in self._parked.values() if is_due(queue)]:
            self._unpark(queue)
            self._release(queue)

    def _let_go(self, settled: Sequence[Entry]) -> None:
        """The settled creates need nothing any more from the rows that they were."""
        for queue in self._moves.settled(settled):
            self._release(queue)

    def _park(self, queue: RowQueue) -> None:
        queue.parked = True
        self._parked[queue.row] = queue

    def _unpark(self, queue: RowQueue) -> None:
        queue.parked = False
        self._parked.pop(queue.row, None)

    def retry(self, work: Work) -> None:
        """What the work was planned on is gone: its changes wait again and are looked up anew."""
        work.queue.waiting[:0] = work.entries
        self._end(work)

    def postpone(self, work: Work) -> None:
        """The look-up failed and will be repeated: until then newer changes may merge with these."""
        work.queue.waiting[:0] = work.entries
        work.queue.queued = True
        self._end(work)

    def forget(self, work: Work) -> None:
        """Its lane is gone or leaving: the records are somebody else's now (invariant 4)."""
        if not work.ended:
            self._end(work)

    def drop_result(self, work: Work, station: str) -> None:
        """A result came back for a lane that is gone: neither committed nor counted as done."""
        self._parts.telemetry.count(signals.RESULTS_DROPPED, station=station)
        self.forget(work)

    def sweep(self) -> None:
        """Forget the waiting changes of lanes that are gone or leaving."""
        for queue in list(self._queues.values()):
            if any(not entry.lane.active for entry in queue.waiting):
                kept = [entry for entry in queue.waiting if entry.lane.active]
                queue.waiting[:] = kept
            self._release(queue)

    def _end(self, work: Work) -> None:
        work.ended = True
        if work.chunks_bytes:
            self.let_go(work)
        work.lane.busy -= 1
        work.queue.busy = False
        self._release(work.queue)

    def _release(self, queue: RowQueue) -> None:
        if queue.busy or queue.queued:
            return
        while queue.waiting and not queue.waiting[0].lane.active:
            del queue.waiting[0]
        if not queue.waiting:
            self._unpark(queue)
            self._queues.pop(queue.row, None)
        elif not queue.parked:
            self._schedule(queue)

    def _schedule(self, queue: RowQueue) -> None:
        if queue.busy or queue.queued:
            return
        if queue.held:
            taker = self._moves.hold(queue, self._parts.clock.monotonic())
            if taker is not None and taker.parked:
                self._unpark(taker)
                self._release(taker)
        else:
            queue.queued = True
            self.look_up(queue)

    # --- counts -----------------------------------------------------------------------------------------

    def _count_savings(self, work: Work, outcome: str, reason: str) -> None:
        lane, change = work.lane, work.merged.change
        merged = [entry.change for entry in work.entries[:-1] if isinstance(entry.change, Upserted)]
        if merged:
            self.savings.add(lane, "merged", len(merged), tokens_in(merged, lane.mapping))
        texts = 1 if work.stamp is None else len(work.stamp.chunks)
        unchanged = texts - len(work.vectors) if outcome == "written" else texts * (reason == "unchanged")
        if unchanged:
            tokens = tokens_in((change,), lane.mapping) * unchanged / texts
            self.savings.add(lane, "unchanged", unchanged, tokens)
        elif reason == "already_applied" and isinstance(change, Upserted):
            self.savings.add(lane, "replay", texts, tokens_in((change,), lane.mapping))

    def _observe_freshness(self, lane: Lane, change: Upserted | Deleted) -> None:
        if change.committed_ms is not None:
            age_s = (self._parts.clock.wall_ms() - change.committed_ms) / 1000
            self._parts.telemetry.observe(signals.FRESHNESS, max(0.0, age_s), table=lane.table)


def _is_followed(work: Work) -> bool:
    """Whether a newer change of the row waits that may merge with the work's change."""
    waiting = work.queue.waiting
    return bool(waiting) and waiting[0].lane is work.lane and waiting[0].unreadable is None


def _is_deleted_since(work: Work) -> bool:
    """Whether the row's delete waits behind a change that nobody can read. (A whole row in its place might
    turn out to be poison itself.)"""
    return any(
        isinstance(entry.change, Deleted) and entry.lane is work.lane and entry.unreadable is None
        for entry in work.queue.waiting
    )


def _is_overtaken(work: Work) -> bool:
    """Whether it is the repetition of a record that nobody can read, and a newer change has been applied
    since: the row is not stale for it."""
    if work.entries[-1].unreadable is None or work.stamp is None:
        return False
    return work.merged.position.relation_to(work.stamp.position) in (Order.OLDER, Order.SAME)
