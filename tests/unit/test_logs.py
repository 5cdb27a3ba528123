"""The log: its forms, what it withholds, what it holds back (cases 175, 191)."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from vectide.core.model import Record
from vectide.ops.logs import ContentInLog, Logs, RateLimit
from vectide.ports import Log

SECRET = "Hunter2!"  # noqa: S105


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Written:
    """A JSON log and the lines that came out of it."""

    def __init__(self, **options: Any) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        limit = RateLimit(every_s=30, clock=self.clock, max_kinds=options.pop("max_kinds", 1000))
        self.logs = Logs(stream=self.stream, limit=limit, **options)
        self.log: Log = self.logs.get("pump")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def _root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


# --- forms ----------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_with_time_level_component_and_event_first(written: Written) -> None:
    written.log.info("assigned", partitions=["a[0]", "a[1]"], in_flight=3, share=0.5, cause=None)
    (line,) = written.lines
    assert list(line)[:4] == ["ts", "level", "component", "event"]
    assert line["ts"].endswith("Z")
    assert {name: value for name, value in line.items() if name != "ts"} == {
        "level": "info",
        "component": "pump",
        "event": "assigned",
        "partitions": ["a[0]", "a[1]"],
        "in_flight": 3,
        "share": 0.5,
        "cause": None,
    }


def test_the_console_form_is_for_people() -> None:
    written = Written(form="console")
    written.log.warning("retrying", cause="timeout")
    assert "retrying" in written.text
    assert "cause=timeout" in written.text
    assert "\x1b[" not in written.text


def test_lines_below_the_level_are_not_written() -> None:
    written = Written(level="warning")
    written.log.info("quiet")
    written.log.warning("loud")
    assert [line["event"] for line in written.lines] == ["loud"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_value_cannot_forge_a_line(form: str) -> None:
    written = Written(form=form)
    written.log.info("error", detail='x\n{"level": "error"}\r\x1b[2J')
    assert len(written.text.splitlines()) == 1
    assert "\x1b" not in written.text


# --- what is withheld -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text", "value", "key", "columns", "Row", "payload", "headers", "vector"])
def test_row_content_is_withheld_wherever_it_appears(written: Written, name: str) -> None:
    """Invariant 13."""
    written.log.info("odd", **{name: SECRET}, nested={"deep": [{name: [SECRET]}]})
    assert SECRET not in written.text
    assert written.last[name] == "<withheld>"
    assert written.last["nested"] == {"deep": [{name: "<withheld>"}]}


def test_in_strict_mode_logging_row_content_raises() -> None:
    with pytest.raises(ContentInLog, match="'text'"):
        Written(strict=True).log.info("odd", text="x")


def test_a_number_under_a_plural_is_a_count(written: Written) -> None:
    written.log.info("batch", rows=3, texts=2)
    assert (written.last["rows"], written.last["texts"]) == (3, 2)
    written.log.info("batch", value=3)
    assert written.last["value"] == "<withheld>"


def test_objects_and_exceptions_show_their_type_alone(written: Written) -> None:
    record = Record("t", 0, 0, SECRET.encode(), SECRET.encode())
    written.log.error("odd", what=record, raw=SECRET.encode(), error=ValueError(SECRET))
    assert SECRET not in written.text
    assert (written.last["what"], written.last["raw"], written.last["error"]) == (
        "<Record>",
        "<bytes>",
        "<ValueError>",
    )


def test_a_traceback_tells_types_and_places_but_no_messages(written: Written) -> None:
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError:
        written.log.error("crashed", exc_info=True)  # noqa: G201 - the port has no exception()
    assert SECRET not in written.text
    assert written.last["exception"] == ["RuntimeError", "ValueError"]
    assert "test_logs.py:" in written.last["traceback"][-1]


def test_known_secrets_are_hidden_in_any_text() -> None:
    """Case 175."""
    written = Written(secrets=[SECRET, "abc"])
    event = f"failed with {SECRET}"
    written.log.error(event, detail=[f"<{SECRET}>"], of={"a": SECRET})
    assert SECRET not in written.text
    assert written.last["detail"] == ["<***>"]
    written.log.info("abc")
    assert written.last["event"] == "abc"


@pytest.mark.parametrize(
    "text",
    [
        f"could not connect to postgresql://vectors:{SECRET}@db/x",
        f"proxy http://{SECRET}@proxy:1",
        f"password={SECRET} rejected",
        f"api_key: '{SECRET}'",
        f"Authorization: Bearer {SECRET}",
        f'{{"token": "{SECRET}"}}',
    ],
)
def test_what_looks_like_a_credential_is_hidden_too(written: Written, text: str) -> None:
    """Case 175."""
    written.log.error("failed", detail=text)
    assert SECRET not in written.text


def test_fields_named_like_secrets_are_hidden(written: Written) -> None:
    written.log.info("odd", dsn=SECRET, nested={"api_key": SECRET})
    assert SECRET not in written.text


def test_long_texts_and_lists_are_cut(written: Written) -> None:
    written.log.info("long", detail="x" * 100_000, partitions=list(range(100_000)))
    assert len(written.text) < 5_000


# --- what is held back ----------------------------------------------------------------------------------


def test_the_same_warning_passes_once_in_a_while_and_tells_how_many_did_not(written: Written) -> None:
    """Case 191."""
    for _ in range(1000):
        written.log.warning("broker_down", cause="transport", broker="a")
    assert len(written.lines) == 1
    written.clock.now += 30
    written.log.warning("broker_down", cause="transport", broker="b")
    assert len(written.lines) == 2
    assert written.last["suppressed"] == 999
    written.clock.now += 30
    written.log.warning("broker_down", cause="transport")
    assert "suppressed" not in written.last


def test_another_cause_event_table_or_level_is_another_line(written: Written) -> None:
    written.log.warning("failed", cause="timeout")
    written.log.warning("failed", cause="refused")
    written.log.warning("failed", cause="timeout", table="products")
    written.log.warning("failed", cause="timeout", station="embed")
    written.log.error("failed", cause="timeout")
    written.log.warning("other", cause="timeout")
    assert len(written.lines) == 6


def test_transitions_are_never_held_back(written: Written) -> None:
    for state in ("running", "waiting", "running"):
        written.log.info("state", state=state)
    assert [line["state"] for line in written.lines] == ["running", "waiting", "running"]


def test_the_memory_of_the_limit_is_bounded() -> None:
    written = Written(max_kinds=10)
    for event in [f"event-{number}" for number in range(1000)]:
        written.log.warning(event)
    written.log.warning("event-999")
    written.log.warning("event-0")
    assert len(written.lines) == 1001


# --- libraries ------------------------------------------------------------------------------------------


def test_lines_of_the_kafka_client_come_here_and_are_held_back_by_facility(written: Written) -> None:
    """Case 191."""
    kafka = written.logs.library("test.kafka")
    for number in range(100):
        kafka.log(logging.ERROR, "%s [%s] %s", "FAIL", "vectide#consumer-1", f"broker down, try {number}")
    kafka.log(logging.WARNING, "%s [%s] %s", "OFFSET", "vectide#consumer-1", "reset")
    kafka.log(logging.INFO, "%s [%s] %s", "CONF", "vectide#consumer-1", "chatter")
    assert [(line["event"], line["cause"], line["level"]) for line in written.lines] == [
        ("kafka_client_message", "FAIL", "error"),
        ("kafka_client_message", "OFFSET", "warning"),
    ]
    assert "broker down, try 0" in written.lines[0]["message"]


@pytest.mark.usefixtures("_root_logger_restored")
def test_libraries_are_heard_from_warning_on_even_at_debug_level() -> None:
    written = Written(level="debug", secrets=[SECRET])
    written.logs.capture_libraries()
    library = logging.getLogger("some.library")
    library.debug("request body %s", SECRET)
    library.info("request")
    library.warning("slow %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        library.exception("failed")
    assert [line["event"] for line in written.lines] == ["library_message", "library_message"]
    assert written.lines[0]["logger"] == "some.library"
    assert written.lines[1]["exception"] == ["ValueError"]
    assert SECRET not in written.text


@pytest.mark.usefixtures("_root_logger_restored")
def test_warnings_of_python_come_here() -> None:
    written = Written()
    written.logs.capture_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old thing" in written.last["message"]
    assert written.last["logger"] == "py.warnings"
