"""The three source tables, what the service is told about them, and statements about one row of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

Row = Mapping[str, Any]
Key = tuple[Any, ...]
RowId = tuple[str, Key]


@dataclass(frozen=True, slots=True)
class Table:
    """One source table and what the service is told about it.

    ``text`` and ``metadata`` say what the store shall hold for a row, ``gone`` whether it is soft-deleted.
    """

    name: str
    key: tuple[str, ...]
    ddl: str
    text: Callable[[Row], str]
    metadata: Callable[[Row], dict[str, Any]]
    gone: Callable[[Row], bool]
    settings: Mapping[str, Any]

    def key_of(self, row: Row) -> Key:
        return tuple(row[column] for column in self.key)


def _product_text(row: Row) -> str:
    return f"{row['name']}\n\n{row['description']}" if row["description"] else str(row["name"])


PRODUCTS = Table(
    name="products",
    key=("id",),
    ddl="""CREATE TABLE products (id bigint PRIMARY KEY, sku varchar(32) NOT NULL, name text NOT NULL,
        description text, category text, price numeric(10,2), in_stock boolean NOT NULL DEFAULT true,
        updated_at timestamptz NOT NULL, deleted_at timestamptz)""",
    text=_product_text,
    metadata=lambda row: {name: row[name] for name in ("sku", "category", "price", "in_stock", "updated_at")},
    gone=lambda row: row["deleted_at"] is not None,
    settings={
        "embed": {"template": "{name}[\n\n{description}]"},
        "metadata": ["sku", "category", "price", "in_stock", "updated_at"],
        "soft_delete": "deleted_at",
    },
)
DOCS = Table(
    name="docs",
    key=("id",),
    ddl="""CREATE TABLE docs (id int PRIMARY KEY, title text NOT NULL, body text NOT NULL,
        flag int NOT NULL, is_deleted boolean NOT NULL DEFAULT false);
        ALTER TABLE docs ALTER COLUMN body SET STORAGE EXTERNAL""",
    text=lambda row: f"{row['title']}\n\n{row['body']}",
    metadata=lambda row: {"title": row["title"], "flag": row["flag"]},
    gone=lambda row: bool(row["is_deleted"]),
    settings={
        "embed": {"template": "{title}\n\n{body}"},
        "metadata": ["title", "flag"],
        "soft_delete": "is_deleted",
    },
)
ORDER_LINES = Table(
    name="order_lines",
    key=("order_id", "line_no"),
    ddl="""CREATE TABLE order_lines (order_id bigint, line_no smallint, item text NOT NULL,
        quantity int NOT NULL, unit_price numeric(10,2) NOT NULL, PRIMARY KEY (order_id, line_no))""",
    text=lambda row: str(row["item"]),
    metadata=lambda row: {"quantity": row["quantity"], "price": row["unit_price"]},
    gone=lambda row: False,
    settings={"embed": {"template": "{item}"}, "metadata": ["quantity", {"unit_price": "price"}]},
)
TABLES = (PRODUCTS, DOCS, ORDER_LINES)

#: Not mapped to anything: a row in it shows that the connector has passed everything before.
BARRIER = "barrier"
BARRIER_DDL = "CREATE TABLE barrier (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"


@dataclass(frozen=True, slots=True)
class Change:
    """What one statement does to one row. ``row`` is the row after it, None when it is gone;
    ``statement`` is None when the one before did this too."""

    statement: sql.Composed | None
    parameters: tuple[Any, ...]
    table: Table
    key: Key
    row: Row | None


def _where(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in table.key)


def inserted(table: Table, row: Row) -> Change:
    """A new row with all its columns."""
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
    )
    return Change(statement, tuple(row.values()), table, table.key_of(row), row)


def updated(table: Table, row: Row, **columns: Any) -> Change:
    """Sets only the named columns: the source leaves unchanged big ones out of the event."""
    statement = sql.SQL("UPDATE {} SET {} WHERE {}").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns),
        _where(table),
    )
    key = table.key_of(row)
    return Change(statement, (*columns.values(), *key), table, key, {**row, **columns})


def touched(table: Table, row: Row, column: str) -> Change:
    """``SET x = x``: an event without a difference."""
    statement = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
        sql.Identifier(table.name), sql.Identifier(column), sql.Identifier(column), _where(table)
    )
    key = table.key_of(row)
    return Change(statement, key, table, key, row)


def deleted(table: Table, row: Row) -> Change:
    """The row is deleted by its key."""
    key = table.key_of(row)
    statement = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table.name), _where(table))
    return Change(statement, key, table, key, None)


def moved(table: Table, row: Row, new_id: int) -> tuple[Change, ...]:
    """A changed primary key: one statement, two rows concerned."""
    change = updated(table, row, id=new_id)
    old = Change(change.statement, change.parameters, table, change.key, None)
    return old, Change(None, (), table, (new_id,), change.row)
