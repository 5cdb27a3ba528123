"""What an error of LanceDB means for the driver.

It raises Python's own exceptions, a few of them for everything: what went wrong is in their words. Those are
not shown where they may quote data.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from vectide.core.failures import Failure, Kind

#: Words of the message, in lower case, most telling first.
_WORDS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("no space left on device", Kind.OPERATOR, "disk_full"),
    ("quota exceeded", Kind.OPERATOR, "disk_full"),
    ("read-only file system", Kind.OPERATOR, "read_only"),
    ("permission denied", Kind.OPERATOR, "permission"),
    ("accessdenied", Kind.OPERATOR, "permission"),
    ("access denied", Kind.OPERATOR, "permission"),
    ("403 forbidden", Kind.OPERATOR, "permission"),
    ("invalidaccesskeyid", Kind.OPERATOR, "credentials"),
    ("signaturedoesnotmatch", Kind.OPERATOR, "credentials"),
    ("unauthenticated", Kind.OPERATOR, "credentials"),
    ("commit conflict", Kind.TRANSIENT, "conflict"),
    ("too many concurrent writers", Kind.TRANSIENT, "conflict"),
    ("timeout", Kind.TRANSIENT, "timeout"),
    ("timed out", Kind.TRANSIENT, "timeout"),
    ("was not found", Kind.OPERATOR, "collection_missing"),
    ("not found", Kind.OPERATOR, "collection_missing"),
    ("no such file", Kind.OPERATOR, "collection_missing"),
)

#: By type, most special first.
_TYPES: Final[tuple[tuple[type[BaseException], Kind, str], ...]] = (
    (TimeoutError, Kind.TRANSIENT, "timeout"),
    (MemoryError, Kind.TRANSIENT, "overloaded"),
    (pa.ArrowCapacityError, Kind.TOO_LARGE, "too_large"),
    (pa.ArrowCancelled, Kind.TRANSIENT, "timeout"),
    (pa.ArrowNotImplementedError, Kind.OPERATOR, "client_error"),
    (NotImplementedError, Kind.OPERATOR, "client_error"),
    (UnicodeError, Kind.REFUSED, "data"),
    (ValueError, Kind.REFUSED, "data"),
    (TypeError, Kind.REFUSED, "data"),
    (OverflowError, Kind.REFUSED, "data"),
    (RecursionError, Kind.REFUSED, "data"),
    (OSError, Kind.TRANSIENT, "storage"),
    (RuntimeError, Kind.TRANSIENT, "storage"),
    (pa.ArrowException, Kind.REFUSED, "data"),
)

UNMAPPED: Final = Failure(Kind.TRANSIENT, "unmapped")


def failure_of(error: BaseException) -> Failure:
    """The failure that ``error`` means."""
    name, words = type(error).__name__, " ".join(str(error).split())
    if not isinstance(error, UnicodeError):
        for told, kind, cause in _WORDS:
            if told in words.lower():
                return Failure(kind, cause, f"{name}: {words[:300]}")
    for base, kind, cause in _TYPES:
        if isinstance(error, base):
            detail = name if kind is Kind.REFUSED else f"{name}: {words[:300]}"
            return Failure(kind, cause, detail)
    return Failure(UNMAPPED.kind, UNMAPPED.cause, name)
