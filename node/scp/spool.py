"""The spool: instances as received, on disk, durable before they are acknowledged.

::

    <folder>/<study>/<series>/<sop>.dcm                          each instance once
    <folder>/.conflicts/<study>/<series>/<sop>.<sha256[:16]>.dcm   other bytes under a UID that was already there
    <folder>/.incoming/                                          being written; worthless after a crash

The spool is the truth about what was received: nothing else needs to survive a restart.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import uuid
from enum import StrEnum
from pathlib import Path

import structlog

from node.errors import InstanceRefused
from node.uids import is_valid_uid

log = structlog.get_logger()

_GROUP_LENGTH_END = 144  # preamble 128, "DICM" 4, (0002,0000) UL 12 bytes (PS3.10 7.1)


class StoreOutcome(StrEnum):
    """What became of an instance; in each case its bytes are on disk when it is returned."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def data_set_digest(content: bytes) -> str:
    """Hex SHA-256 of the data set of a DICOM file; its file meta may name another sender and does not count.

    Raises:
        InstanceRefused: there is no file meta with its group length.
    """
    head = content[:_GROUP_LENGTH_END]
    if len(head) < _GROUP_LENGTH_END or head[128:138] != b"DICM\x02\x00\x00\x00UL":
        raise InstanceRefused("(0002,0000) File Meta Information Group Length is missing")
    (meta_length_bytes,) = struct.unpack_from("<I", head, 140)
    return hashlib.sha256(memoryview(content)[_GROUP_LENGTH_END + meta_length_bytes :]).hexdigest()


class Spool:
    """Instances by study and series. Safe for use by many threads, and by many processes on one file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / ".incoming"
        self._conflicts = folder / ".conflicts"
        missing = [parent for parent in self._incoming.parents if not parent.exists()]
        self._incoming.mkdir(parents=True, exist_ok=True)
        for created in missing:
            _sync_folder(created.parent)
        self._durable_folders: set[Path] = set()

    def write_instance(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, content: bytes
    ) -> StoreOutcome:
        """Keep ``content`` (a DICOM file with file meta); when this returns, it survives a power cut.

        Raises:
            InstanceRefused: a UID is invalid (the tag is named), or ``content`` has no file meta.
            OSError: the disk did not take it; nothing of it is left.
        """
        for tag, uid in (
            ("(0020,000D) Study Instance UID", study_instance_uid),
            ("(0020,000E) Series Instance UID", series_instance_uid),
            ("(0008,0018) SOP Instance UID", sop_instance_uid),
        ):
            if not is_valid_uid(uid):
                raise InstanceRefused(f"{tag} is not a valid UID")
        digest = data_set_digest(content)
        series = Path(study_instance_uid, series_instance_uid)
        incoming = self._incoming / uuid.uuid4().hex
        try:
            with incoming.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            final = self.folder / series / f"{sop_instance_uid}.dcm"
            if self._link(incoming, final):
                return StoreOutcome.STORED
            if data_set_digest(final.read_bytes()) == digest:
                return StoreOutcome.DUPLICATE
            # the name carries the digest: if it is taken, these bytes are already kept
            self._link(incoming, self._conflicts / series / f"{sop_instance_uid}.{digest[:16]}.dcm")
        finally:
            incoming.unlink(missing_ok=True)
        log.warning(
            "instance_conflict",
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )
        return StoreOutcome.CONFLICT

    def _link(self, incoming: Path, final: Path) -> bool:
        """Give the finished file its name, durably; False if it is taken. Unlike a rename, a link never replaces."""
        self._make_durable_folder(final.parent)
        try:
            os.link(incoming, final)
        except FileExistsError:
            is_new = False
        else:
            is_new = True
        # also when taken: whoever took the name may not have synced the folder yet
        _sync_folder(final.parent)
        return is_new

    def _make_durable_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._durable_folders.discard(folder)
            folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._durable_folders:
            for parent in folder.parents:
                _sync_folder(parent)
                if parent == self.folder:
                    break
            self._durable_folders.add(folder)

    def studies(self) -> list[str]:
        """Study Instance UIDs of what was received, sorted."""
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and is_valid_uid(entry.name))

    def study_folder(self, study_instance_uid: str) -> Path:
        """Where the study lies, whether or not anything of it was received.

        Raises:
            InstanceRefused: the UID is invalid.
        """
        if not is_valid_uid(study_instance_uid):
            raise InstanceRefused("(0020,000D) Study Instance UID is not a valid UID")
        return self.folder / study_instance_uid

    def series_folders(self, study_instance_uid: str) -> list[Path]:
        """Folders of the study's series, named by Series Instance UID, sorted; empty if nothing was received."""
        folder = self.study_folder(study_instance_uid)
        return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def free_bytes(self) -> int:
        """Free bytes of the spool's disk, as an unprivileged process may use them."""
        return shutil.disk_usage(self.folder).free

    def remove_incoming_leftovers(self) -> int:
        """Delete what a crash left, which was never acknowledged; how many files. To be called before listening.

        On a shared file system, what another receiver is just writing is refused with A700 and sent again.
        """
        leftovers = list(self._incoming.iterdir())
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)
