"""A declared type and values that it was not made for: the value, or a refusal; never another one."""

import pytest

from vectide.core.model import DecodeError
from vectide.core.types import parse_type


@pytest.mark.parametrize(
    ("type_name", "sent", "spelt"),
    [
        ("numeric(10,0)", "BNI=", "1234"),
        ("numeric(10,0)", "123", "123"),  # three digits are not base64
        ("numeric(10,0)", "-1234", "-1234"),
        ("numeric(10,0)", 1234, "1234"),
        ("numeric(4,0)", "1234", "1234"),  # as base64 it would have seven digits
        ("numeric(8,0)", "12345678", "12345678"),
        ("numeric(10,2)", "1234.50", "1234.50"),
        ("datetime2", 1_700_000_000_123_456_700, "2023-11-14T22:13:20.123456700"),
        ("datetime2(3)", 1_700_000_000_123, "2023-11-14T22:13:20.123000"),
        ("time(6)", 30_600_000_000, "08:30:00.000000"),
        ("time", 3_020_399_000_000, "838:59:59.000000"),
    ],
)
def test_values_are_read_in_the_unit_and_mode_in_which_they_come(
    type_name: str, sent: object, spelt: str
) -> None:
    assert parse_type(type_name).read(sent) == spelt


@pytest.mark.parametrize(
    ("type_name", "sent", "advice"),
    [
        ("numeric(10,0)", "1234", "declare the column as text"),  # 1234, or the base64 of -2658824
        ("numeric(38,0)", "12345678", "declare the column as text"),
        ("time(3)", 30_600_000_123, "declare time(6) for microseconds"),
        ("time", 30_600_000_000_000, "time(7) for nanoseconds"),
    ],
)
def test_what_could_be_another_value_is_refused_with_advice(
    type_name: str, sent: object, advice: str
) -> None:
    """Case 37: a wrong number is worse than none."""
    with pytest.raises(DecodeError) as refused:
        parse_type(type_name).read(sent)
    assert refused.value.cause == "bad_value"
    assert advice in refused.value.detail
    assert str(sent) not in refused.value.detail
