"""A step is over when its time limit is, or when its workflow is cancelled, whatever its function still does.

The function of a step runs in a thread of its own, for which the workflow's thread waits. No thread can be ended from
outside. If a step is over before its function is, the functions registered by `StepUnderWay.breaking` are called; they
end what the function waits for, such as a process that computes. A thread that stays nevertheless is left behind, and
what it returns is dropped. A worker that has left too many threads behind ends itself, and is started again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, NamedTuple, NoReturn, TypeVar

import structlog

from node.config import Config
from node.errors import OverdueError

T = TypeVar("T")

log = structlog.get_logger()

MOST_LEFT_BEHIND = 16
"""Threads that a worker leaves behind before it ends itself: each may hold a connection and the memory of its step."""

_LOOK_SECONDS = 1.0  # the limit may change meanwhile (`StepUnderWay.restart`)
_BREAK_SECONDS = 2.0  # for a function to return after what it waited for has ended


class StepLimit(NamedTuple):
    """How long a step may take, and the key of the config that says so."""

    seconds: float
    key: str


def limits_of(config: Config) -> Callable[[str], StepLimit]:
    """The function that returns the limit of the step with a given name."""
    section = config.limits
    seconds = {"tell": "notice_seconds", "hourly": "retention_seconds"}
    seconds |= {name: f"{name}_seconds" for name in ("compare", "reselect", "segment", "report", "refuse")}
    request = StepLimit(section.request_timeouts * config.delivery.timeout_seconds, "limits.request_timeouts")

    def limit_of(name: str) -> StepLimit:
        if name in ("send", "commit", "query"):
            return request
        key = seconds.get(name, "other_seconds")
        return StepLimit(getattr(section, key), f"limits.{key}")

    return limit_of


class StepUnderWay:
    """One step that this process runs. The monotonic clock counts its seconds."""

    def __init__(self, name: str, limit: StepLimit) -> None:
        self.name = name
        self._own_limit = limit
        self._lock = threading.Lock()
        self._breakers: list[Callable[[], None]] = []
        self.is_over = False
        self.restart()

    def restart(self, limit: StepLimit | None = None) -> None:
        """Count the seconds anew: the step's work begins now, or begins again. ``limit``: of what precedes the work."""
        self.limit = limit or self._own_limit
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the step's work has taken so far."""
        return time.monotonic() - self._begun

    @contextmanager
    def breaking(self, end: Callable[[], None]) -> Iterator[None]:
        """While the block runs, ``end`` is called if the step is over; at once if it is over already."""
        with self._lock:
            self._breakers.append(end)
            is_over = self.is_over
        try:
            if is_over:
                end()
            yield
        finally:
            with self._lock:
                self._breakers.remove(end)

    def break_off(self) -> None:
        """End what the step waits for."""
        with self._lock:
            self.is_over = True
            breakers = list(self._breakers)
        for end in breakers:
            end()


class WorkflowRun:
    """One workflow that a thread of this worker runs, and the step that it runs now, if any."""

    def __init__(self, workflow_id: str, runs: WorkflowRuns) -> None:
        self.workflow_id = workflow_id
        self.step: StepUnderWay | None = None
        self.runs = runs
        self.cancelled: Future[None] = Future()

    def raise_cancelled(self) -> NoReturn:
        """End the workflow as the engine ends cancelled ones: without a record of the present step."""
        from dbos import error as dbos_errors

        raise dbos_errors.DBOSWorkflowCancelledError(f"workflow {self.workflow_id} was cancelled")


_RUN: ContextVar[WorkflowRun | None] = ContextVar("workflow_run", default=None)
_STEP: ContextVar[StepUnderWay | None] = ContextVar("step_under_way", default=None)


class WorkflowRuns:
    """The workflows that this worker runs.

    Args:
        limit_of: returns the time limit of the step with this name.
        end_worker: called with an event to log if too many threads were left behind; it does not return.
        count_crash: called with the id of a workflow in which a process crashed that computed for it.
    """

    def __init__(
        self,
        limit_of: Callable[[str], StepLimit],
        end_worker: Callable[[str], Any],
        count_crash: Callable[[str], int],
    ) -> None:
        self.limit_of = limit_of
        self.count_crash = count_crash
        self._end_worker = end_worker
        self._lock = threading.Lock()
        self._runs: list[WorkflowRun] = []
        self._left_behind: list[Future[Any]] = []

    @contextmanager
    def running(self, workflow_id: str) -> Iterator[None]:
        """This thread runs the workflow until the block ends."""
        run = WorkflowRun(workflow_id, self)
        with self._lock:
            self._runs.append(run)
        token = _RUN.set(run)
        try:
            yield
        finally:
            _RUN.reset(token)
            with self._lock:
                self._runs.remove(run)

    def now(self) -> list[WorkflowRun]:
        """The workflows that run at this moment."""
        with self._lock:
            return list(self._runs)

    def cancel(self, workflow_ids: Collection[str]) -> None:
        """End the steps and pauses of these workflows."""
        for run in self.now():
            if run.workflow_id in workflow_ids and not run.cancelled.done():
                step = run.step  # the workflow's own thread may end it at this moment
                log.warning("workflow_cancelled", workflow_id=run.workflow_id, step=step and step.name)
                run.cancelled.set_result(None)

    def leave_behind(self, future: Future[Any]) -> None:
        """Note a thread that could not be ended; end the worker if there are too many."""
        with self._lock:
            self._left_behind = [each for each in [*self._left_behind, future] if not each.done()]
            count = len(self._left_behind)
        log.error("step_thread_left_behind", count=count)
        if count > MOST_LEFT_BEHIND:
            self._end_worker("too_many_threads_left_behind")


def within_limit(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function`` as the step ``name`` of the workflow that this thread runs.

    Raises:
        OverdueError: the step's time limit is over.
        DBOSWorkflowCancelledError: the workflow was cancelled.
    """
    run = _RUN.get()
    if run is None:
        return function(*arguments)
    step = StepUnderWay(name, run.runs.limit_of(name))
    executor = ThreadPoolExecutor(1, thread_name_prefix=f"step-{name}")
    context = copy_context()
    context.run(_STEP.set, step)
    run.step = step
    future: Future[Any] = executor.submit(context.run, function, *arguments)
    executor.shutdown(wait=False)
    try:
        while not future.done():
            left_seconds = max(0.0, step.limit.seconds - step.seconds)
            wait((future, run.cancelled), min(left_seconds, _LOOK_SECONDS), FIRST_COMPLETED)
            if future.done():
                break
            if run.cancelled.done():
                _break_off(run, step, future)
                run.raise_cancelled()
            if step.seconds >= step.limit.seconds:
                _break_off(run, step, future)
                log.error("step_overdue", step=name, limit_seconds=step.limit.seconds)
                raise OverdueError(f"step {name} took longer than {step.limit.seconds:g} s ({step.limit.key})")
        result: T = future.result()
        return result
    finally:
        run.step = None


def _break_off(run: WorkflowRun, step: StepUnderWay, future: Future[Any]) -> None:
    step.break_off()
    wait([future], _BREAK_SECONDS)
    if not future.done():
        run.runs.leave_behind(future)


def pause(seconds: float) -> None:
    """Wait; if this thread runs a workflow that is cancelled meanwhile, the workflow ends.

    Raises:
        DBOSWorkflowCancelledError: the workflow was cancelled.
    """
    run = _RUN.get()
    if run is None:
        threading.Event().wait(seconds)
        return
    wait([run.cancelled], seconds)
    if run.cancelled.done():
        run.raise_cancelled()


def step_under_way() -> StepUnderWay | None:
    """The step that this thread works for; None: no step with a limit, as in ``glionode process``."""
    return _STEP.get()


def count_crash() -> int:
    """Count a crash of a process that computed for the workflow that this thread works for; all its crashes so far."""
    run = _RUN.get()
    return 0 if run is None else run.runs.count_crash(run.workflow_id)
