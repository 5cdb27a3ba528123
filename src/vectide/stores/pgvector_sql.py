"""The tables of the pgvector store and the statements on them.

One table per collection, as a person would have designed it, and ``vectide_collections``, which remembers
what each collection is made for. Two things about the tables are not obvious:

- No index covers a column that a metadata patch touches, unless a table declares names to filter by, and
  pages keep free space (fillfactor), so that a patch is a heap-only update: any such index re-inserts the
  vector into its graph, fifty times slower.
- ``row_id`` finds the points of a row. It is the id of the row's chunk 0, thus derived from table and key,
  and unlike them it is short: a B-tree refuses keys beyond 2,700 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, LiteralString

from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from vectide.core.filters import FilterField, FilterType
from vectide.core.model import canonical_json, short_hash

REGISTRY: Final = "vectide_collections"

#: pgvector's limits: dimensions that a column can have, and that an HNSW index on it can have.
MAX_DIMENSIONS: Final = 16_000
MAX_INDEXED_VECTOR: Final = 2_000
MAX_INDEXED_HALFVEC: Final = 4_000

FILLFACTOR: Final = 70

_OPERATORS: Final = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
_OPERATOR_CLASSES: Final = {"cosine": "cosine_ops", "dot": "ip_ops", "l2": "l2_ops"}

METRICS: Final = tuple(_OPERATORS)

#: Serialises the creation of tables between replicas; any number that nobody else uses.
LOCK_TABLES: Final = SQL("SELECT pg_advisory_xact_lock(8315161870465860967)")

TIMEOUTS: Final = SQL(
    "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)"
)

EXTENSION: Final = SQL(
    "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'vector'"
)

#: Type and declared dimensions of a table's vector column; no row when the table is not there.
COLUMN: Final = SQL(
    "SELECT t.typname, a.atttypmod FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' AND NOT a.attisdropped"
    " LEFT JOIN pg_type t ON t.oid = a.atttypid WHERE n.nspname = %s AND c.relname = %s"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a collection's table is: ``column`` is ``vector`` or ``halfvec``."""

    name: str
    column: str
    dimensions: int
    metric: str


def column_for(dimensions: int, *, indexed: bool) -> str | None:
    """The vector type for that many dimensions; None when there is none. Beyond 2,000 dimensions an index
    needs ``halfvec``, which keeps 16 bits of each number."""
    if not indexed:
        return "vector" if dimensions <= MAX_DIMENSIONS else None
    if dimensions <= MAX_INDEXED_VECTOR:
        return "vector"
    return "halfvec" if dimensions <= MAX_INDEXED_HALFVEC else None


# --- tables ---------------------------------------------------------------------------------------------


def create_schema(schema: str) -> Composed:
    return SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema))


def create_registry(schema: str) -> Composed:
    return SQL(
        "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, dimensions integer NOT NULL,"
        " metric text NOT NULL, space text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"
    ).format(Identifier(schema, REGISTRY))


def registered(schema: str) -> Composed:
    return SQL("SELECT dimensions, metric, space FROM {} WHERE name = %s").format(
        Identifier(schema, REGISTRY)
    )


def register(schema: str) -> Composed:
    return SQL("INSERT INTO {} (name, dimensions, metric, space) VALUES (%s, %s, %s, %s)").format(
        Identifier(schema, REGISTRY)
    )


def create_table(schema: str, vector_schema: str, shape: Shape, *, index: bool) -> list[Composed]:
    """The statements that make the table of a collection, with its indexes."""
    table = Identifier(schema, shape.name)
    statements = [
        SQL(
            "CREATE TABLE {table} (id uuid PRIMARY KEY, row_id uuid NOT NULL, source_table text NOT NULL,"
            " row_key text NOT NULL, chunk integer NOT NULL, text text, text_hash text NOT NULL,"
            " metadata jsonb NOT NULL, embedding {type}({dimensions}) NOT NULL, stamp jsonb,"
            " kept_columns jsonb) WITH (fillfactor = {fillfactor})"
        ).format(
            table=table,
            type=Identifier(vector_schema, shape.column),
            dimensions=sql.Literal(shape.dimensions),
            fillfactor=sql.Literal(FILLFACTOR),
        ),
        SQL("CREATE INDEX ON {} (row_id)").format(table),
    ]
    if index:
        operator_class = f"{shape.column}_{_OPERATOR_CLASSES[shape.metric]}"
        statements.append(
            SQL("CREATE INDEX ON {} USING hnsw (embedding {})").format(
                table, Identifier(vector_schema, operator_class)
            )
        )
    return statements


# --- indexes of metadata --------------------------------------------------------------------------------

#: Whether an index is complete, and whether somebody is making one of its table; no row when it is not there.
FILTER_INDEX: Final = SQL(
    "SELECT i.indisvalid, EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid)"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = %s"
)


def filter_index_name(collection: str, field: FilterField) -> str:
    """Of its index: names of collections and metadata may be longer than that of an index."""
    return f"filter_{short_hash(canonical_json([collection, field.name, field.type.value]))}"


def create_filter_index(schema: str, collection: str, field: FilterField) -> Composed:
    """Makes it while others write. Texts may be longer than what a B-tree takes."""
    return SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING {} ((metadata -> {}))").format(
        Identifier(filter_index_name(collection, field)),
        Identifier(schema, collection),
        SQL("hash" if field.type is FilterType.TEXT else "btree"),
        sql.Literal(field.name),
    )


def drop_filter_index(schema: str, collection: str, field: FilterField) -> Composed:
    name = Identifier(schema, filter_index_name(collection, field))
    return SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name)


# --- points ---------------------------------------------------------------------------------------------

#: Whether what the point ``p`` holds is certainly newer than the stamp that shall replace it, as
#: :meth:`vectide.core.model.Position.relation_to` has it. NULL where either does not tell.
_NEWER: Final = (
    "CASE WHEN p.stamp -> 'position' -> 0 = {new} -> 'position' -> 0"
    " AND p.stamp -> 'position' -> 1 = {new} -> 'position' -> 1"
    " THEN p.stamp -> 'position' -> 2 > {new} -> 'position' -> 2"
    " ELSE p.stamp -> 'source' -> 0 = {new} -> 'source' -> 0"
    " AND (p.stamp -> 'source' ->> 1) COLLATE \"C\" > {new} -> 'source' ->> 1"
    " AND p.stamp -> 'source' -> 2 > {new} -> 'source' -> 2 END"
)

#: Whether the point ``p`` holds the text that the stamp names.
_SAME_TEXT: Final = "starts_with(p.text_hash, coalesce(%(stamp)s::jsonb -> 'chunks' ->> 0, ''))"

#: What the point ``p`` holds under the names to keep.
_KEPT: Final = (
    "CASE WHEN cardinality(%(keep)s::text[]) = 0 THEN '{{}}'::jsonb ELSE coalesce((SELECT"
    " jsonb_object_agg(k, v) FROM jsonb_each(p.metadata) AS e(k, v) WHERE k = ANY(%(keep)s)), '{{}}') END"
)

#: The same of chunk 0 of the row.
_KEPT_BY_HEAD: Final = (
    "CASE WHEN cardinality(%(keep)s::text[]) = 0 THEN '{{}}'::jsonb ELSE coalesce((SELECT"
    " jsonb_object_agg(k, v) FROM {table} AS h, jsonb_each(h.metadata) AS e(k, v)"
    " WHERE h.id = %(row_id)s AND k = ANY(%(keep)s)), '{{}}') END"
)

_SCAN: Final = (
    "SELECT id::text, source_table, row_key, chunk, text, text_hash, metadata, stamp, {embedding}"
    " FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s"
)


class Statements:
    """The statements on one collection, built once. Parameters are named after the columns."""

    def __init__(self, schema: str, vector_schema: str, shape: Shape) -> None:
        table = Identifier(schema, shape.name)
        self.shape = shape
        #: Locks chunk 0 of rows. Whoever writes later chunks holds that lock, so that what a statement after
        #: this one finds of these rows is all that there is of them. Answers where they stand.
        self.lock = SQL(
            "SELECT id::text, stamp -> 'position' FROM {} WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE"
        ).format(table)
        #: Chunk 0. Answers a row when it was applied, none when the point holds something newer.
        self.put = SQL(
            "INSERT INTO {table} AS p (id, row_id, source_table, row_key, chunk, text, text_hash, metadata,"
            " embedding, stamp, kept_columns) VALUES (%(id)s, %(row_id)s, %(source_table)s, %(row_key)s,"
            " %(chunk)s, %(text)s, %(text_hash)s, %(metadata)s, %(embedding)s, %(stamp)s, %(kept_columns)s)"
            " ON CONFLICT (id) DO UPDATE SET chunk = excluded.chunk, text = excluded.text,"
            " text_hash = excluded.text_hash, metadata = excluded.metadata || {kept},"
            " embedding = excluded.embedding, stamp = excluded.stamp, kept_columns = excluded.kept_columns"
            " WHERE ({newer}) IS NOT TRUE RETURNING true"
        ).format(table=table, kept=SQL(_KEPT).format(), newer=_newer("excluded.stamp"))
        #: The same of a row that was there. No answer: ``is_newer`` tells why.
        self.put_again = SQL(
            "UPDATE {table} AS p SET chunk = %(chunk)s, text = %(text)s, text_hash = %(text_hash)s,"
            " metadata = %(metadata)s::jsonb || {kept}, embedding = %(embedding)s, stamp = %(stamp)s::jsonb,"
            " kept_columns = %(kept_columns)s::jsonb"
            " WHERE p.id = %(id)s AND ({newer}) IS NOT TRUE RETURNING true"
        ).format(table=table, kept=SQL(_KEPT).format(), newer=_newer("%(stamp)s::jsonb"))
        #: Answers a row when the point is there and holds something newer.
        self.is_newer = SQL("SELECT true FROM {table} AS p WHERE p.id = %(id)s AND {newer}").format(
            table=table, newer=_newer("%(stamp)s::jsonb")
        )
        self.put_chunk = SQL(
            "INSERT INTO {table} (id, row_id, source_table, row_key, chunk, text, text_hash, metadata,"
            " embedding) VALUES (%(id)s, %(row_id)s, %(source_table)s, %(row_key)s, %(chunk)s, %(text)s,"
            " %(text_hash)s, %(metadata)s::jsonb || {kept}, %(embedding)s)"
            " ON CONFLICT (id) DO UPDATE SET chunk = excluded.chunk, text = excluded.text,"
            " text_hash = excluded.text_hash, metadata = excluded.metadata, embedding = excluded.embedding"
        ).format(table=table, kept=SQL(_KEPT_BY_HEAD).format(table=table))
        #: Answers a row when it was applied; else ``patch`` tells why not. Four times cheaper than that
        #: one, which locks before it decides.
        self.patch_point = SQL(
            "UPDATE {table} AS p SET metadata = %(metadata)s::jsonb || {kept}, stamp = %(stamp)s::jsonb,"
            " kept_columns = coalesce(%(kept_columns)s::jsonb, p.kept_columns)"
            " WHERE p.id = %(id)s AND ({newer}) IS NOT TRUE AND {same_text} RETURNING true"
        ).format(
            table=table,
            kept=SQL(_KEPT).format(),
            newer=_newer("%(stamp)s::jsonb"),
            same_text=SQL(_SAME_TEXT),
        )
        #: Answers no row when no such point holds that text, else whether it is newer (not applied).
        self.patch = SQL(
            "WITH head AS (SELECT p.id, ({newer}) IS TRUE AS newer FROM {table} AS p WHERE p.id = %(id)s"
            " AND (({newer}) IS TRUE OR {same_text}) FOR UPDATE), patched AS (UPDATE {table} AS p"
            " SET metadata = %(metadata)s::jsonb || {kept}, stamp = %(stamp)s::jsonb,"
            " kept_columns = coalesce(%(kept_columns)s::jsonb, p.kept_columns)"
            " FROM head WHERE NOT head.newer AND p.id = head.id) SELECT newer FROM head"
        ).format(
            table=table,
            kept=SQL(_KEPT).format(),
            newer=_newer("%(stamp)s::jsonb"),
            same_text=SQL(_SAME_TEXT),
        )
        self.patch_chunks = SQL(
            "UPDATE {table} AS p SET metadata = %(metadata)s::jsonb || {kept}, chunk = c.chunk"
            " FROM unnest(%(ids)s::uuid[], %(chunks)s::integer[]) AS c(id, chunk)"
            " WHERE p.id = c.id AND p.row_id = %(row_id)s"
        ).format(table=table, kept=SQL(_KEPT).format())
        self.trim = SQL(
            "DELETE FROM {} WHERE row_id = %(row_id)s AND id <> %(row_id)s AND id <> ALL(%(stay)s::uuid[])"
        ).format(table)
        #: Answers as ``patch`` does.
        self.mark = SQL(
            "WITH head AS (SELECT p.id, ({newer}) IS TRUE AS newer FROM {table} AS p WHERE p.id = %(id)s"
            " FOR UPDATE), marked AS (UPDATE {table} AS p SET stamp = %(stamp)s::jsonb"
            " FROM head WHERE NOT head.newer AND p.id = head.id) SELECT newer FROM head"
        ).format(table=table, newer=_newer("%(stamp)s::jsonb"))
        #: Answers whether the row holds something newer (not applied).
        self.remove = SQL(
            "WITH head AS (SELECT FROM {table} AS p WHERE p.id = %(id)s AND {newer}), gone AS (DELETE FROM"
            " {table} WHERE row_id = %(row_id)s AND NOT EXISTS (SELECT FROM head))"
            " SELECT EXISTS (SELECT FROM head)"
        ).format(table=table, newer=_newer("%(stamp)s::jsonb"))
        self.stamps = SQL("SELECT id::text, stamp FROM {} WHERE id = ANY(%s::uuid[])").format(table)
        self.stamps_and_values = SQL(
            "SELECT id::text, stamp, kept_columns, CASE WHEN kept_columns IS NULL THEN text END, metadata"
            " FROM {} WHERE id = ANY(%s::uuid[])"
        ).format(table)
        self.count = SQL("SELECT count(*) FROM {}").format(table)
        self.scan = SQL(_SCAN).format(table=table, embedding=SQL("NULL"))
        self.scan_vectors = SQL(_SCAN).format(table=table, embedding=Identifier("embedding"))
        self._table = table
        self._distance = SQL("embedding OPERATOR({}.{}) %(vector)s").format(
            Identifier(vector_schema), SQL(_OPERATORS[shape.metric])
        )

    def search(self, names: Iterable[str] = ()) -> Composed:
        """Nearest points first. ``filters`` must be contained in the metadata (which an index on all of it
        can tell), and each of these ``names`` has to be equal as a whole (which that of one name can)."""
        equal = [
            SQL(" AND metadata -> {name} = %(filters)s::jsonb -> {name}").format(name=sql.Literal(name))
            for name in names
        ]
        return SQL(
            "SELECT source_table, row_key, chunk, {distance}, text, metadata FROM {table}"
            " WHERE metadata @> %(filters)s::jsonb{equal} ORDER BY {distance} LIMIT %(limit)s"
        ).format(table=self._table, distance=self._distance, equal=SQL("").join(equal))


def _newer(stamp: LiteralString) -> Composed:
    return SQL(_NEWER).format(new=SQL(stamp))
