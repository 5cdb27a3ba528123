"""The pump while the registry does not tell a schema: what waits, what goes on, and what ends it."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.simulation.broker import UNKNOWN
from tests.simulation.clock import START_S
from tests.simulation.run import Run
from tests.simulation.scenario import PRODUCTS, TABLES, USERS, Event, Fault, Scenario

from vectide.core.lifecycle import State
from vectide.core.model import Change, Deleted, Truncated, Upserted
from vectide.jobs.schemas import SLICE


def upserted(row: int, title: str, *unavailable: str) -> Upserted:
    columns = {"id": row, "title": title, "body": None, "price": 1, "note": "n", "gone": False}
    known = {name: value for name, value in columns.items() if name not in unavailable}
    return Upserted({"id": row}, known, frozenset(unavailable), committed_ms=0)


def event(at_s: float, row: int, change: Change | None, *, partition: int = 0, hole: int = 0) -> Event:
    return Event(at_s, PRODUCTS.source, partition, row, change, "event", hole)


def scenario(
    *events: Event,
    faults: tuple[Fault, ...] = (),
    per_schema: int = 1,
    batch_items: int = 4,
    records_in_flight: int = 100_000,
) -> Scenario:
    return Scenario(
        1,
        events,
        faults,
        batch_items=batch_items,
        records_in_flight=records_in_flight,
        per_schema=per_schema,
    )


def step_until(run: Run, condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Let the pump run, checked at each step, until the condition holds."""
    give_up_s = run.clock.now_s + within_s
    while not condition():
        run.step()
        assert run.clock.now_s < give_up_s


def texts(run: Run) -> set[str]:
    return {str(point.text) for point in run.points()}


def test_records_wait_in_their_order_while_the_registry_is_down_and_none_is_condemned() -> None:
    """Case 94; invariants 3, 10 and 11: memory is bounded by the budget, however long it takes."""
    changes = [upserted(row, f"version {version}") for version in range(20) for row in (1, 2)]
    events = [event(0.01 * at, at % 2 + 1, change) for at, change in enumerate(changes)]
    run = Run(scenario(*events, faults=(Fault(0.0, "registry_down", 300.0),), records_in_flight=10))
    step_until(run, lambda: run.clock.now_s > START_S + 250, within_s=300)
    assert run.stream.intake.budget.held_records == math.ceil(10 / len(TABLES)), "the table's share of ten"
    assert run.stream.status.state is State.WAITING
    assert "schema" in run.stream.status.reason
    assert texts(run) == set()
    run.run()
    assert texts(run) == {"version 19"}
    assert run.letters() == []


def test_a_registry_that_refuses_us_halts_and_goes_on_by_itself() -> None:
    """Case 95."""
    run = Run(scenario(event(0.1, 1, upserted(1, "lamp")), faults=(Fault(0.0, "registry_refuses", 5.0),)))
    step_until(run, lambda: run.clock.now_s > START_S + 4)
    assert run.stream.status.state is State.HALTED
    assert run.stream.status.reason == "schema: unauthorized"
    run.run()
    assert texts(run) == {"lamp"}
    assert run.letters() == []


def test_only_the_record_whose_schema_is_unknown_becomes_a_dead_letter() -> None:
    """Case 93: garbage at an odd offset names a schema that nobody registered."""
    good = [event(0.0, 1, upserted(1, "before")), event(0.0, 9, None), event(0.0, 1, upserted(1, "after"))]
    run = Run(scenario(*good))
    run.run()
    assert [(letter.record.offset, letter.cause) for letter in run.letters()] == [(1, "schema_unknown")]
    assert UNKNOWN in run.letters()[0].detail
    assert texts(run) == {"after"}


def test_an_unknown_schema_is_asked_for_once_in_a_while_not_for_every_record() -> None:
    garbage = [event(0.001 * at, 9, None, hole=1) for at in range(20)]
    first = event(0.0, 1, upserted(1, "lamp"))
    run = Run(scenario(first, *garbage))
    run.run()
    assert len(run.letters()) == 20
    assert run.asked(UNKNOWN) == 1


def test_one_table_s_missing_schema_does_not_hold_up_the_others() -> None:
    waiting = [event(0.0, row, upserted(row, f"product {row}")) for row in range(5)]
    other = Event(0.0, USERS.source, 0, 1, upserted(1, "user"), "event")
    run = Run(scenario(other, *waiting))
    run.hold_back(PRODUCTS.source)
    step_until(run, lambda: "user" in texts(run))
    assert texts(run) == {"user"}
    run.hold_back(None)
    run.run()
    assert texts(run) == {"user", *(f"product {row}" for row in range(5))}


def test_a_partition_that_goes_away_meanwhile_leaves_its_records_to_the_next_owner() -> None:
    """Invariants 1 and 4."""
    events = [event(0.01 * at, at, upserted(at, f"product {at}")) for at in range(10)]
    faults = (
        Fault(0.0, "registry_down", 3.0),
        Fault(0.5, "rebalance"),
        Fault(1.0, "lost"),
        Fault(1.5, "rebalance"),
        Fault(2.0, "takeover"),
    )
    run = Run(scenario(*events, faults=faults))
    run.run()
    assert texts(run) == {f"product {at}" for at in range(10)}


def test_a_revocation_does_not_wait_for_the_registry() -> None:
    run = Run(scenario(event(0.0, 1, upserted(1, "lamp")), faults=(Fault(0.0, "registry_down", 9.0),)))
    step_until(run, lambda: run.stream.intake.budget.held_records == 1)
    before_s = run.clock.now_s
    lanes = list(run.stream.lanes)
    run.stream.on_revoked(lanes)
    assert run.clock.now_s == before_s
    assert run.stream.intake.budget.held_records == 0


def test_a_stop_does_not_wait_for_the_registry() -> None:
    run = Run(scenario(event(0.0, 1, upserted(1, "lamp")), faults=(Fault(0.0, "registry_down", 9.0),)))
    step_until(run, lambda: run.stream.intake.budget.held_records == 1)
    before_s = run.clock.now_s
    run.stream.stop()
    while not run.stream.finished:
        run.stream.step()
    assert run.clock.now_s - before_s < 1


def test_an_incomplete_row_waits_for_a_record_that_cannot_be_decoded_yet() -> None:
    """The partition has been read to its end, but not all of it: a delete may still come to light."""
    incomplete, whole = upserted(1, "lamp", "body"), Deleted({"id": 1}, committed_ms=0)
    # Offset 0 has the schema that is known first; the one at offset 1 is told late.
    run = Run(scenario(event(0.0, 1, incomplete), event(0.0, 1, whole)))
    run.hold_back(" 1")
    step_until(run, lambda: run.clock.now_s > START_S + 30)
    assert run.letters() == []
    run.hold_back(None)
    run.run()
    assert run.letters() == []
    assert texts(run) == set()


def test_what_waits_undecoded_behind_a_truncate_comes_after_it() -> None:
    """The truncate and what follows it were received, and could not be told apart before."""
    changes: list[tuple[int, Change]] = [
        *((row, upserted(row, f"before {row}")) for row in (1, 2)),
        (0, Truncated(0)),
        *((row, upserted(row, f"after {row}")) for row in (2, 3)),
    ]
    run = Run(scenario(*(Event(0.0, USERS.source, 0, row, change, "event") for row, change in changes)))
    run.hold_back(USERS.source)
    step_until(run, lambda: run.waiting() == 5)
    run.hold_back(None)
    run.run()
    assert texts(run) == {"after 2", "after 3"}
    assert run.letters() == []


def test_what_waited_is_decoded_in_slices_between_which_the_pump_turns() -> None:
    events = [event(0.0, at, upserted(at, f"product {at}")) for at in range(5 * SLICE)]
    run = Run(scenario(*events, per_schema=10 * SLICE, batch_items=64))
    run.hold_back(PRODUCTS.source)
    step_until(run, lambda: run.waiting() == 5 * SLICE)
    run.hold_back(None)
    least = 5 * SLICE
    while run.waiting():
        before = run.waiting()
        run.step()
        least = min(least, run.waiting())
        assert before - run.waiting() <= SLICE
    assert least == 0
    run.run()
    assert len(texts(run)) == 5 * SLICE
