"""What the process says of itself: one state and one reason, derived, never set by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """``WAITING``: something in the environment fails and is being retried. ``HALTED``: an operator must
    act. In both the process stays alive and a member of its group."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    HALTED = "halted"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Status:
    """State and reason; ``reason`` names the part and the cause: ``embed: quota_exhausted``."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong: ``halting`` needs an operator."""

    where: str
    cause: str
    halting: bool


def assess(*, started: bool, stopping: bool, troubles: Iterable[Trouble]) -> Status:
    """The status that follows. The gravest trouble decides; all of them are named."""
    listed = list(troubles)
    reason = "; ".join(sorted({f"{trouble.where}: {trouble.cause}" for trouble in listed}))
    if stopping:
        return Status(State.STOPPING, reason)
    if any(trouble.halting for trouble in listed):
        return Status(State.HALTED, reason)
    if not started:
        return Status(State.STARTING, reason)
    return Status(State.WAITING if listed else State.RUNNING, reason)
