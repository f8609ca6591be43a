"""The structured report: the numbers of the SEG, TID 1500, references that exist, nothing random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import highdicom
import lab
import numpy as np
import phantoms
import pydicom
import pytest
from phantoms import Geometry
from pydicom import Dataset

from node.errors import VerificationError
from node.segmentation.seg_writer import verify_seg, write_seg
from node.segmentation.volume import SourceVolume, read_volume
from node.sr_writer.codes import REPORT_TITLE, SEGMENTS
from node.sr_writer.measurements import measure
from node.sr_writer.report import ReportContent, comment_lines, read_volumes, verify_report, write_report
from node.study import Contrast, ResultIdentity, Selection, Software

GEOMETRY = Geometry(size=(48, 44, 20), spacing_between_slices_mm=3.0, centre_mm=(13, -11, 8))
IDENTITY = ResultIdentity(
    workflow_id="a workflow",
    created=datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
    software=Software("anisotropic_nets_brats17", "d44297e", parameters={"mode": "slab"}),
    node_version="0.1.0",
    station_name="GLIONODE",
    device_serial_number="7",
)
CAUTIONS = ("tumour core: the three views agree poorly",)
SERIES_LINES = ("T1c: series 1 'Phantom': 'C' says after contrast; chosen of 2 (3-D with 1.5 mm slices)",)


def written(tmp_path: Path, masks: dict[str, np.ndarray] | None = None) -> tuple[SourceVolume, Dataset, Dataset]:
    """A source, its SEG and its report, as they are read back from disk."""
    source = read_volume(phantoms.write_series(tmp_path / "source", phantoms.classic(GEOMETRY)))
    shape = source.image.GetSize()[::-1]
    if masks is None:
        masks = {concept.region: np.zeros(shape, bool) for concept in SEGMENTS}
        masks["whole_tumour"][4:12, 10:30, 20:40] = True
        masks["tumour_core"][5:9, 12:25, 24:36] = True
        masks["enhancing_tumour"][6, 14:20, 25:30] = True
    seg = write_seg(source, masks, IDENTITY)
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    selection = Selection(source.series.study_instance_uid, {Contrast.T1C: source.series}, ())
    report = write_report(seg, ReportContent(selection, header, CAUTIONS, SERIES_LINES), IDENTITY)
    for name, dataset in (("seg", seg), ("sr", report)):
        dataset.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    return source, pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "sr.dcm")


@pytest.fixture
def objects(tmp_path: Path) -> tuple[SourceVolume, Dataset, Dataset]:
    return written(tmp_path)


def items(content: Dataset) -> Iterator[Dataset]:
    for item in content.get("ContentSequence", ()):
        yield item
        yield from items(item)


def named(content: Dataset, code: str) -> list[Dataset]:
    return [item for item in items(content) if item.ConceptNameCodeSequence[0].CodeValue == code]


def test_volumes_are_those_of_the_label_map(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """Voxels counted by hand times the voxel's size from the planes, to the microlitre."""
    source, seg, report = objects
    voxel_ml = float(np.prod(source.image.GetSpacing())) / 1000
    counts = {"Whole tumour": 8 * 20 * 20, "Tumour core": 4 * 13 * 12, "Enhancing tumour": 6 * 5}
    expected = {label: count * voxel_ml for label, count in counts.items()}
    assert {each.concept.label: each.volume_ml for each in measure(seg)} == pytest.approx(expected)
    assert read_volumes(report) == pytest.approx(expected, abs=5e-4)


def test_volumes_are_in_millilitres(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """The unit is UCUM's mL on every number."""
    _, _, report = objects
    units = [item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0] for item in named(report, "118565006")]
    assert [(unit.CodeValue, unit.CodingSchemeDesignator) for unit in units] == [("mL", "UCUM")] * 3


def test_identity_and_title(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """Patient and study are the source's; the title is the one that viewers show."""
    source, _, report = objects
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyID", "AccessionNumber"):
        assert report[keyword].value == header[keyword].value
    title = report.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == (REPORT_TITLE.value, REPORT_TITLE.scheme_designator)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.Modality == "SR"


def test_each_group_points_at_its_segment(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """Segment number, tracking UID and finding of each group are those of the SEG, and the references exist."""
    source, seg, report = objects
    groups = named(report, "125007")
    assert len(groups) == len(SEGMENTS)
    for group, segment, concept in zip(groups, seg.SegmentSequence, SEGMENTS, strict=True):
        reference = named(group, "121191")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == concept.number == segment.SegmentNumber
        assert segment.TrackingUID == named(group, "112040")[0].UID
        assert named(group, "121071")[0].ConceptCodeSequence[0].CodeValue == concept.property_type.value
        assert source.series.series_instance_uid == named(group, "121232")[0].UID
    evidence = [
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    known = {instance.sop_instance_uid for instance in source.series.instances} | {seg.SOPInstanceUID}
    assert seg.SOPInstanceUID in evidence
    assert set(evidence) <= known


def test_the_algorithm_is_named_with_its_version(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """What ran is in every group: name, version, parameters."""
    _, _, report = objects
    assert [item.TextValue for item in named(report, "111001")] == ["anisotropic_nets_brats17"] * 3
    assert [item.TextValue for item in named(report, "111003")] == ["d44297e"] * 3
    assert [item.TextValue for item in named(report, "111002")] == ["mode=slab"] * 3


@pytest.mark.slow
def test_comments_tell_series_cautions_and_use(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """A reader finds which series was used, what to mind, and that it is no medical device."""
    _, _, report = objects
    text = " | ".join(item.TextValue for item in named(report, "121106"))
    assert "T1c: series" in text
    assert f"Caution: {CAUTIONS[0]}" in text
    assert "not a medical device" in text


def test_the_series_used_are_explained(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """The lines on which series was used and why stand first among the comments, in place of bare labels."""
    comments = [str(item.TextValue) for item in named(objects[2], "121106")]
    assert comments[: len(SERIES_LINES)] == list(SERIES_LINES)
    assert not any(text.startswith("T1c: series") for text in comments[len(SERIES_LINES) :])


def test_comments_hold_no_patient_data(objects: tuple[SourceVolume, Dataset, Dataset]) -> None:
    """Name and ID are in the patient module only, never in a sentence; the state of the exam is one of them."""
    source, _, _ = objects
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    selection = Selection(source.series.study_instance_uid, {Contrast.T1C: source.series}, ())
    content = ReportContent(selection, header, CAUTIONS, state_line="assumed to be before surgery")
    text = " ".join(comment_lines(content, IDENTITY))
    assert "Exam: assumed to be before surgery" in text
    assert str(header.PatientName) not in text
    assert str(header.PatientID) not in text


def test_an_exam_after_surgery_is_coded_as_such(tmp_path: Path) -> None:
    """Each group names the time point Post-operative (CID 6146) if there is evidence for surgery, else none."""
    source = read_volume(phantoms.write_series(tmp_path / "source", phantoms.classic(GEOMETRY)))
    seg = write_seg(source, {c.region: np.ones((20, 44, 48), bool) for c in SEGMENTS}, IDENTITY)
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    selection = Selection(source.series.study_instance_uid, {Contrast.T1C: source.series}, ())
    found = {}
    for is_postoperative in (True, False):
        content = ReportContent(selection, header, (), is_postoperative=is_postoperative)
        report = write_report(seg, content, IDENTITY)
        kinds = [item.ConceptCodeSequence[0] for item in named(report, "126072")]
        found[is_postoperative] = [(kind.CodingSchemeDesignator, kind.CodeValue) for kind in kinds]
        points = [item.TextValue for item in named(report, "C2348792")]
        assert points == [header.StudyDate] * 3 * is_postoperative
    assert found == {True: [("SCT", "262061000")] * 3, False: []}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("character_set", "name", "description"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "T1 Schädel KM"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "造影 T1"),
        ("ISO_IR 192", "Иванов^Иван", "Т1 с контрастом"),
    ],
    ids=["German", "Japanese", "Russian"],
)
def test_letters_of_the_source_survive(tmp_path: Path, character_set: str, name: str, description: str) -> None:
    """Patient's name and series description read the same in the report, whatever the source's character set."""
    instances = phantoms.classic(GEOMETRY)
    for instance in instances:
        instance.SpecificCharacterSet = character_set
        instance.PatientName, instance.SeriesDescription = name, description
    source = read_volume(phantoms.write_series(tmp_path / "source", instances))
    seg = write_seg(source, {c.region: np.ones((20, 44, 48), bool) for c in SEGMENTS}, IDENTITY)
    header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
    selection = Selection(source.series.study_instance_uid, {Contrast.T1C: source.series}, ())
    write_report(seg, ReportContent(selection, header, ()), IDENTITY).save_as(
        tmp_path / "sr.dcm", enforce_file_format=True
    )
    report = pydicom.dcmread(tmp_path / "sr.dcm")
    assert str(report.PatientName) == name
    assert any(description in item.TextValue for item in named(report, "121106"))


@pytest.mark.slow
def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing random and no clock in it: made again, the report is equal byte by byte."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name)
    assert (tmp_path / "one" / "sr.dcm").read_bytes() == (tmp_path / "two" / "sr.dcm").read_bytes()


def test_no_tumour_measures_zero(tmp_path: Path) -> None:
    """An empty result still reports three volumes: 0 mL."""
    empty = {concept.region: np.zeros((20, 44, 48), bool) for concept in SEGMENTS}
    _, _, report = written(tmp_path, empty)
    assert list(read_volumes(report).values()) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("given", [("tumour_core",), ("whole_tumour", "enhancing_tumour")])
def test_regions_that_a_method_does_not_give_are_not_reported(tmp_path: Path, given: tuple[str, ...]) -> None:
    """SEG and report hold the given regions alone, numbered from 1, with their own labels, codes and volumes."""
    masks = {region: np.zeros((20, 44, 48), bool) for region in given}
    for number, mask in enumerate(masks.values(), 1):
        mask[4 : 8 + number, 10:20, 12:30] = True
    source, seg, report = written(tmp_path, masks)
    verify_seg(tmp_path / "seg.dcm", source, masks)
    assert [int(item.SegmentNumber) for item in seg.SegmentSequence] == list(range(1, len(given) + 1))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [c.label for c in SEGMENTS if c.region in given]
    voxel_ml = float(np.prod(source.image.GetSpacing())) / 1000
    expected = [mask.sum() * voxel_ml for mask in masks.values()]
    assert list(read_volumes(report).values()) == pytest.approx(expected, abs=1e-3)
    more = masks | {"enhancing_tumour" if given == ("tumour_core",) else "tumour_core": masks[given[0]]}
    with pytest.raises(VerificationError, match="SEG: holds"):
        verify_seg(tmp_path / "seg.dcm", source, more)


def test_highdicom_reads_the_report_back(tmp_path: Path) -> None:
    """A second look through the library's own template classes finds three volumetric groups."""
    written(tmp_path)
    report = highdicom.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [concept.label for concept in SEGMENTS]


def set_volume(report: Dataset) -> None:
    named(report, "118565006")[0].MeasuredValueSequence[0].NumericValue = "1.5"


def reference_another_seg(report: Dataset) -> None:
    named(report, "121191")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def give_to_another_patient(report: Dataset) -> None:
    report.PatientID = "OTHER"


def move_to_another_study(report: Dataset) -> None:
    report.StudyInstanceUID = "1.2.3"


def drop_a_group(report: Dataset) -> None:
    container = next(item for item in items(report) if named(item, "125007"))
    container.ContentSequence = container.ContentSequence[:-1]


def test_a_right_report_passes_its_check(objects: tuple[SourceVolume, Dataset, Dataset], tmp_path: Path) -> None:
    """What was written is what was meant."""
    source, seg, _ = objects
    verify_report(tmp_path / "sr.dcm", seg, pydicom.dcmread(source.sources[0][0], stop_before_pixels=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "break_it", [set_volume, reference_another_seg, give_to_another_patient, move_to_another_study, drop_a_group]
)
def test_a_broken_report_is_never_sent(
    break_it: Callable[[Dataset], None], objects: tuple[SourceVolume, Dataset, Dataset], tmp_path: Path
) -> None:
    """A wrong number, reference, patient or study is found when the report is read back."""
    source, seg, report = objects
    break_it(report)
    report.save_as(tmp_path / "broken.dcm", enforce_file_format=True)
    with pytest.raises(VerificationError, match="SR"):
        verify_report(tmp_path / "broken.dcm", seg, pydicom.dcmread(source.sources[0][0], stop_before_pixels=True))


@pytest.mark.slow
@lab.needs("dciodvfy", "dcentvfy")
@pytest.mark.parametrize("given", [None, ("tumour_core",), ("whole_tumour", "tumour_core")])
def test_dicom3tools_find_no_error(tmp_path: Path, given: tuple[str, ...] | None) -> None:
    """dciodvfy on report and SEG, dcentvfy on both and the sources, with all regions or those of a lesser method."""
    masks = given and {region: np.pad(np.ones((4, 9, 9), bool), ((4, 12), (12, 23), (9, 30))) for region in given}
    source, _, _ = written(tmp_path, masks)
    assert lab.dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert lab.dciodvfy_errors(tmp_path / "seg.dcm") == []
    files = [tmp_path / "sr.dcm", tmp_path / "seg.dcm", *(path for path, _ in source.sources)]
    assert [line for line in lab.dcentvfy_errors(files) if "AccessionNumber" not in line] == []


@pytest.mark.slow
@lab.needs("java", lab.PIXELMED_JAR)
@pytest.mark.parametrize("is_empty", [False, True])
def test_pixelmed_completes_the_template(tmp_path: Path, is_empty: bool) -> None:
    """TID 1500 and all below it are as the standard wants them, with and without a tumour."""
    written(tmp_path, {c.region: np.zeros((20, 44, 48), bool) for c in SEGMENTS} if is_empty else None)
    assert lab.pixelmed_sr_problems(tmp_path / "sr.dcm") == []


@pytest.mark.slow
@lab.needs("tid1500reader")
def test_dcmqi_reads_the_volumes(tmp_path: Path) -> None:
    """An independent reader of TID 1500 finds the same three numbers."""
    _, seg, _ = written(tmp_path)
    content = lab.read_sr_with_dcmqi(tmp_path / "sr.dcm")
    found = sorted(float(item["value"]) for group in content["Measurements"] for item in group["measurementItems"])
    assert found == pytest.approx(sorted(each.volume_ml for each in measure(seg)), abs=5e-4)
