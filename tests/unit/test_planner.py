"""What every change means for the store, decision by decision."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Deleted, Position, Row, SourcePosition, Stamp, Upserted, listed_hash, text_hash
from vectide.core.planner import (
    Drift,
    EmbedText,
    Incomplete,
    Known,
    MarkStale,
    PatchMetadata,
    Plan,
    RemoveRow,
    Skip,
    Unfit,
    plan,
)
from vectide.core.template import Template
from vectide.settings_where import parse_where

ROW = Row.of("docs", {"id": 1})
COLUMNS = {"title": "one", "body": "two", "price": 5, "note": "n"}
GONE = Deleted({"id": 1})
REMOVED = (ROW.head_id,)


def mapping(text: str = "{title}[\n{body}]", **changes: Any) -> TableMapping:
    defaults: dict[str, Any] = {
        "table": "docs",
        "source": "shop.public.docs",
        "collection": "docs",
        "template": Template.parse(text),
        "metadata": (MetadataField("price", "price"), MetadataField("note", "remark")),
    }
    return TableMapping(**(defaults | changes))


DOCS = mapping()
TITLES = mapping("{title}")
SOFT = mapping(soft_delete=SoftDelete("gone"))


def upserted(*unavailable: str, **changes: Any) -> Upserted:
    columns = {name: value for name, value in {**COLUMNS, **changes}.items() if name not in unavailable}
    return Upserted({"id": 1}, columns, frozenset(unavailable))


def at(offset: int, log: str = "log") -> Position:
    return Position(log, 0, offset)


def planned(
    change: Upserted | Deleted, stamp: Stamp | None, by: TableMapping = DOCS, offset: int = 9, **known: Any
) -> Plan:
    return plan(change, Known(ROW, at(offset), stamp, **({"space": "test/4"} | known)), by)


def embedded(decided: Plan) -> EmbedText:
    assert isinstance(decided, EmbedText)
    return decided


def patched(decided: Plan) -> PatchMetadata:
    assert isinstance(decided, PatchMetadata)
    return decided


def stored(by: TableMapping = DOCS, *, values: bool = True, **marks: Any) -> Stamp:
    """The stamp of the row as it was written by the change at offset 5, as a look-up gives it."""
    (point,) = embedded(planned(upserted(gone=False), None, by, offset=5)).points
    assert point.stamp is not None
    return replace(point.stamp, values=point.values if values else None, **marks)


# --- texts ----------------------------------------------------------------------------------------------


def test_a_new_row_is_embedded_with_everything_that_its_point_needs() -> None:
    """Case 61: also when the change was a metadata-only update of a point that got lost. Invariant 6."""
    (point,) = embedded(planned(upserted(), None)).points
    assert (point.id, point.chunk, point.text, point.text_hash) == (
        ROW.head_id,
        0,
        "one\ntwo",
        text_hash("one\ntwo"),
    )
    assert point.metadata == {"price": 5, "remark": "n"}
    assert point.values == {"title": "one", "body": "two"}
    assert point.stamp is not None
    assert point.stamp.chunks == (listed_hash(point.text_hash),)
    assert (point.stamp.space, point.stamp.position, point.stamp.stale) == ("test/4", at(9), False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (upserted(title="new"), "new\ntwo"),
        (upserted(body=None), "one"),
        (upserted(title="new", price=6), "new\ntwo"),
        (upserted("note", title="new"), "new\ntwo"),
    ],
)
def test_a_new_text_is_embedded(change: Upserted, text: str) -> None:
    """Case 11: decided from what the store holds; the event's own ``before`` is not asked."""
    assert embedded(planned(change, stored())).texts == (text,)


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        (upserted(price=6), {"price": 6, "remark": "n"}),
        (upserted(note=None), {"price": 5, "remark": None}),
        (upserted(price="5"), {"price": "5", "remark": "n"}),
    ],
    ids=["another value", "null", "another type"],
)
def test_new_metadata_is_patched_without_embedding(change: Upserted, metadata: Mapping[str, Any]) -> None:
    """Case 12, invariant 7."""
    decided = patched(planned(change, stored()))
    assert (decided.metadata, decided.keep, decided.values) == (metadata, frozenset(), None)
    assert decided.stamp.chunks == stored().chunks
    assert decided.stamp.position == at(9)
    assert decided.stamp.metadata_hash != stored().metadata_hash


def test_nothing_new_is_nothing_to_do() -> None:
    """Case 13, invariant 7: columns that are not mapped do not count."""
    assert planned(upserted(), stored()) == Skip("unchanged")
    assert planned(upserted(other="x"), stored()) == Skip("unchanged")


def test_columns_that_moved_without_changing_the_text_are_kept_anew() -> None:
    """Invariant 7: the words are the same, so no vector is bought, but the kept columns must be these."""
    decided = patched(planned(upserted(title="one\ntwo", body=None), stored()))
    assert decided.values == {"title": "one\ntwo", "body": None}
    assert decided.stamp.columns != stored().columns
    assert decided.stamp.chunks == stored().chunks


def test_blank_texts_get_no_vector() -> None:
    """Case 44."""
    for blank in (None, "", " \n\t"):
        assert planned(upserted(title=blank, body=None), None) == Skip("empty_text")


def test_a_text_that_becomes_empty_takes_its_vector_along() -> None:
    """Cases 44 and 45."""
    assert planned(upserted(title=" ", body=""), stored()) == RemoveRow(REMOVED, "empty_text")


def test_another_space_is_embedded_anew() -> None:
    """Invariant 6."""
    assert embedded(planned(upserted(), stored(), space="other/4")).texts == ("one\ntwo",)


# --- deletes --------------------------------------------------------------------------------------------


def test_a_delete_removes_the_row_and_its_tombstone_adds_nothing() -> None:
    """Cases 15 and 16: one of the two is enough, in whichever order and number they come."""
    assert planned(GONE, stored()) == RemoveRow(REMOVED, "deleted")
    assert planned(GONE, None) == Skip("absent")


def test_a_soft_delete_removes_and_its_reversal_embeds_in_full() -> None:
    """Case 41."""
    gone = upserted(gone="2024-05-01")
    assert planned(gone, stored(SOFT), SOFT) == RemoveRow(REMOVED, "soft_deleted")
    assert planned(gone, None, SOFT) == Skip("soft_deleted")
    assert embedded(planned(upserted(gone=None), None, SOFT)).texts == ("one\ntwo",)


def test_a_row_that_is_stored_is_not_soft_deleted_by_an_unavailable_column() -> None:
    """Invariant 5: it would not be stored, were it deleted; without a point nobody can tell."""
    assert planned(upserted("gone"), stored(SOFT), SOFT) == Skip("unchanged")
    assert planned(upserted("gone"), None, SOFT) == Incomplete(("gone",))


@pytest.mark.parametrize(("known", "marks"), [({"fresh": True}, {}), ({}, {"stale": True})])
def test_a_soft_delete_that_nobody_can_tell_is_not_guessed(
    known: Mapping[str, Any], marks: Mapping[str, Any]
) -> None:
    """After a delete or a dead-lettered change the stored point says nothing about the row now."""
    assert planned(upserted("gone"), stored(SOFT, **marks), SOFT, **known) == Incomplete(("gone",))


# --- unavailable columns --------------------------------------------------------------------------------


def test_metadata_is_patched_while_the_only_embed_column_is_unavailable() -> None:
    """Case 21, invariant 5."""
    decided = patched(planned(upserted("title", price=6), stored(TITLES), TITLES))
    assert decided.metadata == {"price": 6, "remark": "n"}
    assert decided.stamp.chunks == stored(TITLES).chunks
    assert decided.stamp.columns["title"] == stored(TITLES).columns["title"]


def test_nothing_new_is_told_in_spite_of_unavailable_columns() -> None:
    assert planned(upserted("body", "note"), stored()) == Skip("unchanged")


def test_the_text_is_rebuilt_from_the_stored_column() -> None:
    """Case 22, invariant 5."""
    decided = embedded(planned(upserted("body", title="new"), stored()))
    assert decided.texts == ("new\ntwo",)
    assert decided.points[0].values == {"title": "new", "body": "two"}
    assert decided.points[0].stamp is not None
    assert decided.points[0].stamp.columns["body"] == stored().columns["body"]


@pytest.mark.parametrize(
    ("stamp", "by", "known"),
    [
        (None, DOCS, {}),
        (stored(values=False), DOCS, {}),
        (stored(), mapping(on_incomplete=("dead-letter",)), {}),
        (stored(stale=True), DOCS, {}),
        (stored(), DOCS, {"fresh": True}),
        (stored(), mapping("{title} {body} {summary}"), {}),
    ],
    ids=["no point", "not kept", "not wanted", "stale", "follows a delete", "a column that is new here"],
)
def test_a_text_that_cannot_be_rebuilt_is_never_guessed(
    stamp: Stamp | None, by: TableMapping, known: Mapping[str, Any]
) -> None:
    """Case 22, invariant 5."""
    decided = planned(upserted("body", "summary", title="new"), stamp, by, **known)
    assert isinstance(decided, Incomplete)
    assert set(decided.columns) <= {"body", "summary"}
    assert decided.columns


def test_unavailable_metadata_stays_as_stored() -> None:
    """Invariant 5: by name in the patch, and by hash in the stamp."""
    decided = patched(planned(upserted("note", price=6), stored()))
    assert (decided.metadata, decided.keep) == ({"price": 6}, frozenset({"remark"}))
    assert decided.stamp.columns["note"] == stored().columns["note"]
    whole = patched(planned(upserted(price=6), stored()))
    assert decided.stamp.metadata_hash == whole.stamp.metadata_hash


def test_unavailable_metadata_is_kept_when_the_text_is_new() -> None:
    assert embedded(planned(upserted("note", title="new"), stored())).keep == frozenset({"remark"})


@pytest.mark.parametrize("known", [{}, {"fresh": True}])
def test_unavailable_metadata_that_nothing_holds_is_not_made_up(known: Mapping[str, Any]) -> None:
    """Invariant 5."""
    stamp = stored() if known else None
    assert planned(upserted("note"), stamp, **known) == Incomplete(("note",))


def test_columns_that_the_event_does_not_know_are_a_drift() -> None:
    change = Upserted({"id": 1}, {"title": "one", "price": 5})
    assert planned(change, stored()) == Drift(("body", "note"))


# --- order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 4, 5])
@pytest.mark.parametrize("change", [upserted(title="new"), upserted(price=6), GONE])
def test_what_the_store_already_has_is_never_applied_again(change: Upserted | Deleted, offset: int) -> None:
    """Cases 62 and 63, invariants 3 and 7: the same position, or an older one of the same log."""
    assert planned(change, stored(), offset=offset) == Skip("already_applied")


def test_a_position_of_another_log_says_nothing() -> None:
    change, known = upserted(title="new"), Known(ROW, at(0, "another log"), stored(), "test/4")
    assert embedded(plan(change, known, DOCS)).texts == ("new\ntwo",)


def test_an_unchanged_row_of_another_log_leaves_its_position_where_the_source_tells_the_order() -> None:
    """Invariant 3: the other log's next change is older than this one, and another replica may be about to
    apply it. Only the position keeps that off."""
    order = SourcePosition("db", "08", 1000)
    change, new = upserted(), replace(at(0, "another log"), source=order)
    decided = patched(plan(change, Known(ROW, new, stored(), "test/4"), DOCS))
    assert decided.stamp == replace(stored(values=False), position=new)

    beside = replace(at(0), partition=1, source=order)
    assert patched(plan(change, Known(ROW, beside, stored(), "test/4"), DOCS)).stamp.position == beside

    further = replace(at(9), source=order)
    assert plan(change, Known(ROW, further, stored(), "test/4"), DOCS) == Skip("unchanged")
    assert plan(change, Known(ROW, at(0, "another log"), stored(), "test/4"), DOCS) == Skip("unchanged")


def test_an_open_row_is_never_skipped() -> None:
    """Invariant 8: it may be torn, so it is written whole, whatever comes next."""
    for offset in (4, 5, 9):
        assert embedded(planned(upserted(), stored(open=True), offset=offset)).texts == ("one\ntwo",)
    assert planned(GONE, stored(open=True), offset=5) == RemoveRow(REMOVED, "deleted")


def test_a_change_that_absorbed_others_always_writes_its_position() -> None:
    """Invariant 14: a replay of those would be applied else."""
    decided = patched(planned(upserted(), stored(), must_write=True))
    assert decided.stamp == replace(stored(values=False), position=at(9))


def test_what_follows_a_delete_is_compared_with_what_is_stored_all_the_same() -> None:
    """Case 57, invariant 7: the delete was absorbed, the text in the store is the same."""
    decided = patched(planned(upserted(price=6), stored(), fresh=True, must_write=True))
    assert decided.stamp.chunks == stored().chunks
    assert embedded(planned(upserted(title="new"), stored(), fresh=True)).texts == ("new\ntwo",)


# --- stale rows -----------------------------------------------------------------------------------------


def test_what_is_written_before_a_dead_lettered_change_says_that_it_is_stale() -> None:
    assert patched(planned(upserted(price=6), stored(), stale=True)).stamp.stale
    (point,) = embedded(planned(upserted(title="new"), stored(), stale=True)).points
    assert point.stamp is not None
    assert point.stamp.stale


def test_a_row_is_marked_stale_even_if_nothing_else_is_to_do() -> None:
    assert planned(upserted(), stored(), offset=5, stale=True) == MarkStale(
        stored(stale=True), "already_applied"
    )
    assert patched(planned(upserted(), stored(), stale=True)).stamp.stale


def test_a_row_that_is_marked_is_not_marked_again() -> None:
    assert planned(upserted(), stored(stale=True), offset=5, stale=True) == Skip("already_applied")
    assert planned(GONE, None, stale=True) == Skip("absent")


def test_the_next_complete_change_clears_the_mark() -> None:
    decided = patched(planned(upserted(), stored(stale=True)))
    assert not decided.stamp.stale


# --- layouts --------------------------------------------------------------------------------------------

OTHER_LAYOUT = mapping("{title}: {body}")


def test_a_new_layout_comes_with_the_next_change() -> None:
    decided = embedded(planned(upserted(price=6), stored(), OTHER_LAYOUT))
    assert decided.texts == ("one: two",)
    assert decided.points[0].stamp is not None
    assert decided.points[0].stamp.layout == OTHER_LAYOUT.layout != DOCS.layout


def test_a_new_layout_with_the_same_text_costs_no_vector() -> None:
    """Invariant 7."""
    decided = patched(planned(upserted(), stored(), mapping("{title}\n{body}")))
    assert decided.stamp.layout == mapping("{title}\n{body}").layout
    assert decided.stamp.chunks == stored().chunks


def test_under_a_new_layout_an_unavailable_column_is_not_taken_for_an_unchanged_text() -> None:
    """Case 22, invariant 5: the hash of every column is the same, the text is not."""
    assert embedded(planned(upserted("body"), stored(), OTHER_LAYOUT)).texts == ("one: two",)
    assert planned(upserted("body", title="new"), stored(values=False), OTHER_LAYOUT) == Incomplete(("body",))


def test_a_row_keeps_its_old_layout_while_its_unchanged_text_is_not_at_hand() -> None:
    """Case 21: another template must not send every change of metadata to the dead letters."""
    decided = patched(planned(upserted("body", price=6), stored(values=False), OTHER_LAYOUT))
    assert decided.metadata["price"] == 6
    assert (decided.stamp.layout, decided.stamp.chunks) == (stored().layout, stored().chunks)
    assert planned(upserted("body"), stored(values=False), OTHER_LAYOUT) == Skip("unchanged")


def test_a_vector_of_another_space_is_never_kept_for_want_of_a_text() -> None:
    """Invariant 6."""
    other = replace(stored(TITLES), space="other/4")
    assert planned(upserted("title", price=6), other, TITLES) == Incomplete(("title",))


def test_a_new_metadata_field_is_patched_into_the_row_at_its_next_change() -> None:
    more = mapping(metadata=(*DOCS.metadata, MetadataField("title", "heading")))
    decided = patched(planned(upserted(), stored(), more))
    assert decided.metadata == {"price": 5, "remark": "n", "heading": "one"}


@pytest.mark.parametrize(("by", "text"), [(DOCS, "one\ntwo"), (mapping(store_text=False), None)])
def test_the_text_is_kept_only_where_it_is_wanted(by: TableMapping, text: str | None) -> None:
    assert embedded(planned(upserted(), None, by)).points[0].text == text


@pytest.mark.parametrize("by", [TITLES, mapping(keep_values=False)])
def test_columns_are_kept_only_where_it_helps(by: TableMapping) -> None:
    assert embedded(planned(upserted(), None, by)).points[0].values is None


# --- row filters ----------------------------------------------------------------------------------------

#: A filter over a column that is neither embedded nor metadata, and one over embedded ones.
SHOWN = mapping(where=parse_where("shown AND price <> 0"))
LONG = mapping(where=parse_where("body LIKE 't%' OR price = 0"))


def test_only_rows_that_pass_the_filter_have_points() -> None:
    assert embedded(planned(upserted(shown=True), None, SHOWN)).texts == ("one\ntwo",)
    for columns in ({"shown": False}, {"shown": None}, {"shown": True, "price": 0}):
        assert planned(upserted(**columns), None, SHOWN) == Skip("filtered")
        assert planned(upserted(**columns), kept(SHOWN, shown=True), SHOWN) == RemoveRow(REMOVED, "filtered")


def kept(by: TableMapping, **columns: Any) -> Stamp:
    """The stamp of a row that passed the filter at offset 5."""
    (point,) = embedded(planned(upserted(**columns), None, by, offset=5)).points
    assert point.stamp is not None
    return replace(point.stamp, values=point.values)


def test_a_filtered_row_that_is_not_stored_needs_none_of_its_text() -> None:
    assert planned(upserted("body", shown=False), None, SHOWN) == Skip("filtered")
    assert planned(upserted("body", "shown", price=0), None, SHOWN) == Skip("filtered")


def test_a_row_that_starts_to_match_is_embedded_like_a_new_one() -> None:
    assert embedded(planned(upserted(shown=True), None, SHOWN)).texts == ("one\ntwo",)
    assert planned(upserted("body", shown=True), None, SHOWN) == Incomplete(("body",))


def test_a_row_whose_filtered_columns_are_unchanged_still_matches() -> None:
    stamp = kept(SHOWN, shown=True)
    assert embedded(planned(upserted("shown", title="new"), stamp, SHOWN)).texts == ("new\ntwo",)
    assert isinstance(planned(upserted("shown", note="x"), stamp, SHOWN), PatchMetadata)


def test_an_unavailable_column_of_the_filter_is_not_guessed() -> None:
    """Invariant 5: nothing is embedded, and nothing removed, for want of a value."""
    stamp = kept(SHOWN, shown=True)
    moved = upserted("shown", price=6)
    assert planned(moved, stamp, SHOWN) == Incomplete(("shown",))
    assert planned(moved, None, SHOWN) == Incomplete(("shown",))
    assert planned(moved, replace(stamp, stale=True), SHOWN) == Incomplete(("shown",))
    assert planned(moved, stamp, SHOWN, fresh=True) == Incomplete(("shown",))


def test_an_unavailable_embedded_column_of_the_filter_has_its_kept_value() -> None:
    stamp = kept(LONG)
    assert isinstance(planned(upserted("body", price=6), stamp, LONG), PatchMetadata)
    assert planned(upserted("body", price=6), stamp, LONG, use_stored=False) == Incomplete(("body",))
    was_free = kept(LONG, body="other", price=0)
    assert planned(upserted("body", price=6), was_free, LONG) == RemoveRow(REMOVED, "filtered")


def test_a_kept_text_that_is_not_the_value_is_not_compared() -> None:
    flags = mapping(where=parse_where("body = TRUE OR price = 0"))
    stamp = kept(flags, body=True)
    assert planned(upserted("body", price=6), stamp, flags) == Incomplete(("body",))


def test_a_row_of_another_filter_matches_only_by_its_own_values() -> None:
    other = mapping(where=parse_where("shown AND price <> 1"))
    stamp = kept(other, shown=True)
    assert planned(upserted("shown", title="new"), stamp, SHOWN) == Incomplete(("shown",))
    assert planned(upserted("shown", title="new"), stored(), SHOWN) == Incomplete(("shown",))
    renewed = patched(planned(upserted(shown=True), stamp, SHOWN))
    assert isinstance(planned(upserted("shown", note="x"), renewed.stamp, SHOWN, offset=10), PatchMetadata)


def test_a_value_that_the_filter_cannot_compare_is_never_taken_for_one_that_does_not_match() -> None:
    told = "where: the column price: a list cannot be compared with a number"
    wrong = upserted(shown=True, price=[1])
    assert planned(wrong, kept(SHOWN, shown=True), SHOWN) == Unfit("where_mismatch", told)


def test_a_filter_over_columns_that_the_events_lack_is_drift() -> None:
    assert planned(upserted(), None, SHOWN) == Drift(("shown",))
    assert SHOWN.mapped_columns == ("title", "body", "price", "note", "shown")


def test_what_deletes_a_row_does_not_ask_the_filter() -> None:
    both = mapping(where=parse_where("shown"), soft_delete=SoftDelete("gone"))
    assert planned(upserted("shown", gone=True), stored(), both) == RemoveRow(REMOVED, "soft_deleted")
    assert planned(GONE, stored(), both) == RemoveRow(REMOVED, "deleted")
