"""``python -m tests.chaos.behind``: a million changes of 1 KB wait. How much memory does the process take
that works them off, and does it stay that way?

One process with its own settings, vectors of 1,536 numbers, a real broker and a real PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from tests.chaos.history import TABLES, Message
from tests.chaos.stage import Servers, Stage
from tests.chaos.toxiproxy import fetch as fetch_toxiproxy
from tests.real.jars import fetch
from tests.real.processes import wait_until
from tests.real.service import Service

from vectide.ports import Vector

RECORDS: Final = 1_000_000
RECORD_BYTES: Final = 1000
DIMENSIONS: Final = 1536
#: What the process may take, in bytes, and by how much the last third may be above the middle one.
MOST_BYTES: Final = 250_000_000
GROWTH_BYTES: Final = 8_000_000
PROBE: Final = "dimension"


def message(row: int) -> Message:
    """An insert of that size."""
    table = TABLES[0]
    source = {"connector": "postgresql", "name": "behind", "db": "d", "schema": "s", "table": "t", "lsn": row}
    columns = {"id": row, "title": f"Title {row}", "body": "", "price": 1}
    event = {"before": None, "after": columns, "source": source, "op": "c"}
    columns["body"] = "lorem ipsum " * ((RECORD_BYTES - len(json.dumps(event))) // 12)
    key = json.dumps({"id": row}).encode()
    return Message(table, row % table.partitions, key, json.dumps(event).encode())


def quick_vector(text: str, dimensions: int) -> Vector:
    """Made in no time: the provider must not be what the service waits for."""
    made = np.zeros(dimensions, dtype=np.float32)
    made[hash(text) % dimensions] = 1.0
    return made


def main() -> int:
    """Exit code 1 when it takes more memory than it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.behind", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to look")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vectide-behind-"))
    servers = Servers(fetch(), fetch_toxiproxy(), folder)
    with servers, Stage(servers, 0, DIMENSIONS, quick_vector) as stage:
        for row in range(RECORDS):
            stage.produce(message(row))
        stage.flush()
        service = Service(stage.environment(), folder / stage.name)
        service.start()
        wait_until("the service works", lambda: len(stage.provider.answered_texts()) > 1, 60)
        taken, start_s = [], time.monotonic()
        process = psutil.Process(service.child.pid)
        while time.monotonic() < start_s + options.seconds:
            taken.append(process.memory_info().rss)
            time.sleep(1)
        done = RECORDS - servers.kafka.lag(stage.group, stage.topics)
        code = service.stop(60)
    shutil.rmtree(folder, ignore_errors=True)
    third = len(taken) // 3
    parts = [max(taken[:third]), max(taken[third:-third]), max(taken[-third:])]
    told = ", ".join(f"{part / 1e6:.0f}" for part in parts)
    print(f"{done} of {RECORDS} records in {options.seconds:.0f} s; memory by thirds: at most {told} MB")
    return 0 if max(parts) <= MOST_BYTES and parts[2] <= parts[1] + GROWTH_BYTES and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
