"""What the source database says of itself, and what of that keeps changes from arriving as they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vectide.core.mapping import TableMapping
from vectide.core.readers import Decimals
from vectide.core.types import ColumnType, parse_type


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column. ``kind``: text, number, boolean, time, uuid, enum, json, list or other. ``declared`` is how
    a table's ``types`` names its type where events without schema do not tell it. ``can_be_left_out``: a big
    value of it is stored apart, and left out of events that did not change it. ``characters`` is the average
    length of its text, ``distinct`` the share of different values, both of a sample; None: no values."""

    name: str
    kind: str
    declared: str | None = None
    can_be_left_out: bool = False
    characters: float | None = None
    distinct: float | None = None


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """A publication that holds the table, and the operations that it publishes."""

    name: str
    operations: frozenset[str]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table of the source. ``identity``: default, full, nothing, or the columns of an index.
    ``may_select``: the role of the DSN may read it; ``connector_may_select``: so may the connector's, None
    where that is not known."""

    schema: str
    name: str
    columns: tuple[ColumnFacts, ...] = ()
    primary_key: tuple[str, ...] = ()
    identity: str | tuple[str, ...] = "default"
    may_select: bool = True
    connector_may_select: bool | None = None
    publications: tuple[PublicationFacts, ...] = ()

    @property
    def sql(self) -> str:
        """Its name in a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def by_name(self) -> Mapping[str, ColumnFacts]:
        return {column.name: column for column in self.columns}


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A logical replication slot of the database. ``is_lost``: the server no longer has what it needs."""

    name: str
    plugin: str
    is_active: bool
    is_lost: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server and the database. ``role`` is that of the DSN, ``connector`` the one that the connector
    uses, where that is known; ``connector_replicates`` None: there is no such role."""

    database: str
    role: str
    wal_level: str
    slots: tuple[SlotFacts, ...] = ()
    connector: str = ""
    connector_replicates: bool | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the source, and the SQL that mends it. ``fails``: changes do not arrive as they should;
    else it is only good to know."""

    text: str
    sql: str
    fails: bool = True


_NEEDED: Final = ("insert", "update", "delete")
_PLUGINS: Final = frozenset({"pgoutput", "decoderbufs"})


def quoted(name: str) -> str:
    """The name as every SQL statement takes it."""
    return '"' + name.replace('"', '""') + '"'


def server_findings(server: ServerFacts) -> Iterator[Finding]:
    """What is wrong with the server as a source of change events."""
    if server.wal_level != "logical":
        yield Finding(
            f"wal_level is {server.wal_level}: no change can be decoded",
            "ALTER SYSTEM SET wal_level = 'logical'; /* then restart the server */",
        )
    slots = [slot for slot in server.slots if slot.plugin in _PLUGINS]
    is_read = any(slot.is_active for slot in slots)
    for slot in slots:
        drop = f"SELECT pg_drop_replication_slot('{slot.name}');"
        if slot.is_lost:
            yield Finding(
                f"the slot {slot.name} is lost, and what it had not sent is gone: its connector needs a new "
                "snapshot",
                drop,
                fails=not is_read,
            )
        elif not slot.is_active:
            text = f"no connector reads the slot {slot.name}: the server keeps its log until one does"
            yield Finding(text, f"{drop} /* only if it is not needed any more */", fails=False)
    if not slots:
        yield Finding(
            f"the database {server.database} has no logical slot: no connector was started yet, which makes "
            "its own",
            "SELECT pg_create_logical_replication_slot('debezium', 'pgoutput');",
            fails=False,
        )
    yield from _connector_findings(server)


def _connector_findings(server: ServerFacts) -> Iterator[Finding]:
    if not server.connector:
        return
    if server.connector_replicates is None:
        yield Finding(
            f"there is no role {server.connector} for the connector",
            f"CREATE ROLE {quoted(server.connector)} LOGIN REPLICATION PASSWORD '...';",
        )
    elif not server.connector_replicates:
        yield Finding(
            f"the connector's role {server.connector} may not replicate",
            f"ALTER ROLE {quoted(server.connector)} REPLICATION;",
        )


def table_findings(table: TableFacts, mapping: TableMapping, server: ServerFacts) -> Iterator[Finding]:
    """What is wrong with a table whose rows the mapping takes."""
    yield from _identity_findings(table, mapping)
    yield from _publication_findings(table)
    yield from _grant_findings(table, server)
    left_out = [
        name
        for name in mapping.mapped_columns
        if name in table.by_name and table.by_name[name].can_be_left_out
    ]
    if left_out and table.identity != "full":
        yield Finding(
            f"events leave out big values of {', '.join(left_out)} that did not change; they then come from "
            f"the store, or are {'read again' if mapping.rereads else 'missing'}",
            f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL; /* to have them in every event */",
            fails=False,
        )


def _identity_findings(table: TableFacts, mapping: TableMapping) -> Iterator[Finding]:
    if not table.primary_key:
        key = ", ".join(map(quoted, mapping.key)) or "..."
        yield Finding(
            "the table has no primary key: its events have no key"
            + (
                f" but the columns {', '.join(mapping.key)} of its rows, and no deletes"
                if mapping.key
                else ""
            ),
            f"ALTER TABLE {table.sql} ADD PRIMARY KEY ({key});",
            fails=not mapping.key or table.identity != "full",
        )
    if table.identity == "nothing":
        yield Finding(
            "its replica identity is nothing: updates and deletes do not arrive",
            f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;",
        )
    elif isinstance(table.identity, tuple) and set(table.identity) != set(table.primary_key):
        yield Finding(
            f"its replica identity is an index over {', '.join(table.identity)}, not the primary key: "
            "deletes arrive with the wrong key, and changes of the primary key leave the old row",
            f"ALTER TABLE {table.sql} REPLICA IDENTITY DEFAULT;",
        )


def _publication_findings(table: TableFacts) -> Iterator[Finding]:
    if not table.publications:
        yield Finding(
            "no publication holds the table (the connector makes one only if it may)",
            f"CREATE PUBLICATION dbz_publication FOR TABLE {table.sql}; /* or ALTER PUBLICATION ... ADD */",
        )
    # One connector reads one of them: it is enough that one is whole.
    missing = [[name for name in _NEEDED if name not in each.operations] for each in table.publications]
    if missing and all(missing):
        first = table.publications[0]
        yield Finding(
            f"the publication {first.name} leaves out {', '.join(missing[0])}",
            f"ALTER PUBLICATION {quoted(first.name)} SET (publish = 'insert, update, delete, truncate');",
        )


def _grant_findings(table: TableFacts, server: ServerFacts) -> Iterator[Finding]:
    lacking = [server.role] if not table.may_select else []
    if table.connector_may_select is False and server.connector not in lacking:
        lacking.append(server.connector)
    for role in lacking:
        yield Finding(
            f"the role {role} may not read the table",
            f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {quoted(role)}; "
            f"GRANT SELECT ON {table.sql} TO {quoted(role)};",
        )


# --- types ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypesFound:
    """How the types that a mapping declares compare with the source's. ``remarks`` has a phrase for each kind
    of difference; ``types`` is what the table should declare. ``fails``: values would be read wrong."""

    remarks: tuple[str, ...]
    types: Mapping[str, str]
    fails: bool = False


def compared_types(table: TableFacts, mapping: TableMapping, decimals: Decimals) -> TypesFound:
    """The declared types beside the source's, for events that do not tell theirs.

    A column may be declared otherwise with reason (a mode of the connector, JSON in a text), which is only
    remarked; decimals of another scale cannot be right.
    """
    declared = mapping.column_types()
    types = dict(mapping.types)
    undeclared: list[str] = []
    whole: list[str] = []
    different: list[str] = []
    wrong: list[str] = []
    for name in dict.fromkeys([*(mapping.key or table.primary_key), *mapping.mapped_columns]):
        told = table.by_name[name].declared if name in table.by_name else None
        if told is None:
            continue
        source, given = parse_type(told), declared.get(name)
        if given is None and is_whole(source) and decimals != "precise":
            whole.append(name)
        elif given is None:
            undeclared.append(name)
            types[name] = told
        elif given.meaning != source.meaning and not (source.is_decimal and given.meaning == "text"):
            (wrong if source.is_decimal and given.is_decimal else different).append(
                f"{name} is declared {given.name} and is {told}"
            )
            types[name] = told
    remarks = [f"no type is declared for {', '.join(undeclared)}"] if undeclared else []
    if whole and decimals == "auto":
        remarks.append(
            f"{', '.join(whole)}: whole decimals are kept as they come, which is right unless "
            "decimal.handling.mode is precise; VECTIDE_CODEC__DECIMALS says which it is"
        )
    return TypesFound((*remarks, *wrong, *different), types, fails=bool(wrong))


def is_whole(declared: ColumnType) -> bool:
    """Whether these are decimals without digits after the point: the digits of one may be base64 as well."""
    return declared.meaning.startswith("decimal 0")
