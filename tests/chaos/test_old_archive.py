"""A whole exam of an old archive, whose UIDs have leading zeros: received, processed, reported, and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lab
import pytest
from faults import free_port
from instances import encode_instance
from node_process import NodeProcess, running_node, write_config
from pydicom import Dataset, dcmread
from small_study import all_instances, study_instance_uid
from storm import make_study
from threshold_worker import threshold_worker

from node.scu.send import send_results
from node.study import Destination

LIMIT_SECONDS = 120.0

pytestmark = [
    pytest.mark.slow,
    lab.needs("Orthanc", "cc", "dciodvfy"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning"),  # the node's log drops them, too
]


def with_leading_zeros(study: dict[str, list[Dataset]]) -> dict[str, list[Dataset]]:
    """The exam as an archive keeps it that fills the components of its UIDs with zeros."""
    for instance in all_instances(study):
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(instance, keyword, str(instance[keyword].value).replace("2.25.", "2.025.00"))
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = instance.SOPClassUID, "1.2.0003"
        instance.ReferencedImageSequence = [reference]
    return study


def write_exam(folder: Path, study: dict[str, list[Dataset]]) -> list[Path]:
    """Its files."""
    folder.mkdir()
    files = []
    for number, instance in enumerate(all_instances(study)):
        files.append(folder / f"{number:03d}.dcm")
        files[-1].write_bytes(encode_instance(instance))
    return files


def shown(node: NodeProcess, *arguments: str) -> Any:
    """What a command of the command line prints, as JSON."""
    done = node.command(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_results_refer_to_the_uids_of_the_archive(tmp_path: Path) -> None:
    """The archive finds SEG and SR in its own study, by which lists and commands know it, too, also after a restart."""
    exam = with_leading_zeros(make_study(7))
    uid, files = study_instance_uid(exam), write_exam(tmp_path / "exam", exam)
    scp_port = free_port()
    with lab.Orthanc("GLIONODE", scp_port) as pacs:
        for file in files:
            pacs.upload(file)
        peer = Destination("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port)
        config_file = write_config(tmp_path / "node", [peer], scp={"port": scp_port, "uid_repair": "map"})
        with running_node(config_file, "receive") as node, threshold_worker(config_file) as worker_log:
            assert {each.status for each in send_results(node.destination, "PACS", files, 20.0)} == {0x0000}
            node.wait_until(lambda: node.study(uid).get("state") == "delivered", LIMIT_SECONDS)
            assert [line["study_instance_uid"] for line in shown(node, "studies", "--json")] == [uid]
            check_retry(node, uid)
            assert "Invalid value" not in node.log() + worker_log.read_text("utf-8")
        results = [next((tmp_path / "node").rglob(name)) for name in ("seg.dcm", "sr.dcm")]
        assert pacs.studies() == [uid]
        assert [*pacs.instances(uid, "SEG"), *pacs.instances(uid, "SR")] == [dcmread(file) for file in results]
    check_references(*map(dcmread, results), exam)
    for file in results:
        check_errors(file)
    check_refused_from_now_on(config_file, uid, files[0])


def check_retry(node: NodeProcess, uid: str) -> None:
    """The study is processed and delivered again by its UID."""
    first = shown(node, "show", uid)["workflow_id"]
    assert node.command("retry", uid).returncode == 0
    node.wait_until(lambda: node.study(uid)["workflow_id"] != first, LIMIT_SECONDS)
    node.wait_until(lambda: node.study(uid)["state"] == "delivered", LIMIT_SECONDS)


def check_refused_from_now_on(config_file: Path, uid: str, file: Path) -> None:
    """A restart with "refuse" keeps what was received, and refuses only what comes then."""
    config_file.write_text(config_file.read_text().replace('"map"', '"refuse"'))
    with running_node(config_file, "receive") as node:
        assert shown(node, "show", uid)["state"] == "delivered"
        assert [each.status for each in send_results(node.destination, "PACS", [file], 20.0)] == [0xC011]


def check_errors(file: Path) -> None:
    """All that a validator finds wrong are the leading zeros."""
    errors = lab.dciodvfy_errors(file)
    assert errors
    summary = "Dicom dataset contains invalid data values for Value Representations"
    assert [each for each in errors if "Leading zeroes" not in each and summary not in each] == []


def check_references(seg: Dataset, report: Dataset, exam: dict[str, list[Dataset]]) -> None:
    """Every reference is that of an original: study, series, frame of reference, and each source image."""
    source = exam["T1c"][0]
    assert (seg.StudyInstanceUID, report.StudyInstanceUID) == (source.StudyInstanceUID,) * 2
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    originals = {str(instance.SOPInstanceUID) for instance in exam["T1c"]}
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for group in seg.PerFrameFunctionalGroupsSequence
        for image in group.DerivationImageSequence
        for item in image.SourceImageSequence
    }
    assert referenced
    assert referenced <= originals
    evidence = report.CurrentRequestedProcedureEvidenceSequence
    assert {str(item.StudyInstanceUID) for item in evidence} == {str(source.StudyInstanceUID)}
    assert str(source.SeriesInstanceUID) in str(report)
