"""One station: slots, waiting, the shared cool-down, halts, splitting and who is to blame."""

import random
from collections.abc import Callable, Iterable
from math import ceil, log2

import pytest

from vectide.core.batcher import BatchLimits
from vectide.core.failures import DeadLetter, Failure, Halt, Kind, Split, Wait, backoff_s
from vectide.core.station import CLOSE_AFTER, GROW_AFTER, OK, Condition, Station, Unit

DOWN = Failure(Kind.TRANSIENT, "server_error")
BROKE = Failure(Kind.OPERATOR, "quota_exhausted")
REFUSED = Failure(Kind.REFUSED, "bad_request")


def slow_down(retry_after_s: float | None = None) -> Failure:
    return Failure(Kind.THROTTLED, "rate_limited", retry_after_s=retry_after_s)


def station(items: Iterable[int], *, batch: int = 1, concurrency: int = 4, luck: float = 0.0) -> Station[int]:
    limits = BatchLimits(items=batch, linger_s=0.0)
    made: Station[int] = Station("embed", limits, concurrency, lambda: luck)
    for item in items:
        made.add(item, 1, 0.0)
    return made


def departed(one: Station[int], now_s: float) -> Unit[int]:
    unit = one.depart(now_s)
    assert unit is not None
    return unit


def depart_all(one: Station[int], now_s: float) -> list[Unit[int]]:
    units = []
    while (unit := one.depart(now_s)) is not None:
        units.append(unit)
    return units


# --- tried often ----------------------------------------------------------------------------------------


def test_a_batch_that_was_tried_often_waits_in_halves() -> None:
    one = station(range(4), batch=4, luck=0.999)
    now_s, sizes = 0.0, []
    for _ in range(12):
        unit = departed(one, now_s)
        sizes.append(len(unit.items))
        assert one.failed(unit, DOWN, now_s) == Wait(backoff_s(unit.attempt - 1, one.policy))
        due_s = one.due_s()
        assert due_s is not None
        assert due_s > now_s + 0.1  # it waits no less for that
        now_s = due_s
    assert sizes[:5] == [4] * 5
    assert sorted(sizes[5:]) == [1] * 5 + [2] * 2
    assert one.queued == 4


def test_what_a_peer_asks_to_wait_for_stays_together() -> None:
    one = station(range(4), batch=4)
    for at in range(20):
        one.failed(departed(one, at * 1000.0), slow_down(1), at * 1000.0)
    assert len(departed(one, 99_999.0).items) == 4


# --- slots and queue ------------------------------------------------------------------------------------


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    one = station(range(10), concurrency=3)
    first, *_ = units = depart_all(one, 0.0)
    assert len(units) == 3
    assert (one.queued, one.due_s()) == (7, None)
    one.succeeded(first)
    assert [unit.items for unit in depart_all(one, 0.0)] == [[3]]


def test_a_unit_that_made_no_call_tells_nothing() -> None:
    one = station(range(2), concurrency=1)
    one.withdraw(departed(one, 0.0))
    assert one.condition == OK
    assert departed(one, 0.0).items == [1]


def test_it_is_idle_only_when_nothing_waits_runs_or_is_to_be_retried() -> None:
    one = station([])
    assert one.idle
    one.add(1, 1, 0.0)
    assert not one.idle
    unit = departed(one, 0.0)
    assert not one.idle
    one.failed(unit, DOWN, 0.0)
    assert (one.idle, one.queued) == (False, 1)


def test_sweep_takes_back_queued_and_retried_items_but_none_in_flight() -> None:
    one = station(range(6), batch=2, concurrency=2)
    running, failing = depart_all(one, 0.0)
    one.failed(failing, DOWN, 0.0)
    assert sorted(one.sweep(lambda item: item == 3)) == [2, 4, 5]
    assert one.queued == 1
    one.succeeded(running)
    assert departed(one, 99.0).items == [3]


# --- waiting --------------------------------------------------------------------------------------------


def test_a_transient_failure_delays_its_own_batch_only() -> None:
    one = station(range(3), concurrency=2)
    unit = departed(one, 0.0)
    assert one.failed(unit, DOWN, 0.0) == Wait(0.25)
    assert one.condition == OK
    assert [each.items for each in depart_all(one, 0.0)] == [[1], [2]]
    one.succeeded(one.in_flight[0])
    assert one.depart(0.12) is None
    assert departed(one, 0.125).items == [0]  # half of the back-off: the jitter drew 0


@pytest.mark.parametrize(("luck", "due_s"), [(0.0, 7.0), (0.999, 7.6993)])
def test_jitter_never_shortens_what_the_peer_asked_for(luck: float, due_s: float) -> None:
    """Case 123."""
    for failure in (slow_down(7.0), Failure(Kind.TRANSIENT, "server_error", retry_after_s=7.0)):
        one = station([1], luck=luck)
        one.failed(departed(one, 0.0), failure, 0.0)
        assert one.depart(6.999) is None
        assert one.due_s() == pytest.approx(due_s if failure.kind is Kind.THROTTLED else 7.0)


def test_all_callers_wait_as_long_as_the_peer_asked_one_of_them() -> None:
    """Case 123: also when earlier calls succeed late, or were asked for less."""
    one = station(range(20))
    first, late, later, latest = depart_all(one, 0.0)
    one.failed(first, slow_down(7.0), 0.0)
    assert one.condition == Condition("waiting", "rate_limited")
    one.succeeded(late)
    one.failed(later, slow_down(1.0), 0.1)
    one.failed(latest, DOWN, 0.2)
    assert [one.depart(now_s) for now_s in (0.2, 1.5, 6.999)] == [None] * 3
    assert one.due_s() == 7.0
    assert one.condition.name == "waiting"


def test_after_a_cool_down_one_call_goes_first() -> None:
    """Case 123: no parallel hammering; its success opens the station again."""
    one = station(range(20))
    first, *others = depart_all(one, 0.0)
    one.failed(first, slow_down(7.0), 0.0)
    for other in others:
        one.succeeded(other)
    (probe,) = depart_all(one, 7.0)
    assert probe.items == first.items
    one.succeeded(probe)
    assert one.condition == OK
    assert len(depart_all(one, 7.0)) == one.allowed


def test_a_peer_that_asks_to_slow_down_gets_half_the_calls_and_slowly_more() -> None:
    """Once for all calls that were on the way, never below one, up to what is configured."""
    one = station(range(200), concurrency=8)
    for unit in depart_all(one, 0.0):
        one.failed(unit, slow_down(1.0), 0.0)
    assert one.allowed == 4
    for now_s in (10.0, 20.0, 30.0, 40.0):
        one.failed(departed(one, now_s), slow_down(1.0), now_s)
    assert one.allowed == 1
    rounds = []
    while one.allowed < 8:
        for unit in depart_all(one, 60.0):
            one.succeeded(unit)
        rounds.append(one.allowed)
    assert rounds[:4] == [2, 2, 3, 4]
    assert len(rounds) < 12
    for unit in depart_all(one, 60.0):
        one.succeeded(unit)
    assert one.allowed == 8


def test_batches_that_are_too_large_make_those_to_come_smaller() -> None:
    """Not for ever: after many that were taken, larger ones are tried."""
    taken = 20
    one = station([], batch=64, concurrency=1)
    calls, refused, tried = 0, 0, []
    while calls < 1000:
        while one.queued < 64:
            one.add(0, 1, 0.0)
        unit = departed(one, 0.0)
        calls += 1
        tried.append(len(unit.items))
        if len(unit.items) > taken:
            refused += 1
            assert one.failed(unit, Failure(Kind.TOO_LARGE, "too_large"), 0.0) == Split()
        else:
            one.succeeded(unit)
    assert tried[:4] == [64, 32, 32, 16]
    assert tried.count(16) > 900
    assert refused <= 3 + 1000 // GROW_AFTER


def test_one_text_that_is_too_large_does_not_make_all_batches_small_for_ever() -> None:
    one = station([1, *range(2, 64)], batch=64, concurrency=1)
    one.add(0, 1, 0.0)
    sizes = []
    for _ in range(4 * GROW_AFTER):
        while one.queued < 64:
            one.add(9, 1, 0.0)
        unit = departed(one, 0.0)
        sizes.append(len(unit.items))
        if 0 in unit.items:
            one.failed(unit, Failure(Kind.TOO_LARGE, "too_large"), 0.0)
        else:
            one.succeeded(unit)
    assert sizes[-1] == 64


def test_a_probe_that_fails_closes_the_station_again() -> None:
    one = station(range(20))
    for unit in depart_all(one, 0.0)[:1]:
        one.failed(unit, slow_down(7.0), 0.0)
    for unit in list(one.in_flight):
        one.succeeded(unit)
    (probe,) = depart_all(one, 7.0)
    one.failed(probe, DOWN, 7.0)
    assert one.depart(7.1) is None
    assert len(depart_all(one, 60.0)) == 1


def test_an_outage_makes_it_try_with_one_call_at_a_time() -> None:
    one = station(range(20))
    for unit in depart_all(one, 0.0)[:CLOSE_AFTER]:
        one.failed(unit, DOWN, 0.0)
    assert one.condition == Condition("waiting", "server_error")
    assert one.depart(0.1) is None
    one.succeeded(one.in_flight[0])
    assert one.condition.name == "waiting"  # that call had departed before
    assert len(depart_all(one, 60.0)) == 1


# --- halting --------------------------------------------------------------------------------------------


def test_it_halts_and_resumes_by_itself() -> None:
    one = station(range(20))
    first, *others = depart_all(one, 0.0)
    assert one.failed(first, BROKE, 0.0) == Halt("quota_exhausted", 30.0)
    for other in others:
        one.failed(other, BROKE, 1.0)
    assert one.condition == Condition("halted", "quota_exhausted")
    assert (one.depart(30.9), one.due_s()) == (None, 31.0)
    (probe,) = depart_all(one, 31.0)
    one.failed(probe, BROKE, 31.0)
    assert one.depart(60.9) is None
    (probe,) = depart_all(one, 61.0)
    assert one.condition.name == "halted"
    one.succeeded(probe)
    assert one.condition == OK
    assert one.queued == 19  # nothing was lost on the way
    assert len(depart_all(one, 61.0)) == 4


# --- who is to blame ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 100, 256])
@pytest.mark.parametrize("culprits", [1, 2, 5])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_culprits_are_found_among_the_rest_in_few_calls(size: int, culprits: int, concurrency: int) -> None:
    """Case 97, invariant 10: only they are dead-lettered, everything else arrives."""
    guilty = set(random.Random(size).sample(range(size), min(culprits, size)))  # noqa: S311
    one = station(range(size), batch=size, concurrency=concurrency)
    dead: list[int] = []
    arrived: list[int] = []
    calls = 0
    while not one.idle:
        for unit in depart_all(one, 0.0):
            calls += 1
            if guilty.isdisjoint(unit.items):
                one.succeeded(unit)
                arrived += unit.items
            elif isinstance(one.failed(unit, REFUSED, 0.0), DeadLetter):
                dead += unit.items
    assert sorted(dead) == sorted(guilty)
    assert sorted(arrived) == sorted(set(range(size)) - guilty)
    assert calls <= 1 + 2 * len(guilty) * ceil(log2(max(size, 2)))


def test_one_refused_member_of_a_call_that_succeeded_is_dead_at_once() -> None:
    one = station([1, 2], batch=2)
    unit = departed(one, 0.0)
    one.succeeded(unit)
    assert one.fail_one(unit, 2, REFUSED, 0.0) == DeadLetter("bad_request")
    assert one.idle


def test_a_member_that_fails_by_itself_again_and_again_waits_longer_each_time() -> None:
    one = station([1, 2], batch=2)
    unit = departed(one, 0.0)
    one.succeeded(unit)
    waits = [one.fail_one(unit, 2, DOWN, 0.0)]
    for _ in range(3):
        due_s = one.due_s()
        assert due_s is not None
        unit = departed(one, due_s)
        one.succeeded(unit)
        waits.append(one.fail_one(unit, 2, DOWN, due_s))
    assert waits == [Wait(0.25), Wait(0.5), Wait(1.0), Wait(2.0)]


def test_without_work_no_trouble_is_told_and_new_work_meets_it_again() -> None:
    """A part that nobody needs must not keep the process halted."""
    one = station([1])
    one.failed(departed(one, 0.0), BROKE, 0.0)
    assert one.condition.name == "halted"
    one.sweep(lambda item: False)
    assert one.condition == OK
    one.add(2, 1, 1.0)
    assert (one.condition.name, one.depart(29.0)) == ("halted", None)
    assert departed(one, 30.0).items == [2]


class Traffic:
    """Calls that take a tenth of a second, in virtual time; ``breaks`` tells which of them fail."""

    def __init__(self, batch: int, concurrency: int, breaks: Callable[[list[int]], bool]) -> None:
        self.station = station([], batch=batch, concurrency=concurrency, luck=0.5)
        self.dead: list[list[int]] = []
        self.splits = 0
        self.calls = 0
        self.now_s = 0.0
        self._batch = batch
        self._breaks = breaks
        self._items = 0

    def turn(self) -> None:
        """There is always more to send than slots."""
        one = self.station
        while len(one.in_flight) + one.queued < 4 * self._batch * one.concurrency:
            one.add(self._items, 1, self.now_s)
            self._items += 1
        units = depart_all(one, self.now_s)
        self.now_s += 0.1
        for unit in units:
            self.calls += 1
            if not self._breaks(unit.items):
                one.succeeded(unit)
                continue
            reaction = one.failed(unit, DOWN, self.now_s)
            self.splits += isinstance(reaction, Split)
            if isinstance(reaction, DeadLetter):
                self.dead.append(unit.items)
        self.now_s = max(self.now_s, one.due_s() or 0.0)  # nothing happens before


def test_an_outage_never_condemns() -> None:
    """Invariant 10: 10,000 calls fail one after the other, and nobody is held responsible."""
    traffic = Traffic(batch=8, concurrency=4, breaks=lambda items: True)
    while traffic.calls < 10_000:
        traffic.turn()
    assert (traffic.dead, traffic.splits) == ([], 0)


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 1), (1, 8), (8, 1), (8, 8)])
def test_flapping_never_condemns(batch: int, concurrency: int) -> None:
    """Invariant 10: half of 10,000 calls fail by chance."""
    rng = random.Random(batch * concurrency)  # noqa: S311
    traffic = Traffic(batch, concurrency, breaks=lambda items: rng.random() < 0.5)
    while traffic.calls < 10_000:
        traffic.turn()
    assert traffic.dead == []


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 4), (8, 1), (8, 4)])
def test_a_text_that_breaks_the_peer_is_isolated_while_others_succeed(batch: int, concurrency: int) -> None:
    """Invariant 10: it gets a 500 each time it is sent, whatever it is sent with."""
    traffic = Traffic(batch, concurrency, breaks=lambda items: 3 in items)
    while not traffic.dead and traffic.calls < 10_000:
        traffic.turn()
    assert traffic.dead == [[3]]


def test_an_outage_after_successes_does_not_condemn_what_it_met_first() -> None:
    """Invariant 10: good and bad times in turn, as when the peer restarts again and again."""
    times = [0]

    def breaks(items: list[int]) -> bool:
        times[0] += 1
        return times[0] % 400 < 200

    traffic = Traffic(batch=4, concurrency=4, breaks=breaks)
    while traffic.calls < 10_000:
        traffic.turn()
    assert traffic.dead == []
