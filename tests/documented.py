"""Histories of sources that were not recorded, as their connectors' documentation shows their events.

Each is written with schemas, as Connect's JsonConverter does; ``tests.converters`` makes the other forms.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.recorded import table_of

from vectide.core.mapping import TableMapping
from vectide.core.model import Record

UNAVAILABLE = "__debezium_unavailable_value"
TIME, DATA = "io.debezium.time.", "io.debezium.data."
DECIMAL = "org.apache.kafka.connect.data.Decimal"
VARIABLE = {
    "type": "struct",
    "name": DATA + "VariableScaleDecimal",
    "fields": [{"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}],
}

Row = dict[str, Any]
Headers = tuple[tuple[str, bytes | None], ...]


def number(unscaled: int) -> str:
    """How the digits of a decimal are sent."""
    size = unscaled.bit_length() // 8 + 1
    return base64.b64encode(unscaled.to_bytes(size, "big", signed=True)).decode()


def decimal(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "name": DECIMAL, "parameters": {"scale": str(scale)}}


def named(name: str, type_: str = "int64") -> dict[str, Any]:
    return {"type": type_, "name": name}


@dataclass(frozen=True)
class Column:
    """``schema`` as the connector tells it; ``declared`` as the source's catalogue does, empty where nothing
    needs to be declared; a value as it is sent, and as it must be read."""

    name: str
    schema: Mapping[str, Any]
    declared: str
    sent: Any
    read: Any


@dataclass(frozen=True)
class Source:
    """A table of one connector. ``block`` is the source block of its events."""

    topic: str
    key: str
    block: Mapping[str, Any]
    columns: Sequence[Column]

    @property
    def sent(self) -> Row:
        """A row as it is sent."""
        return {column.name: column.sent for column in self.columns}

    @property
    def read(self) -> Row:
        """The same as it must be read."""
        return {column.name: column.read for column in self.columns}

    def mapping(self, template: str, *metadata: str) -> TableMapping:
        types = {column.name: column.declared for column in self.columns if column.declared}
        return table_of(template, *metadata, types=types, source=self.topic)

    # --- events -----------------------------------------------------------------------------------------

    def insert(self, row: Row, op: str = "c", headers: Headers = ()) -> list[Record]:
        return [self._event(op, None, row, headers)]

    def update(self, before: Row, after: Row) -> list[Record]:
        return [self._event("u", before, after)]

    def delete(self, row: Row, headers: Headers = ()) -> list[Record]:
        """And the tombstone that follows."""
        return [self._event("d", row, None, headers), Record(self.topic, 0, 0, self._key(row), None, headers)]

    def move(self, before: Row, after: Row) -> list[Record]:
        """The primary key changes."""
        new, old = (json.dumps({self.key: row[self.key]}).encode() for row in (after, before))
        return [
            *self.delete(before, (("__debezium.newkey", new),)),
            *self.insert(after, headers=(("__debezium.oldkey", old),)),
        ]

    def _event(self, op: str, before: Row | None, after: Row | None, headers: Headers = ()) -> Record:
        row = after or before or {}
        block = [
            {"type": "int64" if isinstance(value, int) else "string", "optional": True, "field": name}
            for name, value in self.block.items()
        ]
        fields = [
            {**self._row("Value"), "optional": True, "field": "before"},
            {**self._row("Value"), "optional": True, "field": "after"},
            {"type": "struct", "name": "io.debezium.Source", "fields": block, "field": "source"},
            {"type": "string", "field": "op"},
            {"type": "int64", "optional": True, "field": "ts_ms"},
        ]
        payload = {"before": before, "after": after, "source": self.block, "op": op, "ts_ms": 7}
        schema = {"type": "struct", "name": f"{self.topic}.Envelope", "fields": fields}
        return Record(self.topic, 0, 0, self._key(row), _wrapped(schema, payload), headers)

    def _row(self, what: str) -> dict[str, Any]:
        fields = [
            {**column.schema, "optional": column.name != self.key, "field": column.name}
            for column in self.columns
            if what == "Value" or column.name == self.key
        ]
        return {"type": "struct", "name": f"{self.topic}.{what}", "fields": fields}

    def _key(self, row: Row) -> bytes:
        return _wrapped(self._row("Key"), {self.key: row[self.key]})


def _wrapped(schema: Any, payload: Any) -> bytes:
    return json.dumps({"schema": schema, "payload": payload}).encode()


def in_order(*parts: Sequence[Record]) -> list[Record]:
    """The records one behind the other."""
    records = [record for part in parts for record in part]
    return [
        Record(record.topic, 0, offset, record.key, record.value, record.headers)
        for offset, record in enumerate(records)
    ]


# --- SQL Server -----------------------------------------------------------------------------------------

SQL_SERVER = Source(
    "shop.catalogue.dbo.products",
    "Id",
    {
        **{"version": "3.7.0.Final", "connector": "sqlserver", "name": "shop", "ts_ms": 5},
        **{"snapshot": "false", "db": "catalogue", "sequence": None, "schema": "dbo", "table": "products"},
        **{"change_lsn": "00000027:00000758:0003", "commit_lsn": "00000027:00000758:0005"},
        "event_serial_no": 2,
    },
    [
        Column("Id", {"type": "int32"}, "int", 1, 1),
        Column("Title", {"type": "string"}, "nvarchar(200)", "a tent", "a tent"),
        Column("Body", {"type": "string"}, "nvarchar(max)", "for two", "for two"),
        Column("Price", decimal(2), "decimal(10,2)", number(-123456), "-1234.56"),
        Column("Cost", decimal(4), "money(4)", number(195000), "19.5000"),
        Column("Fee", decimal(4), "smallmoney", number(5), "0.0005"),
        Column("Ratio", {"type": "double"}, "float", 0.1, 0.1),
        Column("Live", {"type": "boolean"}, "bit", True, True),
        Column("Stars", {"type": "int16"}, "tinyint", 255, 255),
        Column(
            "Guid",
            {"type": "string"},
            "uniqueidentifier",
            "6F9619FF-8B86-D011-B42D-00C04FC964FF",
            "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        ),
        Column("Day", named(TIME + "Date", "int32"), "date", 20512, "2026-02-28"),
        Column("Clock", named(TIME + "NanoTime"), "time(7)", 86399123456700, "23:59:59.123456700"),
        Column("Old", named(TIME + "Timestamp"), "datetime", 1772323199123, "2026-02-28T23:59:59.123000"),
        Column(
            "Small", named(TIME + "Timestamp"), "smalldatetime", 1772323140000, "2026-02-28T23:59:00.000000"
        ),
        Column(
            "Made",
            named(TIME + "NanoTimestamp"),
            "datetime2(7)",
            1772323199123456700,
            "2026-02-28T23:59:59.123456700",
        ),
        Column(
            "At",
            named(TIME + "ZonedTimestamp", "string"),
            "datetimeoffset(7)",
            "2026-02-28T23:59:59.123456+02:00",
            "2026-02-28T21:59:59.123456Z",
        ),
        Column("Doc", named(DATA + "Xml", "string"), "xml", "<a/>", "<a/>"),
        Column("Raw", {"type": "bytes"}, "varbinary(8)", "AP8Q", "AP8Q"),
        Column("Version", {"type": "bytes"}, "rowversion", "AAAAAAAAB9E=", "AAAAAAAAB9E="),
    ],
)

# --- Oracle ---------------------------------------------------------------------------------------------

ORACLE = Source(
    "shop.SALES.PRODUCTS",
    "ID",
    {
        **{"version": "3.7.0.Final", "connector": "oracle", "name": "shop", "ts_ms": 5, "snapshot": "false"},
        **{"db": "ORCLPDB1", "sequence": None, "schema": "SALES", "table": "PRODUCTS", "txId": "6.28.807"},
        **{"scn": "99999999999999999999", "commit_scn": "2122189", "lcr_position": None, "rs_id": "001234"},
        **{"ssn": 0, "redo_thread": 1, "user_name": "SALES", "row_id": "AAAbbbAAPAAAACrAAA"},
    },
    [
        # A number without precision, as most keys of Oracle are.
        Column("ID", VARIABLE, "number", {"scale": 0, "value": number(1)}, "1"),
        Column("TITLE", {"type": "string"}, "varchar2(200 char)", "a tent", "a tent"),
        Column("BODY", {"type": "string"}, "clob", "for two " * 600, "for two " * 600),
        Column("STOCK", {"type": "int32"}, "number(9)", 469780, 469780),
        Column("PRICE", decimal(2), "number(10,2)", number(123456), "1234.56"),
        Column("BIG", decimal(0), "number(38)", number(10**30), str(10**30)),
        Column("WEIGHT", VARIABLE, "float(126)", {"scale": 3, "value": number(-1500)}, "-1.500"),
        Column("RATIO", {"type": "double"}, "binary_double", 0.1, 0.1),
        Column(
            "MADE", named(TIME + "Timestamp"), "timestamp(3)", 1772323199000, "2026-02-28T23:59:59.000000"
        ),
        Column(
            "T6",
            named(TIME + "MicroTimestamp"),
            "timestamp(6)",
            1772323199123456,
            "2026-02-28T23:59:59.123456",
        ),
        Column(
            "T9",
            named(TIME + "NanoTimestamp"),
            "timestamp(9)",
            1772323199123456789,
            "2026-02-28T23:59:59.123456789",
        ),
        Column(
            "TZ",
            named(TIME + "ZonedTimestamp", "string"),
            "timestamp(6) with time zone",
            "2026-02-28T23:59:59.123456+02:00",
            "2026-02-28T21:59:59.123456Z",
        ),
        Column(
            "LTZ",
            named(TIME + "ZonedTimestamp", "string"),
            "timestamp with local time zone",
            "2026-02-28T23:59:59Z",
            "2026-02-28T23:59:59.000000Z",
        ),
        Column("YM", named(TIME + "MicroDuration"), "interval year to month", 31557600000000, "PT8766H0M0S"),
        Column("DS", named(TIME + "MicroDuration"), "interval day(2) to second(6)", 90000000, "PT0H1M30S"),
        Column("HASH", {"type": "bytes"}, "raw(16)", "AP8Q", "AP8Q"),
    ],
)

# --- MySQL ----------------------------------------------------------------------------------------------

MYSQL = Source(
    "shop.catalogue.products",
    "id",
    {
        **{"version": "3.7.0.Final", "connector": "mysql", "name": "shop", "ts_ms": 5, "snapshot": "false"},
        **{"db": "catalogue", "sequence": None, "table": "products", "server_id": 223344, "gtid": None},
        **{"file": "mysql-bin.000003", "pos": 484, "row": 0, "thread": 7},
    },
    [
        Column("id", {"type": "int64"}, "bigint unsigned", -1, 18446744073709551615),
        Column("title", {"type": "string"}, "tinytext", "a tent", "a tent"),
        Column("body", {"type": "string"}, "longtext", "for two", "for two"),
        Column("price", decimal(2), "decimal(10,2) unsigned", number(123456), "1234.56"),
        Column("stock", {"type": "int64"}, "int unsigned", 4294967295, 4294967295),
        Column("live", {"type": "int16"}, "bool", 1, True),
        Column("flag", {"type": "boolean"}, "bit(1)", False, False),
        Column(
            "flags", {**named(DATA + "Bits", "bytes"), "parameters": {"length": "3"}}, "bit(3)", "BQ==", "101"
        ),
        Column("kind", named(DATA + "Enum", "string"), "enum('book','toy')", "toy", "toy"),
        Column("tags", named(DATA + "EnumSet", "string"), "set('new','hot')", "new,hot", ["new", "hot"]),
        Column("made", named(TIME + "Year", "int32"), "year", 2026, 2026),
        Column("day", named(TIME + "Date", "int32"), "date", 20512, "2026-02-28"),
        Column("clock", named(TIME + "MicroTime"), "time(6)", 3020399000000, "838:59:59.000000"),
        Column(
            "at",
            named(TIME + "ZonedTimestamp", "string"),
            "timestamp",
            "2026-02-28T23:59:59Z",
            "2026-02-28T23:59:59.000000Z",
        ),
        Column("old", named(TIME + "Timestamp"), "datetime", 1772323199000, "2026-02-28T23:59:59.000000"),
        Column(
            "older",
            named(TIME + "MicroTimestamp"),
            "datetime(6)",
            1772323199123456,
            "2026-02-28T23:59:59.123456",
        ),
        Column("data", named(DATA + "Json", "string"), "json", '{"b": 1, "a": [1]}', {"a": [1], "b": 1}),
        Column("hash", {"type": "bytes"}, "binary(3)", "AP8Q", "AP8Q"),
        Column("photo", {"type": "bytes"}, "longblob", "AP8Q", "AP8Q"),
    ],
)

SOURCES = {"sqlserver": SQL_SERVER, "oracle": ORACLE, "mysql": MYSQL}


# --- MongoDB --------------------------------------------------------------------------------------------

DOCUMENTS = "shop.wiki.pages"
OIDS = [f"596e275826f08b2730779e{number:02x}" for number in range(10)]

#: The flavours of ``json.serialization.mode``, by how they write an integer and a date.
FLAVOURS: dict[str, Callable[[int, int, str], tuple[Any, Any]]] = {
    "strict": lambda n, ms, iso: ({"$numberLong": str(n)}, {"$date": ms}),
    "relaxed": lambda n, ms, iso: (n, {"$date": iso}),
    "extended": lambda n, ms, iso: ({"$numberInt": str(n)}, {"$date": {"$numberLong": str(ms)}}),
}

_MONGO = {
    **{"version": "3.7.0.Final", "connector": "mongodb", "name": "shop", "ts_ms": 5, "snapshot": "false"},
    **{"db": "wiki", "sequence": None, "collection": "pages", "ord": 31, "lsid": None, "txnNumber": None},
}
_JSON = {"type": "string", "optional": True, "name": DATA + "Json"}
_UPDATE = {
    "type": "struct",
    "optional": True,
    "name": "io.debezium.connector.mongodb.changestream.updatedescription",
    "fields": [
        {"type": "array", "optional": True, "items": {"type": "string"}, "field": "removedFields"},
        {**_JSON, "field": "updatedFields"},
    ],
}


def page(at: int, flavour: str = "strict", **fields: Any) -> Row:
    """A document as extended JSON has it; ``n`` and a date in the flavour."""
    n, date = FLAVOURS[flavour](fields.pop("n", 1), 1772315999123, "2026-02-28T21:59:59.123Z")
    document = {"_id": {"$oid": OIDS[at]}, "n": n, "at": date, "price": {"$numberDecimal": "1.50"}, **fields}
    return {name: value for name, value in document.items() if value is not None}


def raw(op: str, at: int, after: Row | None, **update: Any) -> list[Record]:
    """An event of the connector; ``update`` describes what has changed."""
    described = {"removedFields": None, "updatedFields": None, **update} if op == "u" else None
    payload = {
        "before": None,
        "after": None if after is None else json.dumps(after),
        "updateDescription": described,
        "source": _MONGO,
        "op": op,
        "ts_ms": 7,
    }
    block = [
        {"type": "int64" if isinstance(value, int) else "string", "optional": True, "field": name}
        for name, value in _MONGO.items()
    ]
    fields = [
        {**_JSON, "field": "before"},
        {**_JSON, "field": "after"},
        {**_UPDATE, "field": "updateDescription"},
        {
            "type": "struct",
            "name": "io.debezium.connector.mongodb.Source",
            "fields": block,
            "field": "source",
        },
        {"type": "string", "field": "op"},
        {"type": "int64", "optional": True, "field": "ts_ms"},
    ]
    schema = {"type": "struct", "name": f"{DOCUMENTS}.Envelope", "fields": fields}
    key = _document_key(json.dumps({"$oid": OIDS[at]}))
    records = [Record(DOCUMENTS, 0, 0, key, _wrapped(schema, payload))]
    return [*records, Record(DOCUMENTS, 0, 0, key, None)] if op == "d" else records


def flattened(at: int, fields: Row | None, deleted: bool = False) -> list[Record]:
    """The same as ``ExtractNewDocumentState`` leaves it: no fields, a delete."""
    key = _document_key(OIDS[at])
    if fields is None:
        return [Record(DOCUMENTS, 0, 0, key, b"null")]
    types = {int: "int32", str: "string", bool: "boolean"}
    row = {"_id": OIDS[at], **fields, "at": 1772315999123, "__deleted": deleted}
    schemas = [
        {"type": types.get(type(value), "string"), "optional": True, "field": name}
        for name, value in row.items()
        if name != "at"
    ]
    at_field = {**named("org.apache.kafka.connect.data.Timestamp"), "optional": True, "field": "at"}
    schema = {"type": "struct", "name": "pages", "fields": [*schemas, at_field]}
    return [Record(DOCUMENTS, 0, 0, key, _wrapped(schema, row))]


def _document_key(text: str) -> bytes:
    fields = [{"type": "string", "field": "id"}]
    return _wrapped({"type": "struct", "name": f"{DOCUMENTS}.Key", "fields": fields}, {"id": text})


# --- CloudEvents ----------------------------------------------------------------------------------------


def as_cloud_events(records: Sequence[Record], *, schemas: bool) -> Iterator[Record]:
    """Records of a relational connector, with schemas, as ``CloudEventsConverter`` writes their values."""
    for record in records:
        document = None if record.value is None else json.loads(record.value)
        if document is None or document["payload"] is None or "source" not in document["payload"]:
            yield record
            continue
        payload, source = document["payload"], document["payload"]["source"]
        rows = {name: payload[name] for name in ("before", "after")}
        members = [one for one in document["schema"]["fields"] if one["field"] in rows]
        data: Any = {"schema": {"type": "struct", "fields": members}, "payload": rows} if schemas else rows
        event = {
            "id": f"name:{source['name']};lsn:1;txId:2",
            "source": f"/debezium/{source['connector']}/{source['name']}",
            "specversion": "1.0",
            "type": f"io.debezium.connector.{source['connector']}.DataChangeEvent",
            "time": "2026-11-21T06:42:36.331Z",
            "datacontenttype": "application/json",
            "iodebeziumop": payload["op"],
            **{f"iodebezium{name.replace('_', '').lower()}": str(value) for name, value in source.items()},
            "iodebeziumtxid": None,
            "data": data,
        }
        yield Record(
            record.topic,
            record.partition,
            record.offset,
            record.key,
            json.dumps(event).encode(),
            record.headers,
        )
