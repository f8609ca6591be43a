from __future__ import annotations

import errno
from datetime import datetime
from math import nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from node.errors import InstanceRefused, SelectionRefused, StorageError
from node.series import values
from node.series.candidate import volume_problem
from node.series.fact_reader import read_facts
from node.series.headers import read_study


def write_stack(write, folder, count=10, step_mm=2.0, **attributes):
    for index in range(count):
        place = {"ImagePositionPatient": [0, 0, index * step_mm], "SOPInstanceUID": f"1.2.3.1.{index + 1}"}
        write(folder / f"{index}", **place, **attributes)


def test_instances_are_found_at_any_depth_under_any_name(write, tmp_path):
    """Files group into series by Series Instance UID, wherever they lie and whatever they are called."""
    write(tmp_path / "a" / "b" / "noextension", SOPInstanceUID="1.2.3.1.1")
    write(tmp_path / "x.ima", SOPInstanceUID="1.2.3.1.2")
    write(tmp_path / "y.dcm", SOPInstanceUID="1.2.3.2.1", SeriesInstanceUID="1.2.3.2", SeriesNumber=2)
    study = read_study(tmp_path)
    assert [(series.series_number, len(series.instances)) for series in study.series] == [(1, 2), (2, 1)]
    assert study.unreadable == ()


def test_what_is_no_dicom_is_skipped(write, tmp_path):
    """Text files, a DICOMDIR and raw data do not belong to the study and are no fault."""
    write(tmp_path / "a.dcm")
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "empty").touch()
    directory = b"\0" * 128 + b"DICM" + bytes.fromhex("02000000554c0400") + (30).to_bytes(4, "little")
    directory += bytes.fromhex("0200020055491600") + b"1.2.840.10008.1.3.10\0\0"
    (tmp_path / "DICOMDIR").write_bytes(directory)
    write(tmp_path / "raw", SOPInstanceUID="1.2.3.1.9", SOPClassUID="1.2.840.10008.5.1.4.1.1.66")
    study = read_study(tmp_path)
    assert len(study.series[0].instances) == 1
    assert study.unreadable == ()


@pytest.mark.parametrize("cut_bytes", [1, 20, 60, 600])
def test_a_truncated_file_is_unreadable(write, tmp_path, cut_bytes):
    """A file cut anywhere, inside pixel data or header, is recorded with a reason."""
    write(tmp_path / "whole.dcm", SOPInstanceUID="1.2.3.1.2")
    write(tmp_path / "cut.dcm")
    content = (tmp_path / "cut.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-cut_bytes])
    study = read_study(tmp_path)
    assert [name for name, _ in study.unreadable] == ["cut.dcm"]
    assert study.unreadable[0][1]


def test_pixel_data_followed_by_other_elements_is_complete(write, tmp_path):
    """Trailing padding behind the pixel data is no truncation."""
    write(tmp_path / "padded.dcm", DataSetTrailingPadding=b"\0" * 50)
    assert read_study(tmp_path).unreadable == ()


@pytest.mark.parametrize(("cut_bytes", "is_readable"), [(0, True), (8, False), (20, False)])
def test_encapsulated_pixel_data_must_reach_its_end(write, tmp_path, cut_bytes, is_readable):
    """Compressed pixel data is followed through its fragments to the sequence delimiter."""
    write(tmp_path / "whole.dcm", SOPInstanceUID="1.2.3.1.2")
    dataset = write(tmp_path / "jpeg.dcm")
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f" * 50])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "jpeg.dcm", enforce_file_format=True)
    content = (tmp_path / "jpeg.dcm").read_bytes()
    (tmp_path / "jpeg.dcm").write_bytes(content[: len(content) - cut_bytes])
    assert (read_study(tmp_path).unreadable == ()) is is_readable


def test_an_image_without_its_pixels_is_unreadable(write, tmp_path):
    """Rows and Columns without Pixel Data is a truncated file."""
    write(tmp_path / "whole.dcm", SOPInstanceUID="1.2.3.1.2")
    write(tmp_path / "bare.dcm", PixelData=None)
    assert read_study(tmp_path).unreadable == (("bare.dcm", "pixel data (7FE0,0010) is missing"),)


def test_a_dcm_file_without_dicom_content_is_unreadable(write, tmp_path):
    """A file that claims to be DICOM by its name is never skipped in silence."""
    write(tmp_path / "a.dcm")
    (tmp_path / "garbage.dcm").write_bytes(b"not dicom at all")
    assert read_study(tmp_path).unreadable[0][0] == "garbage.dcm"


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "Modality"])
def test_a_missing_identity_is_named(write, tmp_path, keyword):
    """An instance that lacks an identifying attribute is unreadable, and the attribute is named."""
    write(tmp_path / "a.dcm")
    write(tmp_path / "b.dcm", SOPInstanceUID="1.2.3.1.2", **{keyword: None})
    assert keyword in read_study(tmp_path).unreadable[0][1]


def test_several_studies_are_refused(write, tmp_path):
    """A folder of two studies is refused naming both UIDs."""
    write(tmp_path / "a")
    write(tmp_path / "b", SOPInstanceUID="1.2.4.1.1", StudyInstanceUID="1.2.4")
    with pytest.raises(SelectionRefused, match=r"1\.2\.3, 1\.2\.4"):
        read_study(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    """A folder without any instance is refused."""
    with pytest.raises(InstanceRefused):
        read_study(tmp_path)


def test_a_repeated_instance_counts_once_and_must_be_identical(write, tmp_path):
    """The same bytes twice are one instance, other bytes under the same UID are a fault."""
    write(tmp_path / "a")
    write(tmp_path / "b")
    study = read_study(tmp_path)
    assert (len(study.series[0].instances), study.unreadable) == (1, ())
    write(tmp_path / "c", SeriesDescription="something else")
    assert [name for name, _ in read_study(tmp_path).unreadable] == ["c"]


def test_facts_of_a_series(write, tmp_path):
    """Facts come out as plain numbers with the geometry of the whole stack and the earliest time."""
    write_stack(write, tmp_path, EchoTime=12.5, ImageType=["ORIGINAL", "PRIMARY"], ContrastBolusAgent=" ")
    write(tmp_path / "first", SOPInstanceUID="1.2.3.1.99", ImagePositionPatient=[0, 0, -2], AcquisitionTime="135900")
    facts = read_facts(read_study(tmp_path).series[0])
    assert facts.echo_time_ms == 12.5
    assert facts.image_type == ("ORIGINAL", "PRIMARY")
    assert facts.contrast_bolus_agent is None
    assert facts.repetition_time_ms is None
    assert facts.acquisition_datetime == datetime(2020, 1, 1, 13, 59)
    assert (facts.slice_count, facts.slice_step_mm, facts.coverage_mm, facts.images_per_position) == (
        11,
        2.0,
        22.0,
        1.0,
    )
    assert not facts.is_multiframe


def test_malformed_values_are_missing(write, tmp_path):
    """A value that does not fit its value representation is None, not a crash and not a default."""
    write(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(
        content.replace(b"140000.5", b"abcdefgh").replace(b"1.0\\0.0\\0.0\\0.0", b"a.b\\0.0\\0.0\\0.0")
    )
    facts = read_facts(read_study(tmp_path).series[0])
    assert facts.acquisition_datetime is None
    assert facts.image_orientation_patient is None


@pytest.mark.parametrize(("bits", "expected"), [(b"\0\0", False), (b"\0\1", True)])
def test_an_overlay_counts_only_when_something_is_drawn(write, tmp_path, bits, expected):
    """An empty overlay plane is no mark."""
    dataset = write(tmp_path / "a")
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000011, "US", 4)
    dataset.add_new(0x60003000, "OW", bits)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert read_facts(read_study(tmp_path).series[0]).has_overlay is expected


@pytest.mark.parametrize(("marked", "expected"), [(0, True), (5, True), (10, True), (3, False)])
def test_an_overlay_is_looked_for_at_start_middle_and_end(write, tmp_path, marked, expected):
    """A mark drawn on few images is found on the first, middle or last instance."""
    for index in range(11):
        uid = f"1.2.3.1.{index + 10}"
        dataset = write(tmp_path / f"{index}", SOPInstanceUID=uid, ImagePositionPatient=[0, 0, index])
        if index == marked:
            dataset.add_new(0x60003000, "OW", b"\0\1")
            dataset.save_as(tmp_path / f"{index}", enforce_file_format=True)
    assert read_facts(read_study(tmp_path).series[0]).has_overlay is expected


def test_a_malformed_position_is_no_crash(write, tmp_path):
    """A position that is no number makes the series irregular; it does not end the reading."""
    write_stack(write, tmp_path)
    file = tmp_path / "4"
    file.write_bytes(file.read_bytes().replace(b"0.0\\0.0\\8.0", b"a.b\\0.0\\8.0"))
    facts = read_facts(read_study(tmp_path).series[0])
    assert "Image Position (Patient) (0020,0032) is missing or malformed in 1 of 10 images" in (
        facts.irregularity or ""
    )


def test_instances_that_make_no_one_volume(write, tmp_path):
    """Instances of different SOP Classes are told."""
    write(tmp_path / "a")
    write(tmp_path / "b", SOPInstanceUID="1.2.3.1.2", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert "different SOP Classes" in (read_facts(read_study(tmp_path).series[0]).mixture or "")


def frame(z_mm, frame_type=None, stack_id=None):
    item, place, content = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [0, 0, z_mm]
    content.FrameAcquisitionDateTime = f"2020010114{z_mm:02d}00"
    item.PlanePositionSequence, item.FrameContentSequence = [place], [content]
    if stack_id:
        content.StackID = stack_id
    if frame_type:
        kind = Dataset()
        kind.FrameType = frame_type
        item.MRImageFrameTypeSequence = [kind]
    return item


MAGNITUDE, PHASE = ["ORIGINAL", "PRIMARY", "M", "SE"], ["ORIGINAL", "PRIMARY", "PHASE MAP", "SE"]


@pytest.mark.parametrize(
    ("frames", "mixture"),
    [
        ([frame(0, MAGNITUDE), frame(4, MAGNITUDE), frame(8, MAGNITUDE)], None),
        (
            [frame(z, kind) for kind in (MAGNITUDE, PHASE) for z in (0, 4)],
            r"holds 2 frame types (ORIGINAL\PRIMARY\M\SE, ORIGINAL\PRIMARY\PHASE MAP\SE)",
        ),
        ([frame(0, stack_id="1"), frame(4, stack_id="1"), frame(1, stack_id="2")], "holds 2 dimension stacks (1, 2)"),
        ([frame(0, stack_id="1"), frame(4, stack_id="1"), frame(8, stack_id="2")], None),
    ],
    ids=["one type", "magnitude and phase", "stacks between one another", "stacks that go on"],
)
def test_frame_types_and_stacks_that_make_no_one_volume(write, tmp_path, frames, mixture):
    """Frames that do not stack up are explained by their types and dimension stacks; stacks that go on are one."""
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    write(
        tmp_path / "enhanced.dcm",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        NumberOfFrames=len(frames),
        PixelData=bytes(32 * len(frames)),
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )
    facts = read_facts(read_study(tmp_path).series[0])
    assert facts.mixture == mixture
    assert volume_problem(facts) == (f"{mixture}: not one volume" if mixture else None)


def test_functional_groups_of_an_enhanced_instance(write, tmp_path):
    """An enhanced multi-frame instance gives the same facts, from its shared and per-frame functional groups."""
    shared, orientation, echo, timing, measures, agent = (Dataset() for _ in range(6))
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    echo.EffectiveEchoTime, timing.RepetitionTime, timing.FlipAngle = 90.0, 4000, 90
    measures.PixelSpacing, measures.SliceThickness, agent.CodeMeaning = [1, 1], 3, "Gadobutrol"
    shared.PlaneOrientationSequence, shared.MREchoSequence = [orientation], [echo]
    shared.MRTimingAndRelatedParametersSequence, shared.PixelMeasuresSequence = [timing], [measures]
    write(
        tmp_path / "enhanced.dcm",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        NumberOfFrames=3,
        PixelData=bytes(96),
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        EchoPulseSequence="SPIN",
        ContrastBolusAgentSequence=[agent],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[frame(8), frame(4), frame(0)],
    )
    facts = read_facts(read_study(tmp_path).series[0])
    assert facts.is_multiframe
    assert (facts.echo_time_ms, facts.repetition_time_ms, facts.scanning_sequence) == (90.0, 4000.0, ("SE",))
    assert (facts.slice_count, facts.slice_step_mm, facts.pixel_spacing_mm) == (3, 4.0, (1.0, 1.0))
    assert facts.contrast_bolus_agent == "Gadobutrol"
    assert facts.acquisition_datetime == datetime(2020, 1, 1, 14, 0)


@given(st.one_of(st.none(), st.text(), st.binary(), st.integers(), st.floats(), st.lists(st.text())))
def test_no_value_crashes_the_readers_of_text_and_time(value):
    """Whatever a header holds, text and time are read or missing."""
    assert values.text(value) is None or values.text(value)
    assert values.date_time(value, value, value) is None or values.date_time(value, value, value).year > 0
    assert values.coordinates(value, 3) is None or len(values.coordinates(value, 3)) == 3


def test_no_number_is_not_a_number():
    """NaN and infinity are as good as missing."""
    assert values.number(nan) is None
    assert values.number("1e999") is None
    assert values.number(["7", "8"]) == 7.0


def test_a_disk_that_does_not_give_a_file_is_no_verdict(write, tmp_path, monkeypatch):
    """A stale file handle is the share's trouble, to be tried again; the study is not called unreadable for it."""
    write(tmp_path / "a")
    opened = Path.open

    def stale(path, *arguments, **keywords):
        if path.name == "a":
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", stale)
    with pytest.raises(StorageError, match="a cannot be read now: Stale file handle"):
        read_study(tmp_path)


def test_each_file_is_parsed_once_for_the_places_of_its_images(write, tmp_path, monkeypatch):
    """What was read to find the series also tells where its planes lie: a large study is read once."""
    for index in range(10):
        write(tmp_path / f"{index}", SOPInstanceUID=f"1.2.3.1.{index + 1}", ImagePositionPatient=[0, 0, index])
    study = read_study(tmp_path)
    monkeypatch.setattr("node.series.headers.read_partial", None)
    assert read_facts(study.series[0], study.planes).slice_count == 10
