"""What every store must keep of the promises in :mod:`vectide.ports`, as tests for any of them.

For whoever writes one: import everything from here into a test module, and give it a fixture ``backend``
with an empty ``store``, and ``reopen``, which returns a context manager of another client of the same data;
see docs/plugins.md. Needs pytest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vectide.core.chunks import MAX_CHUNKS
from vectide.core.failures import Kind
from vectide.core.filters import FilterField, FilterType
from vectide.core.model import Position, Row, SourcePosition, Stamp, Value, text_hash
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    CollectionSpec,
    Deadline,
    Hit,
    Patch,
    PatchChunks,
    Put,
    Remove,
    Scannable,
    Searchable,
    StartupRefused,
    Store,
    Stored,
    Trim,
    Write,
)
from vectide.testing.points import (
    chunk_id,
    mark,
    patch,
    patch_chunks,
    put,
    put_chunk,
    row,
    stamp,
    trim,
    vector,
)

ITEMS = "items"


class Points:
    """The store under test, with its collection and a deadline filled in."""

    def __init__(self, store: Store, deadline: Deadline, collection: str = ITEMS) -> None:
        self.store = store
        self.deadline = deadline
        self.collection = collection

    def write(self, *writes: Write) -> list[Any]:
        """With metadata as the store can hold it: whoever writes sees to that."""
        fit = [self._fit(write) for write in writes]
        return list(self.store.write(self.collection, fit, self.deadline))

    def _fit(self, write: Write) -> Write:
        match write:
            case Put(point):
                return replace(write, point=replace(point, metadata=self.legal(point.metadata)))
            case Patch() | PatchChunks():
                return replace(write, metadata=self.legal(write.metadata))
            case _:
                return write

    def legal(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        """What becomes of metadata in this store."""
        able = replace(self.store.capabilities, nul_in_text=True)  # so that the store's own refusal is seen
        return able.legal(metadata)

    def stamps(self, *rows: Row, values: bool = False) -> list[Any]:
        return list(self.store.stamps(self.collection, rows, self.deadline, values=values))

    def scan(self, limit: int = 1000, *, vectors: bool = False) -> Iterator[Stored]:
        if not isinstance(self.store, Scannable):
            pytest.skip("the store cannot be scanned")
        cursor = None
        while True:
            page, cursor = self.store.scan(self.collection, cursor, limit, self.deadline, vectors=vectors)
            assert len(page) <= limit
            yield from page
            if cursor is None:
                return

    def search(self, wanted: Any, limit: int = 10, **filters: Value) -> Sequence[Hit]:
        if not isinstance(self.store, Searchable):
            pytest.skip("the store cannot be searched")
        return self.store.search(self.collection, wanted, limit, self.deadline, filters)

    def metadata(self, of: Row) -> Mapping[str, Value]:
        """Of the row's chunk 0."""
        return next(point.metadata for point in self.scan() if point.id == of.head_id)


class RealClock:
    """The time as it is."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


@pytest.fixture
def deadline() -> Deadline:
    """Generous: for calls that are not about time."""
    return Deadline.after(RealClock(), 60)


@pytest.fixture
def store(backend: Any, deadline: Deadline) -> Store:
    """The store with an empty collection of 4 dimensions, metric cosine."""
    made: Store = backend.store
    made.prepare(CollectionSpec(ITEMS, 4, "test/model/4"), deadline)
    return made


@pytest.fixture
def points(store: Store, deadline: Deadline) -> Points:
    return Points(store, deadline)


def test_the_capabilities_are_told_before_there_is_a_collection(backend: Any) -> None:
    assert backend.store.capabilities.kind
    assert backend.store.capabilities.max_batch_items >= 1


# --- put and read ---------------------------------------------------------------------------------------


def test_a_put_row_is_visible_at_once(points: Points) -> None:
    assert points.write(put(row(1), 7)) == [APPLIED]
    assert points.stamps(row(1)) == [stamp(7)]


def test_stamps_come_in_the_order_of_the_rows_with_none_for_the_absent(points: Points) -> None:
    points.write(put(row(1), 1), put(row(2), 2))
    assert points.stamps(row(3), row(2), row(1), row(2)) == [None, stamp(2), stamp(1), stamp(2)]
    assert points.stamps() == []


def test_a_stamp_survives_whole(points: Points) -> None:
    points.write(put(row("Ω"), 2**62, text="naïve ☃\n"))
    assert points.stamps(row("Ω")) == [stamp(2**62, text="naïve ☃\n")]


def test_kept_columns_come_only_when_asked_for(points: Points) -> None:
    values = {"name": "a", "description": None}
    points.write(put(row(1), values=values), put(row(2)))
    assert [s.values for s in points.stamps(row(1), row(2))] == [None, None]
    assert [s.values for s in points.stamps(row(1), row(2), values=True)] == [values, None]


def test_the_text_that_is_kept_instead_of_columns_and_metadata_come_only_when_asked_for(
    points: Points,
) -> None:
    points.write(
        put(row(1), text="one", metadata={"a": "x"}, values={"name": "one"}),
        put(row(2), text="two", metadata={"a": "y", "n": 2}),
    )
    assert [(s.text, s.metadata) for s in points.stamps(row(1), row(2))] == [(None, None)] * 2
    asked = points.stamps(row(1), row(2), values=True)
    assert [(s.text, s.metadata) for s in asked] == [(None, {"a": "x"}), ("two", {"a": "y", "n": 2})]


def test_the_same_writes_again_end_in_the_same_state(points: Points) -> None:
    """Case 145."""
    writes: list[Write] = [
        put(row(1), 5, metadata={"a": 1}),
        put(row(2), 6),
        Remove(row(3), (row(3).head_id,)),
    ]
    assert points.write(*writes) == points.write(*writes)
    assert len(list(points.scan())) == 2
    assert points.stamps(row(1), row(2), row(3)) == [stamp(5), stamp(6), None]


def test_a_put_replaces_the_whole_point(points: Points) -> None:
    points.write(
        put(row(1), 1, text="old", metadata={"a": 1, "b": {"c": 2}}, values={"n": "x"}, at=vector(1.0))
    )
    points.write(put(row(1), 2, text="new", metadata={"d": 4}, at=vector(0.0, 1.0)))
    [point] = points.scan(vectors=True)
    assert (point.text, point.metadata, point.stamp) == ("new", {"d": 4}, stamp(2, text="new"))
    assert point.vector is not None
    assert point.vector.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert points.stamps(row(1), values=True)[0].values is None


def test_a_put_keeps_the_stored_value_of_kept_names(points: Points) -> None:
    points.write(put(row(1), 1, metadata={"stays": [1], "goes": 2}))
    points.write(put(row(1), 2, metadata={"new": 3, "stays": "ignored"}, keep=frozenset({"stays", "none"})))
    assert points.metadata(row(1)) == points.legal({"stays": [1], "new": 3})
    points.write(put(row(2), 1, metadata={"new": 3}, keep=frozenset({"stays"})))
    assert points.metadata(row(2)) == {"new": 3}


def test_what_was_written_is_there_after_a_restart_of_the_client(
    points: Points, backend: Any, deadline: Deadline
) -> None:
    points.write(put(row(1), 7, metadata={"a": 1}))
    points.store.close()
    with backend.reopen() as again:
        again.prepare(CollectionSpec(ITEMS, 4, "test/model/4"), deadline)
        reopened = Points(again, deadline)
        assert reopened.stamps(row(1)) == [stamp(7)]
        assert reopened.metadata(row(1)) == {"a": 1}
        assert reopened.write(put(row(1), 8)) == [APPLIED]


# --- patch and mark -------------------------------------------------------------------------------------


def test_a_patch_replaces_metadata_and_stamp_and_leaves_the_rest(points: Points) -> None:
    points.write(
        put(row(1), 1, text="text", metadata={"a": 1, "b": 2}, values={"n": "x"}, at=vector(0, 0, 1))
    )
    assert points.write(patch(row(1), 2, metadata={"b": 3})) == [APPLIED]
    [point] = points.scan(vectors=True)
    assert (point.text, point.metadata, point.stamp) == ("text", {"b": 3}, stamp(2))
    assert point.vector is not None
    assert point.vector.tolist() == [0.0, 0.0, 1.0, 0.0]
    assert points.stamps(row(1), values=True)[0].values == {"n": "x"}


def test_a_patch_for_another_text_than_the_one_that_is_there_is_not_applied(points: Points) -> None:
    """Invariant 3: between its look-up and its patch a late write of another process changed the text."""
    points.write(put(row(1), 5, text="late", metadata={"a": 1}))
    assert points.write(patch(row(1), 7, metadata={"a": 2})) == [MISSING]
    [point] = points.scan()
    assert (point.text, point.metadata, point.stamp) == ("late", {"a": 1}, stamp(5, text="late"))


def test_a_patch_keeps_the_stored_value_of_kept_names(points: Points) -> None:
    points.write(put(row(1), 1, metadata={"stays": {"deep": [None]}, "goes": 2}))
    points.write(patch(row(1), 2, metadata={"new": True}, keep=frozenset({"stays", "none"})))
    assert points.metadata(row(1)) == points.legal({"stays": {"deep": [None]}, "new": True})


def test_a_patch_can_replace_the_kept_columns(points: Points) -> None:
    points.write(put(row(1), 1, values={"n": "x"}))
    points.write(patch(row(1), 2, values={"n": "y", "m": None}))
    assert points.stamps(row(1), values=True)[0].values == {"n": "y", "m": None}


def test_a_patch_or_mark_of_a_row_that_is_not_there_says_so_and_creates_nothing(points: Points) -> None:
    """Case 61."""
    points.write(put(row(1)))
    assert points.write(patch(row(2), 1), patch(row(1), 1), mark(row(3), 1)) == [MISSING, APPLIED, MISSING]
    assert points.stamps(row(2), row(3)) == [None, None]
    assert len(list(points.scan())) == 1


def test_a_mark_changes_the_stamp_and_nothing_else(points: Points) -> None:
    points.write(put(row(1), 1, metadata={"a": 1}, values={"n": "x"}))
    assert points.write(mark(row(1), 2)) == [APPLIED]
    [point] = points.scan()
    assert (point.metadata, point.stamp, point.text) == ({"a": 1}, stamp(2), "text")
    assert points.stamps(row(1), values=True)[0].values == {"n": "x"}


# --- rows of several chunks -----------------------------------------------------------------------------


def chunks_of(points: Points, of: Row) -> dict[int, tuple[str | None, Mapping[str, Value]]]:
    return {point.chunk: (point.text, point.metadata) for point in points.scan() if point.row == of}


def test_a_row_grows_and_shrinks_to_exactly_its_chunks(points: Points) -> None:
    """Cases 70 and 71, invariant 8."""
    one = row(1)
    points.write(put(one, 1, text="a"))
    grown = [put_chunk(one, at, text=text) for at, text in enumerate("bcde", 1)]
    assert points.write(put(one, 2, text="a"), *grown, trim(one, stay=tuple("bcde"))) == [APPLIED] * 6
    assert {at: text for at, (text, _) in chunks_of(points, one).items()} == dict(enumerate("abcde"))
    shrunk = trim(one, "c", "d", "e", stay=("b",))
    assert points.write(patch(one, 3, text="a"), shrunk) == [APPLIED, APPLIED]
    assert {at: text for at, (text, _) in chunks_of(points, one).items()} == {0: "a", 1: "b"}


def test_a_later_chunk_keeps_its_point_when_it_moves(points: Points) -> None:
    """Case 78: its vector stays, its index and metadata change."""
    one = row(1)
    points.write(put(one, 1), put_chunk(one, 1, text="b"), put_chunk(one, 2, text="c", metadata={"a": 1}))
    moved = patch_chunks(one, ("c", 1), ("b", 2), metadata={"a": 2})
    assert points.write(patch(one, 2, metadata={"a": 2}), moved) == [APPLIED, APPLIED]
    assert chunks_of(points, one) == {0: ("text", {"a": 2}), 1: ("c", {"a": 2}), 2: ("b", {"a": 2})}
    vectors = {point.chunk: point.vector for point in points.scan(vectors=True)}
    assert vectors[1] is not None
    assert vectors[1].tolist() == put_chunk(one, 1).vector.tolist()


def test_a_patch_reaches_only_chunks_of_its_row(points: Points) -> None:
    """Case 75."""
    one, other = row(1), row(11)
    points.write(put(one), put_chunk(one, 1, text="b"), put(other), put_chunk(other, 1, text="b"))
    stranger = PatchChunks(one, {"a": 9}, ((chunk_id(other, "b"), 5), (chunk_id(one, "b"), 1)))
    assert points.write(patch(one, 2, metadata={"a": 9}), stranger) == [APPLIED, APPLIED]
    assert chunks_of(points, one) == {0: ("text", {"a": 9}), 1: ("b", {"a": 9})}
    assert chunks_of(points, other) == {0: ("text", {}), 1: ("b", {})}


def test_a_patch_of_chunks_keeps_the_kept_names_and_passes_over_what_is_not_there(points: Points) -> None:
    one = row(1)
    points.write(put(one), put_chunk(one, 1, text="b", metadata={"stays": 1, "goes": 2}))
    patched = patch_chunks(one, ("b", 1), ("gone", 2), metadata={"new": 3}, keep=frozenset({"stays"}))
    assert points.write(patch(one, 2), patched) == [APPLIED, APPLIED]
    assert chunks_of(points, one) == {0: ("text", {}), 1: ("b", {"stays": 1, "new": 3})}


def test_a_new_chunk_has_the_kept_metadata_of_chunk_0(points: Points) -> None:
    """The event did not tell it, and no other point of the row would."""
    one, keep = row(1), frozenset({"stays", "none"})
    points.write(put(one, 1, metadata={"stays": {"deep": [1]}, "a": 1}), put_chunk(one, 1, text="old"))
    new = put_chunk(one, 2, text="new", metadata={"a": 2}, keep=keep)
    again = put_chunk(one, 1, text="old", metadata={"a": 2}, keep=keep)
    assert points.write(patch(one, 2, metadata={"a": 2}, keep=keep), new, again) == [APPLIED] * 3
    kept = points.legal({"a": 2, "stays": {"deep": [1]}})
    assert [metadata for _, metadata in chunks_of(points, one).values()] == [kept] * 3


def test_a_trim_leaves_chunk_0_and_other_rows_alone(points: Points) -> None:
    """Case 75."""
    one, other = row(1), row(11)
    points.write(put(one), put_chunk(one, 1, text="b"), put(other), put_chunk(other, 1, text="b"))
    trimmed = Trim(one, (chunk_id(one, "b"), chunk_id(other, "b")), ())
    assert points.write(patch(one, 2), trimmed) == [APPLIED, APPLIED]
    assert chunks_of(points, one) == {0: ("text", {})}
    assert chunks_of(points, other) == {0: ("text", {}), 1: ("b", {})}


@pytest.fixture
def atomic(points: Points) -> Points:
    if not points.store.capabilities.atomic_calls:
        pytest.skip("the store does not claim atomic calls")
    return points


def test_later_chunks_are_left_alone_where_chunk_0_is_missing(atomic: Points) -> None:
    """Invariant 8: no chunk without chunk 0, whatever the order of the writes."""
    writes: list[Write] = [put_chunk(row(1), 1), patch(row(1), 5), put(row(2), 5), put_chunk(row(2), 1)]
    assert atomic.write(*writes) == [MISSING, MISSING, APPLIED, APPLIED]
    assert {point.row for point in atomic.scan()} == {row(2)}


def test_the_largest_row_fits_into_one_call(atomic: Points) -> None:
    """Case 76: metadata of all its chunks too."""
    one = row(1)
    texts = [f"chunk {at}" for at in range(1, MAX_CHUNKS)]
    new = [put_chunk(one, at, text=text) for at, text in enumerate(texts, 1)]
    every = [(text, at) for at, text in enumerate(texts, 1)]
    last = trim(one, stay=tuple(texts))
    assert atomic.store.capabilities.max_batch_items >= MAX_CHUNKS + 2
    assert atomic.write(put(one, 1, text="chunk 0"), *new, last) == [APPLIED] * (MAX_CHUNKS + 1)
    patched = patch_chunks(one, *every, metadata={"a": 1})
    assert atomic.write(patch(one, 2, text="chunk 0", metadata={"a": 1}), patched, last) == [APPLIED] * 3
    held = chunks_of(atomic, one)
    assert held == {at: (f"chunk {at}", {"a": 1}) for at in range(MAX_CHUNKS)}


# --- remove ---------------------------------------------------------------------------------------------


def test_remove_takes_every_point_of_the_row_even_those_not_named(points: Points) -> None:
    """Case 74."""
    points.write(put(row(1)), put_chunk(row(1), 1), put_chunk(row(1), 2), put(row(2)))
    assert points.write(Remove(row(1), (row(1).head_id,))) == [APPLIED]
    assert [point.row for point in points.scan()] == [row(2)]


def test_removing_what_is_not_there_succeeds(points: Points) -> None:
    """Case 152."""
    assert points.write(Remove(row(1), (row(1).head_id,)), Remove(row(2), ())) == [APPLIED, APPLIED]


def test_a_removed_row_can_come_back_even_at_an_older_position(points: Points) -> None:
    points.write(put(row(1), 9))
    points.write(Remove(row(1), (row(1).head_id,)))
    assert points.write(put(row(1), 3)) == [APPLIED]
    assert points.stamps(row(1)) == [stamp(3)]


def test_rows_whose_keys_resemble_each_other_are_apart(points: Points) -> None:
    """Case 75."""
    rows = [row(1), row(11), row("1"), row("1:chunk_0"), row(1, "product"), row(1, "products:1"), row(1.5)]
    points.write(*(put(one, i) for i, one in enumerate(rows)))
    points.write(Remove(rows[0], (rows[0].head_id,)))
    assert points.stamps(*rows) == [None, *(stamp(i) for i in range(1, len(rows)))]


# --- conditional writes ---------------------------------------------------------------------------------


@pytest.fixture
def conditional(points: Points) -> Points:
    if not points.store.capabilities.conditional_writes:
        pytest.skip("the store does not claim conditional writes")
    return points


def test_an_older_write_of_the_same_log_changes_nothing(conditional: Points) -> None:
    """Case 60, invariant 3."""
    conditional.write(put(row(1), 10, text="new", metadata={"a": 1}))
    older: list[Write] = [put(row(1), 9, text="old"), patch(row(1), 9, metadata={"a": 0}), mark(row(1), 9)]
    assert [conditional.write(write) for write in older] == [[SUPERSEDED]] * 3
    [point] = conditional.scan()
    assert (point.text, point.metadata, point.stamp) == ("new", {"a": 1}, stamp(10, text="new"))


def test_positions_compare_as_numbers(conditional: Points) -> None:
    conditional.write(put(row(1), 9))
    assert conditional.write(put(row(1), 10)) == [APPLIED]
    assert conditional.write(put(row(1), 2**62), put(row(2), 2**62)) == [APPLIED, APPLIED]
    assert conditional.write(put(row(2), 2**62 - 1)) == [SUPERSEDED]


@pytest.mark.parametrize("elsewhere", [{"log": "other log"}, {"partition": 1}])
def test_positions_of_another_log_or_partition_say_nothing(
    conditional: Points, elsewhere: dict[str, Any]
) -> None:
    conditional.write(put(row(1), 10))
    write = patch(row(1), 3)
    moved = type(write)(row(1), {}, stamp(3, **elsewhere))
    assert conditional.write(moved) == [APPLIED]
    assert conditional.stamps(row(1)) == [stamp(3, **elsewhere)]


@pytest.mark.parametrize("elsewhere", [{"log": "other log"}, {"partition": 1}])
def test_across_logs_a_write_is_older_when_order_and_time_of_its_source_are(
    conditional: Points, elsewhere: dict[str, Any]
) -> None:
    """Invariant 3: for rows whose changes come in several logs or partitions."""

    def at(order: str, ms: int, server: str = "pg/shop") -> Stamp:
        return stamp(3, **elsewhere, source=SourcePosition(server, order, ms))

    held = stamp(10, source=SourcePosition("pg/shop", "00ff", 2**41))
    accepted = [
        at("00fe", 2**41),
        at("00fe", 2**41 + 1),
        at("0100", 5),
        at("00fe", 5, "pg/other"),
        stamp(3, **elsewhere),
    ]
    older = at("00fe", 2**41 - 1)
    for one in (*accepted, older):
        conditional.write(put(row(1), 10))
        conditional.write(Patch(row(1), {}, held))
        outcome = SUPERSEDED if one is older else APPLIED
        assert conditional.write(Patch(row(1), {}, one)) == [outcome], one
        assert conditional.stamps(row(1)) == [held if one is older else one]
        conditional.write(Remove(row(1), (row(1).head_id,)))


def test_a_superseded_row_does_not_hold_up_its_neighbours(conditional: Points) -> None:
    conditional.write(put(row(2), 10))
    outcomes = conditional.write(put(row(1), 5), put(row(2), 5), patch(row(3), 5), put(row(4), 5))
    assert outcomes == [APPLIED, SUPERSEDED, MISSING, APPLIED]


def test_later_chunks_share_the_fate_of_their_superseded_head(conditional: Points) -> None:
    if not conditional.store.capabilities.atomic_calls:
        pytest.skip("the store does not claim atomic calls")
    one, two = row(1), row(2)
    conditional.write(put(one, 10), put_chunk(one, 1, text="b"))
    outcomes = conditional.write(
        put_chunk(one, 2, text="c"),
        put(one, 5),
        patch_chunks(one, ("b", 7), metadata={"a": 1}),
        trim(one, "b"),
        put(two, 5),
        put_chunk(two, 1, text="b"),
    )
    assert outcomes == [SUPERSEDED] * 4 + [APPLIED] * 2
    assert chunks_of(conditional, one) == {0: ("text", {}), 1: ("b", {})}
    assert chunks_of(conditional, two) == {0: ("text", {}), 1: ("b", {})}


def test_an_older_removal_leaves_a_row_that_came_back(conditional: Points) -> None:
    """Invariant 3: with all its chunks."""
    one, ids = row(1), (row(1).head_id, chunk_id(row(1), "more 1"))
    conditional.write(put(one, 10), put_chunk(one, 1))
    older = [Position("log", 0, 9), Position("log", 0, 0)]
    assert [conditional.write(Remove(one, ids, at)) for at in older] == [[SUPERSEDED]] * 2
    assert chunks_of(conditional, one) == {0: ("text", {}), 1: ("more 1", {})}
    for at in (Position("log", 0, 10), Position("log", 0, 11), Position("other log", 0, 9), None):
        conditional.write(put(one, 10), put_chunk(one, 1))
        assert conditional.write(Remove(one, ids, at)) == [APPLIED]
        assert list(conditional.scan()) == []
    assert conditional.write(Remove(one, ids, older[0])) == [APPLIED]


def test_chunks_that_shall_stay_are_those_that_were_looked_up(points: Points) -> None:
    """Invariants 3 and 8: where another writer has changed the row since, what stays of it may not be what
    the change was planned on."""
    if not points.store.capabilities.atomic_calls:
        pytest.skip("the store does not claim atomic calls")
    one, before = row(1), stamp(5).position
    points.write(put(one, 5), put_chunk(one, 1, text="b"))
    points.write(put(one, 7, text="other"), trim(one, "b"))
    stays: list[Write] = [patch_chunks(one, ("b", 1), metadata={}), trim(one, stay=("b",))]
    for head in (put(one, 9), patch(one, 9, text="other")):
        writes = [replace(head, base=before), *stays]
        assert points.write(*writes, put(row(2), 1)) == [MISSING] * len(writes) + [APPLIED]
    assert chunks_of(points, one) == {0: ("other", {})}
    now: list[Write] = [
        replace(put(one, 9), base=stamp(7).position),
        put_chunk(one, 1),
        trim(one, stay=("more 1",)),
    ]
    assert points.write(*now) == [APPLIED] * 3
    assert points.write(*now) == [APPLIED] * 3  # an answer that was lost
    points.write(Remove(one, (one.head_id,)))
    assert points.write(*now) == [MISSING] * 3
    assert chunks_of(points, one) == {}


# --- updates only ---------------------------------------------------------------------------------------


@pytest.fixture
def updating(points: Points) -> Points:
    if not points.store.capabilities.update_only:
        pytest.skip("the store does not claim updates only")
    return points


def test_a_put_that_is_only_for_a_row_that_is_there_makes_none(updating: Points) -> None:
    """Invariant 3: a late write of a deleted row does not bring it back."""
    updating.write(put(row(1), 1))
    again = [replace(put(row(key), 5, text="new"), only_if_present=True) for key in (1, 2)]
    assert updating.write(*again, put(row(3), 5)) == [APPLIED, MISSING, APPLIED]
    assert updating.stamps(row(1), row(2), row(3)) == [stamp(5, text="new"), None, stamp(5)]
    assert updating.write(again[0]) == [APPLIED]


def test_a_put_only_for_a_row_that_is_there_replaces_the_whole_point(updating: Points) -> None:
    before = put(row(1), 1, text="old", metadata={"a": 1, "stays": ["x"]}, values={"n": "x"}, at=vector(1.0))
    updating.write(before)
    again = put(row(1), 2, text="new", metadata={"d": 4}, keep=frozenset({"stays"}), at=vector(0.0, 1.0))
    assert updating.write(replace(again, only_if_present=True)) == [APPLIED]
    [point] = updating.scan(vectors=True)
    assert (point.text, point.metadata, point.stamp) == (
        "new",
        {"d": 4, "stays": ["x"]},
        stamp(2, text="new"),
    )
    assert point.vector is not None
    assert point.vector.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert (point.text_hash, updating.stamps(row(1), values=True)[0].values) == (text_hash("new"), None)


def test_a_put_only_for_a_row_that_is_there_is_conditional_as_well(updating: Points) -> None:
    if not updating.store.capabilities.conditional_writes:
        pytest.skip("the store does not claim conditional writes")
    updating.write(put(row(1), 10))
    older = replace(put(row(1), 9, text="old"), only_if_present=True)
    assert updating.write(older) == [SUPERSEDED]
    if updating.store.capabilities.atomic_calls:
        assert updating.write(older, put_chunk(row(1), 1)) == [SUPERSEDED, SUPERSEDED]
    assert chunks_of(updating, row(1)) == {0: ("text", {})}


def test_a_late_put_never_outlives_the_removal_of_its_row(updating: Points) -> None:
    """Invariant 3: whether it comes before or after. Whoever only reads first would bring it back."""
    if updating.store.capabilities.kind == "memory":
        pytest.skip("a simulation has no threads")
    rows = [row(i) for i in range(3)]
    for turn in range(8):
        updating.write(*(put(one, 2 * turn) for one in rows))
        late = [replace(put(one, 2 * turn + 1, text="late"), only_if_present=True) for one in rows]
        told: list[Any] = []

        def work(worker: int, late: list[Put] = late, told: list[Any] = told) -> None:
            if worker:
                told += updating.write(*late)
            else:
                updating.write(*(Remove(one, (one.head_id,)) for one in rows))

        in_threads(2, work)
        assert updating.stamps(*rows) == [None] * 3
        assert set(told) <= {APPLIED, MISSING}


def test_later_chunks_are_left_alone_where_a_put_met_no_row(updating: Points) -> None:
    """Invariant 8."""
    if not updating.store.capabilities.atomic_calls:
        pytest.skip("the store does not claim atomic calls")
    head = replace(put(row(1), 5), only_if_present=True)
    assert updating.write(put_chunk(row(1), 1), head) == [MISSING, MISSING]
    assert list(updating.scan()) == []


# --- values, names, keys --------------------------------------------------------------------------------


HOSTILE_NAMES = ["a.b", "a b", "a'b", 'a"b', "a\\b", "%s", "{x}", "日本", "🙂", "$set", "", "id", "x" * 300]


def is_refused(points: Points, write: Write) -> bool:
    try:
        assert points.write(write) == [APPLIED]
    except AdapterError as error:
        return error.failure.kind is Kind.REFUSED
    return False


def test_hostile_metadata_names_and_texts_are_only_data(points: Points) -> None:
    """Case 53. A name that the store cannot hold is refused."""
    names = [name for name in HOSTILE_NAMES if not is_refused(points, put(row(0), metadata={name: "x"}))]
    assert len(names) >= len(HOSTILE_NAMES) - 2
    points.write(Remove(row(0), (row(0).head_id,)))
    metadata = {name: f"{name}'; DROP TABLE items; --" for name in names}
    points.write(put(row(1), text="%s {x} \\ \" ' ☃", metadata=metadata))
    [point] = points.scan()
    assert point.metadata == metadata
    assert point.text == "%s {x} \\ \" ' ☃"
    points.write(patch(row(1), 2, metadata={}, keep=frozenset(HOSTILE_NAMES)))
    assert points.metadata(row(1)) == metadata


@pytest.mark.parametrize("key", [*HOSTILE_NAMES, "a\0b", "k" * 10_000, -(2**63), 2**64, True, None])
def test_hostile_keys_identify_their_row(points: Points, key: Value) -> None:
    one, other = row(key), row("other")
    points.write(put(one, 1), put(other, 2), put_chunk(one, 1))
    assert points.stamps(one, other) == [stamp(1), stamp(2)]
    assert {point.row for point in points.scan()} == {one, other}
    points.write(Remove(one, (one.head_id,)))
    assert points.stamps(one, other) == [None, stamp(2)]


def test_normalised_values_come_back_as_they_were_written(points: Points) -> None:
    """Case 86, for numbers that are not finite."""
    metadata = points.legal(
        {
            "int": -7,
            "huge": 2**63 + 1,
            "float": 0.1,
            "tiny": 5e-324,
            "words": "línea\n\t☃",
            "bool": True,
            "null": None,
            "list": ["a", "b"],
            "empty": [],
            "nested": {"a": [{"b": None}]},
            "nan": float("nan"),
            "mixed": [1, "a", None, 2.5],
        }
    )
    points.write(put(row(1), metadata=metadata))
    assert points.metadata(row(1)) == metadata
    assert type(points.metadata(row(1))["bool"]) is bool


def test_integers_up_to_the_claimed_limit_are_exact(points: Points) -> None:
    limit = points.store.capabilities.max_integer
    metadata = {"big": limit, "small": -limit}
    points.write(put(row(1), metadata=metadata))
    assert points.metadata(row(1)) == metadata


def test_nul_is_kept_or_refused_but_never_dropped(points: Points) -> None:
    for i, write in enumerate((put(row(1), text="a\0b"), put(row(2), metadata={"n": "a\0b"}))):
        if points.store.capabilities.nul_in_text:
            assert points.write(write) == [APPLIED]
            continue
        with pytest.raises(AdapterError) as caught:
            points.write(put(row("fine")), write)
        assert caught.value.failure.kind is Kind.REFUSED
        assert points.stamps(row(i + 1)) == [None]


BAD_VECTORS = {
    "not a number": np.array([np.nan, 0, 0, 0], dtype=np.float32),
    "infinite": np.array([np.inf, 0, 0, 0], dtype=np.float32),
    "too short": np.array([1, 0, 0], dtype=np.float32),
    "too long": np.array([1, 0, 0, 0, 0], dtype=np.float32),
}


@pytest.mark.parametrize("bad", BAD_VECTORS.values(), ids=BAD_VECTORS.keys())
def test_a_bad_vector_is_refused_and_its_batch_can_be_bisected(points: Points, bad: Any) -> None:
    with pytest.raises(AdapterError) as caught:
        points.write(put(row(1)), put(row(2), at=bad), put(row(3)))
    assert caught.value.failure.kind is Kind.REFUSED
    if points.store.capabilities.atomic_calls:
        assert points.stamps(row(1), row(2), row(3)) == [None, None, None]
    assert points.write(put(row(1)), put(row(3))) == [APPLIED, APPLIED]


def test_a_search_for_something_impossible_is_refused(points: Points) -> None:
    for bad in (BAD_VECTORS["too short"], BAD_VECTORS["not a number"]):
        with pytest.raises(AdapterError) as caught:
            points.search(bad)
        assert caught.value.failure.kind is Kind.REFUSED


def test_a_refusal_shows_no_content(points: Points) -> None:
    with pytest.raises(AdapterError) as caught:
        points.write(put(row(1), text="secret", metadata={"x": "secret"}, at=BAD_VECTORS["too short"]))
    assert "secret" not in str(caught.value)


# --- collections ----------------------------------------------------------------------------------------


def refusal_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except StartupRefused as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize(
    "name", ["Items", "my-items", "tbl.x", 'q"u', "日本語", "x" * 63, "x" * 45, "select"]
)
def test_a_collection_may_have_any_name_that_the_store_can_hold(
    backend: Any, deadline: Deadline, name: str
) -> None:
    """What it cannot hold, it refuses by name; plain names all can."""
    refusal = refusal_of(lambda: backend.store.prepare(CollectionSpec(name, 4, "s"), deadline))
    if refusal is not None:
        assert repr(name) in refusal
        assert name not in ("select", "x" * 45)
        return
    points = Points(backend.store, deadline, name)
    points.write(put(row(1), 1))
    assert points.stamps(row(1)) == [stamp(1)]


def test_a_collection_needs_a_name(backend: Any, deadline: Deadline) -> None:
    with pytest.raises(StartupRefused):
        backend.store.prepare(CollectionSpec("", 4, "s"), deadline)


def test_collections_are_apart(points: Points) -> None:
    points.store.prepare(CollectionSpec("others", 4, "test/model/4"), points.deadline)
    others = Points(points.store, points.deadline, "others")
    points.write(put(row(1), 1))
    assert others.stamps(row(1)) == [None]
    others.write(Remove(row(1), (row(1).head_id,)))
    assert points.stamps(row(1)) == [stamp(1)]


def test_rows_of_several_tables_share_a_collection(points: Points) -> None:
    points.write(put(row(1, "products"), 1), put(row(1, "reviews"), 2))
    points.write(Remove(row(1, "products"), ()))
    assert points.stamps(row(1, "products"), row(1, "reviews")) == [None, stamp(2)]


def test_preparing_again_keeps_what_is_there(points: Points) -> None:
    points.write(put(row(1), 1))
    points.store.prepare(CollectionSpec(ITEMS, 4, "test/model/4"), points.deadline)
    assert points.stamps(row(1)) == [stamp(1)]


@pytest.mark.parametrize(
    ("spec", "has", "wanted"),
    [
        (CollectionSpec(ITEMS, 8, "test/model/4"), "4", "8"),
        (CollectionSpec(ITEMS, 4, "test/model/4", "dot"), "cosine", "dot"),
        (CollectionSpec(ITEMS, 4, "another/model"), "test/model/4", "another/model"),
    ],
    ids=["dimensions", "metric", "space"],
)
def test_a_collection_made_for_something_else_is_refused_with_both_values(
    points: Points, backend: Any, spec: CollectionSpec, has: str, wanted: str
) -> None:
    """Case 148, invariant 6."""
    with backend.reopen() as again, pytest.raises(StartupRefused) as caught:
        again.prepare(spec, points.deadline)
    assert has in str(caught.value)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_collection_that_is_not_there_is_for_the_operator(points: Points) -> None:
    """Case 147."""
    nowhere = Points(points.store, points.deadline, "nowhere")
    calls: list[Callable[[], object]] = [
        lambda: nowhere.write(put(row(1))),
        lambda: nowhere.stamps(row(1)),
        lambda: list(nowhere.scan()),
    ]
    for call in calls:
        with pytest.raises(AdapterError) as caught:
            call()
        assert caught.value.failure.kind is Kind.OPERATOR
        assert caught.value.failure.cause == "collection_missing"


# --- search ---------------------------------------------------------------------------------------------


def fan(count: int, **metadata: Value) -> list[Any]:
    """Rows around the first quarter of a circle: the lower the number, the nearer to (1, 0)."""
    angles = [i / count * np.pi / 2 for i in range(count)]
    return [
        put(row(i), at=vector(float(np.cos(a)), float(np.sin(a))), metadata={"n": i, **metadata})
        for i, a in enumerate(angles)
    ]


def test_search_gives_the_nearest_first(points: Points) -> None:
    points.write(*fan(20))
    hits = points.search(vector(1.0), 3)
    assert [hit.row for hit in hits] == [row(0), row(1), row(2)]
    assert hits[0].score == pytest.approx(1.0, abs=1e-4)
    assert hits[0].score > hits[1].score > hits[2].score
    assert (hits[1].text, hits[1].metadata, hits[1].chunk) == ("text", {"n": 1}, 0)


def test_search_counts_direction_not_length(points: Points) -> None:
    points.write(put(row(1), at=vector(100.0)), put(row(2), at=vector(-0.01)))
    assert [round(hit.score, 4) for hit in points.search(vector(2.0))] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("metric", "scores"), [("dot", [200.0, 6.0, 0.0]), ("l2", [-1.0, -np.sqrt(5), -98.0])]
)
def test_search_follows_the_metric_of_the_collection(
    backend: Any, deadline: Deadline, metric: str, scores: list[float]
) -> None:
    backend.store.prepare(CollectionSpec("metric", 4, "s", metric), deadline)
    points = Points(backend.store, deadline, "metric")
    points.write(put(row(1), at=vector(3.0)), put(row(2), at=vector(0, 1.0)), put(row(3), at=vector(100.0)))
    assert [hit.score for hit in points.search(vector(2.0))] == pytest.approx(scores)


def test_search_finds_all_matches_of_a_rare_filter(points: Points) -> None:
    common = fan(400, color="red")
    rare = [put(row(f"rare {i}"), at=vector(-1.0, 0.01 * i), metadata={"color": "blue"}) for i in range(5)]
    for i in range(0, 400, 100):
        points.write(*common[i : i + 100])
    points.write(*rare)
    assert {hit.row for hit in points.search(vector(1.0), 5, color="blue")} == {p.point.row for p in rare}
    assert len(points.search(vector(1.0), 50, color="blue")) == 5
    assert points.search(vector(1.0), 5, color="green") == []


def test_filters_compare_whole_values_by_type(points: Points) -> None:
    values: list[Value] = [1, True, "1", ["a"], ["a", "b"], {"x": 1}, {"x": 1, "y": 2}, None]
    points.write(*(put(row(i), metadata={"v": value}) for i, value in enumerate(values)), put(row("none")))
    for i, value in enumerate(values):
        found = [row(i)] if points.legal({"v": value}) else []
        assert [hit.row for hit in points.search(vector(1.0), v=value)] == found, value
    assert points.search(vector(1.0), v=1, w=2) == []


FILTERS = (
    FilterField("color", FilterType.TEXT),
    FilterField("size", FilterType.INTEGER),
    FilterField("price", FilterType.NUMBER),
    FilterField("sold", FilterType.BOOLEAN),
    FilterField("made", FilterType.TIME),
    FilterField("a b.c", FilterType.TEXT),
)
FILTERED: dict[str, list[Value]] = {
    "color": ["red", "green", "r" * 5000],
    "size": [1, 2**53, -7],
    "price": [0.5, 19.9, -1e300],
    "sold": [True, False],
    "made": ["2026-02-28", "2026-02-28T23:59:59.123456", "2026-02-28T23:59:59.123456Z"],
    "a b.c": ["x", "y"],
}


def filtered_rows() -> list[Put]:
    return [
        put(row(f"{name} {i}"), metadata={name: value})
        for name, values in FILTERED.items()
        for i, value in enumerate(values)
    ]


def assert_filters_find_their_rows(points: Points) -> None:
    for name, values in FILTERED.items():
        for i, value in enumerate(values):
            equal: dict[str, Any] = {name: value}
            assert [hit.row for hit in points.search(vector(1.0), **equal)] == [row(f"{name} {i}")], equal
        nothing: dict[str, Any] = {name: "something else"}
        assert points.search(vector(1.0), **nothing) == []


def test_filters_may_be_declared_for_what_is_there_already_and_more_than_once(points: Points) -> None:
    """Their indexes are made when they are missing, and hold what was written before and after."""
    written = filtered_rows()
    points.write(*written[::2])
    spec = CollectionSpec(ITEMS, 4, "test/model/4", filters=FILTERS)
    for _ in range(2):
        points.store.prepare(spec, points.deadline)
    points.write(*written[1::2])
    assert_filters_find_their_rows(points)
    points.store.prepare(CollectionSpec(ITEMS, 4, "test/model/4"), points.deadline)
    assert_filters_find_their_rows(points)


def test_filters_may_be_declared_for_a_new_collection(backend: Any, deadline: Deadline) -> None:
    backend.store.prepare(CollectionSpec("filtered", 4, "s", filters=FILTERS), deadline)
    points = Points(backend.store, deadline, "filtered")
    points.write(*filtered_rows())
    assert_filters_find_their_rows(points)
    points.write(patch(row("color 0"), 1, metadata={"color": "blue"}), put(row("size 0"), 1))
    assert [hit.row for hit in points.search(vector(1.0), color="blue")] == [row("color 0")]
    assert points.search(vector(1.0), color="red") == points.search(vector(1.0), size=1) == []


def test_a_value_of_another_type_than_declared_is_kept(backend: Any, deadline: Deadline) -> None:
    """Case 52. An index may not know it: a search finds it or does not, and nothing else."""
    backend.store.prepare(CollectionSpec("filtered", 4, "s", filters=FILTERS), deadline)
    points = Points(backend.store, deadline, "filtered")
    values: list[Value] = ["much", True, 5, 2.5, ["a"]]
    points.write(*(put(row(i), metadata={"size": v, "color": v, "sold": v}) for i, v in enumerate(values)))
    for i, value in enumerate(values):
        assert points.metadata(row(i)) == {"size": value, "color": value, "sold": value}
        hits = points.search(vector(1.0), size=value, color=value, sold=value)
        assert [hit.row for hit in hits] in ([row(i)], []), value


def test_a_table_may_fill_a_vector_by_its_name(backend: Any, deadline: Deadline) -> None:
    if not backend.store.capabilities.named_vectors:
        pytest.skip("the store does not claim named vectors")
    backend.store.prepare(CollectionSpec("named", 4, "s", vector="title"), deadline)
    backend.store.prepare(CollectionSpec("unnamed", 4, "s"), deadline)
    for name in ("named", "unnamed"):
        points = Points(backend.store, deadline, name)
        points.write(put(row(1), 1, at=vector(1.0)), put(row(2), 1, at=vector(0, 1.0)))
        points.write(put(row(1), 2, at=vector(0, 0, 1.0)), patch(row(2), 2, metadata={"a": 1}))
        assert [hit.row for hit in points.search(vector(0, 0, 1.0), 1)] == [row(1)]
        assert [hit.row for hit in points.search(vector(1.0), a=1)] == [row(2)]
        vectors = {point.row: point.vector.tolist() for point in points.scan(vectors=True)}  # type: ignore[union-attr]
        assert vectors == {row(1): [0, 0, 1, 0], row(2): [0, 1, 0, 0]}
        with backend.reopen() as again:
            spec = CollectionSpec(name, 4, "s", vector="title" if name == "unnamed" else None)
            with pytest.raises(StartupRefused, match="vector"):
                again.prepare(spec, deadline)


TENANTS = CollectionSpec("tenants", 4, "s", filters=(FilterField("org", FilterType.TEXT, tenant=True),))


@pytest.fixture
def shared(backend: Any, deadline: Deadline) -> Points:
    """A collection of several tenants."""
    backend.store.prepare(TENANTS, deadline)
    return Points(backend.store, deadline, "tenants")


def of_tenant(points: Points, whose: str, limit: int = 10) -> set[Row]:
    return {hit.row for hit in points.search(vector(1.0), limit, org=whose)}


def test_a_tenant_finds_its_own_points_only_however_near_those_of_others_are(shared: Points) -> None:
    near = [put(row(i), metadata={"org": "one"}, at=vector(1.0, i / 100)) for i in range(50)]
    far = [put(row(f"far {i}"), metadata={"org": "other"}, at=vector(-1.0, 0.1)) for i in range(5)]
    shared.write(*near, *far, put(row("odd"), metadata={"org": ""}), put(row("s"), metadata={"org": "o'ne"}))
    assert of_tenant(shared, "other", 5) == {one.point.row for one in far}
    assert len(of_tenant(shared, "one", 50)) == 50
    assert of_tenant(shared, "o'ne") == {row("s")}
    assert of_tenant(shared, "") == {row("odd")}
    assert of_tenant(shared, "nobody") == set()


def test_a_row_that_changes_its_tenant_leaves_the_former_one(shared: Points) -> None:
    """By a patch, by a put, to a tenant that there was not before, and with all its chunks."""
    one, keep = row(1), frozenset[str]()
    shared.write(put(one, 1, metadata={"org": "a"}), put_chunk(one, 1, text="b", metadata={"org": "a"}))
    shared.write(put(row(2), 1, metadata={"org": "a"}))
    moved = patch_chunks(one, ("b", 1), metadata={"org": "b"}, keep=keep)
    assert shared.write(patch(one, 2, metadata={"org": "b"}), moved) == [APPLIED, APPLIED]
    assert (of_tenant(shared, "a"), of_tenant(shared, "b")) == ({row(2)}, {one})
    assert shared.write(put(one, 3, text="new", metadata={"org": "c"}, at=vector(0, 1.0))) == [APPLIED]
    chunk_stays = patch_chunks(one, ("b", 1), metadata={"org": "c"})
    assert shared.write(chunk_stays) == [APPLIED]
    assert (of_tenant(shared, "b"), of_tenant(shared, "c")) == (set(), {one})
    held = {point.chunk: point for point in shared.scan(vectors=True) if point.row == one}
    assert len(held) == 2
    assert held[0].vector is not None
    assert held[1].vector is not None
    assert (held[0].vector.tolist(), held[1].vector.tolist()) == (
        [0, 1, 0, 0],
        put_chunk(one, 1).vector.tolist(),
    )
    assert [point.text for point in held.values()].count("new") == 1


def test_stamps_and_removals_need_no_tenant(shared: Points) -> None:
    """A delete does not tell it."""
    one, two = row(1), row(2)
    shared.write(put(one, 1, metadata={"org": "a"}), put_chunk(one, 1, metadata={"org": "a"}))
    shared.write(put(two, 1, metadata={"org": "b"}))
    shared.write(patch(two, 2, metadata={"org": "a"}))
    assert shared.stamps(one, two) == [stamp(1), stamp(2)]
    assert shared.write(mark(two, 3)) == [APPLIED]
    assert (of_tenant(shared, "a"), of_tenant(shared, "b")) == ({one, two}, set())
    assert shared.write(Remove(one, ()), Remove(two, (), Position("log", 0, 4))) == [APPLIED, APPLIED]
    assert list(shared.scan()) == []


def test_a_row_without_a_tenant_is_nobodys(shared: Points) -> None:
    """It is found by whoever does not ask for a tenant, and may get one."""
    shared.write(put(row(1), 1, metadata={"org": None}), put(row(2), 1), put(row(3), metadata={"org": "a"}))
    assert of_tenant(shared, "") == of_tenant(shared, "null") == set()
    assert {hit.row for hit in shared.search(vector(1.0))} == {row(1), row(2), row(3)}
    shared.write(patch(row(1), 2, metadata={"org": "a"}), patch(row(3), 2, metadata={"org": None}))
    assert of_tenant(shared, "a") == {row(1)}


def test_searching_an_empty_collection_finds_nothing(points: Points) -> None:
    assert points.search(vector(1.0)) == []


# --- scan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 25, 1000])
def test_a_scan_gives_every_point_once_in_id_order(points: Points, limit: int) -> None:
    points.write(*(put(row(i), i) for i in range(25)))
    ids = [point.id for point in points.scan(limit)]
    assert ids == sorted(row(i).head_id for i in range(25))


def test_a_scan_shows_the_stamp_on_chunk_0_and_the_vector_when_asked(points: Points) -> None:
    points.write(put(row(1), 3, at=vector(0.5, 0.25)), put_chunk(row(1), 1, text="more"))
    head, chunk = sorted(points.scan(), key=lambda point: point.chunk)
    assert (head.stamp, head.vector, head.text_hash) == (stamp(3), None, text_hash("text"))
    assert (chunk.chunk, chunk.row, chunk.text, chunk.stamp) == (1, row(1), "more", None)
    vectors = {point.chunk: point.vector for point in points.scan(vectors=True)}
    assert vectors[0] is not None
    assert vectors[0].dtype == np.float32
    written = vector(0.5, 0.25)
    if points.store.capabilities.unit_vectors:
        written /= np.linalg.norm(written)
    assert vectors[0].tolist() == pytest.approx(written.tolist())


def test_a_scan_survives_writes_between_its_pages(points: Points) -> None:
    points.write(*(put(row(i)) for i in range(10)))
    seen = []
    for point in points.scan(2):
        seen.append(point.row)
        points.write(Remove(point.row, ()))
    assert sorted(map(str, seen)) == sorted(str(row(i)) for i in range(10))


# --- batches and threads --------------------------------------------------------------------------------


def test_a_batch_of_the_claimed_size_fits(points: Points) -> None:
    count = points.store.capabilities.max_batch_items
    rows = [row(i) for i in range(count)]
    assert points.write(*(put(one, i) for i, one in enumerate(rows))) == [APPLIED] * count
    assert points.stamps(*rows) == [stamp(i) for i in range(count)]
    patches = [patch(one, i + 1, metadata={"p": i}) for i, one in enumerate(rows)]
    assert points.write(*patches) == [APPLIED] * count


def test_an_empty_batch_does_nothing(points: Points) -> None:
    assert points.write() == []


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(0)`` to ``work(count - 1)`` at the same time; raise what any of them raised."""
    failed: list[BaseException] = []

    def guarded(worker: int) -> None:
        try:
            work(worker)
        except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_writers_of_different_rows_do_not_disturb_each_other(points: Points) -> None:
    def work(worker: int) -> None:
        mine = [row(f"{worker}/{i}") for i in range(5)]
        for turn in range(10):
            points.write(*(put(one, turn) for one in mine[:3]), Remove(mine[4], ()))
            points.write(*(patch(one, turn, metadata={"t": turn}) for one in mine[:2]), put(mine[4], turn))
            assert points.stamps(*mine) == [*[stamp(turn)] * 3, None, stamp(turn)]

    in_threads(6, work)
    assert len(list(points.scan())) == 6 * 4


def test_of_writers_of_one_row_at_the_same_time_the_newest_stays(conditional: Points) -> None:
    """Invariant 3: whoever reads before it writes would lose this."""
    if conditional.store.capabilities.kind == "memory":
        pytest.skip("a simulation has no threads")

    def work(worker: int) -> None:
        for turn in range(5):
            offset = turn * 4 + (worker * 7 + turn) % 4
            conditional.write(put(row(1), offset, text=f"{offset}"))

    in_threads(4, work)
    conditional.write(put(row(2)))
    newest = max(turn * 4 + (worker * 7 + turn) % 4 for worker in range(4) for turn in range(5))
    assert conditional.stamps(row(1)) == [stamp(newest, text=f"{newest}")]


def test_closing_twice_is_fine(store: Store) -> None:
    store.close()
    store.close()
