"""The spool: instances on disk as received, durable before they are acknowledged.

::

    <folder>/<study>/<series>/<sop>.dcm   each instance once, in the version that is in use
    <folder>/.conflicts/, .superseded/, .dismissed/   other versions of instances (see `node.scp.aside`)
    <folder>/.withdrawn/                  what is no longer input (see `node.scp.withdrawals`)
    <folder>/.incoming/<receiver>/        being written; deleted after a crash
    <folder>/.spool-id                    random ID, by which a receiver recognizes the spool

The spool alone records which instances were received: nothing else needs to survive a restart. Names are the UIDs as
received: what can be no UID never becomes a path. Leading zeros harm no path; whether to take them is decided before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from node.dicom.uids import is_usable_uid
from node.errors import InstanceRefused
from node.scp.aside import ASIDE, CONFLICTS, holds_data_set, versions
from node.scp.corrections import Corrections, StoreOutcome
from node.scp.disk import SpoolDisk
from node.scp.durable import DurableNames
from node.scp.incoming import IncomingFile
from node.scp.incoming_place import IncomingPlace
from node.scp.rejection_note import RejectionNote
from node.scp.removal import received_studies
from node.scp.withdrawals import Withdrawals

__all__ = ["Spool", "StoreOutcome"]


class Spool:
    """Instances by study and series. Safe for many threads, and for many processes on one file system.

    ``receiver`` names the receiver that writes, because several may share the folder: each has its own folder in
    ``.incoming``. Methods that only read change nothing, and treat an absent spool as empty.
    """

    def __init__(self, folder: Path, receiver: str = "receiver") -> None:
        self.folder = folder
        self._disk = SpoolDisk(folder)
        self._incoming = IncomingPlace(folder / ".incoming" / receiver)
        self._names = DurableNames(folder)
        self.corrections = Corrections(folder, self._names)
        self.withdrawals = Withdrawals(folder, self._names)

    def begin(self) -> int:
        """Prepare the spool for receiving, until `end`; returns how many files of a crashed receiver were deleted.

        Raises:
            ConfigError: the spool's disk is not mounted, or this receiver runs already.
            OSError: the disk refuses.
        """
        self._disk.check_mounted()
        self._disk.find()
        self._disk.ensure_spool_id()
        return self._incoming.claim()

    def end(self) -> None:
        """Let another process receive under this name. A second call does nothing."""
        self._incoming.release()

    def rehearse(self) -> None:
        """Try the operations that receiving needs on the disk; leaves folders, but no file.

        Raises:
            ConfigError: the spool's disk is not mounted.
            OSError: the disk refuses.
        """
        self._disk.check_mounted()
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
        """A new file for an instance that begins to arrive. ``head``: its preamble and file meta.

        Raises:
            OSError: the disk did not take the file, or is not mounted; no file is left.
        """
        if not self._disk.is_found:
            self._disk.find()
        self._disk.check()
        path = self._incoming.folder / uuid.uuid4().hex
        try:
            return IncomingFile(path, head)
        except FileNotFoundError:  # not created yet, or deleted by another receiver
            self._incoming.make()
            return IncomingFile(path, head)

    def keep(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, incoming: IncomingFile
    ) -> StoreOutcome:
        """Link a complete file into its study; when this returns, the instance survives a power cut.

        The caller discards ``incoming``.

        Raises:
            InstanceRefused: a UID is invalid; the message names its tag.
            OSError: the disk did not take the file, or is not mounted.
        """
        final = self.instance_path(study_instance_uid, series_instance_uid, sop_instance_uid)
        self._disk.check()
        incoming.sync()
        if self._link(incoming.path, final):
            outcome = StoreOutcome.STORED
        elif holds_data_set(final, incoming.digest):
            outcome = StoreOutcome.DUPLICATE
        else:
            outcome = self.corrections.settle(incoming.path, incoming.digest, final)
        self.withdrawals.note_arrival(study_instance_uid, sop_instance_uid, outcome)
        return outcome

    def keep_document(
        self, study_instance_uid: str, sop_instance_uid: str, incoming: IncomingFile, note: RejectionNote | None
    ) -> None:
        """Keep a Key Object Selection, which is no image of the study, and withdraw what it rejects; durably.

        Raises:
            InstanceRefused: a UID is invalid; the message names its tag.
            OSError: the disk did not take the file, or is not mounted.
        """
        self.instance_path(study_instance_uid, study_instance_uid, sop_instance_uid)
        self._disk.check()
        incoming.sync()
        self.withdrawals.keep_document(incoming.path, (study_instance_uid, sop_instance_uid), incoming.digest, note)

    def holds(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, incoming: IncomingFile
    ) -> bool:
        """True if the spool already holds the same data set under these UIDs.

        Raises:
            InstanceRefused: a UID is invalid; the message names its tag.
        """
        final = self.instance_path(study_instance_uid, series_instance_uid, sop_instance_uid)
        return final.exists() and holds_data_set(final, incoming.digest)

    def instance_path(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Path:
        for tag, uid in (
            ("(0020,000D) Study Instance UID", study_instance_uid),
            ("(0020,000E) Series Instance UID", series_instance_uid),
            ("(0008,0018) SOP Instance UID", sop_instance_uid),
        ):
            if not is_usable_uid(uid):
                raise InstanceRefused(f"{tag} is not a valid UID")
        return self.folder / study_instance_uid / series_instance_uid / f"{sop_instance_uid}.dcm"

    def _link(self, incoming: Path, final: Path) -> bool:
        """Link the file to ``final``, durably; False if that exists."""
        return self._names.link(incoming, final)

    def studies(self) -> list[str]:
        """Study Instance UIDs of the received studies, sorted."""
        return received_studies(self.folder)

    def study_folder(self, study_instance_uid: str) -> Path:
        """The folder of the study, whether or not an instance of it was received.

        Raises:
            InstanceRefused: the UID is invalid.
        """
        if not is_usable_uid(study_instance_uid):
            raise InstanceRefused("(0020,000D) Study Instance UID is not a valid UID")
        return self.folder / study_instance_uid

    def series_folders(self, study_instance_uid: str) -> list[Path]:
        """Folders of the study's series, named by Series Instance UID, sorted; empty if no instance was received."""
        folder = self.study_folder(study_instance_uid)
        return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def changes(self, study_instance_uid: str) -> dict[str, int]:
        """For each series a number that changes whenever any receiver links an instance into it.

        The numbers are to be compared with each other, never with a clock. An absent folder has no series.

        Raises:
            InstanceRefused: the UID is invalid.
            OSError: the folder cannot be read.
        """
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.study_folder(study_instance_uid)) as entries:
            for entry in entries:
                if is_usable_uid(entry.name):
                    found[entry.name] = entry.stat().st_mtime_ns  # each new link changes the folder's modification time
        return found

    def study_bytes(self, study_instance_uid: str) -> int:
        """Bytes of all received files of the study, versions that are not in use included.

        Raises:
            InstanceRefused: the UID is invalid.
        """
        folders = (self.study_folder(study_instance_uid), *(self.folder / name / study_instance_uid for name in ASIDE))
        total = 0
        for path in (path for folder in folders for path in folder.rglob("*.dcm")):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += path.stat().st_size
        return total

    def count_open_conflicts(self) -> int:
        """How many versions of instances wait for the administrator's decision."""
        return sum(1 for _ in versions(self.folder / CONFLICTS))

    def free_bytes(self) -> int:
        """Free bytes of the spool's disk, as an unprivileged process may use them.

        Raises:
            OSError: the free space cannot be read, or the spool's disk is not mounted any more.
        """
        if self._disk.is_found:
            self._disk.check()
            return shutil.disk_usage(self.folder).free
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        return shutil.disk_usage(there).free
