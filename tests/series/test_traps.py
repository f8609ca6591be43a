"""One study with every trap, as DICOM files."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from node.series.explain import short_lines
from node.series.headers import read_study
from node.series.select import select
from node.study import Contrast

SPIN_ECHO = {"ScanningSequence": "SE", "MRAcquisitionType": "2D", "EchoTime": 12, "RepetitionTime": 550}
MPRAGE = {"ScanningSequence": ["GR", "IR"], "MRAcquisitionType": "3D", "EchoTime": 3, "RepetitionTime": 2000}
MPRAGE |= {"InversionTime": 900, "FlipAngle": 9}
T2 = {"ScanningSequence": "SE", "EchoTime": 98, "RepetitionTime": 5200}
FLAIR = {"ScanningSequence": ["SE", "IR"], "EchoTime": 110, "RepetitionTime": 9000, "InversionTime": 2500}
DERIVED = ["DERIVED", "SECONDARY"]


def stack(write, folder, number, description, minute, *, count=24, step_mm=5.0, without=(), **attributes):
    """A classic series: ``count`` planes every ``step_mm``, those in ``without`` left out."""
    for index in range(count):
        if index not in without:
            write(
                folder / f"{number}-{index}",
                SOPInstanceUID=f"1.2.3.{number}.{index + 1}",
                SeriesInstanceUID=f"1.2.3.{number}",
                SeriesNumber=number,
                SeriesDescription=description,
                AcquisitionTime=f"14{minute:02d}00",
                ImagePositionPatient=[0, 0, index * step_mm],
                **attributes,
            )


def group(keyword, **values):
    """A functional group macro of one item."""
    outer, inner = Dataset(), Dataset()
    for name, value in values.items():
        setattr(inner, name, value)
    setattr(outer, keyword, [inner])
    return outer


def enhanced(write, folder, number, description, *, count, step_mm):
    """One Enhanced MR instance of a T2."""
    shared = group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.update(group("MREchoSequence", EffectiveEchoTime=98.0))
    shared.update(group("MRTimingAndRelatedParametersSequence", RepetitionTime=5200, FlipAngle=90))
    shared.update(group("PixelMeasuresSequence", PixelSpacing=[1, 1], SliceThickness=step_mm))
    frames = []
    for index in range(count):
        frame = group("PlanePositionSequence", ImagePositionPatient=[0, 0, index * step_mm])
        frame.update(group("FrameContentSequence", FrameAcquisitionDateTime="20200101140200"))
        frames.append(frame)
    write(
        folder / f"{number}",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        SOPInstanceUID=f"1.2.3.{number}.1",
        SeriesInstanceUID=f"1.2.3.{number}",
        SeriesNumber=number,
        SeriesDescription=description,
        NumberOfFrames=count,
        PixelData=bytes(32 * count),
        ImageOrientationPatient=None,
        ImagePositionPatient=None,
        PixelSpacing=None,
        EchoPulseSequence="SPIN",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )


def processing_equipment():
    purpose, equipment = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    equipment.Manufacturer, equipment.PurposeOfReferenceCodeSequence = "Elsewhere", [purpose]
    return equipment


def write_traps(write, folder):
    """Series 2, 3, 4 and 6 are the right T2, FLAIR, T1 and T1c; every other one is a trap."""

    def add(number, description, minute, **attributes):
        stack(write, folder, number, description, minute, **attributes)

    thin = {"count": 90, "step_mm": 1.5}
    add(1, "T1 localizer 3 plane", 0, **SPIN_ECHO, count=9, step_mm=20.0)
    enhanced(write, folder, 2, "T2 TSE tra", count=40, step_mm=3.0)
    add(3, "FLAIR tra", 4, **FLAIR)
    add(4, "T1 SE tra", 10, **SPIN_ECHO)
    add(5, "T1 SE tra", 40, **SPIN_ECHO)
    add(6, "T1 MPRAGE KM", 30, **MPRAGE, **thin)
    add(7, "T1 MPRAGE KM MPR cor", 31, **MPRAGE, ImageType=[*DERIVED, "MPR"])
    add(8, "T1 SUB", 41, **SPIN_ECHO, ImageType=[*DERIVED, "SUBTRACTION"])
    add(9, "T1 KM MIP", 42, **MPRAGE, ImageType=[*DERIVED, "MIP"])
    add(10, "ep2d_diff T2", 6, ScanningSequence="EP", EchoTime=90, RepetitionTime=5000, DiffusionBValue=1000.0)
    add(11, "ADC T2", 7, ImageType=["DERIVED", "PRIMARY", "ADC"])
    add(12, "Sag T1 FLAIR", 12, **{**FLAIR, "EchoTime": 22, "InversionTime": 860, "RepetitionTime": 2000}, step_mm=7.0)
    add(13, "T1 MPRAGE KM", 30, **MPRAGE, **thin, ImageType=DERIVED, Manufacturer="glionode")
    add(14, "T1 MPRAGE", 5, **MPRAGE, **thin, without=(33,))
    add(15, "FLAIR 3D", 50, **FLAIR, **thin, ContributingEquipmentSequence=[processing_equipment()])
    add(16, "T2 tra *", 8, **{**T2, "ScanningSequence": "GR", "EchoTime": 22, "RepetitionTime": 700})
    add(17, "Glioma segmentation T1 KM", 55, Modality="SEG")
    add(18, "T2 TSE tra", 9, **T2, count=8, step_mm=4.0)


@pytest.fixture(scope="module")
def selection(write, tmp_path_factory):
    from node.series.vocabulary import load_vocabulary

    folder = tmp_path_factory.mktemp("traps")
    write_traps(write, folder)
    return select(read_study(folder), load_vocabulary())


@pytest.mark.slow
def test_the_right_four_are_chosen(selection):
    """Plain T1 before contrast, the thin 3-D T1c, the enhanced multi-frame T2 and the scanner's FLAIR."""
    chosen = {contrast: series.series_number for contrast, series in selection.chosen.items()}
    assert chosen == {Contrast.T1: 4, Contrast.T1C: 6, Contrast.T2: 2, Contrast.FLAIR: 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "contrast", "texts"),
    [
        (1, None, ["'localizer' reads as localizer"]),
        (2, "T2", ["'t2' reads as T2", "TE 98 ms, TR 5200 ms, sequence SE agree", "chosen: the only usable T2 of 2"]),
        (3, "FLAIR", ["'flair' reads as FLAIR", "TI 2500 ms", "chosen: the only FLAIR"]),
        (4, "T1", ["acquired 14:10, earlier than the series after contrast", "chosen: the only usable T1 of 3"]),
        (5, "T1c", ["acquired 14:40, later than a series after contrast (14:30)", "passed over for series 6", "3-D"]),
        (6, "T1c", ["'km' says after contrast", "chosen of 2: 3-D with 1.5 mm slices", "runner-up series 5"]),
        (7, None, ["Image Type holds MPR: reformat"]),
        (8, None, ["Image Type holds SUBTRACTION: subtraction"]),
        (9, None, ["Image Type holds MIP: projection"]),
        (10, None, ["b-value 1000 s/mm²: diffusion"]),
        (11, None, ["Image Type holds ADC: diffusion"]),
        (12, "T1", ["'t1' reads as T1, and 'flair' with T1 stays T1", "undecided before or after contrast"]),
        (13, None, ["Manufacturer is glionode: a result of this node"]),
        (14, "T1", ["not usable: a slice is missing: gaps of 1.50 to 3.00 mm"]),
        (15, None, ["Contributing Equipment (0018,A001) is Processing Equipment (DCM 109102)"]),
        (16, None, ["a gradient echo, T2*"]),
        (17, None, ["ignored: modality SEG"]),
        (18, "T2", ["not usable: covers only 32 mm: not the whole brain"]),
    ],
)
def test_each_verdict_carries_its_evidence(selection, number, contrast, texts):
    """Why each series is what it is, and why it was chosen or passed over."""
    (verdict,) = [one for one in selection.verdicts if one.series_number == number]
    assert (str(verdict.contrast) if verdict.contrast else None) == contrast
    told = " | ".join((*verdict.evidence, verdict.note))
    assert [text for text in texts if text not in told] == [], told


def test_the_short_form(selection):
    """One line per contrast for report and page."""
    assert short_lines(selection) == (
        "T1: series 4 'T1 SE tra': 't1' reads as T1; the only usable T1 of 3 "
        "(not series 12 'Sag T1 FLAIR': undecided before or after contrast; "
        "series 14 'T1 MPRAGE': a slice is missing)",
        "T1c: series 6 'T1 MPRAGE KM': 'km' says after contrast; chosen of 2 (3-D with 1.5 mm slices)",
        "T2: series 2 'T2 TSE tra': 't2' reads as T2; the only usable T2 of 2 "
        "(not series 18 'T2 TSE tra': covers only 32 mm)",
        "FLAIR: series 3 'FLAIR tra': 'flair' reads as FLAIR; the only FLAIR",
    )
