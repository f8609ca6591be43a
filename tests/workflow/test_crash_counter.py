"""How often workers died at a study: counted over restarts and take-overs, and nothing else is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from node.config import build_config
from node.errors import EngineError
from node.workflow.crash_counter import CrashCounter
from node.workflow.tables import UNDER_WAY, open_tables

Start = Callable[[str], CrashCounter]
Die = Callable[..., None]


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[sa.Engine]:
    """The database."""
    engine = open_tables(build_config({"node": {"folder": str(tmp_path)}}))
    yield engine
    engine.dispose()


@pytest.fixture
def start(tables: sa.Engine, tmp_path: Path) -> Start:
    """A start of the worker that is called so; two deaths are enough."""

    def start(name: str) -> CrashCounter:
        crashes = CrashCounter(tables, name, tmp_path / f"{name}.alive", 2)
        crashes.begin()
        return crashes

    return start


def rows(tables: sa.Engine) -> list[tuple[str, str | None, int]]:
    """What is noted."""
    with tables.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(UNDER_WAY))]


@pytest.fixture
def die() -> Die:
    """Begin it, and never come back."""
    begun = []  # what nobody holds any more would be ended

    def die(crashes: CrashCounter, workflow_id: str = "study") -> None:
        begun.append(crashes.counted(workflow_id))
        begun[-1].__enter__()

    return die


def test_what_ended_is_not_noted(start: Start, tables: sa.Engine) -> None:
    """Whether it ended well or by an error."""
    crashes = start("a")
    with crashes.counted("study"):
        assert rows(tables) == [("study", "a", 0)]
    with pytest.raises(ValueError, match="broken"), crashes.counted("study"):
        raise ValueError("broken")
    assert rows(tables) == []


@pytest.mark.parametrize("names", [("a", "a", "a"), ("a", "b", "c")], ids=["restarted", "taken over"])
def test_deaths_are_counted_wherever_they_happen(
    names: tuple[str, str, str], start: Start, die: Die, tables: sa.Engine
) -> None:
    """Two deaths, of one worker or of two, and the third start is refused; the next order of the study is anew."""
    die(start(names[0]))
    die(start(names[1]))
    with pytest.raises(EngineError, match=r"too often \(engine\.max_recoveries\)"), start(names[2]).counted("study"):
        pytest.fail("it was begun again")
    assert rows(tables) == []


def test_what_is_given_up_is_told(tables: sa.Engine, die: Die, tmp_path: Path) -> None:
    """With the workflow's id and the reason, before it ends."""
    told = []
    crashes = CrashCounter(tables, "a", tmp_path / "a.alive", 1, lambda *what: told.append(what))
    die(crashes)
    with pytest.raises(EngineError), crashes.counted("study"):
        pytest.fail("it was begun again")
    assert told == [("study", "the worker died at it too often (engine.max_recoveries)")]


def test_deaths_at_another_study_do_not_count(start: Start, die: Die) -> None:
    """Each for itself."""
    for workflow_id in ("study", "other", "another"):
        die(start("a"), workflow_id)
    with start("a").counted("study"):
        pass


def test_stop_in_good_order_is_no_death(start: Start, die: Die, tables: sa.Engine) -> None:
    """Neither for the same worker nor for one that takes over; a step that still ends leaves nothing."""
    for name in ("a", "a", "b"):
        crashes = start(name)
        die(crashes)
        crashes.leave()
    assert rows(tables) == [("study", None, 0)]
    crashes = start("a")
    with crashes.counted("study"):
        crashes.leave()
        with crashes.counted("late"):
            assert rows(tables) == [("study", None, 0)]
    assert rows(tables) == []


def test_end_for_want_of_a_record_is_no_death(start: Start, die: Die) -> None:
    """A worker that could write nothing into the database is known by its file."""
    for _ in range(4):
        crashes = start("a")
        die(crashes)
        crashes.leave_without_record()
    with start("a").counted("study"):
        pass


def test_database_in_trouble_stops_nothing(tmp_path: Path) -> None:
    """The workflow runs; whoever has to record will notice."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/none/database.sqlite")
    crashes = CrashCounter(engine, "a", tmp_path / "a.alive", 2)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        crashes.begin()
        with crashes.counted("study"):
            pass
        crashes.leave()
