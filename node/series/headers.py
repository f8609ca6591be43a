"""The series of a folder of DICOM files.

Headers only; pixel data is never read, only its length is compared with the file's.
"""

from __future__ import annotations

import filecmp
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from node.dicom.character_sets import use_own_table
from node.dicom.uids import is_usable_uid, is_valid_uid
from node.errors import InstanceRefused, SelectionRefused, StorageError
from node.series.patient import IDENTITY_TAGS, identity_of, masked
from node.series.pixels import truncation
from node.series.values import DICOM_UNREADABLE, integer, text
from node.study import Instance, Series, Study

_DIRECTORY = "1.2.840.10008.1.3.10"
_RAW_DATA = frozenset(["1.2.840.10008.5.1.4.1.1.66", "1.3.46.670589.11.0.0.12.1", "1.3.46.670589.11.0.0.12.2"])
STUDY_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "FrameOfReferenceUID", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing",
)] + IDENTITY_TAGS  # fmt: skip
"""Read from every instance in one pass, since a study has thousands: identity, position and time of its image."""

_LAST_STUDY_TAG = 0x00280103
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


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
        except InstanceRefused as error:
            unreadable.append((str(path.relative_to(folder)), str(error)))
            continue
        except DICOM_UNREADABLE as error:  # its text may repeat a value of the header
            if isinstance(error, OSError) and error.errno is not None:  # from the disk: pydicom's own have no errno
                raise
            unreadable.append((str(path.relative_to(folder)), f"cannot be parsed ({type(error).__name__})"))
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
                raise InstanceRefused("not a DICOM Part 10 file: no DICM prefix (PS3.10 7.1)")
            return None
        file.seek(0)
        dataset = read_partial(file, is_past_study_tags, specific_tags=STUDY_TAGS)
        use_own_table(dataset)
        storage_class = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        if storage_class == _DIRECTORY or text(dataset.get("SOPClassUID")) in _RAW_DATA:
            return None
        for keyword in _IDENTITY:
            value = text(dataset.get(keyword))
            # the receiver decides whether UIDs with leading zeros are taken (scp.uid_repair)
            is_uid = is_valid_uid if keyword == "SOPClassUID" else is_usable_uid
            if value is None or (keyword.endswith("UID") and not is_uid(value)):
                raise InstanceRefused(f"{keyword} is {'missing' if value is None else 'no valid UID'}")
        reason = truncation(file, path.stat().st_size, dataset)
    if reason:
        raise InstanceRefused(reason)
    return dataset


def is_past_study_tags(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    """True behind the last of `STUDY_TAGS`, where reading may stop."""
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
