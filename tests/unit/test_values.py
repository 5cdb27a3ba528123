"""The value normaliser: every value is legal for the store, or refused by name, never silently changed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.model import Value
from vectide.core.values import MAX_DEPTH, ValueRefused, check_text, normalise

GENEROUS: dict[str, Any] = {
    "max_integer": 2**53,
    "nested_metadata": True,
    "null_metadata": True,
    "nul_in_text": True,
}
POOR: dict[str, Any] = {
    "max_integer": 2**53,
    "nested_metadata": False,
    "null_metadata": False,
    "nul_in_text": False,
    "uniform_lists": True,
}


def stored(value: Value, **changes: Any) -> Value:
    return normalise({"x": value}, **{**GENEROUS, **changes})["x"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (True, True),
        (0.5, 0.5),
        (7, 7),
        (None, None),
        (2**53, 2**53),
        (2**53 + 1, "9007199254740993"),
        (-(2**53) - 1, "-9007199254740993"),
        (Decimal("19.90"), "19.90"),
        (Decimal("-1234.56"), "-1234.56"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0E-4"), "0.0000"),
        (Decimal("1E+5000"), "1E+5000"),
        (Decimal("NaN"), None),
        (Decimal("Infinity"), None),
        (float("nan"), None),
        (float("-inf"), None),
        (date(9999, 12, 31), "9999-12-31"),
        (time(1, 2, 3), "01:02:03.000000"),
        (datetime(2024, 5, 1, 10), "2024-05-01T10:00:00.000000"),
        (datetime(2024, 5, 1, 10, tzinfo=UTC), "2024-05-01T10:00:00.000000Z"),
        (
            datetime(2024, 5, 1, 10, 0, 0, 5, tzinfo=timezone(timedelta(hours=2))),
            "2024-05-01T08:00:00.000005Z",
        ),
        (
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            "0001-01-01T00:00:00.000000+02:00",
        ),
        (UUID("6F1D0D3E-6F5B-5D0E-9A55-7F0F6F3D4B11"), "6f1d0d3e-6f5b-5d0e-9a55-7f0f6f3d4b11"),
        (b"\x00\xff", "AP8="),
        ((1, Decimal("2.0")), [1, "2.0"]),
        ({"a": [{"b": float("inf")}]}, {"a": [{"b": None}]}),
        ([], []),
    ],
)
def test_each_value_has_one_documented_form(value: Value, expected: Value) -> None:
    """Cases 37 and 86."""
    result = stored(value)
    assert result == expected
    assert type(result) is type(expected)


def test_true_is_not_an_integer() -> None:
    assert stored(True, max_integer=0) is True


def test_integers_stay_integers_where_the_store_keeps_them_exact() -> None:
    assert stored(2**63, max_integer=10**30) == 2**63


def test_a_store_without_nesting_gets_canonical_json() -> None:
    assert stored({"b": 1, "a": [2**60]}, nested_metadata=False) == '{"a":["1152921504606846976"],"b":1}'
    assert stored([{"a": 1}], nested_metadata=False) == '[{"a":1}]'
    assert stored(["plain", "list"], nested_metadata=False) == ["plain", "list"]


def test_nulls_and_empty_lists_are_left_out_where_the_store_has_none() -> None:
    given_metadata: dict[str, Value] = {"gone": None, "not a number": float("nan"), "empty": [], "here": 1}
    assert normalise(given_metadata, **POOR) == {"here": 1}


@pytest.mark.parametrize(
    ("value", "uniform"),
    [
        (["a", "b"], ["a", "b"]),
        ([1, 2], [1, 2]),
        ([1, 2.5], "[1,2.5]"),
        ([1, True], "[1,true]"),
        (["a", None], '["a",null]'),
        ([None], "[null]"),
        ([["a"]], '[["a"]]'),
    ],
)
def test_lists_of_several_types_are_json_where_they_have_to_be_uniform(value: Value, uniform: Value) -> None:
    assert normalise({"x": value}, **POOR)["x"] == uniform
    assert stored(value) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\0b", "NUL"),
        ({"k\0": 1}, "NUL"),
        (["x", ["\0"]], "NUL"),
        ("\ud800", "surrogate"),
        ({1: "x"}, "member name of type int"),
        ({1, 2}, "type set"),
        (timedelta(1), "type timedelta"),
        (object(), "type object"),
        pytest.param(10**5000, "digits", id="enormous integer"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(value: Value, why: str) -> None:
    with pytest.raises(ValueRefused, match=why) as caught:
        normalise({"fine": 1, "price": value}, **POOR)
    assert caught.value.name == "price"


def test_a_refusal_shows_no_content() -> None:
    with pytest.raises(ValueRefused) as caught:
        normalise({"note": "secret\0"}, **POOR)
    assert "secret" not in str(caught.value)


def test_a_name_that_the_store_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueRefused, match="NUL"):
        normalise({"a\0": 1}, **POOR)


def test_nul_passes_where_the_store_holds_it() -> None:
    assert stored("a\0b") == "a\0b"


def test_hostile_nesting_is_refused_and_does_not_exhaust_the_stack() -> None:
    deep: Value = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueRefused, match=str(MAX_DEPTH)):
        stored(deep)


def test_a_text_is_checked_by_the_same_rules() -> None:
    check_text("text", "fine ☃", nul_in_text=False)
    check_text("text", "a\0b", nul_in_text=True)
    with pytest.raises(ValueRefused, match=r"^text: a NUL"):
        check_text("text", "a\0b", nul_in_text=False)
    with pytest.raises(ValueRefused, match="surrogate"):
        check_text("text", "\udfff", nul_in_text=True)


def test_the_argument_is_left_alone() -> None:
    inner = {"a": [float("nan")], "b": (1,)}
    metadata = {"x": inner}
    normalise(metadata, **GENEROUS)
    assert metadata["x"] is inner
    assert inner["b"] == (1,)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.uuids()
    | st.binary()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=1)), inner)
    ),
    max_leaves=8,
)


@given(VALUES, st.booleans(), st.booleans())
def test_the_result_survives_json_and_normalising_it_again_changes_nothing(
    value: Value, nested: bool, null: bool
) -> None:
    capabilities = {**POOR, "nested_metadata": nested, "null_metadata": null}
    once = normalise({"x": value}, **capabilities)
    assert json.loads(json.dumps(once, allow_nan=False)) == once
    assert normalise(once, **capabilities) == once
