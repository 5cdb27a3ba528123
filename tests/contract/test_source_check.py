"""What `check` finds about a PostgreSQL source, and that the SQL which it prints mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from tests.recorded import table_of

from vectide.core.mapping import TableMapping
from vectide.core.source_facts import (
    Finding,
    TableFacts,
    TypesFound,
    compared_types,
    server_findings,
    table_findings,
)
from vectide.core.template import Template
from vectide.ports import Deadline
from vectide.sources.tables import PostgresRows
from vectide.sources.tables_catalogue import PostgresCatalogue
from vectide.testing.postgres import EmbeddedPostgres

READER, CONNECTOR = "vectide_reader", "debezium"


@pytest.fixture(scope="module")
def source() -> Iterator[EmbeddedPostgres]:
    """A server that logs enough to decode changes."""
    with EmbeddedPostgres(tcp_port=0, wal_level="logical") as server:
        execute(server, f"CREATE ROLE {READER} LOGIN PASSWORD 'p'")
        yield server


@pytest.fixture
def docs(source: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """With a table ``public."Docs"`` and nothing prepared for it."""
    execute(
        source, 'CREATE TABLE "Docs" (id int PRIMARY KEY, title varchar(50), body text, ref int NOT NULL)'
    )
    yield source
    with psycopg.connect(source.dsn, autocommit=True) as link:
        link.execute('DROP TABLE "Docs"')
        link.execute("DROP PUBLICATION IF EXISTS dbz_publication")
        link.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        if link.execute("SELECT FROM pg_roles WHERE rolname = %s", (CONNECTOR,)).rowcount:
            link.execute(f"DROP OWNED BY {CONNECTOR}".encode())
            link.execute(f"DROP ROLE {CONNECTOR}".encode())


def execute(server: EmbeddedPostgres, *statements: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as link:
        for statement in statements:
            link.execute(statement.encode())


def mapping(*key: str, on_incomplete: tuple[str, ...] = ("stored", "reread", "dead-letter")) -> TableMapping:
    template = Template.parse("{title} {body}")
    return TableMapping("docs", "a.public.Docs", "docs", template, key=key, on_incomplete=on_incomplete)


def findings(
    server: EmbeddedPostgres, deadline: Deadline, by: TableMapping | None = None, connector: str = ""
) -> tuple[list[Finding], list[Finding]]:
    """Those of the server and those of the table, as the reader's role sees them."""
    dsn = server.tcp_dsn.replace(f"postgres:{server.password}", f"{READER}:p")
    with closing(PostgresRows(dsn)) as rows:
        catalogue = PostgresCatalogue(rows, connector)
        facts = catalogue.server(deadline)
        table = catalogue.table("public", "Docs", deadline)
    assert table is not None
    return list(server_findings(facts)), list(table_findings(table, by or mapping(), facts))


def failing(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.fails]


def test_what_is_found_is_mended_by_the_sql_that_is_told(docs: EmbeddedPostgres, deadline: Deadline) -> None:
    server, table = findings(docs, deadline, connector=CONNECTOR)
    assert failing(server) == [f"there is no role {CONNECTOR} for the connector"]
    assert failing(table) == [
        "no publication holds the table (the connector makes one only if it may)",
        f"the role {READER} may not read the table",
    ]
    execute(docs, *(finding.sql for finding in [*server, *table] if finding.fails))
    server, table = findings(docs, deadline, connector=CONNECTOR)
    assert failing(server) == []
    assert failing(table) == [f"the role {CONNECTOR} may not read the table"]
    execute(docs, *(finding.sql for finding in table if finding.fails))
    assert failing(findings(docs, deadline, connector=CONNECTOR)[1]) == []


def test_a_connector_that_may_not_replicate_is_told(docs: EmbeddedPostgres, deadline: Deadline) -> None:
    execute(docs, f"CREATE ROLE {CONNECTOR} LOGIN")
    (finding,) = [one for one in findings(docs, deadline, connector=CONNECTOR)[0] if one.fails]
    assert finding == Finding(
        f"the connector's role {CONNECTOR} may not replicate", f'ALTER ROLE "{CONNECTOR}" REPLICATION;'
    )


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (
            "CREATE PUBLICATION dbz_publication FOR TABLE \"Docs\" WITH (publish = 'insert, update')",
            "the publication dbz_publication leaves out delete",
        ),
        (
            'ALTER TABLE "Docs" REPLICA IDENTITY NOTHING',
            "its replica identity is nothing: updates and deletes do not arrive",
        ),
        (
            'CREATE UNIQUE INDEX by_ref ON "Docs" (ref); '
            'ALTER TABLE "Docs" REPLICA IDENTITY USING INDEX by_ref',
            "its replica identity is an index over ref, not the primary key: deletes arrive with the wrong "
            "key, and changes of the primary key leave the old row",
        ),
        (
            'ALTER TABLE "Docs" DROP CONSTRAINT "Docs_pkey"; ALTER TABLE "Docs" REPLICA IDENTITY FULL',
            "the table has no primary key: its events have no key",
        ),
    ],
    ids=["operations", "no identity", "another identity", "no key"],
)
def test_a_table_whose_changes_do_not_arrive_is_told(
    docs: EmbeddedPostgres, deadline: Deadline, prepare: str, told: str
) -> None:
    """And how to mend it."""
    execute(docs, f'GRANT SELECT ON "Docs" TO {READER}')
    before = failing(findings(docs, deadline)[1])
    execute(docs, prepare)
    (finding,) = [one for one in findings(docs, deadline)[1] if one.fails and one.text not in before]
    assert finding.text == told
    if "no key" not in told:
        execute(docs, finding.sql)
        assert told not in failing(findings(docs, deadline)[1])
    else:
        assert finding.sql == 'ALTER TABLE "public"."Docs" ADD PRIMARY KEY (...);'


def test_an_index_over_the_primary_key_is_as_good_as_the_key(
    docs: EmbeddedPostgres, deadline: Deadline
) -> None:
    before = failing(findings(docs, deadline)[1])
    execute(docs, 'ALTER TABLE "Docs" REPLICA IDENTITY USING INDEX "Docs_pkey"')
    assert failing(findings(docs, deadline)[1]) == before


def test_big_texts_that_events_leave_out_are_only_noted(docs: EmbeddedPostgres, deadline: Deadline) -> None:
    noted = [finding for finding in findings(docs, deadline)[1] if not finding.fails]
    assert [finding.text for finding in noted] == [
        "events leave out big values of title, body that did not change; they then come from the store, "
        "or are read again"
    ]
    execute(docs, *(finding.sql for finding in noted))
    assert [finding for finding in findings(docs, deadline)[1] if not finding.fails] == []


def test_slots_are_told_and_those_of_others_are_not(docs: EmbeddedPostgres, deadline: Deadline) -> None:
    (none_yet,) = findings(docs, deadline)[0]
    assert (none_yet.fails, "has no logical slot" in none_yet.text) == (False, True)
    execute(docs, none_yet.sql)
    (unread,) = findings(docs, deadline)[0]
    assert (unread.fails, unread.text) == (
        False,
        "no connector reads the slot debezium: the server keeps its log until one does",
    )
    execute(docs, unread.sql, "SELECT pg_create_physical_replication_slot('standby')")
    assert findings(docs, deadline)[0] == [none_yet]


def test_a_server_that_does_not_log_enough_is_told(postgres: EmbeddedPostgres, deadline: Deadline) -> None:
    with closing(PostgresRows(postgres.dsn)) as rows:
        first, *_ = server_findings(PostgresCatalogue(rows).server(deadline))
    assert first.text == "wal_level is replica: no change can be decoded"
    assert first.sql.startswith("ALTER SYSTEM SET wal_level = 'logical';")


KEPT = "id numeric(20,0) PRIMARY KEY, title text, price numeric(10,2), at timestamp(3), data json, gone date"
COLUMNS = ("price", "at", "data")


@pytest.fixture
def kept(source: EmbeddedPostgres, deadline: Deadline) -> TableFacts:
    """A table of columns whose types JSON without schemas does not tell."""
    execute(source, f"CREATE TABLE kept ({KEPT})")
    with closing(PostgresRows(source.dsn)) as rows:
        table = PostgresCatalogue(rows).table("public", "kept", deadline)
    execute(source, "DROP TABLE kept")
    assert table is not None
    return table


def declaring(**types: str) -> TableMapping:
    return table_of("{title}", *COLUMNS, types=types)


def test_types_that_events_do_not_tell_are_found_in_the_catalogue(kept: TableFacts) -> None:
    """Of the key and of mapped columns, no others; the lines are all that a table should declare."""
    assert compared_types(kept, declaring(), "precise") == TypesFound(
        ("no type is declared for id, price, at, data",),
        {
            "id": "numeric(20,0)",
            "price": "numeric(10,2)",
            "at": "timestamp(3) without time zone",
            "data": "json",
        },
    )
    some = declaring(at="timestamp(3)", price="decimal(10,2)")
    found = compared_types(kept, some, "string")
    assert (found.remarks, found.fails) == (("no type is declared for data",), False)
    assert found.types == {"at": "timestamp(3)", "price": "decimal(10,2)", "data": "json"}
    everything = declaring(at="timestamp(3)", price="text", data="jsonb", id="numeric(20,0)")
    assert compared_types(kept, everything, "precise").remarks == ()


def test_a_type_that_is_declared_otherwise_is_told_and_another_scale_fails(kept: TableFacts) -> None:
    connect_mode = declaring(at="timestamp(6)", price="decimal(10,2)", data="json")
    found = compared_types(kept, connect_mode, "string")
    assert found.remarks == ("at is declared timestamp(6) and is timestamp(3) without time zone",)
    assert not found.fails
    found = compared_types(kept, declaring(at="timestamp(3)", price="money(4)", data="json"), "auto")
    assert found.fails
    assert found.remarks[1:] == ("price is declared money(4) and is numeric(10,2)",)
    assert found.remarks[0].startswith("id: whole decimals are kept as they come")


def test_a_table_that_is_not_there_is_none(source: EmbeddedPostgres, deadline: Deadline) -> None:
    with closing(PostgresRows(source.dsn)) as rows:
        assert PostgresCatalogue(rows).table("public", "nothing", deadline) is None
