"""What a table takes from its rows: identity, text, metadata, soft deletes."""

import json
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.mapping import (
    MappingError,
    MetadataField,
    SoftDelete,
    TableMapping,
    canonical_key,
    metadata_hash,
    value_hash,
)
from vectide.core.model import DecodeError, Deleted, Row, Upserted, short_hash
from vectide.core.template import Template


def mapping(text: str = "{title}\n\n{body}", /, **changes: Any) -> TableMapping:
    defaults: dict[str, Any] = {
        "table": "docs",
        "source": "shop.public.docs",
        "collection": "docs",
        "template": Template.parse(text),
    }
    return TableMapping(**(defaults | changes))


def upserted(columns: Mapping[str, Any], key: Any = None, unavailable: tuple[str, ...] = ()) -> Upserted:
    return Upserted(
        key if key is not None else {"id": 1},
        columns,
        frozenset(unavailable),
        op="u",
        committed_ms=1795243356331,
        table="public.docs",
    )


def keyless(columns: Mapping[str, Any]) -> Upserted:
    return Upserted(None, columns)


def cause_of(change: Upserted | Deleted, **changes: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        mapping(**changes).row_of(change)
    return caught.value.cause


def fields(**named: str) -> tuple[MetadataField, ...]:
    return tuple(MetadataField(source.replace("event_", "$"), name) for source, name in named.items())


# --- identity -------------------------------------------------------------------------------------------


def test_the_row_is_the_table_and_its_kafka_key() -> None:
    """Case 1."""
    assert mapping().row_of(upserted({"id": 1})) == Row("docs", '{"id":1}')


def test_the_order_of_the_key_columns_does_not_matter() -> None:
    """Case 6."""
    one = mapping().row_of(upserted({}, {"tenant": 7, "sku": "A"}))
    other = mapping().row_of(upserted({}, {"sku": "A", "tenant": 7}))
    assert one == other
    assert one.head_id == other.head_id


def test_an_upsert_and_a_delete_of_one_key_are_about_one_row() -> None:
    """Case 15."""
    assert mapping().row_of(Deleted({"id": 1})) == mapping().row_of(upserted({"id": 1}))


def test_an_integer_and_its_text_are_two_keys() -> None:
    assert mapping().row_of(upserted({}, {"id": 1})) != mapping().row_of(upserted({}, {"id": "1"}))


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (7, 7),
        (2**80, 2**80),
        (True, True),
        ("a", "a"),
        (1.0, 1.0),
        (-0.0, 0.0),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (Decimal("12.50"), "12.50"),
        (uuid.UUID("0B5F3C0E-5A0B-4A45-9C4E-0D4F2D0B7A11"), "0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a11"),
        (b"\x00\xff", "AP8="),
        ([1, b"\x00"], [1, "AA=="]),
        ({"b": Decimal(1), "a": 2}, {"b": "1", "a": 2}),
    ],
)
def test_key_values_have_one_spelling_whichever_library_decoded_them(value: Any, canonical: Any) -> None:
    spelt = canonical_key(value)
    assert spelt == canonical
    assert type(spelt) is type(canonical)
    assert str(spelt) == str(canonical)


def test_a_null_key_without_configured_columns_is_refused() -> None:
    """Case 9."""
    assert cause_of(keyless({"id": 1})) == "no_key"
    assert cause_of(Deleted(None, {"id": 1})) == "no_key"
    assert cause_of(Deleted(None)) == "no_key"


def test_configured_key_columns_are_found_in_the_row_when_the_kafka_key_is_null() -> None:
    """Case 8."""
    row = Row("docs", '{"lang":"en","ref":"a"}')
    keyed = mapping(key=("ref", "lang"))
    assert keyed.row_of(keyless({"ref": "a", "lang": "en", "body": "x"})) == row
    assert keyed.row_of(Deleted(None, {"ref": "a", "lang": "en", "body": "x"})) == row


def test_configured_key_columns_are_taken_from_the_kafka_key_first() -> None:
    keyed = mapping(key=("id",))
    assert keyed.row_of(upserted({"id": 2}, {"id": 1, "shard": 5})) == Row("docs", '{"id":1}')
    assert keyed.row_of(Deleted({"id": 1, "shard": 5})) == Row("docs", '{"id":1}')


def test_a_configured_key_column_that_is_null_in_the_kafka_key_is_taken_from_the_row() -> None:
    change = upserted({"ref": "b", "lang": "de"}, {"ref": "b", "lang": None})
    assert mapping(key=("ref", "lang")).row_of(change) == Row("docs", '{"lang":"de","ref":"b"}')


@pytest.mark.parametrize("key", [(), ("ref", "lang")])
def test_a_null_component_never_names_a_row(key: tuple[str, ...]) -> None:
    """Case 10."""
    components = {"ref": "b", "lang": None}
    assert cause_of(upserted(components, components), key=key) == "null_in_key"
    assert cause_of(Deleted(components, components), key=key) == "null_in_key"


@pytest.mark.parametrize("filler", ["", 0, False, 0.0, "1970-01-01T00:00:00Z", "0.00"])
def test_a_filler_in_the_row_before_a_delete_never_names_another_row(filler: Any) -> None:
    """Case 10: a source that logs only the primary key fills the other columns."""
    change = Deleted({"id": 3}, {"id": 3, "sku": filler})
    assert cause_of(change, key=("sku",)) == "filler_in_key"
    assert mapping(key=("sku",)).row_of(Deleted(None, {"id": 3, "sku": filler})).table == "docs"
    assert mapping(key=("sku",)).row_of(Deleted({"id": 3}, {"sku": "A-1"})) == Row("docs", '{"sku":"A-1"}')


def test_a_key_column_that_the_event_does_not_have_is_refused() -> None:
    assert cause_of(upserted({"id": 1}), key=("ref",)) == "key_column_missing"
    assert cause_of(upserted({"id": 1}, unavailable=("ref",)), key=("ref",)) == "key_column_missing"
    assert cause_of(Deleted({"id": 1}), key=("ref",)) == "no_key"


def test_the_other_key_of_a_primary_key_change_names_its_row_or_none() -> None:
    """Case 26."""
    assert mapping().row_at({"id": 2}) == Row("docs", '{"id":2}')
    assert mapping().row_at(None) is None
    assert mapping().row_at({"id": None}) is None
    assert mapping(key=("id",)).row_at({"id": 2, "x": 3}) == Row("docs", '{"id":2}')
    assert mapping(key=("ref",)).row_at({"id": 2}) is None


def test_a_tombstone_that_cannot_name_a_configured_key_adds_nothing_to_its_delete() -> None:
    keyed = mapping(key=("ref",))
    assert keyed.skip_reason(Deleted(None)) == "keyless_tombstone"
    assert keyed.skip_reason(Deleted({"id": 1})) == "keyless_tombstone"
    assert keyed.skip_reason(Deleted({"ref": "a"})) is None
    assert keyed.skip_reason(Deleted(None, {"ref": "a"})) is None
    assert keyed.skip_reason(keyless({"ref": "a"})) is None
    assert mapping().skip_reason(Deleted(None)) is None


@given(
    st.dictionaries(st.text(min_size=1), st.integers() | st.text(st.characters(codec="utf-8")), min_size=1)
)
def test_any_key_without_nulls_names_a_row_with_an_id(key: dict[str, Any]) -> None:
    row = mapping().row_of(upserted({}, key))
    shuffled = dict(reversed(key.items()))
    assert uuid.UUID(row.head_id) == uuid.UUID(mapping().row_of(upserted({}, shuffled)).head_id)


# --- which columns --------------------------------------------------------------------------------------


def test_the_mapped_columns_are_listed_once_in_order_and_without_event_fields() -> None:
    docs = mapping(
        "{body}[ {title}]{$op}",
        metadata=fields(price="price", title="heading", event_ts="at"),
        soft_delete=SoftDelete("gone"),
    )
    assert docs.embed_columns == ("body", "title")
    assert docs.mapped_columns == ("body", "title", "price", "gone")
    assert docs.hashed_columns == ("body", "title", "price", "$ts")


def test_a_column_that_the_event_does_not_know_is_drift_and_one_it_did_not_send_is_not() -> None:
    docs = mapping(metadata=fields(price="price"), soft_delete=SoftDelete("gone"))
    change = upserted({"id": 1, "title": None, "price": None}, unavailable=("body",))
    assert docs.missing(change) == ("gone",)
    assert docs.missing(upserted({"id": 1})) == ("title", "body", "price", "gone")


def test_a_topic_matches_by_name_or_by_pattern() -> None:
    assert mapping().matches("shop.public.docs")
    assert not mapping().matches("shop.public.docs2")
    sharded = mapping(source=r"^shop\d+\.public\.docs$")
    assert sharded.matches("shop12.public.docs")
    assert not sharded.matches("shop.public.docs")
    assert not sharded.matches("xshop1.public.docs")


# --- text -----------------------------------------------------------------------------------------------


def text_of(docs: TableMapping, columns: Mapping[str, Any]) -> str:
    change = upserted(columns)
    return docs.render(docs.rendered(change), change)


def test_the_text_is_the_template_over_the_rendered_columns() -> None:
    """Case 46."""
    docs = mapping("{title}[: {body}] ({tags}) {n}")
    row = {"title": "T", "body": None, "tags": ["a", "b"], "n": 2, "other": "x"}
    assert text_of(docs, row) == "T (a, b) 2"


@pytest.mark.parametrize("empty", [None, "", " \n\t"])
def test_a_row_whose_embed_columns_are_all_blank_has_no_text_whatever_the_template_says(empty: Any) -> None:
    """Cases 44 and 45."""
    assert text_of(mapping("Title: {title} Body: {body}"), {"title": empty, "body": empty}) == ""


def test_one_column_that_is_not_blank_makes_a_text() -> None:
    assert text_of(mapping("Title: {title} Body: {body}"), {"title": "x", "body": None}) == "Title: x Body:"


def test_event_fields_are_readable_in_the_text() -> None:
    docs = mapping("{title} {$table} {$op} {$ts}")
    assert text_of(docs, {"title": "x"}) == "x public.docs u 2026-11-21T06:42:36.331Z"


@pytest.mark.parametrize(
    ("committed_ms", "text"), [(None, "x"), (0, "x 1970-01-01T00:00:00.000Z"), (2**63 - 1, f"x {2**63 - 1}")]
)
def test_a_time_outside_the_calendar_does_not_fail(committed_ms: int | None, text: str) -> None:
    """Case 40."""
    change = Upserted({"id": 1}, {"title": "x"}, committed_ms=committed_ms)
    assert mapping("{title} {$ts}").render({"title": "x"}, change) == text


def test_an_unavailable_column_has_no_rendered_text_and_a_null_one_has_none() -> None:
    """Cases 21 and 22."""
    rendered = mapping().rendered(upserted({"title": None}, unavailable=("body",)))
    assert rendered == {"title": None}
    with pytest.raises(KeyError, match="body"):
        mapping().render({"title": "x"}, upserted({"title": "x"}, unavailable=("body",)))


def test_the_layout_changes_with_the_template_and_with_nothing_else() -> None:
    assert mapping("{a}").layout == mapping("{a}", store_text=False, metadata=fields(b="b")).layout
    assert mapping("{a}").layout != mapping("{a} ").layout


def test_values_are_kept_only_where_a_text_has_several_columns() -> None:
    assert mapping("{a} {b}").keeps_values
    assert not mapping("{a} {$ts}").keeps_values
    assert not mapping("{a} {b}", keep_values=False).keeps_values


# --- metadata -------------------------------------------------------------------------------------------


def test_metadata_goes_by_its_name_in_the_store_and_keeps_its_type() -> None:
    docs = mapping(metadata=fields(rating="stars", price="price", tags="tags"))
    change = upserted({"rating": 4.5, "price": None, "tags": ["a"], "title": "x"})
    assert docs.metadata_of(change) == ({"stars": 4.5, "price": None, "tags": ["a"]}, frozenset())


def test_event_metadata_is_the_time_as_a_number_the_op_and_the_table() -> None:
    docs = mapping(metadata=fields(event_ts="at", event_op="op", event_table="table"))
    assert docs.metadata_of(upserted({}))[0] == {"at": 1795243356331, "op": "u", "table": "public.docs"}


def test_unavailable_metadata_is_kept_as_stored() -> None:
    docs = mapping(metadata=fields(rating="stars", body="body", price="price"))
    change = upserted({"rating": 5}, unavailable=("body",))
    assert docs.metadata_of(change) == ({"stars": 5}, frozenset({"body"}))


def hashes_of(docs: TableMapping, change: Upserted) -> dict[str, str]:
    return docs.column_hashes(change, docs.rendered(change))


def test_every_available_column_has_a_hash_and_no_other() -> None:
    docs = mapping(metadata=fields(price="price", event_op="op"))
    complete = hashes_of(docs, upserted({"title": "a", "body": "b", "price": 1, "other": 2}))
    assert tuple(complete) == docs.hashed_columns
    partial = hashes_of(docs, upserted({"title": "a", "price": 1}, unavailable=("body",)))
    assert partial == {name: digest for name, digest in complete.items() if name != "body"}


def test_null_and_the_empty_text_have_different_hashes() -> None:
    docs = mapping(metadata=fields(price="price"))
    null = hashes_of(docs, upserted({"title": None, "body": None, "price": None}))
    empty = hashes_of(docs, upserted({"title": "", "body": "", "price": ""}))
    assert set(null.values()) == {short_hash(None)}
    assert all(null[name] != empty[name] for name in null)


def test_a_metadata_value_that_changes_its_type_changes_its_hash() -> None:
    """Case 52."""
    for docs in (mapping("{title}", metadata=fields(n="n")), mapping("{n}", metadata=fields(n="n"))):
        number = hashes_of(docs, upserted({"title": "x", "n": 1}))
        text = hashes_of(docs, upserted({"title": "x", "n": "1"}))
        assert number["n"] != text["n"]


def test_the_metadata_hash_follows_names_and_values_and_not_their_order() -> None:
    one, other = fields(a="x", b="y"), fields(b="y", a="x")
    hashes = {"a": "1", "b": "2", "embed_only": "3"}
    assert metadata_hash(one, hashes) == metadata_hash(other, {"b": "2", "a": "1"})
    assert metadata_hash(one, hashes) != metadata_hash(fields(a="y", b="x"), hashes)
    assert metadata_hash(one, hashes) != metadata_hash(one, hashes | {"b": "9"})
    assert metadata_hash(one, {"a": "1"}) == metadata_hash(fields(a="x"), {"a": "1"})


@given(st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text(), max_size=5))
def test_the_metadata_hash_is_that_of_the_canonical_json_for_ever(metadata: dict[str, Any]) -> None:
    """Every row in every store has one: another spelling would patch them all."""
    hashes = {name: value_hash(value) for name, value in metadata.items()}
    named = [MetadataField(name, name) for name in metadata]
    spelt = json.dumps(sorted(map(list, hashes.items())), separators=(",", ":"), ensure_ascii=False)
    assert metadata_hash(named, hashes) == short_hash(spelt)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3))
def test_a_key_is_spelt_the_same_for_ever(key: dict[str, Any]) -> None:
    """Every point's id derives from it."""
    assert Row.of("docs", key).key == json.dumps(
        key, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def test_a_stored_hash_stands_in_for_an_unavailable_value() -> None:
    docs = mapping(metadata=fields(price="price", body="body"))
    full = hashes_of(docs, upserted({"title": "t", "body": "long", "price": 1}))
    partial = hashes_of(docs, upserted({"title": "t", "price": 1}, unavailable=("body",)))
    completed = partial | {"body": full["body"]}
    assert metadata_hash(docs.metadata, completed) == metadata_hash(docs.metadata, full)


# --- soft deletes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        True,
        1,
        -1,
        "1",
        "true",
        "Y",
        "2026-10-02T09:00:00Z",
        1790931600000000,
        -9223372036854775808,
        "-infinity",
        "archived",
        1.5,
        [0],
    ],
)
def test_a_value_of_the_soft_delete_column_means_deleted(value: Any) -> None:
    """Case 41."""
    assert mapping(soft_delete=SoftDelete("gone")).is_soft_deleted(upserted({"gone": value})) is True


@pytest.mark.parametrize(
    "value",
    [
        None,
        False,
        0,
        0.0,
        "",
        " ",
        "0",
        "0.00",
        "false",
        "FALSE",
        "f",
        "N",
        "no",
        "off",
        "0000-00-00",
        "0000-00-00 00:00:00",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00.000000Z",
        "infinity",
        9223372036825200000,
        [],
    ],
)
def test_null_false_zero_dates_and_never_mean_not_deleted(value: Any) -> None:
    """Cases 40 and 41."""
    assert mapping(soft_delete=SoftDelete("gone")).is_soft_deleted(upserted({"gone": value})) is False


@pytest.mark.parametrize(
    ("values", "value", "is_deleted"),
    [
        (("archived", "banned"), "banned", True),
        (("archived", "banned"), "active", False),
        (("archived",), None, False),
        (("archived",), "Archived", False),
        ((1,), True, True),
        ((1,), "1", True),
        ((True,), "true", True),
        ((1,), 0, False),
        ((None,), None, True),
        ((None,), "", False),
    ],
)
def test_with_values_the_row_is_deleted_when_the_column_has_one_of_them(
    values: tuple[Any, ...], value: Any, is_deleted: bool
) -> None:
    docs = mapping(soft_delete=SoftDelete("status", values))
    assert docs.is_soft_deleted(upserted({"status": value})) is is_deleted


def test_a_soft_delete_column_that_was_not_sent_leaves_the_question_open() -> None:
    docs = mapping(soft_delete=SoftDelete("gone"))
    assert docs.is_soft_deleted(upserted({}, unavailable=("gone",))) is None


def test_without_a_soft_delete_rule_no_row_is_soft_deleted() -> None:
    assert mapping().is_soft_deleted(upserted({"deleted_at": "2026-01-01"})) is False


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"table": " "}, "table is empty"),
        ({"source": ""}, "source is empty"),
        ({"collection": ""}, "collection is empty"),
        ({"source": "^shop("}, "source is not a regular expression"),
        ({"template": Template.parse(" ")}, "template is empty"),
        ({"template": Template.parse("fixed {$op}")}, "names no column"),
        ({"template": Template.of_columns([])}, "template is empty"),
        ({"key": ("id", "id")}, "'id' more than once"),
        ({"key": ("",)}, "empty column name"),
        ({"metadata": fields(a="x", b="x")}, "two values named 'x'"),
        ({"metadata": fields(a="text")}, "'text' is reserved"),
        ({"metadata": fields(a="_vectide")}, "'_vectide' is reserved"),
        ({"metadata": fields(a="_vectide_space")}, "'_vectide_space' is reserved"),
        ({"metadata": fields(a="")}, "empty name"),
        ({"metadata": fields(event_when="x")}, "$when is not an event field"),
        ({"soft_delete": SoftDelete("")}, "soft_delete names no column"),
        ({"soft_delete": SoftDelete("a", ())}, "empty list of values"),
        ({"on_incomplete": ("stored", "guess")}, "not guess"),
        ({"may_vanish": ("nothing",)}, "may_vanish names 'nothing', which is not embedded"),
    ],
)
def test_a_mapping_that_contradicts_itself_cannot_be_built(changes: dict[str, Any], problem: str) -> None:
    """Cases 53 and 169."""
    with pytest.raises(MappingError) as caught:
        mapping(**changes)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_all_problems_are_told_at_once() -> None:
    """Case 169."""
    with pytest.raises(MappingError) as caught:
        mapping(table="", key=("a", "a"), metadata=fields(a="text", event_x="y"))
    assert len(caught.value.problems) == 4


def test_a_column_may_be_embedded_and_be_metadata_under_two_names() -> None:
    docs = mapping(metadata=(MetadataField("title", "title"), MetadataField("title", "heading")))
    assert docs.metadata_of(upserted({"title": "x"}))[0] == {"title": "x", "heading": "x"}


def test_what_is_kept_as_text_has_a_metadata_hash_of_its_own() -> None:
    """So that a row is written once more when its tenant begins to be one."""
    plain, text = (MetadataField("org", "org", as_text=as_text) for as_text in (False, True))
    for value, spelt in ((5, "5"), (None, None), ("a\0b", "a\0b"), (True, "true"), (["a"], "a")):
        change = Upserted({"id": 1}, {"name": "n", "org": value})
        told = [mapping(metadata=(field,)).metadata_of(change)[0]["org"] for field in (plain, text)]
        assert told == [value, spelt]
    hashes = {"org": value_hash(5)}
    assert metadata_hash([plain], hashes) != metadata_hash([text], hashes)
    assert mapping(metadata=(plain,)).identity != mapping(metadata=(text,)).identity
