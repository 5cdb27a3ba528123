"""What health checks answer: a pure function of the service's status and of its main loop's last turn.

| state | /livez | /readyz | why |
|---|---|---|---|
| starting | 200 | 503 | a dependency that cannot be reached yet is waited for, alive |
| running | 200 | 200 | |
| waiting | 200 | 200 | the environment fails and is retried: no restart or roll-back would help |
| halted | 200 | 503 | an operator must act: a restart would not help and would hide the reason |
| stopping | 200 | 503 | draining |
| any, main loop stalled | 503 | 503 | only a restart helps |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vectide.core.lifecycle import State, Status

#: The states in which traffic and roll-outs may count on the service.
READY_STATES: Final = frozenset({State.RUNNING, State.WAITING})


@dataclass(frozen=True, slots=True)
class Health:
    """One answer to "how are you?".

    ``live``: restarting the process would not help. ``ready``: it does its work, or would if its
    dependencies answered. ``state`` is the name of the lifecycle state, ``reason`` one line for a person,
    empty when there is nothing to say.
    """

    live: bool
    ready: bool
    state: str
    reason: str = ""


def health_of(status: Status, *, beat_age_s: float, max_beat_age_s: float) -> Health:
    """Judge the service by its status and by the seconds since its main loop last turned."""
    state = status.state.value
    if beat_age_s > max_beat_age_s:
        stalled = f"the main loop has not turned for {beat_age_s:.0f} s (limit {max_beat_age_s:.0f} s)"
        return Health(live=False, ready=False, state=state, reason=stalled)
    return Health(live=True, ready=status.state in READY_STATES, state=state, reason=status.reason)
