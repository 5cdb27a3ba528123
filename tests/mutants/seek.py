"""Runs in a process that has a mutant planted: the first seed of the simulation that finds it, as JSON.

``python -m tests.mutants.seek SEEDS EVENTS``: with EVENTS the trace is shrunk, and of the first seeds that
find it the first one taken whose trace has no more events than that, else the one with the shortest.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import Any

from tests.simulation.run import failing, failure_of, shrink

#: Seeds whose traces are shrunk.
MOST_SHRUNK = 4


def seek(seeds: int, events: int) -> dict[str, Any] | None:
    """Seed, events of its trace (-1: not shrunk) and what it says; None when nothing fails."""
    best: dict[str, Any] | None = None
    for scenario in islice(failing(range(seeds)), MOST_SHRUNK if events else 1):
        small = shrink(scenario) if events else scenario
        found = failure_of(small)
        assert found is not None
        size = len(small.events) if events else -1
        if best is None or size < best["events"]:
            best = {"seed": scenario.seed, "events": size, "says": found[0]}
        if best["events"] <= events:
            break
    return best


if __name__ == "__main__":
    print(json.dumps(seek(int(sys.argv[1]), int(sys.argv[2]))))
