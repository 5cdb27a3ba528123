"""``python -m tests.bench``: vectide against the loop that one writes in an afternoon.

On a real Kafka broker and PostgreSQL with pgvector, all started for the purpose. Both sides start before the
clock does: each has followed some rows when the first measured record is produced. Rates count records from
that moment to the commit of the last one's offset. After every run the store is compared with what it must
hold. Exit code 1 when a target is missed, 2 when nothing could be measured.

What an HNSW index costs is the same for both: most of a millisecond of the server's CPU per vector, which on
a small machine hides what the sides do differently. All runs have one, as vectide makes it, but that with the
slow provider, which asks how well waiting is overlapped: it goes without. A provider with a latency takes at
most 32 texts in a call, the limit that text-embeddings-inference comes with. The two lines after the slow
provider's are the same with the index, and with the index and as many texts in a call as a side likes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.sides import Afternoon, Side, Vectide
from tests.bench.stage import Stage, WrongResult
from tests.bench.workload import Shop
from tests.real.jars import StackUnavailable, fetch

WARM_UP_ROWS = 256
TRICKLE_PER_S = 20
#: Most texts in a call of a provider that has a latency.
PROVIDER_ITEMS = 32


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. ``unit`` says what ``vectide`` and ``loop`` are; ``value`` is compared with
    ``target``: their ratio (at least) or vectide's own number (at most). ``target`` None: for information."""

    name: str
    unit: str
    vectide: float
    loop: float
    value: float
    target: float | None
    at_most: bool = False

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Bench:
    """``scale`` multiplies the number of records, ``repeat`` is how often each pair of runs is made."""

    stage: Stage
    scale: float
    repeat: int

    def backlog(
        self,
        name: str,
        rows: int,
        target: float | None = None,
        *,
        latency_ms: float = 0,
        partitions: int = 1,
        provider_items: int | None = None,
        indexed: bool = True,
    ) -> list[Result]:
        def once(side: Side) -> float:
            shop = Shop()
            warm_up, backlog = shop.inserts(WARM_UP_ROWS), shop.inserts(self._scaled(rows))
            with self.stage.run(side, latency_ms, partitions, provider_items, indexed=indexed) as run:
                run.follow(warm_up)
                took_s = run.follow(backlog)
                run.verify(shop.shown())
            return len(backlog) / took_s

        return [self._ratio(name, once, target)]

    def mixed(self, name: str, latency_ms: float, rows: int, changes: int, target: float) -> list[Result]:
        def once(side: Side) -> float:
            shop = Shop()
            present, mixed = shop.inserts(self._scaled(rows)), shop.mixed(self._scaled(changes))
            with self.stage.run(side, latency_ms, provider_items=PROVIDER_ITEMS) as run:
                run.follow(present)
                took_s = run.follow(mixed)
                run.verify(shop.shown())
            return len(mixed) / took_s

        return [self._ratio(name, once, target)]

    def trickle(
        self, name: str, latency_ms: float, rows: int, seconds: float, target_ms: float
    ) -> list[Result]:
        latencies = {}
        for side in (Vectide(), Afternoon()):
            shop = Shop()
            present = shop.inserts(self._scaled(rows))
            changes = shop.texts(min(len(present), int(seconds * TRICKLE_PER_S)))
            with self.stage.run(side, latency_ms, provider_items=PROVIDER_ITEMS) as run:
                run.follow(present)
                latencies[side.name] = [1000 * took_s for took_s in run.trickle(changes, TRICKLE_PER_S)]
                run.verify(shop.shown())
        results = []
        for percent, target in ((50, None), (99, target_ms)):
            mine, other = (_percentile(latencies[side], percent) for side in ("vectide", "loop"))
            results.append(Result(f"{name}, p{percent}", "ms", mine, other, mine, target, at_most=True))
        return results

    def _ratio(self, name: str, once: Callable[[Side], float], target: float | None) -> Result:
        pairs = [(once(Vectide()), once(Afternoon())) for _ in range(self.repeat)]
        ratio, mine, other = sorted((mine / other, mine, other) for mine, other in pairs)[len(pairs) // 2]
        return Result(name, "records/s", mine, other, ratio, target)

    def _scaled(self, count: int) -> int:
        return max(100, int(count * self.scale))


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


SCENARIOS: dict[str, Callable[[Bench], list[Result]]] = {
    "backlog": lambda bench: bench.backlog("backlog, 1 partition", 10_000, 1.3),
    "backlog4": lambda bench: bench.backlog("backlog, 4 partitions", 10_000, partitions=4),
    "slow": lambda bench: bench.backlog(
        "50 ms provider, 32 a call", 20_000, 4.0, latency_ms=50, provider_items=PROVIDER_ITEMS, indexed=False
    ),
    "slow-indexed": lambda bench: bench.backlog(
        "same, with an HNSW index", 10_000, latency_ms=50, provider_items=PROVIDER_ITEMS
    ),
    "slow-large-calls": lambda bench: bench.backlog("same, any number a call", 10_000, latency_ms=50),
    "mixed": lambda bench: bench.mixed("mixed changes, 20 ms provider", 20, 3_000, 8_000, 1.5),
    "trickle": lambda bench: bench.trickle("20 changes/s, 20 ms provider", 20, 2_000, 15, 100),
}


def _line(result: Result) -> str:
    own = f"{result.vectide:9,.0f} {result.loop:9,.0f} {result.unit:9}"
    compared = f"{result.value:6.0f} ms" if result.at_most else f"{result.value:7.2f} x"
    if result.target is None:
        return f"{result.name:32} {own} {compared}"
    sign = "<=" if result.at_most else ">="
    verdict = "ok" if result.met else "MISSED"
    return f"{result.name:32} {own} {compared}  {sign} {result.target:g}  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers here")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only this one (repeatable)")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer records")
    parser.add_argument("--repeat", type=int, default=3, help="pairs of runs; the median ratio counts")
    options = parser.parse_args()
    try:
        jars = fetch()
    except StackUnavailable as missing:
        print(f"bench: skipped, no Kafka broker: {missing}", file=sys.stderr)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="vectide-bench-"))
    results: list[Result] = []
    print(f"{'':32} {'vectide':>9} {'loop':>9}", flush=True)
    try:
        with Stage(jars, folder) as stage:
            bench = Bench(stage, options.scale, options.repeat)
            for name in options.only or SCENARIOS:
                for result in SCENARIOS[name](bench):
                    results.append(result)
                    print(_line(result), flush=True)
    except WrongResult as wrong:
        print(f"bench: {wrong}; logs in {folder}", file=sys.stderr)
        return 2
    if options.json is not None:
        numbers = {"cores": os.cpu_count(), "results": [{**asdict(one), "met": one.met} for one in results]}
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
