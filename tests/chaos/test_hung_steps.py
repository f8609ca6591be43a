"""A study that hangs or crashes what computes for it, and a destination that hangs, hold up nobody else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from called_process import is_running
from faults import FakePacs, wait_until
from hanging_worker import __file__ as hanging_worker_file
from hanging_worker import hanging_worker, segmentations
from node_process import write_config
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from small_study import study_instance_uid, write_small_study
from storm import make_study

from node.config import Config, load_config
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.study_status import StudyStatus, read_study_statuses
from node.study import Destination
from node.workflow.client import WorkflowClient
from node.workflow.states import CRASHED_TOO_OFTEN, DeliveryState
from node.workflow.worker_signs import WorkerSigns, watching_workers

LIMIT_SECONDS = 120.0
CANCEL_SECONDS = 10.0

pytestmark = pytest.mark.slow


class Desk:
    """The node without its receiver; ``signs``: what a receiver sees of the workers."""

    def __init__(self, config: Config, config_file: Path, client: WorkflowClient, signs: WorkerSigns) -> None:
        self.config, self.signs = config, signs
        self._config_file, self._client = config_file, client
        self._dispatcher = StudyDispatcher(config, client, Metrics())

    def order(self, number: int, fate: str = "", is_whole: bool = True) -> str:
        """Put study ``number`` into the spool and order it; its UID. ``fate``: hang or crash; not whole: no FLAIR."""
        study = make_study(number)
        if not is_whole:
            del study["FLAIR"]
        uid = study_instance_uid(study)
        write_small_study(self.config.spool_folder / uid / "1.2.3", study)
        if fate:
            (self.config.folder / f"{fate}-{uid}").touch()
        self._dispatcher.start(uid)
        return uid

    def line(self, uid: str) -> StudyStatus:
        """The ledger's line about a study."""
        return next(each for each in read_study_statuses(self.config, self._client) if each.study_instance_uid == uid)

    def wait(self, uid: str, *states: str) -> StudyStatus:
        """The study's line, once it is in one of ``states``."""
        wait_until(lambda: self.line(uid).state in states, LIMIT_SECONDS)
        return self.line(uid)

    def computing(self, uid: str, count: int = 1) -> tuple[int, int]:
        """Computing process and worker of the study's segmentation number ``count``, once it has begun."""
        wait_until(lambda: len(segmentations(self.config, uid)) >= count, LIMIT_SECONDS)
        return segmentations(self.config, uid)[count - 1]

    def cancel(self, uid: str) -> subprocess.CompletedProcess[str]:
        """``glionode cancel``, in a process of its own."""
        line = [sys.executable, "-m", "node", "cancel", uid, "--config", str(self._config_file)]
        return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)


@contextmanager
def desk(folder: Path, destinations: tuple[Destination, ...] = (), **sections: dict[str, object]) -> Iterator[Desk]:
    """A node with short pauses, without a worker."""
    engine = {"heartbeat_seconds": 0.3, "dead_seconds": 5.0, "attempts": 2, "attempt_pause_seconds": 0.1}
    config_file = write_config(folder, destinations, engine=engine | sections.pop("engine", {}), **sections)
    config = load_config(config_file)
    with closing(WorkflowClient(config)) as client, watching_workers(config) as signs:
        yield Desk(config, config_file, client, signs)


def test_hung_study_fails_with_its_reason_and_the_next_is_done_meanwhile(tmp_path: Path) -> None:
    """Its segmentation is killed at its limit, tried again, and fails; the worker stays, and others see the age."""
    # the next study is refused: that has a longer limit, for a busy machine may be slow at it
    with desk(tmp_path, limits={"segment_seconds": 3.0}) as node, hanging_worker(tmp_path / "config.toml"):
        hung, good = node.order(1, "hang"), node.order(2, is_whole=False)
        first, worker = node.computing(hung)
        wait_until(lambda: [(each.step, each.limit_seconds) for each in node.signs.steps()] == [("segment", 3.0)])
        refused, failed = node.wait(good, "refused"), node.wait(hung, "failed")
        second, still_worker = segmentations(node.config, hung)[1]
        assert failed.reason == "step segment took longer than 3 s (limits.segment_seconds)"
        assert refused.since <= failed.since
        assert (still_worker, first == second) == (worker, False)
        assert not is_running(first)
        assert not is_running(second)
        wait_until(lambda: node.signs.steps() == [])


def test_cancel_frees_the_worker_within_ten_seconds(tmp_path: Path) -> None:
    """The process of a study that hangs is killed, the study is cancelled, and the next one runs in the same worker."""
    with desk(tmp_path) as node, hanging_worker(tmp_path / "config.toml"):
        hung, good = node.order(1, "hang"), node.order(2)
        pid, worker = node.computing(hung)
        assert node.cancel(hung).stdout == f"cancelled: {node.line(hung).workflow_id}\n"
        cancelled = time.monotonic()
        wait_until(lambda: not is_running(pid), CANCEL_SECONDS)
        assert time.monotonic() - cancelled < CANCEL_SECONDS
        node.wait(good, "reported")
        assert node.line(hung).state == "cancelled"
        assert [each for _, each in segmentations(node.config, good)] == [worker]


def test_crashes_of_the_computing_process_are_counted(tmp_path: Path) -> None:
    """A study that crashes it ``max_recoveries`` times has failed for good; the worker lives and does the next."""
    with desk(tmp_path, engine={"max_recoveries": 2}) as node, hanging_worker(tmp_path / "config.toml"):
        deadly, good = node.order(1, "crash"), node.order(2)
        failed = node.wait(deadly, "failed")
        node.wait(good, "reported")
        workers = {worker for uid in (deadly, good) for _, worker in segmentations(node.config, uid)}
        assert (failed.reason, len(segmentations(node.config, deadly)), len(workers)) == (CRASHED_TOO_OFTEN, 2, 1)


def test_killed_worker_leaves_no_process_that_computes(tmp_path: Path) -> None:
    """When the worker is killed by SIGKILL, what hangs in its computing process ends, too."""
    with desk(tmp_path) as node:
        command = [sys.executable, hanging_worker_file, str(tmp_path / "config.toml")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            pid, parent = node.computing(node.order(1, "hang"))
            assert parent == worker.pid
            worker.kill()
        wait_until(lambda: not is_running(pid), CANCEL_SECONDS)


def test_hung_request_to_a_destination_is_tried_again(tmp_path: Path) -> None:
    """A thread that never comes back from sending is left behind: the delivery says why, goes on, and is cancelled."""
    pacs = FakePacs(sop_classes=[SegmentationStorage, EnhancedSRStorage])
    limits, delivery = {"request_timeouts": 10.0}, {"timeout_seconds": 0.3, "longest_retry_seconds": 0.2}
    with (
        pacs,
        desk(tmp_path, (pacs.destination,), limits=limits, delivery=delivery) as node,
        hanging_worker(tmp_path / "config.toml"),
    ):
        (node.config.folder / "hang-send").touch()
        uid = node.order(1)
        wait_until(
            lambda: "pacs" in (found := node.line(uid).deliveries) and found["pacs"].state == DeliveryState.RETRYING,
            LIMIT_SECONDS,
        )
        assert "seg.dcm step send took longer than 3 s (limits.request_timeouts)" in str(
            node.line(uid).deliveries["pacs"]
        )
        assert node.cancel(uid).stdout == f"cancelled: {node.line(uid).workflow_id}-pacs\n"
        wait_until(lambda: node.signs.steps() == [], CANCEL_SECONDS)
        (node.config.folder / "hang-send").unlink()
        node.wait(node.order(2), "delivered")
