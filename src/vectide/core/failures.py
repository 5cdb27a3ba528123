"""What a failure means and what to do about it. Pure: errors come in as data, reactions go out.

The four reactions (wait, split, dead-letter, halt) and the rule for choosing one are the whole policy;
adapters only say what kind of failure they saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an adapter saw."""

    #: The environment failed: time-outs, connections, 5xx, a server that starts. Retrying can succeed.
    TRANSIENT = "transient"
    #: The peer asked us to slow down (429); ``retry_after_s`` may say how long.
    THROTTLED = "throttled"
    #: The peer refused this batch for what is in it; which member is to blame is unknown.
    REFUSED = "refused"
    #: The batch is too large for the peer.
    TOO_LARGE = "too_large"
    #: The answer is unusable: wrong count, order or dimension, not finite, all zero.
    INVALID = "invalid"
    #: Only an operator can help: credentials, quota, a model or a collection that is gone.
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed call. ``cause`` is a short name from a closed set (a metric label); ``detail`` is for logs
    and must hold neither row content nor secrets. ``retry_after_s`` is what the peer asked for."""

    kind: Kind
    cause: str
    detail: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Try the same batch again after ``delay_s``."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Split:
    """Send the two halves separately."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The single member of the batch can never succeed."""

    cause: str


@dataclass(frozen=True, slots=True)
class Halt:
    """An operator must act; probe again after ``probe_s``."""

    cause: str
    probe_s: float


Reaction = Wait | Split | DeadLetter | Halt


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """Numbers of the policy; times in seconds.

    A *strike* is a failure of one batch between clear successes of others: only strikes can make a failing
    call count as the batch's own fault, so that an outage never condemns a record (invariant 10). Where
    nothing else succeeds there are none. So after ``split_after_attempts`` a batch waits in halves: that
    condemns nothing, but halves without a culprit go free.
    """

    backoff_first_s: float = 0.25
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 3600.0
    probe_s: float = 30.0
    split_after_strikes: int = 2
    split_after_attempts: int = 5
    poison_after_strikes: int = 6
    invalid_after_strikes: int = 2


DEFAULT_POLICY = FailurePolicy()


def backoff_s(attempt: int, policy: FailurePolicy) -> float:
    """Upper bound of the back-off before attempt ``attempt + 1`` (``attempt`` counts from 0), unjittered."""
    return min(policy.backoff_max_s, policy.backoff_first_s * 2.0 ** min(attempt, 30))


def decide(
    failure: Failure, *, size: int, attempt: int, strikes: int, policy: FailurePolicy = DEFAULT_POLICY
) -> Reaction:
    """The reaction to the failure of a batch of ``size`` members.

    ``attempt`` counts the earlier failures of this batch, ``strikes`` its strikes including this failure.
    """
    match failure.kind:
        case Kind.OPERATOR:
            return Halt(failure.cause, policy.probe_s)
        case Kind.THROTTLED:
            return Wait(_throttle_s(failure, attempt, policy))
        case Kind.REFUSED | Kind.TOO_LARGE:
            return Split() if size > 1 else DeadLetter(failure.cause)
        case Kind.INVALID:
            enough = policy.invalid_after_strikes
        case Kind.TRANSIENT:
            enough = policy.poison_after_strikes
    if size > 1 and strikes >= policy.split_after_strikes:
        return Split()
    if size == 1 and strikes >= enough:
        return DeadLetter(failure.cause)
    wait_s = backoff_s(attempt, policy)
    return Wait(max(wait_s, min(failure.retry_after_s or 0.0, policy.retry_after_max_s)))


def _throttle_s(failure: Failure, attempt: int, policy: FailurePolicy) -> float:
    asked = failure.retry_after_s
    if asked is None or asked < 0:
        return backoff_s(attempt, policy)
    return min(max(asked, policy.backoff_first_s), policy.retry_after_max_s)
