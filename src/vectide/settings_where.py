"""The grammar of a table's ``where``: a part of SQL's conditions, everything else refused by name.

========================================  ===============================================================
written                                   means
========================================  ===============================================================
``a = 1``  ``<>``  ``!=``  ``<``          comparison of a column with a constant or another column
``<=``  ``>``  ``>=``
``a BETWEEN 1 AND 2``, ``a IN (1, 2)``    what they mean in SQL; also with NOT
``a LIKE 'x%'``, ``a ILIKE 'x%'``         also with NOT; a backslash takes the next character as it is
``a IS NULL``, ``a IS TRUE``              also ``IS FALSE``, and with NOT
``a``                                     a boolean column
``AND``  ``OR``  ``NOT``  ``( )``         as in SQL
constants                                 texts in single quotes, numbers, TRUE, FALSE, NULL,
                                          ``DATE '2026-02-28'``, ``TIMESTAMP '2026-02-28 12:00'``
========================================  ===============================================================

Names of columns are spelt as the events spell them, in double quotes where they are no plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from sqlglot import exp
from sqlglot import parse as parse_sql
from sqlglot.errors import ParseError, SqlglotError

from vectide.core.where import (
    All,
    Column,
    Compare,
    Condition,
    Constant,
    Is,
    IsNull,
    Like,
    Not,
    Operand,
    Some,
    Where,
    WhereError,
    is_moment,
)

_DIALECT: Final = "postgres"
_MAX_CHARACTERS: Final = 10_000
_COMPARISONS: Final[Mapping[type[exp.Expression], str]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MOMENTS: Final = frozenset(
    {exp.DataType.Type.DATE, exp.DataType.Type.TIMESTAMP, exp.DataType.Type.TIMESTAMPTZ}
)
#: What the nodes of the grammar may carry beside their operands.
_HARMLESS: Final = frozenset(
    {"this", "expression", "expressions", "low", "high", "negate", "to", "is_string", "quoted"}
)


def parse_where(text: str) -> Where:
    """The filter that the text says. Raises :class:`WhereError` saying what is wrong with it."""
    if len(text) > _MAX_CHARACTERS:
        raise WhereError(f"is longer than {_MAX_CHARACTERS} characters")
    try:
        parsed = [statement for statement in parse_sql(text, dialect=_DIALECT) if statement is not None]
        if len(parsed) != 1:
            raise WhereError("must be one condition" if parsed else "is empty")
        where = Where(text.strip(), _condition(parsed[0]))
    except SqlglotError as error:
        raise WhereError(f"is not SQL{_place(error)}") from None
    except RecursionError:
        raise WhereError("is nested too deeply") from None
    if not where.columns:
        raise WhereError("names no column: it is the same for every row")
    return where


def _place(error: SqlglotError) -> str:
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        return f": what stands around line {first['line']}, column {first['col']} is not a condition"
    return ": is a quote missing?"


# --- conditions -----------------------------------------------------------------------------------------


def _condition(node: Any) -> Condition:
    _refuse_extras(node)
    match node:
        case exp.Paren():
            return _condition(node.this)
        case exp.And() | exp.Or():
            parts = tuple(_condition(part) for part in node.flatten())
            return All(parts) if isinstance(node, exp.And) else Some(parts)
        case exp.Not():
            return Not(_condition(node.this))
        case exp.Column():
            return Compare("=", _column(node), Constant(True))
        case exp.Between() | exp.In() | exp.Is() | exp.Like() | exp.ILike():
            found = _predicate(node)
            return Not(found) if node.args.get("negate") else found
    if type(node) in _COMPARISONS:
        return Compare(_COMPARISONS[type(node)], _operand(node.this), _operand(node.expression))
    raise WhereError(f"does not know {_shown(node)}: {_KNOWN}")


_KNOWN: Final = (
    "it takes comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, ILIKE, IS NULL, IS TRUE and IS FALSE, "
    "over columns and constants"
)


def _predicate(node: Any) -> Condition:
    match node:
        case exp.Between():
            tested = _operand(node.this)
            low, high = _operand(node.args["low"]), _operand(node.args["high"])
            return All((Compare(">=", tested, low), Compare("<=", tested, high)))
        case exp.In():
            if not node.expressions:
                raise WhereError(f"does not know {_shown(node)}: IN takes a list of constants")
            tested = _operand(node.this)
            return Some(tuple(Compare("=", tested, _operand(item)) for item in node.expressions))
        case exp.Is():
            return _is(node)
    pattern = node.expression
    if not isinstance(pattern, exp.Literal) or not pattern.is_string:
        raise WhereError(f"does not know {_shown(node)}: the pattern must be a text in single quotes")
    return Like(_column(node.this), str(pattern.this), isinstance(node, exp.ILike))


def _is(node: Any) -> Condition:
    match node.expression:
        case exp.Null():
            return IsNull(_column(node.this))
        case exp.Boolean(this=bool(truth)):
            return Is(_condition(node.this), truth)
    raise WhereError(f"does not know {_shown(node)}: IS takes NULL, TRUE or FALSE")


# --- operands -------------------------------------------------------------------------------------------


def _operand(node: Any) -> Operand:
    _refuse_extras(node)
    match node:
        case exp.Paren():
            return _operand(node.this)
        case exp.Column():
            return _column(node)
        case exp.Cast(this=exp.Literal(is_string=True, this=text)) if node.to.this in _MOMENTS:
            if not is_moment(text):
                raise WhereError(
                    f"{text!r} is not a date or timestamp: write 2026-02-28 or 2026-02-28 12:00:00"
                )
            return Constant(text, is_moment=True)
        case exp.Null():
            return Constant(None)
        case exp.Boolean():
            return Constant(bool(node.this))
        case exp.Literal():
            return Constant(str(node.this) if node.is_string else _number(node.this))
        case exp.Neg(this=exp.Literal(is_string=False, this=digits)):
            return Constant(-_number(digits))
    raise WhereError(f"does not know {_shown(node)}: only columns and constants can be compared")


def _number(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise WhereError(f"{digits[:30]} is not a number that can be compared") from None


def _column(node: Any) -> Column:
    _refuse_extras(node)
    if isinstance(node, exp.Paren):
        return _column(node.this)
    if not isinstance(node, exp.Column) or not isinstance(node.this, exp.Identifier):
        raise WhereError(f"does not know {_shown(node)}: a column must stand there")
    return Column(node.name)


def _refuse_extras(node: Any) -> None:
    """Whatever the parser adds to a node changes what it means: nothing of that is passed over."""
    extras = [name for name, value in node.args.items() if value and name not in _HARMLESS]
    if extras:
        raise WhereError(f"does not know {_shown(node)}: {_KNOWN}")


def _shown(node: Any) -> str:
    text = node.sql(dialect=_DIALECT)
    return text if len(text) <= 60 else f"{text[:57]}..."
