"""The service's own pump: what it makes of changes, faults and rebalances."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.pipeline.pump import (
    DOWN,
    FIRST,
    GARBAGE,
    PRODUCTS,
    USERS,
    FaultyStore,
    Log,
    Pump,
    always,
    delete,
    row,
    upsert,
)

from vectide.cache import MemoryCache
from vectide.core import signals
from vectide.core.batcher import BatchLimits
from vectide.core.breaker import BreakerLimits
from vectide.core.budget import memory_of
from vectide.core.failures import Failure, Kind
from vectide.core.lifecycle import State
from vectide.core.model import Change, Ignored, Row
from vectide.core.pace import Rates
from vectide.embedders.hashing import expected_vector
from vectide.ports import EmbedderLimits, Patch, Put, Write
from vectide.testing.embedding_limits import MostRecentMinute
from vectide.testing.fold import Fold
from vectide.testing.store import CAPABILITIES

SECOND = (PRODUCTS.source, 1)
PEOPLE = (USERS.source, 0)
TIMEOUT = Failure(Kind.TRANSIENT, "timeout")
ONE_CALL_OF_TEN: dict[str, Any] = {"embedding": {"batch": BatchLimits(items=10), "concurrency": 1}}


def log_of(*changes: Change | None) -> Log:
    log = Log()
    log.append(*changes)
    return log


def done(*changes: Change | None) -> Pump:
    """A pump that has settled these changes."""
    pump = Pump(log_of(*changes))
    pump.run()
    return pump


def rows(*keys: int) -> set[Row]:
    return {row(key) for key in keys}


def once(fault: Failure, call: str) -> Callable[[str, str], Failure | None]:
    """Fails the first call of this name."""
    left = [fault]
    return lambda name, collection: left.pop() if name == call and left else None


# --- what is embedded and what is not -------------------------------------------------------------------


def test_a_metadata_only_change_makes_no_embedding_call() -> None:
    """Case 12, invariant 7."""
    pump = done(upsert(1, "lamp"))
    before = pump.store.points()[row(1)]
    pump.log.append(upsert(1, "lamp", price=2))
    pump.run()
    after = pump.store.points()[row(1)]
    assert pump.provider.calls == [["lamp"]]
    assert after.metadata == {"price": 2}
    assert before.vector is not None
    assert after.vector is not None
    assert (after.vector == before.vector).all()
    assert isinstance(pump.store.writes[-1], Patch)
    assert pump.count(signals.TEXTS_SAVED, "products", "unchanged") == 1


def test_a_full_replay_changes_nothing_and_embeds_nothing_that_is_stored() -> None:
    """Case 62, invariants 7 and 14: only the texts of rows that are gone may be bought on the way."""
    changes = [upsert(key, f"text {key} {version}") for version in range(3) for key in range(40)]
    first = done(*changes, delete(3), upsert(4, "last", price=9), upsert(5, "born again"), delete(6))
    state = first.store.points()
    first.log.committed.clear()
    again = Pump(first.log, store=first.store)
    again.run()
    assert [str(point) for point in again.store.points().values()] == [str(each) for each in state.values()]
    stored = {point.text for point in state.values()}
    assert stored.isdisjoint(again.provider.sold)
    assert {text.split()[1] for text in again.provider.sold} <= {"3", "6"}
    assert again.count(signals.TEXTS_SAVED, "products", "replay") > 0


def test_another_model_behind_the_same_name_goes_unnoticed_and_every_point_names_its_space() -> None:
    """Case 140: of a text that is stored the provider is not asked what it would make of it today."""
    pump = done(upsert(1, "lamp"), upsert(2, "chair"))
    pump.log.append(upsert(1, "lamp", price=2), upsert(2, "chair"))
    later = Pump(pump.log, store=pump.store)
    later.run()
    assert later.provider.tries == 0
    stamps = [point.stamp for point in later.store.points().values()]
    assert [stamp and stamp.space for stamp in stamps] == [later.provider.space] * 2


@pytest.mark.parametrize("ahead_ms", [-5_000, 0, 10**15])
def test_freshness_is_never_negative(ahead_ms: int) -> None:
    """Case 66: not for a source whose clock is ahead."""
    pump = Pump(log_of())
    pump.log.append(replace(upsert(1, "lamp"), committed_ms=pump.clock.wall_ms() + ahead_ms))
    pump.run()
    (age_s,) = pump.telemetry.observed[signals.FRESHNESS, PRODUCTS.table]
    assert max(0, -ahead_ms) / 1000 <= age_s < 6


def test_duplicated_events_are_applied_once() -> None:
    """Case 63, invariant 7: at another offset each, as a connector that restarted sends them."""
    changes: list[Change] = [
        upsert(1, "lamp"),
        upsert(2, "chair"),
        upsert(1, "lamp", price=2),
        delete(2),
    ]
    pump = done(*changes, *changes[2:], *changes[2:])
    assert set(pump.store.points()) == rows(1)
    assert pump.store.points()[row(1)].metadata == {"price": 2}
    assert pump.provider.sold in (["lamp"], ["lamp", "chair"])
    assert pump.received == pump.settled("written") + pump.settled("deleted") + pump.settled("skipped") == 8


def test_changes_of_one_row_that_wait_together_cost_one_embedding() -> None:
    """Case 55."""
    pump = done(*(upsert(1, f"version {version}") for version in range(4)))
    assert pump.provider.sold == ["version 3"]
    assert pump.store.texts() == {row(1): "version 3"}
    assert (pump.settled("written"), pump.count(signals.CHANGES_SKIPPED, "products", "superseded")) == (1, 3)


def test_a_row_that_is_gone_before_it_was_looked_up_is_never_embedded() -> None:
    """Case 56."""
    pump = done(upsert(1, "lamp"), delete(1))
    assert (pump.provider.calls, pump.store.points()) == ([], {})


def test_a_row_that_is_deleted_and_inserted_again_has_its_new_text() -> None:
    """Case 57."""
    pump = done(upsert(1, "lamp"))
    pump.log.append(delete(1), upsert(1, "new lamp"))
    pump.run()
    assert pump.store.texts() == {row(1): "new lamp"}


def test_a_hot_key_is_coalesced_and_starves_nobody() -> None:
    """Case 68: 10,000 updates of one row, another row after each hundred, a provider that takes its time."""
    log = Log()
    for number in range(10_000):
        log.append(upsert(0, f"version {number}"))
        if number % 100 == 99:
            log.append(upsert(1 + number // 100, f"other {number // 100}"))
    pump = Pump(log)
    pump.executor.takes_s = {"embed": 0.02, "write": 0.002, "lookup": 0.002}
    ends_s: dict[Row, float] = {}

    def note(writes: Sequence[Write]) -> None:
        ends_s.update({write.point.row: pump.clock.now_s for write in writes if isinstance(write, Put)})

    pump.store.before_write = note
    start_s = pump.clock.now_s
    pump.run()
    assert pump.store.texts()[row(0)] == "version 9999"
    assert len(pump.store.points()) == 101
    hot = sum(text.startswith("version") for text in pump.provider.sold)
    assert 1 <= hot <= 100
    assert pump.count(signals.TEXTS_SAVED, "products", "merged") == 10_000 - hot
    # 50 records a poll, a millisecond a poll: others wait for a few calls, not for the end of the flood.
    late_s = [ends_s[row(key)] - start_s - key * 101 / 50 * 0.001 for key in range(1, 101)]
    assert max(late_s) < 0.2


def test_the_same_text_in_many_rows_is_sent_once_and_written_to_all() -> None:
    """Case 139."""
    pump = Pump(log_of(*(upsert(key, "the same") for key in range(100))))
    pump.executor.takes_s["embed"] = 0.1
    pump.run()
    assert pump.provider.calls == [["the same"]]
    assert pump.store.texts() == {row(key): "the same" for key in range(100)}
    assert pump.count(signals.TEXTS_SAVED, "products", "duplicate") == 99


def test_the_limits_of_the_provider_are_used_up_and_kept() -> None:
    """At least 95 % of the allowed calls, fewer than 1 % refused; texts of all tables fill them together."""
    allowed, minutes = 150, 2
    keys = range(8 * allowed * minutes // 2)
    log = log_of(*(upsert(key, f"lamp {key}") for key in keys))
    log.append(*(upsert(key, f"user {key}") for key in keys), to=PEOPLE)
    called = {"batch": BatchLimits(items=8), "rates": Rates(allowed, 100_000)}
    pump = Pump(log, embedding=called, busy_wait_s=0.02)
    pump.executor.takes_s = {"embed": 0.2, "write": 0.005, "lookup": 0.005}
    limiter = MostRecentMinute(allowed, 100_000)

    def refusal(texts: Sequence[str]) -> Failure | None:
        admission = limiter.admit(sum(map(pump.provider.count_tokens, texts)), pump.clock.now_s)
        return None if admission.allowed else Failure(Kind.THROTTLED, "rate_limited")

    pump.provider.fault = refusal
    pump.run_for(60 * minutes)
    assert len(pump.provider.calls) >= 0.95 * allowed * minutes
    assert pump.provider.tries - len(pump.provider.calls) < 0.01 * pump.provider.tries
    assert sum(len(call) == 8 for call in pump.provider.calls) > 0.99 * len(pump.provider.calls)
    assert any(len({text.split()[0] for text in call}) == 2 for call in pump.provider.calls)
    assert pump.telemetry.gauges[signals.EMBED_ALLOWED, "models"] == 8
    assert 0 < pump.telemetry.gauges[signals.EMBED_HELD, "models"] < 0.5


def test_tokens_and_their_cost_are_counted_for_each_table_and_what_was_saved_too() -> None:
    log = log_of(upsert(1, "one two three"), upsert(2, "four"))
    log.append(upsert(1, "five six"), to=PEOPLE)
    pump = Pump(log, embedding={"usd_per_million_tokens": 0.5})
    pump.run()
    sums = pump.telemetry.sums
    for table, tokens in (("products", 4), ("users", 2)):
        assert sums[signals.EMBED_TOKENS, "models", table] == pytest.approx(tokens)
        assert sums[signals.EMBED_COST, "models", table] == pytest.approx(tokens * 0.5 / 1e6)
    log.append(upsert(1, "one two three"), upsert(2, "four", price=2))
    log.append(upsert(3, "another"), upsert(3, "and another"), upsert(4, "and another"))
    pump.run()
    pump.run_for(1.1)
    assert {
        reason: sums[signals.TOKENS_SAVED, "products", reason]
        for reason in ("unchanged", "merged", "duplicate")
    } == {
        "unchanged": (13 + 4) / 4,
        "merged": 7 / 4,
        "duplicate": 2,
    }
    assert sums[signals.COST_SAVED, "products", "duplicate"] == pytest.approx(2 * 0.5 / 1e6)


def test_a_text_that_comes_back_is_not_paid_for_again() -> None:
    """With the cache: only what is new is sent, charged and counted."""
    pump = Pump(log_of(upsert(1, "one lamp")), cache=MemoryCache(2**20))
    pump.run()
    pump.log.append(upsert(1, "chair"))
    pump.run()
    pump.log.append(upsert(1, "one lamp"), upsert(2, "two tables"))
    pump.run()
    assert pump.provider.sold == ["one lamp", "chair", "two tables"]
    assert pump.store.texts() == {row(1): "one lamp", row(2): "two tables"}
    vector = pump.store.points()[row(1)].vector
    assert vector is not None
    assert (vector == expected_vector("one lamp", len(vector))).all()
    assert pump.count(signals.TEXTS_EMBEDDED, "products") == 3
    assert pump.count(signals.EMBED_TOKENS, "models", "products") == 5
    assert pump.count(signals.TEXTS_SAVED, "products", "cache") == 1
    pump.run_for(1.1)
    assert pump.telemetry.sums[signals.TOKENS_SAVED, "products", "cache"] == pytest.approx(2)


def test_what_the_cache_has_needs_no_provider() -> None:
    """And says nothing of how that fares: a station that waits for it goes on waiting."""
    pump = Pump(log_of(upsert(1, "lamp")), cache=MemoryCache(2**20), embedding={"concurrency": 1})
    pump.run()
    pump.provider.fault = always(DOWN)
    pump.log.append(upsert(2, "lamp"))
    pump.run()
    assert pump.store.texts()[row(2)] == "lamp"
    assert pump.provider.tries == 1
    pump.log.append(*(upsert(key, f"chair {key}") for key in range(3, 6)))
    pump.run_for(5)
    pump.log.append(upsert(6, "lamp"))
    pump.run_for(5)
    assert pump.stream.status.state is State.WAITING
    pump.provider.fault = None
    pump.run()
    assert sorted(pump.provider.sold) == ["chair 3", "chair 4", "chair 5", "lamp"]


def test_what_has_no_price_has_no_cost() -> None:
    pump = Pump(log_of(upsert(1, "lamp"), upsert(1, "lamp")))
    pump.run()
    pump.run_for(1.1)
    assert pump.count(signals.EMBED_TOKENS) == 1
    assert not {signals.EMBED_COST, signals.COST_SAVED} & {name for name, *_ in pump.telemetry.sums}


# --- order within a row ---------------------------------------------------------------------------------


def test_metadata_behind_a_pending_embedding_of_the_row_is_not_overwritten() -> None:
    """Case 60, invariant 3."""
    pump = Pump(log_of(upsert(1, "lamp", price=1)))
    pump.executor.held.add("embed")
    pump.steps(20)
    pump.log.append(upsert(1, "lamp", price=2))
    pump.steps(20)
    assert (pump.received, pump.settled("written")) == (2, 0)
    pump.executor.held.clear()
    pump.run()
    assert pump.store.points()[row(1)].metadata == {"price": 2}
    assert pump.provider.sold == ["lamp"]


def test_a_slow_embedding_does_not_revive_a_deleted_row() -> None:
    """Case 56, invariant 3: the delete waits for what is in flight of its own row."""
    pump = Pump(log_of(upsert(1, "lamp")))
    pump.executor.held.add("embed")
    pump.steps(20)
    pump.log.append(delete(1))
    pump.steps(20)
    pump.executor.held.clear()
    pump.run()
    assert pump.store.points() == {}
    assert (pump.settled("written"), pump.settled("deleted")) == (1, 1)


def test_a_patch_that_meets_no_point_becomes_a_full_embedding() -> None:
    """Case 61: the point vanished between the look-up and the write."""
    pump = done(upsert(1, "lamp"))

    def vanish(writes: Sequence[Write]) -> None:
        pump.store.before_write = lambda writes: None
        pump.store.remove(row(1))

    pump.store.before_write = vanish
    pump.log.append(upsert(1, "lamp", price=2))
    pump.run()
    assert pump.provider.sold == ["lamp", "lamp"]
    assert pump.store.points()[row(1)].metadata == {"price": 2}


def test_an_update_that_meets_no_point_is_looked_up_again_and_inserted() -> None:
    """Case 61: for a new text too."""
    pump = done(upsert(1, "lamp"))

    def vanish(writes: Sequence[Write]) -> None:
        pump.store.before_write = lambda writes: None
        pump.store.remove(row(1))

    pump.store.before_write = vanish
    pump.log.append(upsert(1, "desk lamp"))
    pump.run()
    assert pump.store.texts() == {row(1): "desk lamp"}
    assert pump.settled("written") == 2


# --- commits --------------------------------------------------------------------------------------------


def test_a_topic_of_skipped_records_advances_to_its_end() -> None:
    """Case 31."""
    pump = done(*[Ignored("heartbeat")] * 500, *(delete(key) for key in range(100)))
    assert pump.committed() == 600
    assert pump.settled("skipped") == 600
    pump.run_for(2)
    assert pump.telemetry.gauges[(signals.LAG, *map(str, FIRST))] == 0


def test_commits_pass_holes_and_the_marker_at_the_end() -> None:
    """Case 117."""
    log = Log()
    log.append(upsert(1, "lamp"), upsert(2, "chair"), hole=3)
    pump = Pump(log)
    pump.run()
    assert pump.committed() == 8


def test_the_offset_waits_for_an_earlier_record_in_flight() -> None:
    """Invariant 1."""
    pump = Pump(log_of(upsert(1, "slow")))
    pump.executor.takes_s["embed"] = 0.01
    pump.until(lambda: pump.executor.pending("embed"), "a call in flight")
    pump.executor.freeze()
    pump.log.append(*(upsert(key, f"text {key}") for key in range(2, 50)))
    pump.until(lambda: pump.settled("written") == 48, "the others to be written")
    pump.run_for(5)
    assert pump.committed() == 0
    pump.executor.thaw()
    pump.run()
    assert pump.committed() == 49


# --- poison ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("culprits", [{50}, {0, 99}])
def test_poison_among_a_hundred_texts_is_dead_lettered_and_the_rest_is_written(culprits: set[int]) -> None:
    """Case 97, invariant 10."""
    poison = {f"text {key}" for key in culprits}
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(100))))
    refusal = Failure(Kind.REFUSED, "bad_request")
    pump.provider.fault = lambda texts: None if poison.isdisjoint(texts) else refusal
    pump.run()
    assert set(pump.store.points()) == rows(*set(range(100)) - culprits)
    assert {letter.record.offset for letter in pump.letters.letters} == culprits
    assert {(letter.cause, letter.stage) for letter in pump.letters.letters} == {("bad_request", "embed")}
    assert sorted(pump.provider.sold) == sorted({f"text {key}" for key in range(100)} - poison)


def test_a_point_that_the_store_refuses_does_not_fail_its_neighbours() -> None:
    """Cases 97 and 143, invariant 10."""
    pump = Pump(log_of(*(upsert(key, f"text {key}", price=key) for key in range(100))))
    tried: list[int] = []

    def refuse(writes: Sequence[Write]) -> Failure | None:
        if all(isinstance(write, Put) and write.point.metadata["price"] != 7 for write in writes):
            return None
        tried.append(len(writes))
        return Failure(Kind.REFUSED, "bad_value")

    pump.store.refusal = refuse
    pump.run()
    assert set(pump.store.points()) == rows(*set(range(100)) - {7})
    assert [letter.record.offset for letter in pump.letters.letters] == [7]
    assert tried[-1] == 1


def test_a_text_that_always_fails_holds_up_the_others_of_the_only_batch_for_a_while() -> None:
    """Invariant 10: it is condemned when there is enough beside it that succeeds, and not before."""
    log = log_of(*(upsert(key, f"text {key}") for key in range(16)))
    pump = Pump(log)
    broken = Failure(Kind.TRANSIENT, "server_error")
    pump.provider.fault = lambda texts: broken if "text 7" in texts else None
    pump.until(lambda: len(pump.store.points()) == 15, "its neighbours")
    pump.run_for(600)
    assert pump.letters.letters == []
    for key in range(100, 400):
        log.append(upsert(key, f"text {key}"))
        pump.run_for(5)
    assert [letter.record.offset for letter in pump.letters.letters] == [7]
    assert pump.letters.letters[0].cause == "server_error"


def test_the_offset_of_a_poison_record_waits_for_the_dead_letter_topic() -> None:
    """Case 157, invariants 2 and 10: later records are written meanwhile."""
    pump = Pump(log_of(upsert(1, "lamp"), GARBAGE, upsert(2, "chair")))
    pump.letters.fault = TIMEOUT
    pump.run_for(120)
    assert (pump.committed(), pump.settled("dead_lettered")) == (1, 0)
    assert set(pump.store.points()) == rows(1, 2)
    assert (pump.stream.status.state, pump.stream.status.reason) == (State.WAITING, "dead_letter: timeout")
    pump.letters.fault = None
    pump.run()
    assert [letter.record.offset for letter in pump.letters.letters] == [1]


def test_a_dead_letter_topic_that_refuses_halts_and_loses_nothing() -> None:
    """Case 157."""
    pump = Pump(log_of(GARBAGE, upsert(2, "chair")))
    pump.letters.fault = Failure(Kind.REFUSED, "too_large")
    pump.run_for(120)
    assert (pump.committed(), pump.stream.status.state) == (0, State.HALTED)
    pump.letters.fault = None
    pump.run()
    assert len(pump.letters.letters) == 1


def test_a_flood_of_poison_halts_its_table_alone_and_it_goes_on_when_cured() -> None:
    """Invariants 10 and 11: misconfiguration, not bad luck; what was not sent is read again."""
    log = log_of(*[GARBAGE] * 100)
    log.append(*(upsert(key, f"person {key}") for key in range(20)), to=PEOPLE)
    pump = Pump(log, breaker=BreakerLimits(in_a_row=5), halt_probe_s=60.0)
    pump.until(lambda: pump.stream.status.state is State.HALTED, "the halt")
    assert pump.stream.status.reason == "table products: too many dead letters (not_json)"
    pump.until(lambda: pump.committed(PEOPLE) == 20, "the other table")
    pump.run_for(30)
    sent = {letter.record.offset for letter in pump.letters.letters}
    assert len(sent) == 5
    assert pump.settled("dead_lettered") == pump.committed() == 5
    assert FIRST in pump.source.paused
    assert pump.stream.intake.budget.held_records == 0
    log.append(*(upsert(key, f"person {key}") for key in range(20, 40)), to=PEOPLE)
    pump.until(lambda: pump.committed(PEOPLE) == 40, "the other table again")
    for offset in range(100):
        log.changes[(*FIRST, offset)] = upsert(offset, f"text {offset}")
    pump.run()
    assert set(pump.store.points()) == rows(*set(range(100)) - sent)
    pump.run_for(2)
    assert pump.stream.status.state is State.RUNNING


def test_a_flood_that_goes_on_sends_only_a_few_letters_at_each_probe() -> None:
    pump = Pump(log_of(*[GARBAGE] * 1000), breaker=BreakerLimits(in_a_row=5), halt_probe_s=60.0)
    """All that it lets pass are sent and counted: so it is worked off, slowly."""
    pump.run_for(600)
    assert len(pump.letters.letters) in range(5 + 8 * 3, 5 + 10 * 3 + 1)
    assert pump.settled("dead_lettered") == len(pump.letters.letters)
    assert pump.stream.status.state is State.HALTED


def test_a_flood_whose_letters_cannot_be_sent_halts_its_table_when_they_can() -> None:
    """Case 157: until then nothing of them counts as done."""
    pump = Pump(log_of(*[GARBAGE] * 20), breaker=BreakerLimits(in_a_row=5), halt_probe_s=60.0)
    pump.letters.fault = TIMEOUT
    pump.run_for(60)
    assert (pump.committed(), pump.settled("dead_lettered"), pump.stream.status.state) == (
        0,
        0,
        State.WAITING,
    )
    pump.letters.fault = None
    pump.until(lambda: pump.stream.status.state is State.HALTED, "the halt")
    assert pump.settled("dead_lettered") == len(pump.letters.letters) == 5


def test_a_new_topic_that_several_tables_take_in_halts_alone_and_fills_none() -> None:
    """Regular expressions may overlap in a topic that nobody knew at the start."""
    wide, narrow = replace(PRODUCTS, source="^shop[.]"), replace(USERS, source="^shop[.]public[.]u")
    log = log_of(upsert(1, "lamp"))
    pump = Pump(log, tables=(wide, narrow), halt_probe_s=60.0)
    pump.run()
    log.append(upsert(2, "Ann"), to=PEOPLE)
    pump.source.next_poll.append(lambda: pump.source.assign(PEOPLE))
    pump.until(lambda: pump.stream.status.state is State.HALTED, "the halt")
    assert pump.stream.status.reason == (
        f"table products: several tables take in the topic {USERS.source}: products, users"
    )
    log.append(upsert(3, "chair"))
    pump.run_for(300)
    assert (pump.committed(), pump.committed(PEOPLE)) == (2, 0)
    assert set(pump.store.points()) == rows(1, 3)
    assert pump.store.points(narrow) == {}
    assert pump.stream.status.state is State.HALTED


# --- the environment fails ------------------------------------------------------------------------------


def test_a_stuck_provider_stops_the_intake_at_the_budget_and_polling_goes_on() -> None:
    """Case 125, invariant 11."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(2000))), records_in_flight=200)
    pump.executor.held.add("embed")
    pump.run_for(30)
    polls, beat_s = pump.source.polls, pump.stream.beat_s
    pump.steps(100)
    assert pump.received <= 200
    assert FIRST in pump.source.paused
    assert (pump.source.polls, pump.stream.beat_s > beat_s) == (polls + 100, True)
    pump.executor.held.clear()
    pump.run()
    assert len(pump.store.points()) == 2000


def test_bytes_bound_the_intake_as_well() -> None:
    """Invariant 11: at most one poll more than the budget."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(2000))), bytes_in_flight=600_000)
    pump.executor.held.add("embed")
    pump.run_for(5)
    assert 600_000 <= pump.stream.intake.budget.held_bytes < 600_000 + 50 * memory_of(303)


def test_large_messages_and_deep_fetches_take_the_memory_that_is_set_and_one_poll() -> None:
    """Case 172, invariant 11: however much is read ahead, and however much may be in flight."""
    large, poll_records, limit = b"v" * 1_000_000, 20, 100 * 2**20
    log = Log()
    log.append(*(upsert(key, f"text {key}") for key in range(400)), value=large)
    pump = Pump(log, bytes_in_flight=limit, poll_records=poll_records, busy_wait_s=0.05)
    pump.executor.takes_s = {"lookup": 0.5, "embed": 2.0, "write": 5.0}
    most = 0

    def is_written() -> bool:
        nonlocal most
        most = max(most, pump.in_flight * memory_of(len(large)))
        return pump.settled("written") == 400

    pump.until(is_written, "everything to be written")
    assert limit <= most <= limit + poll_records * memory_of(len(large) + len(b"key"))


def test_a_store_that_takes_ten_seconds_for_a_write_holds_up_the_intake_and_nothing_grows() -> None:
    """Case 150, invariant 11: neither records, nor texts that are paid for and not stored."""
    batch, writes, calls = 10, 2, 4
    pump = Pump(
        log_of(*(upsert(key, f"text {key}") for key in range(1000))),
        records_in_flight=200,
        embedding={"batch": BatchLimits(items=batch), "concurrency": calls},
        storing={"write": BatchLimits(items=batch), "write_concurrency": writes},
        busy_wait_s=0.05,
    )
    pump.executor.takes_s["write"] = 10.0
    behind: list[int] = []

    def is_written() -> bool:
        behind.append(pump.provider.tries * batch - pump.settled("written"))
        assert pump.in_flight <= 200
        return pump.settled("written") == 1000

    pump.until(is_written, "everything to be written")
    assert pump.clock.now_s - 1000 >= 1000 / batch / writes * 10
    # Those being written, the batch behind them, and the calls that were on the way when it was full.
    assert max(behind) <= batch * (writes + 1 + calls)
    pump.run()
    assert len(pump.provider.sold) == len(pump.store.points()) == 1000


@pytest.mark.parametrize(("items", "weight"), [(500, None), (500, 100_000), (3, None), (500, 7)])
def test_no_call_is_larger_than_the_provider_or_the_settings_allow(items: int, weight: int | None) -> None:
    """Case 137: whichever allows less."""
    pump = Pump(
        log_of(*(upsert(key, f"{'long ' * (key % 5)}text {key}") for key in range(100))),
        limits=EmbedderLimits(max_items=4, max_tokens=12),
        embedding={"batch": BatchLimits(items=items, weight=weight)},
    )
    pump.run()
    most, heaviest = min(items, 4), min(weight or 12, 12)
    tokens = [sum(map(pump.provider.count_tokens, call)) for call in pump.provider.calls]
    assert max(len(call) for call in pump.provider.calls) <= most
    assert all(
        weighs <= heaviest or len(call) == 1 for call, weighs in zip(pump.provider.calls, tokens, strict=True)
    )
    assert len(pump.provider.sold) == 100


def test_no_call_has_more_rows_than_the_store_takes() -> None:
    """Case 137 for the store."""
    store = FaultyStore(PRODUCTS, USERS, able=replace(CAPABILITIES, max_batch_items=5))
    written: list[int] = []
    store.before_write = lambda writes: written.append(len(writes))
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(100))), store=store)
    pump.run()
    assert max(written) == max(store.looked_up) == 5
    assert sum(written) == sum(store.looked_up) == 100


def test_five_minutes_without_a_provider_cost_nothing_but_time() -> None:
    """Case 125, invariants 10 and 11."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(2000))), records_in_flight=200)
    pump.provider.fault = always(DOWN)
    pump.run_for(300)
    assert (pump.received <= 200, pump.letters.letters) == (True, [])
    assert pump.provider.tries < 100
    assert pump.telemetry.gauges[(signals.LAG, *map(str, FIRST))] == 2000
    assert (pump.stream.status.state, pump.stream.status.reason) == (State.WAITING, "embed: server_error")
    pump.provider.fault = None
    pump.run()
    assert (len(pump.store.points()), pump.letters.letters) == (2000, [])
    assert Counter(pump.provider.sold).most_common(1)[0][1] == 1


def test_all_calls_wait_as_long_as_the_provider_asked() -> None:
    """Case 123."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(640))))
    pump.provider.fault = always(Failure(Kind.THROTTLED, "rate_limited", retry_after_s=7))
    pump.until(lambda: pump.provider.tries, "the first calls")
    tries, asked_s = pump.provider.tries, pump.clock.now_s
    pump.provider.fault = None
    pump.until(lambda: pump.provider.calls, "the next call")
    assert pump.clock.now_s >= asked_s + 7
    assert tries <= 8  # those that were in flight together
    pump.run()


def test_deletes_and_metadata_of_other_rows_pass_while_the_provider_is_down() -> None:
    pump = done(*(upsert(key, f"text {key}") for key in (1, 2, 3)))
    pump.provider.fault = always(DOWN)
    pump.log.append(upsert(1, "new text"), delete(2), upsert(3, "text 3", price=2))
    pump.run_for(60)
    assert set(pump.store.points()) == rows(1, 3)
    assert pump.store.points()[row(3)].metadata == {"price": 2}
    assert pump.store.texts()[row(1)] == "text 1"
    assert pump.committed() == 3
    pump.provider.fault = None
    pump.run()


def test_what_is_paid_for_is_kept_while_the_store_is_down() -> None:
    """Case 141, invariants 7 and 11."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(500))), records_in_flight=100)
    pump.store.fault = lambda call, collection: TIMEOUT if pump.provider.calls else None
    pump.run_for(300)
    assert pump.provider.calls
    assert (pump.store.points(), pump.committed(), pump.letters.letters) == ({}, 0, [])
    assert pump.received <= 100
    assert pump.stream.status.state is State.WAITING
    pump.store.fault = lambda call, collection: None
    pump.run()
    assert sorted(pump.provider.sold) == sorted(f"text {key}" for key in range(500))
    assert len(pump.store.points()) == 500


def test_a_write_whose_answer_is_lost_is_repeated_without_harm() -> None:
    """Case 145, invariant 14: an insert, a patch and a delete."""
    pump = Pump(log_of())
    steps: list[tuple[Change, dict[Row, dict[str, int]]]] = [
        (upsert(1, "lamp"), {row(1): {"price": 1}}),
        (upsert(1, "lamp", price=2), {row(1): {"price": 2}}),
        (delete(1), {}),
    ]
    for change, points in steps:
        pump.store.answer_lost = once(TIMEOUT, "write")
        writes = len(pump.store.writes)
        pump.log.append(change)
        pump.run()
        assert {key: point.metadata for key, point in pump.store.points().items()} == points
        assert len(pump.store.writes) == writes + 2
    assert pump.provider.sold == ["lamp"]
    assert (pump.settled("written"), pump.settled("deleted"), pump.received) == (2, 1, 3)


def test_an_operators_trouble_halts_everything_until_it_is_solved() -> None:
    """Invariant 10: nothing is dead-lettered or skipped."""
    pump = Pump(log_of(upsert(1, "lamp")))
    pump.provider.fault = always(Failure(Kind.OPERATOR, "quota_exhausted"))
    pump.run_for(120)
    assert (pump.stream.status.state, pump.stream.status.reason) == (State.HALTED, "embed: quota_exhausted")
    assert (pump.provider.tries <= 5, pump.letters.letters, pump.committed()) == (True, [], 0)
    pump.provider.fault = None
    pump.run()
    assert set(pump.store.points()) == rows(1)


# --- rebalances -----------------------------------------------------------------------------------------


def test_a_revoked_partition_is_drained_committed_and_its_rest_left_to_the_next_owner() -> None:
    """Case 105, invariant 7: what is in flight is finished, what nobody has paid for is not begun."""
    log = log_of(*(upsert(key, f"text {key}") for key in range(200)))
    log.append(*(upsert(key, f"text {key}") for key in range(200, 300)), to=SECOND)
    pump = Pump(log, **ONE_CALL_OF_TEN)
    pump.executor.takes_s = {"embed": 1.0, "write": 0.1}
    pump.until(lambda: pump.received == 300 and pump.committed() >= 20, "some progress")
    bought = len(pump.provider.sold)
    pump.source.next_poll.append(lambda: pump.source.revoke(FIRST))
    pump.step()
    drained = len(pump.provider.sold)
    assert drained <= bought + 10
    assert pump.committed() == len([key for key in pump.store.points() if key in rows(*range(200))])
    assert pump.count(signals.RECORDS_FORGOTTEN, PRODUCTS.source) == 200 - pump.committed()
    assert set(pump.stream.lanes) == {SECOND}
    assert pump.count(signals.RESULTS_DROPPED) == 0
    pump.until(lambda: pump.committed(SECOND) == 100, "the other partition")
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run()
    assert sorted(pump.provider.sold) == sorted(f"text {key}" for key in range(300))


def test_what_does_not_finish_in_time_is_left_too() -> None:
    """Case 105, invariants 1 and 4: the group does not wait for ever, and a late result is dropped."""
    pump = Pump(log_of(upsert(1, "lamp")), revoke_drain_s=5.0)
    pump.executor.held.add("embed")
    pump.steps(20)
    start_s = pump.clock.now_s
    pump.source.next_poll.append(lambda: pump.source.revoke(FIRST))
    pump.step()
    assert 5 <= pump.clock.now_s - start_s < 6
    pump.executor.held.clear()
    pump.run_for(1)
    assert (pump.store.points(), pump.committed(), pump.count(signals.RESULTS_DROPPED, "embed")) == ({}, 0, 1)


@pytest.mark.parametrize("pool", ["lookup", "embed", "write"])
def test_results_of_a_lost_partition_are_dropped(pool: str) -> None:
    """Case 105, invariant 4: neither written nor committed by us; whoever has it now starts anew."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(10))))
    pump.executor.held.add(pool)
    pump.steps(50)
    assert pump.in_flight == 10
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    assert (pump.in_flight, pump.stream.intake.budget.held_bytes) == (0, 0)
    pump.executor.held.clear()
    pump.run_for(1)
    assert (pump.store.points(), pump.committed()) == ({}, 0)
    assert pump.count(signals.RESULTS_DROPPED, pool) == 10
    assert pump.count(signals.RECORDS_FORGOTTEN) == 10
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run()
    assert len(pump.store.points()) == 10


@pytest.mark.parametrize(("pool", "stored"), [("lookup", 0), ("embed", 0), ("write", 10)])
def test_answers_that_come_after_the_partition_was_lost_are_dropped(pool: str, stored: int) -> None:
    """Case 105, invariant 4: the call took effect, its answer counts for nobody; the replay tells."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(10))))
    pump.executor.answers_held.add(pool)
    pump.steps(50)
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    pump.executor.answers_held.clear()
    pump.run_for(1)
    assert (len(pump.store.points()), pump.committed(), pump.settled("written")) == (stored, 0, 0)
    assert pump.count(signals.RESULTS_DROPPED, pool) == 10
    assert pump.stream.stations.calls == 0
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run()
    assert len(pump.store.points()) == 10


def test_a_text_that_was_not_sent_for_a_lost_partition_is_sent_for_who_joined_the_wait() -> None:
    """Invariant 4: the worker found nobody who wanted it; before it could say so, somebody did."""
    log = log_of(upsert(1, "the same"))
    log.append(Ignored("heartbeat"), to=SECOND)
    pump = Pump(log)
    pump.executor.held.add("embed")
    pump.until(lambda: pump.executor.pending("embed"), "the text to be on its way")
    pump.source.next_poll.append(lambda: pump.source.lose(FIRST))
    pump.step()
    pump.executor.take_effect("embed")
    log.append(upsert(2, "the same"), to=SECOND)
    pump.steps(20)
    pump.executor.held.clear()
    pump.until(lambda: pump.committed(SECOND) == 2, "the other partition's row to be written", steps=2000)
    assert pump.provider.sold == ["the same"]
    assert pump.store.texts() == {row(2): "the same"}
    pump.source.next_poll.append(lambda: pump.source.assign(FIRST))
    pump.run()
    assert pump.store.texts() == {row(1): "the same", row(2): "the same"}


def test_stopping_finishes_what_is_paid_for_and_leaves_the_rest() -> None:
    """Case 166, invariant 1."""
    pump = Pump(log_of(*(upsert(key, f"text {key}") for key in range(100))), **ONE_CALL_OF_TEN)
    pump.executor.takes_s = {"embed": 1.0}
    pump.until(lambda: pump.received == 100 and pump.executor.pending("embed"), "a call in flight")
    pump.stream.stop()
    pump.until(lambda: pump.stream.finished, "the end")
    assert pump.provider.sold == [f"text {key}" for key in range(10)]
    assert set(pump.store.points()) == rows(*range(10))
    assert pump.committed() == 10
    assert ("stopped", {"drained": True, "replayed_later": 90}) in pump.events.lines
    heir = Pump(pump.log, store=pump.store)
    heir.run()
    assert sorted(heir.provider.sold) == sorted(f"text {key}" for key in range(10, 100))


def test_stopping_gives_up_on_what_never_returns() -> None:
    pump = Pump(log_of(upsert(1, "lamp")), grace_s=20.0)
    pump.executor.held.add("embed")
    pump.steps(20)
    start_s = pump.clock.now_s
    pump.stream.stop()
    pump.until(lambda: pump.stream.finished, "the end")
    assert 15 <= pump.clock.now_s - start_s < 16
    assert pump.committed() == 0
    assert ("stopped", {"drained": False, "replayed_later": 1}) in pump.events.lines


# --- everything at once ---------------------------------------------------------------------------------


def _storm(pump: Pump, rng: random.Random) -> None:
    """Faults of every kind, and partitions that come and go."""
    flaky = [DOWN, Failure(Kind.INVALID, "count"), Failure(Kind.THROTTLED, "rate_limited", retry_after_s=0.1)]
    refusal = Failure(Kind.REFUSED, "bad_request")

    def fault(texts: Sequence[str]) -> Failure | None:
        if any("poison" in text for text in texts):
            return refusal
        return rng.choice(flaky) if rng.random() < 0.2 else None

    pump.provider.fault = fault
    pump.store.fault = lambda call, collection: TIMEOUT if rng.random() < 0.1 else None
    pump.store.answer_lost = lambda call, collection: TIMEOUT if rng.random() < 0.1 else None
    pump.executor.takes_s = {"embed": 0.05, "write": 0.01, "lookup": 0.005}
    for _ in range(30):
        pump.letters.fault = DOWN if rng.random() < 0.3 else None
        pump.steps(rng.randrange(20))
        take = pump.source.revoke if rng.random() < 0.5 else pump.source.lose
        gone = rng.choice([FIRST, SECOND])
        pump.source.next_poll.append(partial(take, gone))
        pump.steps(rng.randrange(1, 5))
        pump.source.next_poll.append(partial(pump.source.assign, gone))
        pump.step()
    pump.letters.fault = None


@pytest.mark.parametrize("seed", range(5))
def test_the_books_balance_and_the_store_is_right_under_faults(seed: int) -> None:
    """Case 189, invariants 12 and 14: the counters add up after every step of the pump."""
    rng = random.Random(seed)  # noqa: S311
    log, fold, dead = Log(), Fold(PRODUCTS), set()
    for partition in (FIRST, SECOND):
        log.append(Ignored("heartbeat"), to=partition)
    for number in range(600):
        key = rng.randrange(40)
        changes: list[Change | None] = [
            upsert(key, f"text {number}"),
            upsert(key, f"text {key}", price=number),
            delete(key),
            upsert(1000 + number, "poison"),
            GARBAGE,
        ]
        (change,) = rng.choices(changes, weights=(50, 30, 15, 2, 3))
        partition = (FIRST, SECOND)[key % 2]
        log.append(change, to=partition, hole=rng.randrange(2))
        if change is GARBAGE or change == changes[3]:
            dead.add((partition[1], log.records[partition][-1].offset))
        elif change in changes[:3]:
            fold.apply(change)  # type: ignore[arg-type]
    pump = Pump(log, poll_records=10, breaker=BreakerLimits(in_a_row=1000, share=1.0))
    _storm(pump, rng)
    pump.run()
    assert {(letter.record.partition, letter.record.offset) for letter in pump.letters.letters} == dead
    found = {key: (point.text, point.metadata) for key, point in pump.store.points().items()}
    assert found == {key: (each.text, each.metadata) for key, each in fold.rows.items()}
    assert pump.received == pump.count(signals.RECORDS_SETTLED) + pump.count(signals.RECORDS_FORGOTTEN)
    assert pump.count(signals.RECORDS_FORGOTTEN) > 0
