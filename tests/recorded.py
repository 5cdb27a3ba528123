"""The recordings of real connectors, each with the table that maps it and the rows that it must lead to."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vectide.core.chunks import Chunking
from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Record, Row, Upserted, Value
from vectide.core.template import Template
from vectide.testing.fold import Expected
from vectide.testing.recordings import read_recording

RECORDINGS = Path(__file__).parent / "data" / "recordings"

#: A row of the source table, all columns spelt as vectide spells them.
SourceRow = dict[str, Any]
Correct = Callable[[list[SourceRow]], list[SourceRow]]


@cache
def read(name: str) -> list[Record]:
    """The records of a recording, in the order of the file."""
    plain = RECORDINGS / f"{name}.jsonl"
    return read_recording(plain if plain.exists() else RECORDINGS / f"{name}.jsonl.gz")


def names() -> set[str]:
    """Every recording that there is."""
    return {path.name.split(".")[0] for path in RECORDINGS.glob("*.jsonl*")}


@cache
def _finals() -> dict[str, dict[str, list[SourceRow]]]:
    finals: dict[str, dict[str, list[SourceRow]]] = json.loads(
        gzip.decompress((RECORDINGS / "final_rows.json.gz").read_bytes())
    )
    return finals


def final_rows(name: str, table: str) -> list[SourceRow]:
    """The rows of the source table at the end of the recording."""
    return [dict(row) for row in _finals()[name][table]]


def table_of(
    template: str,
    *metadata: str,
    key: tuple[str, ...] = (),
    soft_delete: str = "",
    types: Mapping[str, str] | None = None,
    chunking: Chunking | None = None,
    source: str = "t",
) -> TableMapping:
    """A table named ``t`` with this mapping."""
    return TableMapping(
        table="t",
        source=source,
        collection="rows",
        template=Template.parse(template),
        metadata=tuple(MetadataField(name, name) for name in metadata),
        key=key,
        soft_delete=SoftDelete(soft_delete) if soft_delete else None,
        types=tuple((types or {}).items()),
        chunking=chunking,
    )


@dataclass(frozen=True)
class Case:
    """A recording, or one table of it. ``correct`` makes the source's final rows those that the events can
    lead to, where they differ; ``letters`` counts the dead letters by cause."""

    name: str
    table: str
    mapping: TableMapping
    key: tuple[str, ...] = ("id",)
    correct: Correct = lambda rows: rows
    letters: Mapping[str, int] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.name}-{self.table}"

    @property
    def topic(self) -> str:
        """The topic of the table's events."""
        return next(r.topic for r in read(self.name) if r.topic.split(".")[-1] == self.table)

    @property
    def placed(self) -> TableMapping:
        """The mapping with the topic as its source."""
        mapping = self.mapping
        return TableMapping(
            **{name: getattr(mapping, name) for name in mapping.__dataclass_fields__ if name != "source"},
            source=self.topic,
        )

    def expected(self) -> dict[Row, Expected]:
        """What the store must hold in the end, made from the source's rows alone."""
        return points(self.mapping, self.key, self.correct(final_rows(self.name, self.table)))


def points(mapping: TableMapping, key: Iterable[str], rows: Iterable[SourceRow]) -> dict[Row, Expected]:
    """What these rows of the source are as points; soft-deleted and empty ones are none."""
    found: dict[Row, Expected] = {}
    for row in rows:
        change = Upserted({name: row[name] for name in key}, row)
        text = mapping.render(mapping.rendered(change), change)
        if text and not mapping.is_soft_deleted(change):
            found[mapping.row_of(change)] = Expected(text, mapping.metadata_of(change)[0])
    return found


# --- the cases ------------------------------------------------------------------------------------------

PRODUCTS = table_of(
    "{name}[\n\n{description}]",
    *("category", "price", "in_stock", "updated_at", "tenant_id"),
    soft_delete="deleted_at",
    types={"price": "decimal(10,2)", "updated_at": "timestamptz"},
)
#: MariaDB's booleans are integers, its timestamps here have six digits in the stream and none of them zero.
MARIADB_PRODUCTS = table_of(
    "{name}[\n\n{description}]",
    *("category", "price", "in_stock", "updated_at", "tenant_id"),
    soft_delete="deleted_at",
    types={"price": "decimal(10,2)", "in_stock": "boolean", "updated_at": "timestamp(6)"},
)
ITEMS = table_of("{body}", "n")
DOCS = table_of("{title}\n\n{body}", "flag", "price", types={"price": "numeric(10,2)"})


def _cut_names(rows: list[SourceRow]) -> list[SourceRow]:
    return [row | {"name": row["name"][:12]} for row in rows]


def _with_undeleted(rows: list[SourceRow]) -> list[SourceRow]:
    """The rows 3 and 4 stay: no event says that one was deleted, and the other became 900."""
    third = next(row for row in final_rows("heartbeat", "products") if row["id"] == 3)
    fourth = next(row for row in rows if row["id"] == 900) | {"id": 4}
    return [*rows, third, fourth]


def _with_lost(rows: list[SourceRow]) -> list[SourceRow]:
    return [*rows, {"id": 2, "body": "b"}]


def _with_lost_key(rows: list[SourceRow]) -> list[SourceRow]:
    """Row 2 stays: its delete came when the key had lost its column."""
    return [*rows, {"id": 2, "name": "Waterproof linen headphone stand", "tenant_id": 4}]


def _none(rows: list[SourceRow]) -> list[SourceRow]:
    return []


def _products(*recordings: str) -> list[Case]:
    return [Case(name, "products", PRODUCTS) for name in recordings]


CASES = [
    *_products("json_schemas_off", "json_schemas_on", "multi_partition", "replica_identity_full"),
    *_products("tombstones_off", "transaction_metadata", "heartbeat", "logical_message", "truncate"),
    *_products("unwrapped", "unwrapped_rewrite", "unwrapped_schemas_on"),
    *_products("unwrapped_mode_tombstone", "unwrapped_mode_delete_to_tombstone"),
    Case("unwrapped_mode_drop", "products", PRODUCTS, correct=_with_undeleted),
    Case("mariadb_json_schemas_off", "products", MARIADB_PRODUCTS),
    Case("mariadb_json_schemas_on", "products", MARIADB_PRODUCTS),
    Case("column_filters", "products", table_of("{name}", "tenant_id"), correct=_cut_names),
    Case("schema_change", "products", table_of("{name}", "tenant_id", key=("id",))),
    Case(
        "schema_change",
        "products",
        table_of("{name}", "tenant_id"),
        correct=_with_lost_key,
        letters=Counter(no_key=6),
    ),
    Case("composite_key", "order_lines", table_of("{note}"), key=("tenant", "order_id", "line_no")),
    Case("soft_delete", "notes", table_of("{body}", soft_delete="is_deleted")),
    Case("restarts", "items", ITEMS),
    Case("incremental_snapshot_table", "items", ITEMS),
    Case("incremental_snapshot_kafka", "items", ITEMS),
    Case("lost_delete", "items", table_of("{body}"), correct=_with_lost),
    Case(
        "no_primary_key",
        "keyed",
        table_of("{body}"),
        key=("ref", "lang"),
        letters=Counter(null_in_key=3),
    ),
    Case("no_primary_key", "keyless", table_of("{body}"), correct=_none, letters=Counter(no_key=8)),
    Case(
        "no_primary_key_default_identity",
        "keyless",
        table_of("{body}"),
        correct=_none,
        letters=Counter(no_key=2),
    ),
    Case("toasted_full", "docs", DOCS),
    Case("toasted_reselect", "docs", DOCS),
]


#: A row of every type, by id: what the events must be read as, whichever mode and converter they came in.
TYPES_BY_COLUMN: dict[str, str] = {
    "c_num102": "numeric(10,2)",
    "c_num380": "numeric(38,0)",
    "c_real": "real",
    "c_double": "double precision",
    "c_json": "json",
    "c_jsonb": "jsonb",
    "c_hstore": "hstore",
    "c_numarr": "numeric(8,2)[]",
    "c_tstz": "timestamp with time zone",
    "c_ts": "timestamp without time zone",
    "c_ts3": "timestamp(3) without time zone",
    "c_date": "date",
    "c_time": "time without time zone",
    "c_timetz": "time with time zone",
    "c_interval": "interval",
    "c_money": "money(2)",
    "c_bit": "bit(3)",
}

FULL_TYPES_ROW: dict[str, Value] = {
    "c_smallint": -32768,
    "c_int": -2147483648,
    "c_bigint": -9223372036854775808,
    "c_num102": "-12345678.90",
    "c_num": "12345678901234567890.123456789",
    "c_num380": "99999999999999999999999999999999999999",
    "c_real": 1.5,
    "c_double": 0.1,
    "c_bool": True,
    "c_char": "ab      ",
    "c_varchar": "vär",
    "c_text": "plain text",
    "c_uuid": "0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a11",
    "c_json": {"b": 1, "a": [1, 2.5, None]},
    "c_jsonb": {"a": [1, 2.5, None], "b": 1},
    "c_hstore": {"k": "v", "n": None},
    "c_textarr": ["a", "b,c", "", None, 'q"uote'],
    "c_intarr": [1, None, 3],
    "c_numarr": ["1.25", "2.50"],
    "c_tstz": "2026-02-28T21:59:59.123456Z",
    "c_ts": "2026-02-28T23:59:59.123456",
    "c_ts3": "2026-02-28T23:59:59.123000",
    "c_date": "2026-02-28",
    "c_time": "23:59:59.123456",
    "c_timetz": "21:59:59.123456Z",
    "c_interval": "PT10303H5M6.789S",
    "c_bytea": "AP8Q",
    "c_enum": "happy",
    "c_inet": "192.168.1.5/24",
    "c_cidr": "10.0.0.0/8",
    "c_mac": "08:00:2b:01:02:03",
    "c_money": "1234.56",
    "c_xml": "<a>x</a>",
    "c_bit": "101",
    "c_bit1": True,
    "c_point": "POINT(1.5 -2)",
    "c_citext": "CiText",
    "c_int4range": "[1,5)",
    "c_tsrange": '["2026-01-01 00:00:00","2026-01-02 00:00:00")',
    "c_ltree": "top.sub",
    "c_tsv": "'a' 'cat' 'fat'",
    "c_oid": 4294967295,
    "c_dom": 5,
}
