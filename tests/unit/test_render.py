"""How values become text."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.model import Value
from vectide.core.render import is_blank, render_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is ", "as it is "),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-17, "-17"),
        (2**70, "1180591620717411303424"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (1e-7, "0.0000001"),
        (-2.5e20, "-250000000000000000000"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+5"), "100000"),
        (Decimal("-0.001"), "-0.001"),
        (["a", "b,c", "", None, 'q"uote'], 'a, b,c, q"uote'),
        ([1, None, 2.5, True], "1, 2.5, true"),
        ([], ""),
        ([None], ""),
        ([["a", "b"], ["c"]], "a, b, c"),
        ({"b": 1, "a": [1, "é"]}, '{"a":[1,"é"],"b":1}'),
        ([{"k": "v"}], '{"k":"v"}'),
        ('{"b": 1,  "a": 2}', '{"b": 1,  "a": 2}'),
    ],
)
def test_every_kind_of_value_has_one_text(value: Value, text: str) -> None:
    """Case 46."""
    assert render_value(value) == text


def test_null_is_not_the_empty_text() -> None:
    assert render_value(None) is None


def test_nul_characters_are_removed_because_postgresql_cannot_hold_them() -> None:
    assert render_value("a\x00b\x00") == "ab"


def test_lone_surrogates_are_replaced_and_real_pairs_are_kept() -> None:
    assert render_value("x\ud83dy\ude00z 😀") == "x�y�z 😀"


def test_a_value_that_no_codec_makes_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        render_value({1, 2})


@pytest.mark.parametrize(("text", "blank"), [(None, True), ("", True), (" \t\n ", True), ("a", False)])
def test_null_empty_and_white_space_are_blank(text: str | None, blank: bool) -> None:
    assert is_blank(text) is blank


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_float_reads_back_as_the_same_float(value: float) -> None:
    text = render_value(value)
    assert text is not None
    assert float(text) == value
    assert "e" not in text


@given(st.text(st.characters(codec=None)))
def test_a_rendered_text_can_always_be_encoded(text: str) -> None:
    rendered = render_value(text)
    assert rendered is not None
    assert "\x00" not in rendered
    rendered.encode("utf-8")
