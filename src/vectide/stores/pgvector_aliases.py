"""Aliases of the pgvector store: views on the table of a collection, told from others by their comment.

A view keeps the tables' own names, so that whoever fills them goes on, and it is read through their indexes.
It is made anew at each swap, in one transaction: replaced it could not be where the dimensions differ.
"""

from __future__ import annotations

from typing import Final

from psycopg.sql import SQL, Composed, Identifier, Literal

from vectide.stores import pgvector_sql as q
from vectide.stores.aliases import in_use, is_alias, missing, name_taken, not_ours, refused
from vectide.stores.pgvector_connections import Link
from vectide.stores.pgvector_setup import name_refusal

LOCK_TIMEOUT: Final = SQL("SELECT set_config('lock_timeout', %s, true)")

#: Before the name of the collection, in the comment of its view.
_COMMENT: Final = "vectide: leads to "

#: What kind of relation has that name, and its comment; no row when there is none.
_RELATION: Final = SQL(
    "SELECT c.relkind, obj_description(c.oid, 'pg_class') FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s"
)

#: The views with that comment.
_ALIASES: Final = SQL(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relkind = 'v' AND obj_description(c.oid, 'pg_class') = %s"
)

#: Who else than its owner may do what with a view: the statements that allow it.
_GRANTS: Final = SQL(
    "SELECT format('GRANT %%s ON %%I.%%I TO %%s%%s', a.privilege_type, n.nspname, c.relname,"
    " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,"
    " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a"
    " WHERE n.nspname = %s AND c.relname = %s AND a.grantee <> c.relowner"
)


def read_alias(link: Link, schema: str, name: str, *, hold: bool = False) -> str | None:
    """The collection that an alias leads to; None when there is no such alias. ``hold``: it stays so until
    the end of the transaction."""
    target = _target(link, schema, name)
    if target is None or not hold:
        return target
    link.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(Identifier(schema, name)))
    return _target(link, schema, name)


def lead(link: Link, schema: str, alias: str, collection: str) -> None:
    """Make the alias lead to the collection, in the open transaction of ``link``."""
    refusal = name_refusal("alias", alias)
    if refusal is not None:
        raise refused("name", refusal)
    link.execute(q.LOCK_TABLES)
    if not _is_listed(link, schema, collection) or _relation(link, schema, collection) is None:
        raise missing(collection)
    there = _relation(link, schema, alias)
    if there is not None and _target(link, schema, alias) is None:
        raise name_taken(alias)
    view = Identifier(schema, alias)
    grants = [] if there is None else link.execute(_GRANTS, [schema, alias]).fetchall()
    if there is not None:
        link.execute(SQL("DROP VIEW {}").format(view))
    link.execute(SQL("CREATE VIEW {} AS SELECT * FROM {}").format(view, Identifier(schema, collection)))
    link.execute(SQL("COMMENT ON VIEW {} IS {}").format(view, Literal(_COMMENT + collection)))
    for (grant,) in grants:
        link.execute(grant)


def drop_collection(link: Link, schema: str, collection: str) -> None:
    """Remove a collection, in the open transaction of ``link``."""
    link.execute(q.LOCK_TABLES)
    target = _target(link, schema, collection)
    if target is not None:
        raise is_alias(collection, target)
    alias = link.execute(_ALIASES, [schema, _COMMENT + collection]).fetchone()
    if alias is not None:
        raise in_use(collection, alias[0])
    if not _is_listed(link, schema, collection):
        if _relation(link, schema, collection) is not None:
            raise not_ours(collection)
        return
    link.execute(SQL("DROP TABLE IF EXISTS {}").format(Identifier(schema, collection)))
    link.execute(_unregister(schema), [collection])


def _relation(link: Link, schema: str, name: str) -> tuple[str, str] | None:
    found = link.execute(_RELATION, [schema, name]).fetchone()
    return None if found is None else (str(found[0]), found[1] or "")


def _target(link: Link, schema: str, name: str) -> str | None:
    kind, comment = _relation(link, schema, name) or ("", "")
    if kind != "v" or not comment.startswith(_COMMENT):
        return None
    return comment.removeprefix(_COMMENT)


def _is_listed(link: Link, schema: str, collection: str) -> bool:
    if _relation(link, schema, q.REGISTRY) is None:
        return False
    return link.execute(q.registered(schema), [collection]).fetchone() is not None


def _unregister(schema: str) -> Composed:
    return SQL("DELETE FROM {} WHERE name = %s").format(Identifier(schema, q.REGISTRY))
