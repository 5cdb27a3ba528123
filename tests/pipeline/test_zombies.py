"""A process that is suspended between its last look at its lease and its write, and wakes up in the past."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.pipeline.pump import DOWN, FIRST, PRODUCTS, FaultyStore, Log, Pump, delete, row, upsert

from vectide.core import signals
from vectide.core.chunks import Chunking
from vectide.core.model import Change, DecodeError, Deleted, Record, Upserted
from vectide.core.template import Template
from vectide.ports import Mark, Write

PLAIN = upsert(1, "lamp")


def outlived(
    before: Sequence[Upserted | Deleted], late: Upserted | Deleted, since: Sequence[Upserted | Deleted]
) -> Pump:
    """The process that had applied ``before`` and was about to write what ``late`` comes to, when it was
    suspended, for so long that another one took over and applied everything ``since``. It is awake again."""
    log = Log()
    log.append(*before)
    store = FaultyStore(PRODUCTS)
    zombie = Pump(log, store=store, tables=[PRODUCTS])
    zombie.run()

    def sleep(writes: Sequence[Write]) -> None:
        store.before_write = lambda writes: None
        log.append(*since)
        zombie.source.lose(FIRST)
        Pump(log, store=store, tables=[PRODUCTS]).run()

    store.before_write = sleep
    log.append(late)
    zombie.until(lambda: not zombie.stream.lanes, "the write")
    zombie.run_for(1)
    assert zombie.count(signals.RESULTS_DROPPED, "write") == 1
    return zombie


@pytest.mark.parametrize("late", [upsert(1, "desk lamp"), upsert(1, "lamp", price=9)])
def test_a_late_update_does_not_bring_back_a_row_that_was_deleted_since(late: Upserted) -> None:
    """Invariant 3: of the text, or of metadata alone."""
    assert outlived([PLAIN], late, [delete(1)]).store.points() == {}


@pytest.mark.parametrize("late", [upsert(1, "desk lamp"), upsert(1, "lamp", price=9), delete(1)])
def test_a_late_write_does_not_go_over_a_newer_row(late: Upserted | Deleted) -> None:
    """Invariant 3."""
    pump = outlived([PLAIN], late, [delete(1), upsert(1, "new lamp", price=2)])
    assert pump.store.texts() == {row(1): "new lamp"}
    assert pump.store.points()[row(1)].metadata == {"price": 2}


def test_a_late_delete_leaves_a_row_that_came_back() -> None:
    """Case 57, invariant 3."""
    assert outlived([PLAIN], delete(1), [upsert(1, "again")]).store.texts() == {row(1): "again"}


def test_a_late_insert_does_not_go_over_a_newer_row() -> None:
    """Invariant 3."""
    assert outlived([], PLAIN, [upsert(1, "new lamp")]).store.texts() == {row(1): "new lamp"}


class HalfReadLog(Log):
    """As a process sees it that can read no more of all records but the first than their keys."""

    def decode(self, record: Record) -> Change:
        if not record.offset:
            return super().decode(record)
        if record.value is None:
            return delete(1)
        raise DecodeError("unknown_schema", "of a later version")


def marked_late(by_the_new_owner: Sequence[Upserted]) -> tuple[Log, FaultyStore]:
    """A process was about to mark the row stale, for a record that only it could not read, when another one
    took over and applied these. The mark came afterwards."""
    log, store = HalfReadLog(), FaultyStore(PRODUCTS)
    log.append(PLAIN)
    zombie = Pump(log, store=store, tables=[PRODUCTS])
    zombie.run()
    log.append(PLAIN)
    well = Log(log.records, log.changes, log.ends, log.committed)

    def sleep(writes: Sequence[Write]) -> None:
        if not any(isinstance(write, Mark) for write in writes):
            return
        store.before_write = lambda writes: None
        zombie.source.lose(FIRST)
        well.append(*by_the_new_owner)
        Pump(well, store=store, tables=[PRODUCTS]).run()

    store.before_write = sleep
    zombie.until(lambda: not zombie.stream.lanes, "the mark")
    zombie.run_for(1)
    assert not zombie.letters.letters
    return well, store


def is_stale(store: FaultyStore) -> bool:
    stamp = store.points()[row(1)].stamp
    assert stamp is not None
    return stamp.stale


def test_a_late_mark_does_not_meet_a_row_whose_position_has_moved() -> None:
    """Invariant 3."""
    _, store = marked_late([upsert(1, "new lamp")])
    assert not is_stale(store)


def test_a_late_mark_on_a_row_that_nobody_changed_since_lasts_until_its_next_change() -> None:
    """What nothing keeps away: the row is as it was looked up, though the new owner has read the record."""
    log, store = marked_late([])
    assert is_stale(store)
    log.append(upsert(1, "new lamp"))
    Pump(log, store=store, tables=[PRODUCTS]).run()
    assert (store.texts(), is_stale(store)) == ({row(1): "new lamp"}, False)


def test_a_late_write_that_nothing_overtook_is_as_good_as_any() -> None:
    pump = outlived([PLAIN], upsert(1, "desk lamp"), [upsert(2, "other")])
    assert pump.store.texts() == {row(1): "desk lamp", row(2): "other"}


def test_an_update_whose_answer_was_lost_is_repeated() -> None:
    """Case 145: it finds its own position, which is not newer."""
    log = Log()
    log.append(PLAIN)
    pump = Pump(log)
    pump.run()
    lost = [DOWN]
    pump.store.answer_lost = lambda call, collection: lost.pop() if call == "write" and lost else None
    log.append(upsert(1, "desk lamp"))
    pump.run()
    assert (pump.store.texts(), pump.settled("written")) == ({row(1): "desk lamp"}, 2)


def test_a_late_change_of_some_chunks_meets_only_the_chunks_that_it_was_made_for() -> None:
    """Invariant 8: it merged what the other process has applied only a part of."""
    docs = replace(
        PRODUCTS,
        template=Template.parse("{body}"),
        chunking=Chunking(tokens=16),
    )
    lamp, brass, glass, desk = (" ".join([word] * 10) + "." for word in ("lamp", "brass", "glass", "desk"))
    first = upsert(1, "t", f"{lamp} {brass} {glass}")
    middle = upsert(1, "t", f"{lamp} {glass}", price=2)
    late = upsert(1, "t", f"{desk} {brass} {glass}")
    log, store = Log(), FaultyStore(docs)
    log.append(first)
    zombie = Pump(log, store=store, tables=[docs])
    zombie.run()

    def sleep(writes: Sequence[Write]) -> None:
        store.before_write = lambda writes: None
        zombie.source.lose(FIRST)
        so_far = Log()
        so_far.append(first, middle)
        Pump(so_far, store=store, tables=[docs]).run()

    def held() -> list[tuple[int, str | None, object]]:
        points = store.inner.of_row(docs.collection, row(1))
        return [(point.chunk, point.text, point.metadata["price"]) for point in points]

    store.before_write = sleep
    log.append(middle, late)
    zombie.until(lambda: not zombie.stream.lanes, "the write")
    zombie.run_for(1)
    assert held() == [(0, lamp, 2), (1, glass, 2)]
    Pump(log, store=store, tables=[docs]).run()
    assert held() == [(0, desk, 1), (1, brass, 1), (2, glass, 1)]
