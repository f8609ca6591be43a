"""The spool: instances as received, on disk, durable before they are acknowledged.

::

    <folder>/<study>/<series>/<sop>.dcm                          each instance once
    <folder>/.conflicts/<study>/<series>/<sop>.<sha256[:16]>.dcm   other bytes under a UID that was already there
    <folder>/.incoming/<receiver>/                               being written; worthless after a crash
    <folder>/.spool-id                                           by which a receiver knows it again

The spool is the truth about what was received: nothing else needs to survive a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import uuid
from enum import StrEnum
from pathlib import Path

import structlog

from node.dicom.uids import is_valid_uid
from node.errors import InstanceRefused
from node.scp.disk import SpoolDisk, sync_folder
from node.scp.incoming import IncomingFile, length_of_head
from node.scp.incoming_place import IncomingPlace

log = structlog.get_logger()

_MOST_FOLDERS_KNOWN = 4096


class StoreOutcome(StrEnum):
    """What became of an instance; in each case its bytes are on disk when it is returned."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


def data_set_digest(path: Path) -> str:
    """Hex SHA-256 of the data set of a DICOM file; its file meta may name another sender and does not count.

    Raises:
        InstanceRefused: there is no file meta with its group length.
    """
    with path.open("rb") as file:
        file.seek(length_of_head(file.read(144)))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holds_data_set(path: Path, digest: str) -> bool:
    try:
        return data_set_digest(path) == digest
    except InstanceRefused:  # what lies there is no instance
        return False


class Spool:
    """Instances by study and series. Safe for use by many threads, and by many processes on one file system.

    ``receiver`` names the one that writes, where several share the folder: each has its own place in ``.incoming``.
    Whoever only reads changes nothing, and finds an absent spool empty.
    """

    def __init__(self, folder: Path, receiver: str = "receiver") -> None:
        self.folder = folder
        self._disk = SpoolDisk(folder)
        self._incoming = IncomingPlace(folder / ".incoming" / receiver)
        self._conflicts = folder / ".conflicts"
        self._durable_folders: set[Path] = set()

    def begin(self) -> int:
        """Get ready to receive, until `end`: how many files a crash had left, which were never acknowledged.

        Raises:
            ConfigError: the spool's disk is not mounted, or this receiver runs already.
            OSError: the disk refuses.
        """
        self._disk.refuse_bare_folder()
        self._disk.find()
        self._disk.give_name()
        return self._incoming.claim()

    def end(self) -> None:
        """Another may receive in this one's place. More than once is no error."""
        self._incoming.release()

    def rehearse(self) -> None:
        """Try what receiving needs of the disk, and leave nothing of it but folders.

        Raises:
            ConfigError: the spool's disk is not mounted.
            OSError: the disk refuses.
        """
        self._disk.refuse_bare_folder()
        self._disk.find()
        self._incoming.make()
        written = self._incoming.folder / uuid.uuid4().hex
        linked = written.with_suffix(".linked")
        try:
            written.touch(exist_ok=False)
            os.link(written, linked)
        finally:
            for path in (written, linked):
                path.unlink(missing_ok=True)

    def open_incoming(self, head: bytes) -> IncomingFile:
        """A new file of this receiver for an instance that is arriving. ``head``: its preamble and file meta.

        Raises:
            OSError: the disk did not take it, or is not there; nothing of it is left.
        """
        if not self._disk.is_found:
            self._disk.find()
        self._disk.check()
        path = self._incoming.folder / uuid.uuid4().hex
        try:
            return IncomingFile(path, head)
        except FileNotFoundError:  # not there yet, or tidied away by another receiver
            self._incoming.make()
            return IncomingFile(path, head)

    def keep(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, incoming: IncomingFile
    ) -> StoreOutcome:
        """Give a written file its place; when this returns, it survives a power cut. The caller discards ``incoming``.

        Raises:
            InstanceRefused: a UID is invalid (the tag is named).
            OSError: the disk did not take it, or is not there.
        """
        final = self._instance_path(study_instance_uid, series_instance_uid, sop_instance_uid)
        self._disk.check()
        incoming.sync()
        if self._link(incoming.path, final):
            return StoreOutcome.STORED
        if _holds_data_set(final, incoming.digest):
            return StoreOutcome.DUPLICATE
        # the name carries the digest: if it is taken, these bytes are already kept
        aside = f"{sop_instance_uid}.{incoming.digest[:16]}.dcm"
        self._link(incoming.path, self._conflicts / study_instance_uid / series_instance_uid / aside)
        log.warning(
            "instance_conflict",
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )
        return StoreOutcome.CONFLICT

    def holds(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, incoming: IncomingFile
    ) -> bool:
        """True if the same data set already lies in the spool under these UIDs.

        Raises:
            InstanceRefused: a UID is invalid (the tag is named).
        """
        final = self._instance_path(study_instance_uid, series_instance_uid, sop_instance_uid)
        return final.exists() and _holds_data_set(final, incoming.digest)

    def _instance_path(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Path:
        for tag, uid in (
            ("(0020,000D) Study Instance UID", study_instance_uid),
            ("(0020,000E) Series Instance UID", series_instance_uid),
            ("(0008,0018) SOP Instance UID", sop_instance_uid),
        ):
            if not is_valid_uid(uid):
                raise InstanceRefused(f"{tag} is not a valid UID")
        return self.folder / study_instance_uid / series_instance_uid / f"{sop_instance_uid}.dcm"

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
        sync_folder(final.parent)
        return is_new

    def _make_durable_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._durable_folders.discard(folder)
            inner = itertools.takewhile(lambda each: each != self.folder, (folder, *folder.parents))
            for each in reversed(list(inner)):
                each.mkdir(exist_ok=True)
        if folder not in self._durable_folders:
            for parent in folder.parents:
                sync_folder(parent)
                if parent == self.folder:
                    break
            if len(self._durable_folders) >= _MOST_FOLDERS_KNOWN:  # a node runs for years
                self._durable_folders.clear()
            self._durable_folders.add(folder)

    def studies(self) -> list[str]:
        """Study Instance UIDs of what was received, sorted."""
        entries = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return sorted(entry.name for entry in entries if entry.is_dir() and is_valid_uid(entry.name))

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

    def changes(self, study_instance_uid: str) -> dict[str, int]:
        """For each series a number that differs once any receiver gave an instance its place; no clock is asked.

        Raises:
            InstanceRefused: the UID is invalid.
            OSError: the folder cannot be read; one that is not there has no series.
        """
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.study_folder(study_instance_uid)) as entries:
            for entry in entries:
                if is_valid_uid(entry.name):
                    found[entry.name] = entry.stat().st_mtime_ns  # each link into it changes a folder's time
        return found

    def study_bytes(self, study_instance_uid: str) -> int:
        """Bytes of all that was received of the study, what is kept aside included.

        Raises:
            InstanceRefused: the UID is invalid.
        """
        folders = (self.study_folder(study_instance_uid), self._conflicts / study_instance_uid)
        total = 0
        for path in (path for folder in folders for path in folder.rglob("*.dcm")):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += path.stat().st_size
        return total

    def free_bytes(self) -> int:
        """Free bytes of the spool's disk, as an unprivileged process may use them.

        Raises:
            OSError: the disk does not say, or the one that was received to is not there.
        """
        if self._disk.is_found:
            self._disk.check()
            return shutil.disk_usage(self.folder).free
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        return shutil.disk_usage(there).free
