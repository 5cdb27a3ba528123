"""What an error of Milvus means for the driver: by the server's code, its own classification, or gRPC's."""

from __future__ import annotations

from typing import Final

import grpc
from pymilvus import exceptions

from vectide.core.failures import Failure, Kind

#: By the server's code.
CODES: Final[dict[int, tuple[Kind, str]]] = {
    1: (Kind.TRANSIENT, "server_error"),  # not ready; also whatever has no code of its own
    2: (Kind.TRANSIENT, "connection"),
    3: (Kind.TRANSIENT, "overloaded"),
    4: (Kind.THROTTLED, "throttled"),
    5: (Kind.TRANSIENT, "server_error"),
    6: (Kind.REFUSED, "data"),
    8: (Kind.THROTTLED, "throttled"),
    9: (Kind.OPERATOR, "quota"),
    100: (Kind.OPERATOR, "collection_missing"),
    101: (Kind.TRANSIENT, "not_loaded"),
    103: (Kind.TRANSIENT, "not_loaded"),
    800: (Kind.OPERATOR, "database_missing"),
    1100: (Kind.REFUSED, "data"),
    1101: (Kind.REFUSED, "data"),
    1600: (Kind.OPERATOR, "collection_missing"),  # an alias that is not there
    1400: (Kind.OPERATOR, "credentials"),
    1401: (Kind.OPERATOR, "permission"),
}

_GRPC: Final[dict[grpc.StatusCode, tuple[Kind, str]]] = {
    grpc.StatusCode.UNAUTHENTICATED: (Kind.OPERATOR, "credentials"),
    grpc.StatusCode.PERMISSION_DENIED: (Kind.OPERATOR, "permission"),
    grpc.StatusCode.UNIMPLEMENTED: (Kind.OPERATOR, "not_milvus"),
    grpc.StatusCode.NOT_FOUND: (Kind.OPERATOR, "not_milvus"),
    grpc.StatusCode.INVALID_ARGUMENT: (Kind.REFUSED, "data"),
    grpc.StatusCode.OUT_OF_RANGE: (Kind.REFUSED, "data"),
    grpc.StatusCode.FAILED_PRECONDITION: (Kind.OPERATOR, "schema"),
    grpc.StatusCode.ALREADY_EXISTS: (Kind.TRANSIENT, "conflict"),
    grpc.StatusCode.ABORTED: (Kind.TRANSIENT, "conflict"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Kind.TRANSIENT, "timeout"),
    grpc.StatusCode.CANCELLED: (Kind.TRANSIENT, "timeout"),
    grpc.StatusCode.UNAVAILABLE: (Kind.TRANSIENT, "connection"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Kind.TOO_LARGE, "too_large"),
    grpc.StatusCode.INTERNAL: (Kind.TRANSIENT, "server_error"),
    grpc.StatusCode.UNKNOWN: (Kind.TRANSIENT, "server_error"),
    grpc.StatusCode.DATA_LOSS: (Kind.TRANSIENT, "server_error"),
}

#: Raised by the client before it sends anything, and what it says about our program.
_CLIENT: Final[tuple[tuple[type[Exception], Kind, str], ...]] = (
    (exceptions.DataNotMatchException, Kind.REFUSED, "data"),
    (exceptions.ParamError, Kind.REFUSED, "data"),
    (exceptions.PrimaryKeyException, Kind.REFUSED, "data"),
    (exceptions.DataTypeNotMatchException, Kind.REFUSED, "data"),
    (exceptions.DataTypeNotSupportException, Kind.REFUSED, "data"),
    (exceptions.CollectionNotExistException, Kind.OPERATOR, "collection_missing"),
    (exceptions.DescribeCollectionException, Kind.TRANSIENT, "server_error"),
    (exceptions.ServerVersionIncompatibleException, Kind.OPERATOR, "not_milvus"),
    (exceptions.ConnectionConfigException, Kind.OPERATOR, "client_error"),
    (exceptions.SchemaMismatchRetryableException, Kind.TRANSIENT, "conflict"),
    (exceptions.ConnectError, Kind.TRANSIENT, "connection"),
    (exceptions.ConnectionNotExistException, Kind.TRANSIENT, "connection"),
    (exceptions.MilvusUnavailableException, Kind.TRANSIENT, "connection"),
    (exceptions.SchemaNotReadyException, Kind.TRANSIENT, "not_loaded"),
)

#: Older servers have one code for many things: their words tell these apart.
_WORDS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("auth check failure", Kind.OPERATOR, "credentials"),
    ("unauthenticated", Kind.OPERATOR, "credentials"),
    ("permission deny", Kind.OPERATOR, "permission"),
    ("certificate_verify_failed", Kind.OPERATOR, "tls"),
    ("disk quota exceeded", Kind.OPERATOR, "disk_full"),
    ("no space left", Kind.OPERATOR, "disk_full"),
    ("message larger than max", Kind.TOO_LARGE, "too_large"),
    ("already exist", Kind.TRANSIENT, "conflict"),
)

UNMAPPED: Final = Failure(Kind.TRANSIENT, "unmapped")


def failure_of(error: BaseException) -> Failure:
    """The failure that ``error`` means. What is said about data (kind REFUSED) is reduced to the code."""
    name = type(error).__name__
    match error:
        case exceptions.MilvusException():
            words = str(error.message)
            kind, cause = _of_words(words) or _of_milvus(error)
            name = f"{name} ({error.code})"
        case grpc.RpcError():
            words = str(getattr(error, "details", lambda: "")())
            kind, cause = _of_words(words) or _of_grpc(getattr(error, "code", lambda: None)())
        case ValueError() | TypeError() | RecursionError() | AttributeError():
            kind, cause, words = Kind.REFUSED, "data", ""
        case _:
            kind, cause, words = UNMAPPED.kind, UNMAPPED.cause, ""
    told = "" if kind is Kind.REFUSED or not words else f": {' '.join(words.split())[:300]}"
    return Failure(kind, cause, name + told)


def _of_words(words: str) -> tuple[Kind, str] | None:
    lower = words.lower()
    return next(((kind, cause) for told, kind, cause in _WORDS if told in lower), None)


def _of_milvus(error: exceptions.MilvusException) -> tuple[Kind, str]:
    if isinstance(error.code, grpc.StatusCode):
        return _of_grpc(error.code)
    for base, kind, cause in _CLIENT:
        if isinstance(error, base):
            return kind, cause
    if type(error) is not exceptions.MilvusException:
        return Kind.OPERATOR, "client_error"
    if error.is_input_error:
        return Kind.REFUSED, "data"
    return CODES.get(int(error.code), (Kind.TRANSIENT, "server_error"))


def _of_grpc(code: object) -> tuple[Kind, str]:
    known = _GRPC.get(code) if isinstance(code, grpc.StatusCode) else None
    return known or (Kind.TRANSIENT, "server_error")
