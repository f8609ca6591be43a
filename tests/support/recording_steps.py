"""The engine's place in tests of workflows that wait for nothing: runs steps at once and keeps what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from node.workflow.workflow_id import WorkflowId


class RecordingSteps:
    """Runs each step at once, and keeps what a workflow did."""

    def __init__(self, workflow_id: str = "w", **instead: Callable[..., Any]) -> None:
        self.workflow_id = workflow_id
        self.names: list[str] = []
        self.told: list[str] = []
        self.started: list[tuple[Any, ...]] = []
        self.delays: list[float] = []
        self._instead = instead

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function``, or what stands in for the step of this name."""
        self.names.append(name)
        return self._instead.get(name, function)(*arguments)

    def publish(self, state: str, reason: str | None = None) -> None:
        """Keep it."""
        self.told.append(state if reason is None else f"{state}: {reason}")

    def sleep(self, seconds: float) -> None:
        """A study waits for nothing."""
        pytest.fail("a study must not wait in its queue")

    def receive(self, topic: str, timeout_seconds: float) -> None:
        """A study waits for nothing."""
        pytest.fail("a study must not wait in its queue")

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Keep what was started."""
        self.started.append((queue, str(workflow_id.kind), str(workflow_id), *arguments))
        self.delays.append(delay_seconds)
