"""The bundled change events: a product catalogue, recorded from a real Debezium PostgreSQL connector.

A snapshot of 200 rows, then inserts, updates (of text, of other columns, of nothing), soft deletes, deletes
with their tombstones, a changed primary key and several changes of one row in one transaction. Keys, values,
headers and times are as Debezium 3.7 wrote them; only the topic was renamed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from vectide.core.model import Record
from vectide.testing.recordings import read_recording

TOPIC: Final = "shop.public.products"
_FILE: Final = "products.jsonl.gz"

#: What a user writes to say which columns become the text, which the metadata, and what a deleted row is.
TABLES: Final = f"""\
products:
  source: {TOPIC}
  embed:
    template: "{{name}}[\\n\\n{{description}}]"
  metadata: [sku, category, in_stock]
  soft_delete: deleted_at
"""


def unpack(folder: Path) -> list[Record]:
    """Write the recording to ``folder`` and read it. Each record's partition is left to its key."""
    path = folder / _FILE.removesuffix(".gz")
    path.write_bytes(gzip.decompress(files(__package__).joinpath(_FILE).read_bytes()))
    return [replace(record, partition=-1) for record in read_recording(path)]


def rows_after(records: Iterable[Record]) -> dict[int, dict[str, Any]]:
    """The source table after these events: its columns as Debezium spells them, by primary key."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        id_ = json.loads(record.key or b"{}")["id"]
        after = None if record.value is None else json.loads(record.value)["after"]
        if after is None:
            rows.pop(id_, None)
        else:
            rows[id_] = after
    return rows
