"""When a batch departs: full, lingered, quiet or flushed."""

import pytest

from vectide.core.batcher import Batcher, BatchLimits

LIMITS = BatchLimits(items=3, weight=10, linger_s=0.5, quiet_s=0.01)


def batcher(*weights: int, limits: BatchLimits = LIMITS, now_s: float = 0.0) -> Batcher[int]:
    """Holds the items 0, 1, 2 ... of these weights."""
    made: Batcher[int] = Batcher(limits)
    for item, weight in enumerate(weights):
        made.add(item, weight, now_s)
    return made


def not_quiet(*weights: int) -> Batcher[int]:
    """As :func:`batcher`, but a partial batch left at 0.0."""
    made = batcher(1)
    assert made.take(0.0) == [0]
    for item, weight in enumerate(weights):
        made.add(item, weight, 0.0)
    return made


def test_an_empty_queue_gives_nothing_and_is_never_due() -> None:
    one = batcher()
    assert one.take(9.0, flush=True) == []
    assert one.due_s() is None
    assert len(one) == 0


def test_the_first_of_a_trickle_leaves_at_once() -> None:
    assert batcher(1).take(0.0) == [0]


@pytest.mark.parametrize(
    ("weights", "now_s", "flush", "expected"),
    [
        ((1, 1), 0.009, False, []),
        ((1, 1), 0.01, False, [0, 1]),
        ((1, 1), 0.0, True, [0, 1]),
        ((1, 1, 1), 0.0, False, [0, 1, 2]),
        ((1, 1, 1, 1), 0.0, False, [0, 1, 2]),
        ((5, 5), 0.0, False, [0, 1]),
        ((6, 6), 0.0, False, [0]),
        ((99,), 0.0, False, [0]),
        ((99, 1), 0.0, False, [0]),
        ((1, 99, 1), 0.0, False, [0]),
    ],
    ids=[
        "a partial batch left just now",
        "quiet again",
        "flush",
        "full by count",
        "more than full by count",
        "full by weight",
        "the next would be too heavy",
        "a heavy item alone",
        "nothing joins a heavy item",
        "a heavy item is waited for by nobody",
    ],
)
def test_what_departs(weights: tuple[int, ...], now_s: float, flush: bool, expected: list[int]) -> None:
    assert not_quiet(*weights).take(now_s, flush=flush) == expected


def test_the_oldest_lingers_no_longer_than_it_may() -> None:
    one = batcher(1, limits=BatchLimits(items=3, linger_s=0.5, quiet_s=60))
    one.take(0.0)
    one.add(1, 1, 1.0)
    one.add(2, 1, 1.4)
    assert one.take(1.49) == []
    assert one.take(1.5) == [1, 2]


def test_a_full_batch_does_not_make_the_next_partial_one_wait() -> None:
    one = batcher(1, 1, 1, 1)
    assert one.take(0.0) == [0, 1, 2]
    assert one.take(0.0) == [3]


def test_weight_is_given_back_with_the_batch() -> None:
    one = not_quiet(9, 1)
    assert one.take(0.0) == [0, 1]
    one.add(2, 1, 0.0)
    assert one.take(0.0) == []


def test_sweep_takes_out_in_order_and_with_the_weight() -> None:
    one = not_quiet(4, 4, 4)
    assert one.sweep(lambda item: item == 1) == [0, 2]
    assert len(one) == 1
    assert one.take(0.0) == []
    assert one.sweep(lambda item: True) == []
    assert one.take(0.0, flush=True) == [1]


def test_due_tells_when_to_ask_again() -> None:
    one = batcher(1, now_s=5.0)
    assert one.due_s() == 5.0
    one.take(5.0)
    one.add(1, 1, 5.002)
    assert one.due_s() == pytest.approx(5.01)
    assert one.take(5.009) == []
    assert one.take(5.01) == [1]
    for item in (2, 3, 4):
        one.add(item, 1, 5.011)
    assert one.due_s() == 5.011


def test_due_is_the_linger_when_that_ends_first() -> None:
    one = batcher(1, limits=BatchLimits(items=3, linger_s=0.5, quiet_s=60))
    one.take(0.0)
    one.add(1, 1, 0.1)
    assert one.due_s() == pytest.approx(0.6)
