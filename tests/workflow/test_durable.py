"""Waits of workflows last as long as asked whatever the clock; which errors end a workflow, and which the worker."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    InterfaceError,
    InternalError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from node.errors import DefectError
from node.workflow.durable import DurableSteps, DurableWork
from node.workflow.step_limits import StepLimit


def test_clock_that_was_set_back_does_not_prolong_a_wait() -> None:
    """A wait whose recorded end lies an hour ahead, because the clock was set back, lasts no longer than asked."""

    class SetBack(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) + 3600.0

    begun = time.monotonic()
    SetBack().sleep(0.05)
    assert time.monotonic() - begun < 3600.0


def test_clock_that_was_set_forward_ends_a_wait() -> None:
    """A wait whose recorded end has passed, because the clock was set forward, is over at once."""

    class SetForward(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) - 7200.0

    begun = time.monotonic()
    SetForward().sleep(3600.0)
    assert time.monotonic() - begun < 3600.0


class Mailbox(DurableSteps):
    """Steps that find a message at look number ``comes_at``; the recorded begin of a wait is ``shift`` seconds off."""

    def __init__(self, shift: float = 0.0, comes_at: int = 0) -> None:
        self.looks = 0
        self._shift, self._comes_at = shift, comes_at

    def step(self, name: str, function: Any, *arguments: Any) -> Any:
        """The moment that a clock which was set since has recorded."""
        return function(*arguments) + self._shift

    def _look(self, topic: str) -> Any:
        self.looks += 1
        return "message" if self.looks == self._comes_at else None


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 3600.0], ids=["right", "set back since"])
def test_silence_lasts_as_long_as_asked(shift: float) -> None:
    """Without a message the wait lasts exactly as long as asked, and the last look comes after it."""
    steps, begun = Mailbox(shift), time.monotonic()
    assert steps.receive("commitment", 0.7) is None
    assert 0.7 <= time.monotonic() - begun < 3600.0
    assert steps.looks == 3


def test_wait_that_passed_before_a_restart_is_not_repeated() -> None:
    """A wait whose recorded begin lies far back, also if the clock was only set forward, is over at once."""
    steps, begun = Mailbox(-7200.0), time.monotonic()
    assert steps.receive("commitment", 3600.0) is None
    assert time.monotonic() - begun < 3600.0


def test_number_of_looks_does_not_depend_on_the_clock() -> None:
    """Each look is a recorded step, so their number is the same however much of the wait has passed."""
    late, soon = Mailbox(-7200.0), Mailbox(-2.0)
    assert (late.receive("commitment", 2.0), soon.receive("commitment", 2.0)) == (None, None)
    assert late.looks == soon.looks


def test_an_hour_of_silence_costs_few_looks() -> None:
    """The pauses between looks grow, so that deliveries which wait an hour cost the database little."""
    steps = Mailbox(-7200.0)
    steps.receive("commitment", 3600.0)
    assert steps.looks < 40


@pytest.mark.parametrize("comes_at", [1, 2])
def test_message_ends_the_wait(comes_at: int) -> None:
    """A message that is already there is received without a pause, a later one at the next look."""
    steps, begun = Mailbox(comes_at=comes_at), time.monotonic()
    assert steps.receive("commitment", 3600.0) == "message"
    assert time.monotonic() - begun < 3600.0
    assert steps.looks == comes_at


class Uncounted:
    """Stands in for the crash counter of a workflow whose crashes are not counted."""

    left = False

    def leave_without_record(self) -> None:
        """Remember it."""
        self.left = True

    def crashed(self, workflow_id: str) -> int:
        """No process computes for it."""
        pytest.fail(workflow_id)


class ProcessEnds(BaseException):
    """The process ended here."""


def run_bound(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Uncounted:
    """Run a workflow that raises ``error``, as the engine would."""

    def end(status: int) -> None:
        assert status == 1
        raise ProcessEnds

    def workflow(_steps: Any) -> None:
        raise error

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(DurableSteps, "workflow_id", "w")
    crashes = Uncounted()
    try:
        DurableWork(crashes, lambda _name: StepLimit(60.0, "")).bound(workflow)()
    except ProcessEnds:
        assert crashes.left
    return crashes


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, Exception("database or disk is full")),
        InterfaceError("INSERT", {}, Exception("connection is closed")),
        InternalError("INSERT", {}, Exception("current transaction is aborted")),
        PoolTimeoutError("no connection within 30 s"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_database_that_takes_no_record_ends_the_worker(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends, uncounted as a crash, and the workflow is resumed at the next start."""
    assert run_bound(error, monkeypatch).left


@pytest.mark.parametrize(
    "error",
    [
        DataError("INSERT", {}, Exception("a value holds NUL")),
        StatementError("cannot be bound", "INSERT", {}, TypeError()),
        ArgumentError("no such column"),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_record_that_no_database_takes_ends_the_workflow(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start would meet the same error: the workflow ends with it, and the worker goes on."""
    with pytest.raises(DefectError):
        run_bound(error, monkeypatch)
