"""How long the imports of `vectide run` take with one store and one provider, in seconds of CPU.

python -m scripts.start_times                        # pairs that have every store and every light provider
python -m scripts.start_times openai pgvector        # one pair

The least of five processes each, with warm files: what else the machine does has little part in that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from vectide import embedders, stores

RUNS: Final = 5
PAIRS: Final = (
    ("openai", "pgvector"),
    ("openai", "qdrant"),
    ("openai", "lancedb"),
    ("openai", "milvus"),
    ("azure", "pgvector"),
    ("cohere", "weaviate"),
    ("voyage", "chroma"),
    ("gemini", "pinecone"),
    ("onnx", "pgvector"),
    ("model2vec", "pgvector"),
    ("wordllama", "pgvector"),
)

_PROGRAM: Final = """
import resource, sys
import vectide.cli, vectide.app, vectide.app_service, {embedder}, {store}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, len(sys.modules))
"""


def measured(embedder: str, store: str) -> tuple[float, int]:
    """Seconds of CPU from the start of the interpreter until everything is imported, and modules."""
    program = _PROGRAM.format(embedder=embedders.KINDS[embedder], store=stores.KINDS[store])
    found = []
    for _ in range(RUNS):
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        seconds, modules = run.stdout.split()
        found.append((float(seconds), int(modules)))
    return min(found)


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each pair."""
    for embedder, store in [(arguments[0], arguments[1])] if arguments else PAIRS:
        seconds, modules = measured(embedder, store)
        print(f"| `{store}`, `{embedder}` | {seconds:.2f} | {modules:,} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
