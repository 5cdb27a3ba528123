"""The rows and change events of the benchmark, and what a store must hold after them.

Events are those of a Debezium PostgreSQL connector without schemas, about 600 bytes each. Everything is
made before the clock starts, from a seed, so that both sides get the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import numpy as np

from vectide.ports import Vector

#: What the store shall hold of a row.
Shown = tuple[str, dict[str, Any]]

_WORDS: Final = (
    "compact sturdy quiet foldable waterproof insulated wide modular oak steel bamboo aluminium wool cotton "
    "kettle board jar trowel tray lamp mat bag kitchen garden office travel winter balcony spare parts sold "
    "separately fits small flat cleaning minute tested rain comes apart under"
).split()
_POOL: Final = np.random.default_rng(7).standard_normal(1 << 17)


def quick_vector(text: str, dimensions: int) -> Vector:
    """A unit vector that depends on the text alone, made in no time: the provider is not what is measured."""
    digest = crc32(text.encode())
    start, step = digest & 0xFFFF, digest >> 16
    vector = _POOL[start : start + dimensions] + _POOL[0x10000 + step - dimensions :][:dimensions]
    unit = vector / np.sqrt(vector @ vector)
    return unit.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Message:
    """One record to produce. ``row`` is the id of its row."""

    row: int
    key: bytes
    value: bytes | None


@dataclass(slots=True)
class Shop:
    """A source table ``products``: what is in it, and the changes that are made to it."""

    seed: int = 1
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    _random: random.Random = field(init=False)
    _serial: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311

    def inserts(self, count: int) -> list[Message]:
        """New rows."""
        return [message for _ in range(count) for message in self._insert()]

    def mixed(self, count: int) -> list[Message]:
        """Changes of existing rows: 60 % of metadata alone, 20 % of nothing, 15 % of text, 5 % deletes. A
        delete is two records, as Debezium's is."""
        kinds: list[Callable[[], list[Message]]] = [self._metadata, self._nothing, self._text, self._delete]
        chosen = self._random.choices(kinds, (60, 20, 15, 5), k=count)
        return [message for change in chosen for message in change()]

    def texts(self, count: int) -> list[Message]:
        """A new text for as many different rows."""
        ids = self._random.sample(list(self.rows), count)
        return [self._update(id_, description=self._words(40)) for id_ in ids]

    def shown(self) -> dict[int, Shown]:
        """What the store must hold."""
        return {
            id_: (f"{row['name']}\n\n{row['description']}", {name: row[name] for name in ("price", "stock")})
            for id_, row in self.rows.items()
        }

    # --- changes -----------------------------------------------------------------------------------------

    def _insert(self) -> list[Message]:
        self._serial += 1
        row = {
            "id": self._serial,
            "name": f"{self._words(3)} {self._serial}",
            "description": self._words(40),
            "price": self._random.randint(100, 90_000),
            "stock": self._random.randint(0, 500),
        }
        self.rows[self._serial] = row
        return [self._message("c", row)]

    def _metadata(self) -> list[Message]:
        return [self._update(self._any(), price=self._random.randint(100, 90_000))]

    def _nothing(self) -> list[Message]:
        return [self._update(self._any())]

    def _text(self) -> list[Message]:
        return [self._update(self._any(), description=self._words(40))]

    def _delete(self) -> list[Message]:
        row = self.rows.pop(self._any())
        return [self._message("d", row), Message(row["id"], _key(row["id"]), None)]

    def _update(self, id_: int, **columns: Any) -> Message:
        row = self.rows[id_] = {**self.rows[id_], **columns}
        return self._message("u", row)

    def _any(self) -> int:
        while True:
            id_ = self._random.randint(1, self._serial)
            if id_ in self.rows:
                return id_

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))

    def _message(self, op: str, row: dict[str, Any]) -> Message:
        gone = op == "d"
        event = {
            "before": {"id": row["id"]} if gone else None,
            "after": None if gone else row,
            "source": {
                "version": "3.7.0.Final",
                "connector": "postgresql",
                "name": "shop",
                "ts_ms": 1_767_225_600_000,
                "snapshot": "false",
                "db": "shop",
                "schema": "public",
                "table": "products",
                "txId": 700 + row["id"],
                "lsn": 26_000_000,
            },
            "op": op,
            "ts_ms": 1_767_225_600_000,
        }
        return Message(row["id"], _key(row["id"]), json.dumps(event).encode())


def _key(id_: int) -> bytes:
    return b'{"id":%d}' % id_


def sizes(messages: list[Message]) -> Iterator[int]:
    """The length of every value."""
    return (len(message.value or b"") for message in messages)
