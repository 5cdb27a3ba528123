"""The real executor: calls away from the caller's thread, results back in the order of their urgency."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from vectide.jobs.executor import SystemClock, ThreadExecutor, tune_interpreter
from vectide.jobs.parts import StreamPolicy
from vectide.ports import Completion, Deadline

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


def test_the_most_urgent_results_are_those_of_the_provider() -> None:
    policy = StreamPolicy(embed_concurrency=3, write_concurrency=2, lookup_concurrency=1)
    urgent = ["embed", "schema", "dead_letter", "purge", "write", "reread", "lookup", "replay"]
    assert list(policy.pools) == urgent
    assert [policy.pools[name] for name in ("embed", "write", "lookup")] == [3, 2, 1]


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
