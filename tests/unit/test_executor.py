"""The real executor: calls away from the caller's thread, results back in the order of their urgency."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from vectide.embedders.hashing import HashingEmbedder
from vectide.jobs.executor import SystemClock, ThreadExecutor, tune_interpreter
from vectide.jobs.parts import StreamPolicy
from vectide.jobs.routes import Provider, Route, Target
from vectide.ports import Completion, Deadline
from vectide.testing.store import MemoryStore

PATIENCE_S = 10.0


@pytest.fixture
def executor() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor({"urgent": 2, "other": 2})
    yield executor
    executor.close(Deadline.after(SystemClock(), PATIENCE_S))


def collect(executor: ThreadExecutor, count: int) -> list[Completion]:
    """The next results, in the order in which they are given out."""
    found: list[Completion] = []
    while len(found) < count:
        completions = executor.completed(PATIENCE_S)
        assert completions, "nothing finished in time"
        found += completions
    return found


def test_results_of_the_pool_named_first_come_first(executor: ThreadExecutor) -> None:
    started = threading.Barrier(5)

    def name(pool: str) -> str:
        started.wait(PATIENCE_S)
        return pool

    for pool in ("other", "other", "urgent", "urgent"):
        executor.submit(pool, partial(name, pool), lambda _: None)
    started.wait(PATIENCE_S)
    executor.close(Deadline.after(SystemClock(), PATIENCE_S))  # now all have finished
    assert [done.result for done in collect(executor, 4)] == ["urgent", "urgent", "other", "other"]


def test_an_error_is_handed_over_and_harms_nobody_else(executor: ThreadExecutor) -> None:
    def fail() -> None:
        raise SystemExit("a worker must not take it for itself")

    executor.submit("other", fail, lambda _: None)
    (failed,) = collect(executor, 1)
    assert isinstance(failed.error, SystemExit)
    executor.submit("other", lambda: 7, lambda _: None)
    (answered,) = collect(executor, 1)
    assert (answered.result, answered.error) == (7, None)


def test_waiting_for_results_ends_in_time(executor: ThreadExecutor) -> None:
    started_s = time.monotonic()
    assert executor.completed(0.05) == []
    assert 0.04 < time.monotonic() - started_s < PATIENCE_S


def test_the_most_urgent_results_are_those_of_the_providers() -> None:
    """And what is called has threads of its own: one that hangs takes none of another's."""
    embedder, stores = HashingEmbedder(8), (MemoryStore(), MemoryStore())
    provider = Provider("models", embedder, concurrency=3)
    one = Target("one", stores[0], write_concurrency=2, lookup_concurrency=1)
    routes = {
        "a": Route(provider, one),
        "b": Route(provider, Target("two", stores[1])),
        "c": Route(provider, one),
    }
    assert list(StreamPolicy().pools(routes).items()) == [
        ("embed models", 3),
        ("schema", 2),
        ("dead_letter", 1),
        ("purge one", 1),
        ("purge two", 1),
        ("write one", 2),
        ("write two", 4),
        ("reread", 2),
        ("lookup one", 1),
        ("lookup two", 2),
        ("replay", 1),
    ]


def test_the_interpreter_is_tuned_for_threads_that_wait() -> None:
    before = sys.getswitchinterval(), gc.get_threshold()
    try:
        tune_interpreter()
        assert sys.getswitchinterval() < before[0]
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
