"""Stamps as this code writes them, and as earlier code did: the files of ``tests/data/stamps``.

A file is written once, by the code that first wrote stamps like these (``python -m tests.stamps FILE``), and
never again: stores are full of them. ``1-first.json`` is the first that there was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vectide.core.chunks import Chunking
from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Mapped, Position, Row, SourcePosition, Stamp, Upserted
from vectide.core.planner import EmbedText, Known, plan
from vectide.core.template import Template
from vectide.settings_where import parse_where

FILES = Path(__file__).parent / "data" / "stamps"
SPACE = "openai/text-embedding-3-small/1536/document"
LOG = "9l3kfb7GQmKbvN3q1mYxGA"
SOURCE = SourcePosition("postgresql/shop/store", "000000000263fac0000000000263fb00", 1795243407572)
STARTED_MS = 1795243000000

PLAIN = TableMapping(
    table="products",
    source="shop.public.products",
    collection="products",
    template=Template.parse("{title}[\n{body}]"),
    metadata=(MetadataField("price", "price"), MetadataField("$op", "last_change")),
)
CHUNKED = TableMapping(
    table="documents",
    source="shop.public.documents",
    collection="documents",
    template=Template.parse("{title}\n\n{body}"),
    metadata=(MetadataField("rank", "stars"),),
    soft_delete=SoftDelete("deleted_at"),
    chunking=Chunking(30),
    where=parse_where("rank > 1"),
)
COLUMNS = {"id": 7, "title": "Bicycle pump ☃", "price": "12.50", "rank": 4, "deleted_at": None}
BODY = " ".join(f"Sentence number {n} is in here." for n in range(9))

#: What was written, by name: the mapping, the row as its last event told it, and marks of its stamp.
ROWS: Mapping[str, tuple[TableMapping, Mapping[str, Any], Mapping[str, Any]]] = {
    "plain": (PLAIN, {**COLUMNS, "body": None}, {}),
    "plain, two columns": (PLAIN, {**COLUMNS, "body": BODY}, {}),
    "plain, stale": (PLAIN, {**COLUMNS, "body": BODY}, {"stale": True}),
    "plain, ahead": (PLAIN, {**COLUMNS, "body": BODY}, {"ahead": True}),
    "chunked": (CHUNKED, {**COLUMNS, "body": BODY}, {}),
    "chunked, open": (CHUNKED, {**COLUMNS, "body": BODY}, {"open": True}),
}


def known(name: str, stamp: Stamp | None, offset: int = 40) -> Known:
    """What a look-up would tell of the row."""
    mapping, _, _ = ROWS[name]
    return Known(
        Row.of(mapping.table, {"id": 7}),
        Position(LOG, 0, offset, SOURCE),
        stamp,
        SPACE,
        mapped=Mapped(mapping.identity, STARTED_MS),
    )


def change(name: str, **columns: Any) -> Upserted:
    """An event of the row, with other values in these columns."""
    return Upserted({"id": 7}, {**ROWS[name][1], **columns})


def written() -> dict[str, Any]:
    """The stamps of all the rows, by name."""
    stamps = {}
    for name, (mapping, _, marks) in ROWS.items():
        first = known(name, None)
        planned = plan(change(name), first, mapping)
        assert isinstance(planned, EmbedText)
        stamps[name] = replace(planned.stamp, **marks).to_payload(first.row)
    return stamps


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(written(), indent=1, ensure_ascii=False) + "\n")
