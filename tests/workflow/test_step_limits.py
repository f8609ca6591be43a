"""Steps end within their limits and when their workflow is cancelled; their ages are published and read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import error as dbos_errors
from faults import wait_until

from node.config import build_config
from node.errors import OverdueError, RefusedError
from node.workflow import step_limits
from node.workflow.loop_watch import LoopWatch
from node.workflow.step_limits import (
    StepLimit,
    StepUnderWay,
    WorkflowRun,
    WorkflowRuns,
    limits_of,
    pause,
    step_under_way,
    within_limit,
)
from node.workflow.step_watch import StepWatch
from node.workflow.tables import ENGINE_WORKFLOWS, STEPS, open_tables
from node.workflow.worker_signs import OVERDUE_MARGIN_SECONDS, StepAge, StepAges


def never(*what: Any) -> Any:
    """Must not be called."""
    pytest.fail(str(what))


def runs(seconds: float, end_worker: Any = never) -> WorkflowRuns:
    """Workflows each step of which may take so long."""
    return WorkflowRuns(lambda name: StepLimit(seconds, f"limits.{name}_seconds"), end_worker, never)


def test_step_within_its_limit_gives_its_result_or_error() -> None:
    """What the function returns or raises is what the step returns or raises, SystemExit included."""

    def refuse() -> None:
        raise RefusedError("no")

    def leave() -> None:
        raise SystemExit(3)

    with runs(60.0).running("w"):
        assert within_limit("report", lambda one, two: one + two, 1, 2) == 3
        with pytest.raises(RefusedError, match="no"):
            within_limit("report", refuse)
        with pytest.raises(SystemExit):
            within_limit("report", leave)


def test_step_without_an_engine_has_no_limit() -> None:
    """``glionode process`` runs its steps in its own thread."""
    assert within_limit("segment", threading.current_thread) is threading.current_thread()


def test_hung_threads_are_left_behind_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step ends in time though its thread does not; after the limit of such threads the worker ends itself."""
    monkeypatch.setattr(step_limits, "_BREAK_SECONDS", 0.01)
    ended, release = [], threading.Event()
    workflows = runs(0.01, ended.append)
    try:
        with workflows.running("w"):
            for number in range(step_limits.MOST_LEFT_BEHIND + 1):
                assert ended == [], number
                with pytest.raises(OverdueError, match=r"step send took longer than 0\.01 s \(limits\.send_seconds\)"):
                    within_limit("send", release.wait)
        assert ended == ["too_many_threads_left_behind"]
    finally:
        release.set()


def test_step_counts_from_its_last_start() -> None:
    """Work that begins again after a crash has the whole limit; before the first start nothing is counted off."""

    def work() -> str:
        step = step_under_way()
        assert step is not None
        for _ in range(4):
            time.sleep(0.1)
            step.restart()
        return "done"

    with runs(0.3).running("w"):
        assert within_limit("segment", work) == "done"


def test_cancelled_pause_ends_at_once() -> None:
    """A delivery that waits an hour for its next attempt does not keep its place in the queue for so long."""
    workflows, begun = runs(60.0), threading.Event()

    def work() -> None:
        with workflows.running("w"):
            begun.set()
            pause(3600.0)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        assert begun.wait(10)
        workflows.cancel({"w"})
        assert isinstance(future.exception(10), dbos_errors.DBOSWorkflowCancelledError)
    assert workflows.now() == []


def test_step_that_ends_while_its_workflow_is_cancelled() -> None:
    """The look at cancelled workflows runs in another thread than the step, which may be over at any moment."""
    workflows = runs(60.0)

    class Ending(WorkflowRun):
        """Its step is over once it was looked at."""

        @property
        def step(self) -> StepUnderWay | None:  # type: ignore[override]
            looked, self._steps = self._steps[0], self._steps[1:]
            return looked

        @step.setter
        def step(self, _step: StepUnderWay | None) -> None:
            self._steps = [StepUnderWay("send", StepLimit(1.0, "limits.other_seconds")), None]

    ending = Ending("w", workflows)
    workflows.now = lambda: [ending]  # type: ignore[method-assign]
    workflows.cancel({"w"})
    assert ending.cancelled.done()


def test_every_step_has_a_limit_of_the_config() -> None:
    """Requests to a destination by its time-out; a step that has no key of its own by the key of all others."""
    limit_of = limits_of(build_config({"delivery": {"timeout_seconds": 10.0}, "limits": {"segment_seconds": 7.0}}))
    assert limit_of("segment") == (7.0, "limits.segment_seconds")
    assert [limit_of(name) for name in ("send", "commit", "query")] == 3 * [(300.0, "limits.request_timeouts")]
    assert limit_of("hourly").key == "limits.retention_seconds"
    assert limit_of("tell").key == "limits.notice_seconds"
    assert {limit_of(name).key for name in ("later", "succeed", "plan", "forget")} == {"limits.other_seconds"}
    assert {limit_of(name).seconds for name in ("compare", "reselect", "report", "refuse")} == {300.0, 600.0}


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with the engine's table."""
    engine = open_tables(build_config({"node": {"folder": str(tmp_path)}}))
    ENGINE_WORKFLOWS.create(engine)
    yield engine
    engine.dispose()


def published(tables: sa.Engine) -> list[tuple[str, str, str]]:
    """Workflow, worker and step of each row."""
    with tables.connect() as connection:
        return [tuple(row)[:3] for row in connection.execute(sa.select(STEPS))]


def test_watch_publishes_ages_and_ends_what_was_cancelled(tables: sa.Engine) -> None:
    """The row of a step is there while it runs; another process's cancellation in the database ends it."""
    workflows = runs(3600.0)
    watch, release = StepWatch(tables, "worker", workflows, 5.0), threading.Event()
    with tables.begin() as connection:
        values = {"workflow_uuid": "w", "status": "PENDING"}
        connection.execute(sa.insert(ENGINE_WORKFLOWS).values(values))
        connection.execute(sa.insert(STEPS).values(
            workflow_id="old", executor_id="worker", step="send", age_seconds=1.0, limit_seconds=2.0
        ))  # fmt: skip

    def work() -> None:
        with workflows.running("w"):
            within_limit("segment", waits)

    def waits() -> None:
        step = step_under_way()
        assert step is not None
        with step.breaking(release.set):
            release.wait()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        wait_until(lambda: [run.step for run in workflows.now()] not in ([], [None]), 10)
        watch.look(100.0)
        assert published(tables) == [("w", "worker", "segment")]  # what an earlier life of the worker left is gone
        watch.look(101.0)
        assert not future.done()
        with tables.begin() as connection:
            connection.execute(sa.update(ENGINE_WORKFLOWS).values(status="CANCELLED"))
        watch.look(102.0)
        assert isinstance(future.exception(10), dbos_errors.DBOSWorkflowCancelledError)
    watch.look(105.0)
    assert published(tables) == []


def row(seconds: float, executor: str = "a") -> StepAge:
    """A published row of a step that may take 100 seconds."""
    return StepAge("w", executor, "segment", seconds, 100.0)


def test_age_of_a_step_grows_though_its_worker_stands_still() -> None:
    """A worker that hangs publishes nothing new: the age that others see grows by their own clock until it is told."""
    ages = StepAges(30.0)
    ages.saw([row(5.0)], {"a": 1}, 0.0)
    assert [each.seconds for each in ages.steps(2.0)] == [7.0]
    ages.saw([row(10.0)], {"a": 2}, 5.0)
    assert [each.seconds for each in ages.steps(6.0)] == [11.0]
    for now in range(10, 160, 10):
        ages.saw([row(10.0)], {"a": 2 + now}, float(now))
    assert ages.trouble(95.0 + OVERDUE_MARGIN_SECONDS - 1) is None
    assert ages.trouble(95.0 + OVERDUE_MARGIN_SECONDS + 6) == (
        "step segment of workflow w runs for 166 s, its limit is 100 s: worker a hangs; restart it"
    )


def test_steps_of_dead_workers_are_not_under_way() -> None:
    """They are taken over or wait; that no worker lives is told elsewhere."""
    ages = StepAges(30.0)
    for now in range(0, 300, 10):
        ages.saw([row(5.0), row(1.0, "gone")], {"a": 1}, float(now))
    assert (ages.steps(300.0), ages.trouble(300.0)) == ([], None)


def test_loop_that_stands_still_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop is named once it has ended no round for the given time."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    loops = LoopWatch("heartbeat", "step-watch")
    clock[0] = 100.0
    loops.moved("heartbeat")
    clock[0] = 150.0
    assert (loops.standing(120.0), loops.standing(151.0)) == (["step-watch"], [])
