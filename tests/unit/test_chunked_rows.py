"""What a change means for a row of several chunks: which are embedded, patched, moved and removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vectide.core.chunks import MAX_CHUNKS, Chunking
from vectide.core.mapping import MappingError, MetadataField, TableMapping
from vectide.core.model import Deleted, Position, Row, Stamp, Upserted, listed_hash, text_hash
from vectide.core.planner import (
    EmbedText,
    Incomplete,
    Known,
    PatchMetadata,
    Plan,
    RemoveRow,
    Skip,
    Unfit,
    plan,
)
from vectide.core.template import Template

ROW = Row.of("docs", {"id": 1})
SPACE = "test/4"


def mapping(text: str = "{body}", tokens: int = 4, **changes: Any) -> TableMapping:
    """A table whose texts are cut into chunks of four characters: mostly one for each word."""
    defaults: dict[str, Any] = {
        "table": "docs",
        "source": "docs",
        "collection": "docs",
        "template": Template.parse(text),
        "metadata": (MetadataField("price", "price"), MetadataField("note", "note")),
        "chunking": Chunking(tokens),
    }
    return TableMapping(**(defaults | changes))


DOCS = mapping()


def words(names: str) -> str:
    """``abc``: three words of four letters, each a chunk."""
    return " ".join(name * 4 for name in names)


def upserted(names: str, *unavailable: str, **changes: Any) -> Upserted:
    columns = {"body": words(names), "price": 1, "note": "n"} | changes
    known = {name: value for name, value in columns.items() if name not in unavailable}
    return Upserted({"id": 1}, known, frozenset(unavailable))


def planned(change: Upserted | Deleted, stamp: Stamp | None, by: TableMapping = DOCS, **known: Any) -> Plan:
    given: dict[str, Any] = {"position": Position("log", 0, 9), "stamp": stamp, "space": SPACE}
    return plan(change, Known(ROW, **(given | known)), by)


def stored(names: str, by: TableMapping = DOCS, **marks: Any) -> Stamp:
    """The stamp of the row with this text, as a look-up gives it."""
    made = planned(upserted(names), None, by, position=Position("log", 0, 5))
    assert isinstance(made, EmbedText)
    return replace(made.stamp, values=made.points[0].values, **marks)


def embedded(decided: Plan) -> EmbedText:
    assert isinstance(decided, EmbedText)
    return decided


def patched(decided: Plan) -> PatchMetadata:
    assert isinstance(decided, PatchMetadata)
    return decided


def ids(names: str) -> tuple[str, ...]:
    """Ids of the row's points when it has this text."""
    return ROW.chunk_ids(listed(names))


def listed(names: str) -> tuple[str, ...]:
    return tuple(listed_hash(text_hash(name * 4)) for name in names)


# --- identity -------------------------------------------------------------------------------------------


def test_chunk_0_has_the_id_of_the_row_and_a_later_one_that_of_its_text() -> None:
    assert ids("a") == (ROW.head_id,)
    assert ids("ab")[1] == ids("xb")[1] == ids("xyb")[2]
    assert len({*ids("abc"), *Row.of("docs", {"id": 2}).chunk_ids(listed("abc"))}) == 6


def test_a_text_that_comes_twice_is_two_points() -> None:
    assert len(set(ids("aaaa"))) == 4
    assert ids("abcb")[1::2] == ids("xbb")[1:]


def test_ids_never_change() -> None:
    """Those of points that are in stores already."""
    assert ROW.chunk_ids(("0", "00112233445566aa", "00112233445566aa")) == (
        "2d412d29-e120-5ca8-9253-1207d04a28c9",
        "9ebb7f4d-6f27-5f66-af2e-7fea84e88706",
        "abcd82bd-5d9f-5ee0-b94e-d163ab485fde",
    )


# --- growing, shrinking, moving -------------------------------------------------------------------------


def test_a_new_row_is_embedded_chunk_by_chunk_with_its_metadata_on_every_point() -> None:
    decided = embedded(planned(upserted("abc"), None))
    assert decided.texts == ("aaaa", "bbbb", "cccc")
    assert decided.tokens == (4, 4, 4)
    assert [(point.id, point.chunk, point.text) for point in decided.points] == [
        (id_, at, name * 4) for at, (id_, name) in enumerate(zip(ids("abc"), "abc", strict=True))
    ]
    assert all(point.metadata == {"price": 1, "note": "n"} for point in decided.points)
    assert [point.stamp is None for point in decided.points] == [False, True, True]
    assert decided.points[0].values == {"body": words("abc")}
    assert decided.stamp.chunks == listed("abc")


def test_only_what_is_added_is_embedded() -> None:
    """Case 70, invariant 7."""
    decided = embedded(planned(upserted("abcde"), stored("ab")))
    assert decided.texts == ("cccc", "dddd", "eeee")
    assert decided.head is not None
    assert decided.stamp.chunks == listed("abcde")
    assert decided.tail is not None
    assert (decided.tail.changed, decided.tail.gone) == ((), ())
    assert decided.tail.ids == ids("abcde")[1:]


def test_a_text_that_only_loses_chunks_costs_nothing() -> None:
    """Case 71, invariant 7."""
    decided = patched(planned(upserted("ab"), stored("abcde")))
    assert decided.tail is not None
    assert (decided.tail.ids, decided.tail.changed, decided.tail.gone) == (
        ids("ab")[1:],
        (),
        ids("abcde")[2:],
    )
    assert decided.stamp.chunks == listed("ab")


def test_one_edited_chunk_is_embedded_and_those_that_move_are_patched() -> None:
    """Case 78, invariant 7."""
    decided = embedded(planned(upserted("axbc"), stored("abc")))
    assert decided.texts == ("xxxx",)
    assert decided.tail is not None
    assert decided.tail.changed == ((ids("abc")[1], 2), (ids("abc")[2], 3))
    assert decided.tail.gone == ()


def test_the_metadata_of_fifty_chunks_change_without_an_embedding() -> None:
    """Case 76, invariant 7."""
    names = "".join(chr(ord("0") + at) for at in range(50))
    decided = patched(planned(upserted(names, price=2), stored(names)))
    assert decided.metadata == {"price": 2, "note": "n"}
    assert decided.tail is not None
    assert decided.tail.changed == tuple((id_, at) for at, id_ in enumerate(ids(names)) if at)


def test_chunks_are_not_patched_for_a_position_alone() -> None:
    decided = patched(planned(upserted("abc"), stored("abc"), must_write=True))
    assert decided.tail is not None
    assert decided.tail.changed == ()


def test_what_comes_first_is_embedded_even_if_the_row_has_it_further_back() -> None:
    """Chunk 0 is a point of its own, and so is the text that it had when that moves back."""
    assert embedded(planned(upserted("ba"), stored("ab"))).texts == ("bbbb", "aaaa")
    first = embedded(planned(upserted("b"), stored("ab")))
    assert (first.texts, first.tail and first.tail.gone) == (("bbbb",), ids("ab")[1:])


def test_a_text_that_comes_once_more_is_one_more_point() -> None:
    decided = embedded(planned(upserted("abbb"), stored("ab")))
    assert decided.texts == ("bbbb", "bbbb")
    assert tuple(point.id for point in decided.points) == ids("abbb")[2:]
    fewer = patched(planned(upserted("ab"), stored("abbb")))
    assert fewer.tail is not None
    assert fewer.tail.gone == ids("abbb")[2:]


def test_the_same_text_again_is_nothing_to_do() -> None:
    """Case 13, invariant 7."""
    assert planned(upserted("abc"), stored("abc")) == Skip("unchanged")


def test_an_unchanged_text_is_not_even_cut() -> None:
    def count(text: str) -> int:
        raise AssertionError("counted")

    stamp = stored("abc")
    assert planned(upserted("abc"), stamp, count_tokens=count) == Skip("unchanged")
    assert patched(planned(upserted("abc", price=2), stamp, count_tokens=count)).stamp.chunks == listed("abc")


def test_a_time_in_the_text_is_a_new_text_though_no_column_changed() -> None:
    by = mapping("{body} {$op}", tokens=5)
    before = upserted("ab")
    stamp = embedded(planned(before, None, by, position=Position("log", 0, 5))).stamp
    assert embedded(planned(replace(before, op="c"), stamp, by)).texts == ("c",)


# --- removal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [Deleted({"id": 1}), upserted("", body=" ")])
def test_all_chunks_go_with_the_row(change: Upserted | Deleted) -> None:
    """Cases 45 and 74."""
    decided = planned(change, stored("abc"))
    assert isinstance(decided, RemoveRow)
    assert decided.ids == ids("abc")


# --- layouts --------------------------------------------------------------------------------------------


def test_another_chunk_size_replaces_all_chunks_at_the_next_change() -> None:
    """Case 81."""
    by = mapping(tokens=9)
    decided = embedded(planned(upserted("abcd", price=2), stored("abcd"), by))
    assert decided.texts == ("aaaa bbbb", "cccc dddd")
    assert decided.tail is not None
    assert set(decided.tail.gone) == set(ids("abcd")[1:])
    assert decided.stamp.layout == by.layout != DOCS.layout


def test_chunks_that_are_the_same_in_the_new_layout_stay() -> None:
    """Case 81, invariant 7."""
    decided = patched(planned(upserted("ab"), stored("ab"), mapping(tokens=5)))
    assert decided.stamp.layout != DOCS.layout


def test_chunking_that_is_switched_on_or_off_takes_over_row_by_row() -> None:
    """Case 81."""
    whole = mapping(chunking=None)
    on = embedded(planned(upserted("abc", price=2), stored("abc", whole)))
    assert on.texts == ("aaaa", "bbbb", "cccc")
    off = embedded(planned(upserted("abc", price=2), stored("abc"), whole))
    assert off.texts == (words("abc"),)
    assert off.tail is not None
    assert (off.tail.ids, off.tail.gone) == ((), ids("abc")[1:])


def test_the_columns_are_kept_from_the_first_change_under_chunking_on() -> None:
    """Also where the text itself is too short to be cut."""
    decided = patched(planned(upserted("a"), stored("a", mapping(chunking=None))))
    assert decided.values == {"body": "aaaa"}


def test_a_table_that_is_not_cut_has_the_layout_that_it_always_had() -> None:
    assert mapping(chunking=None).layout == "d6dce1de4c3eedc3"


def test_a_chunk_size_that_cannot_work_is_no_mapping() -> None:
    with pytest.raises(MappingError, match=r"chunk.overlap is 3: .* 0 to 2"):
        mapping(chunking=Chunking(4, 3))
    with pytest.raises(MappingError, match=r"chunk.tokens is 0"):
        mapping(chunking=Chunking(0))


# --- unavailable columns --------------------------------------------------------------------------------


def test_the_text_of_an_unavailable_column_is_rebuilt_to_be_cut_again() -> None:
    """Case 22, invariant 5: no chunk is the whole text, so the column is kept, even if it is the only one."""
    decided = embedded(planned(upserted("", "body"), stored("abcd"), mapping(tokens=9)))
    assert decided.texts == ("aaaa bbbb", "cccc dddd")


def test_chunks_stay_in_the_layout_that_they_have_until_the_text_is_at_hand() -> None:
    """Cases 22 and 81."""
    lost, by = replace(stored("abcd"), values=None), mapping(tokens=9)
    assert planned(upserted("", "body"), lost, by) == Skip("unchanged")
    decided = patched(planned(upserted("", "body", price=2), lost, by))
    assert (decided.stamp.layout, decided.stamp.chunks) == (DOCS.layout, listed("abcd"))
    assert decided.tail is not None
    assert [id_ for id_, _ in decided.tail.changed] == list(ids("abcd")[1:])
    assert planned(upserted("", "body"), replace(lost, open=True), by) == Incomplete(("body",))
    assert embedded(planned(upserted("abcd"), lost, by)).texts == ("aaaa bbbb", "cccc dddd")


def test_unavailable_metadata_is_kept_on_new_chunks_too() -> None:
    decided = embedded(planned(upserted("abx", "note"), stored("ab")))
    assert decided.keep == {"note"}
    assert all(point.metadata == {"price": 1} for point in decided.points)


# --- limits ---------------------------------------------------------------------------------------------


def test_a_row_of_too_many_chunks_is_refused_by_name_without_being_cut_to_the_end() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    text = "word " * 100_000
    assert planned(upserted("", body=text), None, count_tokens=count) == Unfit(
        "too_many_chunks", f"more than {MAX_CHUNKS} chunks"
    )
    assert len(counted) < 10 * MAX_CHUNKS
    fits = embedded(planned(upserted("", body="word " * MAX_CHUNKS), None))
    assert len(fits.points) == MAX_CHUNKS


# --- rows that may be torn ------------------------------------------------------------------------------


def test_of_an_open_row_nothing_is_relied_on() -> None:
    """Invariant 8: any chunk that it lists may be missing, or have old metadata."""
    decided = embedded(planned(upserted("ab"), stored("abc", open=True)))
    assert decided.texts == ("aaaa", "bbbb")
    assert decided.head is None
    assert decided.tail is not None
    assert decided.tail.gone == ids("abc")[2:]
    assert not decided.stamp.open


def test_a_change_of_metadata_makes_an_open_row_whole() -> None:
    """Invariant 8."""
    assert embedded(planned(upserted("ab", price=2), stored("ab", open=True))).texts == ("aaaa", "bbbb")


def test_an_unborn_row_completes_nothing_and_is_never_fenced() -> None:
    """What it holds is of a change that comes again."""
    unborn = replace(stored("ab", open=True), position=Position("log", 0, 9).before_all())
    assert unborn.unborn
    assert planned(upserted("", "body"), unborn) == Incomplete(("body",))
    again = planned(upserted("ab"), unborn, position=Position("log", 0, 0))
    assert embedded(again).texts == ("aaaa", "bbbb")


def test_what_was_applied_before_a_row_was_torn_by_a_dead_letter_is_not_applied_again() -> None:
    """Invariant 10: a replay of it could not be completed, and would be a dead letter too."""
    stamp = stored("ab", open=True, stale=True)
    for offset in (4, 5):
        assert planned(upserted("", "body"), stamp, position=Position("log", 0, offset)) == Skip(
            "already_applied"
        )
    assert embedded(planned(upserted("ab"), stamp)).texts == ("aaaa", "bbbb")
