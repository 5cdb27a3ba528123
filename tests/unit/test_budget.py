"""Memory is bounded and shared fairly (invariant 11)."""

import pytest

from vectide.core.budget import Budget


def budget(**held: tuple[int, int]) -> Budget:
    """100 records, 1000 bytes; ``table=(records, bytes of each)``."""
    made = Budget(records=100, bytes=1000)
    for table, (records, size) in held.items():
        for _ in range(records):
            made.take(table, size)
    return made


@pytest.mark.parametrize(
    ("records", "size", "room"),
    [(0, 0, 100), (30, 1, 70), (100, 1, 0), (120, 1, 0), (10, 100, 0), (9, 100, 91)],
)
def test_room_is_what_is_left_of_the_records_unless_the_bytes_are_spent(
    records: int, size: int, room: int
) -> None:
    assert budget(a=(records, size)).room() == room


@pytest.mark.parametrize(
    ("records", "size", "tables", "full"),
    [
        (99, 1, 1, False),
        (100, 1, 1, True),
        (10, 100, 1, True),
        (49, 1, 2, False),
        (50, 1, 2, True),
        (5, 100, 2, True),
        (25, 1, 4, True),
        (99, 1, 0, False),
    ],
)
def test_a_table_may_hold_its_equal_share(records: int, size: int, tables: int, full: bool) -> None:
    assert budget(a=(records, size)).is_full("a", tables, stopped=False) is full


def test_a_greedy_table_does_not_stop_another_one() -> None:
    held = budget(greedy=(50, 1), other=(10, 1))
    assert held.is_full("greedy", 2, stopped=False)
    assert not held.is_full("other", 2, stopped=False)


def test_all_tables_stop_when_the_whole_is_spent() -> None:
    """Invariant 11: what other tables took before there were so many counts too."""
    held = budget(greedy=(100, 1))
    assert held.is_full("other", 2, stopped=False)


@pytest.mark.parametrize(("records", "full"), [(100, True), (70, True), (69, False)])
def test_a_stopped_table_goes_on_only_below_the_lower_mark(records: int, full: bool) -> None:
    held = budget(a=(100, 1))
    held.release("a", 100 - records, 100 - records)
    assert held.is_full("a", 1, stopped=True) is full
    assert held.room() == 100 - records


@pytest.mark.parametrize("tables", [2, 4, 10])
def test_a_stopped_table_goes_on_however_many_others_stand_still(tables: int) -> None:
    """Their shares are spent for as long as their store is down; that must not hold up the last one."""
    share = 100 // tables
    held = budget(**{f"stuck{at}": (share, 1) for at in range(tables - 1)}, well=(share, 1))
    assert held.is_full("well", tables, stopped=False)
    held.release("well", share // 2, share // 2)
    assert not held.is_full("well", tables, stopped=True)


def test_release_gives_back_exactly_what_was_taken() -> None:
    held = budget(a=(3, 7), b=(2, 5))
    held.release("a", 2, 14)
    assert (held.held_records, held.held_bytes) == (3, 17)
    held.release("a", 1, 7)
    held.release("b", 2, 10)
    assert (held.held_records, held.held_bytes, held.room()) == (0, 0, 100)


# --- rows of several chunks -----------------------------------------------------------------------------


def test_rows_of_many_chunks_leave_less_room_for_records() -> None:
    """Invariant 11: records and rows together stay within the bytes."""
    held = budget(a=(4, 100))
    assert held.room() == 96
    held.set_aside()
    assert (held.room(), held.is_full("a", 1, stopped=False)) == (96, False)
    held.grow("a", 600)
    assert (held.room(), held.is_full("a", 1, stopped=False)) == (0, True)
    held.grow("a", -600)
    assert held.room() == 96


@pytest.mark.parametrize(
    ("mine", "others", "tables", "admitted"),
    [
        (0, 0, 1, True),
        (499, 0, 1, True),
        (500, 0, 1, False),
        (250, 0, 2, False),
        (249, 250, 2, True),
        (1, 499, 2, False),
        (0, 5000, 2, True),
    ],
)
def test_a_row_is_admitted_within_its_tables_share_and_the_first_one_always(
    mine: int, others: int, tables: int, admitted: bool
) -> None:
    """Half of the bytes is for rows. What is larger than all of it gets its turn, too, alone."""
    held = budget()
    held.set_aside()
    held.grow("a", mine)
    held.grow("b", others)
    assert held.admits("a", tables) is admitted
