"""What the demo stands on: the embedded parts, the worker's variables, and a user's view of the store."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vectide import app, settings
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, Value
from vectide.demo import catalogue
from vectide.demo.feeder import Feeder, Offsets
from vectide.demo.keepers import Keeper, open_keeper
from vectide.demo.shop import Shop
from vectide.demo.verify import stored_points
from vectide.demo.worker import Worker
from vectide.jobs.executor import SystemClock
from vectide.ports import Codec, Deadline, Embedder, Hit, Scannable, Searchable, Store, Stored
from vectide.testing.broker import BrokerProcess

PARTITIONS: Final = 4
GROUP: Final = "vectide-demo"
DEAD_LETTERS: Final = "vectide.dlq"
COLLECTION: Final = "products"

#: The products of the search story: random changes leave them alone.
HEADPHONES: Final = frozenset({2, 62, 94, 186, 190})

#: How long a group waits for a member that went without a word. A real broker is told by
#: ``group.consumer.session.timeout.ms`` (45 s by default), or by the member's ``session.timeout.ms`` where
#: it speaks the classic protocol.
SESSION_TIMEOUT_MS: Final = 2000

#: Both are for the embedded broker. Its groups of the classic protocol form again only after nearly a
#: session, so the newer protocol is quicker; and nothing wakes a fetch that waits for records, so it must
#: not wait for long. A real broker answers at once and needs neither.
_EXTRA: Final = {"group.protocol": "consumer", "fetch.wait.max.ms": "20"}

#: A store has come to rest when it does not change for so long.
_QUIET_S: Final = 0.3
_QUIET_TIMEOUT_S: Final = 20.0
_SEARCH_TIMEOUT_S: Final = 10.0


class Window:
    """The store as somebody who searches it sees it. Has its own connections and its own model."""

    def __init__(self, store: Store, embedder: Embedder, clock: SystemClock) -> None:
        assert isinstance(store, Searchable)
        assert isinstance(store, Scannable)
        self._searchable: Searchable = store
        self.scannable: Scannable = store
        self.embedder = embedder
        self.able = store.capabilities
        self.clock = clock

    def search(self, query: str, limit: int, filters: Mapping[str, Value]) -> Sequence[Hit]:
        """The nearest products."""
        deadline = Deadline.after(self.clock, _SEARCH_TIMEOUT_S)
        vector = self.embedder.embed_query(query, deadline)
        return self._searchable.search(COLLECTION, vector, limit, deadline, filters)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs, and how to ask it."""

    folder: Path
    broker: BrokerProcess
    keeper: Keeper
    environment: Mapping[str, str]
    recorded: Sequence[Record]
    feeder: Feeder
    offsets: Offsets
    worker: Worker
    window: Window
    codec: Codec
    mapping: TableMapping

    def quiet(self) -> None:
        """Wait until nothing changes the store any more: what the killed worker sent may still be done."""
        if self.keeper.quiet is not None:
            self.keeper.quiet()
            return
        before, now = -1, _state(points(self))
        give_up_s = time.monotonic() + _QUIET_TIMEOUT_S
        while before != now:
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{self.keeper.name} does not come to rest")
            time.sleep(_QUIET_S)
            before, now = now, _state(points(self))


def _state(stored: Sequence[Stored]) -> int:
    return hash(frozenset((point.id, str(point.stamp), point.text_hash) for point in stored))


def open_stage(stack: ExitStack, folder: Path, seed: int, store: str) -> Stage:
    """Start everything but the worker; ``stack`` ends it."""
    broker = stack.enter_context(BrokerProcess(session_timeout_ms=SESSION_TIMEOUT_MS))
    broker.create_topic(catalogue.TOPIC, PARTITIONS)
    broker.create_topic(DEAD_LETTERS)
    keeper = open_keeper(store, stack, folder)
    environment = _environment(folder, broker, keeper)
    given = settings.load(environment)
    clock = SystemClock()
    embedder = stack.enter_context(closing(app.build_embedder(given.embedder)))
    embedder.prepare(Deadline.after(clock, _SEARCH_TIMEOUT_S))
    kept = stack.enter_context(closing(app.build_store(given.store)))
    recorded = catalogue.unpack(folder)
    shop = Shop(catalogue.rows_after(recorded), seed, reserved=HEADPHONES)
    worker = Worker(environment, folder / "worker.log")
    stack.callback(worker.close)
    return Stage(
        folder=folder,
        broker=broker,
        keeper=keeper,
        environment=environment,
        recorded=recorded,
        feeder=stack.enter_context(Feeder(broker.bootstrap, shop)),
        offsets=stack.enter_context(Offsets(broker.bootstrap, catalogue.TOPIC, GROUP, PARTITIONS)),
        worker=worker,
        window=Window(kept, embedder, clock),
        codec=app.build_codec(given),
        mapping=given.mappings[0],
    )


def points(stage: Stage, *, vectors: bool = False) -> list[Stored]:
    """Every point that the store holds now."""
    return stored_points(stage.window.scannable, COLLECTION, stage.window.clock, vectors=vectors)


def _environment(folder: Path, broker: BrokerProcess, keeper: Keeper) -> dict[str, str]:
    tables = folder / "tables.yaml"
    tables.write_text(catalogue.TABLES)
    return {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": GROUP,
        "VECTIDE_KAFKA__EXTRA": json.dumps(_EXTRA),
        "VECTIDE_EMBEDDER__KIND": "wordllama",
        **keeper.variables,
        "VECTIDE_DLQ__TOPIC": DEAD_LETTERS,
        "VECTIDE_HTTP__PORT": str(_free_port()),
        "VECTIDE_LOG__FORMAT": "json",
        "VECTIDE_TABLES_FILE": str(tables),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
