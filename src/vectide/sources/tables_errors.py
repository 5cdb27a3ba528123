"""What an error means that comes up while the source's tables are read: every psycopg error to one failure.

Decided by SQLSTATE (appendix A of the PostgreSQL manual): exact codes first, then their class.
"""

from __future__ import annotations

from typing import Final

import psycopg

from vectide.core.failures import Failure, Kind

_Meaning = tuple[Kind, str]

_CODES: Final[dict[str, _Meaning]] = {
    "42501": (Kind.OPERATOR, "permission"),
    "57P04": (Kind.OPERATOR, "database_missing"),
    "57014": (Kind.TRANSIENT, "timeout"),
    # The table or its columns changed between looking them up and reading them.
    "42P01": (Kind.TRANSIENT, "schema_changed"),
    "42703": (Kind.TRANSIENT, "schema_changed"),
    "42704": (Kind.TRANSIENT, "schema_changed"),
}
_CLASSES: Final[dict[str, _Meaning]] = {
    "08": (Kind.TRANSIENT, "connection"),
    "40": (Kind.TRANSIENT, "conflict"),
    "53": (Kind.TRANSIENT, "overloaded"),
    "55": (Kind.TRANSIENT, "lock_timeout"),
    "57": (Kind.TRANSIENT, "shutdown"),
    "22": (Kind.REFUSED, "key_refused"),  # a key that is no value of the key column's type
    "28": (Kind.OPERATOR, "credentials"),
    "3D": (Kind.OPERATOR, "database_missing"),
    "42": (Kind.OPERATOR, "schema"),
}
#: A refused connection carries no SQLSTATE: the client library passes on the server's words only.
_REFUSALS: Final[tuple[tuple[str, str], ...]] = (
    ("authentication failed", "credentials"),
    ("no password supplied", "credentials"),
    ("no pg_hba.conf entry", "credentials"),
    ("is not permitted to log in", "credentials"),
    ("certificate verify failed", "tls"),
    ("does not support SSL", "tls"),
    ("permission denied for database", "permission"),
)


def failure_of(error: Exception) -> Failure:
    """The failure that ``error`` means; its detail holds no row content."""
    code = getattr(error, "sqlstate", None)
    if code is None:
        return _client_failure(error)
    kind, cause = _CODES.get(code) or _CLASSES.get(code[:2]) or (Kind.TRANSIENT, "server_error")
    detail = f"{type(error).__name__} ({code})"
    if kind is Kind.OPERATOR and isinstance(error, psycopg.Error) and error.diag.message_primary:
        detail += f": {error.diag.message_primary}"
    return Failure(kind, cause, detail)


def _client_failure(error: Exception) -> Failure:
    if isinstance(error, psycopg.DataError):
        return Failure(Kind.REFUSED, "key_refused", type(error).__name__)
    if not isinstance(error, psycopg.OperationalError):
        return Failure(Kind.TRANSIENT, "connection", type(error).__name__)
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return Failure(Kind.TRANSIENT, "timeout", "no connection in time")
    words = " ".join(str(error).split())
    cause = next((cause for phrase, cause in _REFUSALS if phrase in words), None)
    if cause is None and "FATAL" in words and "does not exist" in words:
        cause = "credentials" if " role " in words else "database_missing"
    if cause is None and getattr(getattr(error, "pgconn", None), "needs_password", False):
        cause = "credentials"
    return Failure(Kind.TRANSIENT if cause is None else Kind.OPERATOR, cause or "connection", words)
