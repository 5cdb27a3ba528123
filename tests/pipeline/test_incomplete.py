"""Rows whose events leave out a big value that did not change, through the whole service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.pipeline.shop import SOURCE, Shop, running, until

from vectide.core.model import Record
from vectide.testing.broker import BrokerProcess
from vectide.testing.embedding_server import EmbeddingServer
from vectide.testing.postgres import EmbeddedPostgres

BODY = "a long story " * 300
UNAVAILABLE = "__debezium_unavailable_value"


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as process:
        yield process


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture
def provider() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(record_texts=True) as server:
        yield server


class Wiki(Shop):
    """Documents with a title and a big body, both embedded, and a flag beside them.

    The source's table, which the service may ask, lies in the database of the store.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.docs = f"docs{self.number}"
        with psycopg.connect(self.postgres.dsn) as link:
            columns = "id int PRIMARY KEY, title text, body text, flag int, raw polygon"
            link.execute(f"CREATE TABLE {self.docs} ({columns})".encode())

    def wiki(self, provider: EmbeddingServer, **changes: Any) -> dict[str, str]:
        tables = self.tables(
            **{
                "embed": {"template": "{title}\n\n{body}"},
                "metadata": ["flag"],
                "soft_delete": "gone",
                **changes,
            }
        )
        return self.environment(
            VECTIDE_EMBEDDER__KIND="openai",
            VECTIDE_EMBEDDER__MODEL="stub",
            VECTIDE_EMBEDDER__BASE_URL=provider.url,
            VECTIDE_EMBEDDER__API_KEY="unused",
            VECTIDE_TABLES=tables,
        )

    def with_source(self, provider: EmbeddingServer, **changes: Any) -> dict[str, str]:
        return {**self.wiki(provider, **changes), "VECTIDE_SOURCE__DSN": self.postgres.tcp_dsn}

    def in_source(self, id_: int, body: str) -> None:
        with psycopg.connect(self.postgres.dsn) as link:
            insert = sql.SQL("INSERT INTO {} (id, title, body, raw) VALUES (%s, 'whatever', %s, '((0,0))')")
            link.execute(insert.format(sql.Identifier(self.docs)), (id_, body))

    def put(
        self, id_: int, title: str, body: str = UNAVAILABLE, *, was: int | None = None, **more: Any
    ) -> None:
        row = {"id": id_, "title": title, "body": body, "flag": 0, "gone": False, **more}
        headers = () if was is None else (("__debezium.oldkey", b'{"id":%d}' % was),)
        self._send(id_, {"before": None, "after": row, "op": "u" if was is None else "c"}, headers)

    def delete_row(self, id_: int) -> None:
        self._send(id_, {"before": {"id": id_}, "after": None, "op": "d"}, ())

    def move(self, old: int, new: int, title: str, **more: Any) -> None:
        """A primary key changes, as PostgreSQL's default replica identity tells it."""
        headers = (("__debezium.newkey", b'{"id":%d}' % new),)
        self._send(old, {"before": {"id": old}, "after": None, "op": "d"}, headers)
        self._send(old, None, headers)
        self.put(new, title, was=old, **more)

    def _send(
        self, id_: int, envelope: dict[str, Any] | None, headers: tuple[tuple[str, bytes | None], ...]
    ) -> None:
        source = {**SOURCE, "table": self.docs}
        value = None if envelope is None else json.dumps({"source": source, **envelope}).encode()
        self.produce(Record(self.topic, 0, -1, b'{"id":%d}' % id_, value, headers))

    def letter_details(self) -> list[tuple[str, str]]:
        """Cause and detail of each dead letter."""
        headers = [dict(letter.headers) for letter in self.letters()]
        named = ("vectide.dlq.cause", "vectide.dlq.detail")
        return [tuple((given[name] or b"").decode() for name in named) for given in headers]  # type: ignore[misc]


@pytest.fixture
def wiki(broker: BrokerProcess, postgres: EmbeddedPostgres) -> Wiki:
    return Wiki(broker, postgres)


def test_metadata_of_a_row_with_an_unavailable_body_costs_nothing_and_a_title_embeds_the_whole_text(
    wiki: Wiki, provider: EmbeddingServer
) -> None:
    """Cases 21 and 22, invariants 5 and 7."""
    with running(wiki.wiki(provider)):
        wiki.put(1, "first", BODY)
        until(lambda: wiki.committed() == 1, "the row to be stored")
        provider.forget()
        wiki.put(1, "first", flag=7)
        until(lambda: wiki.committed() == 2, "the flag to be stored")
        assert wiki.metadata()[1] == {"flag": 7}
        assert provider.texts() == []
        wiki.put(1, "second", flag=7)
        until(lambda: wiki.committed() == 3, "the title to be stored")
    assert provider.texts() == [f"second\n\n{BODY}".strip()]
    assert wiki.stored() == {1: f"second\n\n{BODY}".strip()}


def test_a_changed_primary_key_carries_the_text_over_without_asking_the_source(
    wiki: Wiki, provider: EmbeddingServer
) -> None:
    """Case 26: also right behind another change of the row, and twice in a row."""
    with running(wiki.wiki(provider)):
        wiki.put(1, "first", BODY)
        until(lambda: wiki.committed() == 1, "the row to be stored")
        wiki.put(1, "second")
        wiki.move(1, 2, "second")
        wiki.move(2, 3, "third")
        until(lambda: wiki.committed() == 8, "everything to be committed")
    assert wiki.stored() == {3: f"third\n\n{BODY}".strip()}
    assert wiki.letters() == []
    assert all(BODY.strip() in text for text in provider.texts() if len(text) > 100)


@pytest.mark.parametrize("template", ["{body}", "The story: {body}"])
def test_a_text_of_a_single_column_is_carried_over_too(
    wiki: Wiki, provider: EmbeddingServer, template: str
) -> None:
    """Case 26: nothing of it is kept but the text itself."""
    with running(wiki.wiki(provider, embed={"template": template})):
        wiki.put(1, "first", BODY)
        until(lambda: wiki.committed() == 1, "the row to be stored")
        wiki.move(1, 2, "first")
        until(lambda: wiki.committed() == 4, "everything to be committed")
    assert wiki.stored() == {2: template.format(body=BODY).strip()}
    assert wiki.letters() == []


def test_big_metadata_is_carried_over_too(wiki: Wiki, provider: EmbeddingServer) -> None:
    """Case 26."""
    more: dict[str, Any] = {"tags": ["a", "b"], "notes": BODY}
    left_out: dict[str, Any] = {"tags": [UNAVAILABLE], "notes": UNAVAILABLE}
    with running(wiki.wiki(provider, embed={"template": "{title}"}, metadata=["tags", {"notes": "n"}])):
        wiki.put(1, "first", BODY, **more)
        until(lambda: wiki.committed() == 1, "the row to be stored")
        wiki.move(1, 2, "first", **left_out)
        until(lambda: wiki.committed() == 4, "everything to be committed")
    assert wiki.stored() == {2: "first"}
    assert wiki.metadata() == {2: {"tags": ["a", "b"], "n": BODY}}
    assert wiki.letters() == []


def test_a_text_that_is_not_kept_cannot_be_carried_over(wiki: Wiki, provider: EmbeddingServer) -> None:
    """Dead-lettered by name, and the delete is applied."""
    with running(wiki.wiki(provider, embed={"template": "{body}"}, store_text=False)):
        wiki.put(1, "first", BODY)
        until(lambda: wiki.committed() == 1, "the row to be stored")
        wiki.move(1, 2, "first")
        until(lambda: wiki.committed() == 4, "everything to be committed", timeout_s=20)
    assert wiki.letter_details() == [("incomplete_row", "unavailable columns: body")]


def test_a_key_that_changes_back_and_forth_keeps_the_text(wiki: Wiki, provider: EmbeddingServer) -> None:
    """Case 26: the old key's row is born again behind the delete that waits."""
    wiki.put(1, "first", BODY)
    wiki.move(1, 2, "first")
    wiki.move(2, 1, "first")
    with running(wiki.wiki(provider)):
        until(lambda: wiki.committed() == 7, "everything to be committed")
    assert wiki.stored() == {1: f"first\n\n{BODY}".strip()}
    assert wiki.letters() == []


def test_the_delete_of_a_changed_key_does_not_wait_for_ever(wiki: Wiki, provider: EmbeddingServer) -> None:
    """The create may lie in another partition, or have been left out."""
    wiki.put(1, "first", BODY)
    with running(wiki.wiki(provider)):
        until(lambda: wiki.committed() == 1, "the row to be stored")
        wiki.produce(
            Record(wiki.topic, 0, -1, b'{"id":1}', None, (("__debezium.newkey", b'{"id":2}'),)),
        )
        until(lambda: wiki.committed() == 2, "the delete to be applied", timeout_s=15)
    assert wiki.stored() == {}


def test_a_row_that_returns_from_its_soft_delete_is_read_again(wiki: Wiki, provider: EmbeddingServer) -> None:
    """Case 41."""
    wiki.in_source(1, BODY)
    with running(wiki.with_source(provider)) as service:
        wiki.put(1, "first", BODY)
        wiki.put(1, "first", gone=True)
        until(lambda: wiki.committed() == 2, "the row to be gone")
        assert wiki.stored() == {}
        wiki.put(1, "first")
        until(lambda: wiki.committed() == 3, "the row to be back")
        metrics = service.get("/metrics")[1]
    assert wiki.stored() == {1: f"first\n\n{BODY}".strip()}
    assert wiki.letters() == []
    completed = f'vectide_changes_completed_total{{reason="reread",table="{wiki.table}"}} 1.0'
    assert completed in metrics


def test_a_value_in_object_storage_is_read_from_the_source_and_never_taken_for_unchanged(
    wiki: Wiki, provider: EmbeddingServer
) -> None:
    """Invariant 5."""
    reference = "__debezium:s3:ref:v1:bucket|docs/1"
    wiki.put(1, "first", BODY)
    wiki.put(1, "first", reference)
    with running(wiki.wiki(provider)):
        until(lambda: wiki.committed() == 2, "everything to be committed", timeout_s=20)
    assert wiki.letter_details() == [("incomplete_row", "unavailable columns: body")]
    assert wiki.stored() == {1: f"first\n\n{BODY}".strip()}
    wiki.in_source(1, "a new story")
    wiki.put(1, "first", reference)
    with running(wiki.with_source(provider)):
        until(lambda: wiki.committed() == 3, "everything to be committed")
    assert wiki.stored() == {1: "first\n\na new story"}
    assert reference not in "".join(provider.texts())


def test_without_a_source_such_a_row_is_dead_lettered_by_name(wiki: Wiki, provider: EmbeddingServer) -> None:
    """Case 41: also one that was never seen before."""
    wiki.put(1, "first", BODY)
    wiki.put(1, "first", gone=True)
    with running(wiki.wiki(provider)):
        until(lambda: wiki.committed() == 2, "the row to be gone")
        wiki.put(1, "first")
        wiki.put(2, "never seen before")
        until(lambda: wiki.committed() == 4, "the records to be committed")
    assert wiki.letter_details() == [("incomplete_row", "unavailable columns: body")] * 2
    assert wiki.stored() == {}
    assert all(UNAVAILABLE not in text for text in provider.texts())


def test_a_row_that_the_source_no_longer_has_waits_for_its_delete(
    wiki: Wiki, provider: EmbeddingServer
) -> None:
    """The source is ahead of its events: the delete comes, though the partition seems to end here."""
    with running(wiki.with_source(provider)) as service:
        wiki.put(1, "first")
        until(lambda: 'station="reread"' in service.get("/metrics")[1], "the source to be asked")
        wiki.delete_row(1)
        until(lambda: wiki.committed() == 2, "the delete to be committed")
    assert wiki.letters() == []
    assert wiki.stored() == {}


def test_a_type_that_cannot_be_read_as_events_hold_it_is_refused_by_name(
    wiki: Wiki, provider: EmbeddingServer
) -> None:
    wiki.in_source(1, BODY)
    wiki.put(1, "first", BODY, raw=UNAVAILABLE)
    environment = wiki.with_source(provider)
    tables = json.loads(environment["VECTIDE_TABLES"])
    tables[wiki.table]["embed"] = {"template": "{title} {raw}"}
    with running({**environment, "VECTIDE_TABLES": json.dumps(tables)}):
        until(lambda: wiki.committed() == 1, "the record to be committed")
    ((cause, detail),) = wiki.letter_details()
    assert cause == "incomplete_row"
    assert "raw: what events hold of its type polygon cannot be told" in detail


def test_a_source_that_is_out_is_waited_for(broker: BrokerProcess, provider: EmbeddingServer) -> None:
    """Invariant 10: and the rest flows on meanwhile."""
    with EmbeddedPostgres(tcp_port=0) as postgres, EmbeddedPostgres(tcp_port=0) as other:
        wiki = Wiki(broker, postgres)
        with psycopg.connect(other.dsn) as link:
            link.execute(f"CREATE TABLE {wiki.docs} (id int PRIMARY KEY, body text)".encode())
            insert = sql.SQL("INSERT INTO {} VALUES (1, 'told later')")
            link.execute(insert.format(sql.Identifier(wiki.docs)))
        address = other.tcp_dsn
        other.stop()
        with running({**wiki.wiki(provider), "VECTIDE_SOURCE__DSN": address}) as service:
            wiki.put(1, "first")
            wiki.put(2, "second", BODY)
            until(lambda: 2 in wiki.stored(), "the row that needs no source")
            until(lambda: 'station="reread"' in service.get("/metrics")[1], "the source to be asked")
            assert service.events("source_unreachable")
            other.start()
            until(lambda: wiki.committed() == 2, "the other one")
        assert wiki.stored()[1] == "first\n\ntold later"
        assert wiki.letters() == []


def test_a_source_that_refuses_us_is_refused_at_start(wiki: Wiki, provider: EmbeddingServer) -> None:
    dsn = wiki.postgres.tcp_dsn.replace(wiki.postgres.password, "wrong")
    with running({**wiki.wiki(provider), "VECTIDE_SOURCE__DSN": dsn}) as service:
        assert service.wait() == 3
    (line,) = service.told
    assert line.startswith("the source refuses: ")
    assert "wrong" not in line
