"""A process that hangs is killed with its children, is replaced, and never outlives the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from called_process import COMMAND, is_running, noted
from faults import wait_until

from node.errors import OverdueError, UnforeseenError
from node.workflow import killable_process
from node.workflow.killable_process import KillableProcess, ProcessDied
from node.workflow.step_limits import StepLimit, WorkflowRuns, within_limit


@pytest.fixture
def process() -> Iterator[KillableProcess]:
    """A process that has not been called yet."""
    process = KillableProcess(COMMAND, "hello")
    yield process
    process.stop()


def runs(seconds: float) -> WorkflowRuns:
    """Workflows each step of which may take so long."""
    return WorkflowRuns(lambda _name: StepLimit(seconds, "limits.segment_seconds"), pytest.fail, pytest.fail)


def test_one_process_answers_all_calls(process: KillableProcess) -> None:
    """It keeps what it has loaded: the next call meets the same process, which got the greeting once."""
    assert process.call("greeting", 1, "two") == ["hello", 1, "two"]
    assert process.call("pid") == process.call("pid") != os.getpid()


def test_step_past_its_limit_is_killed_with_its_children_and_the_next_runs(
    process: KillableProcess, tmp_path: Path
) -> None:
    """SIGTERM is ignored, SIGKILL is not: the call ends in time, nothing is left, and a new process answers."""
    before = process.call("pid")  # started and warm: the limit is for the work
    with runs(1.0).running("study"):
        with pytest.raises(OverdueError, match=r"step segment took longer than 1 s \(limits\.segment_seconds\)"):
            within_limit("segment", process.call, "hang", str(tmp_path / "pids"))
        hung = noted(tmp_path / "pids")
        assert hung[0] == before
        wait_until(lambda: not any(is_running(pid) for pid in hung), 10)
        assert process.call("pid") not in hung


def test_cancelled_step_is_killed(process: KillableProcess, tmp_path: Path) -> None:
    """A cancelled workflow ends as the engine ends them, without a record of its step, and its process is gone."""
    from dbos import error as dbos_errors

    workflows = runs(3600.0)

    def work() -> None:
        with workflows.running("study"):
            within_limit("segment", process.call, "hang", str(tmp_path / "pids"))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        wait_until(lambda: noted(tmp_path / "pids"), 30)
        workflows.cancel({"another"})
        assert not future.done()
        workflows.cancel({"study"})
        assert isinstance(future.exception(10), dbos_errors.DBOSWorkflowCancelledError)
    wait_until(lambda: not any(is_running(pid) for pid in noted(tmp_path / "pids")), 10)


@pytest.mark.parametrize(("number", "text"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "SIGKILL")])
def test_death_in_a_call_is_told(process: KillableProcess, number: int, text: str) -> None:
    """The call says by which signal the process died; the next call starts another one."""
    with pytest.raises(ProcessDied, match=text):
        process.call("die", int(number))
    assert process.call("greeting") == ["hello"]


def test_process_that_does_not_start_is_no_crash() -> None:
    """One that ends before it is ready did not die of a study: the error is one outside the study."""
    process = KillableProcess(COMMAND, "broken")
    with pytest.raises(UnforeseenError, match="does not start: exit status 7"):
        process.call("pid")
    process.stop()


def test_processes_that_cannot_be_killed_are_bounded(
    process: KillableProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call ends though the kernel keeps its process, as it does while a disk hangs; the third is not started."""
    kept: list[int] = []
    monkeypatch.setattr(killable_process.os, "killpg", lambda pid, _number: kept.append(pid))
    monkeypatch.setattr(killable_process, "_REAP_SECONDS", 0.05)
    hung: list[int] = []
    with runs(0.2).running("study"):
        for number in range(killable_process.MOST_UNKILLABLE):
            process.call("pid")
            with pytest.raises(OverdueError):
                within_limit("segment", process.call, "hang", str(tmp_path / f"pids{number}"))
            wait_until(lambda file=tmp_path / f"pids{number}": noted(file))
            hung += noted(tmp_path / f"pids{number}")
        with pytest.raises(UnforeseenError, match="2 processes cannot be killed: a disk or a driver hangs"):
            process.call("pid")
    monkeypatch.undo()
    assert len(set(kept)) == killable_process.MOST_UNKILLABLE
    for pid in hung:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: process.call("pid"), 10)


PARENT = """
import sys, threading
from called_process import COMMAND
from node.workflow.killable_process import KillableProcess
process = KillableProcess(COMMAND, "hello")
process.call("pid")
# as in a worker, each call comes from another thread, and the one that made the first call has ended
thread = threading.Thread(target=process.call, args=("hang", sys.argv[1]))
thread.start()
thread.join()
"""


def test_process_does_not_outlive_the_one_that_started_it(tmp_path: Path) -> None:
    """When that one is killed by SIGKILL, the kernel kills the process, though it hangs and ignores SIGTERM."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "pids")], env=environment) as parent:
        wait_until(lambda: noted(tmp_path / "pids"), 30)
        hung, grandchild = noted(tmp_path / "pids")
        parent.kill()
    wait_until(lambda: not is_running(hung), 10)
    os.kill(grandchild, signal.SIGKILL)  # what the process started is not its parent's to end


def test_stopped_process_leaves_its_call_open(process: KillableProcess, tmp_path: Path) -> None:
    """A worker that stops cuts the step off: the process is gone, and the step has no result that is recorded."""
    thread = threading.Thread(target=process.call, args=("hang", str(tmp_path / "pids")), daemon=True)
    thread.start()
    wait_until(lambda: noted(tmp_path / "pids"), 30)
    process.stop()
    assert not is_running(noted(tmp_path / "pids")[0])
    thread.join(0.3)
    assert thread.is_alive()
