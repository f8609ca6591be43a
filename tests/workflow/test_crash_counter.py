"""Crashes in a workflow are counted over restarts and take-overs, and nothing else is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from node.config import build_config
from node.errors import DefectError, EngineError
from node.workflow.crash_counter import CrashCounter
from node.workflow.tables import UNDER_WAY, open_tables

Start = Callable[[str], CrashCounter]
Crash = Callable[..., None]


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[sa.Engine]:
    """The database."""
    engine = open_tables(build_config({"node": {"folder": str(tmp_path)}}))
    yield engine
    engine.dispose()


@pytest.fixture
def start(tables: sa.Engine, tmp_path: Path) -> Start:
    """Starts the worker of this name; a workflow in which workers crashed twice is given up."""

    def start(name: str) -> CrashCounter:
        crashes = CrashCounter(tables, name, tmp_path / f"{name}.alive", 2)
        crashes.begin()
        return crashes

    return start


def rows(tables: sa.Engine) -> list[tuple[str, str | None, int]]:
    """The marks in the database: workflow, worker, and the number of crashes."""
    with tables.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(UNDER_WAY))]


@pytest.fixture
def crash() -> Crash:
    """Begins a workflow and never ends it, as a worker that crashes."""
    begun = []  # a context that is no longer referred to would be closed

    def crash(crashes: CrashCounter, workflow_id: str = "study") -> None:
        begun.append(crashes.counted(workflow_id))
        begun[-1].__enter__()

    return crash


def test_ended_workflow_has_no_mark(start: Start, tables: sa.Engine) -> None:
    """A workflow is marked while it runs; the mark is removed whether it ends well or by an error."""
    crashes = start("a")
    with crashes.counted("study"):
        assert rows(tables) == [("study", "a", 0)]
    with pytest.raises(ValueError, match="broken"), crashes.counted("study"):
        raise ValueError("broken")
    assert rows(tables) == []


@pytest.mark.parametrize("names", [("a", "a", "a"), ("a", "b", "c")], ids=["restarted", "taken over"])
def test_crashes_of_all_workers_are_counted(
    names: tuple[str, str, str], start: Start, crash: Crash, tables: sa.Engine
) -> None:
    """After two crashes, of one worker or of two, the third start is refused, and counting begins anew."""
    crash(start(names[0]))
    crash(start(names[1]))
    with pytest.raises(EngineError, match=r"too often \(engine\.max_recoveries\)"), start(names[2]).counted("study"):
        pytest.fail("it was begun again")
    assert rows(tables) == []


def test_workflow_that_is_given_up_is_reported(tables: sa.Engine, crash: Crash, tmp_path: Path) -> None:
    """``given_up`` is called with the workflow's id and the reason before the workflow ends."""
    told = []
    crashes = CrashCounter(tables, "a", tmp_path / "a.alive", 1, lambda *what: told.append(what))
    crash(crashes)
    with pytest.raises(EngineError), crashes.counted("study"):
        pytest.fail("it was begun again")
    assert told == [("study", "the worker died at it too often (engine.max_recoveries)")]


def test_crashes_in_another_workflow_do_not_count(start: Start, crash: Crash) -> None:
    """Crashes in other workflows do not keep a workflow from starting."""
    for workflow_id in ("study", "other", "another"):
        crash(start("a"), workflow_id)
    with start("a").counted("study"):
        pass


def test_stop_in_good_order_is_no_crash(start: Start, crash: Crash, tables: sa.Engine) -> None:
    """A stop in good order is not counted by any worker; a workflow that ends or starts meanwhile leaves no mark."""
    for name in ("a", "a", "b"):
        crashes = start(name)
        crash(crashes)
        crashes.leave()
    assert rows(tables) == [("study", None, 0)]
    crashes = start("a")
    with crashes.counted("study"):
        crashes.leave()
        with crashes.counted("late"):
            assert rows(tables) == [("study", None, 0)]
    assert rows(tables) == []


def test_end_because_the_database_takes_no_record_is_no_crash(start: Start, crash: Crash) -> None:
    """A worker that ended because the database took no record is told from a crashed one by its missing file."""
    for _ in range(4):
        crashes = start("a")
        crash(crashes)
        crashes.leave_without_record()
    with start("a").counted("study"):
        pass


def test_database_that_does_not_answer_stops_no_workflow(tmp_path: Path) -> None:
    """If crashes cannot be counted, workflows run all the same."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/none/database.sqlite")
    crashes = CrashCounter(engine, "a", tmp_path / "a.alive", 2)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        crashes.begin()
        with crashes.counted("study"):
            pass
        crashes.leave()


def test_crashes_of_a_process_that_computes_count_with_those_of_workers(
    start: Start, crash: Crash, tables: sa.Engine
) -> None:
    """After one crash of a worker, one of the computing process is the second: the study has failed."""
    crashes = start("a")
    with crashes.counted("study"):
        assert crashes.crashed("study") == 1
        assert rows(tables) == [("study", "a", 1)]
    crash(start("a"))
    crashes = start("a")
    with crashes.counted("study"), pytest.raises(DefectError, match="max_recoveries"):
        crashes.crashed("study")
    assert rows(tables) == []
