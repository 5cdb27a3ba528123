"""How fast a provider is called: its limits per minute used nearly up, hardly ever exceeded."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from vectide.core.batcher import BatchLimits
from vectide.core.failures import Failure, Kind
from vectide.core.pace import CALL_SHARE, SHARE, SLACK_S, Allowance, Charge, Left, Pace, Rates
from vectide.core.station import Station, Unit
from vectide.embedders.http_failures import allowance_of
from vectide.testing.embedding_limits import Buckets, Limiter, MostRecentMinute

MINUTE_S = 60.0


def test_no_minute_holds_more_than_is_allowed() -> None:
    """The sum that the constants were chosen by."""
    assert SHARE * (MINUTE_S + SLACK_S) / MINUTE_S + CALL_SHARE <= 1.0


@pytest.mark.parametrize(
    ("requests", "tokens", "most"),
    [
        (None, None, None),
        (3000, None, None),
        (None, 1_000_000, 20_000),
        (3000, 1_000_000, 20_000),
        (3, 10_000, 3333),
        (1, 1, 1),
    ],
)
def test_a_call_is_a_small_part_of_a_minute_unless_few_calls_are_allowed(
    requests: float | None, tokens: float | None, most: int | None
) -> None:
    assert Rates(requests, tokens).call_tokens == most


def test_without_limits_nothing_waits() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.depart(10**6, 5.0)
    assert pace.free_s <= 5.0


def test_calls_are_spread_evenly_and_a_late_one_catches_up() -> None:
    pace = Pace(Rates(requests_per_minute=60 / SHARE))
    pace.depart(1, 100.0)
    assert pace.free_s == pytest.approx(100.5)  # nothing was used for a while: the slack
    pace.depart(1, 100.5)
    pace.depart(1, 101.5)
    assert pace.free_s == pytest.approx(102.5)
    pace.depart(1, 102.7)
    assert pace.free_s == pytest.approx(103.5)


def test_what_was_billed_corrects_the_charge_and_the_estimates_to_come() -> None:
    pace = Pace(Rates(tokens_per_minute=6000 / SHARE))
    charge = pace.depart(200, 0.0)
    assert pace.free_s == pytest.approx(1.5)
    pace.answered(charge, 0.1, 200, billed=100)
    assert pace.free_s == pytest.approx(0.5)
    assert pace.depart(200, 10.0) == Charge(200, 100.0)


def test_what_was_not_sent_after_all_is_not_charged() -> None:
    pace = Pace(Rates(tokens_per_minute=6000 / SHARE))
    pace.answered(pace.depart(200, 0.0), 0.1, 50)
    assert pace.free_s == pytest.approx(0.0)
    pace.answered(pace.depart(200, 10.0), 10.1, 100, billed=50)
    assert pace.free_s == pytest.approx(10.0)
    assert pace.billed(100) == 50


def test_a_call_that_was_not_made_costs_nothing() -> None:
    pace = Pace(Rates(60 / SHARE, 6000 / SHARE))
    before = pace.depart(100, 0.0)
    free_s = pace.free_s
    pace.undo(pace.depart(100, 0.6))
    assert pace.free_s == pytest.approx(free_s)
    pace.ended(before)


def test_what_the_answers_say_is_left_is_not_exceeded() -> None:
    """Case 123: by none of the calls, those on the way included."""
    pace = Pace()
    first, second = pace.depart(100, 0.0), pace.depart(100, 0.0)
    pace.answered(first, 1.0, 100, allowance=Allowance(tokens=Left(250, 30.0)))
    assert pace.free_s == 31.0  # 250 less the 100 that are on the way may be too little for a call
    pace.answered(second, 2.0, 100, allowance=Allowance(tokens=Left(250, 29.0)))
    assert pace.free_s <= 2.0  # it is: they had been counted
    pace.answered(pace.depart(100, 3.0), 4.0, 100, allowance=Allowance(requests=Left(0, 7.0)))
    assert pace.free_s == 11.0


def test_a_station_asks_before_every_call() -> None:
    pace = Pace(Rates(requests_per_minute=60 / SHARE))
    one: Station[int] = Station("embed", BatchLimits(1, linger_s=0.0), 8, lambda: 0.0, pace=pace)
    for item in range(3):
        one.add(item, 1, 0.0)
    departures = []
    for step in range(300):
        while one.depart(step / 100) is not None:
            pace.depart(1, step / 100)
            departures.append(step / 100)
    assert departures == [0.0, 0.5, 1.5]


# --- against limits as providers enforce them ------------------------------------------------------------


@dataclass
class Day:
    """A station at work on a backlog without end, in virtual time."""

    limiter: Limiter
    rates: Rates
    text_tokens: int
    items: int = 64
    concurrency: int = 16
    tells: bool = True
    accepted: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def run(self, minutes: float) -> None:
        rng = random.Random(7)  # noqa: S311
        pace = Pace(self.rates)
        limits = BatchLimits(self.items, self.rates.call_tokens)
        one: Station[int] = Station("embed", limits, self.concurrency, rng.random, pace=pace)
        on_the_way: list[tuple[float, int, Unit[int], Charge, int]] = []
        numbers, now_s = count(), 0.0
        while now_s < minutes * MINUTE_S:
            while one.queued < 2 * self.items:
                tokens = max(1, int(self.text_tokens * rng.uniform(0.5, 1.5)))
                one.add(tokens, int(tokens * rng.uniform(1.1, 1.7)), now_s)
            while (unit := one.depart(now_s)) is not None:
                charge = pace.depart(int(1.4 * sum(unit.items)), now_s)
                arrives_s = now_s + rng.uniform(0.01, 0.05)
                heapq.heappush(on_the_way, (arrives_s, next(numbers), unit, charge, 0))
            due_s = one.due_s()
            times = [due_s] if due_s is not None else []
            times += [on_the_way[0][0]] if on_the_way else []
            now_s = max(now_s, min(times)) + rng.choice((0.0, 0.003, 0.01))  # nobody looks all the time
            while on_the_way and on_the_way[0][0] <= now_s:
                self._arrive(one, pace, rng, heapq.heappop(on_the_way))

    def _arrive(
        self,
        one: Station[int],
        pace: Pace,
        rng: random.Random,
        call: tuple[float, int, Unit[int], Charge, int],
    ) -> None:
        at_s, _, unit, charge, _ = call
        tokens = sum(unit.items)
        admission = self.limiter.admit(tokens, at_s)
        if not admission.allowed:
            self.refused.append(at_s)
            pace.ended(charge)
            asked = admission.retry_after_s if self.tells else None
            one.failed(unit, Failure(Kind.THROTTLED, "rate_limited", retry_after_s=asked), at_s)
            return
        self.accepted.append((at_s, tokens))
        allowance = allowance_of(admission.headers) if self.tells else None
        pace.answered(charge, at_s, charge.estimated, tokens, allowance)
        one.succeeded(unit)

    def used(self, requests: float, tokens: float, since: float, until: float) -> float:
        """Of what was allowed in these minutes, for the limit that was nearest."""
        calls = [tokens for at_s, tokens in self.accepted if since * MINUTE_S <= at_s < until * MINUTE_S]
        return max(len(calls) / requests, sum(calls) / tokens) / (until - since)

    def refused_share(self, since: float) -> float:
        refused = sum(at_s >= since * MINUTE_S for at_s in self.refused)
        accepted = sum(at_s >= since * MINUTE_S for at_s, _ in self.accepted)
        return refused / (refused + accepted)


LIMITS: dict[str, tuple[Callable[[float, float], Limiter], float, float, int]] = {
    "openai, tokens": (Buckets, 3000, 1_000_000, 300),
    "openai, requests": (Buckets, 3000, 1_000_000, 4),
    "voyage, tokens": (MostRecentMinute, 2000, 8_000_000, 2000),
    "voyage, requests": (MostRecentMinute, 2000, 8_000_000, 30),
    "voyage, not paid": (MostRecentMinute, 3, 10_000, 60),
}


@pytest.mark.parametrize("name", LIMITS)
def test_nearly_all_that_is_allowed_is_used_and_hardly_a_call_refused(name: str) -> None:
    """At least 95 % of the allowed rate and fewer than 1 % refused, from the second minute on."""
    limiter, requests, tokens, text_tokens = LIMITS[name]
    items = 64 if text_tokens > 100 or requests < 100 else 8
    day = Day(limiter(requests, tokens), Rates(requests, tokens), text_tokens, items)
    minutes = 6 if requests > 100 else 61
    day.run(minutes)
    assert day.used(requests, tokens, 1, minutes) >= 0.95
    assert day.refused_share(1) < 0.01


@pytest.mark.parametrize("text_tokens", [4, 300])
def test_what_the_answers_tell_is_enough(text_tokens: int) -> None:
    """Without configured limits, the headers alone keep calls from being refused."""
    day = Day(Buckets(3000, 1_000_000), Rates(), text_tokens, items=64 if text_tokens > 100 else 8)
    day.run(6)
    assert day.used(3000, 1_000_000, 1, 6) >= 0.95
    assert day.refused_share(1) < 0.01


def test_a_provider_that_tells_nothing_is_used_all_the_same() -> None:
    """Only refusals show its limits: fewer calls at once, and pauses."""
    day = Day(MostRecentMinute(300, 1_000_000), Rates(), 30, tells=False)
    day.run(11)
    assert day.used(300, 1_000_000, 1, 11) >= 0.8
