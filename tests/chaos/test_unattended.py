"""The real workflows, over days that nobody looks after them: late series, retries, a PACS that is away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faults import FakePacs, wait_until
from instances import make_instance, write_instance_file
from node_process import write_config
from postgres import running_postgres
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from small_study import make_series, study_instance_uid, write_small_study
from storm import COLUMNS, ROWS, make_study
from threshold_worker import threshold_worker
from web_hook import web_hook

from node.config import Config, load_config
from node.dicom.uids import derived_uid
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.study_history import read_history
from node.processing.study_status import StudyStatus, read_study_statuses
from node.retention.cleanup import take_snapshot
from node.workflow.client import WorkflowClient
from node.workflow.states import DeliveryState

LIMIT_SECONDS = 120.0

pytestmark = pytest.mark.slow


def result_pacs() -> FakePacs:
    """A PACS that takes SEG and SR."""
    return FakePacs(sop_classes=[SegmentationStorage, EnhancedSRStorage])


def put(config: Config, study: dict[str, list[Dataset]]) -> str:
    """Put a study into the spool; its UID."""
    uid = study_instance_uid(study)
    write_small_study(config.spool_folder / uid / "1.2.3", study)
    return uid


def put_localizer(config: Config, uid: str) -> None:
    """A late series that changes nothing."""
    localizer = make_instance(99, study_instance_uid=uid, series_instance_uid="1.2.3.99")
    localizer.SeriesDescription, localizer.SeriesNumber = "localizer", 99
    write_instance_file(config.spool_folder / uid / "1.2.3", localizer)


def repeated_flair(uid: str) -> list[Dataset]:
    """A FLAIR that was acquired once more, and is chosen instead of the first."""
    series = make_series("FLAIR")
    for index, instance in enumerate(series):
        instance.StudyInstanceUID, instance.SeriesInstanceUID = uid, derived_uid("late", uid)
        instance.SOPInstanceUID = derived_uid("late", uid, str(index))
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        instance.SeriesNumber, instance.AcquisitionTime = 51, "130100"
        instance.Rows, instance.Columns, instance.PixelData = ROWS, COLUMNS, bytes(2 * ROWS * COLUMNS)
        instance.PixelSpacing = [8, 8]
    return series


def is_retrying(line: StudyStatus) -> bool:
    """True if the delivery to the destination pacs waits for its next attempt."""
    return "pacs" in line.deliveries and line.deliveries["pacs"].state == DeliveryState.RETRYING


class Desk:
    """The node without its receiver: what arrives is in the spool, and handed over by the test."""

    def __init__(self, config: Config, client: WorkflowClient) -> None:
        self.config, self.client = config, client
        self.dispatcher = StudyDispatcher(config, client, Metrics())

    def line(self, uid: str) -> StudyStatus:
        """The ledger's line about a study."""
        return next(each for each in read_study_statuses(self.config, self.client) if each.study_instance_uid == uid)

    def wait(self, uid: str, condition: Callable[[StudyStatus], object]) -> StudyStatus:
        """The study's line, once ``condition`` holds for it."""
        try:
            wait_until(lambda: condition(self.line(uid)), LIMIT_SECONDS)
        except AssertionError as error:
            error.add_note(str(self.line(uid)))
            raise
        return self.line(uid)

    def requests(self, uid: str) -> list[str]:
        """The study's workflows that are over, as the engine has them."""
        return [each.workflow_id for each in self.client.workflows("process", attributes={"study_instance_uid": uid})]


def is_delivered(line: StudyStatus) -> bool:
    """By all destinations."""
    return line.state == "delivered"


def result_of(config: Config, line: StudyStatus) -> dict[str, Any]:
    """Its ``result.json``."""
    found: dict[str, Any] = json.loads((config.work_folder / (line.folder or "") / "result.json").read_text("utf-8"))
    return found


def test_late_series_supersedes_what_was_delivered(tmp_path: Path) -> None:
    """It gives results of other UIDs, delivered beside the first ones, whose report the second one names."""
    with result_pacs() as pacs:
        config_file = write_config(tmp_path, [pacs.destination])
        config = load_config(config_file)
        with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
            node, uid = Desk(config, client), put(config, study := make_study(1))
            node.dispatcher.start(uid)
            first = node.wait(uid, is_delivered)
            put_localizer(config, uid)
            node.dispatcher.start(uid)
            assert len(node.requests(uid)) == 1
            put(config, {**study, "FLAIR": repeated_flair(uid)})
            node.dispatcher.start(uid)
            second = node.wait(uid, lambda line: is_delivered(line) and line.folder != first.folder)
    first_report, second_report = (derived_uid(str(line.folder), "sr") for line in (first, second))
    received = {each.sop_instance_uid: each.data_set for each in pacs.received}
    assert len(received) == len(pacs.received) == 4
    assert b"replaces the report" not in received[first_report]
    assert b"replaces the report of " in received[second_report]
    assert f"({first_report}): other series were chosen since".encode() in received[second_report]
    assert [result_of(config, line)["replaces"] for line in (first, second)] == [None, first.folder]


def test_what_images_decide_is_done_once(tmp_path: Path) -> None:
    """A late localizer has the images compared again and nothing else done; a retry sends the same bytes again."""
    study = make_study(2)
    for instance in study["T1c"]:
        instance.SeriesDescription = study["T1"][0].SeriesDescription
    with result_pacs() as pacs:
        assembly = {"ceiling_seconds": 0.1, "stable_seconds": 0.1, "series_stable_seconds": 0.1}
        config_file = write_config(tmp_path, [pacs.destination], assembly=assembly, retention={"input_days": 0.0})
        config = load_config(config_file)
        with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
            node, uid = Desk(config, client), put(config, study)
            node.dispatcher.start(uid)
            delivered = node.wait(uid, is_delivered)
            assert delivered.folder not in (None, node.requests(uid)[0])
            put_localizer(config, uid)
            node.dispatcher.start(uid)
            again = node.wait(uid, is_delivered)
            assert (again.workflow_id, len(node.requests(uid)), len(pacs.received)) == (delivered.workflow_id, 3, 2)
            wait_until(lambda: [each.held_because for each in take_snapshot(config).held] == [None])
            history = [text for _, text in read_history(config, client, uid)]
            assert sum(text.endswith(f": compared: {delivered.folder} goes on") for text in history) == 2
            node.dispatcher.retry(uid, {})
            retried = node.wait(uid, lambda line: is_delivered(line) and line.workflow_id != delivered.workflow_id)
    assert retried.folder == delivered.folder
    assert Counter(each.sop_instance_uid for each in pacs.received).most_common() == [
        (derived_uid(str(delivered.folder), name), 2) for name in ("seg", "sr")
    ]
    assert len({each.data_set for each in pacs.received}) == 2
    assert result_of(config, retried)["replaces"] is None


def test_pacs_that_was_away_gets_everything_once(tmp_path: Path) -> None:
    """Studies that were made while it was away are delivered when it is back, each result once."""
    pacs = result_pacs()
    config_file = write_config(tmp_path, [pacs.destination])
    config = load_config(config_file)
    with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
        node = Desk(config, client)
        uids = [put(config, make_study(10 + number)) for number in range(4)]
        for uid in uids:
            node.dispatcher.start(uid)
        for uid in uids:
            node.wait(uid, is_retrying)
        assert {node.line(uid).state for uid in uids} == {"reported"}
        with pacs:
            lines = [node.wait(uid, is_delivered) for uid in uids]
    expected = {derived_uid(str(line.folder), name) for line in lines for name in ("seg", "sr")}
    assert Counter(each.sop_instance_uid for each in pacs.received) == dict.fromkeys(expected, 1)


def test_refused_results_are_told_once(tmp_path: Path) -> None:
    """A PACS that will never take a result makes the study failed; humans get one notice that names it."""
    pacs = FakePacs([0xA900], sop_classes=[SegmentationStorage, EnhancedSRStorage])
    with pacs, web_hook() as (url, got):
        config_file = write_config(tmp_path, [pacs.destination], notify={"urls": [url], "states": ["failed"]})
        config = load_config(config_file)
        with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
            node, uid = Desk(config, client), put(config, make_study(4))
            node.dispatcher.start(uid)
            line = node.wait(uid, lambda line: line.state == "failed")
            wait_until(lambda: got, LIMIT_SECONDS)
            (notice,) = client.workflows("notice")
            wait_until(lambda: client.workflows("notice")[0].engine_status == "SUCCESS", LIMIT_SECONDS)
    assert notice.workflow_id == f"notice-failed-{line.workflow_id}-pacs"
    assert [each["message"] for each in got] == [f"Study {uid}: {line.reason}"]
    assert str(line.reason).startswith("pacs: seg.dcm 0xA900")


def command(config_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line."""
    line = [sys.executable, "-m", "node", *arguments, "--config", str(config_file)]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


def test_admin_works_on_postgres_while_a_worker_runs(tmp_path: Path) -> None:
    """studies, show, retry, cancel, spool and send do their work; of a study nobody knows all say the same."""
    with running_postgres() as url:
        pacs = result_pacs()
        config_file = write_config(tmp_path, [pacs.destination], engine={"database": url})
        config = load_config(config_file)
        with closing(WorkflowClient(config)) as client, threshold_worker(config_file):
            node, uid = Desk(config, client), put(config, make_study(3))
            with pacs:
                node.dispatcher.start(uid)
                line = node.wait(uid, is_delivered)
                put_localizer(config, uid)
                node.dispatcher.start(uid)
                (listed,) = json.loads(command(config_file, "studies", "--json").stdout)
                assert (listed["study_instance_uid"], listed["state"]) == (uid, "delivered")
                shown = json.loads(command(config_file, "show", uid).stdout)
                assert shown["result"]["state"] == "reported"
                assert [each["event"] for each in shown["history"]].count(f"process {line.workflow_id}: ordered") == 1
                (held,) = json.loads(command(config_file, "spool", "--json").stdout)["studies"]
                assert held["held_because"].startswith("kept until")
                sent = command(config_file, "send", str(config.work_folder / str(line.folder) / "sr.dcm"), "pacs")
                assert (sent.returncode, sent.stdout[:4]) == (0, "ok  ")
            retried = command(config_file, "retry", uid)
            assert retried.stdout == f"ordered again: {line.workflow_id}.2\n", retried.stderr
            node.wait(uid, is_retrying)
            cancelled = command(config_file, "cancel", uid)
            assert (cancelled.returncode, cancelled.stdout) == (0, f"cancelled: {line.workflow_id}.2-pacs\n")
            assert (
                node.wait(uid, lambda line: line.deliveries["pacs"].state == "cancelled").workflow_id
                == f"{line.folder}.2"
            )
            assert command(config_file, "cancel", uid).returncode == 1
            for name in ("show", "retry", "cancel"):
                unknown = command(config_file, name, "1.2.3.4")
                assert (unknown.returncode, unknown.stdout, unknown.stderr) == (1, "", "error: no study 1.2.3.4\n")
    assert len({each.data_set for each in pacs.received}) == 2
