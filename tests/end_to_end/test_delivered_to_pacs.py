"""Delivery to a real PACS: C-STORE and storage commitment, its reports brought to the node's port, and STOW-RS."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import free_port
from lab import Orthanc, needs
from lab_objects import make_seg, make_sr, mr_series
from memory_steps import MemorySteps
from node_process import running_node, write_config
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from small_study import make_small_study, study_instance_uid, write_small_study

from node.config import Config, build_config
from node.delivery.delivery import Delivery
from node.dicom.commitment import Commitments
from node.metrics import Metrics
from node.scp.commitment import CommitmentHandler
from node.scp.handlers import StorageHandlers
from node.scp.server import Receiver
from node.scp.spool import Spool
from node.scu.send import send_results
from node.scu.stow import probe
from node.study import Destination, WebDestination

NODE = "GLIONODE"
REPORT_SECONDS = 60.0

pytestmark = [pytest.mark.slow, needs("Orthanc", "cc")]


@pytest.fixture(scope="module")
def node_port() -> int:
    """Where the PACS brings its reports."""
    return free_port()


@pytest.fixture(scope="module")
def pacs(node_port: int) -> Iterator[Orthanc]:
    """A PACS that knows the node."""
    with Orthanc(NODE, node_port) as running:
        yield running


@pytest.fixture
def study() -> str:
    """A new study's UID."""
    return generate_uid()


@pytest.fixture
def work(tmp_path: Path, study: str) -> Path:
    """A work folder with SEG and SR of the study."""
    folder = tmp_path / "work"
    folder.mkdir()
    images = mr_series(study)
    seg = make_seg(images)
    seg.save_as(folder / "seg.dcm", enforce_file_format=True)
    make_sr(images, seg).save_as(folder / "sr.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def config(tmp_path: Path, pacs: Orthanc, node_port: int) -> Config:
    """A config that has the PACS commit."""
    peer = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}
    values = {
        "node": {"folder": str(tmp_path / "var")},
        "scp": {"ae_title": NODE, "port": node_port, "watermark_mebibytes": 1},
        "delivery": {"first_retry_seconds": 0.1, "timeout_seconds": 20.0},
        "destination": [{**peer, "commitment": True}],
    }
    return build_config(values)


@pytest.fixture
def steps(config: Config) -> Iterator[MemorySteps]:
    """The engine's place, and a node that takes reports for it."""
    found = MemorySteps(patience_seconds=REPORT_SECONDS)
    metrics = Metrics()
    storage = StorageHandlers(Spool(config.spool_folder), metrics, config.scp, lambda *_: None)
    handler = CommitmentHandler(Commitments(config.commitments_folder), metrics, found.send)
    with Receiver(config.scp, storage, metrics, commitment=handler):
        yield found


def when_published(steps: MemorySteps, state: str, act: Callable[[], object]) -> None:
    """Call ``act`` the first time that the workflow publishes ``state``."""
    publish = steps.publish

    def publish_and_act(published: str, reason: str | None = None) -> None:
        if published == state and state not in steps.told:
            act()
        publish(published, reason)

    steps.publish = publish_and_act  # type: ignore[method-assign]


def held(pacs: Orthanc, study: str) -> list[Dataset]:
    """SEG and SR of the study as the PACS gives them."""
    return [instance for modality in ("SEG", "SR") for instance in pacs.instances(study, modality)]


def sent(work: Path) -> list[Dataset]:
    """SEG and SR as they were sent."""
    return [dcmread(work / name) for name in ("seg.dcm", "sr.dcm")]


def test_pacs_commits(pacs: Orthanc, config: Config, steps: MemorySteps, work: Path, study: str) -> None:
    """The PACS stores both results and reports on an association of its own that it holds them."""
    result = Delivery(config).deliver(steps, study, str(work), "pacs")
    assert (result["state"], result["reason"], result["attempts"]) == ("committed", None, 1)
    assert held(pacs, study) == sent(work)
    assert list(config.commitments_folder.iterdir()) == []


def test_pacs_of_implicit_vr_alone_gets_both_results(work: Path) -> None:
    """Orthanc restricted to Implicit VR Little Endian stores SEG and SR with all their elements."""
    with Orthanc(NODE, free_port(), transfer_syntaxes=[ImplicitVRLittleEndian]) as pacs:
        peer = Destination("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port)
        deliveries = send_results(peer, NODE, [work / "seg.dcm", work / "sr.dcm"], 20.0)
        stored = [pacs.stored(each.sop_instance_uid) for each in deliveries]
    assert [each.status for each in deliveries] == [0x0000] * 2
    assert {each.file_meta.TransferSyntaxUID for each in stored} == {ImplicitVRLittleEndian}
    stored[0]["PixelData"].VR = "OB"  # Implicit VR has none; pydicom takes it for OW
    assert stored == sent(work)


def test_pacs_that_lost_an_instance_gets_it_again(
    pacs: Orthanc, config: Config, steps: MemorySteps, work: Path, study: str
) -> None:
    """What was deleted in the PACS before it could commit is reported (0x0112), sent again, and committed to."""

    def lose() -> None:
        uid = dcmread(work / "sr.dcm").SOPInstanceUID
        (found,) = pacs.find(uid)
        pacs.delete(f"/instances/{found}")

    when_published(steps, "committing", lose)
    result = Delivery(config).deliver(steps, study, str(work), "pacs")
    assert (result["state"], result["reason"], result["attempts"]) == ("committed", None, 2)
    assert [each["attempts"] for each in result["instances"]] == [1, 2]
    assert any("0x0112" in told for told in steps.told)
    assert held(pacs, study) == sent(work)


def test_report_that_cannot_come_is_replaced_by_a_query(pacs: Orthanc, config: Config, work: Path, study: str) -> None:
    """If the node's port is closed to the report, the PACS is asked what it holds."""
    result = Delivery(config).deliver(MemorySteps(), study, str(work), "pacs")
    assert result["state"] == "present"
    assert result["reason"].startswith("found by query: no report within")
    assert result["attempts"] == 1


def test_results_by_dicomweb(pacs: Orthanc, work: Path, study: str) -> None:
    """By STOW-RS the PACS gets the same data sets; sent again, they count as delivered again."""
    archive = WebDestination("archive", f"{pacs.url}/dicom-web")
    assert probe(archive, 20.0) is None
    files = [work / "seg.dcm", work / "sr.dcm"]
    for _ in range(2):
        deliveries = send_results(archive, NODE, files, 60.0)
        assert [each.is_delivered for each in deliveries] == [True, True], deliveries
        assert [each.sop_instance_uid for each in deliveries] == [each.SOPInstanceUID for each in sent(work)]
    assert held(pacs, study) == sent(work)


def test_running_node_has_its_refusal_committed(tmp_path: Path, pacs: Orthanc, node_port: int) -> None:
    """A whole node, its worker killed while it awaits the PACS's report, ends with the refusal of a study committed."""
    exam = make_small_study(tmp_path.name)
    del exam["FLAIR"]
    files = sorted(write_small_study(tmp_path / "study", exam).iterdir())
    peer = Destination("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port)
    delivery = {"send_refusals": True, "commitment_wait_seconds": REPORT_SECONDS}
    file = write_config(tmp_path / "node", [peer], scp={"port": node_port}, delivery=delivery)
    with file.open("a") as text:
        text.write("commitment = true\n")
    with running_node(file) as node:
        deliveries = send_results(node.destination, "SCANNER", files, 20.0)
        assert all(each.is_delivered for each in deliveries)
        study = study_instance_uid(exam)
        node.wait_until(lambda: "committing" in str(node.study(study).get("deliveries")), REPORT_SECONDS)
        for pid in node.worker_pids():
            os.kill(pid, signal.SIGKILL)
        node.wait_until(lambda: "committed" in str(node.study(study).get("deliveries")), 2 * REPORT_SECONDS)
        shown = node.study(study)
    assert shown["state"] == "refused"
    assert shown["deliveries"]["pacs"] == "committed"
    (refusal,) = pacs.instances(study, "SR")
    assert refusal == dcmread(next((tmp_path / "node").rglob("refusal.dcm")))
