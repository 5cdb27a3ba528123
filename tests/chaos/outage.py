"""``python -m tests.chaos.outage --minutes 10``: the provider is away for that long, then the store, while
rows go on changing. One process, the service's own settings, no clock but the real one.

Shown: memory that stays where it was, lag as the broker has it, a state that tells the truth, not one dead
letter; and that the backlog drains by itself when it is over, with every row right and no text paid twice.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
from tests.chaos.account import differences, read_letters, read_store
from tests.chaos.history import TABLES, History
from tests.chaos.stage import Servers, Stage
from tests.chaos.toxiproxy import fetch as fetch_toxiproxy
from tests.real.jars import fetch
from tests.real.processes import wait_until
from tests.real.service import Service

#: Fills the service's budgets in three minutes.
EVENTS_PER_S: Final = 250
QUIET_S: Final = 30.0
#: Memory may still grow by this from the middle third of an outage to its last.
GROWTH_MIB: Final = 8.0
#: What it may be at most, whatever the outage.
MOST_MIB: Final = 250.0
#: The service asks the broker for the ends of partitions now and then, not at each of our readings.
LAG_AGE_S: Final = 10.0
DRAIN_TIMEOUT_S: Final = 900.0
PROBE: Final = "dimension"


class Outage:
    """The process, the load on it, and what both say."""

    def __init__(self, stage: Stage):
        self._stage = stage
        # Poison is for the other runs: here no letter at all may be sent.
        self._history = History(0, rows=2000, poison=False)
        environment = stage.environment()
        for name in ("VECTIDE_KAFKA__EXTRA", "VECTIDE_EMBEDDER__TIMEOUT_S", "VECTIDE_STORE__TIMEOUT_S"):
            del environment[name]
        self._service = Service(environment, stage.servers.folder / stage.name)
        self._service.start()
        self._process = psutil.Process(self._service.child.pid)
        self._produced = 0
        self._started_s = time.monotonic()
        self._lags: deque[tuple[float, int]] = deque(maxlen=1000)
        self.complaints: list[str] = []

    def run(self, minutes: float) -> None:
        """Both outages, each followed by the draining, and the account."""
        wait_until("the service answers", lambda: self._service.readings() is not None, 60)
        self._load(QUIET_S)
        self._drain("at first")
        self._outage("provider", minutes, self._stage.to_provider.refuse, self._stage.to_provider.heal)
        proxy = self._stage.servers.to_store
        self._outage("store", minutes, proxy.refuse, proxy.heal)
        self._judge()
        self._service.close()

    def _outage(self, what: str, minutes: float, fail: Callable[[], None], heal: Callable[[], None]) -> None:
        self._say(f"the {what} is away")
        fail()
        memory = self._load(minutes * 60)
        state = self._service.state()
        self._say(f"after {minutes:g} min: {self._reading()}, state {state}")
        if state != "waiting":
            self.complaints.append(f"{what}: the state is {state}")
        third = len(memory) // 3
        parts = [max(part) for part in (memory[:third], memory[third:-third], memory[-third:])]
        self._say(f"memory by thirds: at most {', '.join(f'{part:.0f}' for part in parts)} MiB")
        if parts[2] > min(MOST_MIB, parts[1] + GROWTH_MIB):
            self.complaints.append(f"{what}: memory grew to {parts[2]:.0f} MiB")
        heal()
        self._drain(f"after the {what} is back")

    def _load(self, seconds: float) -> list[float]:
        """Change rows for that long. Returns the memory of the process over time, in MiB."""
        memory: list[float] = []
        start_s = time.monotonic()
        until, produced, next_look_s = start_s + seconds, 0, start_s
        while (now_s := time.monotonic()) < until:
            more = int((now_s - start_s) * EVENTS_PER_S) - produced
            for message in self._history.events(more):
                self._stage.produce(message)
            produced += more
            if now_s >= next_look_s:
                next_look_s = now_s + LAG_AGE_S
                memory.append(self._process.memory_info().rss / 2**20)
                self._look_at_lag()
            time.sleep(0.02)
        self._stage.flush()
        return memory

    def _look_at_lag(self) -> None:
        """What the service says is what the broker said a moment ago, give or take what happens meanwhile."""
        self._lag()
        readings = self._service.readings()
        self._lag()
        lately = [lag for at_s, lag in self._lags if at_s > time.monotonic() - 2 * LAG_AGE_S]
        room = EVENTS_PER_S * LAG_AGE_S * 1.5
        if readings is None:
            self.complaints.append("/metrics does not answer")
        elif not min(lately) - room <= readings.lag <= max(lately) + room:
            self.complaints.append(f"lag is {readings.lag}, the broker had {min(lately)} to {max(lately)}")

    def _drain(self, when: str) -> None:
        behind, start_s = self._lag(), time.monotonic()
        wait_until("the backlog is gone", lambda: self._lag() == 0, DRAIN_TIMEOUT_S, every_s=0.2)
        took_s = time.monotonic() - start_s
        memory = self._process.memory_info().rss / 2**20
        self._say(f"{when}: {behind} records drained in {took_s:.1f} s, memory {memory:.0f} MiB")

    def _judge(self) -> None:
        with self._stage.connect() as store:
            self.complaints += [*differences(self._history, read_store(store, vectors=True))][:5]
        letters = read_letters(self._stage)
        if letters:
            self.complaints.append(f"{len(letters)} dead letters, such as {letters[0].cause}")
        paid = [text for text in self._stage.provider.answered_texts() if text != PROBE]
        vain = len(paid) - len(set(paid)) - sum(count - 1 for count in self._history.worth.values())
        self._say(
            f"{sum(self._history.ends.values())} records, {len(paid)} texts paid, {len(letters)} letters"
        )
        if vain > 0:
            self.complaints.append(f"{vain} texts were paid twice")
        code = self._service.stop()
        if code != 0:
            self.complaints.append(f"exit code {code}")

    def _lag(self) -> int:
        topics = [self._stage.topic(table.name) for table in TABLES]
        lag = self._stage.servers.kafka.lag(self._stage.group, topics)
        self._lags.append((time.monotonic(), lag))
        return lag

    def _reading(self) -> str:
        readings = self._service.readings()
        return f"lag {readings.lag}, in flight {readings.in_flight}" if readings else "no answer"

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._started_s:7.1f} s  {line}", flush=True)


def main() -> int:
    """Exit code 1 when anything is not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long each outage lasts")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vectide-outage-"))
    with Servers(fetch(), fetch_toxiproxy(), folder) as servers, Stage(servers, 0) as stage:
        outage = Outage(stage)
        outage.run(options.minutes)
    for complaint in outage.complaints:
        print(f"    {complaint}")
    if outage.complaints:
        print(f"logs are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print("all promises kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
