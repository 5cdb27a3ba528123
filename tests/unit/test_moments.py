"""Dates and times as text, against the standard library where it reaches, and beyond."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core import moments

EPOCH = datetime(1970, 1, 1)
MICROS = 1_000_000


@given(st.dates())
def test_every_date_of_the_calendar_is_its_iso_text(day: date) -> None:
    """Case 39."""
    days = (day - date(1970, 1, 1)).days
    assert moments.date_text(days) == day.isoformat()
    assert moments.date_of(day.isoformat()) == day.isoformat()


@given(st.datetimes())
def test_every_timestamp_of_the_calendar_is_its_iso_text(moment: datetime) -> None:
    """Case 39."""
    ticks = (moment - EPOCH) // timedelta(microseconds=1)
    assert moments.timestamp_text(ticks, MICROS) == moment.isoformat(timespec="microseconds")
    assert moments.timestamp_text(ticks * 1000, 1_000_000_000) == moment.isoformat(timespec="microseconds")


@given(st.datetimes(timezones=st.timezones()))
def test_a_timestamp_with_an_offset_is_told_in_utc(moment: datetime) -> None:
    text = moment.isoformat()
    try:
        utc = moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return
    if moments.moment_of(text) != text:
        assert moments.moment_of(text) == utc.isoformat(timespec="microseconds") + "Z"


@given(st.times())
def test_every_time_of_the_day_is_its_iso_text(clock: time) -> None:
    ticks = ((clock.hour * 60 + clock.minute) * 60 + clock.second) * MICROS + clock.microsecond
    assert moments.time_text(ticks, MICROS) == clock.isoformat(timespec="microseconds")
    assert (
        moments.time_of(clock.isoformat() + "Z", zoned=True) == clock.isoformat(timespec="microseconds") + "Z"
    )


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([1000, MICROS, 1_000_000_000]))
def test_no_number_overflows(ticks: int, per_second: int) -> None:
    """Case 40."""
    for text in (moments.timestamp_text(ticks, per_second), moments.time_text(ticks, per_second)):
        assert text.isascii()
    if per_second < 1_000_000_000 and abs(ticks) < 2**58:
        assert moments.timestamp_of(moments.timestamp_text(ticks, per_second)) == moments.timestamp_text(
            ticks, per_second
        )


@given(st.integers(-(10**9), 10**9))
def test_a_date_is_read_back_as_itself(days: int) -> None:
    text = moments.date_text(days)
    assert moments.date_of(text) == text


@given(st.text())
def test_any_text_is_read_or_left_alone(text: str) -> None:
    for spelt in (
        moments.moment_of(text),
        moments.timestamp_of(text),
        moments.date_of(text),
        moments.time_of(text, zoned=True),
        moments.time_of(text, zoned=False),
    ):
        assert isinstance(spelt, str)


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("2026-02-28T21:59:59.123456Z", "2026-02-28T21:59:59.123456Z"),
        ("2026-02-28T21:59:59Z", "2026-02-28T21:59:59.000000Z"),
        ("2018-06-20T13:37Z", "2018-06-20T13:37:00.000000Z"),
        ("2018-07-06T14:04:05.123+02:00", "2018-07-06T12:04:05.123000Z"),
        ("2018-07-06 14:04:05.123 +02:00", "2018-07-06T12:04:05.123000Z"),
        ("2018-12-31T23:30:00-01", "2019-01-01T00:30:00.000000Z"),
        ("2018-07-06T14:04:05.123456789Z", "2018-07-06T14:04:05.123456789Z"),
        ("0000-01-01T00:00:00.000000Z", "0000-01-01T00:00:00.000000Z"),
        ("-0001-12-31T00:00:00Z", "-0001-12-31T00:00:00.000000Z"),
        ("+10000-01-01T00:00:00Z", "+10000-01-01T00:00:00.000000Z"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("2018-07-06T14:04:05", "2018-07-06T14:04:05"),
        ("2018-13-06T14:04:05Z", "2018-13-06T14:04:05Z"),
        ("yesterday", "yesterday"),
    ],
)
def test_a_timestamp_with_time_zone_has_one_spelling(given_text: str, text: str) -> None:
    """Cases 39 and 40."""
    assert moments.moment_of(given_text) == text


@pytest.mark.parametrize(
    ("ticks", "per_second", "text"),
    [
        (0, MICROS, "1970-01-01T00:00:00.000000"),
        (-1, MICROS, "1969-12-31T23:59:59.999999"),
        (1, 1_000_000_000, "1970-01-01T00:00:00.000000001"),
        (9224318015999999, 1000, "+294276-12-31T23:59:59.999000"),
        (-210866803200000, 1000, "-4713-11-24T00:00:00.000000"),
    ],
)
def test_timestamps_outside_the_calendar_are_spelt_with_a_sign(
    ticks: int, per_second: int, text: str
) -> None:
    """Case 40."""
    assert moments.timestamp_text(ticks, per_second) == text


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (0, "00:00:00.000000"),
        (86_400_000_000, "24:00:00.000000"),
        (-3_020_399_000_000, "-838:59:59.000000"),
        (86_399_999_999, "23:59:59.999999"),
    ],
)
def test_a_time_may_be_longer_than_a_day_or_negative(ticks: int, text: str) -> None:
    """MariaDB's and MySQL's TIME."""
    assert moments.time_text(ticks, MICROS) == text


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "PT0H0M0S"),
        (37091106789 * MICROS, "PT10303H5M6.789S"),
        (-86_400 * 10**9, "-PT24H0M0S"),
        (1, "PT0H0M0.000000001S"),
    ],
)
def test_a_duration_is_iso_text_in_hours(nanos: int, text: str) -> None:
    assert moments.duration_text(nanos) == text
