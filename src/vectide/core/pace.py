"""How fast a provider may be called: its limits per minute, and what its answers say is left of them. Pure.

Rates are kept so that no minute, wherever it begins, holds more than is allowed, and nearly all of it is
used: calls are spread evenly (a station asks :attr:`Pace.free_s` before each), at :data:`SHARE` of the rate.
What was not used for a moment may be made up for (:data:`SLACK_S`), because nobody asks at exactly the right
time. No call takes more than :data:`CALL_SHARE` of a minute's tokens, if it can be helped
(:attr:`Rates.call_tokens`). These are so chosen that the minute's budget is never exceeded:
``SHARE * (60 + SLACK_S) / 60 + CALL_SHARE <= 1``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_MINUTE_S: Final = 60.0
#: Of the allowed rate that is used, all the time.
SHARE: Final = 0.97
#: How far departures may be behind the even rate and still catch up.
SLACK_S: Final = 0.5
#: The largest part of a minute's tokens that one call takes.
CALL_SHARE: Final = 0.02
#: How much of the estimate's error the newest answer tells: one call may be unlike the others.
_NEWEST: Final = 0.1
#: By how much the next call may be larger than the one that was answered.
_UNLIKE: Final = 2.0
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Rates:
    """What a provider allows this process in a minute; None: no limit is known."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    @property
    def call_tokens(self) -> int | None:
        """The most tokens that one call should have: few enough that calls can be spread over the minute, and
        enough for all tokens to be used in as many calls as are allowed."""
        if self.tokens_per_minute is None:
            return None
        most = CALL_SHARE * self.tokens_per_minute
        if self.requests_per_minute is not None:
            most = max(most, self.tokens_per_minute / self.requests_per_minute)
        return max(1, int(most))


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one limit, and the seconds until all of it is there again."""

    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an answer said about the provider's limits; None: nothing."""

    requests: Left | None = None
    tokens: Left | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """A call that has departed: its tokens as they were estimated, and as they probably are."""

    estimated: int
    tokens: float


@dataclass(slots=True)
class _Meter:
    """One limit. ``free_s``: from when on the even rate allows the next call."""

    per_minute: float | None
    free_s: float = _NEVER
    held_until_s: float = _NEVER
    flying: float = 0.0

    def depart(self, amount: float, now_s: float) -> None:
        self.flying += amount
        if self.per_minute is not None:
            self.free_s = max(self.free_s, now_s - SLACK_S) + self._takes_s(amount)

    def correct(self, amount: float) -> None:
        """More was used (or less) than was thought when the call departed."""
        if self.per_minute is not None:
            self.free_s += self._takes_s(amount)

    def told(self, left: Left | None, needed: float, now_s: float) -> None:
        """What is on the way has perhaps not been counted by the provider when it said what is left."""
        if left is None:
            return
        enough = left.remaining - self.flying >= needed
        self.held_until_s = _NEVER if enough else now_s + left.reset_s

    def _takes_s(self, amount: float) -> float:
        return amount * _MINUTE_S / (SHARE * (self.per_minute or 1.0))


@dataclass(slots=True)
class Pace:
    """Shared by all calls of one provider. Tokens are charged as the provider bills them, which the answers
    teach: estimates are mostly too high, and would leave a good part of the allowed rate unused."""

    rates: Rates = Rates()
    _requests: _Meter = field(init=False)
    _tokens: _Meter = field(init=False)
    #: Tokens billed for one estimated; None until an answer said.
    _billed_share: float | None = None

    def __post_init__(self) -> None:
        self._requests = _Meter(self.rates.requests_per_minute)
        self._tokens = _Meter(self.rates.tokens_per_minute)

    @property
    def free_s(self) -> float:
        """When the next call may depart (monotonic seconds)."""
        requests, tokens = self._requests, self._tokens
        return max(requests.free_s, requests.held_until_s, tokens.free_s, tokens.held_until_s)

    def billed(self, estimated: int) -> float:
        """What so many estimated tokens are probably billed as."""
        return estimated * (1.0 if self._billed_share is None else self._billed_share)

    def depart(self, estimated: int, now_s: float) -> Charge:
        """A call with so many tokens, estimated, departs. Exactly one of :meth:`answered`, :meth:`ended` and
        :meth:`undo` follows."""
        charge = Charge(estimated, self.billed(estimated))
        self._requests.depart(1.0, now_s)
        self._tokens.depart(charge.tokens, now_s)
        return charge

    def answered(
        self, charge: Charge, now_s: float, billed: int | None = None, allowance: Allowance | None = None
    ) -> None:
        """The call was answered well: what was billed, and what is left, where the answer says."""
        self.ended(charge)
        if billed:
            self._tokens.correct(billed - charge.tokens)
            self._learn(billed / charge.estimated)
        if allowance is not None:
            self._requests.told(allowance.requests, 1.0, now_s)
            self._tokens.told(allowance.tokens, _UNLIKE * charge.tokens, now_s)

    def ended(self, charge: Charge) -> None:
        """The call failed: providers mostly count it all the same."""
        self._requests.flying -= 1.0
        self._tokens.flying -= charge.tokens

    def undo(self, charge: Charge) -> None:
        """The call was not made after all."""
        self.ended(charge)
        self._requests.correct(-1.0)
        self._tokens.correct(-charge.tokens)

    def _learn(self, share: float) -> None:
        known = self._billed_share
        self._billed_share = share if known is None else known + _NEWEST * (share - known)
