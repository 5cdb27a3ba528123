"""The part of ``vectide check`` that looks at the source's database: the server, the tables whose rows are
mapped, and whether their types are those that the mapping declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from vectide.app import Dependencies, build_decoder
from vectide.codecs.framing import Frame, framed_parts
from vectide.codecs.json_text import has_schema
from vectide.core.mapping import TableMapping
from vectide.core.model import DecodeError, Record, Upserted
from vectide.core.source_facts import (
    ServerFacts,
    TableFacts,
    compared_types,
    server_findings,
    table_findings,
)
from vectide.jobs.check import CheckFailed, Noted, Result, Verdict, judge, run_check
from vectide.jobs.proposal import types_line
from vectide.ports import AdapterError, Deadline, RowReader
from vectide.settings import Settings
from vectide.sources.tables import PostgresRows
from vectide.sources.tables_catalogue import PostgresCatalogue


class SourceCheck:
    """``whose``: the name of the check, and the tables of this source. ``newest`` are the newest records of
    all topics, as far as there are any: they tell which table their rows are of, whatever the topic is
    called, and whether they carry schemas."""

    def __init__(
        self,
        settings: Settings,
        given: Dependencies,
        reader: RowReader,
        whose: tuple[str, Sequence[str]],
        newest: Sequence[Record],
        deadline: Callable[[], Deadline],
    ) -> None:
        assert isinstance(reader, PostgresRows)
        self._settings = settings
        self._given = given
        self._reader = reader
        self._name, self._tables = whose
        self._catalogue = PostgresCatalogue(reader, settings.source.connector_user)
        self._newest = newest
        self._deadline = deadline
        self._server: ServerFacts | None = None
        self._dsn = settings.name_of(self._tables[0], "source.dsn")
        self._advice = f"check {self._dsn}, the network, and that the server runs"

    def results(self) -> Iterator[Result]:
        """The server, then each table of its own, so that one's faults do not hide another's."""
        yield run_check(self._name, self._ask_server, unreachable=self._advice)
        for mapping in self._settings.mappings:
            if mapping.table in self._tables:
                yield from self._table_results(mapping)

    def _ask_server(self) -> str | Noted:
        self._reader.prepare(self._deadline())
        self._server = self._catalogue.server(self._deadline())
        return judge(server_findings(self._server), f"PostgreSQL, database {self._server.database}")

    def _table_results(self, mapping: TableMapping) -> Iterator[Result]:
        title = f"source of {mapping.table}"
        records = [
            record
            for record in self._newest
            if record.value is not None and self._settings.mapping_of(record.topic) is mapping
        ]
        told = self._told_table(records)
        parts = (told or mapping.source).split(".")
        if self._server is None:
            yield Result(title, Verdict.SKIPPED, "the source does not answer")
            return
        if mapping.source.startswith("^") or len(parts) < (2 if told else 3):
            why = "neither its topic nor its events name one table: prefix.schema.table"
            yield Result(title, Verdict.SKIPPED, why)
            return
        found: list[TableFacts] = []
        ask = partial(self._ask_table, mapping, parts[-2], parts[-1], bool(records) and not told, found)
        yield run_check(title, ask, unreachable=self._advice)
        if found:
            ask = partial(self._ask_types, mapping, found[0], records)
            yield run_check(f"types of {mapping.table}", ask, unreachable=self._advice)

    def _told_table(self, records: Sequence[Record]) -> str | None:
        """``schema.table``, of which the events say that they are."""
        decode = build_decoder(self._settings, self._given.codec, self._given.registry)
        for record in records:
            try:
                change = decode(record)
            except DecodeError:
                continue
            except AdapterError:
                return None  # the registry does not answer, which is told elsewhere
            if isinstance(change, Upserted) and change.table.count(".") == 1:
                return change.table
        return None

    def _ask_table(
        self, mapping: TableMapping, schema: str, name: str, unnamed: bool, found: list[TableFacts]
    ) -> str | Noted:
        table = self._catalogue.table(schema, name, self._deadline())
        if table is None and unnamed:
            return Noted(
                f"the source has no table {schema}.{name}; the events do not say which table they are of",
                "if a transform renames the topics, let the connector tell it: "
                "transforms.unwrap.add.fields=source.schema,source.table",
            )
        if table is None:
            raise CheckFailed(
                f"the source has no table {schema}.{name}",
                f"correct the table's source, or {self._dsn} if that is another database",
            )
        found.append(table)
        assert self._server is not None
        key = ", ".join(table.primary_key)
        return judge(table_findings(table, mapping, self._server), f"{schema}.{name}, key {key}")

    def _ask_types(self, mapping: TableMapping, table: TableFacts, records: Sequence[Record]) -> str | Noted:
        frame = Frame(self._settings.registry.frame)
        if records and all(_tells_types(record, frame) for record in records):
            return "the events tell them"
        compared = compared_types(table, mapping, self._settings.codec.decimals)
        if not compared.remarks:
            return "those of the source are declared"
        detail = "; ".join(["JSON without schemas does not tell them", *compared.remarks])
        advice = types_line(compared.types) if compared.types != dict(mapping.types) else ""
        if compared.fails:
            raise CheckFailed(detail, advice)
        return Noted(detail, advice)


def _tells_types(record: Record, frame: Frame) -> bool:
    """Whether the record carries the schema of its row, or names it."""
    try:
        framed = framed_parts(record, frame)[1] is not None
    except DecodeError:
        return True  # framed in a way that is not configured
    return framed or has_schema(record.value or b"")
