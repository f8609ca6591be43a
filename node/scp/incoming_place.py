"""The folder in which one receiver writes instances as they arrive; locked by it, and emptied after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import structlog

from node.errors import ConfigError

log = structlog.get_logger()

_LOCK = "lock"
_LEFTOVER_SECONDS = 3600.0  # a peer silent for so long was disconnected: no association still writes to the file


class IncomingPlace:
    """``<spool>/.incoming/<receiver>``, which a running receiver holds locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def make(self) -> None:
        """Create the folder, but never the spool's, whose absence may mean that its disk is not mounted.

        Raises:
            OSError: the folder cannot be created.
        """
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(exist_ok=True)

    def claim(self) -> int:
        """Lock the folder until `release`, and delete the files that a crash left, which were never acknowledged.

        Returns how many files were deleted. Files that another receiver of a shared spool is writing stay.

        Raises:
            ConfigError: another process holds the lock.
            OSError: the disk refuses.
        """
        self.make()
        self._lock = _locked(self.folder / _LOCK)
        if self._lock is None:
            raise ConfigError(f"node.folder: the receiver {self.folder.name} runs already, on {self.folder.parents[1]}")
        count = 0
        for folder in sorted(self.folder.parent.iterdir()):
            with contextlib.suppress(OSError):  # deleted meanwhile, in use, or not a folder
                count += _emptied(folder) if folder == self.folder else _removed_if_dead(folder)
        return count

    def release(self) -> None:
        """Let another process lock the folder. A second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _removed_if_dead(folder: Path) -> int:
    """Delete old files, then the folder, of a receiver that does not run; returns the number of files deleted.

    Younger files stay because not every shared file system shows the locks of other machines.
    """
    lock = _locked(folder / _LOCK)
    if lock is None:
        return 0
    try:
        count = _emptied(folder, _LEFTOVER_SECONDS)
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()
        return count
    finally:
        os.close(lock)


def _emptied(folder: Path, least_seconds: float | None = None) -> int:
    """Delete the files that were not written to for ``least_seconds``; returns their number."""
    count = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # deleted meanwhile
            if path.name != _LOCK and (least_seconds is None or time.time() - path.stat().st_mtime >= least_seconds):
                path.unlink()
                count += 1
    return count


def _locked(file: Path) -> int | None:
    """Lock a file until the descriptor returned is closed or the process ends; None if another process locked it.

    The file is created if it does not exist.

    Raises:
        OSError: the file cannot be created.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:  # a file system without locks
            log.warning("spool_not_locked", reason=error.strerror)
            return descriptor
        try:
            if file.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # the process that held the lock deleted the file
