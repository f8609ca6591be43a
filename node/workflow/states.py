"""The states of studies, deliveries and notices. A reason is a separate field, never part of a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class StudyState(StrEnum):
    """How far a study is, or how its processing ended."""

    RECEIVING = "receiving"
    STABLE = "stable"
    COMPARING = "comparing"
    COMPARED = "compared"
    RESELECTED = "reselected"
    """A chosen series cannot become a volume: the study goes on with another selection."""
    SELECTED = "selected"
    SEGMENTED = "segmented"
    REPORTED = "reported"
    DELIVERED = "delivered"
    PRESENT = "present"
    COMMITTED = "committed"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting to be tried again"


class DeliveryState(StrEnum):
    """How far the delivery of a study's results to one destination is, or how it ended."""

    STABLE = "stable"
    """The delivery is in its queue; no worker has begun it."""
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    COMMITTING = "committing"
    PRESENT = "present"
    """A query found the instances at the destination, which did not commit to them."""
    COMMITTED = "committed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NoticeState(StrEnum):
    """How far a notice to humans is, or how it ended."""

    STABLE = "stable"
    RETRYING = "retrying"
    TOLD = "told"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE_STATUSES = ("ENQUEUED", "PENDING", "DELAYED")
"""The engine's status of a workflow that is not over."""

NORMAL_PRIORITY = 30
"""The priority of a workflow that no rule names; workflows of lower numbers are begun first."""

UNREADABLE = "unreadable"
"""Attribute of a workflow that the engine could never begin: what of it cannot be read."""

CRASHED_TOO_OFTEN = "the worker died at it too often (engine.max_recoveries)"
"""The reason of a study in whose processing workers crashed too often."""


@dataclass(frozen=True, slots=True)
class PublishedState:
    """The state that a running workflow published, and the reason for it, if any."""

    state: str
    reason: str | None = None

    def as_message(self) -> dict[str, Any]:
        """Plain JSON values for the engine's database, which a later version can read even if this class has moved."""
        return {"state": str(self.state), "reason": self.reason}

    @staticmethod
    def from_message(message: Any) -> PublishedState:
        """The state that ``as_message`` gave, or the text ``state: reason`` that glionode 0.1.0 recorded.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(message, str):
            state, _, reason = message.partition(": ")
            return PublishedState(state, reason or None)
        if isinstance(message, Mapping):
            state, reason = message.get("state", ""), message.get("reason", "")
            if state and isinstance(state, str) and (reason is None or isinstance(reason, str)):
                return PublishedState(state, reason)
        raise ValueError("no state and reason")


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The delivery of a study's results to one destination: its state, and the reason for it, if any."""

    state: DeliveryState
    reason: str | None = None

    def __str__(self) -> str:
        return str(self.state) if self.reason is None else f"{self.state}: {self.reason}"
