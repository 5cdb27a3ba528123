"""Row filters: a condition over a row's columns with SQL's logic of three values, and a fourth case.

A column that is null makes a comparison *unknown*, and only what is true matches. A column whose value the
event does not hold is never guessed: its comparisons may come out in any way, and where that leaves open
whether the row matches, the answer is that nobody knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, Final

from vectide.core.model import Columns, Value, short_hash

#: What a condition may come out as, as bits: several are set while a value is not known.
TRUE: Final = 1
FALSE: Final = 2
UNKNOWN: Final = 4
_ANY: Final = TRUE | FALSE | UNKNOWN

OPERATORS: Final = ("=", "<>", "<", "<=", ">", ">=")


class WhereError(ValueError):
    """A text is not a condition of the grammar; says what is wrong."""


class WhereMismatch(ValueError):
    """A value cannot be compared with what the filter compares it with. Names the column, not the value."""


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A text, a number, a boolean or null. ``is_moment``: the text was written as a date or timestamp, and
    is compared with such values only."""

    value: str | Decimal | bool | None
    is_moment: bool = False


Operand = Column | Constant


@dataclass(frozen=True, slots=True)
class Compare:
    """``left operator right``, with an operator of :data:`OPERATORS`."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Like:
    """``%`` stands for any text, ``_`` for one character, a backslash takes the next one as it is."""

    column: Column
    pattern: str
    ignores_case: bool = False

    @cached_property
    def expression(self) -> re.Pattern[str]:
        return re.compile(
            "".join(_like_parts(self.pattern)), re.DOTALL | (re.IGNORECASE if self.ignores_case else 0)
        )


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a column is null; never unknown."""

    column: Column


@dataclass(frozen=True, slots=True)
class Is:
    """Whether a condition is true (or is false); never unknown."""

    condition: Condition
    truth: bool


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; unknown stays unknown."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class All:
    """AND."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """OR."""

    conditions: tuple[Condition, ...]


Condition = Compare | Like | IsNull | Is | Not | All | Some


@dataclass(frozen=True)
class Where:
    """A row filter: ``source`` is the SQL that it was written as, ``condition`` what that means."""

    source: str
    condition: Condition

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at, in order of appearance."""
        return tuple(dict.fromkeys(_columns(self.condition)))

    @cached_property
    def identity(self) -> str:
        """The same for the same filter."""
        return short_hash(self.source.strip())

    def matches(self, columns: Columns) -> bool | None:
        """Whether the row matches; None when that depends on columns that are not among these.

        Raises :class:`WhereMismatch` for a value that cannot be compared.
        """
        outcome = _outcome(self.condition, columns)
        if not outcome & TRUE:
            return False
        return True if outcome == TRUE else None


def _columns(node: Condition | Operand) -> Iterator[str]:
    match node:
        case Column(name):
            yield name
        case Compare(_, left, right):
            yield from _columns(left)
            yield from _columns(right)
        case Like(column=column) | IsNull(column):
            yield column.name
        case Is(condition, _) | Not(condition):
            yield from _columns(condition)
        case All(conditions) | Some(conditions):
            for condition in conditions:
                yield from _columns(condition)


# --- logic ----------------------------------------------------------------------------------------------


def _outcome(node: Condition, row: Columns) -> int:
    """The bits of what the condition may come out as."""
    match node:
        case Compare():
            return _compared(node, row)
        case Like():
            return _liked(node, row)
        case IsNull(column):
            return (TRUE | FALSE) if column.name not in row else _truth(row[column.name] is None)
        case Is(condition, truth):
            return _is(_outcome(condition, row), TRUE if truth else FALSE)
        case Not(condition):
            return _NOT[_outcome(condition, row)]
        case All(conditions):
            return _joined(conditions, row, _AND)
        case Some(conditions):
            return _joined(conditions, row, _OR)


def _joined(conditions: tuple[Condition, ...], row: Columns, table: tuple[tuple[int, ...], ...]) -> int:
    """Every part is looked at: what cannot be compared is told whatever the others say."""
    first, *others = [_outcome(condition, row) for condition in conditions]
    for other in others:
        first = table[first][other]
    return first


def _is(outcome: int, wanted: int) -> int:
    yes = TRUE if outcome & wanted else 0
    return yes | (FALSE if outcome & ~wanted else 0)


def _truth(value: bool) -> int:
    return TRUE if value else FALSE


def _and(left: int, right: int) -> int:
    if FALSE in (left, right):
        return FALSE
    return UNKNOWN if UNKNOWN in (left, right) else TRUE


def _or(left: int, right: int) -> int:
    if TRUE in (left, right):
        return TRUE
    return UNKNOWN if UNKNOWN in (left, right) else FALSE


def _negated(outcome: int) -> int:
    return (FALSE if outcome & TRUE else 0) | (TRUE if outcome & FALSE else 0) | (outcome & UNKNOWN)


def _table(join: Callable[[int, int], int]) -> tuple[tuple[int, ...], ...]:
    """What comes out of any two sets of outcomes."""

    def of(left: int, right: int) -> int:
        bits = 0
        for one in (TRUE, FALSE, UNKNOWN):
            for other in (TRUE, FALSE, UNKNOWN):
                if left & one and right & other:
                    bits |= join(one, other)
        return bits

    return tuple(tuple(of(left, right) for right in range(_ANY + 1)) for left in range(_ANY + 1))


_AND: Final = _table(_and)
_OR: Final = _table(_or)
_NOT: Final = tuple(_negated(outcome) for outcome in range(_ANY + 1))


# --- comparisons ----------------------------------------------------------------------------------------

_HOLDS: Final[dict[str, Callable[[int], bool]]] = {
    "=": lambda order: order == 0,
    "<>": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def _compared(node: Compare, row: Columns) -> int:
    values = []
    for side in (node.left, node.right):
        if isinstance(side, Constant):
            values.append(side.value)
        elif side.name in row:
            values.append(row[side.name])
        else:
            return _ANY
    left, right = values
    if left is None or right is None:
        return UNKNOWN
    try:
        return _truth(_HOLDS[node.operator](_order(left, right, node)))
    except _Incomparable:
        sides = [f"the column {side.name}" for side in (node.left, node.right) if isinstance(side, Column)]
        raise WhereMismatch(
            f"where: {' and '.join(sides)}: {_kind(left)} cannot be compared with {_kind(right)}"
        ) from None


def _liked(node: Like, row: Columns) -> int:
    if node.column.name not in row:
        return _ANY
    value = row[node.column.name]
    if value is None:
        return UNKNOWN
    if not isinstance(value, str):
        raise WhereMismatch(f"where: the column {node.column.name}: LIKE needs a text, not {_kind(value)}")
    return _truth(node.expression.fullmatch(value) is not None)


class _Incomparable(Exception):
    pass


def _order(left: Value, right: Value, node: Compare) -> int:
    """Below zero, zero or above: how the two stand to each other."""
    match left, right:
        case (bool(), bool()):
            return _sign(left, right)
        case (str(), str()):
            return _text_order(left, right, node)
        case (bool(), str()):
            return _sign(left, _boolean(right))
        case (str(), bool()):
            return _sign(_boolean(left), right)
        case (bool() | int() | float() | Decimal() | str(), bool() | int() | float() | Decimal() | str()):
            return _sign(_number(left), _number(right))
    raise _Incomparable


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _text_order(left: str, right: str, node: Compare) -> int:
    constants = [side for side in (node.left, node.right) if isinstance(side, Constant)]
    if any(constant.is_moment for constant in constants):
        return _sign(_moment(left), _moment(right))
    try:
        return _sign(_moment(left), _moment(right))
    except _Incomparable:
        pass
    if not constants:
        # Two columns: decimals arrive as texts.
        try:
            return _sign(_number(left), _number(right))
        except _Incomparable:
            pass
    return _sign(left, right)


def _number(value: Value) -> tuple[int, Decimal]:
    """Not-a-number is above all others, as PostgreSQL has it."""
    if isinstance(value, float):
        value = repr(value) if math.isfinite(value) else str(value)
    try:
        number = value if isinstance(value, Decimal) else Decimal(value)
    except InvalidOperation:
        raise _Incomparable from None
    return (1, Decimal(0)) if number.is_nan() else (0, number)


_TRUE_TEXTS: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE_TEXTS: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE_TEXTS | _FALSE_TEXTS:
        raise _Incomparable
    return word in _TRUE_TEXTS


_MOMENT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:(Z)|([+-])(\d\d)(?::?(\d\d))?)?)?"
)
_ENDLESS: Final = {"infinity": 1, "-infinity": -1}


def is_moment(text: str) -> bool:
    """Whether the text is a date or a timestamp in ISO 8601 (a blank for the ``T`` is allowed)."""
    try:
        _moment(text)
    except _Incomparable:
        return False
    return True


def _moment(text: str) -> tuple[int, datetime, int]:
    """A date is its midnight; what has no offset is in UTC."""
    if text in _ENDLESS:
        return (_ENDLESS[text], datetime.min, 0)
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise _Incomparable
    date, minutes, seconds, fraction, _, sign, hours_off, minutes_off = found.groups()
    try:
        local = datetime.fromisoformat(f"{date}T{minutes or '00:00'}:{seconds or '00'}")
        offset = timedelta(hours=int(hours_off or 0), minutes=int(minutes_off or 0))
        moment = local + offset if sign == "-" else local - offset
    except (ValueError, OverflowError):
        raise _Incomparable from None
    return (0, moment, int((fraction or "0").ljust(9, "0")))


def _kind(value: Value) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a text"
        case int() | float() | Decimal():
            return "a number"
        case list():
            return "a list"
    return "an object"


def _like_parts(pattern: str) -> Iterator[str]:
    characters = iter(pattern)
    for character in characters:
        match character:
            case "%":
                yield ".*"
            case "_":
                yield "."
            case "\\":
                yield re.escape(next(characters, "\\"))
            case _:
                yield re.escape(character)
