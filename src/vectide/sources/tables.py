"""The source's tables in PostgreSQL, read by primary key: what its events leave out.

A value comes back as an event of the same row would hold it, or not at all: which types that is possible for,
and how, stands in :mod:`vectide.sources.tables_types`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader

from vectide.core.failures import Failure, Kind
from vectide.core.model import Columns, Value
from vectide.ports import AdapterError, Deadline, RowsRead, StartupRefused
from vectide.sources.tables_errors import failure_of
from vectide.sources.tables_types import ColumnType, Unmatched

_Connection = psycopg.Connection[tuple[Any, ...]]

#: A connection is not used for longer, so that changed passwords and addresses take effect.
_MAX_AGE_S: Final = 300.0

_SESSION: Final[dict[str, Any]] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "vectide",
}
#: The server's text output is what counts, so what the role or the database has set must not change it. For
#: the transaction only: a pooler may give the next one to another session.
_BEGIN: Final = """
SELECT pg_is_in_recovery(), set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
    set_config('extra_float_digits', '1', true), set_config('IntervalStyle', 'postgres', true),
    set_config('bytea_output', 'hex', true), set_config('statement_timeout', %s, true)
"""
_STANDBY: Final = "it is a standby, which lags behind the events: give the address of the primary"

_CATALOGUE: Final = """
WITH RECURSIVE typed(name, oid, modifier) AS (
    SELECT attname, atttypid, atttypmod FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', %s::text, %s::text))
      AND attnum > 0 AND NOT attisdropped
  UNION ALL
    SELECT typed.name, t.typbasetype, t.typtypmod
    FROM typed JOIN pg_catalog.pg_type t ON t.oid = typed.oid WHERE t.typtype = 'd'
)
SELECT typed.name::text, t.typname::text, e.typname::text, coalesce(e.typtype, t.typtype) = 'e',
    typed.modifier, pg_catalog.format_type(t.oid, -1), pg_catalog.format_type(t.oid, typed.modifier),
    t.oid::int8
FROM typed
JOIN pg_catalog.pg_type t ON t.oid = typed.oid AND t.typtype <> 'd'
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
"""


class PostgresRows:
    """A :class:`~vectide.ports.RowReader`. ``dsn``: a libpq connection string or URL of the primary.

    Raises :class:`StartupRefused` when it is none.
    """

    def __init__(self, dsn: str) -> None:
        try:
            self._parameters: dict[str, Any] = {**_SESSION, **conninfo_to_dict(dsn)}
        except psycopg.ProgrammingError:
            # The error quotes the string, and the string holds the password.
            raise StartupRefused(
                "the source's dsn is not a PostgreSQL connection string: only PostgreSQL can be read"
            ) from None
        #: Connections that nobody uses, and when each was opened (monotonic). Its operations are atomic.
        self._idle: list[tuple[_Connection, float]] = []

    def prepare(self, deadline: Deadline) -> None:
        """As :meth:`vectide.ports.RowReader.prepare`."""
        try:
            with self.lease(deadline):
                pass
        except AdapterError as error:
            if error.failure.kind is Kind.OPERATOR:
                raise StartupRefused(f"the source refuses: {error.failure.detail}") from None
            raise

    def read(
        self, table: str, keys: Sequence[Columns], columns: Sequence[str], deadline: Deadline
    ) -> RowsRead:
        """As :meth:`vectide.ports.RowReader.read`: in one transaction, by two queries."""
        with self.lease(deadline) as connection:
            types = _types(connection, table)
            refused = _refusals(table, types, keys[0], columns)
            told = [name for name in columns if name not in refused]
            if not told:
                return RowsRead([{} for _ in keys], refused)
            return RowsRead(_rows(connection, table, types, keys, told), refused)

    def address(self, deadline: Deadline) -> tuple[str, int, str, str]:
        """Host, port, database and user of the connection."""
        with self.lease(deadline) as connection:
            info = connection.info
            host = "localhost" if info.host.startswith("/") else info.host
            return host, info.port, info.dbname, info.user

    def column_types(self, table: str, deadline: Deadline) -> Mapping[str, ColumnType]:
        """The columns of ``schema.table`` and their types; none when it does not exist."""
        with self.lease(deadline) as connection:
            return _types(connection, table)

    def close(self) -> None:
        """As :meth:`vectide.ports.RowReader.close`."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    @contextmanager
    def lease(self, deadline: Deadline) -> Iterator[_Connection]:
        """A connection in a transaction that ends with the block; raises only AdapterError."""
        try:
            connection, opened_s = self._take(deadline)
            try:
                _begin(connection, deadline)
                yield connection
                connection.commit()
            except BaseException:
                connection.close()  # and with it whatever state it may be in
                raise
            self._idle.append((connection, opened_s))
        except (psycopg.Error, OSError) as error:
            raise AdapterError(failure_of(error)) from error

    def _take(self, deadline: Deadline) -> tuple[_Connection, float]:
        now_s = deadline.clock.monotonic()
        found: tuple[_Connection, float] | None = None
        with suppress(IndexError):
            while found is None:
                connection, opened_s = self._idle.pop()
                if connection.closed or now_s - opened_s > _MAX_AGE_S:
                    connection.close()
                else:
                    found = connection, opened_s
        return (self._open(deadline), now_s) if found is None else found

    def _open(self, deadline: Deadline) -> _Connection:
        limit_s = max(2, math.ceil(deadline.remaining_s()))  # less than 2 s is not taken for a limit
        connection = psycopg.connect(
            prepare_threshold=None, **{"connect_timeout": limit_s, **self._parameters}
        )
        connection.read_only = True
        # The types and the rows have to be of one moment.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return connection


def _begin(connection: _Connection, deadline: Deadline) -> None:
    limit_ms = math.ceil(deadline.remaining_s() * 1000)
    standby = connection.execute(_BEGIN, (str(limit_ms),)).fetchone()
    if standby is not None and standby[0]:
        raise AdapterError(Failure(Kind.OPERATOR, "standby", _STANDBY))


def _types(connection: _Connection, table: str) -> Mapping[str, ColumnType]:
    """The columns of ``schema.table``; none when it does not exist."""
    schema, _, name = table.partition(".")
    found = connection.execute(_CATALOGUE, (schema, name)).fetchall()
    return {column: ColumnType(*rest) for column, *rest in found}


def _refusals(
    table: str, types: Mapping[str, ColumnType], key: Columns, columns: Sequence[str]
) -> dict[str, str]:
    """Why columns cannot be read: all of them when no row can be found."""
    if not types:
        return dict.fromkeys(columns, f"the source has no table {table}")
    for name in key:
        if name not in types:
            return dict.fromkeys(columns, f"the source has no key column {name}")
        if not types[name].can_be_key:
            reason = f"its rows cannot be found by the key column {name} of type {types[name].sql}"
            return dict.fromkeys(columns, reason)
    refused = {}
    for name in columns:
        if name not in types:
            refused[name] = "the source no longer has the column"
        elif types[name].convert is None:
            refused[name] = f"what events hold of its type {types[name].sql} cannot be told from the table"
    return refused


def _rows(
    connection: _Connection,
    table: str,
    types: Mapping[str, ColumnType],
    keys: Sequence[Columns],
    columns: Sequence[str],
) -> list[Columns | None]:
    names = list(keys[0])
    schema, _, relation = table.partition(".")
    aliases = [sql.Identifier(f"key{at}") for at in range(len(names))]
    query = sql.SQL(
        "SELECT k.at, {columns} FROM unnest({keys}) WITH ORDINALITY AS k({aliases}, at) "
        "JOIN {table} t ON {same}"
    )
    cursor = connection.cursor()
    for name in columns:
        cursor.adapters.register_loader(types[name].oid, TextLoader)
    # The keys as literals, not as parameters: a percent sign in a name would be taken for a placeholder.
    texts = [sql.Literal([str(key[name]) for key in keys]) for name in names]
    cursor.execute(
        query.format(
            columns=sql.SQL(", ").join(
                sql.Identifier("t", name) + sql.SQL(types[name].cast) for name in columns
            ),
            keys=sql.SQL(", ").join(sql.SQL("{}::text[]").format(text) for text in texts),
            aliases=sql.SQL(", ").join(aliases),
            table=sql.Identifier(schema, relation),
            same=sql.SQL(" AND ").join(
                sql.SQL("t.{} = k.{}::{}").format(sql.Identifier(name), alias, sql.SQL(types[name].sql))
                for name, alias in zip(names, aliases, strict=True)
            ),
        )
    )
    rows: list[Columns | None] = [None] * len(keys)
    for at, *values in cursor:
        rows[int(at) - 1] = dict(_converted(types, zip(columns, values, strict=True)))
    return rows


def _converted(
    types: Mapping[str, ColumnType], values: Iterator[tuple[str, Value]]
) -> Iterator[tuple[str, Value]]:
    for name, value in values:
        convert = types[name].convert
        assert convert is not None
        with suppress(Unmatched):
            yield name, None if value is None else convert(value)
