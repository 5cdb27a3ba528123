"""What stores must keep of the promises of :class:`vectide.ports.Swappable` and ``Droppable``: a part of the
suite in :mod:`.store_suite`, and used as that is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vectide.core.failures import Kind
from vectide.core.model import Row
from vectide.ports import AdapterError, CollectionSpec, Deadline, Droppable, Swappable
from vectide.testing.points import put, row, stamp, vector
from vectide.testing.store_suite import ITEMS, Points, RealClock

GREEN = "green"
ALIAS = "serving"


def refused(call: Callable[[], object]) -> str:
    """The cause of a refusal that an operator has to do something about."""
    with pytest.raises(AdapterError) as caught:
        call()
    assert caught.value.failure.kind is Kind.OPERATOR
    assert caught.value.failure.detail
    return caught.value.failure.cause


@pytest.fixture
def droppable(points: Points) -> Any:
    """The store, with a collection of one row."""
    if not isinstance(points.store, Droppable):
        pytest.skip("the store cannot drop a collection")
    points.write(put(row(1), 1))
    return points.store


@pytest.fixture
def swappable(droppable: Any, deadline: Deadline) -> Any:
    """The same store, with a second collection of other dimensions, another metric and another row."""
    if droppable.capabilities.swap != "alias":
        pytest.skip("the store does not claim aliases")
    droppable.prepare(CollectionSpec(GREEN, 3, "test/model/3", "dot"), deadline)
    Points(droppable, deadline, GREEN).write(put(row(2), 1, at=vector(1.0)[:3]))
    return droppable


def found(points: Points, name: str, dimensions: int = 4) -> list[Any]:
    """The rows that a search of that name finds."""
    return [hit.row for hit in Points(points.store, points.deadline, name).search(vector(1.0)[:dimensions])]


# --- swap -----------------------------------------------------------------------------------------------


def test_a_store_swaps_as_it_claims(backend: Any) -> None:
    assert backend.store.capabilities.swap in ("alias", "pointer")
    assert isinstance(backend.store, Swappable) is (backend.store.capabilities.swap == "alias")


def test_searches_of_an_alias_read_the_collection_that_it_leads_to(
    points: Points, swappable: Any, deadline: Deadline
) -> None:
    """One of other dimensions and another metric included, again and again, and back."""
    assert swappable.leads_to(ALIAS, deadline) is None
    for _ in range(2):
        swappable.swap(ALIAS, ITEMS, deadline)
        assert swappable.leads_to(ALIAS, deadline) == ITEMS
        assert found(points, ALIAS) == [row(1)]
        swappable.swap(ALIAS, GREEN, deadline)
        swappable.swap(ALIAS, GREEN, deadline)
        assert swappable.leads_to(ALIAS, deadline) == GREEN
        assert found(points, ALIAS, 3) == [row(2)]
    assert (found(points, ITEMS), found(points, GREEN, 3)) == ([row(1)], [row(2)])


def test_what_is_written_into_a_collection_is_found_by_its_alias(
    points: Points, swappable: Any, deadline: Deadline
) -> None:
    swappable.swap(ALIAS, ITEMS, deadline)
    points.write(put(row(3), 1, at=vector(0, 1.0), metadata={"color": "red"}))
    through = Points(points.store, deadline, ALIAS)
    assert [hit.row for hit in through.search(vector(0, 1.0), 1)] == [row(3)]
    assert [hit.row for hit in through.search(vector(1.0), color="red")] == [row(3)]
    points.write(put(row(1), 2, at=vector(0, 0, 1.0)))
    assert [hit.row for hit in through.search(vector(0, 0, 1.0), 1)] == [row(1)]


def test_other_clients_follow_a_swap(
    points: Points, backend: Any, swappable: Any, deadline: Deadline
) -> None:
    with backend.reopen() as other:
        theirs = Points(other, deadline)
        for collection, one, dimensions in ((ITEMS, row(1), 4), (GREEN, row(2), 3), (ITEMS, row(1), 4)):
            swappable.swap(ALIAS, collection, deadline)
            assert found(theirs, ALIAS, dimensions) == [one]
            assert other.leads_to(ALIAS, deadline) == collection


def test_several_aliases_lead_where_each_was_led(points: Points, swappable: Any, deadline: Deadline) -> None:
    swappable.swap(ALIAS, ITEMS, deadline)
    swappable.swap("canary", GREEN, deadline)
    assert (found(points, ALIAS), found(points, "canary", 3)) == ([row(1)], [row(2)])
    swappable.swap("canary", ITEMS, deadline)
    assert (found(points, ALIAS), found(points, "canary")) == ([row(1)], [row(1)])


def test_an_alias_never_takes_the_name_of_a_collection(
    points: Points, swappable: Any, deadline: Deadline
) -> None:
    assert refused(lambda: swappable.swap(ITEMS, GREEN, deadline)) == "name_taken"
    assert refused(lambda: swappable.swap(ITEMS, ITEMS, deadline)) == "name_taken"
    assert swappable.leads_to(ITEMS, deadline) is None
    assert found(points, ITEMS) == [row(1)]


def test_an_alias_leads_to_a_collection_that_is_there(
    points: Points, swappable: Any, deadline: Deadline
) -> None:
    """One that is not, or is an alias itself, leaves it where it was."""
    swappable.swap(ALIAS, ITEMS, deadline)
    for nowhere in ("nowhere", ALIAS):
        assert refused(lambda name=nowhere: swappable.swap("other", name, deadline)) == "collection_missing"  # type: ignore[misc]
        assert refused(lambda name=nowhere: swappable.swap(ALIAS, name, deadline)) == "collection_missing"  # type: ignore[misc]
    assert swappable.leads_to("other", deadline) is None
    assert found(points, ALIAS) == [row(1)]


@contextmanager
def in_a_loop(work: Callable[[], None]) -> Iterator[threading.Event]:
    """Do that in another thread, once at least; the event is set after two rounds. Raises what it raised."""
    stop, warm = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def loop() -> None:
        rounds = 0
        try:
            while not stop.is_set() or rounds < 2:
                work()
                rounds += 1
                if rounds == 2:
                    warm.set()
        except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
            failed.append(error)
            warm.set()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield warm
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def test_a_search_during_swaps_reads_exactly_one_of_the_two(
    points: Points, backend: Any, swappable: Any, deadline: Deadline
) -> None:
    """Never both, never neither, whichever client searches."""
    swappable.prepare(CollectionSpec("blue", 4, "test/model/4"), deadline)
    Points(swappable, deadline, "blue").write(put(row(2), 1), put(row(3), 1))
    swappable.swap(ALIAS, ITEMS, deadline)

    def there_and_back() -> None:
        swappable.swap(ALIAS, "blue", deadline)
        swappable.swap(ALIAS, ITEMS, deadline)

    with backend.reopen() as other, in_a_loop(there_and_back) as warm:
        seen: set[frozenset[Row]] = set()
        while not warm.is_set() or len(seen) < 2:
            for client in (other,) if points.store.capabilities.kind == "memory" else (other, swappable):
                seen.add(frozenset(found(Points(client, deadline), ALIAS)))
            assert not deadline.passed
    assert seen == {frozenset({row(1)}), frozenset({row(2), row(3)})}
    assert found(points, ALIAS) == [row(1)]


def test_a_collection_may_go_as_soon_as_searches_are_led_elsewhere(
    points: Points, backend: Any, swappable: Any, deadline: Deadline
) -> None:
    """And never sooner: a search meanwhile finds what it was led to."""
    made = iter(range(1000))
    spec = CollectionSpec("made", 4, "test/model/4")
    swappable.swap(ALIAS, ITEMS, deadline)

    def rebuild() -> None:
        swappable.prepare(spec, deadline)
        Points(swappable, deadline, "made").write(put(row(next(made)), 1))
        swappable.swap(ALIAS, "made", deadline)
        swappable.swap(ALIAS, ITEMS, deadline)
        swappable.drop("made", deadline)

    with backend.reopen() as other, in_a_loop(rebuild) as warm:
        searches = 0
        while not warm.is_set() or searches < 20:
            assert len(found(Points(other, deadline), ALIAS)) == 1
            searches += 1
            assert not deadline.passed


# --- drop -----------------------------------------------------------------------------------------------


def test_what_was_dropped_is_gone_and_may_be_made_anew(
    points: Points, backend: Any, droppable: Any, deadline: Deadline
) -> None:
    """For something else, too: nothing remembers what it was made for."""
    droppable.drop(ITEMS, deadline)
    for call in (
        lambda: points.stamps(row(1)),
        lambda: points.write(put(row(1))),
        lambda: found(points, ITEMS),
    ):
        assert refused(call) == "collection_missing"
    with backend.reopen() as again:
        again.prepare(CollectionSpec(ITEMS, 3, "another/model", "dot"), deadline)
        anew = Points(again, deadline)
        assert anew.stamps(row(1)) == [None]
        anew.write(put(row(1), 2, at=vector(1.0)[:3]))
        assert anew.stamps(row(1)) == [stamp(2)]
        again.drop(ITEMS, deadline)


def test_dropping_what_is_not_there_succeeds(droppable: Any, deadline: Deadline) -> None:
    droppable.drop("nowhere", deadline)
    droppable.drop(ITEMS, deadline)
    droppable.drop(ITEMS, deadline)


def test_the_first_call_of_a_store_may_be_a_drop(backend: Any) -> None:
    if isinstance(backend.store, Droppable):
        backend.store.drop(ITEMS, Deadline.after(RealClock(), 60))


def test_other_collections_stay(points: Points, droppable: Any, deadline: Deadline) -> None:
    droppable.prepare(CollectionSpec("others", 4, "test/model/4"), deadline)
    droppable.drop("others", deadline)
    assert points.stamps(row(1)) == [stamp(1)]
    assert found(points, ITEMS) == [row(1)]


def test_nothing_that_an_alias_leads_to_is_dropped(
    points: Points, swappable: Any, deadline: Deadline
) -> None:
    """Nor the collection by the alias's name."""
    swappable.swap(ALIAS, ITEMS, deadline)
    assert refused(lambda: swappable.drop(ITEMS, deadline)) == "in_use"
    assert refused(lambda: swappable.drop(ALIAS, deadline)) == "in_use"
    assert found(points, ALIAS) == [row(1)]
    swappable.swap(ALIAS, GREEN, deadline)
    swappable.drop(ITEMS, deadline)
    assert found(points, ALIAS, 3) == [row(2)]
