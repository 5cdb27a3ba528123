"""The defects that are there to be planted: all can be, and a sample is found. ``make mutants`` hunts all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.mutants.planted import ROOT, Mutant, Stale, apply, hunt, mutants

#: The trace of a defect must have no more events than these.
TRACE_EVENTS = 8

#: Take a hundred seeds and more.
LONG_TO_FIND = {
    "03-a-late-delete-removes-a-newer-row",
    "03-a-replay-does-not-look-at-what-came-since",
    "09-the-length-of-an-answer-is-not-checked",
}


def sample() -> Iterator[Mutant]:
    """The first of each invariant that the simulation has to find, and soon does."""
    taken = set()
    for mutant in mutants():
        if mutant.test is None and mutant.invariant not in taken and mutant.name not in LONG_TO_FIND:
            taken.add(mutant.invariant)
            yield mutant


def test_every_patch_fits_the_code(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src")
    stale = []
    for mutant in mutants():
        try:
            apply(mutant, tmp_path, only_try=True)
        except Stale as why:
            stale.append(str(why))
    assert not stale, "make the patches anew:\n" + "\n".join(stale)


def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stale):
        apply(mutants()[0], tmp_path)


def test_every_invariant_has_defects_and_each_says_what_is_wrong() -> None:
    assert {mutant.invariant for mutant in mutants()} == set(range(1, 15))
    assert all(mutant.what.endswith(".") for mutant in mutants())


@pytest.mark.timeout(600)
def test_a_planted_defect_is_found_and_shrunk_to_a_short_trace() -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {
            mutant.name: running.result()
            for mutant, running in [
                (mutant, pool.submit(hunt, mutant, events=TRACE_EVENTS)) for mutant in sample()
            ]
        }
    survived = [name for name, told in found.items() if told is None]
    long = {name: told for name, told in found.items() if told is not None and told.events > TRACE_EVENTS}
    assert not survived
    assert not long
