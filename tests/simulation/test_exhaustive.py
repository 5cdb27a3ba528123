"""Small worlds, explored to the end: nothing is left to chance, nor out."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest
from tests.simulation.exhaustive import Choices, explore, worlds


@pytest.mark.timeout(300)
def test_a_crash_a_rebalance_or_another_order_anywhere_in_two_changes_does_no_harm() -> None:
    """Cases 105 and 164; invariants 1 to 4, 8, 12 and 14."""
    small = list(worlds(2))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        schedules = sum(pool.map(explore, small, repeat(1)))
    assert len(small) == 24
    assert schedules > 1000


def test_every_schedule_is_run_once() -> None:
    seen = []
    given: list[int] | None = []
    while given is not None:
        choices = Choices(given)
        for possible in (2, 3, 1):
            choices.of(possible)
        seen.append(tuple(choices.taken))
        given = choices.next(deviations=1)
    assert sorted(seen) == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0)]
