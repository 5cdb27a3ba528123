"""What an error of Weaviate means for the driver: it has statuses for whole calls, and only words else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from vectide.core.failures import Failure, Kind
from vectide.stores.http_calls import Told

#: What the server's words tell, whatever the status.
_WORDS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("cannot query field", Kind.OPERATOR, "collection_missing"),
    ("no graphql provider present", Kind.OPERATOR, "collection_missing"),
    ("not present in schema", Kind.OPERATOR, "collection_missing"),
    ("could not find class", Kind.OPERATOR, "collection_missing"),
    ("failed to get class", Kind.OPERATOR, "collection_missing"),
    ("already exists", Kind.TRANSIENT, "conflict"),
    ("already in use", Kind.TRANSIENT, "conflict"),
    ("object not found", Kind.TRANSIENT, "object_missing"),
    ("read-only", Kind.OPERATOR, "read_only"),
    ("vector lengths don't match", Kind.REFUSED, "data"),
    ("invalid", Kind.REFUSED, "data"),
)


def read_error(told: Any) -> Told:
    """What the document of an error says: in one of its two shapes."""
    if "error" in told:
        words = "; ".join(str(one["message"]) for one in told["error"])
    else:
        words = str(told["message"])
    means = _of_words(words)
    # What is said of data decides nothing: the status does, which tells a key that is invalid from a value.
    return Told(words=words, means=None if means is not None and means[0] is Kind.REFUSED else means)


def failure_of_query(errors: Sequence[Mapping[str, Any]]) -> Failure:
    """What the errors of a query mean, whose status says that all is well."""
    words = "; ".join(str(one.get("message")) for one in errors)
    return _failure(words, "the query failed")


def failure_of_object(answered: Mapping[str, Any]) -> Failure | None:
    """Why one object of a batch failed; None when it did not."""
    result = answered.get("result") or answered  # a batch of objects, or one of removals
    if result.get("status") == "SUCCESS":
        return None
    errors = (result.get("errors") or {}).get("error") or ()
    return _failure("; ".join(str(one.get("message")) for one in errors), "the object failed")


def _failure(words: str, what: str) -> Failure:
    """What nobody knows counts as the environment's: no record dies of it at once."""
    kind, cause = _of_words(words) or (Kind.TRANSIENT, "server_error")
    told = "" if kind is Kind.REFUSED or not words else f": {' '.join(words.split())[:300]}"
    return Failure(kind, cause, what + told)


def _of_words(words: str) -> tuple[Kind, str] | None:
    lower = words.lower()
    return next(((kind, cause) for told, kind, cause in _WORDS if told in lower), None)
