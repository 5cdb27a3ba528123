"""``python -m tests.mutants [NAME ...]``: plants every defect, or those whose names hold one of the words
given, and prints what found it. Exits with 1 when one survives, or cannot be planted any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.planted import SEEDS, Mutant, Stale, hunt, mutants


def told(mutant: Mutant) -> tuple[bool, str]:
    """Whether it was found, and the line about it."""
    try:
        found = hunt(mutant)
    except Stale as stale:
        return False, f"{mutant.name}\n    STALE: {stale}"
    if found is None:
        return False, f"{mutant.name}\n    SURVIVED {mutant.test or f'{SEEDS} seeds'}"
    return True, f"{mutant.name}\n    {found.by}: {found.says[:150]}"


def main(words: Sequence[str]) -> int:
    """Hunt on all processors; 1 unless every mutant was found."""
    chosen = [one for one in mutants() if not words or any(word in one.name for word in words)]
    # Threads that only wait: each hunt is a process of its own.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = []
        for found, line in pool.map(told, chosen):
            print(line, flush=True)
            results.append(found)
    print(f"{sum(results)} of {len(results)} found")
    return 0 if all(results) and results else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
