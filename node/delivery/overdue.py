"""A request to a destination that took longer than its limit is one that was not answered: it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from node.errors import OverdueError
from node.scu.commitment import CommitmentState
from node.scu.query import QueryState
from node.workflow.steps import Steps
from node.workflow.workflow_id import WorkflowId

T = TypeVar("T")


class TolerantSteps:
    """The `Steps` of a delivery: a step that took longer than its limit gives the record of an error that may pass."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    @property
    def workflow_id(self) -> str:
        """See `Steps`."""
        return self._steps.workflow_id

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """See `Steps`; the records are those of `delivery/records.py` and of the SCU, as plain values."""
        try:
            return self._steps.step(name, function, *arguments)
        except OverdueError as error:
            reason = str(error)
            if name == "send":
                answer = {"status": None, "is_delivered": False, "is_permanent": False, "reason": reason}
                return [answer for _ in arguments[0]]
            if name == "commit":
                return {"state": str(CommitmentState.UNANSWERED), "reason": reason}
            if name == "query":
                return {"state": str(QueryState.UNANSWERED), "reason": reason}
            if name == "plan":
                return {"trouble": reason}
            if name == "forget":  # retention deletes the records later
                return None
            raise

    def publish(self, state: str, reason: str | None = None) -> None:
        """See `Steps`."""
        self._steps.publish(state, reason)

    def sleep(self, seconds: float) -> None:
        """See `Steps`."""
        self._steps.sleep(seconds)

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """See `Steps`."""
        return self._steps.receive(topic, timeout_seconds)

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """See `Steps`."""
        self._steps.start(queue, workflow_id, *arguments, delay_seconds=delay_seconds)
