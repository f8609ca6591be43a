"""Other workers finish the workflows of a dead worker; a worker that was only frozen repeats nothing."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import sqlalchemy
import structlog
from dbos import error as dbos_errors
from engine_worker import DEADLINE_SECONDS, engine_worker, lines
from faults import wait_until
from node_process import write_config

from node.config import load_config
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE
from node.workflow.takeover import RunningWorkflows, watching_others
from node.workflow.worker_signs import WorkerLiveness


def test_workflow_runs_until_the_last_of_its_runs_ends():
    """A workflow that two threads run at once counts as running until both have ended."""
    running = RunningWorkflows()
    with running.running("w"):
        with running.running("w"), running.running("x"):
            assert running.ids() == {"w", "x"}
        assert running.ids() == {"w"}
    assert running.ids() == set()


class Faltering:
    """A heartbeat that raises one error after the other."""

    def __init__(self, *errors: BaseException) -> None:
        self.left = list(errors)
        self.is_through = threading.Event()

    def beat(self, _now: float) -> None:
        """Raise the next error, if any is left."""
        if self.left:
            raise self.left.pop(0)
        self.is_through.set()


def test_heartbeats_go_on_after_errors_of_the_engine():
    """Errors of the engine, of the database and of the network do not end a worker's heartbeats."""
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
def test_worker_without_heartbeat_ends():
    """An unforeseen error in the heartbeat's thread ends the worker, whose workflows all others would resume."""
    ended = threading.Event()
    with watching_others(Faltering(ZeroDivisionError()), 0.01, lambda _event: ended.set()):
        assert ended.wait(DEADLINE_SECONDS)


def test_worker_lives_while_its_count_changes():
    """A count of the first look proves nothing; one that changed, or is new, proves a living worker for a while."""
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


def test_database_that_does_not_answer_is_trouble():
    """A database that does not answer is reported at once, until it answers again."""
    signs = WorkerLiveness(10.0, 0.0)
    signs.failed("OperationalError")
    assert signs.trouble(1.0) == "engine.database: OperationalError"
    signs.saw({"a": 1}, 2.0)
    assert signs.trouble(2.0) is None


@pytest.fixture
def two_configs(tmp_path: Path, postgres_database: str) -> tuple[Path, Path]:
    """Two workers' configs: one database, one shared folder, two names."""
    engine = {"database": postgres_database, "heartbeat_seconds": 0.5, "dead_seconds": 3.0}
    shared = {"folder": str(tmp_path / "shared")}
    first = write_config(tmp_path / "first", node=shared, engine=engine, segmentation={"device": "cpu"})
    second = write_config(tmp_path / "second", node=shared, engine=engine)
    return first, second


def is_over(client: WorkflowClient, name: str, workflow_id: str) -> bool:
    """True once the workflow ended in SUCCESS."""
    return [each.engine_status for each in client.workflows(name, workflow_id)] == ["SUCCESS"]


@pytest.mark.slow
@pytest.mark.parametrize("is_only_asleep", [False, True], ids=["killed", "asleep"])
def test_workflow_of_a_lost_worker_is_finished_by_another(two_configs: tuple[Path, Path], is_only_asleep: bool):
    """If a worker is lost in a second step, another runs that step and the child once; a thawed worker repeats none."""
    name = "asleep" if is_only_asleep else "killed"
    client = WorkflowClient(load_config(two_configs[0]))
    folder = load_config(two_configs[0]).folder / name
    folder.mkdir(parents=True)
    (folder / "hold").touch()
    try:
        client.enqueue(STUDY_QUEUE, "process", name, str(folder))
        with engine_worker(two_configs[0]) as lost, engine_worker(two_configs[1]) as other:
            wait_until(lambda: lines(folder / "second"), DEADLINE_SECONDS)
            runs_on_lost = lines(folder / "second") == [str(lost.pid)]
            loser, taker = (lost, other) if runs_on_lost else (other, lost)
            loser.send_signal(signal.SIGSTOP if is_only_asleep else signal.SIGKILL)
            (folder / "hold").unlink()
            wait_until(lambda: is_over(client, "process", name), DEADLINE_SECONDS)
            wait_until(lambda: is_over(client, "deliver", f"{name}-child"), DEADLINE_SECONDS)
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
