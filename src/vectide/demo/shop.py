"""The shop behind the demo: a products table whose random changes come out as Debezium envelopes.

Deterministic by seed and by the times it is given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from vectide.core.model import Record
from vectide.demo.catalogue import TOPIC

Columns = dict[str, Any]


class Kind(Enum):
    """What a change does, as its author would say it."""

    INSERT = "insert"
    TEXT = "text update"
    UNDELETE = "undelete"
    METADATA = "metadata update"
    UNMAPPED = "price update"
    NO_OP = "no-op update"
    SOFT_DELETE = "soft delete"
    DELETE = "delete"


#: Kinds after which a row has a text that the store did not hold: the only ones that may cost an embedding.
NEW_TEXT: Final = frozenset({Kind.INSERT, Kind.TEXT, Kind.UNDELETE})
REMOVING: Final = frozenset({Kind.SOFT_DELETE, Kind.DELETE})

_WEIGHTS: Final[Mapping[Kind, int]] = {
    Kind.INSERT: 6,
    Kind.TEXT: 22,
    Kind.UNDELETE: 4,
    Kind.METADATA: 30,
    Kind.UNMAPPED: 16,
    Kind.NO_OP: 12,
    Kind.SOFT_DELETE: 5,
    Kind.DELETE: 5,
}

_QUALITIES: Final = ("Compact", "Foldable", "Quiet", "Sturdy", "Insulated", "Modular", "Wide", "Rechargeable")
_MATERIALS: Final = ("oak", "steel", "cotton", "bamboo", "glass", "linen", "cork", "aluminium", "wool")
_THINGS: Final = {
    "garden": ("watering can", "hose reel", "seed tray", "pruning saw", "hand trowel"),
    "kitchen": ("kettle", "bread knife", "chopping board", "frying pan", "storage jar"),
    "office": ("desk lamp", "notebook", "monitor stand", "cable tray", "standing mat"),
    "sport": ("yoga mat", "bike pump", "running belt", "climbing rope", "trail bottle"),
    "travel": ("day bag", "neck pillow", "packing cube", "luggage scale"),
}
_REMARKS: Final = (
    "Ships flat; no tools are needed to put it together.",
    "Tested over two winters on a balcony in the rain.",
    "Replacement parts are sold separately.",
    "The handle stays cool even after long use.",
    "It fits in a small flat without getting in the way.",
    "Suitable for left-handed people.",
)

#: What PostgreSQL logs of a deleted row is its key; Debezium fills the other NOT NULL columns like this.
_FILLERS: Final[Mapping[str, Any]] = {
    "sku": "",
    "name": "",
    "description": None,
    "category": None,
    "price": None,
    "in_stock": True,
    "updated_at": "1970-01-01T00:00:00Z",
    "deleted_at": None,
    "tenant_id": 0,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the table: the SQL that makes it and the records that tell it."""

    kind: Kind
    statement: str
    records: tuple[Record, ...]


class Shop:
    """The table ``products`` and its change log.

    ``rows`` is its content, by primary key. Random changes leave the rows in ``reserved`` alone.
    """

    def __init__(
        self, rows: Mapping[int, Mapping[str, Any]], seed: int, *, reserved: Collection[int] = ()
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 (repeatable, not secret)
        self._reserved = frozenset(reserved)
        self.rows: dict[int, Columns] = {id_: dict(columns) for id_, columns in rows.items()}
        self._next_id = 10_001
        self._edition = 0
        self._lsn = 50_000_000
        self._transaction = 9_000

    # --- changes ----------------------------------------------------------------------------------------

    def random_change(self, now_ms: int) -> Change:
        """Any kind of change of any row, committed at ``now_ms``."""
        makers: Mapping[Kind, Callable[[int, int], Change]] = {
            Kind.TEXT: self._new_edition,
            Kind.UNDELETE: self._undelete,
            Kind.METADATA: self._flip_stock,
            Kind.UNMAPPED: self._reprice,
            Kind.NO_OP: self._touch,
            Kind.SOFT_DELETE: self._soft_delete,
            Kind.DELETE: lambda id_, now: self.delete(id_, now),
        }
        (kind,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        row = self._pick(gone=kind is Kind.UNDELETE)
        if kind is Kind.INSERT or row is None:
            return self.insert(now_ms)
        return makers[kind](row, now_ms)

    def insert(self, now_ms: int) -> Change:
        """A new product with a text that no other has."""
        id_, self._next_id = self._next_id, self._next_id + 1
        category = self._random.choice(sorted(_THINGS))
        thing = self._random.choice(_THINGS[category])
        name, description = self._text(thing)
        row: Columns = {
            "id": id_,
            "sku": f"{category[:3].upper()}-{id_:05d}",
            "name": name,
            "description": description,
            "category": category,
            "price": self._price(),
            "in_stock": True,
            "updated_at": _iso(now_ms),
            "deleted_at": None,
            "tenant_id": self._random.randint(1, 4),
        }
        statement = f"INSERT INTO products VALUES ({id_}, '{row['sku']}', '{name}', …)"  # noqa: S608
        return self._write(Kind.INSERT, statement, row, now_ms)

    def update(self, kind: Kind, id_: int, now_ms: int, /, **columns: Any) -> Change:
        """Set these columns of one row. KeyError when there is no such row."""
        assignments = ", ".join(f"{name} = {_sql(value)}" for name, value in columns.items())
        row = self.rows[id_] | columns | {"updated_at": _iso(now_ms)}
        statement = f"UPDATE products SET {assignments} WHERE id = {id_}"  # noqa: S608 (shown, never run)
        return self._write(kind, statement, row, now_ms)

    def delete(self, id_: int, now_ms: int) -> Change:
        """Delete one row: an envelope with ``op`` d, then the tombstone. KeyError when it is not there."""
        del self.rows[id_]
        key = _json({"id": id_})
        envelope = self._envelope("d", {"id": id_, **_FILLERS}, None, now_ms)
        records = (self._record(key, envelope, now_ms), self._record(key, None, now_ms))
        statement = f"DELETE FROM products WHERE id = {id_}"  # noqa: S608 (shown, never run)
        return Change(Kind.DELETE, statement, records)

    def _new_edition(self, id_: int, now_ms: int) -> Change:
        things = _THINGS.get(self.rows[id_]["category"] or "", _THINGS["travel"])
        name, description = self._text(self._random.choice(things))
        return self.update(Kind.TEXT, id_, now_ms, name=name, description=description)

    def _flip_stock(self, id_: int, now_ms: int) -> Change:
        return self.update(Kind.METADATA, id_, now_ms, in_stock=not self.rows[id_]["in_stock"])

    def _reprice(self, id_: int, now_ms: int) -> Change:
        return self.update(Kind.UNMAPPED, id_, now_ms, price=self._price())

    def _touch(self, id_: int, now_ms: int) -> Change:
        return self.update(Kind.NO_OP, id_, now_ms, in_stock=self.rows[id_]["in_stock"])

    def _soft_delete(self, id_: int, now_ms: int) -> Change:
        return self.update(Kind.SOFT_DELETE, id_, now_ms, deleted_at=_iso(now_ms))

    def _undelete(self, id_: int, now_ms: int) -> Change:
        return self.update(Kind.UNDELETE, id_, now_ms, deleted_at=None)

    # --- choices ----------------------------------------------------------------------------------------

    def _pick(self, *, gone: bool) -> int | None:
        """A row that is soft-deleted (``gone``) or is not; None when there is none."""
        choices = [
            id_
            for id_, row in self.rows.items()
            if (row["deleted_at"] is not None) == gone and id_ not in self._reserved
        ]
        return self._random.choice(choices) if choices else None

    def _text(self, thing: str) -> tuple[str, str]:
        """A name and a description for it, the edition making them unlike every other."""
        self._edition += 1
        name = f"{self._random.choice(_QUALITIES)} {self._random.choice(_MATERIALS)} {thing}"
        remarks = " ".join(self._random.sample(_REMARKS, k=self._random.randint(1, 3)))
        return name, f"Edition {self._edition}. {remarks}"

    def _price(self) -> str:
        """A decimal as Debezium writes it by default: the base64 of its unscaled bytes."""
        return self._random.choice(("ALeC", "ALGY", "VkM=", "AJhJ", "Jic=", "GaU=", "ARr6"))

    # --- envelopes --------------------------------------------------------------------------------------

    def _write(self, kind: Kind, statement: str, row: Columns, now_ms: int) -> Change:
        op = "c" if kind is Kind.INSERT else "u"
        self.rows[row["id"]] = row
        record = self._record(_json({"id": row["id"]}), self._envelope(op, None, row, now_ms), now_ms)
        return Change(kind, statement, (record,))

    def _envelope(self, op: str, before: Columns | None, after: Columns | None, now_ms: int) -> bytes:
        self._lsn += 56
        self._transaction += 1
        source = {
            "version": "3.7.0.Final",
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": now_ms,
            "snapshot": "false",
            "db": "shop",
            "sequence": f'["{self._lsn - 56}","{self._lsn}"]',
            "ts_us": now_ms * 1000,
            "ts_ns": now_ms * 1_000_000,
            "schema": "public",
            "table": "products",
            "txId": self._transaction,
            "lsn": self._lsn,
            "xmin": None,
            "origin": None,
            "origin_lsn": None,
        }
        return _json(
            {
                "before": before,
                "after": after,
                "source": source,
                "transaction": None,
                "op": op,
                "ts_ms": now_ms,
                "ts_us": now_ms * 1000,
                "ts_ns": now_ms * 1_000_000,
            }
        )

    def _record(self, key: bytes, value: bytes | None, now_ms: int) -> Record:
        return Record(TOPIC, -1, -1, key, value, timestamp_ms=now_ms)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _iso(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sql(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'"
    return str(value)
