"""The reaction to every failure, as a full table."""

import pytest

from vectide.core.failures import (
    DeadLetter,
    Failure,
    FailurePolicy,
    Halt,
    Kind,
    Reaction,
    Split,
    Wait,
    backoff_s,
    decide,
)

POLICY = FailurePolicy(backoff_first_s=1, backoff_max_s=30, retry_after_max_s=3600, probe_s=60)
POISON, HALVES, WAIT = DeadLetter("cause"), Split(), Wait(1.0)


@pytest.mark.parametrize(
    ("kind", "strikes", "alone", "several"),
    [
        (Kind.OPERATOR, 0, Halt("cause", 60), Halt("cause", 60)),
        (Kind.OPERATOR, 99, Halt("cause", 60), Halt("cause", 60)),
        (Kind.THROTTLED, 0, WAIT, WAIT),
        (Kind.THROTTLED, 99, WAIT, WAIT),
        (Kind.REFUSED, 0, POISON, HALVES),
        (Kind.TOO_LARGE, 0, POISON, HALVES),
        (Kind.INVALID, 0, WAIT, WAIT),
        (Kind.INVALID, 1, WAIT, WAIT),
        (Kind.INVALID, 2, POISON, HALVES),
        (Kind.TRANSIENT, 0, WAIT, WAIT),
        (Kind.TRANSIENT, 1, WAIT, WAIT),
        (Kind.TRANSIENT, 2, WAIT, HALVES),
        (Kind.TRANSIENT, 5, WAIT, HALVES),
        (Kind.TRANSIENT, 6, POISON, HALVES),
    ],
)
def test_the_table_of_reactions(kind: Kind, strikes: int, alone: Reaction, several: Reaction) -> None:
    """Invariant 10: only what was refused, or failed while others succeeded, is held against a record."""
    for size, expected in ((1, alone), (2, several), (500, several)):
        assert (
            decide(Failure(kind, "cause"), size=size, attempt=0, strikes=strikes, policy=POLICY) == expected
        )


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.THROTTLED, Kind.INVALID, Kind.OPERATOR])
def test_without_strikes_no_number_of_attempts_condemns(kind: Kind) -> None:
    """Invariant 10: an outage lasts as long as it lasts."""
    for attempt in (0, 1, 10, 100_000):
        reaction = decide(Failure(kind, "cause"), size=1, attempt=attempt, strikes=0, policy=POLICY)
        assert isinstance(reaction, Wait | Halt)


@pytest.mark.parametrize(
    ("kind", "retry_after_s", "attempt", "delay_s"),
    [
        (Kind.THROTTLED, 7.0, 0, 7.0),
        (Kind.THROTTLED, 7.0, 9, 7.0),
        (Kind.THROTTLED, 0.0, 0, 1.0),
        (Kind.THROTTLED, 1e9, 0, 3600.0),
        (Kind.THROTTLED, None, 3, 8.0),
        (Kind.THROTTLED, -5.0, 3, 8.0),
        (Kind.TRANSIENT, 7.0, 0, 7.0),
        (Kind.TRANSIENT, 7.0, 9, 30.0),
        (Kind.TRANSIENT, 1e9, 0, 3600.0),
        (Kind.TRANSIENT, None, 3, 8.0),
        (Kind.INVALID, None, 1, 2.0),
    ],
)
def test_how_long_to_wait(kind: Kind, retry_after_s: float | None, attempt: int, delay_s: float) -> None:
    """Case 123: what the peer asks for is obeyed, within reason."""
    failure = Failure(kind, "cause", retry_after_s=retry_after_s)
    assert decide(failure, size=8, attempt=attempt, strikes=0, policy=POLICY) == Wait(delay_s)


def test_back_off_doubles_up_to_its_limit() -> None:
    assert [backoff_s(attempt, POLICY) for attempt in (0, 1, 2, 4, 5, 6, 10**6)] == [1, 2, 4, 16, 30, 30, 30]
