"""Key Object Selection Documents as an archive sends them, rejection notes among them (IHE IOCM)."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from node.dicom.uids import derived_uid


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def key_object_selection(code: str, instances: Iterable[Dataset], name: str = "note") -> Dataset:
    """A document with the title ``code`` of the scheme DCM that references ``instances``, in the study of the first."""
    instances = list(instances)
    document = Dataset()
    document.SOPClassUID = KeyObjectSelectionDocumentStorage
    document.SOPInstanceUID = derived_uid("test", name, code)
    document.StudyInstanceUID = instances[0].StudyInstanceUID
    document.SeriesInstanceUID = derived_uid("test", name, code, "series")
    document.Modality, document.SeriesNumber, document.InstanceNumber = "KO", 9000, 1
    document.PatientID, document.PatientName = instances[0].PatientID, instances[0].PatientName
    document.ValueType, document.ConceptNameCodeSequence = "CONTAINER", [_code(code, "a title")]
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
        studies.setdefault(instance.StudyInstanceUID, {}).setdefault(instance.SeriesInstanceUID, []).append(item)
    evidence = []
    for study, by_series in studies.items():
        of_study = Dataset()
        of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = study, []
        for series, items in by_series.items():
            of_series = Dataset()
            of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = series, items
            of_study.ReferencedSeriesSequence.append(of_series)
        evidence.append(of_study)
    document.CurrentRequestedProcedureEvidenceSequence = evidence
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta.MediaStorageSOPClassUID = document.SOPClassUID
    document.file_meta.MediaStorageSOPInstanceUID = document.SOPInstanceUID
    return document
