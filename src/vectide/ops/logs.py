"""Structured logs on stderr: JSON for machines, a console form for people.

Every line, ours or a library's, passes the same steps: repeated warnings are held back, row content and
secrets are withheld (invariant 13), values are made plain. Events are short names, facts are fields.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor

#: Field names that would carry row content; their values are withheld wherever they appear, except that a
#: whole number under a plural is a count.
CONTENT_FIELDS: Final = frozenset(
    {"after", "before", "columns", "document", "documents", "headers", "input", "key", "keys", "metadata"}
    | {"payload", "record", "records", "row", "rows", "text", "texts", "value", "values", "vector", "vectors"}
)
_PLURALS: Final = frozenset(name for name in CONTENT_FIELDS if name.endswith("s"))
#: Field names whose values are secrets.
SECRET_FIELDS: Final = frozenset({"api_key", "authorization", "dsn", "password", "secret", "token"})
WITHHELD: Final = "<withheld>"
HIDDEN: Final = "***"

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_CHARS: Final = 2000
_MAX_ITEMS: Final = 100
_URL_USER: Final = re.compile(r"://[^/\s@]*@")
_ASSIGNED_SECRET: Final = re.compile(
    r"(?i)\b(password|passwd|pwd|secret|token|api[-_]?key|authorization)(['\"]?\s*[=:]\s*['\"]?)"
    r"((?:bearer|basic)\s+)?[^\s'\",;]+"
)
#: What a rate-limited line is known by, besides its event.
_IDENTITY: Final = ("cause", "station", "table", "topic", "logger")


class Logger(Protocol):
    """What a part of the program writes with: an event name and fields."""

    def debug(self, event: str, /, **fields: Any) -> None: ...

    def info(self, event: str, /, **fields: Any) -> None: ...

    def warning(self, event: str, /, **fields: Any) -> None: ...

    def error(self, event: str, /, **fields: Any) -> None: ...


class ContentInLog(AssertionError):
    """A field that would carry row content was logged. Raised in strict mode only, which tests use."""


class RateLimit:
    """Lets the same warning or error through once per ``every_s`` seconds.

    The same: event, cause, station, table and topic are equal. The next line that passes tells in
    ``suppressed`` how many did not. Other levels always pass: they tell transitions, and the last one must be
    seen. ``clock`` is monotonic seconds. At most ``max_kinds`` kinds of line are remembered.
    """

    def __init__(
        self, every_s: float = 30, clock: Callable[[], float] = time.monotonic, max_kinds: int = 1000
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._max_kinds = max_kinds
        self._seen: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        if method not in ("warning", "error", "critical"):
            return event
        kind = (method, str(event.get("event")), *(str(event.get(name, "")) for name in _IDENTITY))
        suppressed = self._passes(kind, self._clock())
        if suppressed is None:
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def _passes(self, kind: tuple[str, ...], now: float) -> int | None:
        """How many lines of this kind were held back before this one; None when this one is too."""
        with self._lock:
            since, suppressed = self._seen.get(kind, (None, 0))
            if since is not None and now - since < self._every_s:
                self._seen[kind] = (since, suppressed + 1)
                return None
            self._seen[kind] = (now, 0)
            self._seen.move_to_end(kind)
            if len(self._seen) > self._max_kinds:
                self._seen.popitem(last=False)
            return suppressed


class Guard:
    """Withholds row content and hides secrets, and turns every value into something plain and short.

    ``secrets`` are hidden wherever they appear in a text. ``strict`` raises :class:`ContentInLog` instead of
    withholding.
    """

    def __init__(self, secrets: Iterable[str] = (), *, strict: bool = False) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None
        self._strict = strict

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        error = event.pop("exc_info", None)
        plain = self._mapping(event)
        if error:
            plain |= _traceback(sys.exc_info()[1] if error is True else error)
        return plain

    def _mapping(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {str(name): self._field(str(name), value) for name, value in fields.items()}

    def _field(self, name: str, value: Any) -> Any:
        folded = name.lower()
        if folded in CONTENT_FIELDS and not (folded in _PLURALS and type(value) is int):
            return self._withhold(name)
        return HIDDEN if folded in SECRET_FIELDS else self._plain(value)

    def _withhold(self, name: str) -> str:
        if self._strict:
            raise ContentInLog(f"the log field {name!r} would carry row content")
        return WITHHELD

    def _plain(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self._text(value)
            case Mapping():
                return self._mapping(value)
            case list() | tuple() | set() | frozenset():
                return [self._plain(item) for item in list(value)[:_MAX_ITEMS]]
            case _:
                return f"<{type(value).__name__}>"

    def _text(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        text = _URL_USER.sub(f"://{HIDDEN}@", text)
        text = _ASSIGNED_SECRET.sub(rf"\1\2{HIDDEN}", text)
        if len(text) > _MAX_CHARS:
            text = f"{text[:_MAX_CHARS]}... ({len(text)} characters)"
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Logs:
    """The process's log. One object, made at start; :meth:`get` gives each part its logger.

    ``form`` is ``json`` or ``console``; ``level`` the lowest level of ours that is written. Libraries are
    heard from warning on, whatever the level: their debug lines show requests, which hold row content.
    """

    def __init__(
        self,
        form: Literal["json", "console"] = "json",
        level: Literal["debug", "info", "warning", "error"] = "info",
        *,
        stream: TextIO | None = None,
        secrets: Iterable[str] = (),
        limit: RateLimit | None = None,
        strict: bool = False,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._level = _LEVELS[level]
        self._processors: Sequence[Processor] = [
            structlog.processors.add_log_level,
            RateLimit() if limit is None else limit,
            Guard(secrets, strict=strict),
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _json
            if form == "json"
            else structlog.dev.ConsoleRenderer(colors=self._stream.isatty(), timestamp_key="ts"),
        ]

    def get(self, component: str) -> Logger:
        """A logger whose lines name the component."""
        logger: Logger = structlog.wrap_logger(
            structlog.WriteLogger(self._stream),
            processors=self._processors,
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            context_class=dict,
            component=component,
        )
        return logger

    def library(self, name: str, level: int = logging.WARNING) -> logging.Logger:
        """The standard-library logger ``name``, writing here: what is handed to librdkafka, for example."""
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [_Bridge(self.get(name))]
        return logger

    def capture_libraries(self) -> None:
        """Send the root logger (hence every library) and Python's warnings here, from warning on."""
        root = logging.getLogger()
        root.setLevel(logging.WARNING)
        root.handlers = [_Bridge(self.get("library"))]
        logging.captureWarnings(True)


class _Bridge(logging.Handler):
    """Writes a standard-library log record as a structured line.

    The event is the message before its arguments are filled in, so that repetitions are recognised however
    the arguments vary; librdkafka's facility (``FAIL``, ``OFFSET``...), its first argument, is the cause.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        event = "library_message"
        if (
            isinstance(record.msg, str)
            and record.msg.startswith("%s [%s] ")
            and isinstance(record.args, tuple)
        ):
            event, fields["cause"] = "kafka_client_message", str(record.args[0])
        elif record.name != "py.warnings":
            fields["cause"] = str(record.msg)[:80]
        if record.exc_info:
            fields["exc_info"] = record.exc_info[1]
        (self._logger.error if record.levelno >= logging.ERROR else self._logger.warning)(event, **fields)


def _json(_logger: Any, _method: str, event: EventDict) -> str:
    first = {name: event.pop(name) for name in ("ts", "level", "component", "event") if name in event}
    ordered: MutableMapping[str, Any] = {**first, **event}
    rendered = structlog.processors.JSONRenderer()(None, "", ordered)
    return rendered if isinstance(rendered, str) else rendered.decode()


def _traceback(error: Any) -> dict[str, Any]:
    """The types and places of an exception, without its messages: drivers quote row content in them."""
    if isinstance(error, tuple):
        error = error[1]
    if not isinstance(error, BaseException):
        return {}
    causes: list[str] = []
    current: BaseException | None = error
    while current is not None and len(causes) < 10:
        causes.append(type(current).__name__)
        current = current.__cause__ or current.__context__
    return {"exception": causes, "traceback": _places(error.__traceback__)}


def _places(traceback: TracebackType | None) -> list[str]:
    places = [
        f"{frame.f_code.co_filename.rpartition('site-packages/')[2]}:{line} {frame.f_code.co_name}"
        for frame, line in walk_tb(traceback)
    ]
    return places[-20:]
