"""How waiting changes of one row become one, and which of them may."""

from collections.abc import Sequence
from typing import Any

from vectide.core.lane import Entry, Lane, RowQueue, merge
from vectide.core.model import DecodeError, Deleted, Position, Record, Row, Upserted

ROW = Row.of("products", {"id": 1})
KEY = {"id": 1}
GONE = Deleted(KEY)


def lane(partition: int = 0) -> Lane:
    return Lane("shop", partition, "log", None)


def set_to(title: str, unavailable: Sequence[str] = (), **columns: Any) -> Upserted:
    return Upserted(KEY, {"title": title, **columns}, frozenset(unavailable))


def entries(
    *changes: Upserted | Deleted, dead_after: int | None = None, of: Lane | None = None
) -> list[Entry]:
    """``dead_after``: the change after this one was dead-lettered."""
    where = of or lane()
    return [
        Entry(where, Record("shop", where.partition, at, b"", b""), change, 0.0, before_dead=at == dead_after)
        for at, change in enumerate(changes)
    ]


def test_one_change_is_itself() -> None:
    merged = merge(entries(set_to("a")))
    assert merged.change == set_to("a")
    assert (merged.absorbed, merged.fresh, merged.stale) == (0, False, False)
    assert merged.position == Position("log", 0, 0)


def test_the_last_full_row_wins() -> None:
    """Case 55: an insert and three updates of one key are one change, the last one."""
    merged = merge(entries(set_to("a"), set_to("b"), set_to("c"), set_to("d", body="x")))
    assert merged.change == set_to("d", body="x")
    assert (merged.absorbed, merged.fresh, merged.position.offset) == (3, False, 3)


def test_a_delete_after_an_insert_is_a_delete() -> None:
    """Case 56."""
    merged = merge(entries(set_to("a"), GONE))
    assert (merged.change, merged.fresh) == (GONE, False)


def test_an_insert_after_a_delete_is_that_insert_and_fresh() -> None:
    """Case 57: nothing stored may complete it, the store still has the row from before the delete."""
    merged = merge(entries(GONE, set_to("b")))
    assert (merged.change, merged.fresh) == (set_to("b"), True)


def test_freshness_ends_with_the_next_delete_and_lasts_over_updates() -> None:
    assert not merge(entries(GONE, set_to("b"), GONE)).fresh
    assert merge(entries(GONE, set_to("b"), set_to("c"))).fresh
    assert merge(entries(set_to("a"), GONE, set_to("b"), GONE, set_to("c"))).fresh


def test_an_unavailable_column_keeps_the_value_of_the_change_that_it_follows() -> None:
    """Case 55, invariant 5."""
    first, then = set_to("a", body="text", note="n"), set_to("b", unavailable=["body", "picture"])
    merged = merge(entries(first, then, set_to("c", unavailable=["body", "picture"])))
    assert merged.change == set_to("c", unavailable=["picture"], body="text")


def test_nothing_carries_across_a_delete() -> None:
    """Case 57, invariant 3: the new row's unavailable body is not the old row's."""
    merged = merge(entries(set_to("a", body="old"), GONE, set_to("b", unavailable=["body"])))
    assert merged.change == set_to("b", unavailable=["body"])
    assert merged.fresh


def test_nothing_carries_across_a_dead_lettered_change() -> None:
    """The change between the two may have changed the body: what came before it says nothing."""
    merged = merge(entries(set_to("a", body="old"), set_to("b", unavailable=["body"]), dead_after=0))
    assert merged.change == set_to("b", unavailable=["body"])
    assert (merged.fresh, merged.stale) == (True, False)


def test_the_last_change_before_a_dead_lettered_one_makes_the_row_stale() -> None:
    merged = merge(entries(set_to("a"), set_to("b"), dead_after=1))
    assert (merged.change, merged.stale, merged.fresh) == (set_to("b"), True, False)


def test_a_delete_makes_up_for_a_dead_lettered_change() -> None:
    merged = merge(entries(set_to("a"), GONE, dead_after=0))
    assert (merged.change, merged.stale, merged.fresh) == (GONE, False, False)


def test_merging_leaves_the_changes_as_they_are() -> None:
    first, then = set_to("a", body="text"), set_to("b", unavailable=["body"])
    merge(entries(first, then))
    assert "body" not in then.columns
    assert first.columns["title"] == "a"


# --- which changes are taken together -------------------------------------------------------------------


def test_changes_of_one_lane_are_taken_together() -> None:
    waiting = entries(set_to("a"), set_to("b"))
    queue = RowQueue(ROW, list(waiting))
    assert queue.take() == waiting
    assert queue.take() == []


def test_changes_of_different_lanes_are_taken_one_lane_after_the_other() -> None:
    """Invariant 3: their order is known only by their arrival, their offsets settle apart."""
    here, there = lane(0), lane(1)
    first, second, third = (
        entries(set_to("a"), of=here),
        entries(set_to("b"), of=there),
        entries(set_to("c"), of=here),
    )
    queue = RowQueue(ROW, first + second + third)
    assert [queue.take(), queue.take(), queue.take()] == [first, second, third]


def test_what_cannot_be_read_is_taken_alone() -> None:
    """Invariant 3: nothing before it may merge with what comes after it."""
    waiting = entries(set_to("a"), set_to("b"), Deleted({"id": 1}), set_to("c"), set_to("d"))
    waiting[2].unreadable = DecodeError("not_json", "")
    queue = RowQueue(ROW, list(waiting))
    assert [queue.take(), queue.take(), queue.take()] == [waiting[:2], waiting[2:3], waiting[3:]]


def test_changes_of_lanes_that_are_gone_or_leaving_are_forgotten() -> None:
    """Invariant 4."""
    gone, leaving, mine = lane(0), lane(1), lane(2)
    gone.held = False
    leaving.leaving = True
    own = entries(set_to("c"), of=mine)
    queue = RowQueue(ROW, entries(set_to("a"), of=gone) + entries(set_to("b"), of=leaving) + own)
    assert queue.take() == own
    assert not queue.waiting


def test_the_successor_of_a_halted_lane_starts_where_it_stood() -> None:
    """Invariant 1: what was received behind the position is read again."""
    one = lane()
    for offset in (5, 6, 7):
        one.tracker.receive(offset)
    one.tracker.settle(5)
    one.tracker.settle(7)
    one.committed = 6
    heir = one.halted_successor("flood", 60.0)
    assert (heir.id, heir.tracker.position, len(heir.tracker)) == (one.id, 6, 0)
    assert (heir.halted, heir.probe_at_s, heir.resting, heir.committed) == ("flood", 60.0, True, 6)
    assert heir.tracker.is_new(6)
