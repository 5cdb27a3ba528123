"""The limits per minute of embedding providers, as they enforce them: pure, with the time passed in.

From what they publish:

- OpenAI (platform.openai.com/docs/guides/rate-limits): requests and tokens, each a bucket that fills up
  evenly (``x-ratelimit-reset-*`` is the time until it is full); 429 with ``Retry-After``. 3,000 requests and
  1,000,000 tokens in the first paid tier of the embedding models.
- Voyage in MongoDB Atlas (mongodb.com/docs/voyageai/management/rate-limits): what was used "in the most
  recent minute"; 2,000 requests and 8,000,000 tokens for voyage-4 in the first tier; 3 and 10,000 without
  payment (docs.voyageai.com/docs/rate-limits). It says nothing of what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a call is let in, else the seconds until it would be; and the headers of the answer."""

    allowed: bool
    retry_after_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


class Limiter(Protocol):
    """Lets calls in, or not. A call that is not let in uses up nothing."""

    def admit(self, tokens: int, now_s: float) -> Admission: ...


@dataclass(slots=True)
class _Bucket:
    per_minute: float
    level: float
    at_s: float | None = None

    def fill(self, now_s: float) -> None:
        if self.at_s is not None:
            added = (now_s - self.at_s) * self.per_minute / MINUTE_S
            self.level = min(self.per_minute, self.level + added)
        self.at_s = now_s

    def until_s(self, level: float) -> float:
        return max(0.0, (level - self.level) * MINUTE_S / self.per_minute)


class Buckets:
    """OpenAI's."""

    def __init__(self, requests_per_minute: float, tokens_per_minute: float) -> None:
        self._requests = _Bucket(requests_per_minute, requests_per_minute)
        self._tokens = _Bucket(tokens_per_minute, tokens_per_minute)

    def admit(self, tokens: int, now_s: float) -> Admission:
        requests, buckets = self._requests, (self._requests, self._tokens)
        for bucket in buckets:
            bucket.fill(now_s)
        wait_s = max(requests.until_s(1), self._tokens.until_s(tokens))
        if wait_s == 0:
            requests.level -= 1
            self._tokens.level -= tokens
        headers = {} if wait_s == 0 else {"retry-after": f"{wait_s:.3f}"}
        for name, bucket in zip(("requests", "tokens"), buckets, strict=True):
            headers[f"x-ratelimit-limit-{name}"] = str(int(bucket.per_minute))
            headers[f"x-ratelimit-remaining-{name}"] = str(int(bucket.level))
            headers[f"x-ratelimit-reset-{name}"] = f"{bucket.until_s(bucket.per_minute) * 1000:.0f}ms"
        return Admission(wait_s == 0, wait_s, headers)


class MostRecentMinute:
    """Voyage's."""

    def __init__(self, requests_per_minute: float, tokens_per_minute: float) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._used = 0
        self._calls: deque[tuple[float, int]] = deque()

    def admit(self, tokens: int, now_s: float) -> Admission:
        while self._calls and self._calls[0][0] <= now_s - MINUTE_S:
            self._used -= self._calls.popleft()[1]
        if len(self._calls) + 1 <= self._requests and self._used + tokens <= self._tokens:
            self._calls.append((now_s, tokens))
            self._used += tokens
            return Admission(True)
        wait_s = self._calls[0][0] + MINUTE_S - now_s if self._calls else MINUTE_S
        return Admission(False, wait_s)
