"""The laboratory itself: its PACS behaves, its validators catch what is broken, its readers read what was written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from lab import (
    LOOPBACK,
    PIXELMED_JAR,
    Orthanc,
    dcentvfy_errors,
    dciodvfy_errors,
    echoscu,
    free_port,
    is_listening,
    needs,
    pixelmed_sr_problems,
    read_seg_with_dcmqi,
    read_sr_with_dcmqi,
    storescu,
    wait_until,
)
from lab_objects import (
    FIRST_POSITION_MM,
    PIXEL_SPACING_MM,
    SLICES,
    SPACING_BETWEEN_SLICES_MM,
    make_seg,
    make_sr,
    mr_series,
    nested_masks,
    write,
)
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.events import Event

pytestmark = pytest.mark.slow

NODE = "GLIONODE"
SCANNER = "SCANNER"
needs_pacs = needs("Orthanc", "storescu", "echoscu", "cc")
needs_validators = needs("dciodvfy", "dcentvfy", "java", PIXELMED_JAR)
needs_dcmqi = needs("segimage2itkimage", "tid1500reader")


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    """A small MR series."""
    return mr_series(generate_uid())


@pytest.fixture(scope="module")
def seg(images: list[Dataset]) -> Dataset:
    """A good SEG of it."""
    return make_seg(images)


@pytest.fixture(scope="module")
def sr(images: list[Dataset], seg: Dataset) -> Dataset:
    """A good SR of that."""
    return make_sr(images, seg)


@contextmanager
def storage_scp(port: int, status: int = 0x0000) -> Iterator[list[str]]:
    """A node that takes MR and answers ``status``: yields the SOP Instance UIDs in the order of arrival."""
    received: list[str] = []
    lock = threading.Lock()

    def store(event: Event) -> int:
        with lock:
            received.append(str(event.request.AffectedSOPInstanceUID))
        return status

    ae = AE(NODE)
    ae.add_supported_context(MRImageStorage)
    scp = ae.start_server((LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield received
    finally:
        scp.shutdown()


@needs_pacs
def test_pacs_answers_echo_on_loopback_only() -> None:
    """Orthanc answers C-ECHO on 127.0.0.1 and is not to be reached on another address of the machine."""
    with Orthanc(NODE, free_port()) as pacs:
        echoscu(LOOPBACK, pacs.dicom_port, pacs.ae_title, SCANNER)
        assert [is_listening(port, "127.0.0.2") for port in (pacs.dicom_port, pacs.http_port)] == [False, False]
        with pytest.raises(RuntimeError, match="Called AE Title Not Recognized"):
            echoscu(LOOPBACK, pacs.dicom_port, "OTHER", SCANNER)


@needs_pacs
def test_pacs_returns_what_was_stored(tmp_path: Path, images: list[Dataset], seg: Dataset) -> None:
    """What storescu or HTTP brings is fetched by DICOMweb as the same data sets, told apart by modality."""
    study = images[0].StudyInstanceUID
    with Orthanc(NODE, free_port()) as pacs:
        assert pacs.studies() == []
        storescu(LOOPBACK, pacs.dicom_port, pacs.ae_title, SCANNER, write(tmp_path, *images))
        pacs.upload(write(tmp_path, seg)[0])
        assert pacs.studies() == [study]
        fetched = sorted(pacs.instances(study, "MR"), key=lambda instance: int(instance.InstanceNumber))
        assert fetched == images
        assert pacs.instances(study, "SEG") == [dcmread(write(tmp_path, seg)[0])]
        assert pacs.instances(study, "SR") == []


@needs_pacs
def test_store_that_fails_is_told(tmp_path: Path, images: list[Dataset]) -> None:
    """A store that the peer refuses raises with the SCU's output."""
    port = free_port()
    with storage_scp(port, status=0xA700), pytest.raises(RuntimeError, match="OutOfResources"):
        storescu(LOOPBACK, port, NODE, SCANNER, write(tmp_path, *images))


@needs_pacs
def test_stable_study_is_routed_once(tmp_path: Path, images: list[Dataset], seg: Dataset) -> None:
    """A stable study's MR series reach the node, its SEG does not, and a study that grows is not routed again."""
    more, late = (mr_series(images[0].StudyInstanceUID) for _ in range(2))
    node_port = free_port()
    with storage_scp(node_port) as received, Orthanc(NODE, node_port) as pacs:
        storescu(LOOPBACK, pacs.dicom_port, pacs.ae_title, SCANNER, write(tmp_path, *images, *more, seg))
        wait_until(lambda: len(received) >= 2 * SLICES, 30, lambda: f"the node receives MR\n{pacs.log()}")
        storescu(LOOPBACK, pacs.dicom_port, pacs.ae_title, SCANNER, write(tmp_path, *late))
        wait_until(lambda: "already routed" in pacs.log(), 30, lambda: f"stable again\n{pacs.log()}")
        assert len(pacs.rest("/jobs")) == 1
    assert sorted(received) == sorted(instance.SOPInstanceUID for instance in [*images, *more])


@needs_pacs
def test_pacs_is_gone_after_the_block() -> None:
    """After the block, even one that raised, the process is gone, the ports are free, and the error bears the log."""
    with pytest.raises(ArithmeticError) as caught, Orthanc(NODE, free_port()) as pacs:
        raise ArithmeticError
    with pytest.raises(ProcessLookupError):
        os.kill(pacs.pid, 0)
    assert not is_listening(pacs.dicom_port)
    assert not is_listening(pacs.http_port)
    assert "Orthanc has started" in caught.value.__notes__[0]


@needs_validators
def test_validators_pass_good_objects(tmp_path: Path, images: list[Dataset], seg: Dataset, sr: Dataset) -> None:
    """No validator complains about a good MR, SEG and SR."""
    paths = write(tmp_path, *images, seg, sr)
    assert {path.name: dciodvfy_errors(path) for path in paths} == {path.name: [] for path in paths}
    assert dcentvfy_errors(paths) == []
    assert pixelmed_sr_problems(paths[-1]) == []


def _drop_property_type(broken: Dataset) -> None:
    del broken.SegmentSequence[0].SegmentedPropertyTypeCodeSequence


def _refer_to_no_segment(broken: Dataset) -> None:
    broken.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def _cut_pixel_data(broken: Dataset) -> None:
    broken.PixelData = broken.PixelData[:10]


@needs_validators
@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (_drop_property_type, "SegmentedPropertyTypeCodeSequence"),
        (_refer_to_no_segment, "does not match a SegmentNumber"),
        (_cut_pixel_data, "incorrect value length"),
    ],
)
def test_broken_seg_is_caught(
    tmp_path: Path, seg: Dataset, break_it: Callable[[Dataset], None], complaint: str
) -> None:
    """A SEG broken in one place makes dciodvfy complain about that place."""
    broken = deepcopy(seg)
    break_it(broken)
    errors = dciodvfy_errors(write(tmp_path, broken)[0])
    assert any(complaint in error for error in errors), errors


def _measurement_group(report: Dataset) -> Dataset:
    measurements = next(item for item in report.ContentSequence if _concept(item) == "Imaging Measurements")
    return measurements.ContentSequence[0]


def _concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _wrong_relationship(broken: Dataset) -> None:
    number = next(item for item in _measurement_group(broken).ContentSequence if item.ValueType == "NUM")
    number.RelationshipType = "HAS PROPERTIES"


def _drop_source_series(broken: Dataset) -> None:
    group = _measurement_group(broken)
    group.ContentSequence = [item for item in group.ContentSequence if not _concept(item).startswith("Source")]


def _drop_evidence(broken: Dataset) -> None:
    del broken.CurrentRequestedProcedureEvidenceSequence


@needs_validators
@pytest.mark.parametrize(
    ("break_it", "validate", "complaint"),
    [
        (_wrong_relationship, pixelmed_sr_problems, "HAS PROPERTIES"),
        (_drop_source_series, pixelmed_sr_problems, "Source"),
        (_drop_evidence, dciodvfy_errors, "not listed in CurrentRequestedProcedureEvidenceSequence"),
    ],
)
def test_broken_sr_is_caught(
    tmp_path: Path,
    sr: Dataset,
    break_it: Callable[[Dataset], None],
    validate: Callable[[Path], list[str]],
    complaint: str,
) -> None:
    """An SR broken in one place makes a validator complain about that place."""
    broken = dcmread(write(tmp_path, sr)[0])
    break_it(broken)
    problems = validate(write(tmp_path, broken)[0])
    assert any(complaint in problem for problem in problems), problems


@needs_validators
def test_objects_that_contradict_each_other_are_caught(tmp_path: Path, images: list[Dataset], seg: Dataset) -> None:
    """A SEG that says another patient's sex than its images makes dcentvfy complain."""
    broken = deepcopy(seg)
    broken.PatientSex = "F"
    errors = dcentvfy_errors(write(tmp_path, *images, broken))
    assert errors
    assert all("PatientSex" in error for error in errors)


@needs_validators
def test_what_no_validator_can_read_is_no_pass(tmp_path: Path) -> None:
    """A missing file and one that is no DICOM are problems to every validator, never a clean bill."""
    no_dicom = tmp_path / "no.dcm"
    no_dicom.write_bytes(b"no DICOM" * 200)
    for path in (no_dicom, tmp_path / "missing.dcm"):
        assert dciodvfy_errors(path)
        assert dcentvfy_errors([path])
        assert pixelmed_sr_problems(path)


@needs_dcmqi
def test_dcmqi_reads_masks_where_they_are(tmp_path: Path, seg: Dataset) -> None:
    """Each segment of an asymmetric SEG with oblong pixels is read by dcmqi at its points in LPS millimetres."""
    read = read_seg_with_dcmqi(write(tmp_path, seg)[0], tmp_path / "dcmqi")
    assert sorted(read) == [1, 2]
    for number, image in read.items():
        found = {
            image.TransformIndexToPhysicalPoint([int(x), int(y), int(z)])
            for z, y, x in np.argwhere(SimpleITK.GetArrayFromImage(image))
        }
        x_mm, y_mm, z_mm = FIRST_POSITION_MM
        expected = {
            (x_mm + x * PIXEL_SPACING_MM[1], y_mm + y * PIXEL_SPACING_MM[0], z_mm + z * SPACING_BETWEEN_SLICES_MM)
            for z, y, x in np.argwhere(nested_masks()[number - 1])
        }
        assert found == expected


@needs_dcmqi
def test_dcmqi_reads_the_measurement(tmp_path: Path, sr: Dataset, seg: Dataset) -> None:
    """dcmqi reads the SR's one number with its unit, and the segment it was measured on."""
    (group,) = read_sr_with_dcmqi(write(tmp_path, sr)[0])["Measurements"]
    (item,) = group["measurementItems"]
    assert (float(item["value"]), item["units"]["CodeValue"]) == (15.0, "mm3")
    assert (group["segmentationSOPInstanceUID"], group["ReferencedSegment"]) == (seg.SOPInstanceUID, 1)


def test_missing_program_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that needs a missing program is skipped on a desk, but not under CI=true."""
    monkeypatch.delenv("CI", raising=False)
    assert needs("no-such-program").args == (True,)
    assert needs("sh").args == (False,)
    monkeypatch.setenv("CI", "true")
    assert needs("no-such-program").args == (False,)


def test_waiting_has_a_deadline() -> None:
    """Waiting for what never comes fails with the message."""
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: the tide"):
        wait_until(lambda: False, 0.1, "the tide")
