"""A topic gets another partition, and a row's changes go on there while older ones still wait."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.simulation.run import Run
from tests.simulation.scenario import PARTITIONS, PRODUCTS, Event, Fault, Scenario

from vectide.core.model import SourcePosition, Upserted

#: The partition of the row, and the one that is added.
OLD, NEW = 0, PARTITIONS[PRODUCTS.source]
KEY = {"id": 0}


def change(price: int, partition: int, at_s: float, *, ordered: bool) -> Event:
    columns = {"id": 0, "title": f"text {price}", "body": "b", "price": price, "note": "n", "gone": False}
    source = SourcePosition("db", f"{price:05d}", price) if ordered else None
    upserted = Upserted(KEY, columns, committed_ms=0, source=source)
    return Event(at_s, PRODUCTS.source, partition, 0, upserted, "", whole=columns)


def prices(
    events: Sequence[Event], luck: int, replicas: int = 1, faults: Sequence[Fault] = ()
) -> list[object]:
    """The row's in the end. Everything else is looked at by the simulation itself."""
    scenario = Scenario(0, tuple(events), tuple(faults), batch_items=1, replicas=replicas, luck=luck)
    run = Run(scenario)
    run.run()
    assert any("ADDED" in line for line in run.told)
    return [point.metadata["price"] for point in run.points()]


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("luck", range(8))
def test_the_sources_order_decides_where_it_is_told(luck: int, replicas: int) -> None:
    """Invariant 14: in which order the partitions are read, and by whom."""
    events = [change(at, OLD if at < 5 else NEW, 0.1, ordered=True) for at in range(1, 10)]
    faults = [Fault(0.15, "store_down", 0.3)]
    assert prices(events, luck, replicas, faults) == [9]


@pytest.mark.parametrize("luck", range(8))
def test_else_the_last_of_one_of_the_partitions_stays(luck: int) -> None:
    events = [change(at, OLD if at < 5 else NEW, 0.1, ordered=False) for at in range(1, 10)]
    assert prices(events, luck) in ([4], [9])
