"""The header facts of one series, from its instances and their frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from pydicom.filereader import dcmread, read_partial
from pydicom.tag import Tag

from node.dicom.character_sets import use_own_table
from node.dicom.frames import ENHANCED_MR, Lookup, image_lookups
from node.dicom.pixel_description import first_pixel_problem
from node.errors import InstanceRefused
from node.series.facts import SeriesFacts
from node.series.functional import instance_lookup, mixture_of_frames
from node.series.headers import STUDY_TAGS, is_past_study_tags
from node.series.images import lenient
from node.series.moments import acquired, bolus_start
from node.series.origin import made_by_software
from node.series.overlay import OVERLAY_DATA, has_overlay
from node.series.stack import describe_stack
from node.series.values import DICOM_UNREADABLE, coordinates, number, require_disk, text, texts
from node.study import Instance, Series

_FRAME_TAGS = [Tag(tag) for tag in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")]
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
            use_own_table(dataset)
            is_multiframe = first.sop_class_uid in ENHANCED_MR
            lookup = instance_lookup(dataset, first.frames) if is_multiframe else dataset.get
            places = [place for one in instances for place in _places(one, known)]
            is_overlaid = has_overlay(dataset, instances)
            facts = _facts(lenient(lookup), [lenient(place) for place in places])
            software = made_by_software(lenient(lookup), first.sop_class_uid)
            mixture = _mixture(instances)
            if is_multiframe and mixture is None and (facts.irregularity or (facts.images_per_position or 1.0) > 1.0):
                mixture = mixture_of_frames([lenient(place) for place in places])
    except DICOM_UNREADABLE as error:
        require_disk(error, first.path.name)
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


def _mixture(instances: tuple[Instance, ...]) -> str | None:
    """Why ``instances`` cannot be one volume, whatever their planes; else None."""
    if len({one.sop_class_uid for one in instances}) > 1:
        return "holds instances of different SOP Classes"
    return None


def _places(instance: Instance, known: Mapping[str, Any]) -> list[Lookup]:
    """The attributes of each of the instance's images that say where and how it lies."""
    if instance.sop_class_uid in ENHANCED_MR:
        dataset = dcmread(instance.path, stop_before_pixels=True, specific_tags=[*STUDY_TAGS, *_FRAME_TAGS])
        return image_lookups(dataset, instance.frames)
    return [_plane(instance, known)]


def _plane(instance: Instance, known: Mapping[str, Any]) -> Lookup:
    dataset = known.get(instance.sop_instance_uid)
    if dataset is None:
        with instance.path.open("rb") as file:
            dataset = read_partial(file, is_past_study_tags, specific_tags=STUDY_TAGS)
    return cast(Lookup, dataset.get)


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
            irregularity=stack.irregularity or first_pixel_problem(planes),
        )
