"""Builders of small MR studies: as plain facts, and as DICOM files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.series.facts import SeriesFacts
from node.series.vocabulary import Vocabulary, load_vocabulary
from node.study import Instance, Series, Study

STUDY_UID = "1.2.3"
FRAME_UID = "1.2.3.9"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


class StudyBuilder:
    """Collects series as facts; times are minutes after 14:00."""

    def __init__(self) -> None:
        self.series: list[Series] = []
        self.facts: dict[tuple[str, str], SeriesFacts] = {}
        self.unreadable: tuple[tuple[str, str], ...] = ()

    def add(self, number: int, description: str | None, minute: int | None = None, *, modality: str = "MR", **facts):
        frame = facts.pop("frame_of_reference_uid", FRAME_UID)
        uid = f"{STUDY_UID}.{number}"
        instance = Instance(Path(f"{number}.dcm"), f"{uid}.1", "1.2.840.10008.5.1.4.1.1.4")
        self.series.append(Series(uid, STUDY_UID, modality, description, number, frame, (instance,)))
        if modality == "MR":
            values = {
                "slice_count": 160,
                "slice_step_mm": 1.0,
                "coverage_mm": 160.0,
                "images_per_position": 1.0,
                **facts,
            }
            moment = facts.pop("acquisition_datetime", None if minute is None else datetime(2020, 1, 1, 14, minute))
            values.pop("acquisition_datetime", None)
            self.facts[uid, ""] = SeriesFacts(
                description=description, frame_of_reference_uid=frame, acquisition_datetime=moment, **values
            )
        return self

    def study(self) -> Study:
        return Study(STUDY_UID, tuple(self.series), self.unreadable)


@pytest.fixture
def builder() -> StudyBuilder:
    return StudyBuilder()


def write_instance(path: Path, **attributes) -> Dataset:
    """A small MR instance; ``attributes`` override by keyword, None deletes."""
    uid = attributes.get("SOPInstanceUID", "1.2.3.1.1")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "SOPInstanceUID": uid,
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": "1.2.3.1",
        "FrameOfReferenceUID": FRAME_UID,
        "Modality": "MR",
        "SeriesDescription": "T1 SE",
        "SeriesNumber": 1,
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "140000.5",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
        "PixelSpacing": [1, 1],
        "Rows": 4,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": np.zeros((4, 4), np.uint16).tobytes(),
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


@pytest.fixture(scope="session")
def write():
    return write_instance
