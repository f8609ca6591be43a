"""The structured report: TID 1500 "Measurement Report" with one TID 1411 group per segment (PS3.16)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from highdicom import sr
from highdicom.sr import CodedConcept, EnhancedSR
from pydicom.sr.codedict import codes

from node.dicom.character_sets import legible, write_in_fitting_set
from node.dicom.identity import differing_identity, stamp, with_valid_identity
from node.dicom.uids import derived_uid
from node.errors import VerificationError
from node.sr_writer.codes import (
    ARTIFICIAL_INTELLIGENCE,
    BRAIN,
    COMMENT,
    MILLILITRE,
    MORPHOLOGICALLY_ABNORMAL,
    MR_PROCEDURE,
    POSTOPERATIVE,
    REPORT_TITLE,
    VOLUME,
)
from node.sr_writer.measurements import SegmentMeasurement, measure
from node.study import ResultIdentity, Selection

SERIES_NUMBER = 9802

_VOLUME_TOLERANCE_ML = 0.001


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Content of a report besides the SEG that it measures.

    Attributes:
        selection: the series used, with their evidence.
        source: header of one instance of the SEG's source series (patient and study identity).
        cautions: doubts about the result, in sentences for its reader.
        series_lines: one line per series used, with its evidence; if empty, the report gives number and description.
        state_line: whether the exam is before or after surgery, and why; empty: not judged.
        is_postoperative: whether there is evidence for surgery; it is then coded in each group (TID 1502).
        predecessor: digest that names the report of the same series that this one replaces; empty: there is none.
    """

    selection: Selection
    source: pydicom.Dataset
    cautions: tuple[str, ...]
    series_lines: tuple[str, ...] = ()
    predecessor: str = ""
    state_line: str = ""
    is_postoperative: bool = False


def write_report(seg: pydicom.Dataset, content: ReportContent, identity: ResultIdentity) -> EnhancedSR:
    """The Enhanced SR (PS3.3 A.35.2) for ``seg``: volumes in mL, algorithm, series used, cautions.

    Enhanced SR suffices, since the report has no spatial coordinates, and is the SR class that most receivers accept.
    The report stays small: it references the source series, not its images.
    """
    groups = [_group(measurement, seg, content, identity) for measurement in measure(seg)]
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", identity.station_name, identity.device_serial_number),
            name=identity.station_name,
            manufacturer_name="glionode",
            model_name="glionode",
            serial_number=identity.device_serial_number,
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=_coded(MR_PROCEDURE),
        imaging_measurements=groups,
        title=_coded(REPORT_TITLE),
    )
    for line in comment_lines(content, identity):
        item = sr.TextContentItem(_coded(COMMENT), legible(line), sr.RelationshipTypeValues.CONTAINS)
        report[0].ContentSequence.append(item)
    return _document(report, seg, content, identity)


def _document(
    report: sr.MeasurementReport, seg: pydicom.Dataset, content: ReportContent, identity: ResultIdentity
) -> EnhancedSR:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom repeats pydicom's warnings about values of the source
        document = EnhancedSR(
            evidence=[seg, with_valid_identity(content.source)],
            content=report[0],
            series_instance_uid=derived_uid(identity.workflow_id, "sr series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid(identity.workflow_id, "sr"),
            instance_number=1,
            manufacturer="glionode",
            is_complete=True,
            is_final=False,
            series_description="Glioma measurements (automatic)",
        )
    stamp(document, identity.created)
    document.SoftwareVersions = [identity.node_version, identity.software.version]
    document.StationName = identity.station_name
    if content.predecessor:
        document.PredecessorDocumentsSequence = [_reference_to_report(content.predecessor, document)]
    write_in_fitting_set(document)
    return document


def _reference_to_report(predecessor: str, document: EnhancedSR) -> pydicom.Dataset:
    """The earlier report as an item of Predecessor Documents Sequence (PS3.3 C.17.2, table 10-3b)."""
    instance, series, study = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    instance.ReferencedSOPClassUID = document.SOPClassUID
    instance.ReferencedSOPInstanceUID = derived_uid(predecessor, "sr")
    series.SeriesInstanceUID = derived_uid(predecessor, "sr series")
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = document.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    return study


def _coded(code: object) -> CodedConcept:
    return CodedConcept.from_code(code)


def _group(
    measurement: SegmentMeasurement, seg: pydicom.Dataset, content: ReportContent, identity: ResultIdentity
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    concept, software = measurement.concept, identity.software
    segment = next(item for item in seg.SegmentSequence if item.SegmentNumber == concept.number)
    algorithm = sr.AlgorithmIdentification(
        name=software.name,
        version=software.version,
        parameters=[f"{key}={value}" for key, value in software.parameters.items()],
        family=_coded(ARTIFICIAL_INTELLIGENCE),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=concept.number,
            source_series=sr.SourceSeriesForSegmentation(content.source.SeriesInstanceUID),
        ),
        finding_category=_coded(MORPHOLOGICALLY_ABNORMAL),
        finding_type=_coded(concept.property_type),
        finding_sites=[sr.FindingSite(_coded(BRAIN))],
        algorithm_id=algorithm,
        measurements=[sr.Measurement(_coded(VOLUME), round(measurement.volume_ml, 3), _coded(MILLILITRE))],
        time_point_context=_time_point(content),
    )


def _time_point(content: ReportContent) -> sr.TimePointContext | None:
    """The exam as a time point after surgery, its type from CID 6146; None without evidence, for none is no proof."""
    if not content.is_postoperative:
        return None
    date = str(content.source.get("StudyDate") or "")
    return sr.TimePointContext(time_point=date or "date not stated", time_point_type=_coded(POSTOPERATIVE))


def comment_lines(content: ReportContent, identity: ResultIdentity) -> Sequence[str]:
    """The comments of the report as plain text: series used, method, cautions, intended use."""
    labels = [f"{contrast}: {series.label}" for contrast, series in content.selection.chosen.items()]
    lines = list(content.series_lines) or labels
    parameters = ", ".join(f"{key} {value}" for key, value in identity.software.parameters.items())
    lines.append(f"Method: {identity.software.name} {identity.software.version} ({parameters})")
    lines += [f"Exam: {content.state_line}"] if content.state_line else []
    lines += [f"Caution: {text}" for text in content.cautions]
    return [*lines, "Automatic result for research; not a medical device. Check against the images."]


def verify_report(file: Path, seg: pydicom.Dataset, source: pydicom.Dataset) -> None:
    """Read the report file back and compare it with the SEG that it measures and with its source, cleaned in place.

    Raises:
        VerificationError: a volume, the reference to the SEG, or the patient's or study's identity differs.
    """
    document = pydicom.dcmread(file)
    reported = read_volumes(document)
    for each in measure(seg):
        label = each.concept.label
        if abs(reported.get(label, -1.0) - each.volume_ml) > _VOLUME_TOLERANCE_ML:
            raise VerificationError(
                f"SR: volume of '{label}' is {reported.get(label)} mL, the SEG's {each.volume_ml:.3f} mL"
            )
    segs = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in _items(document)
        if item.ConceptNameCodeSequence[0].CodeValue == codes.DCM.ReferencedSegment.value
    }
    if segs != {seg.SOPInstanceUID}:
        raise VerificationError("SR does not reference the SEG that it measures, and that alone")
    differing = differing_identity(document, source, ("PatientID", "PatientName", "StudyInstanceUID"))
    if differing:
        raise VerificationError(f"SR: {differing} is not the source's")


def _items(content: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    for item in content.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def read_volumes(document: pydicom.Dataset) -> dict[str, float]:
    """Tracking identifier to volume in mL, read from a measurement report of this node (as received)."""
    volumes = {}
    for container in document.ContentSequence:
        for group in container.get("ContentSequence", ()):
            if group.ConceptNameCodeSequence[0].CodeValue != codes.DCM.MeasurementGroup.value:
                continue
            items = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.ContentSequence}
            value = items[VOLUME.value].MeasuredValueSequence[0].NumericValue
            volumes[str(items[codes.DCM.TrackingIdentifier.value].TextValue)] = float(value)
    return volumes
