"""The states of studies and of deliveries. A reason stands beside a state, never inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class StudyState(StrEnum):
    """Where a study is."""

    RECEIVING = "receiving"
    STABLE = "stable"
    COMPARING = "comparing"
    COMPARED = "compared"
    SELECTED = "selected"
    SEGMENTED = "segmented"
    REPORTED = "reported"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting to be tried again"


class DeliveryState(StrEnum):
    """Where the results of a study are on their way to one destination."""

    STABLE = "stable"
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    COMMITTING = "committing"
    COMMITTED = "committed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Told:
    """What a workflow under way says of itself: a state, and a reason if there is more to say."""

    state: str
    reason: str | None = None

    def as_message(self) -> dict[str, Any]:
        """Plain JSON values, for the engine's database."""
        return {"state": str(self.state), "reason": self.reason}

    @staticmethod
    def from_message(message: Mapping[str, Any] | str) -> Told:
        """What ``as_message`` gave, or the text ``state: reason`` that glionode 0.1.0 recorded."""
        if isinstance(message, str):
            state, _, reason = message.partition(": ")
            return Told(state, reason or None)
        return Told(str(message["state"]), message["reason"])

    def __str__(self) -> str:
        return self.state if self.reason is None else f"{self.state}: {self.reason}"
