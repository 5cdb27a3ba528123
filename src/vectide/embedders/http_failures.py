"""What an HTTP status, an error's names and message, and the headers mean, for every provider behind an API.

Providers differ in status and wording for the same thing; where the status alone misleads, the error's
names (``code``, ``type``) or message decide:

- quota exhausted arrives as 429, like a rate limit, but waiting does not help;
- too many inputs, or too many tokens in one request, arrives as 400 or 422, like a bad text, but a smaller
  batch helps;
- a wrong key or model arrives as 400 from some, like a bad text, but only an operator can help.

A failure's detail holds the status and plain names alone: messages may echo the input.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from vectide.core.failures import Failure, Kind
from vectide.core.pace import Allowance, Left

#: The longest pause that a peer can ask of us.
MAX_RETRY_AFTER_S: Final = 86_400.0

#: No provider asks to wait for so many seconds: they count from the epoch.
_AN_EPOCH_S: Final = 1_000_000_000.0

_QUOTA_CODES: Final = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_KEY_CODES: Final = {"invalid_api_key", "invalid_authentication", "api_key_invalid"}
_MODEL_CODES: Final = {"model_not_found", "deploymentnotfound", "invalid_model", "operationnotsupported"}
_SIZE_CODES: Final = {"array_above_max_length", "max_tokens_per_request"}
_LONG_CODES: Final = {"context_length_exceeded", "string_above_max_length"}

_KEY_WORDS: Final = re.compile(r"(api key not valid|invalid api key|incorrect api key)", re.IGNORECASE)
#: Voyage's, of a model that it does not have.
_MODEL_WORDS: Final = re.compile(r"model \S{1,64} is not supported\. supported models are", re.IGNORECASE)
_SIZE_WORDS: Final = re.compile(
    r"(tokens per (request|submitted batch)|batch size|array too long|in one batch"
    r"|payload (too large|size exceeds)"
    r"|too many (inputs|items|texts|tokens per|tokens in batch)|number of texts"
    r"|at most \d+ (inputs|items|texts|requests))",
    re.IGNORECASE,
)
_LONG_WORDS: Final = re.compile(
    r"(maximum context length|context length|context window|too many tokens|too long"
    r"|maximum input length|must have less than \d+ tokens)",
    re.IGNORECASE,
)
_PLAIN_NAME: Final = re.compile(r"[\w.\-]{1,64}")

#: 4xx statuses that a bare number explains.
_BY_STATUS: Final[dict[int, tuple[Kind, str]]] = {
    401: (Kind.OPERATOR, "unauthorized"),
    402: (Kind.OPERATOR, "quota_exhausted"),
    403: (Kind.OPERATOR, "forbidden"),
    404: (Kind.OPERATOR, "not_found"),
    408: (Kind.TRANSIENT, "timeout"),
    409: (Kind.TRANSIENT, "server_error"),
    413: (Kind.TOO_LARGE, "too_large"),
    424: (Kind.TRANSIENT, "server_error"),
    425: (Kind.TRANSIENT, "server_error"),
    429: (Kind.THROTTLED, "rate_limited"),
    498: (Kind.OPERATOR, "unauthorized"),
    499: (Kind.TRANSIENT, "connection"),
}


def of_status(
    status: int,
    headers: Mapping[str, str],
    names: Iterable[object] = (),
    message: str = "",
    wall_s: Callable[[], float] = time.time,
) -> Failure:
    """The failure that an answer of that status stands for. ``names``: what the error calls itself, strings
    or not; ``message``: its wording, which is looked at and shown nowhere. ``headers`` as
    :func:`retry_after_s` takes them."""
    texts = [name for name in names if isinstance(name, str)]
    kind, cause = _verdict(status, {name.lower() for name in texts}, message)
    shown = [name for name in texts if _PLAIN_NAME.fullmatch(name)]
    waits = kind in (Kind.THROTTLED, Kind.TRANSIENT)
    retry_after = retry_after_s(headers, wall_s()) if waits else None
    return Failure(kind, cause, " ".join([f"status {status}", *shown]), retry_after)


def _verdict(status: int, names: set[str], message: str) -> tuple[Kind, str]:
    if names & _QUOTA_CODES:
        return Kind.OPERATOR, "quota_exhausted"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Kind.TRANSIENT, "server_error"
    if status in (400, 422):
        return _bad_request(names, message)
    return (Kind.OPERATOR, "rejected") if status >= 400 else (Kind.TRANSIENT, "unexpected_status")


def _bad_request(names: set[str], message: str) -> tuple[Kind, str]:
    if names & _KEY_CODES or _KEY_WORDS.search(message):
        return Kind.OPERATOR, "unauthorized"
    if names & _MODEL_CODES or _MODEL_WORDS.search(message):
        return Kind.OPERATOR, "not_found"
    if names & _LONG_CODES:
        return Kind.REFUSED, "text_too_long"
    if names & _SIZE_CODES or _SIZE_WORDS.search(message):
        return Kind.TOO_LARGE, "too_large"
    return Kind.REFUSED, "text_too_long" if _LONG_WORDS.search(message) else "refused"


# --- how long to wait -----------------------------------------------------------------------------------


def retry_after_s(headers: Mapping[str, str], now_wall_s: float) -> float | None:
    """Seconds that the peer asks us to wait, 0 to :data:`MAX_RETRY_AFTER_S`; None when it does not say.

    ``retry-after-ms`` comes first, then ``retry-after`` (seconds, or an HTTP date against ``now_wall_s``,
    seconds since the epoch; a date in the past is 0), then the ``x-ratelimit-reset-*`` of a limit that is
    used up, then ``x-ratelimit-reset`` (seconds, from now or since the epoch). What is negative or cannot
    be read counts as not said. Names are looked up in lower case: pass a case-insensitive mapping or
    lower-case keys.
    """
    asked = _number(headers.get("retry-after-ms"))
    if asked is not None:
        return min(asked / 1000, MAX_RETRY_AFTER_S)
    value = headers.get("retry-after")
    asked = _number(value)
    if asked is None and value:
        asked = _until(value, now_wall_s)
    if asked is None:
        asked = _reset_s(headers)
    if asked is None:
        asked = _number(headers.get("x-ratelimit-reset"))
        if asked is not None and asked > _AN_EPOCH_S:
            asked = max(0.0, asked - now_wall_s)
    return None if asked is None else min(asked, MAX_RETRY_AFTER_S)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(value: str, now_wall_s: float) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now_wall_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _reset_s(headers: Mapping[str, str]) -> float | None:
    """The longest reset among the limits with nothing left; the shortest of all when none says so (the
    limit that stopped us may have had a little left, less than the request needed)."""
    resets: list[float] = []
    exhausted: list[float] = []
    for limit in ("requests", "tokens"):
        reset = duration_s(headers.get(f"x-ratelimit-reset-{limit}", ""))
        if reset is None:
            continue
        resets.append(reset)
        if _number(headers.get(f"x-ratelimit-remaining-{limit}")) == 0:
            exhausted.append(reset)
    return max(exhausted) if exhausted else min(resets, default=None)


def allowance_of(headers: Mapping[str, str]) -> Allowance | None:
    """What a good answer says is left of the provider's limits, in the headers of OpenAI and those who took
    them over; None when it says nothing.

    A limit that is not told, or is told as none at all (0 or less, as from Azure), counts as not said.
    """
    requests, tokens = (_left(headers, limit) for limit in ("requests", "tokens"))
    return None if requests is None and tokens is None else Allowance(requests, tokens)


def _left(headers: Mapping[str, str], limit: str) -> Left | None:
    remaining = _number(headers.get(f"x-ratelimit-remaining-{limit}"))
    reset_s = duration_s(headers.get(f"x-ratelimit-reset-{limit}", ""))
    if remaining is None or reset_s is None or not _number(headers.get(f"x-ratelimit-limit-{limit}")):
        return None
    return Left(remaining, min(reset_s, MAX_RETRY_AFTER_S))


_UNITS_S: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|d|h|m|s)")


def duration_s(value: str) -> float | None:
    """Seconds of a duration such as ``12ms``, ``6m0s``, ``1h2m3.5s`` or a bare number of seconds; None
    when it is none of them."""
    value = value.strip()
    parts = _PART.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return _number(value)
