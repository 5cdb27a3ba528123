"""Who decides whether the store is right: from the source tables and the account of the workload alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from tests.real.tables import Key, RowId, Table

from vectide.embedders.hashing import expected_vector

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """One point of the store: the primary key of its row, and what a person sees of it. ``ahead``: its text
    may be that of a later version of the row."""

    key: Key
    text: str
    metadata: Mapping[str, Any]
    vector: Vector
    ahead: bool = False


def should_be(source: psycopg.Connection[Any], table: Table, dimensions: int) -> dict[Key, Found]:
    """What the store must hold for the table as it is now: nothing for soft-deleted rows."""
    with source.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table.name))).fetchall()
    source.commit()
    wanted = {}
    for row in rows:
        if not table.gone(row):
            text = table.text(row)
            found = Found(table.key_of(row), text, table.metadata(row), expected_vector(text, dimensions))
            wanted[found.key] = found
    return wanted


def read_store(store: psycopg.Connection[Any], table: Table) -> list[Found]:
    """Every point of the table's collection, by plain SQL, as any user of the database could read it."""
    query = sql.SQL(
        "SELECT row_key, text, metadata, embedding::real[], stamp ? 'ahead' FROM {} ORDER BY row_key, chunk"
    )
    rows = store.execute(query.format(sql.Identifier(table.name))).fetchall()
    return [
        Found(table.key_of(json.loads(key)), text, metadata, np.asarray(embedding, dtype=np.float32), ahead)
        for key, text, metadata, embedding, ahead in rows
    ]


def differences(wanted: Mapping[Key, Found], stored: Iterable[Found]) -> list[str]:
    """Every way in which the store is not what it should be; empty when it is equal."""
    complaints: list[str] = []
    seen: set[Key] = set()
    for point in stored:
        if point.key in seen:
            complaints.append(f"{point.key}: there twice")
        seen.add(point.key)
        if point.key not in wanted:
            complaints.append(f"{point.key}: must not be there")
        else:
            complaints += _differs(wanted[point.key], point)
    complaints += [f"{key}: missing" for key in wanted.keys() - seen]
    return complaints


def _differs(wanted: Found, stored: Found) -> Iterable[str]:
    if stored.text != wanted.text:
        yield f"{wanted.key}: text is {stored.text[:80]!r}, should be {wanted.text[:80]!r}"
    if stored.vector.shape != wanted.vector.shape or not np.allclose(stored.vector, wanted.vector, atol=1e-5):
        yield f"{wanted.key}: the vector is not that of the text"
    for name in wanted.metadata.keys() | stored.metadata.keys():
        value, found = wanted.metadata.get(name), stored.metadata.get(name)
        if not _same(value, found):
            yield f"{wanted.key}: metadata {name} is {found!r}, should be {value!r}"


def _same(wanted: Any, found: Any) -> bool:
    """Null may be null or absent; decimals and times are compared by value, as JSON has neither."""
    if wanted is None or found is None:
        return wanted is found
    if isinstance(wanted, Decimal):
        try:
            return Decimal(str(found)) == wanted
        except InvalidOperation:
            return False
    if isinstance(wanted, datetime):
        try:
            return datetime.fromisoformat(found) == wanted
        except (TypeError, ValueError):
            return False
    return type(wanted) is type(found) and bool(wanted == found)


def worth_embedding(held: Mapping[RowId, Sequence[str | None]], stored: Mapping[RowId, str]) -> Counter[str]:
    """How often each text may be sent from a moment on when the store held ``stored``.

    A row may cost every text that it came to hold after the stored one, once for each time; a row of which
    nothing is stored may cost everything that it ever held, since a replay may start before that.
    """
    worth: Counter[str] = Counter()
    for row, texts in held.items():
        kept = stored.get(row)
        since = texts.index(kept) if kept in texts and kept is not None else 0
        worth.update(text for text in texts[since + 1 :] if text is not None)
    return worth


def wasted(sent: Mapping[str, int], worth: Mapping[str, int]) -> list[str]:
    """The texts that were sent more often than they were worth."""
    return [
        f"sent {times} times, worth {worth.get(text, 0)}: {text[:80]!r}"
        for text, times in sent.items()
        if times > worth.get(text, 0)
    ]
