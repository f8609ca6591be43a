"""The whole node and DCMTK's storescu: a PACS corrects an identity and rejects a series after the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from faults import FakePacs
from instances import write_instance_file
from lab import storescu
from node_process import NodeProcess, running_node, write_config
from pydicom import Dataset
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from rejection_notes import key_object_selection
from small_study import all_instances, make_small_study, study_instance_uid
from threshold_worker import threshold_worker

from node.dicom.uids import derived_uid

UID = study_instance_uid(make_small_study())


def send(node: NodeProcess, folder: Path, instances: Iterable[Dataset]) -> None:
    """C-STORE by DCMTK, each answered with Success."""
    folder.mkdir()
    files = [write_instance_file(folder, instance) for instance in instances]
    scp = node.config.scp
    storescu(scp.host, scp.port, scp.ae_title, "PACS", files)


def is_delivered(node: NodeProcess, state: str = "delivered") -> bool:
    """True once the study's latest workflow has ended in this state."""
    return bool(node.study(UID).get("state") == state)


@pytest.mark.slow
def test_pacs_corrects_and_rejects_after_the_report(tmp_path: Path) -> None:
    """New results under the new name, sent once; a kill of the receiver loses neither correction nor withdrawal."""
    pacs = FakePacs(sop_classes=[SegmentationStorage, EnhancedSRStorage])
    with pacs:
        quick = {"stable_seconds": 1.0, "series_stable_seconds": 0.5}
        config_file = write_config(tmp_path / "node", [pacs.destination], assembly=quick)
        right = make_small_study()
        for instance in all_instances(right):
            instance.PatientID, instance.PatientName = "RIGHT-1", "Right^Name"
        with threshold_worker(config_file):
            with running_node(config_file, "receive") as node:
                send(node, tmp_path / "first", all_instances(make_small_study()))
                node.wait_until(lambda: is_delivered(node))
                first = node.study(UID)["folder"]
                send(node, tmp_path / "corrected", all_instances(right))
                node.kill()
            with running_node(config_file, "receive") as node:
                node.wait_until(lambda: node.study(UID)["folder"] != first and is_delivered(node))
                second = node.study(UID)["folder"]
                assert "glionode_conflicts_open 0.0" in node.get("/metrics")
                assert "48 instances were corrected" in node.get("/")
                send(node, tmp_path / "note", [key_object_selection("113001", right["FLAIR"])])
                node.kill()
            with running_node(config_file, "receive") as node:
                node.wait_until(lambda: is_delivered(node, "refused"))
                assert "12 instances are withdrawn: Rejected for Quality Reasons" in node.study(UID)["reason"]
                assert "RIGHT" not in node.log()
    sent = [(each.sop_instance_uid, b"RIGHT-1" in each.data_set) for each in pacs.received]
    uids = [(derived_uid(folder, name), folder == second) for folder in (first, second) for name in ("seg", "sr")]
    assert sent == uids
