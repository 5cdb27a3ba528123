"""Several providers and stores in one process: what fails in one of them does not concern the others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.pipeline.pump import (
    DOWN,
    PRODUCTS,
    USERS,
    FaultyStore,
    Log,
    Provider,
    Pump,
    always,
    row,
    upsert,
)

from vectide.core import signals
from vectide.core.batcher import BatchLimits
from vectide.core.failures import Failure, Kind
from vectide.core.lifecycle import State
from vectide.core.model import Row, Truncated
from vectide.jobs.routes import Provider as CalledProvider
from vectide.jobs.routes import Route, Routes, Target
from vectide.ports import Partition

SECOND: Partition = (USERS.source, 0)
REFUSED = Failure(Kind.OPERATOR, "unauthorized")
ELSEWHERE = "elsewhere"


def town_log(products: int, users: int) -> Log:
    log = Log()
    log.append(*(upsert(key, f"product {key}") for key in range(products)))
    log.append(*(upsert(key, f"user {key}") for key in range(users)), to=SECOND)
    return log


class Town:
    """A pump whose products go the usual way. Its users are kept in ``store``, which is another one; their
    texts go to ``model``, unless the provider is the ``same``."""

    def __init__(self, log: Log, *, same: bool = False, **policy: Any) -> None:
        self.model = Provider()
        self.store = FaultyStore(USERS)

        def others(usual: Route) -> Routes:
            provider = usual.provider if same else CalledProvider("other", self.model)
            return {USERS.table: Route(provider, Target(ELSEWHERE, self.store), usual.reader)}

        self.pump = Pump(log, store=FaultyStore(PRODUCTS), others=others, **policy)

    def users(self) -> set[Row]:
        return set(self.store.points(USERS))

    def user_rows(self, count: int) -> set[Row]:
        return {row(key, USERS) for key in range(count)}


def test_each_table_s_rows_go_to_its_own_provider_and_its_own_store() -> None:
    town = Town(town_log(50, 30))
    town.pump.run()
    assert set(town.pump.store.points()) == {row(key) for key in range(50)}
    assert town.users() == town.user_rows(30)
    assert sorted(town.pump.provider.sold) == sorted(f"product {key}" for key in range(50))
    assert sorted(town.model.sold) == sorted(f"user {key}" for key in range(30))


def test_texts_of_tables_that_share_a_provider_travel_together_whatever_their_stores() -> None:
    town = Town(town_log(100, 100), same=True)
    town.pump.run()
    tables_of_calls = [{text.split()[0] for text in call} for call in town.pump.provider.calls]
    assert {"product", "user"} in tables_of_calls
    assert (len(town.pump.store.points()), town.users()) == (100, town.user_rows(100))


def test_the_same_text_is_bought_once_from_each_provider() -> None:
    log = Log()
    log.append(*(upsert(key, "the same") for key in range(5)))
    log.append(*(upsert(key, "the same") for key in range(5)), to=SECOND)
    town = Town(log)
    town.pump.run()
    assert (town.pump.provider.sold, town.model.sold) == (["the same"], ["the same"])


@pytest.mark.parametrize("call", ["stamps", "write"])
@pytest.mark.parametrize("same", [True, False])
def test_an_outage_of_a_store_holds_up_only_the_tables_that_it_keeps(call: str, same: bool) -> None:
    """Case 150: the other table is done to its end, with a backlog that fills the budget in both."""
    town = Town(town_log(1000, 1000), same=same, records_in_flight=200)
    pump = town.pump
    town.store.fault = lambda made, collection: DOWN if made == call else None
    pump.until(lambda: pump.committed() == 1000, "the products to be committed")
    assert (town.users(), pump.committed(SECOND)) == (set(), 0)
    assert pump.source.paused == {SECOND}
    assert pump.stream.status.state is State.WAITING
    station = "lookup" if call == "stamps" else "write"
    assert pump.stream.status.reason == f"{station} {ELSEWHERE}: server_error"
    assert pump.clock.now_s - Pump(Log()).clock.now_s < 60
    town.store.fault = lambda made, collection: None
    pump.run()
    assert (town.users(), pump.letters.letters) == (town.user_rows(1000), [])


def test_an_outage_of_a_provider_holds_up_only_the_tables_that_need_it() -> None:
    town = Town(town_log(1000, 1000), records_in_flight=200)
    pump = town.pump
    town.model.fault = always(DOWN)
    pump.until(lambda: pump.committed() == 1000, "the products to be committed")
    assert (pump.committed(SECOND), pump.stream.status.reason) == (0, "embed other: server_error")
    assert town.model.tries < 30
    town.model.fault = None
    pump.run()
    assert town.users() == town.user_rows(1000)


def test_a_provider_that_refuses_halts_the_service_and_the_other_one_s_tables_go_on() -> None:
    town = Town(town_log(200, 200))
    town.model.fault = always(REFUSED)
    town.pump.until(lambda: town.pump.committed() == 200, "the products to be committed")
    status = town.pump.stream.status
    assert (status.state, status.reason) == (State.HALTED, "embed other: unauthorized")


def test_what_one_provider_asked_to_wait_the_other_one_does_not() -> None:
    town = Town(town_log(100, 100))
    town.model.fault = always(Failure(Kind.THROTTLED, "rate_limited", retry_after_s=3600))
    start_s = town.pump.clock.now_s
    town.pump.until(lambda: town.pump.committed() == 100, "the products to be committed")
    assert town.pump.clock.now_s - start_s < 10


def test_vectors_that_wait_for_one_store_do_not_hold_up_those_of_another_provider() -> None:
    """A store that is slow, not down: its own provider is not asked for more than it takes."""
    town = Town(town_log(400, 400), storing={"write": BatchLimits(items=10), "write_concurrency": 1})
    town.pump.executor.takes_s["write store"] = 30.0
    start_s = town.pump.clock.now_s
    town.pump.until(lambda: town.pump.committed(SECOND) == 400, "the users to be committed")
    assert town.pump.clock.now_s - start_s < 60
    assert len(town.pump.store.points()) < 40


def test_a_truncate_of_one_store_waits_for_no_other_store() -> None:
    emptied = Truncated()
    log = town_log(100, 100)
    log.append(emptied)
    log.append(emptied, to=SECOND)
    town = Town(log)
    town.store.fault = lambda made, collection: DOWN if made == "scan" else None
    town.pump.until(lambda: town.pump.committed() == 101, "the products to be purged")
    assert (town.pump.store.points(), len(town.users())) == ({}, 100)
    assert town.pump.stream.status.reason == f"purge {ELSEWHERE}: server_error"
    town.store.fault = lambda made, collection: None
    town.pump.run()
    assert town.users() == set()


def test_metrics_say_which_provider_and_which_store() -> None:
    town = Town(town_log(20, 10))
    town.pump.run()
    for provider in ("models", "other"):
        assert town.pump.count(signals.STATION_CALLS, "embed", provider, "") == 1
    for store in ("store", ELSEWHERE):
        assert town.pump.count(signals.STATION_CALLS, "write", "", store) >= 1
        assert (signals.STATION_QUEUED, "lookup", "", store) in town.pump.telemetry.gauges
    assert town.pump.count(signals.STATION_CALLS, "schema", "", "") == 0


def test_one_provider_and_one_store_are_not_named_in_the_status() -> None:
    """There is nothing to tell apart."""
    pump = Pump(town_log(10, 10))
    pump.provider.fault = always(DOWN)
    pump.run_for(60)
    assert pump.stream.status.reason == "embed: server_error"
