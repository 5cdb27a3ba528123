"""The template's grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.template import Template, TemplateError

NO_EVENT: dict[str, str | None] = {}


def text_of(template: str, /, **values: str | None) -> str:
    return Template.parse(template).render(values, NO_EVENT)


def test_a_column_is_replaced_by_its_text() -> None:
    assert text_of("{name}: {body}", name="Chair", body="Four legs.") == "Chair: Four legs."


def test_a_null_column_leaves_nothing_behind() -> None:
    assert text_of("{name}\n\n{body}", name="Chair", body=None) == "Chair"


def test_white_space_around_the_whole_text_is_dropped_and_inside_it_is_kept() -> None:
    assert text_of(" {name}  {body} \n", name="a", body="b") == "a  b"


@pytest.mark.parametrize("features", [None, "", "  \n"])
def test_an_optional_part_vanishes_when_its_column_is_null_or_empty(features: str | None) -> None:
    assert text_of("{name}[\n\nFeatures: {features}]", name="Chair", features=features) == "Chair"


def test_an_optional_part_stays_when_its_column_has_a_text() -> None:
    text = text_of("{name}[\n\nFeatures: {features}]", name="Chair", features="folds")
    assert text == "Chair\n\nFeatures: folds"


@pytest.mark.parametrize(("low", "high"), [(None, "9"), ("1", None), ("", "")])
def test_an_optional_part_vanishes_when_any_of_its_columns_is_empty(
    low: str | None, high: str | None
) -> None:
    assert text_of("x[ {low}-{high}]", low=low, high=high) == "x"


def test_several_optional_parts_vanish_on_their_own() -> None:
    assert text_of("[{a}][ {b}][ {c}]", a="1", b=None, c="3") == "1 3"


def test_doubled_braces_and_brackets_are_literal() -> None:
    assert text_of("{{{a}}} [[{a}]] {{a}} }}{{", a="1") == "{1} [1] {a} }{"


def test_doubled_brackets_inside_an_optional_part_are_literal() -> None:
    assert text_of("[[[{a}]]]", a="1") == "[1]"


def test_a_value_that_looks_like_a_template_is_not_read_again() -> None:
    assert text_of("{a}", a="{b} [x] {{") == "{b} [x] {{"


def test_event_fields_come_from_the_event() -> None:
    template = Template.parse("{$table} {$op}[ at {$ts}] {name}")
    event = {"$table": "public.docs", "$op": "c", "$ts": "2026-01-01T00:00:00.000Z"}
    assert template.fields == ("$table", "$op", "$ts")
    assert template.columns == ("name",)
    assert template.render({"name": "x"}, event) == "public.docs c at 2026-01-01T00:00:00.000Z x"
    assert template.render({"name": "x"}, event | {"$ts": None}) == "public.docs c x"


def test_columns_are_listed_once_in_order_of_appearance() -> None:
    assert Template.parse("{b}[ {a} {b}] {c}").columns == ("b", "a", "c")


@pytest.mark.parametrize("name", ["my.col", "my-col", "Größe", "two words", "__op", "id", "a[0]", "a$b"])
def test_column_names_may_hold_what_databases_allow(name: str) -> None:
    """Case 53."""
    assert Template.parse(f"x {{{name}}}").render({name: "y"}, NO_EVENT) == "x y"


@pytest.mark.parametrize(
    ("template", "position", "advice"),
    [
        ("{name", 1, "write {{"),
        ("ab {name\n}", 4, "line break"),
        ("{na{me}", 1, "brace"),
        ("name}", 5, "write }}"),
        ("x [y {a}", 3, "write [["),
        ("x] {a}", 2, "write ]]"),
        ("[{a} [{b}]]", 6, "nested"),
        ("{a} [note]", 5, "needs a column"),
        ("{a} {}", 5, "column name is missing"),
        ("{a} { b }", 5, "white space around 'b'"),
        ("{a} {$when}", 5, "$table, $op, $ts"),
    ],
)
def test_an_error_says_where_it_is_and_what_to_write_instead(
    template: str, position: int, advice: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse(template)
    assert caught.value.position == position
    assert advice in str(caught.value)
    assert f"character {position}" in str(caught.value)


def test_a_column_that_is_not_given_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(KeyError, match="body"):
        text_of("{name} {body}", name="x")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("a", "b", "c"), "a\n\nb\n\nc"),
        (("a", None, "c"), "a\n\nc"),
        ((None, "", "c"), "c"),
        (("a", " ", None), "a"),
        ((None, None, None), ""),
    ],
)
def test_listed_columns_are_joined_by_blank_lines(values: tuple[str | None, ...], text: str) -> None:
    names = ["x", "y", "z"]
    assert Template.of_columns(names).render(dict(zip(names, values, strict=True)), NO_EVENT) == text


def test_listed_columns_equal_the_template_that_says_the_same() -> None:
    listed = Template.of_columns(["name", "body"])
    assert listed == Template.parse(listed.source)


def test_listed_columns_may_have_any_name() -> None:
    assert Template.of_columns(["a{b}", "c]d"]).render({"a{b}": "1", "c]d": "2"}, NO_EVENT) == "1\n\n2"


@pytest.mark.parametrize("names", [["a", "a"], [""], ["$ts"]])
def test_a_list_of_columns_is_checked(names: list[str]) -> None:
    with pytest.raises(TemplateError):
        Template.of_columns(names)


@given(st.text("ab{}[]$ \n", max_size=30))
def test_any_text_is_either_a_template_or_a_template_error(text: str) -> None:
    problem = None
    try:
        template = Template.parse(text)
    except TemplateError as error:
        problem = error
    if problem is not None:
        assert 1 <= problem.position <= len(text)
        return
    values = dict.fromkeys(template.columns, "v")
    assert isinstance(template.render(values, dict.fromkeys(template.fields, "e")), str)


@given(st.text(max_size=40))
def test_any_text_with_doubled_marks_stands_for_itself(text: str) -> None:
    doubled = "".join(mark * 2 if mark in "{}[]" else mark for mark in text)
    assert Template.parse(doubled).render({}, NO_EVENT) == text.strip()
