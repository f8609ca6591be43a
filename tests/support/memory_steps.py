"""The engine's place in tests of workflows: records steps as JSON, can be killed anywhere, and goes on after it."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from typing import Any

from node.workflow.workflow_id import WorkflowId


class Killed(BaseException):
    """The process died here."""


class MemorySteps:
    """`node.workflow.steps.Steps` in memory. Another one, made with the first one's ``recorded``: the restarted worker.

    ``dies_after``: the process dies when so many steps were done and recorded, and the next one was done but not yet
    recorded. ``patience_seconds``: how long `receive` really waits. ``on_sleep`` is called in each pause.
    """

    def __init__(
        self,
        recorded: list[tuple[str, str]] | None = None,
        *,
        workflow_id: str = "digest-pacs",
        dies_after: int | None = None,
        patience_seconds: float = 0.0,
        on_sleep: Callable[[], object] = lambda: None,
    ) -> None:
        self.recorded = [] if recorded is None else recorded
        self.workflow_id = workflow_id
        self.told: list[str] = []
        self.pauses: list[float] = []
        self.started: dict[str, tuple[Any, ...]] = {}
        self.messages: queue.Queue[Any] = queue.Queue()
        self._keys: set[str] = set()
        self._position = 0
        self._dies_after = dies_after
        self._patience_seconds = patience_seconds
        self._on_sleep = on_sleep

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function``, or give back what was recorded in its place."""
        if self._position < len(self.recorded):
            recorded_name, result = self.recorded[self._position]
            assert recorded_name == name
        else:
            result = json.dumps(function(*arguments))
            if self._dies_after == self._position:
                raise Killed
            self.recorded.append((name, result))
        self._position += 1
        return json.loads(result)

    def publish(self, state: str, reason: str | None = None) -> None:
        """Remember it."""
        self.told.append(state if reason is None else f"{state}: {reason}")

    def sleep(self, seconds: float) -> None:
        """Only count."""

        def pause() -> None:
            self.pauses.append(seconds)
            self._on_sleep()

        self.step("sleep", pause)

    def send(self, workflow_id: str, message: Any, key: str) -> None:
        """What the receiver does with a report: once for each key."""
        assert workflow_id == self.workflow_id
        if key not in self._keys:
            self._keys.add(key)
            self.messages.put(message)

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """The next message, waited for no longer than the test's patience."""
        assert topic == "commitment"

        def take() -> Any | None:
            try:
                return self.messages.get(timeout=min(timeout_seconds, self._patience_seconds or 0.001))
            except queue.Empty:
                return None

        return self.step("receive", take)

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Remember what was started, once for each id."""
        self.started[str(workflow_id)] = (queue, str(workflow_id.kind), *arguments)
