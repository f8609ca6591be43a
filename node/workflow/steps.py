"""What a workflow may do besides computing. ``engine.DurableSteps`` records it; ``DirectSteps`` does it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from node.workflow.workflow_id import WorkflowId

T = TypeVar("T")


class Steps(Protocol):
    """A workflow's way to the engine. Outside its steps a workflow has no effects."""

    @property
    def workflow_id(self) -> str:
        """The id it was enqueued under."""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``; its result is recorded and given back instead of calling again after a restart."""

    def publish(self, state: str, reason: str | None = None) -> None:
        """Publish how far the workflow is, for command line and status page; ``reason``: if there is more to say."""

    def sleep(self, seconds: float) -> None:
        """Wait; what remains of the wait survives a restart, and is never more than ``seconds`` if the clock jumped."""

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """The next message of ``topic`` that was sent to this workflow; None if none came in time."""

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Start another workflow on ``queue``; once, however often this is called with one id."""


class DirectSteps:
    """Runs steps at once and records nothing: for ``glionode process``, which has no queue and no restart."""

    workflow_id = ""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``."""
        return function(*arguments)

    def publish(self, state: str, reason: str | None = None) -> None:
        """Nothing is published: no other process looks at this workflow."""

    def sleep(self, seconds: float) -> None:
        """Never needed: nothing is delivered."""

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """Nobody sends."""
        return None

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Never needed: nothing is delivered."""
