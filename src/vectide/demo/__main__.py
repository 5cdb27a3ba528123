"""``python -m vectide.demo``: the same as ``vectide demo``."""

from __future__ import annotations

import argparse
import sys

from vectide.demo.keepers import DEFAULT_STORE, STORES
from vectide.demo.main import DEFAULT_SECONDS, DEFAULT_SEED, run


def main() -> int:
    """Parse the options and run the demo."""
    parser = argparse.ArgumentParser(prog="python -m vectide.demo", description=run.__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="length of the live traffic")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="seed of the random changes")
    parser.add_argument("--keep", action="store_true", help="keep the files: logs, tables, the whole topic")
    parser.add_argument(
        "--plain", action="store_true", default=None, help="plain lines, as without a terminal"
    )
    parser.add_argument("--store", choices=STORES, default=DEFAULT_STORE, help="kind of the store")
    given = parser.parse_args()
    return run(seconds=given.seconds, seed=given.seed, keep=given.keep, plain=given.plain, store=given.store)


if __name__ == "__main__":
    sys.exit(main())
