"""Positions that break off: topics created again, partitions added, sources restored or replaced."""

from dataclasses import replace
from typing import Any

from tests.pipeline.pump import FIRST, PRODUCTS, Log, Pump, delete, row, upsert

from vectide.core import signals
from vectide.core.model import Change, Deleted, SourcePosition, Upserted

SECOND = (PRODUCTS.source, 1)


def at(change: Upserted | Deleted, order: int, ms: int | None = None, server: str = "pg/shop") -> Change:
    """The change, committed at this place in the log of its source; its time goes along by default."""
    source = SourcePosition(server, f"{order:016x}", 1000 * order if ms is None else ms)
    return replace(change, source=source, committed_ms=source.committed_ms)


def ran(pump: Pump) -> Pump:
    pump.run()
    return pump


def after(before: Pump, *changes: Change, log_id: str = "", **more: Any) -> Pump:
    """The next process, for which the topic was created again and has these changes."""
    log = Log(ids={PRODUCTS.source: log_id} if log_id else {})
    log.append(*changes)
    return ran(Pump(log, store=before.store, **more))


def first(*changes: Change, log_id: str = "", pad: int = 0) -> Pump:
    """A process that has applied the changes, behind ``pad`` records of another row."""
    log = Log(ids={PRODUCTS.source: log_id} if log_id else {})
    log.append(*(at(upsert(99, "pad"), 0) for _ in range(pad)), *changes)
    return ran(Pump(log))


def breaks(pump: Pump) -> tuple[int, int, int, int]:
    """Changes counted by reason, and how often it was said."""
    counts = [
        pump.count(signals.POSITION_BREAKS, "products", reason) for reason in ("topic", "partition", "source")
    ]
    said = sum(event == "positions_broke" for event, _ in pump.events.lines)
    return counts[0], counts[1], counts[2], said


def test_changes_of_a_topic_that_was_created_again_are_applied_and_said_once() -> None:
    """Case 113: its offsets begin anew, far below those that the rows have."""
    before = first(at(upsert(1, "old"), 1), at(upsert(2, "old"), 2), pad=20)
    pump = after(before, at(upsert(1, "new"), 3), at(delete(2), 4), log_id="another id")
    assert pump.store.texts() == {row(1): "new", row(99): "pad"}
    assert breaks(pump) == (2, 0, 0, 1)
    [said] = [fields for event, fields in pump.events.lines if event == "positions_broke"]
    assert said == {
        **{"table": "products", "reason": "topic", "topic": PRODUCTS.source},
        **{"position_before": f"id of {PRODUCTS.source}[0]@20", "position_now": "another id[0]@0"},
    }


def test_a_copy_of_the_topic_costs_nothing_and_never_takes_a_row_back() -> None:
    """Invariant 7: what the source committed before is recognised in another log too."""
    history = [at(upsert(1, f"version {n}"), n) for n in range(5)]
    pump = after(first(*history), *history, log_id="another id", poll_records=1)
    assert (pump.provider.sold, pump.store.texts()) == ([], {row(1): "version 4"})


def test_after_a_restore_changes_are_applied_although_the_source_counts_from_its_past() -> None:
    """In the same topic, and in one that was created again."""
    held = at(upsert(1, "lost by the restore"), 100, ms=5_000)
    restored = at(upsert(1, "after the restore"), 40, ms=9_000)
    log = Log()
    log.append(held)
    pump = ran(Pump(log))
    log.append(restored)
    pump.run()
    assert (pump.store.texts(), breaks(pump)) == ({row(1): "after the restore"}, (0, 0, 1, 1))
    pump = after(first(held), restored, log_id="another id")
    assert (pump.store.texts(), breaks(pump)) == ({row(1): "after the restore"}, (1, 0, 0, 1))


def test_after_a_failover_to_another_server_changes_are_applied() -> None:
    log = Log()
    log.append(at(upsert(1, "of the first"), 100))
    pump = ran(Pump(log))
    log.append(at(upsert(1, "of the second"), 7, ms=200_000, server="mysql/shop/uuid"))
    pump.run()
    assert (pump.store.texts(), breaks(pump)) == ({row(1): "of the second"}, (0, 0, 1, 1))


def test_an_older_change_in_another_partition_is_not_applied_over_a_newer_one() -> None:
    """Case 116: partitions were added, and what the old one still has is read after what the new one has."""
    log = Log()
    log.append(at(upsert(1, "newer"), 2), to=SECOND)
    pump = ran(Pump(log))
    log.append(at(upsert(1, "older"), 1))
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run()
    assert (pump.store.texts(), breaks(pump)) == ({row(1): "newer"}, (0, 1, 0, 1))
    log.append(at(upsert(1, "newest"), 3))
    pump.run()
    assert pump.store.texts() == {row(1): "newest"}


def test_a_change_that_the_store_finds_to_be_older_than_one_of_another_log_does_not_win() -> None:
    """Invariant 3: the newer one was written between the look-up and the write."""
    log = Log()
    log.append(at(upsert(1, "first"), 1))
    pump = ran(Pump(log))
    pump.executor.held.add("write")
    log.append(at(upsert(1, "older"), 2))
    pump.until(lambda: pump.executor.pending("write"), "the write")
    newer = Log(ids={PRODUCTS.source: "another id"})
    newer.append(at(upsert(1, "newer"), 3))
    ran(Pump(newer, store=pump.store))
    pump.executor.held.clear()
    pump.run()
    assert pump.store.texts() == {row(1): "newer"}


def test_a_topic_without_id_that_was_created_again_is_known_by_its_time() -> None:
    """Where the broker tells no ids, the offsets alone would say that everything new is old."""
    name = PRODUCTS.source
    before = first(at(upsert(1, "old"), 1), at(upsert(2, "old"), 2), log_id=name, pad=20)
    changes = [at(upsert(1, "new"), 3), at(upsert(2, "new"), 4), at(upsert(1, "newest"), 5)]
    pump = after(before, *changes, log_id=name, poll_records=1)
    texts = {row(1): "newest", row(2): "new", row(99): "pad"}
    assert pump.store.texts() == texts
    assert breaks(pump)[2:] == (0, 1)
    again = after(pump, *changes, log_id=name, poll_records=1)
    assert (again.store.texts(), again.provider.sold) == (texts, [])


def test_a_replay_of_a_topic_without_id_is_still_known_for_one() -> None:
    name = PRODUCTS.source
    history = [at(upsert(1, f"version {n}"), n) for n in range(5)]
    pump = after(first(*history, log_id=name), *history, log_id=name, poll_records=1)
    assert (pump.provider.sold, breaks(pump)) == ([], (0, 0, 0, 0))
