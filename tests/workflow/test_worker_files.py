"""A worker's lock keeps a second one away, and the files of workers that no longer exist can be removed."""

from __future__ import annotations

import fcntl
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from node.errors import ConfigError
from node.workflow.worker_files import alive_file, remove_files, worker_lock, workers_with_files

WORKER = "host.example-work-cpu"


def no() -> bool:
    """Nothing needs the files."""
    return False


def test_lock_is_held_once(tmp_path: Path):
    """A second worker of one name is refused as long as the first one runs."""
    refusal = rf"another worker runs here \({WORKER}\.lock is locked\)"
    with worker_lock(tmp_path, WORKER), pytest.raises(ConfigError, match=refusal), worker_lock(tmp_path, WORKER):
        pytest.fail("two workers hold one lock")
    with worker_lock(tmp_path, WORKER), worker_lock(tmp_path, "another-work-cpu"):
        assert workers_with_files(tmp_path) == {WORKER, "another-work-cpu"}


def test_files_of_a_worker_that_does_not_run_are_removed(tmp_path: Path):
    """Lock and alive file of a worker are removed unless it runs or they are needed; a later start is unharmed."""
    with worker_lock(tmp_path, WORKER):
        alive_file(tmp_path, WORKER).touch()
        assert not remove_files(tmp_path, WORKER, no)
    assert not remove_files(tmp_path, WORKER, lambda: True)
    assert workers_with_files(tmp_path) == {WORKER}
    assert alive_file(tmp_path, WORKER).exists()
    assert remove_files(tmp_path, WORKER, no)
    assert workers_with_files(tmp_path) == set()
    assert not alive_file(tmp_path, WORKER).exists()
    with worker_lock(tmp_path, WORKER):
        assert workers_with_files(tmp_path) == {WORKER}


def test_alive_file_without_lock_is_removed(tmp_path: Path):
    """An alive file whose lock file is gone belongs to a worker, and is removed as well."""
    alive_file(tmp_path, WORKER).touch()
    assert workers_with_files(tmp_path) == {WORKER}
    assert remove_files(tmp_path, WORKER, no)
    assert [file.name for file in tmp_path.iterdir()] == ["workers.lock"]


def test_start_during_removal_locks_the_file_that_stays(tmp_path: Path):
    """A worker that starts while its files are removed waits, and then keeps others away by a new file."""
    alive_file(tmp_path, WORKER).touch()
    held, may_end = threading.Event(), threading.Event()

    def run() -> None:
        with worker_lock(tmp_path, WORKER):
            held.set()
            may_end.wait(60.0)

    thread = threading.Thread(target=run)

    def start() -> bool:
        thread.start()
        return held.wait(0.3)

    try:
        assert remove_files(tmp_path, WORKER, start)  # it did not start before the removal was over
        assert held.wait(60.0)
        with pytest.raises(ConfigError), worker_lock(tmp_path, WORKER):
            pytest.fail("two workers hold one lock")
        assert not remove_files(tmp_path, WORKER, no)
    finally:
        may_end.set()
        thread.join()


def test_removal_waits_for_no_start(tmp_path: Path):
    """While another worker starts, nothing is removed, so that no heartbeat waits."""
    alive_file(tmp_path, WORKER).touch()
    with ExitStack() as stack:
        guard = stack.enter_context((tmp_path / "workers.lock").open("w"))
        fcntl.flock(guard, fcntl.LOCK_EX)
        assert not remove_files(tmp_path, WORKER, no)
    assert workers_with_files(tmp_path) == {WORKER}
