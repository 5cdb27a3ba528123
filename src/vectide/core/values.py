"""Makes metadata legal for a store before any adapter sees it: values in, JSON values out.

The rule: a value is stored as it is, or as another spelling of the same value that is read back without
loss, or refused by name. Nothing is truncated, cleaned or rounded.

====================================  =================================================================
value                                 what the store gets
====================================  =================================================================
text, bool, finite float, integer     itself
integer beyond ``max_integer``        its decimal text (stores that keep numbers as doubles round silently)
``Decimal``                           its decimal text, scale kept: ``19.90``
aware ``datetime``                    UTC with six fractional digits: ``2024-05-01T10:00:00.000000Z``
naive ``datetime``, ``time``          ISO 8601, six fractional digits, no zone
``date``                              ``2024-05-01``
``UUID``                              its usual text, lower case
bytes                                 base64
NaN and infinities                    null: stores have no such number, and a text among numbers breaks
                                      typed fields and range filters
null                                  null, or no entry where the store has no null
tuple                                 list
object, or list that holds one        itself, or canonical JSON text where the store cannot nest
empty list                            itself, or no entry where lists have to be uniform
list of values of several types       itself, or canonical JSON text where lists have to be uniform
list of anything but texts            itself, or canonical JSON text where lists have to be of texts
NUL in a text                         refused, where the store cannot hold it
unpaired surrogate in a text          refused: it has no UTF-8
nesting beyond 64 levels              refused
anything else                         refused
====================================  =================================================================
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Final
from uuid import UUID

from vectide.core.model import Value, canonical_json

MAX_DEPTH: Final = 64

#: Exponents within which a decimal is written out; beyond, in scientific notation.
_PLAIN_EXPONENT: Final = 100


class ValueRefused(ValueError):
    """No store of this kind can hold the value. ``name`` is the metadata name, ``why`` has no content."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


@dataclass(frozen=True, slots=True)
class _Limits:
    max_integer: int
    nul_in_text: bool


#: A process has those of its stores, and asks for every record.
_limits = lru_cache(_Limits)


def normalise(
    metadata: Mapping[str, Value],
    *,
    max_integer: int,
    nested_metadata: bool,
    null_metadata: bool,
    nul_in_text: bool,
    uniform_lists: bool = False,
    text_lists: bool = False,
) -> dict[str, Value]:
    """The metadata as the store can hold it; the arguments are the store's capabilities of those names.

    Idempotent, and leaves its argument alone. Raises :class:`ValueRefused` for the first name that cannot
    be stored.
    """
    limits = _limits(max_integer, nul_in_text)
    legal: dict[str, Value] = {}
    for name, given in metadata.items():
        try:
            value = _plain(given, limits, depth=0)
            _check_text(name, limits)
        except _Refusal as refusal:
            raise ValueRefused(name, str(refusal)) from None
        if (value is None and not null_metadata) or (value == [] and uniform_lists):
            continue
        if _needs_text(
            value, nested_metadata=nested_metadata, uniform_lists=uniform_lists, text_lists=text_lists
        ):
            value = canonical_json(value)
        legal[name] = value
    return legal


def check_text(name: str, text: str, *, nul_in_text: bool) -> None:
    """Raise :class:`ValueRefused` when a store cannot hold ``text`` under ``name`` as it is."""
    try:
        _check_text(text, _limits(0, nul_in_text))
    except _Refusal as refusal:
        raise ValueRefused(name, str(refusal)) from None


def same_value(one: Value, other: Value) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    return bool(one == other)


class _Refusal(Exception):
    """Why a value cannot be stored; the name is added further up."""


def _plain(value: object, limits: _Limits, depth: int) -> Value:
    match value:
        case None | bool():
            return value
        case str():
            _check_text(value, limits)
            return value
        case int():
            return _integer(value, limits)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping() | list() | tuple():
            return _container(value, limits, depth)
        case _:
            return _rendered(value)


def _container(
    value: Mapping[object, object] | list[object] | tuple[object, ...], limits: _Limits, depth: int
) -> Value:
    if depth >= MAX_DEPTH:
        raise _Refusal(f"nested deeper than {MAX_DEPTH} levels")
    if not isinstance(value, Mapping):
        return [_plain(item, limits, depth + 1) for item in value]
    members: dict[str, Value] = {}
    for name, member in value.items():
        if not isinstance(name, str):
            raise _Refusal(f"a member name of type {type(name).__name__}")
        _check_text(name, limits)
        members[name] = _plain(member, limits, depth + 1)
    return members


def _integer(value: int, limits: _Limits) -> Value:
    if abs(value) <= limits.max_integer:
        return int(value)
    try:
        return str(int(value))
    except ValueError:  # the interpreter's own limit on digits
        raise _Refusal("an integer of more digits than can be written") from None


def _rendered(value: object) -> Value:
    match value:
        case Decimal():
            return _decimal(value)
        case datetime():
            return _datetime(value)
        case date() | UUID():
            return str(value)
        case time():
            return value.isoformat(timespec="microseconds")
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case _:
            raise _Refusal(f"values of type {type(value).__name__} have no defined form")


def _decimal(value: Decimal) -> str | None:
    if not value.is_finite():
        return None
    plain = abs(value.adjusted()) <= _PLAIN_EXPONENT
    return format(value, "f") if plain else str(value)


def _datetime(value: datetime) -> str:
    if value.utcoffset() is None:
        return value.isoformat(timespec="microseconds")
    try:
        utc = value.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 on the other side of midnight
        return value.isoformat(timespec="microseconds")
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _check_text(text: str, limits: _Limits) -> None:
    if not limits.nul_in_text and "\0" in text:
        raise _Refusal("a NUL character, which the store cannot hold")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Refusal("an unpaired surrogate, which is not Unicode text") from None


def _needs_text(value: Value, *, nested_metadata: bool, uniform_lists: bool, text_lists: bool) -> bool:
    if isinstance(value, dict):
        return not nested_metadata
    if not isinstance(value, list):
        return False
    if uniform_lists and (len({type(item) for item in value}) > 1 or None in value):
        return True
    if text_lists and not all(isinstance(item, str) for item in value):
        return True
    return not nested_metadata and any(isinstance(item, list | dict) for item in value)
