"""Recognizes the spool's disk, so that nothing is written into the empty folder of a mount point without its disk."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import structlog

from node.errors import ConfigError

log = structlog.get_logger()

_ID_FILE = ".spool-id"


class SpoolDisk:
    """Remembers the device of the spool's folder, and recognizes the spool by its ID.

    The spool's folder holds a random ID, by which the spool is recognized when it is mounted again. If the spool is on
    another disk than its parent folder, the parent holds the ID, too: this tells a start before the mount from a first
    start, and from a start after somebody emptied the spool by hand.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._device: int | None = None
        self._spool_id = ""

    @property
    def is_found(self) -> bool:
        """True once `find` has succeeded."""
        return self._device is not None

    def check_mounted(self) -> None:
        """Check that the spool's disk is mounted; changes nothing.

        Raises:
            ConfigError: the spool was on a disk of its own, which is not mounted.
        """
        record = self._folder.parent / _ID_FILE
        spool_id = _read(record)
        if spool_id and not self._is_on_own_disk() and _read(self._folder / _ID_FILE) != spool_id:
            raise ConfigError(
                f"node.folder: {self._folder} was on a disk of its own, which is not mounted"
                f" (if it is to be there no longer, delete {record})"
            )

    def find(self) -> None:
        """Create the spool's folder if it does not exist, and remember its device until the process ends.

        Raises:
            OSError: the folder cannot be created.
        """
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        for created in missing:
            sync_folder(created.parent)
        self._device = self._folder.stat().st_dev

    def ensure_spool_id(self) -> None:
        """Read or create the spool's ID, and record it in the parent folder if that is on another disk.

        Raises:
            OSError: the disk refuses.
        """
        self._spool_id = _read(self._folder / _ID_FILE) or _write(self._folder / _ID_FILE, uuid.uuid4().hex)
        if self._is_on_own_disk() and _read(self._folder.parent / _ID_FILE) != self._spool_id:
            (self._folder.parent / _ID_FILE).unlink(missing_ok=True)
            _write(self._folder.parent / _ID_FILE, self._spool_id)

    def check(self) -> None:
        """Check, before each write, that the folder is still the spool; passes if `find` was not called yet.

        Raises:
            OSError: the folder is on another device and does not hold the spool's ID.
        """
        device = self._folder.stat().st_dev
        if self._device in (None, device):
            return
        if not self._spool_id or _read(self._folder / _ID_FILE) != self._spool_id:
            raise OSError(errno.ESTALE, "the spool's disk is not mounted")
        log.warning("spool_mounted_anew")
        self._device = device

    def _is_on_own_disk(self) -> bool:
        return self._folder.exists() and self._folder.stat().st_dev != self._folder.parent.stat().st_dev


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return ""


def _write(file: Path, spool_id: str) -> str:
    """Write ``spool_id`` durably unless the file exists; returns the content of the file."""
    written = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        with written.open("x", encoding="ascii") as stream:
            stream.write(spool_id)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(written, file)
        except FileExistsError:
            return _read(file)
        sync_folder(file.parent)
        return spool_id
    finally:
        written.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
