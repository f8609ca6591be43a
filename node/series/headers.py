"""Headers of a folder of DICOM files: :func:`read_study` finds the series, :func:`read_facts` reads one series' facts.

Headers only; pixel data is never read, only its length is compared with the file's.
"""

from __future__ import annotations

import filecmp
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydicom import Dataset
from pydicom.filereader import dcmread, read_partial
from pydicom.tag import BaseTag, Tag

from node.dicom.uids import is_usable_uid, is_valid_uid
from node.errors import InstanceRefused, SelectionRefused, StorageError
from node.series.facts import SeriesFacts
from node.series.functional import frame_lookups, instance_lookup, mixture_of_frames
from node.series.moments import acquired, bolus_start
from node.series.origin import made_by_software
from node.series.overlay import OVERLAY_DATA, has_overlay
from node.series.patient import IDENTITY_TAGS, identity_of, masked
from node.series.pixels import truncation
from node.series.stack import Lookup, describe_stack
from node.series.values import DICOM_UNREADABLE, coordinates, integer, number, text, texts
from node.study import Instance, Series, Study

ENHANCED_MR = frozenset(["1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"])
_DIRECTORY = "1.2.840.10008.1.3.10"
_RAW_DATA = frozenset(["1.2.840.10008.5.1.4.1.1.66", "1.3.46.670589.11.0.0.12.1", "1.3.46.670589.11.0.0.12.2"])
# read from every instance in one pass, since a study has thousands: identity, position and time of its image
_STUDY_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "FrameOfReferenceUID", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing",
)] + IDENTITY_TAGS  # fmt: skip
_LAST_STUDY_TAG = 0x00280103
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")
_FACT_TAGS = [Tag(tag) for tag in (
    "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "ScanningSequence", "EchoPulseSequence",
    "EchoPlanarPulseSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime",
    "InversionTime", "FlipAngle", "ImageType", "ComplexImageComponent", "VolumeBasedCalculationTechnique",
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusStartTime", "DiffusionBValue", "StudyDate",
    "SeriesDate", "SeriesTime", "ContentDate", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient",
    "BodyPartExamined", "Manufacturer", "ManufacturerModelName", "FrameOfReferenceUID", "SyntheticData",
    "ContributingEquipmentSequence", "DerivationCodeSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)] + [Tag(tag) for tag in OVERLAY_DATA]  # fmt: skip


def read_study(folder: Path) -> Study:
    """The one study inside ``folder``, at any depth, under any file names.

    DICOMDIR, raw data and files that are not DICOM are skipped. A DICOM file that cannot be read, is truncated, lacks
    an identifying attribute, or repeats a SOP Instance UID with other bytes is recorded in ``Study.unreadable``.

    Raises:
        SelectionRefused: the folder holds several studies (named by UID).
        InstanceRefused: the folder holds no readable DICOM instance.
    """
    studies, unreadable = read_studies(folder)
    if len(studies) > 1:
        names = ", ".join(study.study_instance_uid for study in studies)
        raise SelectionRefused(f"the folder holds {len(studies)} studies: {names}; give one at a time")
    if not studies:
        reason = f"; first unreadable file: {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise InstanceRefused(f"the folder holds no readable DICOM instance{reason}")
    return replace(studies[0], unreadable=unreadable)


def read_studies(folder: Path) -> tuple[tuple[Study, ...], tuple[tuple[str, str], ...]]:
    """Every study inside ``folder``, sorted by UID, and (file, reason) of each file unreadable as in `read_study`.

    Raises:
        StorageError: the disk could not read a file or a folder.
    """
    try:
        return _read_studies(folder)
    except OSError as error:
        name = Path(error.filename).name if error.filename else folder.name
        raise StorageError(f"{name} cannot be read now: {error.strerror or type(error).__name__}") from None


def _read_studies(folder: Path) -> tuple[tuple[Study, ...], tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[Dataset, Path]] = {}
    unreadable: list[tuple[str, str]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = _read_identity(path)
        except DICOM_UNREADABLE as error:
            if isinstance(error, OSError) and error.errno is not None:  # from the disk: pydicom's own have no errno
                raise
            unreadable.append((str(path.relative_to(folder)), str(error) or type(error).__name__))
            continue
        if dataset is None:
            continue
        uid = str(dataset.SOPInstanceUID)
        if uid not in found:
            found[uid] = (dataset, path)
        elif not filecmp.cmp(found[uid][1], path, shallow=False):
            unreadable.append(
                (str(path.relative_to(folder)), f"other bytes under the SOP Instance UID of {found[uid][1].name}")
            )
    studies: dict[str, list[tuple[Dataset, Path]]] = {}
    for dataset, path in found.values():
        studies.setdefault(str(dataset.StudyInstanceUID), []).append((dataset, path))
    planes = {uid: dataset for uid, (dataset, _) in found.items()}
    return tuple(Study(uid, _series_of(studies[uid]), planes=planes) for uid in sorted(studies)), tuple(unreadable)


def _read_identity(path: Path) -> Dataset | None:
    """The identifying attributes of one file; None for a DICOMDIR, raw data or a file that is not DICOM."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # malformed values are checked below; pydicom's warnings add nothing
        start = file.read(132)
        if start[128:] != b"DICM":
            if path.suffix.lower() == ".dcm" or start[:2] in (b"\x08\x00", b"\x02\x00"):
                raise ValueError("not a DICOM Part 10 file: no DICM prefix (PS3.10 7.1)")
            return None
        file.seek(0)
        dataset = read_partial(file, _is_past_study_tags, specific_tags=_STUDY_TAGS)
        storage_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        if storage_class == _DIRECTORY or dataset.get("SOPClassUID") in _RAW_DATA:
            return None
        for keyword in _IDENTITY:
            value = text(dataset.get(keyword))
            # the receiver decides whether UIDs with leading zeros are taken (scp.uid_repair)
            is_uid = is_valid_uid if keyword == "SOPClassUID" else is_usable_uid
            if value is None or (keyword.endswith("UID") and not is_uid(value)):
                raise ValueError(f"{keyword} is {'missing' if value is None else 'no valid UID'}")
        reason = truncation(file, path.stat().st_size, dataset)
    if reason:
        raise ValueError(reason)
    return dataset


def _is_past_study_tags(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_STUDY_TAG


def _series_of(found: Iterable[tuple[Dataset, Path]]) -> tuple[Series, ...]:
    groups: dict[str, list[tuple[Dataset, Path]]] = {}
    for dataset, path in found:
        groups.setdefault(str(dataset.SeriesInstanceUID), []).append((dataset, path))
    series = []
    for uid, members in groups.items():
        first = min(members, key=lambda member: str(member[0].SOPInstanceUID))[0]
        instances = (Instance(path, str(dataset.SOPInstanceUID), str(dataset.SOPClassUID)) for dataset, path in members)
        series.append(
            Series(
                series_instance_uid=uid,
                study_instance_uid=str(first.StudyInstanceUID),
                modality=str(first.Modality),
                series_description=masked(_value(first, "SeriesDescription", text), identity_of(first)),
                series_number=_value(first, "SeriesNumber", integer),
                frame_of_reference_uid=_value(first, "FrameOfReferenceUID", text),
                instances=tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid)),
            )
        )
    return tuple(
        sorted(series, key=lambda one: (one.series_number is None, one.series_number or 0, one.series_instance_uid))
    )


def _value(dataset: Dataset, keyword: str, convert: Callable[[Any], Any]) -> Any:
    """The converted value, or None if it is missing or does not conform to its value representation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return convert(dataset.get(keyword))
        except DICOM_UNREADABLE:
            return None


def read_facts(series: Series, planes: Mapping[str, Any] | None = None) -> SeriesFacts:
    """The header facts of one series: position and time of every instance, all other attributes of the first one.

    ``planes``: ``Study.planes`` as `read_study` filled it; the header of an instance missing there is read from disk.

    Raises:
        InstanceRefused: an instance can no longer be read.
    """
    instances, known = series.instances, planes or {}
    first = instances[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(first.path, stop_before_pixels=True, specific_tags=_FACT_TAGS)
            is_multiframe = first.sop_class_uid in ENHANCED_MR
            lookup = instance_lookup(dataset) if is_multiframe else dataset.get
            places = frame_lookups(dataset) if is_multiframe else [_plane(one, known) for one in instances]
            is_overlaid = has_overlay(dataset, instances)
            facts = _facts(_lenient(lookup), [_lenient(place) for place in places])
            software = made_by_software(_lenient(lookup), first.sop_class_uid)
            mixture = _mixture(instances, is_multiframe)
            if is_multiframe and mixture is None and (facts.irregularity or (facts.images_per_position or 1.0) > 1.0):
                mixture = mixture_of_frames(dataset)
    except DICOM_UNREADABLE as error:
        raise InstanceRefused(f"{first.path.name} of {series.label} cannot be read: {type(error).__name__}") from None
    return replace(
        facts,
        is_multiframe=is_multiframe,
        has_overlay=is_overlaid,
        made_by_software=software,
        mixture=mixture,
    )


def read_first_facts(series: Series) -> SeriesFacts:
    """The header facts of a series' first instance alone, which suffice to classify its words and timing.

    Raises:
        InstanceRefused: the instance can no longer be read.
    """
    return read_facts(replace(series, instances=series.instances[:1]))


def _mixture(instances: tuple[Instance, ...], is_multiframe: bool) -> str | None:
    """Why ``instances`` cannot be one volume, whatever their planes; else None."""
    if len({one.sop_class_uid for one in instances}) > 1:
        return "holds instances of different SOP Classes"
    if is_multiframe and len(instances) > 1:
        return f"holds {len(instances)} multi-frame instances"
    return None


def _plane(instance: Instance, known: Mapping[str, Any]) -> Lookup:
    dataset = known.get(instance.sop_instance_uid)
    if dataset is None:
        with instance.path.open("rb") as file:
            dataset = read_partial(file, _is_past_study_tags, specific_tags=_STUDY_TAGS)
    return cast(Lookup, dataset.get)


def _lenient(lookup: Lookup) -> Lookup:
    """``lookup`` that returns None for a value that does not conform to its value representation."""

    def find(keyword: str) -> Any:
        try:
            return lookup(keyword)
        except DICOM_UNREADABLE:
            return None

    return find


def _facts(lookup: Lookup, planes: list[Lookup]) -> SeriesFacts:
    def get(keyword: str, convert: Callable[[Any], Any]) -> Any:
        try:
            return convert(lookup(keyword))
        except DICOM_UNREADABLE:
            return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        orientation = get("ImageOrientationPatient", lambda value: coordinates(value, 6))
        moment = acquired(lookup, planes)
        stack = describe_stack(orientation, planes)
        return SeriesFacts(
            description=get("SeriesDescription", text),
            protocol_name=get("ProtocolName", text),
            sequence_name=get("SequenceName", text),
            scanning_sequence=get("ScanningSequence", texts) or (),
            sequence_variant=get("SequenceVariant", texts) or (),
            scan_options=get("ScanOptions", texts) or (),
            mr_acquisition_type=get("MRAcquisitionType", text),
            echo_time_ms=get("EchoTime", number),
            repetition_time_ms=get("RepetitionTime", number),
            inversion_time_ms=get("InversionTime", number),
            flip_angle=get("FlipAngle", number),
            image_type=get("ImageType", texts) or (),
            image_component=get("ComplexImageComponent", text),
            calculation_technique=get("VolumeBasedCalculationTechnique", text),
            contrast_bolus_agent=get("ContrastBolusAgent", text),
            contrast_bolus_start=bolus_start(lookup, moment),
            diffusion_b_value=get("DiffusionBValue", number),
            acquisition_datetime=moment,
            pixel_spacing_mm=get("PixelSpacing", lambda value: coordinates(value, 2)),
            slice_thickness_mm=get("SliceThickness", number),
            spacing_between_slices_mm=get("SpacingBetweenSlices", number),
            slice_count=stack.slice_count,
            slice_step_mm=stack.slice_step_mm,
            coverage_mm=stack.coverage_mm,
            box_mm=stack.box_mm,
            images_per_position=stack.images_per_position,
            image_orientation_patient=orientation,
            body_part_examined=get("BodyPartExamined", text),
            manufacturer=get("Manufacturer", text),
            frame_of_reference_uid=get("FrameOfReferenceUID", text),
            irregularity=stack.irregularity,
        )
