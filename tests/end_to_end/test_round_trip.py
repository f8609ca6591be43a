"""One exam through real parts: storescu, a PACS that routes it, the node, and back; what came back is right.

The demo's node has segmented the same exam; here its regions are taken over (see ``replay_worker``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from faults import free_port
from lab import (
    LOOPBACK,
    PIXELMED_JAR,
    Orthanc,
    dcentvfy_errors,
    dciodvfy_errors,
    needs,
    pixelmed_sr_problems,
    read_seg_with_dcmqi,
    storescu,
)
from node_process import running_node, write_config
from pydicom import Dataset, dcmread
from replay_worker import replay_worker
from shared_run import Demo

from node.demo.mr_writer import PATIENT_ID, WrittenStudy, sample_label
from node.demo.patient import ENHANCING, NECROSIS, OEDEMA, SyntheticPatient
from node.segmentation.volume import image_from_affine
from node.sr_writer.report import read_volumes
from node.study import Contrast, Destination

NODE, SCANNER = "GLIONODE", "SCANNER"
RESULT_SECONDS = 600.0  # a quarter of a minute on an idle machine
TRUE_LABELS = {  # segment number to the labels it is made of, and the least Dice it must reach
    1: ((NECROSIS, ENHANCING, OEDEMA), 0.8),
    2: ((NECROSIS, ENHANCING), 0.6),
    3: ((ENHANCING,), 0.6),
}
PAGES = ("/", "/studies.json", "/health", "/metrics")

pytestmark = [pytest.mark.slow, pytest.mark.long(250), pytest.mark.timeout(2000), needs("Orthanc", "storescu", "cc")]


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What is left of one exam's way: objects as the PACS gives them, files as the node keeps them, what it told."""

    exam: WrittenStudy
    seg: list[Dataset]
    sr: list[Dataset]
    held_by_pacs: frozenset[str]
    work_folders: tuple[Path, ...]
    listed: list[dict[str, Any]]
    shown: dict[str, Any]
    pages: dict[str, str]
    sent_again: dict[str, list[dict[str, Any]]]
    log: str

    @property
    def work(self) -> Path:
        """The folder of the one workflow there was."""
        (folder,) = self.work_folders
        return folder


def files_of(exam: WrittenStudy) -> list[Path]:
    """All instances of the exam."""
    return [file for series in exam.series for file in series.files]


@pytest.fixture(scope="module")
def round_trip(
    tmp_path_factory: pytest.TempPathFactory, whole_demo: Demo, synthetic_exam: WrittenStudy
) -> Iterator[RoundTrip]:
    """Store the exam in the PACS, wait until its results were delivered, then send it to the node once more."""
    folder = tmp_path_factory.mktemp("round-trip")
    demo_node = whole_demo.outcome.folder / "node"
    study, port = synthetic_exam.study_instance_uid, free_port()
    with Orthanc(NODE, port) as pacs:
        peer = Destination("pacs", pacs.ae_title, LOOPBACK, pacs.dicom_port)
        config_file = write_config(folder, [peer], scp={"port": port}, delivery={})
        with running_node(config_file, "receive") as node, replay_worker(config_file, demo_node) as worker_log:
            storescu(LOOPBACK, pacs.dicom_port, pacs.ae_title, SCANNER, files_of(synthetic_exam))
            node.wait_until(
                lambda: node.study(study).get("state") in ("delivered", "refused", "failed"), RESULT_SECONDS
            )
            pages = {path: node.get(path) for path in PAGES}
            storescu(LOOPBACK, port, NODE, SCANNER, files_of(synthetic_exam))
            node.wait_until(lambda: node.events("study_unchanged"))
            yield RoundTrip(
                exam=synthetic_exam,
                seg=pacs.instances(study, "SEG"),
                sr=pacs.instances(study, "SR"),
                held_by_pacs=frozenset(str(image.SOPInstanceUID) for image in pacs.instances(study, "MR")),
                work_folders=tuple(node.config.work_folder.iterdir()),
                listed=json.loads(node.command("studies", "--json").stdout),
                shown=json.loads(node.command("show", study).stdout),
                pages=pages,
                sent_again={name: node.events(name) for name in ("study_started", "study_unchanged")},
                log=node.log() + worker_log.read_text("utf-8"),
            )


def test_study_is_delivered(round_trip: RoundTrip) -> None:
    """The command line lists the one study as delivered to the PACS, without a reason for anything else."""
    (line,) = round_trip.listed
    assert line["study_instance_uid"] == round_trip.exam.study_instance_uid
    assert (line["state"], line["reason"], line["deliveries"]) == ("delivered", None, {"pacs": "delivered"})
    assert round_trip.shown["result"]["state"] == "reported"
    assert {chosen["contrast"] for chosen in round_trip.shown["result"]["selection"]["series"] if chosen["chosen"]} == {
        "T1",
        "T1c",
        "T2",
        "FLAIR",
    }


def test_pacs_holds_what_the_node_keeps(round_trip: RoundTrip) -> None:
    """One SEG and one SR are in the PACS, their data sets those of the node's files, in the patient's study."""
    assert round_trip.seg == [dcmread(round_trip.work / "seg.dcm")]
    assert round_trip.sr == [dcmread(round_trip.work / "sr.dcm")]
    for result in (*round_trip.seg, *round_trip.sr):
        assert (result.StudyInstanceUID, result.PatientID) == (round_trip.exam.study_instance_uid, PATIENT_ID)


def test_seg_references_what_the_pacs_holds(round_trip: RoundTrip) -> None:
    """Every frame of the SEG comes from an instance of the T1c series that the PACS holds."""
    (seg,) = round_trip.seg
    sources = {
        str(image.ReferencedSOPInstanceUID)
        for frame in seg.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for image in derivation.SourceImageSequence
    }
    (series,) = seg.ReferencedSeriesSequence
    listed = {str(image.ReferencedSOPInstanceUID) for image in series.ReferencedInstanceSequence}
    assert sources
    assert sources <= listed <= round_trip.held_by_pacs
    assert series.SeriesInstanceUID == t1c_of(round_trip.exam).series_instance_uid


def t1c_of(exam: WrittenStudy) -> Any:
    """The exam's T1c series."""
    return next(series for series in exam.series if series.acquisition.contrast is Contrast.T1C)


@needs("dciodvfy", "dcentvfy", "java", PIXELMED_JAR)
def test_validators_find_nothing(round_trip: RoundTrip, tmp_path: Path) -> None:
    """dciodvfy and dcentvfy find no error in what the PACS gives back, PixelMed none in the SR."""
    files = [tmp_path / "seg.dcm", tmp_path / "sr.dcm"]
    for file, result in zip(files, (round_trip.seg[0], round_trip.sr[0]), strict=True):
        result.save_as(file, enforce_file_format=True)
    assert [dciodvfy_errors(file) for file in files] == [[], []]
    assert dcentvfy_errors([*files, t1c_of(round_trip.exam).files[0]]) == []
    assert pixelmed_sr_problems(files[1]) == []


@needs("segimage2itkimage")
def test_regions_are_near_the_truth(round_trip: RoundTrip, synthetic_patient: SyntheticPatient, tmp_path: Path) -> None:
    """Read by dcmqi, each segment overlaps the true label on the T1c grid as it should."""
    acquisition = t1c_of(round_trip.exam).acquisition
    truth_zyx = sample_label(synthetic_patient, acquisition)
    grid = image_from_affine(truth_zyx, acquisition.affine_lps)
    segments = read_seg_with_dcmqi(round_trip.work / "seg.dcm", tmp_path)
    assert sorted(segments) == sorted(TRUE_LABELS)
    for number, (labels, least) in TRUE_LABELS.items():
        found = SimpleITK.Resample(segments[number], grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0)
        found_zyx = SimpleITK.GetArrayFromImage(found) > 0
        true_zyx = np.isin(truth_zyx, labels)
        dice = 2 * np.count_nonzero(found_zyx & true_zyx) / (found_zyx.sum() + true_zyx.sum())
        assert dice > least, f"segment {number}"


def test_numbers_agree(round_trip: RoundTrip) -> None:
    """The volumes in the SR are those in result.json."""
    volumes = read_volumes(round_trip.sr[0])
    assert sorted(volumes.values()) == sorted(round_trip.shown["result"]["volumes_ml"].values())
    assert min(volumes.values()) > 1.0


def test_page_shows_the_study(round_trip: RoundTrip) -> None:
    """The status page names the study and its state, health is ok, and the metrics count what was received."""
    assert round_trip.exam.study_instance_uid in round_trip.pages["/"]
    assert '<span class="state delivered">delivered</span>' in round_trip.pages["/"]
    assert json.loads(round_trip.pages["/studies.json"]) == round_trip.listed
    assert round_trip.pages["/health"] == "ok"
    metrics = dict(
        line.rsplit(" ", 1) for line in round_trip.pages["/metrics"].splitlines() if not line.startswith("#")
    )
    assert float(metrics['glionode_instances_received_total{outcome="stored"}']) == len(files_of(round_trip.exam))
    assert float(metrics["glionode_studies_started_total"]) == 1


def test_no_patient_is_named(round_trip: RoundTrip) -> None:
    """Neither log nor page nor metrics nor command line nor result.json names the patient."""
    texts = [round_trip.log, *round_trip.pages.values(), json.dumps([round_trip.listed, round_trip.shown])]
    for secret in (PATIENT_ID, "Synthetic", "Patient^", "^Patient", "19600101"):
        assert [text for text in texts if secret in text] == []


def test_same_exam_again_is_nothing_new(round_trip: RoundTrip) -> None:
    """Sent a second time, the exam is recognised: one workflow, one SEG, one SR."""
    assert len(round_trip.sent_again["study_started"]) == 1
    workflow_id = round_trip.sent_again["study_started"][0]["workflow_id"]
    assert {event["workflow_id"] for event in round_trip.sent_again["study_unchanged"]} == {workflow_id}
    assert [folder.name for folder in round_trip.work_folders] == [workflow_id]
    assert (len(round_trip.seg), len(round_trip.sr)) == (1, 1)
