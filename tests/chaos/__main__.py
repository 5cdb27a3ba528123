"""``python -m tests.chaos --seeds 50 --first 0``: that many runs, a line each; exit code 1 when one of them
broke a promise. A failing run's logs stay."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import Result, Run
from tests.chaos.stage import Servers, Stage
from tests.chaos.toxiproxy import fetch as fetch_toxiproxy
from tests.real.jars import StackUnavailable, fetch


def main() -> int:
    """Run the seeds one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    try:
        jars, toxiproxy = fetch(), fetch_toxiproxy()
    except StackUnavailable as missing:
        print(f"cannot run here: {missing}", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="vectide-chaos-"))
    failed: list[int] = []
    with Servers(jars, toxiproxy, folder) as servers:
        for seed in range(options.first, options.first + options.seeds):
            started_s = time.monotonic()
            with Stage(servers, seed) as stage:
                result = Run(stage, seed)()
            _tell(result, time.monotonic() - started_s)
            if result.complaints:
                failed.append(seed)
            else:
                for logs in folder.glob(f"{stage.name}-*"):
                    shutil.rmtree(logs)
    if failed:
        print(f"{len(failed)} of {options.seeds} seeds failed: {failed}; logs are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.seeds} seeds, all promises kept")
    return 0


def _tell(result: Result, took_s: float) -> None:
    facts = dict(result.facts)
    troubles = facts.pop("troubles", [])
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    verdict = "FAILED" if result.complaints else "ok"
    print(f"seed {result.seed}: {verdict} in {took_s:.0f} s: {told}", flush=True)
    print(f"    {'; '.join(troubles)}", flush=True)
    for complaint in result.complaints:
        print(f"    {complaint}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
