"""Versions of an instance that are in the spool but not in use, each under a name of its own.

::

    <spool>/.conflicts/<study>/<series>/<sop>.<digest>.dcm          open: the administrator decides
    <spool>/.superseded/<study>/<series>/<sop>.<digest>.dcm         was in use until a correction came
    <spool>/.superseded/<study>/<series>/<sop>.<digest>.image.dcm   was in use until another image was taken
    <spool>/.dismissed/<study>/<series>/<sop>.<digest>.dcm          decided: not to be used

``<digest>`` are the first 16 digits of the SHA-256 of the data set. These files are kept as long as the study's inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node.errors import InstanceRefused
from node.scp.incoming import length_of_head

CONFLICTS, SUPERSEDED, DISMISSED = ".conflicts", ".superseded", ".dismissed"
ASIDE = (CONFLICTS, SUPERSEDED, DISMISSED)
"""The folders of versions that are not in use."""

WITHDRAWN = ".withdrawn"
"""The folder of what is no longer input (`withdrawals`)."""

_DIGITS = 16
_IMAGE = "image"


def data_set_digest(path: Path) -> str:
    """Hex SHA-256 of the data set of a DICOM file, without its file meta, which differs from sender to sender.

    Raises:
        InstanceRefused: the file has no file meta with a group length.
    """
    with path.open("rb") as file:
        file.seek(length_of_head(file.read(144)))
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """`data_set_digest`; of a file that is no DICOM file, the digest of all its bytes."""
    try:
        return data_set_digest(path)
    except InstanceRefused:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def holds_data_set(path: Path, digest: str) -> bool:
    """True if the file is a DICOM file whose data set has this digest."""
    try:
        return data_set_digest(path) == digest
    except InstanceRefused:
        return False


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an instance that is not in use. ``digest``: the first digits of that of its data set.

    ``is_other_image``: it was in use until another image took its place under the same UID.
    """

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    digest: str
    is_other_image: bool


def aside_path(folder: Path, in_use: Path, digest: str, is_other_image: bool = False) -> Path:
    """Where a version of the instance ``in_use`` (``<spool>/<study>/<series>/<sop>.dcm``) lies in ``folder``."""
    image = f".{_IMAGE}" if is_other_image else ""
    study, series = in_use.parts[-3:-1]
    return folder / study / series / f"{in_use.stem}.{digest[:_DIGITS]}{image}.dcm"


def versions(folder: Path, study_instance_uid: str | None = None) -> Iterator[Version]:
    """The versions in ``folder`` (one of `ASIDE` in the spool), of one study or of all, in the order of their paths."""
    study = "*" if study_instance_uid is None else study_instance_uid
    return map(_version, sorted(folder.glob(f"{study}/*/*.dcm")))


def versions_of(folder: Path, in_use: Path) -> list[Version]:
    """The versions in ``folder`` of the instance ``in_use`` (``<spool>/<study>/<series>/<sop>.dcm``)."""
    study, series = in_use.parts[-3:-1]
    found = map(_version, sorted((folder / study / series).glob(f"{in_use.stem}.*.dcm")))
    return [each for each in found if each.sop_instance_uid == in_use.stem]  # a UID may be the beginning of another


def _version(path: Path) -> Version:
    parts = path.name.split(".")
    is_other_image = parts[-2] == _IMAGE
    end = -3 if is_other_image else -2
    names = path.parts[-3], path.parts[-2], ".".join(parts[:end])
    return Version(path, *names, parts[end], is_other_image)
