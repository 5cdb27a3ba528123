"""What a PostgreSQL error means for the driver: every psycopg error to one failure.

Decided by SQLSTATE (appendix A of the PostgreSQL manual): exact codes first, then their class, the first two
characters. An error without one comes from the client side or from a connection that was never made.
"""

from __future__ import annotations

from typing import Final

import psycopg

from vectide.core.failures import Failure, Kind

_Meaning = tuple[Kind, str]

CODES: Final[dict[str, _Meaning]] = {
    "25006": (Kind.OPERATOR, "read_only"),
    "25P03": (Kind.TRANSIENT, "timeout"),  # idle in transaction
    "25P04": (Kind.TRANSIENT, "timeout"),  # transaction timeout
    "40002": (Kind.REFUSED, "constraint"),
    "42501": (Kind.OPERATOR, "permission"),
    "42P05": (Kind.OPERATOR, "prepared_statements"),
    "42P01": (Kind.OPERATOR, "collection_missing"),
    "53100": (Kind.OPERATOR, "disk_full"),
    "55006": (Kind.TRANSIENT, "lock_timeout"),
    "55P03": (Kind.TRANSIENT, "lock_timeout"),
    "57014": (Kind.TRANSIENT, "timeout"),
    "57P04": (Kind.OPERATOR, "database_missing"),
}

CLASSES: Final[dict[str, _Meaning]] = {
    # The connection, or a server that has too much to do, restarts or asks to try again.
    "08": (Kind.TRANSIENT, "connection"),
    "40": (Kind.TRANSIENT, "conflict"),
    "53": (Kind.TRANSIENT, "overloaded"),
    "57": (Kind.TRANSIENT, "shutdown"),
    "72": (Kind.TRANSIENT, "conflict"),
    # This batch holds something that the table, a constraint, a trigger or a limit refuses.
    "21": (Kind.REFUSED, "data"),
    "22": (Kind.REFUSED, "data"),
    "23": (Kind.REFUSED, "constraint"),
    "27": (Kind.REFUSED, "constraint"),
    "44": (Kind.REFUSED, "constraint"),
    "54": (Kind.REFUSED, "limit"),
    "P0": (Kind.REFUSED, "constraint"),  # raised by a trigger of the user
    # Somebody has to look at the server, its schema or our rights.
    "28": (Kind.OPERATOR, "credentials"),
    "3D": (Kind.OPERATOR, "database_missing"),
    "3F": (Kind.OPERATOR, "collection_missing"),
    "42": (Kind.OPERATOR, "schema"),
    "26": (Kind.OPERATOR, "prepared_statements"),
    "58": (Kind.OPERATOR, "server_error"),
    "F0": (Kind.OPERATOR, "server_error"),
    "XX": (Kind.OPERATOR, "server_error"),
    **dict.fromkeys(
        "02 03 09 0A 0B 0F 0L 0P 0Z 10 20 24 25 2B 2D 2F 34 38 39 3B 55 HV".split(),
        (Kind.OPERATOR, "schema"),
    ),
}

#: A pooler between us and the server hands out other sessions' prepared statements.
_POOLER_HINT: Final = "; behind a transaction pooler switch prepared statements off"

#: Errors without SQLSTATE, most special first.
_CLIENT: Final[tuple[tuple[type[Exception], _Meaning], ...]] = (
    (psycopg.errors.ConnectionTimeout, (Kind.TRANSIENT, "timeout")),
    (psycopg.errors.CancellationTimeout, (Kind.TRANSIENT, "timeout")),
    (psycopg.OperationalError, (Kind.TRANSIENT, "connection")),
    (psycopg.InterfaceError, (Kind.TRANSIENT, "connection")),
    (psycopg.DataError, (Kind.REFUSED, "data")),
    (psycopg.IntegrityError, (Kind.REFUSED, "constraint")),
    (psycopg.ProgrammingError, (Kind.OPERATOR, "client_error")),
    (psycopg.NotSupportedError, (Kind.OPERATOR, "client_error")),
    (psycopg.InternalError, (Kind.OPERATOR, "client_error")),
    (psycopg.DatabaseError, (Kind.TRANSIENT, "connection")),
)

#: A refused connection carries no SQLSTATE: the client library passes on the server's words only. A server
#: that speaks another language is waited for, with its words on every surface.
_REFUSED_CONNECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("authentication failed", "credentials"),
    ("no password supplied", "credentials"),
    ("no pg_hba.conf entry", "credentials"),
    ("is not permitted to log in", "credentials"),
    ("certificate verify failed", "tls"),
    ("does not support SSL", "tls"),
    ("permission denied for database", "permission"),
)

UNMAPPED: Final = Failure(Kind.TRANSIENT, "unmapped")


def failure_of(error: BaseException) -> Failure:
    """The failure that ``error`` means. The detail holds no row content: what the server says about data
    (kind REFUSED) is reduced to the name of the error."""
    code = getattr(error, "sqlstate", None)
    if code is None:
        return _client_failure(error)
    kind, cause = CODES.get(code) or CLASSES.get(code[:2]) or (UNMAPPED.kind, UNMAPPED.cause)
    detail = f"{type(error).__name__} ({code})"
    if kind is not Kind.REFUSED:
        detail += f": {_server_words(error)}"
    if cause == "prepared_statements":
        detail += _POOLER_HINT
    return Failure(kind, cause, detail)


def _client_failure(error: BaseException) -> Failure:
    unmapped = (UNMAPPED.kind, UNMAPPED.cause)
    kind, cause = next((meaning for base, meaning in _CLIENT if isinstance(error, base)), unmapped)
    if cause != "connection":
        return Failure(kind, cause, type(error).__name__)
    words = " ".join(str(error).split())
    refusal = _refusal_of(error, words)
    return Failure(kind, cause, words) if refusal is None else Failure(Kind.OPERATOR, refusal, words)


def _refusal_of(error: BaseException, words: str) -> str | None:
    if getattr(getattr(error, "pgconn", None), "needs_password", False):
        return "credentials"
    for phrase, cause in _REFUSED_CONNECTIONS:
        if phrase in words:
            return cause
    if "does not exist" in words and "FATAL" in words:
        return "credentials" if " role " in words else "database_missing"
    return None


def _server_words(error: BaseException) -> str:
    words = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((words or str(error)).split())
