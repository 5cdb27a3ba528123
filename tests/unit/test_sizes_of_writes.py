"""A row of several chunks counts for as many writes as it makes, in a batch and in a queue."""

from __future__ import annotations

from vectide.core.batcher import Batcher, BatchLimits
from vectide.core.station import Station

LIMITS = BatchLimits(items=10, linger_s=0.0)


def test_a_batch_ends_before_the_row_that_would_not_fit() -> None:
    batcher: Batcher[str] = Batcher(LIMITS)
    for name, size in (("a", 4), ("b", 5), ("c", 2), ("huge", 50), ("d", 1)):
        batcher.add(name, 1, 0.0, size)
    assert batcher.size == 62
    assert [batcher.take(1.0) for _ in range(4)] == [["a", "b"], ["c"], ["huge"], ["d"]]
    assert (batcher.size, len(batcher)) == (0, 0)


def test_a_batch_is_full_by_what_its_items_count_for() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(items=10, linger_s=99.0, quiet_s=99.0))
    batcher.add("first", 1, 0.0)
    assert batcher.take(0.0) == ["first"]
    batcher.add("a", 1, 0.0, 9)
    assert batcher.take(0.0) == []
    batcher.add("b", 1, 0.0, 1)
    assert batcher.take(0.0) == ["a", "b"]


def test_what_is_swept_no_longer_counts() -> None:
    batcher: Batcher[str] = Batcher(LIMITS)
    batcher.add("gone", 1, 0.0, 9)
    batcher.add("stays", 1, 0.0, 3)
    assert batcher.sweep(lambda name: name == "stays") == ["gone"]
    assert batcher.size == 3


def test_a_station_is_behind_when_a_call_would_be_full() -> None:
    station: Station[str] = Station("write", LIMITS, 1, lambda: 0.0)
    station.add("a", 1, 0.0, 9)
    assert not station.is_behind
    station.add("b", 1, 0.0, 1)
    assert (station.is_behind, station.queued) == (True, 2)
