"""A worker that dies is noticed, and its work is done elsewhere; one that only slept does nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
import structlog
from dbos import error as dbos_errors
from faults import wait_until
from node_process import write_config
from postgres import running_postgres

from node.config import load_config
from node.workflow.engine import STUDY_QUEUE, WorkflowClient
from node.workflow.takeover import AbandonedWorkflows, RunningWorkflows, Watch, WorkerLiveness, watching_others

WORKER = Path(__file__).parents[1] / "support" / "engine_worker.py"
DEADLINE_SECONDS = 60.0


def test_owner_whose_beat_stands_still_is_dead():
    """A beat that did not change for dead_seconds means death; one that changed means life, whatever its number."""
    watch = Watch("b", 10.0)
    assert watch.dead({"b": 1, "a": 7}, ["a"], 0.0) == []
    assert watch.dead({"b": 2, "a": 7}, ["a"], 9.9) == []
    assert watch.dead({"b": 3, "a": 7}, ["a"], 10.0) == ["a"]
    assert watch.dead({"b": 4, "a": 1}, ["a"], 11.0) == []  # restarted
    assert watch.dead({"b": 5, "a": 1}, ["a"], 21.0) == ["a"]


def test_owner_without_a_beat_is_given_time():
    """Workflows of an executor that never beat, such as one of another name before, are taken over after a while."""
    watch = Watch("b", 10.0)
    assert watch.dead({"b": 1}, ["renamed"], 100.0) == []
    assert watch.dead({"b": 2}, ["renamed"], 109.0) == []
    assert watch.dead({"b": 3}, ["renamed"], 110.0) == ["renamed"]


def test_only_the_first_of_the_living_takes_over():
    """Of two living workers one acts, so that two never resume the same; if that one dies, too, the other does."""
    first, second = Watch("b", 10.0), Watch("c", 10.0)
    for watch in (first, second):
        watch.dead({"a": 1, "b": 1, "c": 1}, ["a"], 0.0)
    beats = {"a": 1, "b": 2, "c": 2}
    assert (first.dead(beats, ["a"], 10.0), second.dead(beats, ["a"], 10.0)) == (["a"], [])
    assert second.dead({"a": 1, "b": 2, "c": 9}, ["a"], 20.0) == ["a"]


def test_own_work_is_never_taken_over():
    """A worker whose own beat could not be written does not take its own work for a dead one's."""
    watch = Watch("b", 10.0)
    watch.dead({"b": 1}, ["b"], 0.0)
    assert watch.dead({"b": 1}, ["b"], 30.0) == []


def test_what_no_thread_runs_is_due_after_a_while():
    """A workflow that was idle at every look for so long; one that ran at a look in between begins anew."""
    forgotten = AbandonedWorkflows(10.0)
    assert forgotten.due({"w", "x"}, 0.0) == set()
    assert forgotten.due({"w"}, 5.0) == set()
    assert forgotten.due({"w", "x"}, 10.0) == {"w"}
    assert forgotten.due({"w", "x"}, 11.0) == set()
    assert forgotten.due({"w", "x"}, 20.0) == {"x"}


def test_a_workflow_is_at_work_until_its_last_run_ends():
    """A second run of one workflow does not end with the first."""
    at_work = RunningWorkflows()
    with at_work.running("w"):
        with at_work.running("w"), at_work.running("x"):
            assert at_work.ids() == {"w", "x"}
        assert at_work.ids() == {"w"}
    assert at_work.ids() == set()


class Faltering:
    """A heartbeat that meets one error after the other."""

    def __init__(self, *errors: BaseException) -> None:
        self.left = list(errors)
        self.is_through = threading.Event()

    def beat(self, _now: float) -> None:
        """Fail as long as there are errors."""
        if self.left:
            raise self.left.pop(0)
        self.is_through.set()


def test_heart_goes_on_after_errors_of_the_engine():
    """Neither its own errors, nor the database's, nor the network's end the beats."""
    errors = [
        dbos_errors.DBOSException("anything"), dbos_errors.DBOSWorkflowCancelledError("anything"),
        sqlalchemy.exc.OperationalError("SELECT", {}, Exception()), ConnectionResetError(),
    ]  # fmt: skip
    heartbeat, ends = Faltering(*errors), []
    with structlog.testing.capture_logs() as events, watching_others(heartbeat, 0.01, ends.append):
        assert heartbeat.is_through.wait(DEADLINE_SECONDS)
    assert [event["reason"] for event in events] == [type(error).__name__ for error in errors]
    assert ends == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_without_a_heart_ends():
    """An unforeseen error ends the worker, whose work all others would take at every beat."""
    ended = threading.Event()
    with watching_others(Faltering(ZeroDivisionError()), 0.01, lambda _event: ended.set()):
        assert ended.wait(DEADLINE_SECONDS)


def test_life_is_a_beat_that_moved():
    """A beat that stood there at the first look says nothing; one that moved, or came, is life for dead_seconds."""
    signs = WorkerLiveness(10.0, 100.0)
    signs.saw({"dead": 7}, 100.0)
    assert signs.trouble(109.0) is None  # there was no time to see one
    signs.saw({"dead": 7}, 110.0)
    assert signs.trouble(110.0) == "no worker gave a sign of life for 10 s; studies are received, not processed"
    signs.saw({"dead": 7, "new": 1}, 111.0)
    assert signs.trouble(120.0) is None
    signs.saw({"dead": 7, "new": 2}, 120.5)
    assert signs.trouble(130.0) is None
    signs.saw({"dead": 7, "new": 2}, 130.5)
    assert signs.trouble(130.5) is not None


def test_database_that_does_not_answer_is_trouble_of_its_own():
    """It is said at once, and is over with the next answer."""
    signs = WorkerLiveness(10.0, 0.0)
    signs.failed("OperationalError")
    assert signs.trouble(1.0) == "engine.database: OperationalError"
    signs.saw({"a": 1}, 2.0)
    assert signs.trouble(2.0) is None


@contextmanager
def worker(config_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that is ready; stopped by SIGTERM unless a test has killed it."""
    process = subprocess.Popen([sys.executable, str(WORKER), str(config_file)])
    try:
        wait_until(config_file.with_name(f"ready-{process.pid}").exists, DEADLINE_SECONDS)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL server."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def two_configs(tmp_path: Path, database: str) -> tuple[Path, Path]:
    """Two workers' configs: one database, one shared folder, two names."""
    engine = {"database": database, "heartbeat_seconds": 0.5, "dead_seconds": 3.0}
    shared = {"folder": str(tmp_path / "shared")}
    first = write_config(tmp_path / "first", node=shared, engine=engine, segmentation={"device": "cpu"})
    second = write_config(tmp_path / "second", node=shared, engine=engine)
    return first, second


def lines(file: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return file.read_text().splitlines() if file.exists() else []


def is_over(client: WorkflowClient, name: str, workflow_id: str) -> bool:
    """True once the workflow ended well."""
    return [each.engine_status for each in client.workflows(name, workflow_id)] == ["SUCCESS"]


@pytest.mark.slow
@pytest.mark.parametrize("is_only_asleep", [False, True], ids=["killed", "asleep"])
def test_work_of_a_lost_worker_is_done_by_another(two_configs: tuple[Path, Path], is_only_asleep: bool):
    """A worker lost in its second step: another runs that step and the child, once; waking repeats nothing."""
    name = "asleep" if is_only_asleep else "killed"
    client = WorkflowClient(load_config(two_configs[0]))
    folder = load_config(two_configs[0]).folder / name
    folder.mkdir(parents=True)
    (folder / "hold").touch()
    try:
        client.enqueue(STUDY_QUEUE, "process", name, str(folder))
        with worker(two_configs[0]) as lost, worker(two_configs[1]) as other:
            wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
            runs_on_lost = lines(folder / "second") == [str(lost.pid)]
            loser, taker = (lost, other) if runs_on_lost else (other, lost)
            loser.send_signal(signal.SIGSTOP if is_only_asleep else signal.SIGKILL)
            (folder / "hold").unlink()
            wait_until(lambda: is_over(client, "process", name), DEADLINE_SECONDS)
            wait_until(lambda: is_over(client, "child", f"{name}-child"), DEADLINE_SECONDS)
            if is_only_asleep:
                loser.send_signal(signal.SIGCONT)
                beat = lines(folder / "second")
                client.enqueue(STUDY_QUEUE, "process", "after", str(_made(folder.with_name("after"))))
                wait_until(lambda: is_over(client, "process", "after"), DEADLINE_SECONDS)
                assert lines(folder / "second") == beat
            assert lines(folder / "first") == [str(loser.pid)]
            assert lines(folder / "second") == [str(loser.pid), str(taker.pid)]
            assert lines(folder / "child") == [str(taker.pid)]
    finally:
        client.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
