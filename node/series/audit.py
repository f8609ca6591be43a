"""Audit of a folder of DICOM files: one CSV row per series, with its contrast-related attributes and the prediction."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.errors import InstanceRefused
from node.series.classify import classify_description
from node.series.fact_reader import read_facts
from node.series.facts import SeriesFacts
from node.series.headers import read_studies
from node.series.vocabulary import OTHER, Vocabulary
from node.study import Series

COLUMNS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "description", "ProtocolName", "SequenceName",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime",
    "InversionTime", "FlipAngle", "ImageType", "ContrastBolusAgent", "DiffusionBValue", "BodyPartExamined",
    "Manufacturer", "SliceThickness", "SpacingBetweenSlices", "NumberOfSeriesRelatedInstances", "predicted", "evidence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit: the number of series written, and (file, reason) of each file that could not be read."""

    series_count: int
    unreadable: tuple[tuple[str, str], ...]


def audit_folder(folder: Path, out: Path, vocabulary: Vocabulary) -> Audit:
    """Write to ``out`` the series of every study inside ``folder``, at any depth; no column identifies the patient.

    A file that cannot be read does not end the audit: it is listed in the result.
    """
    studies, unreadable = read_studies(folder)
    unread = list(unreadable)
    count = 0
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for study in studies:
            for series in study.series:
                facts = SeriesFacts()
                if series.modality == "MR":
                    try:
                        facts = read_facts(series, study.planes)
                    except InstanceRefused as error:
                        unread.append((str(series.instances[0].path.relative_to(folder)), str(error)))
                writer.writerow(_row(series, facts, vocabulary))
                count += 1
    return Audit(count, tuple(unread))


def _row(series: Series, facts: SeriesFacts, vocabulary: Vocabulary) -> Mapping[str, object]:
    predicted, evidence = OTHER, f"modality {series.modality}"
    if series.modality == "MR":
        found = classify_description(series.series_description, facts, vocabulary)
        predicted, evidence = str(found.contrast or OTHER), "; ".join(found.evidence)
    spacing = facts.slice_step_mm if facts.slice_step_mm is not None else facts.spacing_between_slices_mm
    return {
        "StudyInstanceUID": series.study_instance_uid,
        "SeriesInstanceUID": series.series_instance_uid,
        "SeriesNumber": series.series_number,
        "Modality": series.modality,
        "description": series.series_description,
        "ProtocolName": facts.protocol_name,
        "SequenceName": facts.sequence_name,
        "ScanningSequence": "\\".join(facts.scanning_sequence),
        "SequenceVariant": "\\".join(facts.sequence_variant),
        "ScanOptions": "\\".join(facts.scan_options),
        "MRAcquisitionType": facts.mr_acquisition_type,
        "EchoTime": facts.echo_time_ms,
        "RepetitionTime": facts.repetition_time_ms,
        "InversionTime": facts.inversion_time_ms,
        "FlipAngle": facts.flip_angle,
        "ImageType": "\\".join(facts.image_type),
        "ContrastBolusAgent": facts.contrast_bolus_agent,
        "DiffusionBValue": facts.diffusion_b_value,
        "BodyPartExamined": facts.body_part_examined,
        "Manufacturer": facts.manufacturer,
        "SliceThickness": facts.slice_thickness_mm,
        "SpacingBetweenSlices": spacing,
        "NumberOfSeriesRelatedInstances": len(series.instances),
        "predicted": predicted,
        "evidence": evidence,
    }
