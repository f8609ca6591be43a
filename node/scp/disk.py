"""The disk that the spool lies on, recognized again: nothing is written into the bare folder below its mount point."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import structlog

from node.errors import ConfigError

log = structlog.get_logger()

_NAME_FILE = ".spool-id"


class SpoolDisk:
    """Remembers where the spool is once it was found.

    The spool's folder holds a name of its own, by which it is known again when it is mounted anew. If it is on another
    disk than the folder around it, that folder holds the name, too: a start before the mount is then told from a first
    start, and from one after somebody emptied the spool by hand.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._device: int | None = None
        self._name = ""

    @property
    def is_found(self) -> bool:
        """True once the spool was found."""
        return self._device is not None

    def refuse_bare_folder(self) -> None:
        """Nothing is changed.

        Raises:
            ConfigError: the spool was on a disk of its own, which is not there.
        """
        record = self._folder.parent / _NAME_FILE
        name = _read(record)
        if name and not self._is_apart() and _read(self._folder / _NAME_FILE) != name:
            raise ConfigError(
                f"node.folder: {self._folder} was on a disk of its own, which is not mounted"
                f" (if it is to be there no longer, delete {record})"
            )

    def find(self) -> None:
        """Make the spool's folder if it is not there, and remember its disk until the process ends.

        Raises:
            OSError: it cannot be made.
        """
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        for created in missing:
            sync_folder(created.parent)
        self._device = self._folder.stat().st_dev

    def give_name(self) -> None:
        """Let the spool be known again by its name, now and at later starts.

        Raises:
            OSError: the disk did not take it.
        """
        self._name = _read(self._folder / _NAME_FILE) or _write(self._folder / _NAME_FILE, uuid.uuid4().hex)
        if self._is_apart() and _read(self._folder.parent / _NAME_FILE) != self._name:
            (self._folder.parent / _NAME_FILE).unlink(missing_ok=True)
            _write(self._folder.parent / _NAME_FILE, self._name)

    def check(self) -> None:
        """To be called before anything is written; until it was found there is nothing to compare.

        Raises:
            OSError: the spool is not where it was found.
        """
        device = self._folder.stat().st_dev
        if self._device in (None, device):
            return
        if not self._name or _read(self._folder / _NAME_FILE) != self._name:
            raise OSError(errno.ESTALE, "the spool's disk is not mounted")
        log.warning("spool_mounted_anew")
        self._device = device

    def _is_apart(self) -> bool:
        return self._folder.exists() and self._folder.stat().st_dev != self._folder.parent.stat().st_dev


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return ""


def _write(file: Path, name: str) -> str:
    """Write durably, unless another was faster; what the file holds then."""
    written = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        with written.open("x", encoding="ascii") as stream:
            stream.write(name)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(written, file)
        except FileExistsError:
            return _read(file)
        sync_folder(file.parent)
        return name
    finally:
        written.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make durable what the folder names.

    Raises:
        OSError: the disk did not take it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
