"""Making and checking what the pgvector store needs in the database: extension, schema, tables."""

from __future__ import annotations

import re
from typing import Final

import psycopg
from pgvector.psycopg.halfvec import register_halfvec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.sql import Identifier
from psycopg.types import TypeInfo

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, CollectionSpec, StartupRefused
from vectide.stores import pgvector_sql as q
from vectide.stores.pgvector_connections import Link
from vectide.stores.pgvector_sql import Shape, Statements
from vectide.stores.refusals import check_metric

#: Filtered search needs iterative scans; before 0.8.4 vacuuming could damage an HNSW index.
MINIMUM_VERSION: Final = (0, 8, 0)
MINIMUM_VERSION_INDEXED: Final = (0, 8, 4)

MAX_NAME_BYTES: Final = 63


def use_vector_types(link: Link) -> None:
    """Teach a new connection the types of the extension, wherever that is installed."""
    found = link.execute(q.EXTENSION).fetchone()
    if found is None:
        return
    link.vector_schema = found[1]
    register_vector_info(link, TypeInfo.fetch(link, Identifier(found[1], "vector")))
    half = TypeInfo.fetch(link, Identifier(found[1], "halfvec"))
    if half is not None:
        register_halfvec_info(link, half)


def read_statements(link: Link, schema: str, name: str) -> Statements:
    """The statements on an existing collection. Raises :class:`AdapterError` (``collection_missing``)."""
    found = link.execute(q.registered(schema), [name]).fetchone()
    column = link.execute(q.COLUMN, [schema, name]).fetchone()
    if found is None or column is None or link.vector_schema is None:
        raise AdapterError(
            Failure(Kind.OPERATOR, "collection_missing", f"there is no collection {name!r} in {schema!r}")
        )
    return Statements(schema, link.vector_schema, Shape(name, column[0], column[1], found[1]))


def prepare_collection(link: Link, schema: str, spec: CollectionSpec, *, indexed: bool) -> None:
    """Verify the collection, or create it and all that it needs, in the open transaction of ``link``.

    Raises :class:`StartupRefused` for what only a person can resolve.
    """
    column = _check_spec(link, schema, spec, indexed=indexed)
    if _found(link, schema, spec):
        return
    # Only under the lock does half of a collection mean damage, and not a replica that is making it.
    link.execute(q.LOCK_TABLES)
    if _found(link, schema, spec, complete=True):
        return
    vector_schema = _install_extension(link, indexed=indexed)
    if link.execute("SELECT to_regnamespace(quote_ident(%s))", [schema]).fetchone() == (None,):
        link.execute(q.create_schema(schema))
    link.execute(q.create_registry(schema))
    link.execute(q.register(schema), [spec.name, spec.dimensions, spec.metric, spec.space])
    shape = Shape(spec.name, column, spec.dimensions, spec.metric)
    for statement in q.create_table(schema, vector_schema, shape, index=indexed):
        link.execute(statement)


def prepare_filters(link: Link, schema: str, spec: CollectionSpec) -> None:
    """Make the indexes of ``spec.filters`` that are missing, over a patient link.

    What a process that ended on the way left behind is made anew; what another one is making is not waited
    for.
    """
    for field in spec.filters:
        found = link.execute(q.FILTER_INDEX, [schema, q.filter_index_name(spec.name, field)]).fetchone()
        complete, under_way = found or (False, False)
        if complete or under_way:
            continue
        if found is not None:
            link.execute(q.drop_filter_index(schema, spec.name, field))
        link.execute(q.create_filter_index(schema, spec.name, field))


def verify_collection(link: Link, schema: str, spec: CollectionSpec, *, indexed: bool) -> bool:
    """Whether the collection is there, without making anything. Raises as :func:`prepare_collection`."""
    _check_spec(link, schema, spec, indexed=indexed)
    return _found(link, schema, spec, complete=True)


def _check_spec(link: Link, schema: str, spec: CollectionSpec, *, indexed: bool) -> str:
    """Refuse what PostgreSQL cannot hold; returns the type of the vectors' column."""
    _check_names(schema, spec)
    check_metric("pgvector", spec, q.METRICS)
    column = q.column_for(spec.dimensions, indexed=indexed)
    if column is None:
        limit = q.MAX_INDEXED_HALFVEC if indexed else q.MAX_DIMENSIONS
        advice = "; a store with index none takes more" if indexed else ""
        raise StartupRefused(
            f"pgvector holds at most {limit} dimensions, the embedder makes {spec.dimensions}{advice}"
        )
    _check_extension(link, indexed=indexed)
    return column


def _check_names(schema: str, spec: CollectionSpec) -> None:
    for what, name in (("collection", spec.name), ("schema", schema)):
        if not name or "\0" in name or name == q.REGISTRY:
            raise StartupRefused(f"a {what} cannot be named {name!r}: choose another name")
        size = len(name.encode("utf-8", "surrogatepass"))
        if size > MAX_NAME_BYTES:
            raise StartupRefused(
                f"the {what} name {name!r} has {size} bytes, PostgreSQL allows {MAX_NAME_BYTES}: shorten it"
            )


def _found(link: Link, schema: str, spec: CollectionSpec, *, complete: bool = False) -> bool:
    """Whether the collection is there and right. Half of one is refused if it must be ``complete``, else
    counts as not there."""
    column = link.execute(q.COLUMN, [schema, spec.name]).fetchone()
    known = link.execute(q.COLUMN, [schema, q.REGISTRY]).fetchone() is not None
    found = link.execute(q.registered(schema), [spec.name]).fetchone() if known else None
    if column is None or found is None:
        if complete:
            _refuse_half(schema, spec.name, has_table=column is not None, is_listed=found is not None)
        return False
    dimensions, metric, space = found
    expected = (
        ("dimensions", column[1], spec.dimensions),
        ("dimensions", dimensions, spec.dimensions),
        ("metric", metric, spec.metric),
        ("space", space, spec.space),
    )
    for what, has, wanted in expected:
        if has != wanted:
            raise StartupRefused(
                f"collection {spec.name!r} has {what} {has}, but {wanted} is configured: "
                "configure what it has, or use another collection"
            )
    return True


def _refuse_half(schema: str, name: str, *, has_table: bool, is_listed: bool) -> None:
    if has_table:
        raise StartupRefused(
            f"there is a table {name!r} in schema {schema!r} that is not a collection of this service: "
            "choose another collection or schema"
        )
    if is_listed:
        raise StartupRefused(
            f"the table of collection {name!r} is gone, but {schema}.{q.REGISTRY} lists it: restore the "
            "table, or delete that line to start from nothing"
        )


def _install_extension(link: Link, *, indexed: bool) -> str:
    """Make sure that the extension is there and new enough; returns its schema."""
    schema = _check_extension(link, indexed=indexed)
    if schema is not None:
        return schema
    try:
        link.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege:
        raise StartupRefused(
            "the database lacks the extension vector and we may not create it: "
            "let its owner run CREATE EXTENSION vector"
        ) from None
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
        raise StartupRefused("the database server lacks pgvector: install it (0.8.4 or later)") from None
    schema = _check_extension(link, indexed=indexed)
    assert schema is not None
    return schema


def _check_extension(link: Link, *, indexed: bool) -> str | None:
    """The schema of the extension; None when it is not installed. Refuses an old version."""
    found = link.execute(q.EXTENSION).fetchone()
    if found is None:
        return None
    version, schema = found
    minimum = MINIMUM_VERSION_INDEXED if indexed else MINIMUM_VERSION
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < minimum:
        needed = ".".join(map(str, minimum))
        raise StartupRefused(
            f"the extension vector is at version {version}, {needed} is needed: "
            "install a newer pgvector and run ALTER EXTENSION vector UPDATE"
        )
    return str(schema)
