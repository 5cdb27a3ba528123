"""A first tables file and connector for tables of a PostgreSQL source: what to embed and what to keep beside
it, guessed from names, types and a sample of the values. It is for people to read and correct."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vectide.core.model import RESERVED_NAMES, STAMP_KEY
from vectide.core.source_facts import ColumnFacts, TableFacts, is_whole
from vectide.core.types import parse_type

#: Texts shorter than this on average say what something is (a status, a code), not what it is about.
EMBEDDED_CHARACTERS: Final = 24.0
#: Of a short text that repeats itself this much, too, the values are categories.
_CATEGORIES: Final = 0.2
#: Metadata are for filters: longer texts and documents stay out.
_METADATA_CHARACTERS: Final = 200.0

_TITLES: Final = ("title", "name", "subject", "headline", "label", "summary")
_BODIES: Final = tuple("description body content text abstract comment message notes note bio".split())
_SECRET: Final = re.compile(
    r"pass(word|wd|phrase)|secret|token|salt|hash|ssn|iban|credit_?card|api_?key", re.IGNORECASE
)
_ADDRESS: Final = re.compile(
    r"(^|_)(url|uri|link|email|e_mail|slug|path|image|avatar|phone|sku|code|locale)s?($|_)", re.IGNORECASE
)
_DELETED: Final = ("deleted_at", "is_deleted", "deleted", "deleted_on", "removed_at", "archived_at")
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")
#: What YAML takes for something else than a text.
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class NothingToEmbed(ValueError):
    """A table from which nothing can be proposed; says why."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One table: ``left_out`` are columns that neither become text nor metadata, with the reason.
    ``collection`` None: the id is its name."""

    id: str
    topic: str
    collection: str | None
    embed: tuple[str, ...]
    metadata: tuple[str, ...]
    soft_delete: str | None
    types: Mapping[str, str]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the connector finds the database, without the password."""

    host: str
    port: int
    database: str
    user: str


def propose(
    table: TableFacts,
    prefix: str,
    taken: Sequence[str] = (),
    is_table: Callable[[str], bool] = lambda _name: False,
) -> Proposed:
    """What a vector table of this table could be. ``taken`` are the ids of others. ``is_table``: whether the
    source has a table where a collection of this name would lie, if it lies in the source's database. Raises
    :class:`NothingToEmbed`."""
    called = f"{table.schema}.{table.name}"
    if not table.primary_key:
        raise NothingToEmbed(
            f"{called} has no primary key, so its rows have no identity: "
            f"ALTER TABLE {table.sql} ADD PRIMARY KEY (...)"
        )
    soft_delete = next((name for name in _DELETED if name in table.by_name), None)
    embed = _embedded(table)
    if not embed:
        raise NothingToEmbed(f"{called} has no column of texts that could be embedded")
    others = [column for column in table.columns if column.name not in (*embed, soft_delete)]
    reasons = {column.name: _why_no_metadata(column) for column in others}
    metadata = tuple(name for name, reason in reasons.items() if not reason)
    used = {*embed, *metadata, *table.primary_key, soft_delete}
    id_ = _id_of(table, taken)
    return Proposed(
        id_,
        topic_of(prefix, table),
        _collection_of(id_, is_table),
        embed,
        metadata,
        soft_delete,
        {name: type_ for name, type_ in _declared(table) if name in used},
        {name: reason for name, reason in reasons.items() if reason},
    )


def _embedded(table: TableFacts) -> tuple[str, ...]:
    """What looks like texts, titles first; if nothing does, the column with the longest ones."""
    found = sorted(filter(_is_embedded, table.columns), key=_rank)
    if not found:
        texts = [one for one in table.columns if one.kind == "text" and not _SECRET.search(one.name)]
        found = sorted(texts, key=lambda column: -(column.characters or 0.0))[:1]
    return tuple(column.name for column in found)


def _declared(table: TableFacts) -> Iterator[tuple[str, str]]:
    """Decimals of scale 0 need none: the proposed connector sends their digits, and a declared decimal may
    come as base64, which digits alone can be taken for."""
    for column in table.columns:
        if column.declared and not is_whole(parse_type(column.declared)):
            yield column.name, column.declared


def topic_of(prefix: str, table: TableFacts) -> str:
    """The topic of the table's events, spelt as Debezium spells it."""
    return ".".join(re.sub(r"[^A-Za-z0-9._-]", "_", part) for part in (prefix, table.schema, table.name))


def _is_embedded(column: ColumnFacts) -> bool:
    if column.kind != "text" or _SECRET.search(column.name) or _ADDRESS.search(column.name):
        return False
    if _named(column.name, _TITLES) or _named(column.name, _BODIES):
        return True
    if column.characters is None or column.characters < EMBEDDED_CHARACTERS:
        return False
    return column.distinct is None or column.distinct > _CATEGORIES


def _rank(column: ColumnFacts) -> int:
    """Titles first, else as in the table."""
    return 0 if _named(column.name, _TITLES) else 1


def _named(name: str, words: Sequence[str]) -> bool:
    return name.lower() in words or name.lower().rpartition("_")[2] in words


def _why_no_metadata(column: ColumnFacts) -> str:
    if _SECRET.search(column.name):
        return "may be a secret"
    if column.name in RESERVED_NAMES or column.name.startswith(STAMP_KEY):
        return "its name is reserved"
    if column.kind in ("other", "json"):
        return "not for filters"
    if (column.characters or 0.0) > _METADATA_CHARACTERS:
        return "long texts"
    return ""


def _id_of(table: TableFacts, taken: Sequence[str]) -> str:
    plain = re.sub(r"[^a-z0-9_-]", "_", table.name.lower())[:63]
    if plain not in taken:
        return plain
    return re.sub(r"[^a-z0-9_-]", "_", f"{table.schema}_{table.name}".lower())[:63]


def _collection_of(id_: str, is_table: Callable[[str], bool]) -> str | None:
    if not is_table(id_):
        return None
    names = (f"{id_[:50]}_vectors{number}" for number in ("", *range(2, 1000)))
    return next(name for name in names if not is_table(name))


# --- the files ------------------------------------------------------------------------------------------


def tables_yaml(proposals: Sequence[Proposed]) -> str:
    """The tables file."""
    lines = [
        "# Proposed by `vectide init` from the tables' types and a sample of their rows: read and correct it."
    ]
    for proposed in proposals:
        lines += ["", *_table_lines(proposed)]
    return "\n".join(lines) + "\n"


def _table_lines(proposed: Proposed) -> Iterator[str]:
    yield f"{_scalar(proposed.id)}:"
    yield f"  source: {_scalar(proposed.topic)}"
    if proposed.collection:
        yield f"  collection: {_scalar(proposed.collection)}  # the source has a table {_scalar(proposed.id)}"
    yield "  embed:"
    yield f"    columns: {_list(proposed.embed)}"
    if proposed.metadata:
        yield f"  metadata: {_list(proposed.metadata)}"
    if proposed.soft_delete:
        yield f"  soft_delete: {_scalar(proposed.soft_delete)}"
    if proposed.types:
        yield "  types:  # for JSON without schemas, as the proposed connector sends it"
        yield from (f"    {_scalar(name)}: {_scalar(type_)}" for name, type_ in proposed.types.items())
    if proposed.left_out:
        yield "  # left out:"
        yield from (f"  #   {json.dumps(name)}: {why}" for name, why in proposed.left_out.items())


def types_line(types: Mapping[str, str]) -> str:
    """The types as a line of the tables file."""
    return f"types: {{{', '.join(f'{_scalar(name)}: {_scalar(type_)}' for name, type_ in types.items())}}}"


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, names))}]"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text not in _YAML_WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def connector_json(prefix: str, address: Address, tables: Sequence[TableFacts]) -> str:
    """The Debezium connector, for the REST interface of Kafka Connect."""
    name = re.sub(r"[^a-z0-9_]", "_", prefix.lower())
    config: dict[str, Any] = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": address.host,
        "database.port": str(address.port),
        "database.user": address.user,
        "database.password": "${env:DATABASE_PASSWORD}",
        "database.dbname": address.database,
        "topic.prefix": prefix,
        "table.include.list": ",".join(
            f"{re.escape(table.schema)}\\.{re.escape(table.name)}" for table in tables
        ),
        "plugin.name": "pgoutput",
        "slot.name": f"debezium_{name}"[:63],
        "publication.name": f"dbz_{name}"[:63],
        "publication.autocreate.mode": "filtered",
        "snapshot.mode": "initial",
        "tombstones.on.delete": "true",
        "heartbeat.interval.ms": "10000",
        "decimal.handling.mode": "string",
        # Connect makes the topics, as the brokers' defaults are: many brokers make none by themselves.
        "topic.creation.default.partitions": "-1",
        "topic.creation.default.replication.factor": "-1",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
    }
    return json.dumps({"name": f"{prefix}-source", "config": config}, indent=2, ensure_ascii=False) + "\n"
