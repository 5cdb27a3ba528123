"""A few PostgreSQL connections shared by the worker threads.

Not the pool of psycopg: that one reconnects in the background with its own back-off and tells its callers
only that none came in time. Here a failed connection raises at once and says why, so that the driver, which
owns retrying, can tell a wrong password from a server that restarts.
"""

from __future__ import annotations

import math
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Deadline, StartupRefused

#: How much later than the server's own time-out the client gives up on a connection that went silent.
GRACE_S: Final = 1.0

#: A connection is not used for longer, so that changed passwords, addresses and settings take effect.
MAX_AGE_S: Final = 1800.0

#: Noticing a peer that vanished without a word, on the socket's level.
_PROBES: Final[dict[str, Any]] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "fallback_application_name": "vectide",
}

_T = TypeVar("_T")


class Link(psycopg.Connection[TupleRow]):
    """A connection that never waits for the server beyond the deadline of the call that uses it."""

    deadline: Deadline | None = None
    opened_s: float = 0.0
    #: Where the extension lives; None while it is not installed.
    vector_schema: str | None = None

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """As psycopg's, and ends at the deadline: the connection is then closed, its state being unknown."""
        if timeout is not None or self.deadline is None:
            return super().wait(gen, interval, timeout)
        limit_s = self.deadline.remaining_s() + GRACE_S
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and self.deadline.passed:
                self.close()
                raise psycopg.errors.ConnectionTimeout("no answer before the deadline") from error
            raise


class Connections:
    """At most ``size`` connections, opened when needed, the most recently used first.

    ``prepare_link`` sets up a new connection. Raises :class:`StartupRefused` when ``dsn`` is none.
    """

    def __init__(
        self, dsn: str, *, size: int, prepared_statements: bool, prepare_link: Callable[[Link], None]
    ) -> None:
        try:
            self._parameters: dict[str, Any] = {**_PROBES, **conninfo_to_dict(dsn)}
            self._connect_timeout_s = float(self._parameters.get("connect_timeout") or 0) or math.inf
        except (psycopg.ProgrammingError, ValueError):
            # The error quotes the string, and the string holds the password.
            raise StartupRefused("the store's dsn is not a PostgreSQL connection string") from None
        self._prepare_threshold = 5 if prepared_statements else None
        self._prepare_link = prepare_link
        self._slots = threading.BoundedSemaphore(size)
        self._idle: deque[Link] = deque()
        self._closed = False

    @contextmanager
    def lease(self, deadline: Deadline) -> Iterator[Link]:
        """A connection in no transaction; commits at the end of the block, rolls back when it raises.

        Raises what psycopg raises, and :class:`AdapterError` when no connection is free in time.
        """
        if not self._slots.acquire(timeout=deadline.remaining_s()):
            raise AdapterError(Failure(Kind.TRANSIENT, "pool_busy", "all connections are in use"))
        try:
            link = self._take(deadline)
            try:
                yield link
                link.commit()
            except BaseException:
                self._recover(link)
                raise
            self._give_back(link)
        finally:
            self._slots.release()

    @contextmanager
    def patient(self, deadline: Deadline) -> Iterator[Link]:
        """A connection of the caller's own that commits every statement by itself and, once it is open, waits
        for the server however long that takes."""
        link = self._open(deadline)
        try:
            link.deadline = None
            link.autocommit = True
            link.execute("SELECT set_config('statement_timeout', '0', false)")
            yield link
        finally:
            link.close()

    def forget_idle(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Close all connections, those in use when they come back."""
        self._closed = True
        self.forget_idle()

    def _take(self, deadline: Deadline) -> Link:
        if self._closed:
            raise AdapterError(Failure(Kind.TRANSIENT, "closed", "the store has been closed"))
        with suppress(IndexError):
            while True:
                link = self._idle.pop()
                if _usable(link, deadline.clock.monotonic()):
                    link.deadline = deadline
                    return link
                link.close()
        return self._open(deadline)

    def _open(self, deadline: Deadline) -> Link:
        timeout_s = math.ceil(min(self._connect_timeout_s, deadline.remaining_s()))
        parameters = {**self._parameters, "connect_timeout": timeout_s}
        link = Link.connect(prepare_threshold=self._prepare_threshold, **parameters)
        try:
            link.deadline = deadline
            link.opened_s = deadline.clock.monotonic()
            # Conditional writes rely on seeing what a concurrent writer committed while they waited.
            link.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._prepare_link(link)
            link.rollback()
        except BaseException:
            link.close()
            raise
        return link

    def _recover(self, link: Link) -> None:
        """After a failed block: keep the connection when it still answers, else drop it and its like."""
        with suppress(psycopg.Error):
            if link.info.transaction_status is not TransactionStatus.ACTIVE:
                link.rollback()
        if link.closed:
            self.forget_idle()
        self._give_back(link)

    def _give_back(self, link: Link) -> None:
        link.deadline = None
        if self._closed or link.closed or link.info.transaction_status is not TransactionStatus.IDLE:
            link.close()
        else:
            self._idle.append(link)


def _usable(link: Link, now_s: float) -> bool:
    """Young enough and silent: a server that speaks unasked has said good-bye."""
    if link.closed or now_s - link.opened_s > MAX_AGE_S:
        return False
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    return not poll.poll(0)
