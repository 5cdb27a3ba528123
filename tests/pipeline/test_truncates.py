"""A truncate empties the table: after everything before it, before everything after it."""

from dataclasses import replace

from tests.pipeline.pump import DOWN, FIRST, PRODUCTS, USERS, Log, Pump, row, upsert

from vectide.core import signals
from vectide.core.failures import Failure, Kind
from vectide.core.model import Truncated, Upserted

SECOND = (PRODUCTS.source, 1)
PEOPLE = (USERS.source, 0)
EMPTIED = Truncated()
#: A row whose text the event does not tell.
PARTIAL = Upserted({"id": 7}, {"id": 7, "title": "new", "price": 1}, frozenset({"body"}))


def test_a_truncate_removes_the_rows_of_its_table_and_no_others() -> None:
    """Case 29, invariant 14: the rows before it go, those after it stay, another table is not touched."""
    shared = replace(USERS, collection=PRODUCTS.collection)
    log = Log()
    log.append(*[upsert(key, f"old {key}") for key in range(70)], EMPTIED, upsert(1, "new"))
    log.append(*[upsert(key, f"user {key}") for key in range(30)], to=PEOPLE)
    pump = Pump(log, tables=(PRODUCTS, shared))
    pump.run()
    kept = {row(key, USERS): f"user {key}" for key in range(30)}
    assert pump.store.texts() == {row(1): "new", **kept}
    assert not pump.letters.letters
    assert pump.count(signals.ROWS_PURGED, "products") == 70
    assert pump.settled("deleted") == 1


def test_a_truncate_waits_for_the_changes_before_it() -> None:
    """Case 29, invariant 3: a slow embedding must not bring a row back."""
    pump = Pump(Log())
    pump.executor.held = {"embed"}
    pump.log.append(upsert(1, "slow"), EMPTIED, upsert(2, "after"))
    pump.run_for(5)
    assert pump.committed() == 0
    assert pump.provider.calls == []
    pump.executor.held = set()
    pump.run()
    assert pump.store.texts() == {row(2): "after"}


def test_nothing_behind_a_truncate_is_taken_in_before_it_is_done() -> None:
    """Invariants 1 and 11: however much follows, the lane holds what came before."""
    pump = Pump(Log())
    pump.log.append(upsert(1, "old"))
    pump.run()
    pump.store.fault = lambda call, collection: DOWN if call == "scan" else None
    pump.log.append(EMPTIED, *[upsert(key, f"new {key}") for key in range(200)])
    pump.run_for(5)
    assert pump.in_flight == 1
    assert pump.committed() == 1
    pump.store.fault = lambda call, collection: None
    pump.run()
    assert len(pump.store.points()) == 200
    assert pump.received == 202


def test_a_truncate_met_again_leaves_what_came_after_it() -> None:
    """Cases 29 and 62, invariant 7: the crash came between the rows after it and the commit."""
    log = Log()
    log.append(
        *[upsert(key, f"old {key}") for key in range(30)], EMPTIED, upsert(1, "new"), upsert(50, "more")
    )
    first = Pump(log)
    first.run()
    log.committed[FIRST] = 30
    again = Pump(log, store=first.store)
    again.run()
    assert again.store.texts() == {row(1): "new", row(50): "more"}
    assert again.provider.calls == []
    assert again.count(signals.ROWS_PURGED, "products") == 0


def test_a_truncate_makes_up_for_an_incomplete_change_before_it() -> None:
    """Invariant 10: the row that cannot be completed is gone, so nothing is poison."""
    pump = Pump(Log(), tables=(PRODUCTS, USERS))
    pump.log.append(PARTIAL, EMPTIED, upsert(1, "new"))
    pump.run()
    assert not pump.letters.letters
    assert pump.store.texts() == {row(1): "new"}


def test_a_truncate_beside_other_partitions_halts_its_table_and_no_other() -> None:
    """Case 29: nothing tells which changes of the other partition came before it."""
    log = Log()
    log.append(upsert(1, "lamp"), EMPTIED, upsert(3, "later"))
    log.append(upsert(2, "chair"), to=SECOND)
    log.append(upsert(9, "Ann"), to=PEOPLE)
    pump = Pump(log, halt_probe_s=60.0)
    pump.run_for(30)
    assert {trouble.cause for trouble in pump.stream.troubles()} == {"truncate"}
    assert pump.store.texts() == {row(1): "lamp", row(2): "chair"}
    assert pump.store.texts(USERS) == {row(9, USERS): "Ann"}
    assert pump.committed(PEOPLE) == 1
    assert pump.committed() <= 1
    (refused,) = {fields["reason"] for event, fields in pump.events.lines if event == "truncate_refused"}
    assert refused == "the topic has 2 partitions, and nothing tells the order between them"


def test_a_table_may_pass_truncates_over() -> None:
    """Case 29: then its rows stay, and the other partitions do not matter."""
    lenient = replace(PRODUCTS, on_truncate="skip")
    log = Log()
    log.append(upsert(1, "lamp"), EMPTIED, upsert(3, "later"))
    log.append(upsert(2, "chair"), to=SECOND)
    pump = Pump(log, tables=(lenient, USERS))
    pump.run()
    assert pump.store.texts() == {row(1): "lamp", row(2): "chair", row(3): "later"}
    assert pump.count(signals.CHANGES_SKIPPED, "products", "truncate") == 1


def test_a_store_that_refuses_the_removal_halts_nothing_else() -> None:
    """Invariant 10: a truncate is applied or waits; it is never put aside."""
    pump = Pump(Log())
    pump.log.append(upsert(1, "lamp"))
    pump.run()
    refused = Failure(Kind.OPERATOR, "read_only")
    pump.store.fault = lambda call, collection: refused if call == "scan" else None
    pump.log.append(EMPTIED)
    pump.log.append(upsert(9, "Ann"), to=PEOPLE)
    pump.source.assign(PEOPLE)
    pump.run_for(20)
    assert ("purge", "read_only") in {(one.where, one.cause) for one in pump.stream.troubles()}
    assert pump.store.texts(USERS) == {row(9, USERS): "Ann"}
    pump.store.fault = lambda call, collection: None
    pump.run()
    assert pump.store.texts() == {}
    assert not pump.letters.letters


def test_a_partition_taken_away_in_mid_truncate_leaves_the_rest_to_its_next_owner() -> None:
    """Invariant 4: not one page more is removed, and the truncate is not counted as done."""
    log = Log()
    log.append(*[upsert(key, f"old {key}") for key in range(100)])
    first = Pump(log)
    first.run()
    first.executor.takes_s = {"purge": 1.0}
    log.append(EMPTIED)
    first.until(lambda: len(first.store.points()) < 100, "the first page to be removed")
    first.source.next_poll.append(lambda: first.source.lose(FIRST))
    first.run_for(10)
    left = len(first.store.points())
    assert left > 0
    assert first.committed() == 100
    second = Pump(log, store=first.store)
    second.run()
    assert second.store.points() == {}
