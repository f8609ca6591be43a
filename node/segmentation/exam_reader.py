"""Reads the series of an exam as volumes before the networks run, and says which series cannot become one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from node.dicom.character_sets import use_own_table
from node.dicom.identity import checked_identities
from node.dicom.patient_match import Identity, differing_attributes, identity_of_patient
from node.errors import ContentRefused, GeometryRefused, InstanceRefused
from node.segmentation.source_images import MALFORMED
from node.segmentation.volume import SourceVolume, read_volume
from node.study import Contrast, Selection, Series

Files = tuple[tuple[int, int, int], ...]
"""Inode, time of modification and size of each file of a series."""


class ExamReader:
    """Reads each series once; a volume is kept until its exam is taken, or a file of its series is replaced."""

    def __init__(self) -> None:
        self._volumes: dict[Series, tuple[Files, SourceVolume]] = {}

    def why_unusable(self, series: Series) -> str | None:
        """Why ``series`` cannot become a volume, without its name; None if it can."""
        if self._kept(series) is not None:
            return None
        try:
            files = _files(series)
            self._volumes[series] = files, read_volume(series)
        except (ContentRefused, GeometryRefused, InstanceRefused) as error:
            return str(error).removeprefix(f"{series.label}: ")
        return None

    def take(self, selection: Selection) -> dict[Contrast, SourceVolume]:
        """The volumes of the chosen series, which are no longer kept here.

        Raises:
            RefusedError: a series cannot become a volume; the instances used name two patients, or those of the T1c do
                not say for certain whose images they are, or of which frame of reference.
        """
        check_patient(selection)
        chosen = selection.chosen.items()
        volumes = {contrast: self._kept(series) or read_volume(series) for contrast, series in chosen}
        self._volumes = {}
        return volumes

    def _kept(self, series: Series) -> SourceVolume | None:
        """The volume that was read of the files as they are now; None: there is none."""
        if series not in self._volumes:
            return None
        files, volume = self._volumes[series]
        return volume if files == _files(series) else None


def _files(series: Series) -> Files:
    """What changes when a file of ``series`` is replaced.

    Raises:
        InstanceRefused: a file is gone.
    """
    try:
        found = [each.path.stat() for each in series.instances]
    except FileNotFoundError as error:
        raise InstanceRefused(f"{series.label}: {Path(error.filename).name} is gone") from None
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def check_patient(selection: Selection) -> None:
    """Check that all instances used name one patient, and that results can name that patient.

    Raises:
        InstanceRefused: the text names attributes and series, never a value.
    """
    source = selection.chosen[Contrast.T1C]
    of_series = {
        series: [identity_of_patient(_header(series, one.path)) for one in series.instances]
        for series in selection.chosen.values()
    }
    for series, identities in of_series.items():
        _refuse_two_patients(identities, series.label)
    for series, identities in of_series.items():
        _refuse_two_patients([*of_series[source], *identities], f"{source.label} and {series.label}")
    every = [identity for identities in of_series.values() for identity in identities]
    _refuse_two_patients(every, "the series used")  # the T1c may leave open what others say
    try:
        checked_identities(_header(source, one.path) for one in source.instances)
    except InstanceRefused as error:
        raise InstanceRefused(f"{source.label}: {error}") from None


def _refuse_two_patients(identities: list[Identity], where: str) -> None:
    differing = differing_attributes(identities)
    if differing:
        raise InstanceRefused(f"the instances of {where} name two patients, by {' and '.join(differing)}")


def _header(series: Series, path: Path) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True)
            use_own_table(header)
            return header
    except (InvalidDicomError, *MALFORMED) as error:
        raise InstanceRefused(f"{series.label}: {path.name} cannot be read ({type(error).__name__})") from None
