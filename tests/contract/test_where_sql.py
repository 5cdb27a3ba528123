"""Row filters decide as PostgreSQL does."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from vectide.settings_where import parse_where
from vectide.testing.postgres import EmbeddedPostgres

COLUMNS = {
    "i": "int",
    "n": "numeric(10,2)",
    "x": "double precision",
    "s": 'text COLLATE "C"',
    "f": "boolean",
    "d": "date",
    "t": "timestamp",
    "z": "timestamptz",
}
#: Each row as an event holds it, which is also how PostgreSQL reads it.
ROWS: list[dict[str, Any]] = [
    {},
    {"i": 0, "n": "0.00", "x": 0.0, "s": "", "f": False, "d": "1970-01-01"},
    {"i": 1, "n": "9.50", "x": 0.1, "s": "a%b", "f": True, "t": "2026-02-28T23:59:59.123456"},
    {"i": 2, "n": "10.00", "x": 1e300, "s": "A_b", "z": "2026-02-28T21:59:59.123456Z"},
    {
        "i": -7,
        "n": "-3.25",
        "x": float("nan"),
        "s": "äé",
        "d": "2026-02-28",
        "t": "2026-02-28T00:00:00.000000",
    },
    {"i": 5, "s": "5", "f": True, "d": "infinity", "t": "infinity", "z": "-infinity"},
    {"i": 2147483647, "n": "12.50", "s": "line\nbreak", "f": False, "z": "2026-03-01T00:00:00.000000Z"},
    {"s": "back\\slash", "x": -0.0},
]
CONDITIONS = [
    "i = 1",
    "i <> 1",
    "NOT i = 1",
    "i IN (1, 2)",
    "i NOT IN (1, 2)",
    "i IN (1, NULL)",
    "i NOT IN (1, NULL)",
    "i BETWEEN 0 AND 2",
    "i NOT BETWEEN 0 AND 2",
    "i BETWEEN n AND 5",
    "i = '5'",
    "n > 9",
    "n = 12.5",
    "n < i",
    "n >= -3.25 AND n <= 10",
    "x = 0",
    "x > 5",
    "x < 0.2",
    "s = 'a%b'",
    "s < 'a'",
    "s > 'Z'",
    "s LIKE 'a%'",
    r"s LIKE 'a\%b'",
    "s LIKE '_\\_b'",
    "s NOT LIKE '%b'",
    "s ILIKE 'a_B'",
    "s LIKE 'line%break'",
    "s LIKE '%\\\\%'",
    "s LIKE ''",
    "s IS NULL",
    "s IS NOT NULL AND f",
    "f",
    "NOT f",
    "f IS TRUE",
    "f IS NOT TRUE",
    "f IS FALSE",
    "f IS NOT FALSE",
    "f = 'yes'",
    "f <> TRUE",
    "i = 1 OR s = '5'",
    "(i = 1 AND f) IS NOT TRUE",
    "i = NULL OR f",
    "f AND NULL = i",
    "d > '2026-01-01'",
    "d <= DATE '2026-02-28'",
    "d = 'infinity'",
    "t >= '2026-02-28'",
    "t < '2026-02-28 23:59:59.5'",
    "t > TIMESTAMP '2026-02-28 00:00'",
    "z < '2026-02-28 22:00Z'",
    "z >= TIMESTAMPTZ '2026-03-01 01:00+01:00'",
    "z > '2026-02-28T23:59:59.1+02'",
    "t < z",
    "d = t",
    "NOT (i > 0 OR n > 0) OR s = 'A_b'",
    "i > 0 AND (n > 9 OR x < 1) AND s <> ''",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_filter_decides_as_postgresql_does(filtered: EmbeddedPostgres, condition: str) -> None:
    with psycopg.connect(filtered.dsn, options="-c TimeZone=UTC") as link:
        found = link.execute(f"SELECT id FROM filtered WHERE {condition}".encode()).fetchall()  # noqa: S608
    where = parse_where(condition)
    whole = [dict.fromkeys(COLUMNS) | row for row in ROWS]
    assert [at for at, row in enumerate(whole) if where.matches(row)] == sorted(id_ for (id_,) in found)


@pytest.fixture(scope="module")
def filtered(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The rows in a table."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    with psycopg.connect(postgres.dsn) as link:
        link.execute("SET TimeZone = 'UTC'")
        link.execute(f"CREATE TABLE filtered (id int PRIMARY KEY, {columns})".encode())
        for at, row in enumerate(ROWS):
            names = ", ".join(["id", *row])
            places = ", ".join(["%s"] * (len(row) + 1))
            insert = f"INSERT INTO filtered ({names}) VALUES ({places})"  # noqa: S608
            link.execute(insert.encode(), (at, *row.values()))
    return postgres
