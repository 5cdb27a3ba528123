"""How dates, times and durations are read from each of Debezium's encodings (see :mod:`vectide.core.readers`
for what a reader is, :mod:`vectide.core.moments` for the spellings)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vectide.core import moments
from vectide.core.model import DecodeError, Value
from vectide.core.readers import Reader, refuse

_INT64: Final = range(-(2**63), 2**63)
#: The longest time that any source has: MySQL's 838:59:59, which comes as microseconds; elsewhere a day.
#: Beyond, the unit is a smaller one than assumed.
_MAX_TIME_S: Final = {1_000_000: 839 * 3600}
_DAY_S: Final = 24 * 3600
#: The days that a date may be counted in; Oracle's come as milliseconds.
_INT32: Final = range(-(2**31), 2**31)

#: PostgreSQL's infinite dates as Debezium sends them, in snapshots and in streams. None is a possible date.
_INFINITE_DAYS: Final = {
    -622_191_234: moments.INFINITY,
    2_146_033_979: moments.INFINITY,
    -2_147_472_692: moments.INFINITY,
    -625_821_272: moments.NEGATIVE_INFINITY,
    -2_147_472_691: moments.NEGATIVE_INFINITY,
}
_INFINITE_MICROS: Final = {
    9_223_372_036_825_200_000: moments.INFINITY,
    2**63 - 1: moments.INFINITY,
    -9_223_372_036_832_400_000: moments.NEGATIVE_INFINITY,
    -(2**63): moments.NEGATIVE_INFINITY,
}
#: As milliseconds they come both divided by a thousand and not.
_INFINITE_MILLIS: Final = _INFINITE_MICROS | {
    9_223_372_036_825_200: moments.INFINITY,
    -9_223_372_036_832_400: moments.NEGATIVE_INFINITY,
}
_INFINITE: Final[Mapping[int, Mapping[int, str]]] = {1_000: _INFINITE_MILLIS, 1_000_000: _INFINITE_MICROS}
_SPECIAL: Final = {"POSITIVE_INFINITY": moments.INFINITY, "NEGATIVE_INFINITY": moments.NEGATIVE_INFINITY}


def date(value: Value) -> Value:
    """Reads days since 1970-01-01, or ISO text."""
    if isinstance(value, str):
        text = moments.date_of(value)
        return {"-5877611-06-21": moments.INFINITY, "-5877611-06-22": moments.NEGATIVE_INFINITY}.get(
            text, text
        )
    days = _integer(value, "a date")
    if days not in _INT32:
        raise DecodeError(
            "bad_value", "a date in another unit than days: declare Oracle's date as timestamp(3)"
        )
    return _INFINITE_DAYS.get(days) or moments.date_text(days)


def time(per_second: int) -> Reader:
    """Reads a time in such parts of a second, or ISO text."""
    longest = _MAX_TIME_S.get(per_second, _DAY_S) * per_second

    def read(value: Value) -> Value:
        if isinstance(value, str):
            return moments.time_of(value, zoned=False)
        ticks = _integer(value, "a time")
        if abs(ticks) > longest:
            raise DecodeError(
                "bad_value",
                "a time in a smaller unit than its declared precision says: declare time(6) for microseconds,"
                " time(7) for nanoseconds",
            )
        return moments.time_text(ticks, per_second)

    return read


def timestamp(per_second: int) -> Reader:
    """Reads a timestamp without zone in such parts of a second since 1970, or ISO text, whose zone does not
    count: some modes of the connector add one."""
    return _timestamp(per_second, moments.timestamp_of)


def timestamp_or_moment(per_second: int) -> Reader:
    """Reads the same, but takes a text with a zone for a moment: MySQL's timestamps are."""
    return _timestamp(per_second, lambda text: moments.timestamp_of(text, keep_zone=True))


def _timestamp(per_second: int, spell: Callable[[str], str]) -> Reader:
    infinite = _INFINITE.get(per_second, {})

    def read(value: Value) -> Value:
        if isinstance(value, str):
            return spell(value)
        ticks = _integer(value, "a timestamp")
        return infinite.get(ticks) or moments.timestamp_text(ticks, per_second)

    return read


def moment(value: Value) -> Value:
    """Reads the ISO text of a timestamp with time zone."""
    return moments.moment_of(value) if isinstance(value, str) else refuse("a timestamp with time zone")


def zoned_time(value: Value) -> Value:
    """Reads the ISO text of a time with time zone."""
    return moments.time_of(value, zoned=True) if isinstance(value, str) else refuse("a time with time zone")


def duration(per_second: int) -> Reader:
    """Reads a duration in such parts of a second; ISO text stays."""
    nanos = moments.NANOS // per_second

    def read(value: Value) -> Value:
        if isinstance(value, str):
            return value
        return moments.duration_text(_integer(value, "an interval") * nanos)

    return read


def structured(spell: Callable[[Mapping[str, int]], str]) -> Reader:
    """Reads a date, time or timestamp that comes as an object of its parts."""

    def read(value: Value) -> Value:
        if not isinstance(value, dict):
            return refuse("a structured time")
        special = value.get("specialValue")
        if special is not None:
            return _SPECIAL.get(special, special) if isinstance(special, str) else refuse("a structured time")
        try:
            return spell(
                {name: _integer(part, "a part") for name, part in value.items() if type(part) is int}
            )
        except KeyError:
            return refuse("a structured time")

    return read


def _integer(value: Value, what: str) -> int:
    if type(value) is not int or value not in _INT64:
        refuse(what)
    return value
