"""A flood of dead letters stops its table."""

import pytest

from vectide.core.breaker import HALF_OPEN_IN_A_ROW, Breaker, BreakerLimits

LIMITS = BreakerLimits(in_a_row=5, share=0.2, window=20)


def feed(breaker: Breaker, outcomes: str) -> str:
    """``.`` a success, ``x`` a dead letter; returns what became of the dead letters: yes or no."""
    told = ""
    for outcome in outcomes:
        if outcome == ".":
            breaker.success()
        else:
            told += "y" if breaker.dead_letter() else "n"
    return told


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ("xxxxx", "yyyyy"),
        ("xxxxxx", "yyyyyn"),
        ("xxxxxxxxx", "yyyyynnnn"),
        ("xxxxx.xxxxx", "yyyyyyyyyy"),
        ("x...." * 10, "y" * 10),
        ("x..." * 10, "yyyyy" + "n" * 5),
        ("xxxx." * 3 + "....x", "y" * 12 + "n"),
        ("xxxx" + "." * 20 + "xxxx", "y" * 8),
    ],
    ids=[
        "in a row, within the limit",
        "in a row, one more",
        "open: none passes",
        "a success between",
        "a share that is allowed, for ever",
        "a share that is not, once the window is full",
        "not judged by a window that is not full",
        "old ones leave the window",
    ],
)
def test_what_passes(outcomes: str, told: str) -> None:
    assert feed(Breaker(LIMITS), outcomes) == told


def test_after_rearming_a_few_pass_and_the_next_trips_it_again() -> None:
    breaker = Breaker(LIMITS)
    feed(breaker, "xxxxxx")
    breaker.rearm()
    assert not breaker.tripped
    assert feed(breaker, "xxxxx") == "y" * HALF_OPEN_IN_A_ROW + "nn"


def test_after_rearming_the_first_success_closes_it() -> None:
    breaker = Breaker(LIMITS)
    feed(breaker, "xxxxxx")
    breaker.rearm()
    assert feed(breaker, "x.xxxxxx") == "yyyyyyn"


def test_after_rearming_the_old_window_is_forgotten() -> None:
    breaker = Breaker(LIMITS)
    assert feed(breaker, "x..." * 5 + "x").endswith("n")
    breaker.rearm()
    assert feed(breaker, "..x..x") == "yy"


def test_rearming_a_closed_breaker_changes_nothing() -> None:
    breaker = Breaker(LIMITS)
    feed(breaker, "xxxx")
    breaker.rearm()
    assert feed(breaker, "xx") == "yn"
