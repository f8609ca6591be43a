"""A small SR that informs the radiologist why a study has no result: title, reason and observer (this node)."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
from highdicom import sr
from highdicom._standard_utils import get_sop_class_iod_map
from highdicom.sr import CodedConcept, EnhancedSR
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage

from node.dicom.character_sets import legible, write_in_fitting_set
from node.dicom.identity import differing_identity, stamp, with_emptied_identity
from node.dicom.uids import derived_uid
from node.errors import VerificationError
from node.sr_writer.codes import COMMENT, FINDING, REFUSAL_TITLE
from node.study import ResultIdentity

SERIES_NUMBER = 9803

_KNOWN_CLASSES = frozenset(get_sop_class_iod_map())

_ABOUT = "Automatic message for research; not a medical device. The study was not segmented."


def write_refusal(
    header: pydicom.Dataset, study_instance_uid: str, reason: str, identity: ResultIdentity
) -> EnhancedSR:
    """The Enhanced SR (PS3.3 A.35.2) with ``reason`` for the study; ``header`` is that of one of its instances.

    Raises:
        VerificationError: ``header`` belongs to another study.
    """
    if header.StudyInstanceUID != study_instance_uid:
        raise VerificationError("refusal SR: the instance that names the patient is not of this study")
    contains = sr.RelationshipTypeValues.CONTAINS
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
    root = sr.ContainerContentItem(CodedConcept.from_code(REFUSAL_TITLE))
    root.ContentSequence = sr.ContentSequence(
        [
            *device,
            sr.TextContentItem(CodedConcept.from_code(FINDING), f"No result. {legible(reason)}", contains),
            sr.TextContentItem(CodedConcept.from_code(COMMENT), _ABOUT, contains),
        ]
    )
    document = _document(with_emptied_identity(header), root, identity)
    stamp(document, identity.created)
    document.SoftwareVersions = [identity.node_version]
    document.StationName = identity.station_name
    write_in_fitting_set(document)
    return document


def _document(header: pydicom.Dataset, root: sr.ContainerContentItem, identity: ResultIdentity) -> EnhancedSR:
    """The document about ``header``'s study, with its patient and study modules and a reference to the instance."""
    sop_class_uid = header.SOPClassUID
    if sop_class_uid not in _KNOWN_CLASSES:  # highdicom looks up the modules by SOP class, and fails for a private one
        header.SOPClassUID = MRImageStorage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom repeats pydicom's warnings about values of the source
        document = EnhancedSR(
            evidence=[header],
            content=root,
            series_instance_uid=derived_uid(identity.workflow_id, "refusal series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=derived_uid(identity.workflow_id, "refusal"),
            instance_number=1,
            manufacturer="glionode",
            is_complete=True,
            is_final=False,
            series_description="Glioma segmentation: no result",
        )
    header.SOPClassUID = sop_class_uid
    series = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence[0].ReferencedSOPClassUID = sop_class_uid
    return document


def verify_refusal(file: Path, header: pydicom.Dataset, reason: str) -> None:
    """Read the refusal file back and compare it with ``reason`` and ``header``.

    Raises:
        VerificationError: the reason is missing, or the patient's or study's identity differs.
    """
    document = pydicom.dcmread(file)
    texts = [item.TextValue for item in document.ContentSequence if item.ValueType == "TEXT"]
    if f"No result. {legible(reason)}" not in texts:
        raise VerificationError("refusal SR does not hold the reason")
    differing = differing_identity(document, header, ("PatientID", "PatientName", "StudyInstanceUID"))
    if differing:
        raise VerificationError(f"refusal SR: {differing} is not the source's")
