"""``glionode bench series``: time to classify many descriptions, and to read and select from a large study.

Each is compared with a plain program that does less: a substring rule, which is wrong on one description in five; and
reading every header once with pydicom, without any selection.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from node.series.classify import classify_text
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.select import select_by_facts
from node.series.vocabulary import load_vocabulary

DESCRIPTIONS = 10_000
COLUMNS = ("what", "count", "seconds", "plain", "ratio")
_ROOT = "1.2.826.0.1.3680043.10.1462.9"
SERIES = ("T2 TSE tra", "FLAIR tra", "T1 MPRAGE sag", "T1 MPRAGE sag KM", "localizer", "ep2d_diff", "SWI", "TOF")
_SIDE = 128


@dataclass(frozen=True, slots=True)
class Speed:
    """Wall seconds for ``count`` items of kind ``what``, and those of a plain program in the same run."""

    what: str
    count: int
    seconds: float
    plain_seconds: float

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of :data:`COLUMNS`."""
        ratio = f"{self.seconds / self.plain_seconds:.1f}"
        return self.what, str(self.count), f"{self.seconds:.2f}", f"{self.plain_seconds:.2f}", ratio


def bench_speed(descriptions: Sequence[str], instances: int) -> list[Speed]:
    """Classify `DESCRIPTIONS` strings made of ``descriptions``; read a study of ``instances`` and select from it."""
    # a running number makes each string unique
    many = [f"{text} {number}" for number, text in enumerate(islice(cycle(descriptions), DESCRIPTIONS))]
    vocabulary = load_vocabulary()
    words = _seconds(lambda: [classify_text(text, {}, vocabulary) for text in many])
    speeds = [Speed("descriptions judged", len(many), words, _seconds(lambda: [_by_substring(text) for text in many]))]
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        files = write_study(Path(name), instances)
        plain = _seconds(lambda: [pydicom.dcmread(file, stop_before_pixels=True) for file in files])
        speeds.append(Speed("instances read and selected from", instances, _seconds(lambda: _select(name)), plain))
    return speeds


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _by_substring(text: str) -> str:
    name = text.casefold()
    if "flair" in name:
        return "FLAIR"
    if "t2" in name:
        return "T2"
    return "T1c" if "t1" in name and ("gd" in name or "post" in name) else "T1" if "t1" in name else "other"


def _select(folder: str) -> None:
    study = read_study(Path(folder))
    facts = {series.key: read_facts(series, study.planes) for series in study.series}
    select_by_facts(study, facts, load_vocabulary())


def write_study(folder: Path, instances: int, study_instance_uid: str = _ROOT, side: int = _SIDE) -> list[Path]:
    """Write ``instances`` slices of the usual series of a brain examination, ``side`` x ``side`` pixels each.

    Each series has a folder.
    """
    files = []
    for index in range(instances):
        number, position = index % len(SERIES), index // len(SERIES)
        file = folder / str(number) / f"{position}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        _slice(number, position, study_instance_uid, side).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _slice(number: int, position: int, study_instance_uid: str, side: int) -> Dataset:
    uid = f"{study_instance_uid}.{number + 1}.{position + 1}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, uid
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.StudyInstanceUID = study_instance_uid
    dataset.SeriesInstanceUID = f"{study_instance_uid}.{number + 1}"
    dataset.FrameOfReferenceUID = f"{study_instance_uid}.99"
    dataset.Modality, dataset.SeriesDescription, dataset.SeriesNumber = "MR", SERIES[number], number + 1
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20200101", f"14{number:02d}00"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, position]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = bytes(2 * side * side)
    return dataset
