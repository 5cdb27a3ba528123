"""What completes a change: an earlier one, the row under its former key, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vectide.core.completion import carried, completed
from vectide.core.lane import Entry, Lane, RowQueue, merge
from vectide.core.mapping import MetadataField, TableMapping, value_hash
from vectide.core.model import Deleted, Position, Record, Row, Stamp, Upserted
from vectide.core.planner import EmbedText, Incomplete, Known, PatchMetadata, plan
from vectide.core.template import Template

MAPPING = TableMapping(
    table="docs",
    source="docs",
    collection="docs",
    template=Template.parse("{title} {body} {tags}"),
    metadata=(MetadataField("title", "title"), MetadataField("tags", "tags")),
)
STAMP = Stamp(
    space="s",
    layout=MAPPING.layout,
    chunks=("c",),
    columns={"title": value_hash("a title"), "tags": value_hash(["x", "y"])},
    metadata_hash="m",
    position=Position("log", 0, 5),
    values={"title": "a title", "body": "a body", "tags": "x, y"},
)


def change(*unavailable: str, **columns: Any) -> Upserted:
    return Upserted({"id": 1}, columns, frozenset(unavailable))


def test_only_what_the_event_left_out_is_filled_in() -> None:
    partly = change("body", "tags", title="new")
    assert completed(partly, {"title": "old", "body": "text", "more": 1}) == change(
        "tags", title="new", body="text"
    )
    assert completed(partly, {"title": "old"}) is partly


def test_only_the_present_row_tells_what_was_put_elsewhere() -> None:
    """The value may be new: no earlier change and nothing stored stands in for it."""
    moved = replace(change("body", "tags", title="t"), offloaded=frozenset({"body"}))
    row = {"body": "b", "tags": []}
    before = completed(moved, row)
    assert before.unavailable == before.offloaded == {"body"}
    present = completed(moved, row, present=True)
    assert not present.unavailable | present.offloaded
    assert present.columns["body"] == "b"
    following = merge(entries(moved, change("body", title="u", tags=[]))).change
    assert isinstance(following, Upserted)
    assert following.offloaded == {"body"}
    known = Known(Row.of("docs", {"id": 1}), Position("log", 0, 9), STAMP, "s")
    assert plan(moved, known, MAPPING) == Incomplete(("body", "tags"))
    assert not isinstance(
        plan(moved, known, replace(MAPPING, template=Template.parse("{title}"))), Incomplete
    )


def test_a_row_hands_over_its_texts_where_they_are_the_values() -> None:
    """The list of tags is metadata too, and its text is not the list."""
    assert carried(STAMP, MAPPING) == {"title": "a title", "body": "a body"}


def test_a_null_is_handed_over_as_null() -> None:
    values = {"title": None, "body": None, "tags": None}
    nulls = replace(STAMP, columns={"title": value_hash(None), "tags": value_hash(["x"])}, values=values)
    assert carried(nulls, MAPPING) == {"title": None, "body": None}


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        replace(STAMP, stale=True),
        replace(STAMP, open=True),
        replace(STAMP, ahead=True),
        replace(STAMP, values=None),
    ],
)
def test_a_row_that_may_be_wrong_or_kept_nothing_hands_over_nothing(stamp: Stamp | None) -> None:
    """Invariant 5: also not where the table does not want stored values."""
    assert carried(stamp, MAPPING) == {}
    assert carried(STAMP, replace(MAPPING, on_incomplete=("reread", "dead-letter"))) == {}


@pytest.mark.parametrize(
    ("template", "text", "value"),
    [
        ("{body}", "a body", "a body"),
        ("[{body}]", "a body", "a body"),
        ("Note: {body} (end)", "Note: a body (end)", "a body"),
        ("Note: {body}", "Note: Note: twice", "Note: twice"),
    ],
)
def test_a_row_whose_text_is_made_of_one_column_hands_over_what_is_in_its_text(
    template: str, text: str, value: str
) -> None:
    """Case 26: no values are kept of such a row."""
    notes = replace(MAPPING, template=Template.parse(template), metadata=())
    stamp = replace(STAMP, layout=notes.layout, columns={}, values=None, text=text)
    assert carried(stamp, notes) == {"body": value}
    assert carried(replace(stamp, layout="another"), notes) == {}
    assert carried(replace(stamp, text=None), notes) == {}


def test_a_text_is_no_value_where_the_value_counts() -> None:
    """White space around a text is dropped: where the column is metadata too, that has the value."""
    notes = replace(MAPPING, template=Template.parse("{title}"), metadata=(MetadataField("title", "name"),))
    stamp = replace(STAMP, layout=notes.layout, values=None, text="a title")
    spaced = replace(stamp, columns={"title": value_hash(" a title\n")})
    assert carried(stamp, notes) == {"title": "a title"}
    assert carried(spaced, notes) == {}
    assert carried(replace(spaced, metadata={"name": " a title\n"}), notes) == {"title": " a title\n"}


@pytest.mark.parametrize(
    "stored",
    [["x", "y"], '["x","y"]'],
    ids=["as it is", "as JSON text, in a store without lists"],
)
def test_a_row_hands_over_its_metadata_where_that_is_the_value(stored: Any) -> None:
    """Case 26. The text of the list is not the list."""
    stamp = replace(STAMP, metadata={"title": "a title", "tags": stored})
    assert carried(stamp, MAPPING)["tags"] == ["x", "y"]


def test_metadata_that_is_stored_in_another_spelling_is_not_handed_over() -> None:
    """What is no number is stored as null."""
    stamp = replace(STAMP, columns={**STAMP.columns, "tags": value_hash("NaN")}, metadata={"tags": None})
    assert carried(stamp, MAPPING) == {"title": "a title", "body": "a body"}
    null = replace(STAMP, columns={**STAMP.columns, "tags": value_hash(None)}, metadata={})
    assert carried(null, MAPPING)["tags"] is None


def test_what_can_hand_nothing_over_is_not_waited_for() -> None:
    bare = replace(MAPPING, template=Template.parse("{title}"), metadata=())
    assert MAPPING.hands_over
    assert bare.hands_over
    assert not replace(bare, store_text=False).hands_over
    assert not replace(MAPPING, on_incomplete=("reread", "dead-letter")).hands_over


def test_stored_values_are_left_alone_while_the_source_is_to_be_asked_first() -> None:
    stamp = replace(STAMP, columns={**STAMP.columns, "body": "of another text"})
    known = Known(Row.of("docs", {"id": 1}), Position("log", 0, 9), stamp, "s")
    partly = change("body", title="new", tags=[])
    assert isinstance(plan(partly, known, MAPPING), EmbedText)
    assert plan(partly, replace(known, use_stored=False), MAPPING) == Incomplete(("body",))


@pytest.mark.parametrize(
    ("ways", "first"),
    [
        (("stored", "reread", "dead-letter"), False),
        (("reread", "stored"), True),
        (("reread", "dead-letter"), True),
        (("stored",), False),
        (("dead-letter",), False),
    ],
)
def test_the_order_of_the_ways_is_the_configured_one(ways: tuple[str, ...], first: bool) -> None:
    assert replace(MAPPING, on_incomplete=ways).rereads_first is first


# --- the changes of a row whose key changed -------------------------------------------------------------


LANE = Lane("docs", 0, "log", MAPPING)
GONE = Deleted({"id": 1})
OLD = Row.of("docs", {"id": 7})


def entries(*changes: Upserted | Deleted, holds: int | None = None, moved: int | None = None) -> list[Entry]:
    made = [Entry(LANE, Record("docs", 0, at, b"", b""), one, 0.0) for at, one in enumerate(changes)]
    if holds is not None:
        made[holds].holds = True
    if moved is not None:
        made[moved].takes_from = [(OLD, made[moved])]
    return made


def test_a_change_knows_the_create_that_it_follows() -> None:
    created, later = change("body", title="a"), change("body", title="b")
    run = entries(GONE, created, later, moved=1)
    assert merge(run).moved_here is run[1]
    assert merge(run[1:]).moved_here is run[1]
    assert merge(entries(GONE, created, later)).moved_here is None


def test_nothing_of_the_former_key_comes_over_a_delete_or_a_dead_lettered_change() -> None:
    run = entries(change("body", title="a"), GONE, change("body", title="b"), moved=0)
    assert merge(run).moved_here is None
    run = entries(change("body", title="a"), change("body", title="b"), moved=0)
    run[0].before_dead = True
    assert merge(run).moved_here is None


def test_what_comes_before_a_delete_that_holds_is_taken_alone() -> None:
    queue = RowQueue(Row.of("docs", {"id": 1}))
    queue.waiting.extend(entries(change(title="a"), change(title="b"), GONE, change(title="c"), holds=2))
    assert len(queue.take()) == 2
    assert queue.held
    assert queue.take() == []
    queue.waiting[0].holds = False
    assert [type(entry.change) for entry in queue.take()] == [Deleted, Upserted]


def test_a_second_create_that_takes_over_waits_for_the_first() -> None:
    """What holds for the first one is let go when that has settled; both in one work would wait for ever."""
    queue = RowQueue(Row.of("docs", {"id": 1}))
    run = entries(change("body", title="a"), GONE, change("body", title="b"))
    run[0].takes_from, run[2].takes_from = [(OLD, run[0])], [(OLD, run[2])]
    queue.waiting.extend(run)
    assert queue.take() == run[:2]
    assert queue.take() == run[2:]


def test_a_row_that_was_read_again_says_so_until_its_events_tell_all() -> None:
    known = Known(Row.of("docs", {"id": 1}), Position("log", 0, 9), None, "s")
    whole = change(title="t", body="b", tags=[])
    read = plan(whole, replace(known, ahead=True), MAPPING)
    assert isinstance(read, EmbedText)
    (point,) = read.points
    assert point.stamp is not None
    assert point.stamp.ahead
    assert Stamp.from_payload(point.stamp.to_payload(point.row)) == point.stamp
    stored = replace(point.stamp, values=point.values)
    later = replace(known, stamp=stored, position=Position("log", 0, 10))
    partly = plan(change("body", title="new", tags=[]), later, MAPPING)
    assert isinstance(partly, EmbedText)
    assert partly.points[0].stamp is not None
    assert partly.points[0].stamp.ahead
    patched = plan(change("body", title="t", tags=[]), replace(later, must_write=True), MAPPING)
    assert isinstance(patched, PatchMetadata)
    assert patched.stamp.ahead
    told = plan(whole, later, MAPPING)
    assert isinstance(told, PatchMetadata)
    assert not told.stamp.ahead


def test_a_delete_that_holds_is_forgotten_with_its_lane() -> None:
    queue = RowQueue(Row.of("docs", {"id": 1}))
    lane = Lane("docs", 0, "log", MAPPING, leaving=True)
    queue.waiting.append(Entry(lane, Record("docs", 0, 0, b"", b""), GONE, 0.0, holds=True))
    assert not queue.held
    assert queue.take() == []
    assert not queue.waiting


def test_metadata_that_was_read_again_counts_as_ahead_as_text_does() -> None:
    """Invariant 14: a row that got another key takes neither from its former one, which may have been read
    when another row had that key."""
    whole = change(title="t", body="b", tags=[])
    known = Known(Row.of("docs", {"id": 1}), Position("log", 0, 9), None, "s", ahead=True)
    read = plan(whole, known, MAPPING)
    assert isinstance(read, EmbedText)
    later = replace(known, stamp=read.points[0].stamp, position=Position("log", 0, 10), ahead=False)
    patched = plan(change("tags", title="t", body="b"), replace(later, must_write=True), MAPPING)
    assert isinstance(patched, PatchMetadata)
    assert patched.stamp.ahead
    assert carried(patched.stamp, MAPPING) == {}
