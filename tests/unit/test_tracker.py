"""Which offset may be committed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.tracker import Tracker


def tracker(*offsets: int, position: int | None = None) -> Tracker:
    made = Tracker(position)
    for offset in offsets:
        made.receive(offset)
    return made


def test_position_is_unknown_until_the_first_record_settles() -> None:
    one = tracker(7, 8)
    assert one.position is None
    assert one.behind == (7, 9)
    assert one.settle(7) == [7]
    assert one.position == 8


def test_position_waits_for_an_earlier_record_in_flight() -> None:
    """Invariant 1: what settles out of order waits behind the first unsettled record."""
    one = tracker(0, 1, 2, 3)
    assert one.settle(2) == []
    assert one.settle(1) == []
    assert (one.position, one.settled_ahead, len(one)) == (None, 2, 4)
    assert one.settle(0) == [0, 1, 2]
    assert (one.position, one.settled_ahead, len(one)) == (3, 0, 1)


def test_position_passes_holes_and_markers_to_the_end() -> None:
    """Case 117: compaction left offsets out, and the end of the partition is a transaction marker."""
    one = tracker(3, 10, 11)
    for offset in (11, 3, 10):
        one.settle(offset)
    assert one.position == 12
    one.reach(15)
    assert one.position == 15


def test_the_end_counts_only_when_nothing_before_it_is_unsettled() -> None:
    """Case 117, invariant 1: reading to the end of the partition proves nothing about a record in flight."""
    one = tracker(3, 10)
    one.reach(15)
    one.settle(3)
    assert one.position == 4
    one.settle(10)
    assert one.position == 15


def test_an_empty_partition_is_done_up_to_its_end() -> None:
    """Case 117: only markers are left in the log."""
    one = tracker()
    one.reach(5)
    assert (one.position, one.at_end) == (5, True)
    assert one.behind == (5, 5)


def test_nothing_is_behind_while_nothing_is_known() -> None:
    assert tracker().behind is None


def test_a_repeat_is_told_and_cannot_be_received_again() -> None:
    one = tracker(4, position=3)
    assert [one.is_new(offset) for offset in (2, 4, 5)] == [False, False, True]
    with pytest.raises(ValueError, match="4 was received after 4"):
        one.receive(4)


@pytest.mark.parametrize("offset", [3, 4, 6, 9], ids=["before", "settled", "a hole behind", "never received"])
def test_a_record_settles_exactly_once(offset: int) -> None:
    """Invariant 2: one terminal state each."""
    one = tracker(4, 5, 8)
    one.settle(4)
    with pytest.raises(ValueError, match="is not outstanding"):
        one.settle(offset)


def test_a_record_that_waits_settled_cannot_settle_again() -> None:
    """Invariant 2."""
    one = tracker(4, 5)
    one.settle(5)
    with pytest.raises(ValueError, match="is not outstanding"):
        one.settle(5)


def test_at_end_means_that_all_that_was_there_at_the_last_look_has_arrived() -> None:
    one = tracker(0)
    assert not one.at_end
    one.reach(1)
    assert one.at_end
    one.receive(1)
    assert not one.at_end
    one.reach(2)
    assert one.at_end


def test_position_never_goes_back() -> None:
    """Invariant 1: an older end, or one below where the lane began, changes nothing."""
    one = tracker(position=20)
    one.reach(10)
    assert one.position == 20
    one.reach(30)
    one.reach(25)
    assert one.position == 30
    assert one.behind == (30, 30)


@given(st.data())
def test_position_is_the_end_of_the_settled_prefix_in_any_order(data: st.DataObject) -> None:
    """Invariant 1, case 117."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    one = tracker(*offsets)
    left = list(offsets)
    for offset in data.draw(st.permutations(offsets)):
        before = one.position
        one.settle(offset)
        left.remove(offset)
        done = [each for each in offsets if each < min(left, default=61)]
        assert one.position == (done[-1] + 1 if done else None)
        assert before is None or (one.position is not None and one.position >= before)
    assert len(one) == 0
