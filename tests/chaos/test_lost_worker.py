"""A worker that is killed in the middle of a study and never comes back: another finishes the study, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from faults import FakePacs, wait_until
from instances import write_instance_file
from node_process import write_config
from postgres import running_postgres
from pydicom import dcmread
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from small_study import all_instances, study_instance_uid
from storm import MORTAL, make_study

from node.config import Config, load_config
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.study_status import read_study_statuses
from node.workflow.client import WorkflowClient

DEADLINE_SECONDS = 120.0


@contextmanager
def worker(config_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real worker with a threshold for the networks; killed in the end."""
    command = [sys.executable, str(MORTAL), "work", str(config_file), "0", "0.0"]
    with config_file.with_name("worker.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=MORTAL.parents[2])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def put_study(config: Config) -> str:
    """A study in the spool; its UID."""
    study = make_study(1)
    uid = study_instance_uid(study)
    for instance in all_instances(study):
        folder = config.spool_folder / uid / instance.SeriesInstanceUID
        folder.mkdir(parents=True, exist_ok=True)
        write_instance_file(folder, instance)
    return uid


def segmentations(config: Config) -> list[int]:
    """The processes that began to segment, in their order."""
    file = config.folder / "segmentations"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_study_of_a_worker_that_never_comes_back_is_finished_once(tmp_path: Path) -> None:
    """On PostgreSQL the other worker segments, reports and delivers it; the PACS is given one SEG and one SR, once."""
    pacs = FakePacs(sop_classes=[SegmentationStorage, EnhancedSRStorage])
    with ExitStack() as stack:
        database = stack.enter_context(running_postgres())
        stack.enter_context(pacs)
        sections = {
            "node": {"folder": str(tmp_path / "shared")},
            "engine": {"database": database, "heartbeat_seconds": 0.5, "dead_seconds": 3.0},
        }
        files = [
            write_config(tmp_path / device, [pacs.destination], **sections, segmentation={"device": device})
            for device in ("cpu", "auto")
        ]
        config = load_config(files[0])
        client = stack.enter_context(closing(WorkflowClient(config)))
        uid = put_study(config)
        (config.folder / "hold").touch()
        StudyDispatcher(config, client, Metrics()).start(uid)
        workers = [stack.enter_context(worker(file)) for file in files]
        wait_until(lambda: segmentations(config), DEADLINE_SECONDS)
        (lost,) = segmentations(config)
        (taker,) = {process.pid for process in workers} - {lost}
        os.kill(lost, signal.SIGKILL)
        (config.folder / "hold").unlink()
        wait_until(
            lambda: [line.state for line in read_study_statuses(config, client)] == ["delivered"], DEADLINE_SECONDS
        )
        (line,) = read_study_statuses(config, client)
        records = [*client.workflows("process"), *client.workflows("deliver")]
    assert segmentations(config) == [lost, taker]
    assert [record.engine_status for record in records] == ["SUCCESS", "SUCCESS"]
    results = [dcmread(config.work_folder / str(line.folder) / name) for name in ("seg.dcm", "sr.dcm")]
    sent = [instance.sop_instance_uid for instance in pacs.received]
    assert sorted(sent) == sorted(str(result.SOPInstanceUID) for result in results)
