"""The worker's look at its own steps: it ends those of cancelled workflows, and publishes how long each one takes.

The ages are seconds of this worker's monotonic clock, so no two machines' clocks are compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog

from node.workflow.step_limits import WorkflowRun, WorkflowRuns
from node.workflow.tables import ENGINE_WORKFLOWS, STEPS

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""The pause between two looks for cancelled workflows."""


class StepWatch:
    """One worker's look. Time is passed in, in monotonic seconds."""

    def __init__(self, tables: sa.Engine, identity: str, runs: WorkflowRuns, publish_seconds: float) -> None:
        self._tables = tables
        self._identity = identity
        self._runs = runs
        self._publish_seconds = publish_seconds
        self._next_time: float | None = None
        self._is_empty = False

    def look(self, now: float) -> None:
        """End what was cancelled; publish the ages if it is time to.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        runs = self._runs.now()
        if runs:
            self._runs.cancel(self._cancelled({run.workflow_id for run in runs}))
        if self._next_time is None or now >= self._next_time:
            self._next_time = now + self._publish_seconds
            self._publish(runs)

    def _cancelled(self, workflow_ids: set[str]) -> set[str]:
        engine = ENGINE_WORKFLOWS.c
        query = sa.select(engine.workflow_uuid).where(
            engine.workflow_uuid.in_(sorted(workflow_ids)), engine.status == "CANCELLED"
        )
        with self._tables.connect() as connection:
            return set(connection.execute(query).scalars())

    def _publish(self, runs: list[WorkflowRun]) -> None:
        rows = {}
        for run in runs:
            step = run.step
            if step is not None:
                ages = {"age_seconds": step.seconds, "limit_seconds": step.limit.seconds}
                names = {"workflow_id": run.workflow_id, "executor_id": self._identity, "step": step.name}
                rows[run.workflow_id] = names | ages
        if not rows and self._is_empty:
            return
        with self._tables.begin() as connection:
            mine = sa.or_(STEPS.c.executor_id == self._identity, STEPS.c.workflow_id.in_(sorted(rows)))
            connection.execute(sa.delete(STEPS).where(mine))
            if rows:
                connection.execute(sa.insert(STEPS), list(rows.values()))
        self._is_empty = not rows


@contextmanager
def watching_steps(watch: StepWatch, moved: Callable[[], None], end_worker: Callable[[str], None]) -> Iterator[None]:
    """Look every second, in a thread until the block ends.

    Args:
        moved: called after each look, so that others see that the thread lives.
        end_worker: called with an event to log if the thread ends by an error: no step would be cancelled any more.
    """
    stopping = threading.Event()

    def run() -> None:
        is_answering = True
        try:
            while not stopping.wait(LOOK_SECONDS):
                try:
                    watch.look(time.monotonic())
                    is_answering = True
                except (sa.exc.SQLAlchemyError, OSError) as error:
                    if is_answering:
                        log.error("steps_not_looked_at", reason=type(error).__name__)
                    is_answering = False
                moved()
        finally:
            if not stopping.is_set():
                end_worker("step_watch_died")

    thread = threading.Thread(target=run, name="step-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
