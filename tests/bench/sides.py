"""The two sides of the comparison, each a process of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.real.processes import Child, free_port

from vectide.jobs.executor import SystemClock
from vectide.ports import CollectionSpec, Deadline
from vectide.stores.pgvector import PgVectorStore

ROOT = Path(__file__).resolve().parents[2]
DIMENSIONS = 64
DEAD_LETTERS = "vectide.dlq"
MAPPING = {
    "embed": {"template": "{name}\n\n{description}"},
    "metadata": ["price", "stock"],
    "store_text": True,
}


@dataclass(frozen=True, slots=True)
class Course:
    """Where one run happens: its own topic, group and database. ``provider_items``: the most texts that the
    provider takes in a call, None where it takes whatever comes. ``indexed``: whether the vectors have an
    index; without one, the store costs next to nothing."""

    name: str
    folder: Path
    bootstrap: str
    provider: str
    dsn: str
    provider_items: int | None = None
    indexed: bool = True

    @property
    def topic(self) -> str:
        return f"{self.name}.public.products"

    @property
    def group(self) -> str:
        return self.name


class Side(Protocol):
    """Something that follows the topic into a table ``products``. ``row_id``: SQL for the row's id in it."""

    name: str
    row_id: str

    def start(self, course: Course) -> Child: ...


class Vectide:
    """``vectide run`` with nothing configured but what it has no default for."""

    name = "vectide"
    row_id = "(row_key::jsonb ->> 'id')::bigint"

    def start(self, course: Course) -> Child:
        environment = {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": course.bootstrap,
            "VECTIDE_KAFKA__GROUP_ID": course.group,
            "VECTIDE_EMBEDDER__KIND": "openai",
            "VECTIDE_EMBEDDER__MODEL": "hashing",
            "VECTIDE_EMBEDDER__BASE_URL": course.provider,
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": course.dsn,
            "VECTIDE_DLQ__TOPIC": DEAD_LETTERS,
            "VECTIDE_HTTP__PORT": str(free_port()),
            "VECTIDE_TABLES": json.dumps({"products": {"source": course.topic, **MAPPING}}),
        }
        if not course.indexed:
            _prepare_without_index(course.dsn)
        if course.provider_items is not None:
            environment["VECTIDE_EMBEDDER__BATCH_ITEMS"] = str(course.provider_items)
        command = [sys.executable, "-m", "vectide", "run"]
        return Child("vectide", command, course.folder, _environment(environment))


class Afternoon:
    """The loop of :mod:`tests.bench.afternoon`."""

    name = "loop"
    row_id = "id"

    def start(self, course: Course) -> Child:
        environment = {
            "BOOTSTRAP": course.bootstrap,
            "GROUP": course.group,
            "TOPIC": course.topic,
            "PROVIDER": course.provider,
            "DSN": course.dsn,
            "DIMENSIONS": str(DIMENSIONS),
            "PROVIDER_ITEMS": str(course.provider_items or ""),
            "INDEXED": "1" if course.indexed else "",
        }
        command = [sys.executable, str(Path(__file__).with_name("afternoon.py"))]
        return Child("loop", command, course.folder, _environment(environment))


def _prepare_without_index(dsn: str) -> None:
    """Make the collection as an operator may: the service never alters one that is there."""
    spec = CollectionSpec("products", DIMENSIONS, f"openai/hashing/{DIMENSIONS}")
    store = PgVectorStore(dsn, index="none")
    store.prepare(spec, Deadline.after(SystemClock(), 60))
    store.close()


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
    return {**outside, **own, "PYTHONPATH": str(ROOT)}
