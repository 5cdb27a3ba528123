"""What happens in the source database: seeded changes of every kind that a person makes.

The same seed gives the same statements in the same order. The workload remembers, row by row, which text
the row came to hold after every commit, so that a judge can say which texts were worth an embedding. Every
text names its row and is never used again after it was replaced, unless a change brings it back on purpose.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import psycopg
from tests.real.tables import (
    BARRIER_DDL,
    DOCS,
    ORDER_LINES,
    PRODUCTS,
    TABLES,
    Change,
    Key,
    Row,
    RowId,
    Table,
    deleted,
    inserted,
    moved,
    touched,
    updated,
)

# --- texts -----------------------------------------------------------------------------------------------

_ADJECTIVES = "compact sturdy quiet foldable waterproof insulated wide modular breathable".split()
_MATERIALS = "oak steel bamboo aluminium wool cotton cork ceramic glass linen titanium".split()
_THINGS = "kettle,chopping board,storage jar,hand trowel,seed tray,desk lamp,yoga mat,day bag".split(",")
_CATEGORIES = ("kitchen", "garden", "office", "sport", "travel", None)
_SENTENCES = (
    "It fits in a small flat without getting in the way.",
    "The parts come apart in under a minute for cleaning.",
    "Tested over two winters on a balcony in the rain.",
    "Replacement parts are sold separately.",
    "Größe M, für draußen; conçu à la main.",
    "日本語の説明: 軽くて丈夫です。",
    "Great gift 🎁👍🏽, “quoted” and 100 % naïve.",
)
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BODY_CHARS = 4000


Step = Callable[["Workload"], Sequence[Change]]
Kinds = Mapping[str, tuple[int, Step]]


class Workload:
    """Changes the source database and keeps the account.

    ``held``: for every row that ever was, the texts that it came to hold, in commit order; None stands for
    a time in which the row was deleted or soft-deleted. ``kinds``: how many changes of each kind committed
    (or, for ``rollback``, did not).
    """

    def __init__(self, connection: psycopg.Connection[Any], seed: int):
        self._connection = connection
        self._random = random.Random(seed)  # noqa: S311
        self._rows: dict[str, dict[Key, Row]] = {table.name: {} for table in TABLES}
        self._former: dict[str, list[Row]] = {table.name: [] for table in TABLES}
        self._serial = 0
        self.held: dict[RowId, list[str | None]] = {}
        #: The titles that each doc has had, every body with all titles before it, and the docs that may have
        #: been missing in the store when an event came that left their body out.
        self._titles: dict[Key, list[str]] = {}
        self._mixed: dict[Key, set[str]] = defaultdict(set)
        self._read_again: set[Key] = set()
        self.kinds: Counter[str] = Counter()

    # --- running it --------------------------------------------------------------------------------------

    def create_tables(self) -> None:
        for statement in (*(table.ddl for table in TABLES), BARRIER_DDL):
            self._connection.execute(statement.encode())
        self._connection.commit()

    def seed_rows(self, products: int, docs: int, order_lines: int) -> int:
        """The rows that are there before anybody looks. Returns how many."""
        rows: list[Change] = [inserted(PRODUCTS, self._new_product()) for _ in range(products)]
        rows += [inserted(DOCS, self._new_doc()) for _ in range(docs)]
        rows += [inserted(ORDER_LINES, self._new_order_line()) for _ in range(order_lines)]
        self._commit("seed", rows)
        return len(rows)

    def run(self, transactions: int) -> None:
        """That many transactions of all kinds."""
        for _ in range(transactions):
            self._one_of({**self.KINDS, **self.QUIET_KINDS})

    def run_quiet(self, transactions: int) -> None:
        """That many transactions that change no text."""
        for _ in range(transactions):
            self._one_of(self.QUIET_KINDS)

    def _one_of(self, kinds: Mapping[str, tuple[int, Step]]) -> None:
        weights = [weight for weight, _ in kinds.values()]
        while True:
            kind = self._random.choices(list(kinds), weights)[0]
            changes = kinds[kind][1](self)
            if changes:
                break
        if kind == "rollback":
            self._execute(changes)
            self._connection.rollback()
            self.kinds[kind] += 1
        else:
            self._commit(kind, changes)

    def _execute(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.statement is not None:
                self._connection.execute(change.statement, change.parameters)

    def _commit(self, kind: str, changes: Sequence[Change]) -> None:
        self._execute(changes)
        self._connection.commit()
        self.kinds[kind] += 1
        for change in changes:
            self._account(change)

    def _account(self, change: Change) -> None:
        rows = self._rows[change.table.name]
        if change.row is None:
            self._former[change.table.name].append(rows.pop(change.key))
        else:
            rows[change.key] = change.row
            if change.table is DOCS:
                self._account_ahead(change.key, change.row)
        gone = change.row is None or change.table.gone(change.row)
        if gone and change.table is DOCS:
            self._read_again.add(change.key)
        text = None if gone or change.row is None else change.table.text(change.row)
        history = self.held.setdefault((change.table.name, change.key), [None])
        if history[-1] != text:
            history.append(text)

    def _account_ahead(self, key: Key, row: Row) -> None:
        titles = self._titles.setdefault(key, [])
        self._mixed[key].update(DOCS.text({**row, "title": title}) for title in titles)
        titles.append(row["title"])

    def ahead(self) -> set[str]:
        """Texts that a row may have in the store before their time, or that no row ever had: the title of an
        event with the body of a later one, because the body was not in the event and was read from the
        source."""
        held = {text for texts in self.held.values() for text in texts if text is not None}
        never = set().union(*self._mixed.values()) - held
        return never.union(*(self._mixed[key] for key in self._read_again))

    # --- choosing rows -----------------------------------------------------------------------------------

    def _pick(self, table: Table, *, gone: bool = False) -> Row:
        """A row of the table that is (or is not) soft-deleted."""
        rows = list(self._rows[table.name].values())
        while True:
            row = self._random.choice(rows)
            if table.gone(row) == gone:
                return row

    def _gone(self, table: Table) -> list[Row]:
        return [row for row in self._rows[table.name].values() if table.gone(row)]

    def _absent(self, table: Table) -> list[Row]:
        """Rows as they were when deleted, whose key is free again."""
        rows = self._rows[table.name]
        return [row for row in self._former[table.name] if table.key_of(row) not in rows]

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    # --- values ------------------------------------------------------------------------------------------

    def _sentences(self, at_most: int) -> str:
        return " ".join(self._random.sample(_SENTENCES, self._random.randint(0, at_most)))

    def _name(self) -> str:
        pick = self._random.choice
        return f"{pick(_ADJECTIVES)} {pick(_MATERIALS)} {pick(_THINGS)}, edition {self._next()}"

    def _price(self) -> Decimal:
        return Decimal(self._random.randint(100, 90_000)) / 100

    def _when(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._next(), microseconds=self._random.randint(0, 999_999))

    def _body(self) -> str:
        text = f"Revision {self._next()}. " + " ".join(self._random.choices(_SENTENCES, k=BODY_CHARS // 30))
        return text[:BODY_CHARS].rstrip()

    def _new_product(self) -> dict[str, Any]:
        number = self._next()
        return {
            "id": 10_000_000_000 + number,  # more than 32 bits
            "sku": f"P-{number:06d}",
            "name": self._name(),
            "description": self._sentences(4) or None,
            "category": self._random.choice(_CATEGORIES),
            "price": self._price(),
            "in_stock": self._random.random() < 0.8,
            "updated_at": self._when(),
            "deleted_at": self._when() if self._random.random() < 0.03 else None,
        }

    def _new_doc(self) -> dict[str, Any]:
        number = self._next()
        return {
            "id": number,
            "title": f"Doc {number}, draft {self._next()}",
            "body": self._body(),
            "flag": 0,
            "is_deleted": False,
        }

    def _new_order_line(self) -> dict[str, Any]:
        number = self._next()
        return {
            "order_id": number // 4,
            "line_no": number % 4,
            "item": f"{self._random.choice(_THINGS)} of line {number}",
            "quantity": self._random.randint(1, 9),
            "unit_price": self._price(),
        }

    # --- kinds of transactions ---------------------------------------------------------------------------
    # Each returns the changes of one transaction; none when no row is in the right state just now.

    def _insert(self) -> Sequence[Change]:
        table = self._random.choice((PRODUCTS, PRODUCTS, DOCS, ORDER_LINES))
        return [inserted(table, self._new[table.name](self))]

    def _product_text(self) -> Sequence[Change]:
        row = self._pick(PRODUCTS)
        if self._random.random() < 0.5:
            return [updated(PRODUCTS, row, name=self._name(), updated_at=self._when())]
        return [
            updated(PRODUCTS, row, name=self._name(), description=self._sentences(4), price=self._price())
        ]

    def _product_text_there_and_back(self) -> Sequence[Change]:
        """In two commits of the same row the text changes twice and ends as it was."""
        row = self._pick(PRODUCTS)
        there = updated(PRODUCTS, row, name=self._name())
        return [there, updated(PRODUCTS, row, name=row["name"])]

    def _product_metadata(self) -> Sequence[Change]:
        return [updated(PRODUCTS, self._pick(PRODUCTS), price=self._price(), updated_at=self._when())]

    def _products_metadata_in_bulk(self) -> Sequence[Change]:
        rows = {row["id"]: row for row in (self._pick(PRODUCTS) for _ in range(12))}
        return [
            updated(PRODUCTS, row, in_stock=not row["in_stock"], category=self._random.choice(_CATEGORIES))
            for row in rows.values()
        ]

    def _product_untouched(self) -> Sequence[Change]:
        column = self._random.choice(("name", "price", "description"))
        return [touched(PRODUCTS, self._pick(PRODUCTS), column)]

    def _product_soft_delete(self) -> Sequence[Change]:
        return [updated(PRODUCTS, self._pick(PRODUCTS), deleted_at=self._when())]

    def _product_undelete(self) -> Sequence[Change]:
        gone = self._gone(PRODUCTS)
        return [updated(PRODUCTS, self._random.choice(gone), deleted_at=None)] if gone else []

    def _product_text_while_soft_deleted(self) -> Sequence[Change]:
        gone = self._gone(PRODUCTS)
        return [updated(PRODUCTS, self._random.choice(gone), name=self._name())] if gone else []

    def _product_key(self) -> Sequence[Change]:
        return moved(PRODUCTS, self._pick(PRODUCTS), 20_000_000_000 + self._next())

    def _doc_key(self) -> Sequence[Change]:
        """The body is in the event of neither the old row nor the new one."""
        new = 1_000_000 + self._next()
        self._read_again.add((new,))
        return moved(DOCS, self._pick(DOCS), new)

    def _several_of_one_row(self) -> Sequence[Change]:
        """Born, changed, deleted and born again in one transaction."""
        row = self._new_product()
        change = updated(PRODUCTS, row, description=self._sentences(4), price=self._price())
        return [
            inserted(PRODUCTS, row),
            change,
            deleted(PRODUCTS, change.row or row),
            inserted(PRODUCTS, {**row, "name": self._name()}),
        ]

    def _delete(self) -> Sequence[Change]:
        table = self._random.choice((PRODUCTS, PRODUCTS, DOCS, ORDER_LINES))
        return [deleted(table, self._pick(table))]

    def _reinsert(self) -> Sequence[Change]:
        """A key comes back; half of the time with the very text that it had."""
        table = self._random.choice((PRODUCTS, PRODUCTS, DOCS, ORDER_LINES))
        absent = self._absent(table)
        if not absent:
            return []
        row = dict(self._random.choice(absent))
        if self._random.random() < 0.5:
            new = self._new[table.name](self)
            row = {**new, **{name: row[name] for name in table.key}}
        return [inserted(table, row)]

    def _doc_title(self) -> Sequence[Change]:
        """The text changes and its bigger part is not in the event."""
        row = self._pick(DOCS)
        return [updated(DOCS, row, title=f"Doc {row['id']}, draft {self._next()}")]

    def _doc_body(self) -> Sequence[Change]:
        return [updated(DOCS, self._pick(DOCS), body=self._body())]

    def _doc_flag(self) -> Sequence[Change]:
        row = self._pick(DOCS)
        return [updated(DOCS, row, flag=row["flag"] + 1)]

    def _doc_untouched(self) -> Sequence[Change]:
        return [touched(DOCS, self._pick(DOCS), self._random.choice(("title", "body", "flag")))]

    def _doc_soft_delete(self) -> Sequence[Change]:
        return [updated(DOCS, self._pick(DOCS), is_deleted=True)]

    def _doc_undelete(self) -> Sequence[Change]:
        gone = self._gone(DOCS)
        if not gone:
            return []
        return [updated(DOCS, self._random.choice(gone), is_deleted=False, body=self._body())]

    def _doc_undelete_bare(self) -> Sequence[Change]:
        """The body is neither in the event nor in the store any more."""
        gone = self._gone(DOCS)
        return [updated(DOCS, self._random.choice(gone), is_deleted=False)] if gone else []

    def _order_line_metadata(self) -> Sequence[Change]:
        row = self._pick(ORDER_LINES)
        return [updated(ORDER_LINES, row, quantity=row["quantity"] + 1, unit_price=self._price())]

    def _order_line_untouched(self) -> Sequence[Change]:
        return [touched(ORDER_LINES, self._pick(ORDER_LINES), "quantity")]

    _new: ClassVar[Mapping[str, Callable[[Workload], dict[str, Any]]]] = {
        "products": _new_product,
        "docs": _new_doc,
        "order_lines": _new_order_line,
    }
    #: Kind of transaction: how often, and what it does. The quiet ones change no text of any row.
    QUIET_KINDS: ClassVar[Kinds] = {
        "product_metadata": (14, _product_metadata),
        "products_metadata_in_bulk": (2, _products_metadata_in_bulk),
        "product_untouched": (6, _product_untouched),
        "doc_flag": (8, _doc_flag),
        "doc_untouched": (3, _doc_untouched),
        "order_line_metadata": (8, _order_line_metadata),
        "order_line_untouched": (2, _order_line_untouched),
    }
    KINDS: ClassVar[Kinds] = {
        "insert": (12, _insert),
        "product_text": (16, _product_text),
        "product_text_there_and_back": (2, _product_text_there_and_back),
        "product_soft_delete": (4, _product_soft_delete),
        "product_undelete": (3, _product_undelete),
        "product_text_while_soft_deleted": (1, _product_text_while_soft_deleted),
        "product_key": (3, _product_key),
        "several_of_one_row": (2, _several_of_one_row),
        "delete": (6, _delete),
        "reinsert": (5, _reinsert),
        "doc_title": (6, _doc_title),
        "doc_body": (3, _doc_body),
        "doc_soft_delete": (3, _doc_soft_delete),
        "doc_undelete": (1, _doc_undelete),
        "doc_undelete_bare": (1, _doc_undelete_bare),
        "doc_key": (2, _doc_key),
        "rollback": (2, _product_text),
    }
