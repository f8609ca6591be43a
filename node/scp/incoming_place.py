"""Where one receiver's instances arrive: claimed by it alone, and tidied after a crash."""

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
_STRANGE_SECONDS = 3600.0  # a peer that sends nothing for so long was let go: what a dead receiver left may be deleted


class IncomingPlace:
    """``<spool>/.incoming/<receiver>``. Its lock is held by the receiver that is at work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def make(self) -> None:
        """Make the folder, but never the spool's own, which may be that of a mount point without its disk.

        Raises:
            OSError: the disk did not take it.
        """
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(exist_ok=True)

    def claim(self) -> int:
        """Be the only one here until `release`, and delete what a crash left, which was never acknowledged: how many
        files. What another receiver of a shared spool is just writing stays.

        Raises:
            ConfigError: another process is at work here.
            OSError: the disk refuses.
        """
        self.make()
        self._lock = _locked(self.folder / _LOCK)
        if self._lock is None:
            raise ConfigError(f"node.folder: the receiver {self.folder.name} runs already, on {self.folder.parents[1]}")
        count = 0
        for folder in sorted(self.folder.parent.iterdir()):
            with contextlib.suppress(OSError):  # gone, in use, or no folder
                count += _emptied(folder) if folder == self.folder else _removed_if_dead(folder)
        return count

    def release(self) -> None:
        """Another may work here. More than once is no error."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _removed_if_dead(folder: Path) -> int:
    """Delete a receiver's place if it is gone, except what is young: not every shared disk tells of others' locks."""
    lock = _locked(folder / _LOCK)
    if lock is None:
        return 0
    try:
        count = _emptied(folder, _STRANGE_SECONDS)
        if [path.name for path in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink()
            folder.rmdir()
        return count
    finally:
        os.close(lock)


def _emptied(folder: Path, least_seconds: float | None = None) -> int:
    """Delete the files that were not written to for so long; how many."""
    count = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # deleted meanwhile
            if path.name != _LOCK and (least_seconds is None or time.time() - path.stat().st_mtime >= least_seconds):
                path.unlink()
                count += 1
    return count


def _locked(file: Path) -> int | None:
    """Lock a file, made if need be, until the descriptor returned is closed or its process ends; None if it is locked.

    Raises:
        OSError: the file cannot be made.
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
        os.close(descriptor)  # whoever held it deleted the file
