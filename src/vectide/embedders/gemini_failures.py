"""What an answer of Gemini's API that is no success means: one function, :func:`failure_of`.

Its errors are Google's: a status of a name, a message, and details, of which some say how long to wait and
which quota is used up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vectide.core.failures import Failure, Kind
from vectide.embedders.http_failures import MAX_RETRY_AFTER_S, duration_s, of_status


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that an answer of this status stands for, with nothing of the message in it."""
    error = _error(body)
    message = error.get("message")
    details = list(_details(error))
    names = [error.get("status"), *(detail.get("reason") for detail in details)]
    failure = of_status(status, headers, names, message if isinstance(message, str) else "")
    if failure.kind is Kind.THROTTLED and any("PerDay" in quota for quota in _quotas(details)):
        return Failure(Kind.OPERATOR, "quota_exhausted", failure.detail)
    waits = failure.kind in (Kind.THROTTLED, Kind.TRANSIENT) and failure.retry_after_s is None
    return replace(failure, retry_after_s=_retry_delay_s(details)) if waits else failure


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            yield detail


def _quotas(details: list[Mapping[str, Any]]) -> Iterator[str]:
    for detail in details:
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, dict):
                yield str(violation.get("quotaId"))


def _retry_delay_s(details: list[Mapping[str, Any]]) -> float | None:
    for detail in details:
        asked = duration_s(str(detail.get("retryDelay", "")))
        if asked is not None:
            return min(asked, MAX_RETRY_AFTER_S)
    return None
