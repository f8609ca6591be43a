"""A study of four tiny MR series that is selected: what tests change to see it refused, and why."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from instances import make_instance, write_instance_file
from pydicom.dataset import Dataset

from node.dicom.uids import derived_uid

DESCRIPTIONS = {"T1": "T1 SE tra", "T1c": "T1 SE tra post contrast", "T2": "T2 TSE tra", "FLAIR": "FLAIR tra"}
PHYSICS = {  # Echo Time, Repetition Time, Inversion Time in ms, Echo Train Length: as scanners set them
    "T1": (10.0, 500.0, None, 1),
    "T1c": (10.0, 500.0, None, 1),
    "T2": (98.0, 5200.0, None, 15),
    "FLAIR": (120.0, 9000.0, 2500.0, 17),
}
SLICES = 12
SPACING_BETWEEN_SLICES_MM = 10.0


def make_series(contrast: str, name: str = "small") -> list[Dataset]:
    """One axial series of study ``name``, its instances in the order of their slices."""
    study = derived_uid("test", name)
    series = derived_uid("test", name, contrast)
    instances = []
    for index in range(SLICES):
        instance = make_instance(index + 1, study_instance_uid=study, series_instance_uid=series, pixel=index)
        instance.SeriesDescription = DESCRIPTIONS[contrast]
        instance.SeriesNumber = list(DESCRIPTIONS).index(contrast) + 1
        echo_time, repetition_time, inversion_time, instance.EchoTrainLength = PHYSICS[contrast]
        instance.EchoTime, instance.RepetitionTime = echo_time, repetition_time
        if inversion_time is not None:
            instance.InversionTime, instance.ScanningSequence = inversion_time, ["SE", "IR"]
        instance.ImagePositionPatient = [0, 0, index * SPACING_BETWEEN_SLICES_MM]
        instances.append(instance)
    return instances


def make_small_study(name: str = "small") -> dict[str, list[Dataset]]:
    """Contrast to its instances; another ``name`` gives other UIDs."""
    return {contrast: make_series(contrast, name) for contrast in DESCRIPTIONS}


def write_small_study(folder: Path, study: dict[str, list[Dataset]]) -> Path:
    """Write every instance as ``folder/<SOP Instance UID>.dcm``; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for instance in all_instances(study):
        write_instance_file(folder, instance)
    return folder


def all_instances(study: dict[str, list[Dataset]]) -> Iterable[Dataset]:
    """The instances of all series."""
    return (instance for series in study.values() for instance in series)


def study_instance_uid(study: dict[str, list[Dataset]]) -> str:
    """The UID that its instances share."""
    return str(next(iter(all_instances(study))).StudyInstanceUID)
