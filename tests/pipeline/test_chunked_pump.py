"""Rows of several chunks through the service's own pump, which is killed after every single point in turn.

A store that takes points one by one is the hard case: there a row can be torn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from tests.pipeline.pump import DIMENSIONS, FIRST, PRODUCTS, FaultyStore, Log, Pump, delete, row, upsert

from vectide.core.budget import memory_of, memory_of_chunks
from vectide.core.chunks import Chunking
from vectide.core.failures import Failure, Kind
from vectide.core.mapping import MetadataField
from vectide.core.model import Change, Stamp, Truncated, Upserted, listed_hash
from vectide.core.template import Template
from vectide.ports import Deadline, Outcome, PatchChunks, Put, Remove, Stored, Trim, Write
from vectide.testing.fold import Fold
from vectide.testing.store import CAPABILITIES

#: Every sentence of :func:`text` is a chunk.
DOCS = replace(
    PRODUCTS,
    template=Template.parse("{body}"),
    metadata=(MetadataField("price", "price"), MetadataField("title", "title")),
    chunking=Chunking(tokens=16),
)
ONE = row(1)


def text(words: str) -> str:
    """A sentence for each word, which says it ten times."""
    return " ".join(f"{' '.join([word] * 10)}." for word in words.split())


def doc(words: str, price: int = 1, key: int = 1) -> Upserted:
    return upsert(key, "t", text(words), price)


def without_body(price: int) -> Upserted:
    """A change of the metadata, which does not tell the text."""
    full = doc("", price)
    columns = {name: value for name, value in full.columns.items() if name != "body"}
    return replace(full, columns=columns, unavailable=frozenset({"body"}))


class Killed(BaseException):
    """The process is gone."""


class PointStore(FaultyStore):
    """Takes one point after the other; the process dies when so many are ``left`` to be taken (None: never).
    After every point any row that is not marked open must be whole."""

    def __init__(self) -> None:
        super().__init__(DOCS, able=replace(CAPABILITIES, atomic_calls=False))
        self.left: int | None = None

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        return [self._take(collection, _points_of(write), deadline) for write in writes]

    def _take(self, collection: str, points: Sequence[Write], deadline: Deadline) -> Outcome:
        for point in points:
            (outcome,) = super().write(collection, [point], deadline)
            assert_whole_or_open(self)
            if self.left is not None:
                self.left -= 1
                if not self.left:
                    raise Killed
        return outcome

    def row(self) -> Sequence[Stored]:
        return self.inner.of_row(DOCS.collection, ONE)

    def stamp(self) -> Stamp | None:
        return next((point.stamp for point in self.row() if point.id == ONE.head_id), None)


def _points_of(write: Write) -> list[Write]:
    match write:
        case Remove(of, ids):
            return [replace(write, ids=(id_,)) for id_ in ids]
        case Trim(of, ids, stay):
            return [Trim(of, (id_,), stay) for id_ in ids]
        case PatchChunks(of, metadata, chunks, keep):
            return [PatchChunks(of, metadata, (chunk,), keep) for chunk in chunks]
    return [write]


def assert_whole_or_open(store: PointStore) -> None:
    """Invariant 8."""
    points, stamp = store.row(), store.stamp()
    if not points:
        return
    assert stamp is not None, "chunks without chunk 0"
    ids = ONE.chunk_ids(stamp.chunks)
    if stamp.open:
        assert {point.id for point in points} <= set(ids)
        return
    assert [(point.chunk, point.id) for point in points] == list(enumerate(ids))
    assert tuple(listed_hash(point.text_hash) for point in points) == stamp.chunks
    assert len({str(point.metadata) for point in points}) == 1


def held(store: PointStore) -> list[tuple[str | None, Mapping[str, object]]]:
    return [(point.text, point.metadata) for point in store.row()]


def expected(changes: Sequence[Change]) -> list[tuple[str, Mapping[str, object]]]:
    fold = Fold(DOCS, Pump(Log(), tables=(DOCS,)).provider.count_tokens)
    for change in changes:
        if isinstance(change, Truncated):
            fold.truncate()
        else:
            fold.apply(change)  # type: ignore[arg-type]
    return [(chunk, row.metadata) for row in fold.rows.values() for chunk in row.chunks]


def killed_at(number: int, before: Sequence[Upserted], after: Change) -> tuple[Log, PointStore, bool]:
    """The log and the store of a process that had settled ``before`` and died during ``after``, when so many
    points of it were taken; whether it came to that."""
    log, store = Log(), PointStore()
    log.append(before[0] if before else delete(99), *before[1:])
    pump = Pump(log, store=store, tables=(DOCS,))
    pump.run()
    log.append(after)
    store.left = number
    try:
        pump.run()
    except Killed:
        assert log.committed[FIRST] < log.ends[FIRST]  # invariant 1
        store.left = None
        return log, store, True
    return log, store, False


CHANGES: dict[str, tuple[list[Upserted], Change, int]] = {
    "an insert": ([], doc("a b c d"), 5),
    "growth": ([doc("a b")], doc("a b c d e"), 5),
    "shrinking": ([doc("a b c d e")], doc("a b"), 5),
    "an edit": ([doc("a b c d")], doc("a x c d"), 4),
    "another head": ([doc("a b c")], doc("x b c"), 1),
    "a rotation": ([doc("a b c")], doc("c a b"), 5),
    "a repetition": ([doc("a b")], doc("a b b b"), 4),
    "metadata": ([doc("a b c d")], doc("a b c d", 2), 5),
    "metadata without the text": ([doc("a b c d")], without_body(2), 5),
    "a delete": ([doc("a b c d")], delete(1), 5),
    "a truncate": ([doc("a b c d")], Truncated(0), 5),
    "an empty text": ([doc("a b")], doc(""), 3),
    "one chunk": ([doc("a")], doc("b"), 1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_after_a_crash_between_any_two_points_the_row_is_found_and_made_whole(what: str) -> None:
    """Cases 62, 70, 71, 73, 74, 76 and 78; invariants 1, 8 and 14: a row that may be torn says so, is never
    skipped, and ends as the fold of the topic."""
    before, after, points = CHANGES[what]
    number = 1
    while True:
        log, store, killed = killed_at(number, before, after)
        if not killed:
            break
        torn, whole = store.stamp(), held(store) == expected([*before, after])
        second = Pump(log, store=store, tables=(DOCS,))
        second.run()
        assert held(store) == expected([*before, after]), f"killed after {number} points"
        assert not second.letters.letters
        if whole and (torn is None or not torn.open):
            assert not second.provider.sold  # invariant 7
        number += 1
    assert number - 1 == points
    assert held(store) == expected([*before, after])


@pytest.mark.parametrize("what", ["an insert", "growth", "shrinking", "a rotation", "metadata", "a truncate"])
@pytest.mark.parametrize("later", [without_body(7), doc("z a"), delete(1)], ids=["partial", "text", "delete"])
def test_whatever_comes_after_a_torn_change_meets_a_row_that_is_not_trusted(what: str, later: Change) -> None:
    """Invariants 8 and 14."""
    before, after, points = CHANGES[what]
    for number in range(1, points):
        log, store, _ = killed_at(number, before, after)
        log.append(later)
        second = Pump(log, store=store, tables=(DOCS,))
        second.run()
        assert held(store) == expected([*before, after, later]), f"killed after {number} points"


def test_a_row_that_was_only_begun_and_can_never_be_finished_is_taken_back() -> None:
    """Invariants 8 and 10: the store refuses a chunk after others were written."""
    log, store = Log(), PointStore()
    log.append(doc("a b p"))
    pump = Pump(log, store=store, tables=(DOCS,))
    refused = Failure(Kind.REFUSED, "too_large", "no such point")
    store.refusal = lambda writes: (
        refused if any(isinstance(write, Put) and write.point.text == text("p") for write in writes) else None
    )
    pump.run()
    assert [letter.cause for letter in pump.letters.letters] == ["too_large"]
    assert held(store) == []


# --- stores with atomic calls ---------------------------------------------------------------------------


class CallStore(FaultyStore):
    """Remembers its calls."""

    def __init__(self) -> None:
        super().__init__(DOCS)
        self.calls: list[Sequence[Write]] = []

    def write(self, collection: str, writes: Sequence[Write], deadline: Deadline) -> Sequence[Outcome]:
        self.calls.append(list(writes))
        return super().write(collection, writes, deadline)


def test_many_rows_of_many_chunks_take_one_look_up_and_few_writes() -> None:
    """Case 70: one read of chunk 0 of all rows, and the writes of a row travel together."""
    log, store = Log(), CallStore()
    log.append(*(doc(f"a{key} b{key} c{key}", key=key) for key in range(50)))
    pump = Pump(log, store=store, tables=(DOCS,))
    pump.run()
    assert store.looked_up == [50]
    rows = [{point.point.row for point in call if isinstance(point, Put)} for call in store.calls]
    assert sum(map(len, rows)) == 50
    assert len(store.calls) < 10
    assert len(pump.provider.sold) == 150


def test_only_what_an_edit_made_new_is_sold() -> None:
    """Cases 76 and 78, invariant 7."""
    log, store = Log(), CallStore()
    words = " ".join(f"w{at}" for at in range(50))
    log.append(doc(words))
    pump = Pump(log, store=store, tables=(DOCS,))
    pump.run()
    sold = len(pump.provider.sold)
    for change in (doc(words, 2), without_body(3), doc(words.replace("w25", "new"), 3)):
        log.append(change)
        pump.run()
    assert pump.provider.sold[sold:] == [text("new")]
    puts = [write for call in store.calls[-1:] for write in call if isinstance(write, Put)]
    assert [put.point.text for put in puts] == [text("new")]
    assert len(store.inner.of_row(DOCS.collection, ONE)) == 50


# --- memory ---------------------------------------------------------------------------------------------


def long_doc(key: int, chunks: int) -> Upserted:
    return doc(" ".join(f"w{key}x{at}" for at in range(chunks)), key=key)


def texts_under_way(pump: Pump) -> int:
    return len(pump.stream.stations.texts_under_way())


@pytest.mark.parametrize("stuck", ["embed", "write"])
def test_the_chunks_under_way_take_no_more_memory_than_is_set_and_a_row(stuck: str) -> None:
    """Case 172, invariant 11: small records make many chunks, whose texts and vectors wait for the provider
    or the store. The rest of the rows waits, and is done when that goes on."""
    chunks, limit = 100, 2 * 2**20
    log = Log()
    log.append(*(long_doc(key, chunks) for key in range(60)))
    pump = Pump(log, store=FaultyStore(DOCS), tables=(DOCS,), bytes_in_flight=limit)
    budget, most = pump.stream.intake.budget, 0
    a_row = memory_of_chunks(chunks, chunks * 120, DIMENSIONS)
    pump.executor.held.add(stuck)
    pump.run_for(20)
    assert limit // 2 <= budget.held_by_rows <= limit // 2 + a_row
    assert texts_under_way(pump) <= 12 * chunks
    pump.executor.held.clear()

    def is_done() -> bool:
        nonlocal most
        most = max(most, budget.held_bytes + budget.held_by_rows)
        return pump.settled("written", DOCS) == 60

    pump.until(is_done, "everything to be written")
    assert most <= limit + a_row + 50 * memory_of(200)
    assert (budget.held_by_rows, len(pump.provider.sold)) == (0, 60 * chunks)


def test_a_row_that_takes_more_memory_than_is_set_is_written_all_the_same_alone() -> None:
    """Invariant 11: nothing waits for ever."""
    log = Log()
    log.append(*(long_doc(key, 500) for key in range(4)))
    pump = Pump(log, store=FaultyStore(DOCS), tables=(DOCS,), bytes_in_flight=200_000)
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, texts_under_way(pump))
        return pump.settled("written", DOCS) == 4

    pump.until(is_done, "everything to be written")
    assert most <= 500
    assert pump.stream.intake.budget.held_by_rows == 0


def test_rows_that_wait_for_room_are_left_to_the_next_owner() -> None:
    """Invariants 4 and 12: a stop does not wait for what nobody has paid for."""
    log = Log()
    log.append(*(long_doc(key, 100) for key in range(20)))
    pump = Pump(log, store=FaultyStore(DOCS), tables=(DOCS,), bytes_in_flight=200_000)
    pump.executor.held.add("embed")
    pump.run_for(5)
    assert pump.stream.intake.budget.held_by_rows > 0
    pump.stream.stop()
    pump.executor.held.clear()
    pump.until(lambda: pump.stream.finished, "the stop")
    assert pump.stream.intake.budget.held_by_rows == 0
    second = Pump(log, store=pump.store, tables=(DOCS,))
    second.run()
    assert len(second.store.points(DOCS)) == 20
