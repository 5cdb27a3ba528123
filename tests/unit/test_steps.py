"""The writes of a row, and the steps in which a store without atomic calls makes them (invariant 8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vectide.core.chunkdiff import Tail
from vectide.core.model import Point, Position, Row, Stamp, listed_hash, text_hash
from vectide.core.opening import opened
from vectide.core.planner import EmbedText, MarkStale, PatchMetadata, Plan, RemoveRow, Skip
from vectide.jobs.steps import Step, steps_of, writes_of
from vectide.ports import Mark, Patch, PatchChunks, Put, Remove, Trim, Write
from vectide.testing.points import stamp as stamped
from vectide.testing.points import vector

ROW = Row.of("docs", {"id": 1})
NONE: frozenset[str] = frozenset()
#: One object for all: arrays are not compared by their content.
VECTOR = vector(1.0)


def stamp(offset: int, names: str, **marks: Any) -> Stamp:
    """Of a row whose chunks are single letters."""
    return replace(stamped(offset, *names[1:], text=names[0]), **marks)


def ids(names: str) -> tuple[str, ...]:
    return ROW.chunk_ids(tuple(listed_hash(text_hash(name)) for name in names))


def point(names: str, at: int, new: Stamp | None = None) -> Point:
    return Point(ids(names)[at], ROW, at, names[at], text_hash(names[at]), {"a": 1}, new)


def put(names: str, at: int, new: Stamp | None = None) -> Put:
    return Put(point(names, at, new), VECTOR)


def steps(writes: list[Write], held: Stamp | None) -> list[tuple[Write, ...]]:
    return [step.writes for step in steps_of(writes, held, atomic_calls=False)]


OLD, NEW = stamp(5, "abc"), stamp(9, "axb")
#: What chunk 0 says in between: its own position, and every chunk that may exist.
OPEN = replace(OLD, open=True, chunks=stamp(5, "abcx").chunks)
AT = NEW.position
PATCH = Patch(ROW, {"a": 1}, NEW)
MOVE = PatchChunks(ROW, {"a": 1}, ((ids("ab")[1], 2),))
TRIM = Trim(ROW, ids("abc")[2:], ids("axb")[1:])
NO_TRIM = Trim(ROW, (), ids("axb")[1:])


# --- writes ---------------------------------------------------------------------------------------------


def test_chunk_0_comes_first_then_new_chunks_then_those_that_stay_or_go() -> None:
    keep = frozenset({"k"})
    tail = Tail(NO_TRIM.stay, MOVE.chunks, TRIM.ids)
    head = PatchMetadata({"a": 1}, keep, NEW, {"body": "t"})
    decided = EmbedText((point("axb", 1),), ("x",), keep, (1,), head, tail)
    assert writes_of(decided, ROW, [VECTOR], AT) == [
        Patch(ROW, {"a": 1}, NEW, keep, {"body": "t"}),
        Put(decided.points[0], VECTOR, keep),
        replace(MOVE, keep=keep),
        TRIM,
    ]
    whole = EmbedText((point("axb", 0, NEW), *decided.points), ("a", "x"), keep, (1, 1), None, tail)
    assert [type(write) for write in writes_of(whole, ROW, [VECTOR] * 2, AT)] == [Put, Put, PatchChunks, Trim]


def test_only_chunk_0_of_a_row_that_was_there_is_an_update() -> None:
    tail = Tail(NO_TRIM.stay, MOVE.chunks, TRIM.ids)
    whole = EmbedText((point("axb", 0, NEW), point("axb", 1)), ("a", "x"), NONE, (1, 1), None, tail)
    for update_only in (True, False):
        writes = writes_of(whole, ROW, [VECTOR] * 2, AT, update_only=update_only)
        assert [write.only_if_present for write in writes if isinstance(write, Put)] == [update_only, False]


def test_chunk_0_names_what_it_was_planned_on_where_later_chunks_stay() -> None:
    tail = Tail(NO_TRIM.stay, MOVE.chunks, TRIM.ids)
    whole = EmbedText((point("axb", 0, NEW), point("axb", 1)), ("a", "x"), NONE, (1, 1), None, tail)
    patched = PatchMetadata({"a": 1}, NONE, NEW, tail=tail)
    cases: list[tuple[Plan, Position | None]] = [
        (whole, OLD.position),
        (patched, OLD.position),
        (replace(whole, tail=None), None),
        (replace(patched, tail=None), None),
    ]
    for planned, base in cases:
        head, *_ = writes_of(planned, ROW, [VECTOR] * 2, AT, base=OLD.position)
        assert isinstance(head, Put | Patch)
        assert head.base == base


def test_a_table_that_is_not_cut_makes_one_write_of_a_change() -> None:
    assert writes_of(PatchMetadata({"a": 1}, NONE, NEW), ROW, [], AT) == [PATCH]
    assert writes_of(MarkStale(NEW, "why"), ROW, [], AT) == [Mark(ROW, NEW)]
    assert writes_of(RemoveRow(ids("abc"), "deleted"), ROW, [], AT) == [Remove(ROW, ids("abc"), AT)]
    with pytest.raises(ValueError, match="Skip writes nothing"):
        writes_of(Skip("why"), ROW, [], AT)


# --- atomic calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "writes", [[PATCH, put("axb", 1), MOVE, TRIM], [put("axb", 0, NEW), put("axb", 1)], [PATCH]]
)
def test_where_calls_are_atomic_the_writes_of_a_row_travel_together(writes: list[Write]) -> None:
    assert steps_of(writes, OLD, atomic_calls=True) == [Step(tuple(writes), NEW)]


# --- one point at a time --------------------------------------------------------------------------------


def test_a_row_is_marked_open_written_trimmed_and_closed_by_its_chunk_0() -> None:
    """Case 73: what fails is repeated from there on; chunk 0 closes the row only after it."""
    made = steps_of([PATCH, put("axb", 1), MOVE, TRIM], OLD, atomic_calls=False)
    assert [step.writes for step in made] == [(Mark(ROW, OPEN),), (put("axb", 1), MOVE), (TRIM,), (PATCH,)]
    assert [step.leaves for step in made] == [OPEN, OPEN, OPEN, NEW]
    head = put("xb", 0, stamp(9, "xb"))
    assert steps([head, put("xb", 1)], OLD)[-1] == (head,)


def test_a_step_that_has_nothing_to_do_is_left_out() -> None:
    assert steps([PATCH, MOVE, NO_TRIM], OLD) == [(Mark(ROW, OPEN),), (MOVE,), (PATCH,)]
    assert steps([PATCH, TRIM], OLD) == [(Mark(ROW, OPEN),), (TRIM,), (PATCH,)]


@pytest.mark.parametrize("write", [PATCH, put("a", 0, stamp(9, "a")), Mark(ROW, NEW), Remove(ROW, ids("a"))])
def test_a_row_of_one_point_needs_no_mark(write: Write) -> None:
    assert steps([write], stamp(5, "a")) == [(write,)]
    assert steps([write, NO_TRIM], stamp(5, "a")) == [(write,)]


def test_a_new_row_begins_with_an_open_chunk_0_and_is_closed_by_a_mark() -> None:
    first, *between, last = steps([put("ab", 0, stamp(9, "ab")), put("ab", 1), NO_TRIM], None)
    begun = replace(stamp(9, "ab"), open=True, position=stamp(9, "ab").position.before_all())
    assert first == (put("ab", 0, begun),)
    assert begun.unborn
    assert between == [(put("ab", 1),)]
    assert last == (Mark(ROW, stamp(9, "ab")),)


def test_an_open_row_is_not_marked_twice_unless_it_may_get_other_chunks() -> None:
    assert steps([PATCH, MOVE], OPEN)[0] == (MOVE,)
    assert steps([PATCH, MOVE], replace(OPEN, values={"body": "t"}))[0] == (MOVE,)
    narrow = replace(OPEN, chunks=OLD.chunks)
    assert steps([PATCH, MOVE], narrow)[0] == (Mark(ROW, OPEN),)


def test_a_removal_ends_with_chunk_0() -> None:
    """Case 74."""
    closed = replace(OLD, open=True)
    assert steps([Remove(ROW, ids("abc"), AT)], OLD) == [
        (Mark(ROW, closed),),
        (Trim(ROW, ids("abc")[1:], ()),),
        (Remove(ROW, ids("a"), AT),),
    ]
    assert steps([Remove(ROW, ids("abc"))], closed)[0] == (Trim(ROW, ids("abc")[1:], ()),)


# --- the open mark --------------------------------------------------------------------------------------


def test_an_open_row_lists_every_chunk_that_may_exist_as_often_as_it_may() -> None:
    held = opened(stamp(5, "abbc"), stamp(9, "xbcc"))
    assert held.chunks[0] == OLD.chunks[0]
    may_exist = set(ROW.chunk_ids(held.chunks))
    assert may_exist == {*ids("abbc"), *ids("xbcc")}


def test_an_open_row_tells_of_its_last_whole_version() -> None:
    held = opened(replace(OLD, stale=True, values={"body": "t"}), NEW)
    assert (held.position, held.columns, held.metadata_hash) == (OLD.position, OLD.columns, OLD.metadata_hash)
    assert (held.open, held.stale, held.values, held.unborn) == (True, True, None, False)
