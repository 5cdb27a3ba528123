"""A store that shows what was written some time later, under processes that die: nothing is decided from what
it does not show yet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.pipeline.pump import DIMENSIONS, DOWN, PRODUCTS, FaultyStore, Log, Provider, Pump, VirtualClock

from vectide.core.chunks import Chunking
from vectide.core.model import Change, Deleted, Row, Upserted
from vectide.ports import CollectionSpec, Deadline
from vectide.stores.pinecone import PineconeStore
from vectide.testing.fold import Fold
from vectide.testing.pinecone_server import PineconeServer

SOON = Deadline(VirtualClock(), 9e9)
TITLES = (
    "lamp",
    "a lamp with a long name that is cut into chunks",
    "chair",
    "a chair with another long name",
)


def changes(dice: random.Random) -> Iterator[Change]:
    """Of few rows, so that they meet: columns change by themselves, and what did not may be left out."""
    there: set[int] = set()
    for _ in range(14):
        key = dice.randrange(3)
        if key in there and dice.random() < 0.2:
            there.discard(key)
            yield Deleted({"id": key})
            continue
        columns = {"id": key, "title": dice.choice(TITLES), "body": None, "price": dice.randrange(3)}
        absent = [name for name in ("title", "price") if key in there and dice.random() < 0.3]
        there.add(key)
        left = {name: value for name, value in columns.items() if name not in absent}
        yield Upserted({"id": key}, left, frozenset(absent))


@pytest.mark.parametrize("for_vectors", [False, True], ids=["documents", "vectors"])
@pytest.mark.parametrize("seed", range(5))
def test_the_store_is_the_fold_of_the_log_however_late_it_shows_what_was_written(
    seed: int, for_vectors: bool
) -> None:
    """Invariants 3, 8 and 14, with an answer that is lost now and then, and two processes that are killed."""
    dice = random.Random(seed)  # noqa: S311
    table = replace(PRODUCTS, collection="items", chunking=Chunking(tokens=4, overlap=0))
    made = list(changes(dice))
    log = Log()
    log.append(*made)
    with (
        PineconeServer(seed=seed, for_vectors=for_vectors) as server,
        closing(PineconeStore(server.api_key, url=server.url)) as pinecone,
    ):
        pinecone.prepare(CollectionSpec("items", DIMENSIONS, Provider().space), SOON)
        store = FaultyStore()
        store.inner = cast(Any, pinecone)
        store.answer_lost = lambda call, collection: DOWN if dice.random() < 0.1 else None
        for _ in range(2):
            Pump(log, store=store, tables=[table]).steps(dice.randrange(4, 30))
        pump = Pump(log, store=store, tables=[table])
        pump.run()
        assert not pump.letters.letters
        fold = Fold(table, Provider().count_tokens)
        for change in made:
            fold.apply(cast(Any, change))
        held: dict[Row, dict[int, Any]] = {}
        for point in pinecone.scan("items", None, 1000, SOON)[0]:
            held.setdefault(point.row, {})[point.chunk] = (point.text, point.metadata)
        assert held == {
            row: {at: (text, one.metadata) for at, text in enumerate(one.chunks)}
            for row, one in fold.rows.items()
        }
