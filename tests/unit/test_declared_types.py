"""A declared type and values that it was not made for: the value, or a refusal; never another one."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.registry import RegistryCodec
from vectide.core.model import DecodeError, Record, Upserted
from vectide.core.readers import Decimals
from vectide.core.types import TypeNameError, parse_type

#: By what they mean: names as the catalogues of PostgreSQL, MySQL, MariaDB, SQL Server and Oracle have them.
NAMES = {
    "text": """
        int unsigned; int(11) unsigned zerofill; smallint unsigned; mediumint(8); tinyint(4); year(4)
        bigserial
        binary(16); varbinary(255); varbinary(max); tinyblob; mediumblob; longblob; image; rowversion; raw(16)
        tinytext; mediumtext; longtext; varchar(max); nvarchar(200); varchar2(20 char); nvarchar2(20); clob
        nclob; long raw; rowid; xmltype; character varying(20); national character varying(5); sysname
        enum('a','b'); ENUM('it''s (one)', 'x,y'); int4range; tstzrange; inet6; vector(384); halfvec(3)
        number(9); number(18,0); number(10,-2); numrange; macaddr8; hierarchyid
    """,
    "decimal 2": """
        decimal(10,2); numeric(10, 2); dec(5,2); number(10,2); number(*,2); decimal(10,2) unsigned; money(2)
    """,
    "decimal 0": "decimal(10); numeric(38,0); number(19); number(*,0)",
    "decimal -2": "numeric(5,-2); number(38,-2)",
    "decimal 4": "smallmoney; money(4)",
    "decimal": "numeric; number; decimal",
    "bigint unsigned": "bigint unsigned; bigint(20) unsigned; BIGINT(20) UNSIGNED ZEROFILL",
    "float": """
        float; float(24); float(7,3); double; double precision; double(10,2) unsigned; binary_float; real
    """,
    "boolean": "bool; boolean",
    "bit 1": "bit; bit(1)",
    "bit 8": "bit(8)",
    "date": "date",
    "time 1000": "time(3); time(0) without time zone",
    "time 1000000": "time; time(6); time without time zone",
    "time 1000000000": "time(7)",
    "timestamp 1000": "datetime; smalldatetime; datetime(3); timestamp(3); timestamp(3) without time zone",
    "timestamp 1000000": "timestamp; datetime(6); timestamp without time zone; datetime2(6)",
    "timestamp 1000000000": "datetime2; timestamp(9)",
    "timestamptz": """
        timestamp with time zone; timestamp(6) with time zone; timestamp(6) with local time zone
        timestamp with local time zone; datetimeoffset; datetimeoffset(7); timestamptz
    """,
    "interval": """
        interval; interval(3); interval year to month; interval year(2) to month; interval day to second(3)
        interval day(2) to second(6); interval hour
    """,
    "set": "set; set('a','b')",
    "uuid": "uuid; uniqueidentifier",
    "geometry": "geometry; geometry(Point,4326); geography(Point,4326); point; multipolygon; sdo_geometry",
    "json": "json; jsonb",
    "text[]": "varchar(20)[]; text[][]; integer[3]",
    "decimal 2[]": "numeric(8,2)[]",
}
ALL_NAMES = [
    (name.strip(), meaning)
    for meaning, names in NAMES.items()
    for name in names.replace("\n", ";").split(";")
    if name.strip()
]


@pytest.mark.parametrize(("name", "meaning"), ALL_NAMES)
def test_types_are_named_as_each_database_names_them(name: str, meaning: str) -> None:
    assert parse_type(name).meaning == meaning


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("money", r"money\(2\) is PostgreSQL's, money\(4\) SQL Server's"),
        ("sql_variant", "connectors do not send it"),
        ("decimal(a)", "in its brackets belong numbers"),
        ("decimal(-1)", "in its brackets belong numbers"),
        ("time(1,2)", "in its brackets belong numbers"),
        ("set('a", "is not a type; there are decimal, "),
        ("interval fortnight", "is not a type; there are decimal, "),
        ("int signed4", "is not a type; there are decimal, "),
    ],
)
def test_a_name_that_does_not_say_enough_is_refused_with_what_to_write(name: str, told: str) -> None:
    with pytest.raises(TypeNameError, match=told):
        parse_type(name)


WORDS = (
    "decimal number time timestamp interval bit enum money set day unsigned max a 2 -3 99999 * ( ) , ' [] ²"
)
PIECES = st.sampled_from([*WORDS.split(), " ", " with time zone", " to "])


@given(st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=8).map("".join)))
def test_any_text_is_a_type_or_refused_by_name(text: str) -> None:
    """Case 169: and a type that there is reads or refuses, and does nothing else."""
    try:
        read = parse_type(text).read
    except TypeNameError:
        return
    for value in ("1234", 5, True, {"a": 1}, [1], "", "2026-01-01"):
        with suppress(DecodeError):
            read(value)


def test_a_long_name_is_read_or_refused_at_once() -> None:
    labels = ",".join(f"'label {at}'" for at in range(5_000))
    assert parse_type(f"enum({labels})").meaning == "text"
    for name in ("a " * 5_000, "a" * 5_000 + "(", f"enum({labels}", "int" + "[]" * 5_000 + "x"):
        with pytest.raises(TypeNameError):
            parse_type(name)


@pytest.mark.parametrize(
    ("mode", "sent", "spelt"),
    [
        ("string", "1234", "1234"),
        ("string", "12345678", "12345678"),
        ("string", "NAN", "NaN"),
        ("double", "1234", "1234"),
        ("double", 1234.0, "1234"),
        ("precise", "1234", str(int.from_bytes(b"\xd7\x6d\xf8", "big", signed=True))),
        ("precise", "BNI=", "1234"),
        ("auto", "BNI=", "1234"),
    ],
)
def test_the_connectors_mode_decides_what_digits_mean(mode: Decimals, sent: object, spelt: str) -> None:
    """Case 37."""
    assert parse_type("numeric(38,0)", mode).read(sent) == spelt


def test_the_mode_of_the_service_counts_for_every_row_and_key() -> None:
    """Case 37: where the digits are those of an id, too."""
    table = table_of("{v}", types={"id": "numeric(12,0)", "v": "decimal(9)"})
    value = b'{"op":"c","source":{"ts_ms":5,"db":"shop"},"after":{"id":"1234","v":"5678"}}'
    record = Record("t", 0, 0, b'{"id":"1234"}', value)
    for codec in (DebeziumJson, RegistryCodec):
        change = codec(mapping_of=lambda _: table, decimals="string").decode(record)
        assert isinstance(change, Upserted)
        assert (change.key, change.columns) == ({"id": "1234"}, {"id": "1234", "v": "5678"})
        with pytest.raises(DecodeError, match="set VECTIDE_CODEC__DECIMALS"):
            codec(mapping_of=lambda _: table).decode(record)


def test_what_is_not_of_the_mode_is_refused() -> None:
    for name, mode, sent in (("numeric(10,2)", "string", "BNI="), ("numeric(10,0)", "precise", "12345")):
        with pytest.raises(DecodeError, match="bad_value"):
            parse_type(name, mode).read(sent)  # type: ignore[arg-type]


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
        ("time(3)", 86_400_000, "24:00:00.000000"),
        ("bigint unsigned", -1, "18446744073709551615"),  # as the connector's default mode sends the greatest
        ("bigint unsigned", 7, "7"),
        ("bigint unsigned", "AP//////////", "18446744073709551615"),
        ("bit(1)", True, True),
        ("bit(1)", "AQ==", True),
        ("bit(1)", "AA==", False),
        ("bit(1)", "true", True),
        ("bit(1)[]", [False, None], [False, None]),
        ("timestamp", "2026-02-28T21:59:59Z", "2026-02-28T21:59:59.000000Z"),  # MySQL's is a moment
        ("timestamp", "2026-02-28T21:59:59", "2026-02-28T21:59:59.000000"),
        ("timestamp without time zone", "2026-02-28T21:59:59Z", "2026-02-28T21:59:59.000000"),
        ("interval day to second", 3_600_000_000, "PT1H0M0S"),
        ("varbinary(16)", "AP8Q", "AP8Q"),
    ],
)
def test_values_are_read_in_the_unit_and_mode_in_which_they_come(
    type_name: str, sent: object, spelt: object
) -> None:
    read = parse_type(type_name).read(sent)
    assert read == spelt if isinstance(spelt, bool | list) else str(read) == spelt


@pytest.mark.parametrize(
    ("type_name", "sent", "advice"),
    [
        ("numeric(10,0)", "1234", "set VECTIDE_CODEC__DECIMALS"),  # 1234, or the base64 of -2658824
        ("numeric(38,0)", "12345678", "set VECTIDE_CODEC__DECIMALS"),
        ("time(3)", 30_600_000_123, "declare time(6) for microseconds"),
        ("time", 30_600_000_000_000, "time(7) for nanoseconds"),
        ("time(3)", 600_000_000, "declare time(6) for microseconds"),  # ten past midnight
        ("date", 1_772_236_800_000, "declare Oracle's date as timestamp(3)"),
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
