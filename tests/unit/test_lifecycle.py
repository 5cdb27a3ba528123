"""One state and one reason, derived from what is wrong."""

import pytest

from vectide.core.lifecycle import State, Status, Trouble, assess

SLOW = Trouble("embed", "rate_limited", halting=False)
POOR = Trouble("embed", "quota_exhausted", halting=True)
LOST = Trouble("kafka shop", "topic_gone", halting=True)


@pytest.mark.parametrize(
    ("started", "stopping", "troubles", "expected"),
    [
        (False, False, [], Status(State.STARTING)),
        (False, False, [SLOW], Status(State.STARTING, "embed: rate_limited")),
        (False, False, [POOR], Status(State.HALTED, "embed: quota_exhausted")),
        (True, False, [], Status(State.RUNNING)),
        (True, False, [SLOW], Status(State.WAITING, "embed: rate_limited")),
        (True, False, [POOR], Status(State.HALTED, "embed: quota_exhausted")),
        (True, False, [SLOW, POOR], Status(State.HALTED, "embed: quota_exhausted; embed: rate_limited")),
        (True, False, [LOST, POOR], Status(State.HALTED, "embed: quota_exhausted; kafka shop: topic_gone")),
        (True, False, [SLOW, SLOW], Status(State.WAITING, "embed: rate_limited")),
        (True, True, [], Status(State.STOPPING)),
        (True, True, [POOR], Status(State.STOPPING, "embed: quota_exhausted")),
        (False, True, [], Status(State.STOPPING)),
    ],
)
def test_the_table_of_states(
    started: bool, stopping: bool, troubles: list[Trouble], expected: Status
) -> None:
    assert assess(started=started, stopping=stopping, troubles=troubles) == expected


def test_the_reason_does_not_depend_on_the_order_of_the_troubles() -> None:
    told = {
        assess(started=True, stopping=False, troubles=each).reason for each in ([SLOW, LOST], [LOST, SLOW])
    }
    assert len(told) == 1
