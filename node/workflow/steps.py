"""The effects that a workflow may have. ``durable.DurableSteps`` records them; ``DirectSteps`` runs steps at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from node.workflow.workflow_id import WorkflowId

T = TypeVar("T")


class Steps(Protocol):
    """A workflow's interface to the engine. Outside its steps, a workflow has no effects."""

    @property
    def workflow_id(self) -> str:
        """The id under which the workflow was enqueued."""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function`` and record its result; after a restart, return the recorded result instead."""

    def publish(self, state: str, reason: str | None = None) -> None:
        """Publish the workflow's state for command line and status page; ``reason``: why it is in this state."""

    def sleep(self, seconds: float) -> None:
        """Wait; a restart continues the wait, which is never longer than ``seconds``, even if the clock jumped."""

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """The next message of ``topic`` that was sent to this workflow; None if none came in time."""

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Enqueue another workflow on ``queue``; calling again with the same id has no effect."""


class DirectSteps:
    """Runs steps at once and records nothing: for ``glionode process``, which has no queue and no restart."""

    workflow_id = ""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``."""
        return function(*arguments)

    def publish(self, state: str, reason: str | None = None) -> None:
        """Nothing is published: no other process reads the state of this workflow."""

    def sleep(self, seconds: float) -> None:
        """Does not wait: only deliveries and notices do, and there are none."""

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """No process sends messages to this workflow."""
        return None

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Enqueues nothing: there is no queue."""
