"""What every reader of the source's tables must keep, and that PostgreSQL's says what events say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.converters import learned_codec, recorded_avro
from tests.recorded import read as recording
from tests.recorded import table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.registry import RegistryCodec
from vectide.core.failures import Failure, Kind
from vectide.core.mapping import TableMapping
from vectide.core.model import Columns, Row, Upserted, Value
from vectide.ports import AdapterError, Deadline, RowReader, StartupRefused
from vectide.sources.tables import PostgresRows
from vectide.sources.tables_errors import failure_of
from vectide.sources.tables_types import ColumnType, Unmatched
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.rows import MemoryRows

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
DEFINITION = (RECORDINGS / "types_default.sql").read_text(encoding="utf-8")


def execute(postgres: EmbeddedPostgres, *statements: str) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as link:
        for statement in statements:
            link.execute(statement.encode())


@pytest.fixture
def reader(postgres: EmbeddedPostgres) -> Iterator[PostgresRows]:
    with closing(PostgresRows(postgres.dsn)) as made:
        yield made


@pytest.fixture(params=["memory", "postgres"])
def readers(request: pytest.FixtureRequest, postgres: EmbeddedPostgres, schema: str) -> Iterator[RowReader]:
    """Each reader in turn, with a table ``SCHEMA.docs`` of two rows."""
    if request.param == "memory":
        rows: dict[str, Columns] = {'{"id":1}': {"id": 1, "body": "one"}, '{"id":2}': {"id": 2, "body": None}}
        yield MemoryRows({f"{schema}.docs": rows})
        return
    execute(
        postgres,
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.docs (id int PRIMARY KEY, body text)",
        f"INSERT INTO {schema}.docs VALUES (1, 'one'), (2, NULL)",  # noqa: S608
    )
    with closing(PostgresRows(postgres.dsn)) as made:
        yield made


def test_rows_come_in_the_order_of_the_keys_and_none_for_those_that_are_gone(
    readers: RowReader, schema: str, deadline: Deadline
) -> None:
    keys = [{"id": 2}, {"id": 9}, {"id": 1}, {"id": 2}]
    read = readers.read(f"{schema}.docs", keys, ["body"], deadline)
    assert list(read.rows) == [{"body": None}, None, {"body": "one"}, {"body": None}]
    assert read.refused == {}


def test_a_table_that_does_not_exist_is_told_by_name(
    readers: RowReader, schema: str, deadline: Deadline
) -> None:
    read = readers.read(f"{schema}.nothing", [{"id": 1}], ["body"], deadline)
    assert read.refused == {"body": f"the source has no table {schema}.nothing"}
    assert list(read.rows) == [{}]


# --- PostgreSQL -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typed(postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The table of the recordings with every type, and a role whose settings must make no difference."""
    execute(postgres, *(statement for statement in DEFINITION.split(";\n") if statement.strip()))
    role = "ALTER ROLE postgres"
    execute(postgres, f"{role} SET DateStyle = 'SQL, DMY'", f"{role} SET TimeZone = 'Asia/Tokyo'")
    yield postgres
    execute(postgres, f"{role} RESET DateStyle", f"{role} RESET TimeZone")


def recorded(name: str, mapping: TableMapping) -> dict[int, Upserted]:
    """The first event of every row of a recording."""
    found = dict[int, Upserted]()
    codec: DebeziumJson | RegistryCodec = DebeziumJson(mapping_of=lambda _: mapping)
    if name.endswith("avro"):
        codec = learned_codec(name, lambda _: mapping)
    for record in recorded_avro(name) if name.endswith("avro") else recording(name):
        change = codec.decode(record)
        if isinstance(change, Upserted):
            assert change.key is not None
            found.setdefault(change.key["id"], change)
    return found


#: Types of extensions that are not there (a plain text stands in), and a column that PostgreSQL does not log.
NOT_HERE = {"c_hstore", "c_gen"}
#: By the last digit of the row: the scale of a zero, what is not a number, and years before 1 are lost.
LOST = {2: {"c_num"}, 4: {"c_num", "c_tstz"}}
#: Beyond what fits in 64 bits its numbers are wrong.
WRONG = {4: {"c_ts"}}


@pytest.mark.parametrize("name", ["types_default_schemas_on", "types_default_schemas_off", "types_avro"])
def test_a_row_read_by_sql_is_the_row_of_its_event(
    typed: EmbeddedPostgres, reader: PostgresRows, deadline: Deadline, name: str
) -> None:
    """Cases 46 and 48: the same text, metadata and id, whatever brought the row: JSON with schemas, without
    (the types then are those of the source's catalogue), Avro, or SQL."""
    known = reader.column_types("public.types", deadline)
    types = {column: type_.declared_name for column, type_ in known.items() if type_.declared_name}
    columns = sorted(known.keys() - NOT_HERE - {"id"})
    mapping = table_of("".join(f"{{{column}}}\n" for column in columns), *columns, types=types, source="^.*")
    events = recorded(name, mapping)
    read = reader.read("public.types", [{"id": id_} for id_ in events], ["id", *columns], deadline)
    assert read.refused == {}
    for id_, row, event in zip(events, read.rows, events.values(), strict=True):
        assert isinstance(row, dict)
        said = {column: event.columns[column] for column in columns}
        assert said.keys() - row.keys() == LOST.get(id_ % 10, set())
        told = Upserted({"id": row.pop("id")}, {**said, **row})
        for name in WRONG.get(id_ % 10, ()):
            told.columns[name] = said[name]  # type: ignore[index]
        assert {name for name in columns if plain(told.columns[name]) != plain(said[name])} == set()
        assert plain(mapping.metadata_of(told)[0]) == plain(mapping.metadata_of(event)[0])
        assert text_of(mapping, told) == text_of(mapping, event)
        assert mapping.row_of(told) == mapping.row_of(event)


def plain(value: Value) -> str:
    """As JSON: not-a-number is not equal to itself."""
    return json.dumps(value, sort_keys=True)


def text_of(mapping: TableMapping, change: Upserted) -> str:
    return mapping.render(mapping.rendered(change), change)


KEYS = {
    "bigint": (10_000_000_000, 10_000_000_001),
    "text": ("a'b\\", "ü"),
    "varchar(3)": ("abc", "ab"),
    "char(5)": ("ab   ", "c    "),
    "uuid": ("0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a11", "0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a12"),
    "numeric(6,2)": ("12.50", "0.10"),
    "boolean": (True, False),
    "timestamptz": ("2026-02-28T21:59:59.123456Z", "1970-01-01T00:00:00.000000Z"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_row_is_found_by_its_key_as_events_hold_it_and_has_the_same_id(
    postgres: EmbeddedPostgres, reader: PostgresRows, schema: str, deadline: Deadline, kind: str
) -> None:
    """Case 46: the id made of the key's columns in the table."""
    there, gone = KEYS[kind]
    execute(
        postgres,
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.t (k {kind}, n int, v text, PRIMARY KEY (k, n))",
    )
    with psycopg.connect(postgres.dsn) as link:
        link.execute(f"INSERT INTO {schema}.t VALUES (%s, 1, 'v')".encode(), (there,))  # noqa: S608
    keys = [{"n": 1, "k": gone}, {"n": 1, "k": there}, {"n": 2, "k": there}]
    before, found, after = reader.read(f"{schema}.t", keys, ["v", "n", "k"], deadline).rows
    assert (before, found, after) == (None, {"v": "v", **keys[1]}, None)
    assert found is not None
    assert Row.of("t", {name: found[name] for name in ("k", "n")}).head_id == Row.of("t", keys[1]).head_id


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ('"k"=>"v", "n"=>NULL', {"k": "v", "n": None}),
        ('"n"=>"NULL", ""=>""', {"n": "NULL", "": ""}),
        (r'"a\"b"=>"c\\d", "=>"=>", "', {'a"b': "c\\d", "=>": ", "}),
        ('"line\nbreak"=>"ü"', {"line\nbreak": "ü"}),
    ],
)
def test_an_hstore_is_read_as_the_server_writes_it(text: str, value: Value) -> None:
    convert = ColumnType("hstore", None, False, -1, "hstore", "hstore", 0).convert
    assert convert is not None
    assert convert(text) == value


@pytest.mark.parametrize("text", ["k=>v", '"k"=>v', '"k"', '"k"=>"v",', '"k"=>"v" "n"=>NULL', '"k"=>"v'])
def test_what_is_no_hstore_is_not_told(text: str) -> None:
    convert = ColumnType("hstore", None, False, -1, "hstore", "hstore", 0).convert
    assert convert is not None
    with pytest.raises(Unmatched):
        convert(text)


def test_names_are_only_names_and_arrays_keep_their_elements(
    postgres: EmbeddedPostgres, reader: PostgresRows, schema: str, deadline: Deadline
) -> None:
    """Case 53."""
    execute(
        postgres,
        f"CREATE SCHEMA {schema}",
        f"CREATE TYPE {schema}.mood AS ENUM ('sad', 'NULL')",
        f"CREATE DOMAIN {schema}.label AS varchar(20)",
        f'CREATE TABLE {schema}."Odd ""t" ("I d" int PRIMARY KEY, "%s" text[], m {schema}.mood[], b bool[],'
        f" u uuid[], d {schema}.label)",
    )
    texts = ["a,b", "{", '"', "NULL", None, "", "\\x"]
    with psycopg.connect(postgres.dsn) as link:
        insert = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s)").format(
            sql.Identifier(schema, 'Odd "t')
        )
        link.execute(insert, (1, texts, '{NULL,"NULL",sad}', "{t,f}", "{}", "l"))
        link.execute(insert, (2, [["a"], ["b"]], None, "[0:1]={t,f}", None, None))
    columns = ["%s", "m", "b", "u", "d"]
    one, two = reader.read(f'{schema}.Odd "t', [{"I d": 1}, {"I d": 2}], columns, deadline).rows
    assert one == {"%s": texts, "m": [None, "NULL", "sad"], "b": [True, False], "u": [], "d": "l"}
    assert two == {"m": None, "u": None, "d": None}


def test_a_key_that_events_hold_in_a_way_of_their_own_is_refused(
    postgres: EmbeddedPostgres, reader: PostgresRows, schema: str, deadline: Deadline
) -> None:
    execute(postgres, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.t (d date PRIMARY KEY, v text)")
    read = reader.read(f"{schema}.t", [{"d": 20512}], ["v"], deadline)
    assert read.refused == {"v": "its rows cannot be found by the key column d of type date"}
    read = reader.read(f"{schema}.t", [{"other": 1}], ["v"], deadline)
    assert read.refused == {"v": "the source has no key column other"}


def test_a_key_of_another_type_is_refused_and_the_connection_is_well(
    readers: RowReader, postgres: EmbeddedPostgres, reader: PostgresRows, schema: str, deadline: Deadline
) -> None:
    execute(postgres, f"CREATE TABLE IF NOT EXISTS public.t_{schema} (id int PRIMARY KEY, v text)")
    with pytest.raises(AdapterError) as refused:
        reader.read(f"public.t_{schema}", [{"id": "secret"}], ["v"], deadline)
    assert refused.value.failure.kind is Kind.REFUSED
    assert "secret" not in str(refused.value)
    assert list(reader.read(f"public.t_{schema}", [{"id": 1}], ["v"], deadline).rows) == [None]


def test_a_read_ends_at_its_deadline(
    postgres: EmbeddedPostgres, reader: PostgresRows, schema: str, deadline_in: Callable[[float], Deadline]
) -> None:
    execute(postgres, f"CREATE TABLE public.t_{schema} (id int PRIMARY KEY, v text)")
    reader.prepare(deadline_in(60))
    with psycopg.connect(postgres.dsn) as link:
        link.execute(f"LOCK TABLE public.t_{schema}".encode())
        with pytest.raises(AdapterError) as late:
            reader.read(f"public.t_{schema}", [{"id": 1}], ["v"], deadline_in(0.2))
    assert late.value.failure == Failure(Kind.TRANSIENT, "timeout", "QueryCanceled (57014)")


def test_a_server_that_is_gone_is_waited_for_and_one_that_is_back_is_read(deadline: Deadline) -> None:
    with EmbeddedPostgres(tcp_port=0) as server, closing(PostgresRows(server.tcp_dsn)) as reader:
        execute(server, "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'v')")
        reader.prepare(deadline)
        server.stop()
        with pytest.raises(AdapterError) as out:
            reader.read("public.t", [{"id": 1}], ["v"], deadline)
        assert out.value.failure.kind is Kind.TRANSIENT
        with pytest.raises(AdapterError):
            reader.prepare(deadline)
        server.start()
        assert list(reader.read("public.t", [{"id": 1}], ["v"], deadline).rows) == [{"v": "v"}]


def test_what_an_operator_must_mend_is_refused_at_start(
    postgres: EmbeddedPostgres, deadline: Deadline
) -> None:
    wrong = postgres.tcp_dsn.replace(postgres.password, "wrong")
    with closing(PostgresRows(wrong)) as reader, pytest.raises(StartupRefused) as refused:
        reader.prepare(deadline)
    assert str(refused.value).startswith("the source refuses: ")
    assert "wrong" not in str(refused.value)
    with pytest.raises(StartupRefused) as unreadable:
        PostgresRows("postgresql://user:secret@[")
    assert "secret" not in str(unreadable.value)


def test_rights_that_lack_are_an_operators_matter(
    postgres: EmbeddedPostgres, schema: str, deadline: Deadline
) -> None:
    role = f"reader_{schema}"
    execute(
        postgres,
        f"CREATE TABLE public.t_{schema} (id int PRIMARY KEY, v text)",
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'",
    )
    dsn = postgres.tcp_dsn.replace(f"postgres:{postgres.password}", f"{role}:p")
    with closing(PostgresRows(dsn)) as reader:
        with pytest.raises(AdapterError) as refused:
            reader.read(f"public.t_{schema}", [{"id": 1}], ["v"], deadline)
        assert (refused.value.failure.kind, refused.value.failure.cause) == (Kind.OPERATOR, "permission")
        execute(postgres, f"GRANT SELECT ON public.t_{schema} TO {role}")
        assert list(reader.read(f"public.t_{schema}", [{"id": 1}], ["v"], deadline).rows) == [None]


def _all_errors() -> Iterator[type[psycopg.Error]]:
    waiting: list[type[psycopg.Error]] = [psycopg.Error]
    while waiting:
        error = waiting.pop()
        yield error
        waiting += error.__subclasses__()


def test_every_error_of_the_client_means_one_failure() -> None:
    kinds: dict[str, Kind] = {}
    for error in _all_errors():
        failure = failure_of(error("row content"))
        assert "row content" not in failure.detail or failure.cause == "connection"
        kinds[error.__name__] = failure.kind
    assert kinds["QueryCanceled"] is Kind.TRANSIENT
    assert kinds["InsufficientPrivilege"] is Kind.OPERATOR
    assert kinds["InvalidPassword"] is Kind.OPERATOR
    assert kinds["InvalidTextRepresentation"] is Kind.REFUSED
    assert kinds["UndefinedTable"] is Kind.TRANSIENT
    assert kinds["AdminShutdown"] is Kind.TRANSIENT
