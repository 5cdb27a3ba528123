"""Row filters: what can be written, and what it means for values, nulls and values that nobody knows."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.where import (
    All,
    Column,
    Compare,
    Condition,
    Constant,
    Is,
    IsNull,
    Not,
    Some,
    Where,
    WhereError,
    WhereMismatch,
)
from vectide.settings_where import parse_where

# --- what can be written --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("tenant_id <> 0", ("tenant_id",)),
        ("a = 1 AND (b < c OR NOT d)", ("a", "b", "c", "d")),
        ("a IN (1, 2) AND b NOT IN ('x')", ("a", "b")),
        ("a BETWEEN -1 AND 2.5 AND b IS NOT NULL", ("a", "b")),
        ("a NOT LIKE 'x%' OR b ILIKE 'y_'", ("a", "b")),
        ('"Odd name" IS NOT TRUE -- a remark', ("Odd name",)),
        ("day >= DATE '2026-02-28' AND at < TIMESTAMP '2026-02-28 12:00'", ("day", "at")),
    ],
)
def test_a_condition_names_its_columns(text: str, columns: tuple[str, ...]) -> None:
    assert parse_where(text).columns == columns


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("a = 1; DROP TABLE t", "must be one condition"),
        ("a =", "is not SQL: what stands around line 1, column 3 is not a condition"),
        ("a = 'x", "is not SQL: is a quote missing?"),
        ("1 = 1", "names no column: it is the same for every row"),
        ("lower(a) = 'x'", "does not know LOWER(a): only columns and constants can be compared"),
        ("a + 1 = 2", "does not know a + 1: only columns and constants can be compared"),
        ("a::int = 1", "does not know CAST(a AS INT): only columns and constants can be compared"),
        ("t.a = 1", "does not know t.a: "),
        ("a LIKE b", "does not know a LIKE b: the pattern must be a text in single quotes"),
        ("a LIKE 'b' ESCAPE '!'", "does not know a LIKE 'b' ESCAPE '!': "),
        ("a IN (SELECT 1)", "does not know a IN (SELECT 1): "),
        ("a BETWEEN SYMMETRIC 2 AND 1", "does not know a BETWEEN SYMMETRIC 2 AND 1: "),
        ("a IS NOT DISTINCT FROM 1", "does not know a IS NOT DISTINCT FROM 1: "),
        ("a ~ 'x'", "does not know a ~ 'x': "),
        ("a = $1", "does not know $1: "),
        ("a = current_date", "does not know CURRENT_DATE: "),
        ("a > DATE 'tomorrow'", "'tomorrow' is not a date or timestamp: "),
        ("SELECT 1", "does not know SELECT 1: it takes comparisons, AND, OR, "),
        ("a = 1e99999999999999999999", "1e99999999999999999999 is not a number that can be compared"),
        ("NOT " * 5_000 + "a", "is longer than 10000 characters"),
        ("(" * 2_000 + "a" + ")" * 2_000, "is nested too deeply"),
    ],
)
def test_whatever_else_sql_knows_is_refused_by_name(text: str, problem: str) -> None:
    """Case 169."""
    with pytest.raises(WhereError) as refused:
        parse_where(text)
    assert str(refused.value).startswith(problem)


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        assert parse_where(text).columns
    except WhereError:
        pass


# --- what it means --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "matches"),
    [
        ("a > 9", "10.50", True),
        ("a = 12.5", "12.50", True),
        ("a = 0.1", 0.1, True),
        ("a = '5'", 5, True),
        ("a > 5", float("nan"), True),
        ("a = 1", True, True),
        ("a = TRUE", 1, True),
        ("a = 'f'", False, True),
        ("a < 'b'", "a", True),
        ("a >= '2026-02-28 12:00'", "2026-02-28T12:00:00.000000", True),
        ("a >= '2026-02-28 12:00+02'", "2026-02-28T09:59:59.000000Z", False),
        ("a > TIMESTAMP '2026-02-28'", "infinity", True),
        ("a < DATE '2026-03-01'", "2026-02-28", True),
        (r"a LIKE '50\% %'", "50% off", True),
        (r"a LIKE '50\% %'", "501 off", False),
        ("a LIKE 'a_c'", "a\nc", True),
        ("a ILIKE 'ÄB%'", "äbc", True),
        ("a", 0, False),
        ("a IN (1, NULL)", 2, False),
        ("a NOT IN (1, NULL)", 2, False),
        ("a <> 1", None, False),
        ("a IS NULL", None, True),
        ("(a = 1) IS NOT TRUE", None, True),
    ],
)
def test_a_value_is_compared_as_what_it_is(text: str, value: Any, matches: bool) -> None:
    assert parse_where(text).matches({"a": value}) is matches


@pytest.mark.parametrize(
    ("text", "columns", "told"),
    [
        ("a > 5", {"a": "BNc="}, "where: the column a: a text cannot be compared with a number"),
        (
            "a > DATE '2026-01-01'",
            {"a": 20512},
            "where: the column a: a number cannot be compared with a text",
        ),
        ("a = 'x'", {"a": [1]}, "where: the column a: a list cannot be compared with a text"),
        ("a", {"a": "secret"}, "where: the column a: a text cannot be compared with a boolean"),
        ("a LIKE 'x'", {"a": 1}, "where: the column a: LIKE needs a text, not a number"),
        (
            "a < b",
            {"a": {}, "b": 1},
            "where: the column a and the column b: an object cannot be compared with a number",
        ),
    ],
)
def test_values_that_cannot_be_compared_are_told_without_content(
    text: str, columns: dict[str, Any], told: str
) -> None:
    """Invariant 13: and never taken for a row that does not match."""
    with pytest.raises(WhereMismatch) as mismatch:
        parse_where(text).matches(columns)
    assert str(mismatch.value) == told


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("a = 1", None),
        ("a = 1 AND b = 2", False),
        ("a = 1 AND c", False),
        ("a = 1 OR b = 1", True),
        ("a = 1 OR b = 2", None),
        ("a IS NULL", None),
        ("a = 1 OR a IS NULL", None),
        ("NOT (a = 1 AND b = 2)", True),
    ],
)
def test_a_column_that_nobody_knows_leaves_open_what_depends_on_it(text: str, matches: bool | None) -> None:
    assert parse_where(text).matches({"b": 1, "c": None}) is matches


_NAMES = ("a", "b", "c")
_VALUES = (None, 0, 1)
_COLUMNS = st.sampled_from(_NAMES).map(Column)
_LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(IsNull, _COLUMNS),
    st.builds(
        Compare,
        st.sampled_from(["=", "<>", "<", ">="]),
        _COLUMNS,
        st.one_of(_COLUMNS, st.sampled_from([Constant(None), Constant(Decimal(0)), Constant(Decimal(1))])),
    ),
)


def _grown(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, inner),
        st.builds(Is, inner, st.booleans()),
        st.builds(All, several),
        st.builds(Some, several),
    )


@given(
    st.recursive(_LEAVES, _grown, max_leaves=6),
    st.fixed_dictionaries({}, optional={n: st.sampled_from(_VALUES) for n in _NAMES}),
)
def test_an_answer_without_some_columns_is_the_answer_with_them(
    condition: Condition, known: dict[str, Any]
) -> None:
    where = Where("", condition)
    decided = where.matches(known)
    unknown = [name for name in _NAMES if name not in known]
    answers = {
        where.matches({**known, **dict(zip(unknown, values, strict=True))})
        for values in itertools.product(_VALUES, repeat=len(unknown))
    }
    assert None not in answers
    assert decided is None or answers == {decided}
