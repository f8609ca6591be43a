"""The refusal SR: plain words, valid, the same bytes each time, and never of another patient."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from instances import make_instance, write_instance_file
from lab import dciodvfy_errors, pixelmed_output, run_program

from node.errors import VerificationError
from node.sr_writer.refusal import verify_refusal, write_refusal
from node.study import ResultIdentity, Software

IDENTITY = ResultIdentity(
    workflow_id="a" * 32,
    created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    software=Software("glionode", "1"),
    node_version="1",
    station_name="GLIONODE",
    device_serial_number="7",
)
REASON = "no FLAIR: of 3 MR series none reads as FLAIR"


def written(folder: Path, name: str = "refusal.dcm") -> Path:
    """A refusal on disk."""
    header = make_instance(1)
    file = folder / name
    write_refusal(header, header.StudyInstanceUID, REASON, IDENTITY).save_as(file, enforce_file_format=True)
    return file


def test_refusal_says_why(tmp_path: Path) -> None:
    """The reason stands in the document in plain words, under a series description that says there is no result."""
    document = pydicom.dcmread(written(tmp_path))
    texts = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"]
    assert texts[-2] == f"No result. {REASON}"
    assert document.SeriesDescription == "Glioma segmentation: no result"
    assert document.StudyInstanceUID == make_instance(1).StudyInstanceUID
    verify_refusal(written(tmp_path), make_instance(1), REASON)


def test_refusal_is_the_same_each_time(tmp_path: Path) -> None:
    """Writing it again gives equal bytes, so that sending it again is no new instance."""
    assert written(tmp_path, "one.dcm").read_bytes() == written(tmp_path, "two.dcm").read_bytes()


def test_refusal_of_another_study_is_not_written() -> None:
    """A header of another study is not taken for this study's patient."""
    with pytest.raises(VerificationError, match="not of this study"):
        write_refusal(make_instance(1), "1.2.3", REASON, IDENTITY)


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName"])
def test_refusal_with_another_patient_is_noticed(tmp_path: Path, keyword: str) -> None:
    """Read back, a refusal must name the source's patient and the reason meant."""
    other = make_instance(1)
    setattr(other, keyword, "OTHER")
    with pytest.raises(VerificationError, match=keyword):
        verify_refusal(written(tmp_path), other, REASON)
    with pytest.raises(VerificationError, match="reason"):
        verify_refusal(written(tmp_path), make_instance(1), "another reason")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, "Muller^Eva"),
        ("ISO_IR 100", "Müller^Eva"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 192", "山田^太郎"),
    ],
)
@pytest.mark.parametrize("reason", ["series 7 'T1 größer' leaves it open", "series 8 'T1 増強' leaves it open"])
def test_reason_is_held_in_any_script(
    tmp_path: Path, character_set: str | list[str] | None, name: str, reason: str
) -> None:
    """A reason may quote a series in a script that the patient's character set has not; the name stays what it is."""
    source = make_instance(1)
    if character_set:
        source.SpecificCharacterSet = character_set
    source.PatientName = name
    header = pydicom.dcmread(write_instance_file(tmp_path, source))
    file = tmp_path / "refusal.dcm"
    write_refusal(header, header.StudyInstanceUID, reason, IDENTITY).save_as(file, enforce_file_format=True)
    verify_refusal(file, header, reason)
    document = pydicom.dcmread(file)
    assert document.PatientName == name
    is_latin = character_set == "ISO_IR 100" and "größer" in reason
    assert document.SpecificCharacterSet == ("ISO_IR 100" if is_latin else "ISO_IR 192")


@pytest.mark.parametrize(
    "sop_class_uid",
    [
        "1.3.12.2.1107.5.9.1",  # Siemens' private CSA Non-Image Storage
        "1.2.840.10008.5.1.4.1.1.9999",  # none of the standard
        "1.2.840.10008.5.1.4.1.1.66",
        "1.2.840.10008.5.1.4.1.1.88.67",
    ],
)
def test_any_instance_of_the_study_may_name_the_patient(tmp_path: Path, sop_class_uid: str) -> None:
    """An instance of a private class, as some scanners store first, serves as well; the reference names its class."""
    header, file = make_instance(1), tmp_path / "refusal.dcm"
    header.SOPClassUID = sop_class_uid
    write_refusal(header, header.StudyInstanceUID, REASON, IDENTITY).save_as(file, enforce_file_format=True)
    verify_refusal(file, header, REASON)
    evidence = pydicom.dcmread(file).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPClassUID == sop_class_uid
    assert header.SOPClassUID == sop_class_uid


@pytest.mark.slow
@pytest.mark.parametrize("reason", [REASON, "series 8 'T1 増強' leaves it open. " * 60])
def test_refusal_is_valid(tmp_path: Path, reason: str) -> None:
    """dciodvfy and PixelMed find no error in it, and DCMTK reads the whole tree."""
    header, file = make_instance(1), tmp_path / "refusal.dcm"
    write_refusal(header, header.StudyInstanceUID, reason, IDENTITY).save_as(file, enforce_file_format=True)
    assert dciodvfy_errors(file) == []
    found = pixelmed_output(file)
    assert "Found EnhancedSR IOD" in found
    assert "IOD validation complete" in found
    assert not [line for line in found.splitlines() if line.startswith("Error")]
    tree = run_program("dsrdump", file)
    assert tree.returncode == 0
    assert "No result. " in tree.stdout
