"""What PostgreSQL's catalogue says of the source, and what a sample of a table says of its columns."""

from __future__ import annotations

from typing import Any, Final

from psycopg import sql

from vectide.core.source_facts import ColumnFacts, PublicationFacts, ServerFacts, SlotFacts, TableFacts
from vectide.ports import Deadline
from vectide.sources.tables import PostgresRows
from vectide.sources.tables_types import ColumnType

#: Rows that the averages are made of, and characters of a text that count.
SAMPLE_ROWS: Final = 500
SAMPLE_CHARACTERS: Final = 20_000

_SERVER: Final = """
SELECT pg_catalog.current_database()::text, current_user::text, pg_catalog.current_setting('wal_level')
"""
_SLOTS: Final = """
SELECT slot_name::text, plugin::text, active, coalesce(wal_status = 'lost', false)
FROM pg_catalog.pg_replication_slots
WHERE slot_type = 'logical' AND database = pg_catalog.current_database() ORDER BY 1
"""
_CONNECTOR: Final = """
SELECT r.rolreplication OR r.rolsuper OR EXISTS (
    SELECT FROM pg_catalog.pg_roles m WHERE m.rolname = 'rds_replication'
    AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER'))
FROM pg_catalog.pg_roles r WHERE r.rolname = %s::text
"""
_TABLE: Final = """
SELECT c.relreplident::text,
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
    (SELECT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(r.oid, c.oid, 'SELECT')
     FROM pg_catalog.pg_roles r WHERE r.rolname = %(connector)s::text),
    (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.at) FROM pg_catalog.pg_index i,
        unnest(i.indkey) WITH ORDINALITY AS k(number, at), pg_catalog.pg_attribute a
     WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.number),
    (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.at) FROM pg_catalog.pg_index i,
        unnest(i.indkey) WITH ORDINALITY AS k(number, at), pg_catalog.pg_attribute a
     WHERE i.indrelid = c.oid AND i.indisreplident AND a.attrelid = c.oid AND a.attnum = k.number)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relname = %(name)s::text AND c.relkind IN ('r', 'p')
"""
_STORAGE: Final = """
SELECT a.attname::text, a.attstorage::text <> 'p' AND a.attlen = -1, a.attgenerated::text <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s::text AND c.relname = %(name)s::text AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_RELATION: Final = """
SELECT pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', %s::text, %s::text)) IS NOT NULL
"""
_PUBLICATIONS: Final = """
SELECT p.pubname::text, p.pubinsert, p.pubupdate, p.pubdelete FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_tables t ON t.pubname = p.pubname
WHERE t.schemaname = %(schema)s::text AND t.tablename = %(name)s::text ORDER BY 1
"""

_KINDS: Final = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), "text"),
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8", "money"), "number"),
    **dict.fromkeys(("date", "timestamp", "timestamptz", "time", "timetz", "interval"), "time"),
    **dict.fromkeys(("json", "jsonb", "hstore"), "json"),
    "bool": "boolean",
    "uuid": "uuid",
}


class PostgresCatalogue:
    """Reads facts; every call raises AdapterError when the server cannot be asked. ``connector`` is the role
    of the connector, empty where it is not known."""

    def __init__(self, rows: PostgresRows, connector: str = "") -> None:
        self._rows = rows
        self._connector = connector

    def server(self, deadline: Deadline) -> ServerFacts:
        """Of the server and the database."""
        with self._rows.lease(deadline) as link:
            (database, role, wal_level) = link.execute(_SERVER).fetchall()[0]
            slots = tuple(SlotFacts(*row) for row in link.execute(_SLOTS).fetchall())
            connector = link.execute(_CONNECTOR, (self._connector,)).fetchone()
        replicates = None if connector is None else bool(connector[0])
        return ServerFacts(database, role, wal_level, slots, self._connector, replicates)

    def table(self, schema: str, name: str, deadline: Deadline) -> TableFacts | None:
        """Of one table, None when there is none of that name. Lengths and shares are not read."""
        named = {"schema": schema, "name": name, "connector": self._connector}
        with self._rows.lease(deadline) as link:
            found = link.execute(_TABLE, named).fetchone()
            if found is None:
                return None
            stored = link.execute(_STORAGE, named).fetchall()
            publications = link.execute(_PUBLICATIONS, named).fetchall()
        identity, may_select, connector_may, key, index = found
        types = self._rows.column_types(f"{schema}.{name}", deadline)
        columns = tuple(
            _column(column, types[column], left_out)
            for column, left_out, generated in stored
            if column in types and not generated
        )
        words = {"d": "default", "f": "full", "n": "nothing"}
        return TableFacts(
            schema,
            name,
            columns,
            tuple(key or ()),
            words.get(identity) or tuple(index or ()),
            may_select,
            connector_may,
            tuple(_publication(*row) for row in publications),
        )

    def has_relation(self, schema: str, name: str, deadline: Deadline) -> bool:
        """Whether anything has this name: a table, a view, an index."""
        with self._rows.lease(deadline) as link:
            return bool(link.execute(_RELATION, (schema, name)).fetchall()[0][0])

    def sample(self, table: TableFacts, deadline: Deadline) -> dict[str, tuple[float | None, float | None]]:
        """Average length and share of different values of each column of texts, of a few hundred rows."""
        texts = [column.name for column in table.columns if column.kind in ("text", "json")]
        if not texts:
            return {}
        numbers_of = sql.SQL(
            "avg(length({value}))::float8, count(DISTINCT {value})::float8 / nullif(count({value}), 0)"
        )
        shortened = sql.SQL("left({}::text, {})")
        parts = [
            numbers_of.format(value=shortened.format(sql.Identifier(name), SAMPLE_CHARACTERS))
            for name in texts
        ]
        query = sql.SQL("SELECT {} FROM (SELECT * FROM {} LIMIT {}) s").format(
            sql.SQL(", ").join(parts), sql.Identifier(table.schema, table.name), SAMPLE_ROWS
        )
        with self._rows.lease(deadline) as link:
            (numbers,) = link.execute(query).fetchall()
        return {name: (numbers[2 * at], numbers[2 * at + 1]) for at, name in enumerate(texts)}


def _column(name: str, type_: ColumnType, left_out: bool) -> ColumnFacts:
    kind = (
        "list" if type_.element is not None else "enum" if type_.is_enum else _KINDS.get(type_.name, "other")
    )
    return ColumnFacts(name, kind, type_.declared_name, left_out)


def _publication(name: str, *operations: Any) -> PublicationFacts:
    words = ("insert", "update", "delete")
    return PublicationFacts(name, frozenset(word for word, on in zip(words, operations, strict=True) if on))
