"""The composition root of ``vectide init``: tables of a source in, a tables file and a connector out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vectide.core.source_facts import TableFacts
from vectide.jobs.executor import SystemClock
from vectide.jobs.proposal import Address, NothingToEmbed, Proposed, connector_json, propose, tables_yaml
from vectide.ports import Deadline, MissingExtra
from vectide.settings import SettingsError

TABLES_FILE = "tables.yaml"
CONNECTOR_FILE = "connector.json"
#: PostgreSQL's own default, for the source's tables and for the collections of pgvector: perhaps they lie
#: beside each other.
_PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class InitRequest:
    """``tables`` are ``schema.table`` or a table of the schema ``public``. ``prefix``: the connector's
    ``topic.prefix``, by default the database's name. ``force``: files that are there are overwritten."""

    dsn: str
    tables: Sequence[str]
    directory: Path
    prefix: str | None = None
    force: bool = False
    timeout_s: float = 30.0


def init(request: InitRequest) -> list[Path]:
    """Write both files; returns their paths. Raises SettingsError, and has then written nothing."""
    paths = [request.directory / name for name in (TABLES_FILE, CONNECTOR_FILE)]
    there = [str(path) for path in paths if path.exists()]
    if there and not request.force:
        raise SettingsError([f"{path} is there already: --force overwrites it" for path in there])
    contents = proposed_files(request)
    request.directory.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        _write(path, content)
    return paths


def proposed_files(request: InitRequest) -> tuple[str, str]:
    """The contents of the tables file and the connector's. Raises as :func:`init`."""
    try:
        from vectide.sources.tables import PostgresRows
        from vectide.sources.tables_catalogue import PostgresCatalogue
    except ImportError as error:  # also what psycopg raises when its C library is missing
        raise MissingExtra(f'`init` needs a package: pip install "vectide[postgres]" ({error})') from error
    rows = PostgresRows(request.dsn)
    deadline = Deadline.after(SystemClock(), request.timeout_s)
    try:
        rows.prepare(deadline)
        catalogue = PostgresCatalogue(rows)
        address = Address(*rows.address(deadline))
        names = dict.fromkeys(request.tables)
        tables = [_facts(catalogue.table(*_named(name), deadline), name) for name in names]
        tables = [_sampled(table, catalogue.sample(table, deadline)) for table in tables]
        prefix = request.prefix or address.database
        proposals: list[Proposed] = []
        problems: list[str] = []
        for table in tables:
            try:
                proposals.append(
                    propose(
                        table,
                        prefix,
                        [known.id for known in proposals],
                        lambda name: catalogue.has_relation(_PUBLIC, name, deadline),
                    )
                )
            except NothingToEmbed as error:
                problems.append(str(error))
    finally:
        rows.close()
    if problems:
        raise SettingsError(problems)
    return tables_yaml(proposals), connector_json(prefix, address, tables)


def _named(name: str) -> tuple[str, str]:
    schema, _, table = name.rpartition(".")
    return schema or _PUBLIC, table


def _facts(found: TableFacts | None, name: str) -> TableFacts:
    if found is None:
        raise SettingsError([f"the source has no table {'.'.join(_named(name))}"])
    if not found.may_select:
        raise SettingsError([f"the role of the DSN may not read {name}: GRANT SELECT ON {found.sql} TO ..."])
    return found


def _sampled(table: TableFacts, numbers: dict[str, tuple[float | None, float | None]]) -> TableFacts:
    columns = tuple(
        replace(column, characters=numbers[column.name][0], distinct=numbers[column.name][1])
        if column.name in numbers
        else column
        for column in table.columns
    )
    return replace(table, columns=columns)


def _write(path: Path, content: str) -> None:
    """The whole file or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
