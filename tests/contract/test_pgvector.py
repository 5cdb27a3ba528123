"""What is special about PostgreSQL with pgvector: its errors, its tables, what its updates cost."""

from __future__ import annotations

import inspect
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.core.filters import FilterField, FilterType
from vectide.core.model import Row
from vectide.ports import (
    APPLIED,
    SUPERSEDED,
    AdapterError,
    CollectionSpec,
    Deadline,
    Mark,
    Patch,
    Put,
    Remove,
    Scannable,
    Searchable,
    StartupRefused,
)
from vectide.stores.pgvector import PgVectorStore
from vectide.stores.pgvector_errors import failure_of
from vectide.testing.points import mark, patch, put, put_chunk, row, stamp, vector
from vectide.testing.postgres import EmbeddedPostgres

SPEC = CollectionSpec("items", 4, "test/model/4")
In = Callable[[float], Deadline]


@pytest.fixture
def pg(postgres: EmbeddedPostgres, schema: str, deadline: Deadline) -> Iterator[PgVectorStore]:
    with closing(PgVectorStore(postgres.dsn, schema=schema)) as store:
        store.prepare(SPEC, deadline)
        yield store


@pytest.fixture
def sql(postgres: EmbeddedPostgres, schema: str) -> Iterator[psycopg.Connection]:
    """A connection of somebody else, looking at the same schema."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [f"{schema}, public"])
        yield connection


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


def test_it_is_loaded_by_kind(postgres: EmbeddedPostgres) -> None:
    with closing(stores.load("pgvector", dsn=postgres.dsn, schema=None)) as store:
        assert isinstance(store, Searchable)
        assert isinstance(store, Scannable)


# --- errors ---------------------------------------------------------------------------------------------

ERRORS = [
    cls for _, cls in inspect.getmembers(psycopg.errors, inspect.isclass) if issubclass(cls, psycopg.Error)
]


@pytest.mark.parametrize(
    "error", [cls for cls in ERRORS if cls is not psycopg.Error], ids=lambda c: c.__name__
)
def test_every_error_of_psycopg_is_mapped(error: type[psycopg.Error]) -> None:
    assert len(ERRORS) > 250
    assert failure_of(error()).cause != "unmapped"


@pytest.mark.parametrize(
    ("code", "kind", "cause"),
    [
        ("08006", Kind.TRANSIENT, "connection"),
        ("40001", Kind.TRANSIENT, "conflict"),
        ("40P01", Kind.TRANSIENT, "conflict"),
        ("53300", Kind.TRANSIENT, "overloaded"),
        ("53100", Kind.OPERATOR, "disk_full"),
        ("55P03", Kind.TRANSIENT, "lock_timeout"),
        ("57014", Kind.TRANSIENT, "timeout"),
        ("57P01", Kind.TRANSIENT, "shutdown"),
        ("57P03", Kind.TRANSIENT, "shutdown"),
        ("28P01", Kind.OPERATOR, "credentials"),
        ("28000", Kind.OPERATOR, "credentials"),
        ("42501", Kind.OPERATOR, "permission"),
        ("42P01", Kind.OPERATOR, "collection_missing"),
        ("42P05", Kind.OPERATOR, "prepared_statements"),
        ("25006", Kind.OPERATOR, "read_only"),
        ("22003", Kind.REFUSED, "data"),
        ("22P05", Kind.REFUSED, "data"),
        ("23514", Kind.REFUSED, "constraint"),
        ("54000", Kind.REFUSED, "limit"),
        ("XX002", Kind.OPERATOR, "server_error"),
    ],
)
def test_what_the_server_says_decides_what_happens(code: str, kind: Kind, cause: str) -> None:
    seen = failure_of(psycopg.errors.lookup(code)())
    assert (seen.kind, seen.cause) == (kind, cause)
    assert code in seen.detail


def test_a_code_of_the_future_is_waited_for_and_visible() -> None:
    error = psycopg.DatabaseError()
    error.sqlstate = "ZZ999"
    assert failure_of(error) == Failure(Kind.TRANSIENT, "unmapped", "DatabaseError (ZZ999): ")


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(PgVectorStore("postgresql://u:pw@127.0.0.1:1/d")) as store:
        began = time.monotonic()
        seen = failure(lambda: store.prepare(SPEC, deadline_in(20)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")
    assert "127.0.0.1" in seen.detail
    assert "pw" not in seen.detail
    assert time.monotonic() - began < 5


def test_a_wrong_password_is_refused_at_start_and_halts_later(
    postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    """Case 153."""
    wrong = postgres.tcp_dsn.replace(postgres.password, "hunter2")
    with closing(PgVectorStore(wrong, schema=schema)) as store:
        with pytest.raises(StartupRefused, match="password authentication failed") as caught:
            store.prepare(SPEC, deadline)
        assert "hunter2" not in str(caught.value)
        seen = failure(lambda: store.stamps("items", [row(1)], deadline))
        assert (seen.kind, seen.cause) == (Kind.OPERATOR, "credentials")


@pytest.mark.parametrize("change", [("postgres@", "nobody_known@"), ("/postgres?", "/nowhere?")])
def test_an_unknown_user_or_database_is_refused_at_start(
    postgres: EmbeddedPostgres, deadline: Deadline, change: tuple[str, str]
) -> None:
    with closing(PgVectorStore(postgres.dsn.replace(*change))) as store:
        with pytest.raises(StartupRefused, match="does not exist"):
            store.prepare(SPEC, deadline)


def test_a_missing_password_is_refused_at_start(postgres: EmbeddedPostgres, deadline: Deadline) -> None:
    with closing(PgVectorStore(f"host=127.0.0.1 port={postgres.port} user=postgres")) as store:
        with pytest.raises(StartupRefused):
            store.prepare(SPEC, deadline)


@pytest.mark.parametrize("dsn", ["pw=secret", "postgresql//u:secret@h/d", "host=h connect_timeout=secret"])
def test_a_malformed_dsn_is_refused_without_showing_it(dsn: str) -> None:
    with pytest.raises(StartupRefused) as caught:
        PgVectorStore(dsn)
    assert "secret" not in str(caught.value)


def test_waiting_for_a_lock_ends_before_the_deadline(
    pg: PgVectorStore, sql: psycopg.Connection, deadline_in: In
) -> None:
    pg.write("items", [put(row(1), 1)], deadline_in(10))
    with sql.transaction():
        sql.execute("SELECT * FROM items FOR UPDATE")
        began = time.monotonic()
        seen = failure(lambda: pg.write("items", [put(row(1), 2)], deadline_in(0.6)))
        assert time.monotonic() - began < 0.6
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "lock_timeout")
    assert pg.write("items", [put(row(1), 2)], deadline_in(10)) == [APPLIED]


def test_a_slow_statement_is_cancelled_at_the_deadline_and_nothing_is_applied(
    pg: PgVectorStore, sql: psycopg.Connection, deadline_in: In
) -> None:
    sql.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'"
    )
    sql.execute("CREATE TRIGGER slow BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION slow()")
    seen = failure(lambda: pg.write("items", [put(row(1))], deadline_in(0.3)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "timeout")
    sql.execute("DROP TRIGGER slow ON items")
    assert pg.stamps("items", [row(1)], deadline_in(10)) == [None]
    assert pg.write("items", [put(row(1))], deadline_in(10)) == [APPLIED]


def test_a_read_only_server_and_lost_rights_halt(
    pg: PgVectorStore, sql: psycopg.Connection, postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    """Case 149."""
    read_only = f"{postgres.dsn}&options=-c%20default_transaction_read_only%3Don"
    with closing(PgVectorStore(read_only, schema=schema)) as store:
        store.prepare(SPEC, deadline)  # what exists is only looked at
        seen = failure(lambda: store.write("items", [put(row(1))], deadline))
        assert (seen.kind, seen.cause) == (Kind.OPERATOR, "read_only")
    sql.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(f"guest_{schema}")))
    guest = postgres.dsn.replace("postgres@", f"guest_{schema}@")
    with closing(PgVectorStore(guest, schema=schema)) as store:
        with pytest.raises(StartupRefused, match="permission denied"):
            store.prepare(SPEC, deadline)


def test_a_dropped_table_halts_and_is_seen_again_when_it_is_back(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    """Case 147."""
    pg.write("items", [put(row(1))], deadline)
    sql.execute("ALTER TABLE items RENAME TO hidden")
    seen = failure(lambda: pg.write("items", [put(row(2))], deadline))
    assert (seen.kind, seen.cause) == (Kind.OPERATOR, "collection_missing")
    assert failure(lambda: pg.stamps("items", [row(1)], deadline)).cause == "collection_missing"
    sql.execute("ALTER TABLE hidden RENAME TO items")
    assert pg.stamps("items", [row(1)], deadline) == [stamp()]


def test_a_constraint_of_the_user_refuses_the_batch_without_showing_the_row(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    sql.execute("ALTER TABLE items ADD CHECK (text <> 'secret')")
    seen = failure(lambda: pg.write("items", [put(row(1)), put(row(2), text="secret")], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "constraint")
    assert "secret" not in seen.detail
    assert pg.count("items", deadline) == 0


def test_busy_connections_are_waited_for_within_the_deadline(
    postgres: EmbeddedPostgres, schema: str, sql: psycopg.Connection, deadline: Deadline, deadline_in: In
) -> None:
    with closing(PgVectorStore(postgres.dsn, schema=schema, pool_size=1)) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1), 1)], deadline)
        with sql.transaction():
            sql.execute("SELECT * FROM items FOR UPDATE")
            other = threading.Thread(target=lambda: store.write("items", [put(row(1), 2)], deadline))
            other.start()
            while not sql.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                time.sleep(0.005)
            assert failure(lambda: store.stamps("items", [row(1)], deadline_in(0.1))).cause == "pool_busy"
        other.join()
        assert store.stamps("items", [row(1)], deadline) == [stamp(2)]


# --- a server that goes away ----------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may kill."""
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.mark.parametrize("end", [EmbeddedPostgres.kill, EmbeddedPostgres.stop], ids=["killed", "stopped"])
def test_a_restarted_server_is_used_again_with_everything_confirmed(
    own_server: EmbeddedPostgres, deadline: Deadline, end: Callable[[EmbeddedPostgres], None]
) -> None:
    with closing(PgVectorStore(own_server.tcp_dsn)) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1), 7)], deadline)
        end(own_server)
        seen = failure(lambda: store.write("items", [put(row(1), 8)], deadline))
        assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")
        own_server.start()
        assert store.stamps("items", [row(1)], deadline) == [stamp(7)]


def test_a_server_that_falls_silent_does_not_hold_a_call_beyond_its_deadline(
    own_server: EmbeddedPostgres, deadline: Deadline, deadline_in: In
) -> None:
    with closing(PgVectorStore(own_server.tcp_dsn, pool_size=1)) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1), 1)], deadline)
        with psycopg.connect(own_server.dsn) as other:
            [(pid,)] = other.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'vectide'"
            ).fetchall()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            seen = failure(lambda: store.write("items", [put(row(1), 2)], deadline_in(0.2)))
            assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "timeout")
            assert time.monotonic() - began < 3
        finally:
            os.kill(pid, signal.SIGCONT)
        assert store.write("items", [put(row(1), 3)], deadline) == [APPLIED]


# --- collections and tables -----------------------------------------------------------------------------


def test_replicas_that_start_together_agree_on_the_tables(
    postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    failed: list[BaseException] = []

    def start() -> None:
        try:
            with closing(PgVectorStore(postgres.dsn, schema=schema)) as store:
                store.prepare(SPEC, deadline)
                store.prepare(CollectionSpec("more", 4, "s"), deadline)
        except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_name_that_the_server_would_cut_is_refused(pg: PgVectorStore, deadline: Deadline) -> None:
    with pytest.raises(StartupRefused, match="64 bytes"):
        pg.prepare(CollectionSpec("é" * 32, 4, "s"), deadline)
    pg.prepare(CollectionSpec("é" * 31, 4, "s"), deadline)
    with pytest.raises(StartupRefused, match="vectide_collections"):
        pg.prepare(CollectionSpec("vectide_collections", 4, "s"), deadline)


def test_an_unknown_metric_or_index_is_refused_with_the_choices(
    pg: PgVectorStore, postgres: EmbeddedPostgres, deadline: Deadline
) -> None:
    with pytest.raises(StartupRefused, match="cosine, dot, l2"):
        pg.prepare(CollectionSpec("other", 4, "s", "manhattan"), deadline)
    with pytest.raises(StartupRefused, match="hnsw or none"):
        PgVectorStore(postgres.dsn, index="ivfflat")


@pytest.mark.parametrize("bad", ["\ud800", float("nan"), {1, 2}], ids=["surrogate", "nan", "set"])
def test_what_cannot_be_encoded_is_refused_and_the_connection_stays_good(
    pg: PgVectorStore, deadline: Deadline, bad: object
) -> None:
    seen = failure(lambda: pg.write("items", [put(row(1)), put(row(2), metadata={"x": bad})], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "data")
    seen = failure(lambda: pg.search("items", vector(1.0), 1, deadline, {"x": bad}))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "data")
    assert pg.write("items", [put(row(1))], deadline) == [APPLIED]


def test_a_table_of_somebody_else_is_never_taken_over(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    sql.execute("CREATE TABLE products (id int)")
    sql.execute("CREATE VIEW theirs AS SELECT * FROM items")
    with pytest.raises(StartupRefused, match="products"):
        pg.prepare(CollectionSpec("products", 4, "s"), deadline)
    for name in ("products", "theirs"):
        assert failure(lambda name=name: pg.drop(name, deadline)).cause == "not_ours"  # type: ignore[misc]
        assert failure(lambda name=name: pg.swap(name, "items", deadline)).cause == "name_taken"  # type: ignore[misc]
    assert failure(lambda: pg.swap("x" * 64, "items", deadline)).cause == "name"
    assert pg.leads_to("theirs", deadline) is None


def test_what_is_left_of_a_collection_without_its_table_can_be_dropped(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    sql.execute("DROP TABLE items")
    pg.drop("items", deadline)
    pg.prepare(CollectionSpec("items", 8, "another"), deadline)


def test_a_listed_collection_whose_table_is_gone_is_not_made_anew_silently(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    sql.execute("DROP TABLE items")
    with pytest.raises(StartupRefused, match="gone"):
        pg.prepare(SPEC, deadline)


def test_a_model_of_many_dimensions_is_stored_with_half_precision_and_searched(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    pg.prepare(CollectionSpec("large", 3072, "s"), deadline)
    ones = np.full(3072, 0.25, dtype=np.float32)
    pg.write("large", [put(row(1), at=ones), put(row(2), at=-ones)], deadline)
    found = sql.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'large'::regclass AND attname = 'embedding'"
    )
    assert found.fetchall() == [("halfvec(3072)",)]
    assert [hit.row for hit in pg.search("large", ones, 1, deadline, {})] == [row(1)]
    [one, _], _ = pg.scan("large", None, 10, deadline, vectors=True)
    assert one.vector is not None
    assert one.vector.dtype == np.float32
    assert abs(one.vector[0]) == 0.25
    seen = failure(lambda: pg.write("large", [put(row(3), at=ones * np.float32(1e6))], deadline))
    assert seen.kind is Kind.REFUSED


def test_dimensions_that_no_index_can_hold_are_refused(
    pg: PgVectorStore, postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    with pytest.raises(StartupRefused, match=r"4000 .* 5000; .* index none"):
        pg.prepare(CollectionSpec("huge", 5000, "s"), deadline)
    with closing(PgVectorStore(postgres.dsn, schema=schema, index="none")) as exact:
        exact.prepare(CollectionSpec("huge", 5000, "s"), deadline)
        exact.write("huge", [put(row(1), at=vector(1.0, dimensions=5000))], deadline)
        assert exact.count("huge", deadline) == 1
        with pytest.raises(StartupRefused, match="16000"):
            exact.prepare(CollectionSpec("huger", 16001, "s"), deadline)


def test_the_extension_may_live_in_a_schema_of_its_own(
    deadline: Deadline, own_server: EmbeddedPostgres
) -> None:
    with psycopg.connect(own_server.dsn) as connection:
        connection.execute('CREATE SCHEMA "ext ensions"')
        connection.execute('CREATE EXTENSION vector SCHEMA "ext ensions"')
    with closing(PgVectorStore(own_server.dsn, schema="Any.thing")) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1), at=vector(1.0))], deadline)
        assert [hit.row for hit in store.search("items", vector(1.0), 1, deadline, {})] == [row(1)]
        [point], _ = store.scan("items", None, 5, deadline, vectors=True)
        assert point.vector is not None


def test_poolers_without_prepared_statements_are_served(
    postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    with closing(PgVectorStore(postgres.dsn, schema=schema, prepared_statements=False, pool_size=1)) as store:
        store.prepare(SPEC, deadline)
        for turn in range(8):
            store.write("items", [put(row(i), turn) for i in range(3)], deadline)
        with store._connections.lease(deadline) as link:  # noqa: SLF001  (prepared statements are per session)
            assert link.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_the_table_reads_well_in_plain_sql(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    written = put(row(7, "products"), text="blue shoe", metadata={"price": 9.5}, values={"name": "blue shoe"})
    pg.write("items", [written], deadline)
    found = sql.execute(
        "SELECT source_table, row_key::jsonb ->> 'id', chunk, text, metadata ->> 'price',"
        " vector_dims(embedding), kept_columns ->> 'name' FROM items"
    ).fetchall()
    assert found == [("products", "7", 0, "blue shoe", "9.5", 4, "blue shoe")]


def test_a_stamp_of_a_newer_version_halts_instead_of_being_misread(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    pg.write("items", [put(row(1))], deadline)
    sql.execute("UPDATE items SET stamp = jsonb_set(stamp, '{v}', '99')")
    seen = failure(lambda: pg.stamps("items", [row(1)], deadline))
    assert (seen.kind, seen.cause) == (Kind.OPERATOR, "stamp_unreadable")
    assert "99" in seen.detail


# --- cost and search ------------------------------------------------------------------------------------


def test_metadata_patches_stay_heap_only_and_never_touch_the_vector_index(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    assert sql.execute(
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'items' AND indexdef LIKE '%hnsw%'"
        " AND schemaname = current_schema()"
    ).fetchone() == (1,)
    rows = [row(i) for i in range(400)]
    pg.write("items", [put(one, 1, metadata={"n": i}) for i, one in enumerate(rows)], deadline)
    for turn in range(2, 14):
        patches = [patch(one, turn, metadata={"n": turn, "t": "x" * 20}) for one in rows[turn % 8 :: 8]]
        assert set(pg.write("items", patches, deadline)) == {APPLIED}
    pg.close()  # the sessions report their statistics when they end

    def updates() -> tuple[int, int]:
        sql.execute("SELECT pg_stat_clear_snapshot()")
        found = sql.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
            " WHERE relname = 'items' AND schemaname = current_schema()"
        ).fetchone()
        assert found is not None
        return found[0], found[1]

    while updates()[0] < 600:
        time.sleep(0.01)
    total, hot = updates()
    assert total == 600
    assert hot >= 0.95 * total


def test_a_rare_match_is_found_although_the_index_leads_elsewhere(
    pg: PgVectorStore,
    postgres: EmbeddedPostgres,
    schema: str,
    sql: psycopg.Connection,
    deadline: Deadline,
) -> None:
    shuffled = random.Random(7)  # noqa: S311
    writes: list[Put] = [
        put(row(i), at=vector(1.0, shuffled.random(), shuffled.random()), metadata={"c": "common"})
        for i in range(3000)
    ]
    far = [put(row(f"far {i}"), at=vector(-1.0, i / 10), metadata={"c": "rare"}) for i in range(4)]
    for i in range(0, 3000, 500):
        pg.write("items", writes[i : i + 500], deadline)
    pg.write("items", far, deadline)
    sql.execute("ANALYZE items")
    # The planner is made to love the index, and the index to give up early.
    few = f"{postgres.dsn}&options=-c%20hnsw.max_scan_tuples%3D100%20-c%20cpu_tuple_cost%3D1000"
    with closing(PgVectorStore(few, schema=schema)) as store:
        hits = store.search("items", vector(1.0), 4, deadline, {"c": "rare"})
        assert {hit.row for hit in hits} == {one.point.row for one in far}
        assert len(store.search("items", vector(1.0), 100, deadline, {})) == 100


def test_a_search_goes_through_the_vector_index(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    angles = np.linspace(0, 3, 2000)
    writes = [put(row(i), at=vector(float(np.cos(a)), float(np.sin(a)))) for i, a in enumerate(angles)]
    for i in range(0, 2000, 500):
        pg.write("items", writes[i : i + 500], deadline)
    sql.execute("ANALYZE items")
    assert [hit.row for hit in pg.search("items", vector(1.0), 2, deadline, {})] == [row(0), row(1)]
    pg.close()
    used = (
        "SELECT idx_scan FROM pg_stat_user_indexes"
        " WHERE indexrelname ~ 'embedding' AND schemaname = current_schema()"
    )
    while sql.execute(used).fetchone() != (1,):
        time.sleep(0.01)


def test_plain_sql_reads_an_alias_through_the_indexes(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    """That of the vectors, of the ids, of the rows and of names to filter by: a view is only another name."""
    angles = np.linspace(0, 3, 2000)
    pg.prepare(
        CollectionSpec("items", 4, "test/model/4", filters=(FilterField("n", FilterType.TEXT),)), deadline
    )
    for i in range(0, 2000, 500):
        part = angles[i : i + 500]
        pg.write(
            "items",
            [
                put(row(i + at), at=vector(float(np.cos(a)), float(np.sin(a))), metadata={"n": f"{i + at}"})
                for at, a in enumerate(part)
            ],
            deadline,
        )
    sql.execute("ANALYZE items")
    pg.swap("serving", "items", deadline)

    def plan(query: str) -> str:
        return " ".join(line for (line,) in sql.execute(f"EXPLAIN {query}"))

    nearest = "SELECT row_key FROM {} ORDER BY embedding <=> '[1,0,0,0]' LIMIT 5"
    assert "Index Scan using items_embedding_idx on items" in plan(nearest.format("serving"))
    assert plan(nearest.format("serving")) == plan(nearest.format("items"))
    assert "items_pkey" in plan(f"SELECT * FROM serving WHERE id = '{row(1).head_id}'")  # noqa: S608
    assert "items_row_id_idx" in plan(f"SELECT * FROM serving WHERE row_id = '{row(1).head_id}'")  # noqa: S608
    assert "Scan using filter_" in plan("SELECT * FROM serving WHERE metadata -> 'n' = '\"7\"'") or (
        "Scan on filter_" in plan("SELECT * FROM serving WHERE metadata -> 'n' = '\"7\"'")
    )


def test_plain_sql_never_misses_an_alias_while_it_is_swapped(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    """To a collection of other dimensions, prepared statements included."""
    pg.prepare(CollectionSpec("green", 3, "another"), deadline)
    pg.write("items", [put(row(1))], deadline)
    pg.write("green", [put(row(2), at=vector(1.0)[:3])], deadline)
    pg.swap("serving", "items", deadline)
    stop = threading.Event()

    def swaps() -> None:
        while not stop.is_set():
            for collection in ("green", "items"):
                pg.swap("serving", collection, deadline)

    thread = threading.Thread(target=swaps)
    thread.start()
    try:
        seen = set()
        for _ in range(300):
            seen.add(tuple(sql.execute("SELECT row_key FROM serving", prepare=True)))
        while len(seen) < 2:
            seen.add(tuple(sql.execute("SELECT row_key FROM serving", prepare=True)))
    finally:
        stop.set()
        thread.join()
    assert seen == {((row(1).key,),), ((row(2).key,),)}


def test_a_swap_keeps_who_may_read_the_alias(
    pg: PgVectorStore, sql: psycopg.Connection, schema: str, deadline: Deadline
) -> None:
    """Those who are granted the alias need no grant on the collections."""
    role = Identifier(f"Reader of {schema}")
    sql.execute(SQL("CREATE ROLE {}").format(role))
    sql.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), role))
    pg.prepare(CollectionSpec("green", 3, "another"), deadline)
    pg.swap("serving", "items", deadline)
    sql.execute(SQL("GRANT SELECT ON serving TO {} WITH GRANT OPTION").format(role))
    sql.execute("GRANT INSERT ON serving TO PUBLIC")
    pg.swap("serving", "green", deadline)
    pg.swap("serving", "items", deadline)
    granted = "SELECT grantee, privilege_type, is_grantable FROM information_schema.role_table_grants"
    others = (
        f"{granted} WHERE table_schema = current_schema() AND table_name = 'serving' AND grantee <> grantor"
    )
    assert set(sql.execute(others)) == {
        (f"Reader of {schema}", "SELECT", "YES"),
        ("PUBLIC", "INSERT", "NO"),
    }
    sql.execute(SQL("SET ROLE {}").format(role))
    assert sql.execute("SELECT count(*) FROM serving").fetchone() == (0,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql.execute("SELECT count(*) FROM items")
    sql.execute("RESET ROLE")


def test_a_swap_waits_for_a_long_reader_without_holding_up_the_others(
    pg: PgVectorStore, postgres: EmbeddedPostgres, schema: str, sql: psycopg.Connection, deadline_in: In
) -> None:
    """Whoever waits for a table alone has all who come later wait behind it."""
    pg.prepare(CollectionSpec("green", 3, "another"), deadline_in(30))
    pg.write("items", [put(row(1))], deadline_in(30))
    pg.swap("serving", "items", deadline_in(30))
    sql.autocommit = False
    sql.execute("SELECT * FROM serving")
    assert failure(lambda: pg.swap("serving", "green", deadline_in(1))).cause == "lock_timeout"
    with closing(PgVectorStore(postgres.dsn, schema=schema)) as other:
        done = threading.Event()

        def swap() -> None:
            pg.swap("serving", "green", deadline_in(60))
            done.set()

        thread = threading.Thread(target=swap)
        thread.start()
        for _ in range(20):
            assert [hit.row for hit in other.search("serving", vector(1.0), 1, deadline_in(30), {})] == [
                row(1)
            ]
        assert not done.is_set()
        sql.rollback()
        thread.join()
        assert other.leads_to("serving", deadline_in(30)) == "green"
    assert done.is_set()


@pytest.mark.parametrize("make", [put, patch, mark])
def test_a_write_that_waited_for_a_newer_one_sees_it_and_stands_back(
    pg: PgVectorStore,
    sql: psycopg.Connection,
    deadline: Deadline,
    make: Callable[[Row, int], Put | Patch | Mark],
) -> None:
    pg.write("items", [put(row(1), 10)], deadline)
    effects: list[object] = []
    write = make(row(1), 20)
    other = threading.Thread(target=lambda: effects.extend(pg.write("items", [write], deadline)))
    with sql.transaction():
        sql.execute("UPDATE items SET stamp = jsonb_set(stamp, '{position,2}', '30')")
        other.start()
        while not sql.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.005)
    other.join()
    assert effects == [SUPERSEDED]
    assert pg.stamps("items", [row(1)], deadline) == [stamp(30)]


def test_a_removal_that_waited_for_a_writer_takes_the_chunks_that_it_added(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    """Case 74, invariant 8: also those that were not there yet when the removal began."""
    one = row(1)
    pg.write("items", [put(one, 10), put_chunk(one, 1)], deadline)
    gone = Remove(one, (one.head_id,))
    other = threading.Thread(target=lambda: pg.write("items", [gone], deadline))
    with sql.transaction():
        sql.execute("UPDATE items SET stamp = stamp WHERE stamp IS NOT NULL")
        other.start()
        while not sql.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.005)
        sql.execute(
            "INSERT INTO items (id, row_id, source_table, row_key, chunk, text_hash, metadata, embedding)"
            " SELECT gen_random_uuid(), row_id, source_table, row_key, 2, '', '{}', embedding FROM items"
            " WHERE chunk = 1"
        )
    other.join()
    assert pg.count("items", deadline) == 0


def test_the_newest_position_wins_whatever_the_order_of_concurrent_writers(
    pg: PgVectorStore, deadline: Deadline
) -> None:
    rows = [row(i) for i in range(20)]
    offsets = list(range(1, 33))
    random.Random(3).shuffle(offsets)  # noqa: S311
    pg.write("items", [put(one) for one in rows], deadline)
    effects: list[object] = []

    def work(mine: list[int]) -> None:
        for offset in mine:
            order = random.Random(offset).sample(rows, len(rows))  # noqa: S311
            make = patch if offset % 2 else put
            effects.extend(pg.write("items", [make(one, offset) for one in order], deadline))

    threads = [threading.Thread(target=work, args=(offsets[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(effects) == 32 * 20
    assert set(effects) == {APPLIED, SUPERSEDED}
    assert pg.stamps("items", rows, deadline) == [stamp(32)] * 20


# --- indexes of metadata --------------------------------------------------------------------------------

FILTERED = CollectionSpec(
    "items",
    4,
    "test/model/4",
    filters=(FilterField("color", FilterType.TEXT), FilterField("size", FilterType.INTEGER)),
)


def filter_indexes(sql: psycopg.Connection) -> list[str]:
    found = sql.execute(
        "SELECT indexdef, indisvalid FROM pg_indexes JOIN pg_index ON indexrelid = to_regclass(indexname)"
        " WHERE tablename = 'items' AND schemaname = current_schema() AND indexname LIKE 'filter%'"
    ).fetchall()
    assert all(valid for _, valid in found)
    return sorted(definition.partition(" USING ")[2] for definition, _ in found)


BOTH = ["btree (((metadata -> 'size'::text)))", "hash (((metadata -> 'color'::text)))"]


def test_declared_names_have_indexes_that_searches_use(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    many = [put(row(i), metadata={"color": f"c{i}", "size": i}, at=vector(1.0, i / 500)) for i in range(500)]
    pg.write("items", many, deadline)
    for _ in range(2):
        pg.prepare(FILTERED, deadline)
        assert filter_indexes(sql) == BOTH
    sql.execute("ANALYZE items")
    for filters, index in (({"size": 7}, "btree"), ({"color": "c7"}, "hash")):
        [hit] = pg.search("items", vector(1.0), 5, deadline, filters)
        assert hit.row == row(7)
        value = Jsonb(filters)
        [name] = filters
        query = SQL(
            "EXPLAIN SELECT FROM items WHERE metadata @> {value} AND metadata -> {name} = {value} -> {name}"
        )
        plan = sql.execute(query.format(value=value, name=name)).fetchall()
        assert any("Index Scan" in line and "filter_" in line for (line,) in plan), (index, plan)


def test_an_index_is_made_while_others_write(
    pg: PgVectorStore, sql: psycopg.Connection, postgres: EmbeddedPostgres, deadline: Deadline
) -> None:
    """A transaction that is open keeps it waiting, but nobody else."""
    sql.execute("BEGIN")
    sql.execute("LOCK TABLE items IN ROW EXCLUSIVE MODE")  # as a write does
    making = threading.Thread(target=pg.prepare, args=(FILTERED, deadline))
    making.start()
    with psycopg.connect(postgres.dsn, autocommit=True) as watching:
        query = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
        while watching.execute(query).fetchone() == (0,):
            assert making.is_alive()
    for i in range(20):
        assert pg.write("items", [put(row(i), i, metadata={"size": i})], deadline) == [APPLIED]
    assert making.is_alive()
    sql.execute("ROLLBACK")
    making.join()
    assert filter_indexes(sql) == BOTH
    assert [hit.row for hit in pg.search("items", vector(1.0), 5, deadline, {"size": 7})] == [row(7)]


def test_what_is_left_of_an_index_is_made_anew(
    pg: PgVectorStore, sql: psycopg.Connection, deadline: Deadline
) -> None:
    """Its maker was killed on the way."""
    pg.prepare(FILTERED, deadline)
    sql.execute(
        "UPDATE pg_index SET indisvalid = false FROM pg_class c WHERE c.oid = indexrelid"
        " AND c.relname LIKE 'filter%' AND indrelid = 'items'::regclass"
    )
    pg.prepare(FILTERED, deadline)
    assert filter_indexes(sql) == BOTH


def test_who_may_not_make_an_index_is_refused(
    postgres: EmbeddedPostgres, pg: PgVectorStore, sql: psycopg.Connection, schema: str, deadline: Deadline
) -> None:
    role = f"writer_{schema}"
    sql.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
    sql.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), Identifier(role)))
    sql.execute(
        SQL("GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}").format(Identifier(schema), Identifier(role))
    )
    with closing(PgVectorStore(make_conninfo(postgres.dsn, user=role), schema=schema)) as writer:
        writer.prepare(SPEC, deadline)
        with pytest.raises(StartupRefused, match="must be owner of table items"):
            writer.prepare(FILTERED, deadline)
