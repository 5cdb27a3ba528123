"""The very pump in a simulated world: thousands of small histories."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import pytest
from tests.simulation.run import CHUNK, Run, reports
from tests.simulation.scenario import draw

SEEDS = 2_000


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """As many processes as there are processors, started afresh."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.timeout(600)
def test_every_invariant_holds_in_two_thousand_histories(processes: Executor) -> None:
    """Cases 159 and 164: a crash may come between any two steps, also between an answer and its commit."""
    found = [
        told for chunk in processes.map(reports, range(0, SEEDS, CHUNK), repeat(CHUNK)) for told in chunk
    ]
    assert not found, "\n\n" + found[0]


def log_of(seed: int) -> list[str]:
    """Everything that is logged in the history of a seed."""
    run = Run(draw(seed))
    run.run()
    return run.told


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    seeds = range(0, 40)
    program = (
        f"from tests.simulation.test_simulation import log_of\nfor s in {seeds}: print(*log_of(s), sep='\\n')"
    )
    elsewhere = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = "\n".join("\n".join(log_of(seed)) for seed in seeds)
    assert elsewhere.stdout.strip() == here.strip()
    assert "RESTART" in here
    assert "call_failed" in here
