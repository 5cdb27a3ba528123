"""Points of the LanceDB store: the columns of its tables, what is written, and the conditions on them.

Metadata, the stamp and the kept columns are canonical JSON text, so that they come back exactly; ``log``,
``log_partition`` and ``log_offset`` repeat the stamp's position, for the condition of a write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vectide.core.model import Row, Value, canonical_json
from vectide.ports import Stored, Vector
from vectide.stores.pointwise import Changes, Held, read_stamp

_TEXTS: Final = "id row_id source_table row_key text text_hash metadata stamp kept_columns log".split()
_COLUMNS: Final = [
    *(pa.field(name, pa.string()) for name in _TEXTS),
    pa.field("chunk", pa.int32()),
    pa.field("log_partition", pa.int32()),
    pa.field("log_offset", pa.int64()),
]

#: What :func:`held_of` needs.
READ: Final = "id source_table row_key chunk text text_hash metadata stamp kept_columns".split()

#: The condition for overwriting a point: it does not hold a later position of the same log.
NOT_NEWER: Final = (
    "(target.log = source.log AND target.log_partition = source.log_partition"
    " AND target.log_offset > source.log_offset) IS NOT TRUE"
)


def schema_of(dimensions: int, made_for: Mapping[str, str]) -> pa.Schema:
    """The columns of a collection; ``made_for`` is kept with them."""
    vector = pa.field("vector", pa.list_(pa.float32(), dimensions))
    return pa.schema([*_COLUMNS, vector], metadata=dict(made_for))


def table_of(points: Sequence[Held], vectors: Sequence[Vector] | None = None) -> pa.Table:
    """The points as rows; without ``vectors`` that column is left out."""
    table = pa.Table.from_pylist([_row(held) for held in points], schema=pa.schema(_COLUMNS))
    if vectors is None:
        return table
    flat = pa.array(np.concatenate(vectors), pa.float32())
    return table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, len(vectors[0])))


def held_of(row: Mapping[str, Any]) -> Held:
    """The point that is this row."""
    stamp = read_stamp(None if row["stamp"] is None else json.loads(row["stamp"]))
    values = None if row["kept_columns"] is None else json.loads(row["kept_columns"])
    numbers = row.get("vector")
    vector = None if numbers is None else np.asarray(numbers, dtype=np.float32)
    of = Row(row["source_table"], row["row_key"])
    metadata = json.loads(row["metadata"])
    stored = Stored(row["id"], of, row["chunk"], row["text"], row["text_hash"], metadata, stamp, vector)
    return Held(stored, values)


def _row(held: Held) -> dict[str, Any]:
    point, stamp = held.point, held.point.stamp
    return {
        "id": point.id,
        "row_id": point.row.head_id,
        "source_table": point.row.table,
        "row_key": point.row.key,
        "chunk": point.chunk,
        "text": point.text,
        "text_hash": point.text_hash,
        "metadata": canonical_json(dict(point.metadata)),
        "stamp": None if stamp is None else canonical_json(stamp.to_payload(point.row)),
        "kept_columns": None if held.values is None else canonical_json(dict(held.values)),
        "log": None if stamp is None else stamp.position.log,
        "log_partition": None if stamp is None else stamp.position.partition,
        "log_offset": None if stamp is None else stamp.position.offset,
    }


# --- conditions -----------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def among(column: str, values: Iterable[str]) -> str:
    """That the column has one of these values."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def conditions(filters: Mapping[str, Value]) -> str | None:
    """Matches at least the points whose metadata equals ``filters``: its text has this piece. None: all."""
    pieces = [canonical_json({name: value})[1:-1] for name, value in filters.items()]
    return " AND ".join(f"strpos(metadata, {quoted(piece)}) > 0" for piece in pieces) or None


def apply(table: Any, changes: Changes, timeout: timedelta) -> None:
    """Make the changes, each kind of them in a version of the table."""
    updates = [one for one in changes.puts if one[0].point.id in changes.updates]
    inserts = [one for one in changes.puts if one[0].point.id not in changes.updates]
    for puts, may_insert in ((updates, False), (inserts, True)):
        if puts:
            rows = table_of([held for held, _ in puts], [vector for _, vector in puts])
            merge = table.merge_insert("id").when_matched_update_all(where=NOT_NEWER)
            merge = merge.when_not_matched_insert_all() if may_insert else merge
            merge.execute(rows, timeout=timeout)
    if changes.patches:
        rows = table_of(changes.patches)
        table.merge_insert("id").when_matched_update_all(where=NOT_NEWER).execute(rows, timeout=timeout)
    if changes.removals:
        gone = among("row_id", [row_id for row_id, _, _ in changes.removals])
        stay = [id_ for _, ids, _ in changes.removals for id_ in ids]
        table.delete(f"{gone} AND NOT ({among('id', stay)})" if stay else gone)
