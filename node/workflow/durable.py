"""Runs workflows on the durable engine: records their steps, and ends the process if a step cannot be recorded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import structlog

from node.errors import DefectError, UnreadableRecordError
from node.workflow.crash_counter import CrashCounter
from node.workflow.records import recorded_step
from node.workflow.states import NORMAL_PRIORITY, PublishedState
from node.workflow.step_limits import StepLimit, WorkflowRuns, pause, within_limit
from node.workflow.takeover import RunningWorkflows
from node.workflow.workflow_id import WorkflowId

if TYPE_CHECKING:
    from dbos import EnqueueOptions
    from sqlalchemy.exc import SQLAlchemyError

T = TypeVar("T")

log = structlog.get_logger()

_FIRST_ROUND_SECONDS, _ROUND_GROWTH = 0.5, 4 / 3
# The engine records the current time plus this value as the end of its wait. The end is then in the past even if the
# clock is set back before a restart reads it.
_NO_WAIT_SECONDS = -100 * 365 * 86400.0
_INHERITED = "DBOS.getStatus"
"""The name of the step that reads what a child inherits: that of the engine's own step in records of 0.1.0."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child workflow has from its parent; ``priority`` None: glionode 0.1.0 recorded none."""

    attributes: dict[str, Any]
    priority: int | None = None


class DurableSteps:
    """Steps recorded by the engine; usable inside a running workflow only."""

    @property
    def workflow_id(self) -> str:
        """The id of the workflow that runs in this thread."""
        from dbos import DBOS

        return str(DBOS.workflow_id)

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``; the engine records its result under the step's position in the workflow.

        The step ends within its limit (`step_limits`).

        Raises:
            UnreadableRecordError: the recorded result cannot be read.
        """
        from dbos import DBOS

        is_called = False

        def called(*given: Any) -> T:
            nonlocal is_called
            is_called = True
            return within_limit(name, function, *given)

        try:
            return DBOS.run_step({"name": name}, called, *arguments)
        except (UnreadableRecordError, TypeError) as error:
            if is_called:
                raise
            raise self._unreadable(f"operation_outputs, step '{name}'", error) from None

    def _unreadable(self, place: str, error: Exception) -> UnreadableRecordError:
        """The error that names the record. The engine raises TypeError for a form that it does not know."""
        why = str(error) if isinstance(error, UnreadableRecordError) else "it names an unknown form"
        return UnreadableRecordError(f"engine.database: workflow {self.workflow_id}, {place}: {why}")

    def publish(self, state: str, reason: str | None = None) -> None:
        """Publish state and reason as an event of the workflow, which ``WorkflowClient`` reads."""
        from dbos import DBOS

        DBOS.set_event("state", PublishedState(state, reason).as_message())

    def sleep(self, seconds: float) -> None:
        """Wait until a recorded time.

        The engine's own sleep is not used: after a restart it relies on the clock alone, and if the clock was set back,
        it waits longer by as much.
        """
        until = self.step("sleep", lambda: time.time() + seconds)
        pause(min(seconds, max(0.0, until - time.time())))

    def receive(self, topic: str, timeout_seconds: float) -> Any | None:
        """The next message of ``topic``; recorded, so that a restart receives the same message.

        The engine's own wait is not used, for the reason given at ``sleep``, and because it queries the database twice
        a second for each waiting workflow. Here the database is queried in rounds, each a third longer than the one
        before: the delay in finding a message is at most about a third of the time waited, and an hour takes about
        thirty rounds.
        """
        begun = self.step("wait", time.time)
        # the clock gives only the time that passed before a restart; from here on the monotonic clock is used
        passed = min(timeout_seconds, max(0.0, time.time() - begun))
        origin = time.monotonic() - passed
        for end in _rounds(timeout_seconds):  # the same number after a restart: each look is a recorded step
            message = self._look(topic)
            if message is not None:
                return message
            pause(max(0.0, origin + end - time.monotonic()))
        return self._look(topic)

    def _look(self, topic: str) -> Any | None:
        """The message that has arrived by now, if any; recorded."""
        from dbos import DBOS

        try:
            return DBOS.recv(topic, _NO_WAIT_SECONDS)
        except (UnreadableRecordError, TypeError) as error:
            raise self._unreadable(f"notifications or operation_outputs, topic '{topic}'", error) from None

    def start(self, queue: str, workflow_id: WorkflowId, *arguments: Any, delay_seconds: float = 0.0) -> None:
        """Enqueue a child workflow, with the attributes and the priority of its parent."""
        from dbos import DBOS

        inherited = recorded_step(self, _INHERITED, Inherited, self._inherited)
        options: EnqueueOptions = {
            "queue_name": queue,
            "workflow_name": str(workflow_id.kind),
            "workflow_id": str(workflow_id),
            "priority": inherited.priority or NORMAL_PRIORITY,
        }
        options["attributes"] = dict(inherited.attributes)
        if delay_seconds > 0:
            options["delay_seconds"] = delay_seconds
        DBOS.enqueue_workflow_with_options(options, *arguments)

    def _inherited(self) -> Inherited:
        from dbos import DBOS

        status = DBOS.get_workflow_status(self.workflow_id)
        if status is None:
            return Inherited({})
        return Inherited(dict(status.attributes or {}), status.priority)


class DurableWork:
    """The workflows that this process runs. It ends the process if the database cannot record their steps.

    Args:
        limit_of: returns the time limit of the step with this name.
    """

    def __init__(self, crashes: CrashCounter, limit_of: Callable[[str], StepLimit]) -> None:
        self.crashes = crashes
        self.running = RunningWorkflows()
        self.runs = WorkflowRuns(limit_of, self.end, crashes.crashed)
        self._ending = threading.Lock()

    def bound(self, function: Callable[..., Any], is_counted: bool = False) -> Callable[..., Any]:
        """``function`` as the engine calls it. ``is_counted``: crashes of the worker in it are counted.

        An error of the database ends the process. A record that cannot be read ends the workflow, if other steps were
        recorded after it. A programming error ends the workflow. This includes an error that the database raises
        because of a value or statement: it would occur again after each restart of the worker.
        """
        from dbos import error as dbos_errors
        from sqlalchemy.exc import SQLAlchemyError

        steps = DurableSteps()

        def workflow(*arguments: Any) -> Any:
            workflow_id = steps.workflow_id
            counted = self.crashes.counted(workflow_id) if is_counted else nullcontext()
            with self.running.running(workflow_id), self.runs.running(workflow_id), counted:
                try:
                    return function(steps, *arguments)
                except SQLAlchemyError as error:
                    if _is_defect(error):
                        raise DefectError(f"{type(error).__name__} while a step was recorded") from None
                    # Raised by the engine, never by a step. The engine would now drop the workflow, or end it for good
                    # with this error; after the end of the process it is recovered at the next start.
                    self.end("worker_cannot_record", type(error).__name__)
                except dbos_errors.DBOSUnexpectedStepError as error:
                    unreadable = _met_before(error)
                    if unreadable is None:
                        raise
                    # the workflow took another way at a record that cannot be read than the one recorded after it
                    raise unreadable from None
                except SystemExit:  # the engine does not record SystemExit, and would resume the workflow for ever
                    raise DefectError("a step tried to end the worker") from None

        workflow.__qualname__ = f"{function.__qualname__}.workflow"
        return workflow

    def end(self, event: str, kind: str | None = None) -> NoReturn:
        """End the process, so that it is started again."""
        with self._ending:  # only one of several threads logs the event
            log.error(event, kind=kind)
            self.crashes.leave_without_record()
            os._exit(1)


def _met_before(error: BaseException) -> UnreadableRecordError | None:
    """The unreadable record while the handling of which ``error`` was raised; None: there was none."""
    met = error.__context__
    while met is not None and not isinstance(met, UnreadableRecordError):
        met = met.__context__
    return met


def _is_defect(error: SQLAlchemyError) -> bool:
    """True if the database or its library would refuse the value or statement at any time, not only now."""
    from sqlalchemy.exc import ArgumentError, CompileError, DataError, StatementError

    return isinstance(error, ArgumentError | CompileError | DataError) or type(error) is StatementError


def _rounds(timeout_seconds: float) -> Iterator[float]:
    """The end of each round of a wait, in seconds from the begin of the wait; the last is ``timeout_seconds``."""
    end, seconds = 0.0, _FIRST_ROUND_SECONDS
    while end < timeout_seconds:
        end = min(end + seconds, timeout_seconds)
        yield end
        seconds *= _ROUND_GROWTH
