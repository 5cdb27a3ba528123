"""Dates, times and durations as text: one spelling for each, whatever encoding a source chose.

=============================  ========================================================================
value                          text
=============================  ========================================================================
date                           ``2026-02-28``
time of day, or a long time    ``23:59:59.123456``, ``-838:59:59.000000``
timestamp without time zone    ``2026-02-28T23:59:59.123456``
moment                         ``2026-02-28T21:59:59.123456Z``, in UTC
time with time zone            ``21:59:59.123456Z``, in UTC
duration                       ``PT10303H5M6.789S``
infinite date or timestamp     ``infinity``, ``-infinity``
=============================  ========================================================================

Fractions have six digits, nine where the value has nanoseconds. Years before 0 and after 9999 have a sign
(``+294276-12-31``): nothing here knows a last day, so nothing overflows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NANOS: Final = 1_000_000_000
_DAY_S: Final = 86_400

INFINITY: Final = "infinity"
NEGATIVE_INFINITY: Final = "-infinity"

_DATE: Final = r"(?P<year>[+-]?\d{4,9})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK: Final = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
_ZONE: Final = r"(?P<zone>Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?"
_DATE_TEXT: Final = re.compile(_DATE + _ZONE, re.ASCII)
_TIME_TEXT: Final = re.compile(_CLOCK + _ZONE, re.ASCII)
_TIMESTAMP_TEXT: Final = re.compile(_DATE + "[T ]" + _CLOCK + r"\s?" + _ZONE, re.ASCII)


# --- from numbers ---------------------------------------------------------------------------------------


def date_text(days: int) -> str:
    """The date that many days after 1970-01-01."""
    shifted = days + 719_468  # days since 0000-03-01, so that a leap day is the last of its year
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (month <= 2)
    return f"{_year(year)}-{month:02d}-{day:02d}"


def time_text(ticks: int, per_second: int) -> str:
    """A time of so many ``1/per_second`` seconds: of the day, or a longer or negative one."""
    sign, ticks = ("-", -ticks) if ticks < 0 else ("", ticks)
    second, rest = divmod(ticks, per_second)
    return sign + _clock(second, rest * (NANOS // per_second))


def timestamp_text(ticks: int, per_second: int) -> str:
    """The timestamp so many ``1/per_second`` seconds after 1970-01-01T00:00:00."""
    second, rest = divmod(ticks, per_second)
    days, second = divmod(second, _DAY_S)
    return f"{date_text(days)}T{_clock(second, rest * (NANOS // per_second))}"


def duration_text(nanos: int) -> str:
    """The duration as ISO 8601, no unit beyond hours."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    minutes, nanos = divmod(nanos, 60 * NANOS)
    second, fraction = divmod(nanos, NANOS)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{sign}PT{minutes // 60}H{minutes % 60}M{second}{digits}S"


# --- from texts -----------------------------------------------------------------------------------------


def moment_of(text: str) -> str:
    """The spelling of a timestamp with a zone or an offset; a text that is none is returned as it is."""
    if len(text) == 27 and text[26] == "Z" and text[19] == "." and text[10] == "T":
        return text  # as nearly all are: spelt right already
    match = _TIMESTAMP_TEXT.fullmatch(text)
    if match is None or match["zone"] is None:
        return text
    nanos = _nanos_of(match)
    return text if nanos is None else timestamp_text(nanos, NANOS) + "Z"


def timestamp_of(text: str, *, keep_zone: bool = False) -> str:
    """The spelling of a timestamp without zone, which some converters write as if it were in UTC; a text
    that is none is returned as it is. ``keep_zone``: one with a zone is spelt as :func:`moment_of` does."""
    match = _TIMESTAMP_TEXT.fullmatch(text)
    if keep_zone and match is not None and match["zone"] is not None:
        return moment_of(text)
    nanos = None if match is None else _nanos_of(match)
    return text if nanos is None else timestamp_text(nanos, NANOS)


def date_of(text: str) -> str:
    """The spelling of a date, without the zone that some converters add; a text that is none is returned
    as it is."""
    match = _DATE_TEXT.fullmatch(text)
    days = None if match is None else _days_of(match)
    return text if days is None else date_text(days)


def time_of(text: str, *, zoned: bool) -> str:
    """The spelling of a time: ``zoned`` in UTC, else without the zone that some converters add. A text that
    is none is returned as it is."""
    match = _TIME_TEXT.fullmatch(text)
    if match is None or (zoned and match["zone"] is None):
        return text
    second = _second_of(match)
    if second is None:
        return text
    if not zoned:
        return _clock(second, _fraction_of(match))
    if match["zone"] not in ("Z", "+00", "+00:00"):
        second = (second - _offset_s(match["zone"])) % _DAY_S
    return _clock(second, _fraction_of(match)) + "Z"


# --- from parts -----------------------------------------------------------------------------------------


def date_of_parts(parts: Mapping[str, int]) -> str:
    """A date from its ``year``, ``month`` and ``day``."""
    return f"{_year(parts['year'])}-{parts['month']:02d}-{parts['day']:02d}"


def time_of_parts(parts: Mapping[str, int]) -> str:
    """A time from its ``hour``, ``minute``, ``second`` and ``nanos``; in UTC when there are
    ``offsetSeconds``."""
    second = parts["hour"] * 3600 + parts["minute"] * 60 + parts["second"]
    offset = parts.get("offsetSeconds")
    if offset is None:
        return _clock(second, parts["nanos"])
    return _clock((second - offset) % _DAY_S if offset else second, parts["nanos"]) + "Z"


def timestamp_of_parts(parts: Mapping[str, int]) -> str:
    """A timestamp from the parts of its date and time; a moment in UTC when there are ``offsetSeconds``."""
    offset = parts.get("offsetSeconds")
    second = parts["hour"] * 3600 + parts["minute"] * 60 + parts["second"] - (offset or 0)
    days = _days(parts["year"], parts["month"], parts["day"])
    text = timestamp_text((days * _DAY_S + second) * NANOS + parts["nanos"], NANOS)
    return text if offset is None else text + "Z"


def duration_of_parts(parts: Mapping[str, int]) -> str:
    """A duration from its ``years``, ``months``, ``days``, ``hours``, ``minutes``, ``seconds``, ``nanos``, as
    the text ``P1Y2M3DT4H5M6.789S``."""
    nanos = parts["seconds"] * NANOS + parts["nanos"]
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    digits = f".{nanos % NANOS:09d}".rstrip("0").rstrip(".")
    days = f"P{parts['years']}Y{parts['months']}M{parts['days']}D"
    return f"{days}T{parts['hours']}H{parts['minutes']}M{sign}{nanos // NANOS}{digits}S"


# --- the calendar ---------------------------------------------------------------------------------------


def _clock(second: int, nanos: int) -> str:
    fraction = f"{nanos:09d}" if nanos % 1000 else f"{nanos // 1000:06d}"
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{fraction}"


def _year(year: int) -> str:
    if 0 <= year <= 9999:
        return f"{year:04d}"
    return f"{year:+05d}"


def _days(year: int, month: int, day: int) -> int:
    """Days after 1970-01-01, the reverse of :func:`date_text`."""
    year -= month <= 2
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    year_of_era = year % 400
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return year // 400 * 146_097 + day_of_era - 719_468


def _days_of(match: re.Match[str]) -> int | None:
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return _days(year, month, day)


def _second_of(match: re.Match[str]) -> int | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    return hour * 3600 + minute * 60 + second


def _fraction_of(match: re.Match[str]) -> int:
    return int((match["fraction"] or "").ljust(9, "0"))


def _nanos_of(match: re.Match[str]) -> int | None:
    """Nanoseconds after the epoch, None when it is no timestamp at all."""
    days, second = _days_of(match), _second_of(match)
    if days is None or second is None:
        return None
    return (days * _DAY_S + second - _offset_s(match["zone"])) * NANOS + _fraction_of(match)


def _offset_s(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    offset = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return -offset if zone[0] == "-" else offset
