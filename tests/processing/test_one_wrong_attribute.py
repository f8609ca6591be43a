"""One attribute of a good study is changed at a time: the result is right, or the study is refused by that attribute.

Each mutation is a value that the attribute's representation forbids, or one that real headers hold. Whatever it is, the
study ends before the networks run: as the right volumes, with results that carry the patient's identity, or with a
reason that names the attribute.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pydicom
import pytest
import SimpleITK as sitk
from length import IS_FULL
from mutable_study import (
    MIDDLE,
    PATIENT,
    SLICES,
    STUDY,
    Change,
    MalformedError,
    MutableStudy,
    as_enhanced,
    make_mutable_study,
    raw,
    reference_volume,
)
from node_process import write_config
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.tag import Tag
from wrong_values import MARK, Wrong, wrong_values

from node.config import Config, load_config
from node.errors import RefusedError
from node.processing.request import ProcessingRequest, build_request
from node.segmentation.exam_reader import ExamReader
from node.segmentation.seg_writer import verify_seg, write_seg
from node.segmentation.volume import SourceVolume
from node.series.explain import short_lines
from node.sr_writer.report import ReportContent, verify_report, write_report
from node.study import Contrast, Selection, Series

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ALL = range(SLICES)
CHECKED = {*PATIENT, *STUDY, "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
           "StudyInstanceUID", "FrameOfReferenceUID"} - {"PregnancyStatus", "TimezoneOffsetFromUTC"}  # fmt: skip
LOWEST = (0,)

NOTHING_ELSE = r"(?!)"
NO_CONTRAST = r"no (T1|T1c|T2|FLAIR)\b|undecided|not brain MR"
ITS_PLACE = r"position|slice|tilted"
REASONS = {  # what else names the attribute in a reason: what the reader sees of it
    "StudyInstanceUID": r"the folder holds \d+ studies",
    "SeriesInstanceUID": ITS_PLACE,
    "SOPInstanceUID": ITS_PLACE,
    "ImagePositionPatient": ITS_PLACE,
    "ImageOrientationPatient": ITS_PLACE,
    "FrameOfReferenceUID": r"two frames of reference",
    "SOPClassUID": r"none reads as T1c|different SOP Classes|not MR images",
    "Modality": r"of \d MR series|no MR series",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Attributes that are changed alike; ``touched``: in which instances, by contrast, one set after the other.

    ``reason``: what a refusal may say instead of the attribute's name.
    """

    keywords: tuple[str, ...]
    touched: tuple[Mapping[str, Iterable[int]], ...]
    reason: str = NOTHING_ELSE
    is_alternating: bool = False  # each value in one set only, the next value in the next set
    place: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    is_enhanced: bool = False


MIDDLE_OR_ALL = ({"T1c": (MIDDLE,)}, {"T1c": ALL})
OF_THE_SOURCE = ({"T1c": LOWEST}, {"T1c": ALL})  # results copy from the lowest slice

GROUPS = {
    "UIDs": Group(
        ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality"), MIDDLE_OR_ALL
    ),
    "bits": Group(
        ("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
        MIDDLE_OR_ALL,
    ),
    "bits stored": Group(
        ("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"), MIDDLE_OR_ALL
    ),
    "rescale": Group(
        ("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "LossyImageCompressionRatio"),
        MIDDLE_OR_ALL,
    ),
    "geometry": Group(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"), MIDDLE_OR_ALL),
    "distances": Group(
        ("SliceThickness", "SpacingBetweenSlices", "FrameOfReferenceUID", "PositionReferenceIndicator"), MIDDLE_OR_ALL
    ),
    "words": Group(
        ("SeriesDescription", "ProtocolName", "SequenceName", "ScanningSequence", "SequenceVariant", "ScanOptions"),
        ({"T1c": ALL}, {"FLAIR": ALL}),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "words of images": Group(
        ("ImageType", "MRAcquisitionType", "ComplexImageComponent", "VolumeBasedCalculationTechnique"),
        ({"T1c": (MIDDLE,)}, {"T2": ALL}),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "agent and body": Group(
        ("ContrastBolusAgent", "ContrastBolusStartTime", "BodyPartExamined", "Manufacturer", "PulseSequenceName"),
        ({"T1c": ALL}, dict.fromkeys(("T1", "T1c", "T2", "FLAIR"), ALL)),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "sequences of codes": Group(
        (
            "ContrastBolusAgentSequence", "DerivationCodeSequence", "ContributingEquipmentSequence",
            "SourceImageSequence",
        ),
        ({"T1c": (MIDDLE,)}, {"T1c": ALL}, {"FLAIR": ALL}),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "timing": Group(
        ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "EchoNumbers", "DiffusionBValue"),
        ({"T1c": (MIDDLE,)}, {"FLAIR": ALL}),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "moments": Group(
        ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "SeriesDate", "SeriesTime"),
        ({"T1c": (MIDDLE,)}, {"T1c": ALL}),
        NO_CONTRAST,
        is_alternating=True,
    ),
    "numbers": Group(
        ("SeriesNumber", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime"),
        MIDDLE_OR_ALL,
        NO_CONTRAST,
        is_alternating=True,
    ),
    "patient": Group(
        ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientBirthTime", "IssuerOfPatientID"),
        OF_THE_SOURCE,
    ),
    "patient module": Group(
        (
            "TypeOfPatientID", "OtherPatientNames", "QualityControlSubject", "StrainDescription", "EthnicGroup",
            "PatientSpeciesDescription", "PatientBreedDescription", "ResponsiblePerson", "ResponsiblePersonRole",
            "ResponsibleOrganization", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod",
            "PatientAlternativeCalendar", "PatientBirthDateInAlternativeCalendar", "SpecificCharacterSet",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
    "study": Group(
        (
            "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDate", "StudyTime", "StudyDescription",
            "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "ConsultingPhysicianName", "RequestingService",
            "TimezoneOffsetFromUTC",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
    "patient study": Group(
        (
            "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "PatientBodyMassIndex",
            "MedicalAlerts", "Allergies", "Occupation", "SmokingStatus", "AdditionalPatientHistory", "PregnancyStatus",
            "LastMenstrualDate", "PatientSexNeutered", "ReasonForVisit", "AdmissionID", "ServiceEpisodeID",
            "ServiceEpisodeDescription", "PatientState", "MeasuredAPDimension",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
    "trial and specimen": Group(
        (
            "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID", "ClinicalTrialTimePointID",
            "LongitudinalTemporalOffsetFromEvent", "ContainerIdentifier", "SpecimenDescriptionSequence",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
    "equipment": Group(
        (
            "InstitutionName", "InstitutionAddress", "StationName", "InstitutionalDepartmentName",
            "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "SpatialResolution", "PatientPosition",
            "DateOfLastCalibration", "PositionReferenceIndicator", "LossyImageCompression", "InstanceCreationDate",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
    "sequences of the study": Group(
        (
            "ReferencedPatientSequence", "PatientSpeciesCodeSequence", "OtherPatientIDsSequence",
            "IssuerOfPatientIDQualifiersSequence", "ProcedureCodeSequence", "ReferencedStudySequence",
            "RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence",
            "AdmittingDiagnosesCodeSequence", "IssuerOfAccessionNumberSequence", "PatientSizeCodeSequence",
            "ReferringPhysicianIdentificationSequence", "DeidentificationMethodCodeSequence",
            "PatientBreedCodeSequence", "IssuerOfAdmissionIDSequence", "ConsentForClinicalTrialUseSequence",
            "RequestAttributesSequence", "ReferencedPerformedProcedureStepSequence",
        ),
        OF_THE_SOURCE,
        is_alternating=True,
    ),
}  # fmt: skip

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
ITS_ONLY_ONE = ({"T1c": (0,)},)


def in_macro(macro: str, *keywords: str, frames: tuple[int, ...] | None = None) -> Group:
    """Attributes of a functional group macro: of the shared one, or of ``frames`` (empty: all)."""
    place = (SHARED if frames is None else PER_FRAME, *([macro] if macro else []))
    return Group(keywords, ITS_ONLY_ONE, ITS_PLACE + "|" + NO_CONTRAST, False, place, frames or (), is_enhanced=True)


GROUPS |= {
    "enhanced instance": Group(
        ("NumberOfFrames", SHARED, PER_FRAME, "Rows", "BitsStored", "DimensionIndexSequence", "ConcatenationUID"),
        ITS_ONLY_ONE,
        ITS_PLACE + "|" + NO_CONTRAST,
        is_enhanced=True,
    ),
    "measures": in_macro("PixelMeasuresSequence", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "orientation": in_macro("PlaneOrientationSequence", "ImageOrientationPatient"),
    "echo": in_macro("MREchoSequence", "EffectiveEchoTime"),
    "shared macros": in_macro("", "PixelMeasuresSequence", "PlaneOrientationSequence", "MREchoSequence"),
    "macros of a frame": in_macro(
        "", "PlanePositionSequence", "FrameContentSequence", "PixelValueTransformationSequence",
        "MRImageFrameTypeSequence", frames=(MIDDLE,),
    ),
    "position of a frame": in_macro("PlanePositionSequence", "ImagePositionPatient", frames=(MIDDLE,)),
    "positions": in_macro("PlanePositionSequence", "ImagePositionPatient", frames=()),
    "rescale of a frame": in_macro(
        "PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept", "RescaleType", frames=(MIDDLE,)
    ),
    "type of a frame": in_macro("MRImageFrameTypeSequence", "FrameType", "ComplexImageComponent", frames=(MIDDLE,)),
    "content of a frame": in_macro(
        "FrameContentSequence", "StackID", "InStackPositionNumber", "TemporalPositionIndex", "FrameAcquisitionNumber",
        "FrameAcquisitionDateTime", frames=(MIDDLE,),
    ),
    "content of all frames": in_macro(
        "FrameContentSequence", "TemporalPositionIndex", "FrameAcquisitionDateTime", "DimensionIndexValues", frames=()
    ),
}  # fmt: skip


def cases() -> Iterator[Any]:
    """Each group's attributes, in one test each."""
    for name, group in GROUPS.items():
        for keyword in group.keywords:
            yield pytest.param(group, keyword, id=f"{name}-{keyword}")


class Trial:
    """The study on disk, what its volumes are when nothing is wrong, and the node's verdict on a change."""

    def __init__(self, folder: Path, is_enhanced: bool = False) -> None:
        self.config: Config = load_config(write_config(folder / "node"))
        instances = make_mutable_study()
        if is_enhanced:
            instances["T1c"] = [as_enhanced(instances["T1c"])]
        self.study = MutableStudy(folder / "study", instances).write()
        self.folder = folder
        reader = ExamReader()
        request = build_request(self.study.folder, self.config, why_unusable=reader.why_unusable)
        assert request.selection is not None, request.refusal
        self.selection = request.selection
        self.volumes = reader.take(self.selection)
        self.outcomes: Counter[str] = Counter()

    def request(self, reader: ExamReader, touched: Container[str]) -> ProcessingRequest:
        """The request for the study as it lies there; series that are not touched are not read again."""
        known = {series for contrast, series in self.selection.chosen.items() if str(contrast) not in touched}

        def why_unusable(series: Series) -> str | None:
            return None if series in known else reader.why_unusable(series)

        return build_request(self.study.folder, self.config, why_unusable=why_unusable)

    def taken(self, reader: ExamReader, selection: Selection, touched: Container[str]) -> dict[Contrast, SourceVolume]:
        """As ``reader.take``, but without reading again what is known."""
        known = {volume.series: volume for contrast, volume in self.volumes.items() if str(contrast) not in touched}
        new = {
            contrast: series
            for contrast, series in selection.chosen.items()
            if contrast is Contrast.T1C or series not in known  # its instances say whose images they are
        }
        read = reader.take(Selection(selection.study_instance_uid, new, ()))
        return {contrast: read.get(contrast) or known[series] for contrast, series in selection.chosen.items()}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Trial]:
    """The good study of classic instances, and that whose T1c is an enhanced one (True)."""
    return {kind: Trial(tmp_path_factory.mktemp("one_wrong"), kind) for kind in (False, True)}


def names(keyword: str, reason: str) -> bool:
    """True if ``reason`` names the attribute: by keyword, by name or by tag."""
    tag = Tag(keyword)
    spelled = (keyword, dictionary_description(keyword), f"({tag.group:04X},{tag.element:04X})")
    return any(each.lower() in reason.lower() for each in spelled)


def check_refusal(reason: str, keyword: str, allowed: str) -> None:
    """The reason is one line that names the attribute and repeats no value of it."""
    assert "\n" not in reason
    if allowed == NOTHING_ELSE:  # a series is known by its words, which are shown
        assert MARK.lower() not in reason.lower(), f"the reason repeats a value: {reason}"
    is_named = (
        names(keyword, reason) or re.search(allowed, reason) or re.search(REASONS.get(keyword, NOTHING_ELSE), reason)
    )
    assert is_named, f"refused without its name: {reason}"


def check_volume(found: SourceVolume, instances: Iterable[pydicom.Dataset]) -> None:
    """Voxels and places are those that the bytes of ``instances`` say."""
    try:
        meant = reference_volume(instances)
    except MalformedError:
        raise AssertionError("read although a value on which the volume depends is malformed") from None
    array = sitk.GetArrayFromImage(found.image)
    assert array.shape == meant.array.shape, f"{array.shape} voxels instead of {meant.array.shape}"
    np.testing.assert_allclose(found.affine_lps, meant.affine, atol=1e-4)
    np.testing.assert_allclose(array, meant.array, rtol=1e-6, atol=1e-4)


def check_results(trial: Trial, volume: SourceVolume, selection: Selection, source: pydicom.Dataset, keyword: str):
    """SEG and SR are written, pass their checks, and hold what ``source`` says under ``keyword``, or nothing."""
    masks = {region: np.zeros(volume.image.GetSize()[::-1], bool) for region in phantoms.REGIONS}
    for depth, mask in enumerate(masks.values()):
        mask[2:5, 1 : 4 - depth, 2:5] = True
    seg = write_seg(volume, masks, phantoms.IDENTITY)
    seg.save_as(trial.folder / "seg.dcm", enforce_file_format=True)
    verify_seg(trial.folder / "seg.dcm", volume, masks)
    header = pydicom.dcmread(volume.sources[0][0], stop_before_pixels=True)
    content = ReportContent(selection, header, (), short_lines(selection))
    report = write_report(seg, content, phantoms.IDENTITY)
    report.save_as(trial.folder / "sr.dcm", enforce_file_format=True)
    verify_report(trial.folder / "sr.dcm", seg, header)
    for file in ("seg.dcm", "sr.dcm"):
        result = pydicom.dcmread(trial.folder / file)
        for copied in {keyword, "PatientName", "PatientID", "StudyInstanceUID"} & set(CHECKED):
            check_copied(result, source, copied)


def check_copied(result: pydicom.Dataset, source: pydicom.Dataset, keyword: str) -> None:
    """What ``result`` holds under ``keyword`` are letters of ``source``, from the first; of an ID or a UID, all.

    Of several equal values one is enough, and a name has at most 64 letters.
    """
    values = [each.strip() for each in (raw(source, keyword) or b"").split(b"\\")]
    givens = [b"".join(values), *(values[:1] if len(set(values)) == 1 else [])]
    copied = letters(str(result.get(keyword) or ""))
    readings = {letters(given.decode(charset, "replace")) for charset in ("latin-1", "utf-8") for given in givens}
    fewest = {"PatientName": 50, "PatientID": 9999, "StudyInstanceUID": 9999, "FrameOfReferenceUID": 9999}.get(
        keyword, 0
    )
    is_kept = any(each.startswith(copied) and len(copied) >= min(fewest, len(each)) for each in readings)
    assert is_kept, f"{keyword} of the result is not the source's"


def letters(text: str) -> str:
    """``text`` without case, and without what separates: blanks, points, zeros in front."""
    return re.sub(r"[\W_]", "", text).lstrip("0").casefold()


def outcome(trial: Trial, change: Change, touched: Mapping[str, Iterable[int]], allowed: str) -> str:
    """Whether the study with ``change`` is read or refused.

    Raises:
        AssertionError: read wrongly, or refused without the attribute's name.
    """
    reader = ExamReader()
    with trial.study.changed(change, touched) as now:
        request = trial.request(reader, touched)
        if request.selection is None:
            assert request.refusal
            check_refusal(request.refusal, change.keyword, allowed)
            return "refused"
        try:
            volumes = trial.taken(reader, request.selection, touched)
        except RefusedError as error:
            check_refusal(str(error), change.keyword, allowed)
            return "refused when read"
        assert set(volumes) == set(Contrast)
        for contrast, volume in volumes.items():
            check_volume(volume, now[str(contrast)])
        source = now["T1c"][0]  # the lowest slice, whose header is copied
        check_results(trial, volumes[Contrast.T1C], request.selection, source, change.keyword)
        return "read"


def own_value(trial: Trial, keyword: str) -> bytes:
    """The right value of an attribute of the T1c, as text; empty if it has none."""
    value = trial.study.instances["T1c"][0].get(keyword)
    return b"" if value is None else str(value).encode()


def faults_of(trial: Trial, keyword: str, group: Group) -> list[str]:
    """What is wrong with the node's answers to all mutations of ``keyword``, one line each."""
    vr = dictionary_VR(keyword).split(" or ")[0]
    found = []
    for mutation, value, touched in mutations(keyword, group, own_value(trial, keyword)):
        where = ", ".join(f"{contrast} {list(numbers)}" for contrast, numbers in touched.items())
        name = f"{keyword} ({vr}), {mutation}, in {where}"
        change = Change(keyword, vr, value, group.place, group.frames)
        fault = fault_of(lambda c=change, t=touched: outcome(trial, c, t, group.reason), trial)
        if fault:
            found.append(f"{name}: {fault}")
    return found


def mutations(keyword: str, group: Group, own: bytes) -> list[tuple[str, Wrong, Mapping[str, Iterable[int]]]]:
    """Name and value of each mutation of ``keyword``, and the instances in which it is made.

    The short form takes every second one: of one attribute those with even numbers, of the next those with odd ones.
    """
    values: dict[str, Wrong] = wrong_values(dictionary_VR(keyword).split(" or ")[0], own)
    every = [
        (mutation, value, touched)
        for number, (mutation, value) in enumerate(values.items())
        for touched in (group.touched[number % len(group.touched) :][:1] if group.is_alternating else group.touched)
    ]
    return every if IS_FULL else every[len(keyword) % 2 :: 2]


def fault_of(judge: Callable[[], str], trial: Trial) -> str | None:
    """What ``judge`` raised, in one line; else its outcome is counted."""
    try:
        trial.outcomes[judge()] += 1
    except Exception as error:  # noqa: BLE001 - whatever is raised is what this test looks for
        trial.outcomes["fault"] += 1
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


@pytest.mark.parametrize(("group", "keyword"), list(cases()))
def test_wrong_attribute_is_harmless_or_named(trials, group, keyword):
    """Each wrong value gives the right volumes and results, or a refusal that names the attribute."""
    trial = trials[group.is_enhanced]
    before = trial.outcomes.total()
    assert faults_of(trial, keyword, group) == []
    assert trial.outcomes.total() - before == len(mutations(keyword, group, own_value(trial, keyword)))


def test_mutations_are_many():
    """The short form has at least 2,000 in all, and at least five of each attribute."""
    counts = [len(mutations(keyword, group, b"")) for group in GROUPS.values() for keyword in group.keywords]
    assert sum(counts) >= 2000
    assert min(counts) >= 5
