"""What becomes of other bytes under a SOP Instance UID that the spool holds already.

An archive that corrects an identity sends the same image under the same UID with other patient or study attributes: a
*correction*, which takes the place of the instance in use. Another image under a known UID is a *conflict*: it is kept
aside until the administrator decides (`take`, `keep`).

Old bytes never come back by themselves, nor the same image and identity encoded otherwise. An instance that a
correction has superseded may be sent again by whoever still holds it, a scanner or a second archive, say; the identity
would swing back and forth with the order of sending. It becomes a conflict once, because the correction itself may have
been the error; after the administrator's decision it is acknowledged and kept, but no longer told.

The same holds for a version that arrives after its own correction, if the headers tell that it is older
(`node.dicom.original_attributes`). Where they do not, the version that arrives last is the correction.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog

from node.dicom.same_image import Comparison, Likeness, compare
from node.errors import StorageError
from node.scp.aside import (
    CONFLICTS,
    DISMISSED,
    SUPERSEDED,
    Version,
    aside_path,
    content_digest,
    holds_data_set,
    versions,
    versions_of,
)
from node.scp.disk import sync_folder
from node.scp.durable import DurableNames

log = structlog.get_logger()

LOCK = ".corrections.lock"
"""Name of the file in the spool that is locked while an instance is replaced."""


class StoreOutcome(StrEnum):
    """The result of `node.scp.spool.Spool.keep`; in each case the bytes are on disk when it is returned."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CORRECTION = "correction"
    """It took the place of the instance in use, which is kept aside."""
    CONFLICT = "conflict"
    """It is kept aside until the administrator decides."""
    DISMISSED = "dismissed"
    """It is kept aside for good: the same image and identity in other bytes, or the administrator decided so."""


@dataclass(frozen=True, slots=True)
class OpenConflict:
    """A version that waits for a decision. ``differs``: keywords, never values; ``is_returned``: it was superseded.

    ``is_older``: the header of the one in use shows that it is the correction of this one.
    """

    version: Version
    arrived: datetime
    differs: tuple[str, ...]
    is_returned: bool
    is_older: bool


@dataclass(frozen=True, slots=True)
class Correction:
    """A version that was in use.

    ``arrived``: when it arrived itself; ``replaced``: when what is in use now arrived, None if nothing is.
    ``differs``: keywords by which it differs from that, never values.
    """

    version: Version
    arrived: datetime
    differs: tuple[str, ...]
    replaced: datetime | None


class Corrections:
    """Decides between versions of an instance. Safe for many threads, and for many processes on one file system."""

    def __init__(self, folder: Path, names: DurableNames | None = None) -> None:
        self._spool = folder
        self._names = names or DurableNames(folder)
        self._conflicts, self._superseded, self._dismissed = (
            folder / name for name in (CONFLICTS, SUPERSEDED, DISMISSED)
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock: of two corrections of one instance, each must see the other's, or one would be lost."""
        with (self._spool / LOCK).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:  # a file system without locks: then one receiver only may be in charge
                log.warning("spool_not_locked", reason=error.strerror)
            yield

    def settle(self, arrived: Path, digest: str, in_use: Path) -> StoreOutcome:
        """Keep the complete and synced file ``arrived``, whose bytes are not those ``in_use`` under its UID.

        Raises:
            OSError: the disk refuses, or retention has moved the study away meanwhile; to be sent again.
        """
        with self._alone():
            if holds_data_set(in_use, digest):  # another receiver was faster
                sync_folder(in_use.parent)
                return StoreOutcome.DUPLICATE
            outcome, found = self._judge(arrived, digest, in_use)
            if outcome is StoreOutcome.CORRECTION:
                self._replace(arrived, in_use, is_other_image=False)
            elif outcome is StoreOutcome.CONFLICT:
                self._tell(arrived, digest, in_use)
            else:
                self._names.link(arrived, aside_path(self._dismissed, in_use, digest))
        study, series = in_use.parts[-3:-1]
        uids = {"study_instance_uid": study, "series_instance_uid": series, "sop_instance_uid": in_use.stem}
        log.warning(f"instance_{outcome}", **uids, differs=list(found.differs) if found else ["sent again"])
        return outcome

    def _judge(self, arrived: Path, digest: str, in_use: Path) -> tuple[StoreOutcome, Comparison | None]:
        """What the bytes ``arrived`` are, and how they compare; None: they were there before."""
        if aside_path(self._dismissed, in_use, digest).exists():
            is_told = self._is_like_superseded(arrived, digest, in_use)
            return StoreOutcome.CONFLICT if is_told else StoreOutcome.DISMISSED, None
        known = [aside_path(self._conflicts, in_use, digest)]
        known += [aside_path(self._superseded, in_use, digest, is_other_image) for is_other_image in (False, True)]
        if any(path.exists() for path in known):
            return StoreOutcome.CONFLICT, None
        found = compare(in_use, arrived)
        is_older = found.newer == in_use or self._is_like_superseded(arrived, digest, in_use)
        if found.likeness is Likeness.CORRECTED and is_older:
            return StoreOutcome.CONFLICT, found
        outcomes = {
            Likeness.SAME: StoreOutcome.DISMISSED,
            Likeness.CORRECTED: StoreOutcome.CORRECTION,
            Likeness.OTHER: StoreOutcome.CONFLICT,
        }
        return outcomes[found.likeness], found

    def _is_like_superseded(self, arrived: Path, digest: str, in_use: Path) -> bool:
        """True if these bytes, which were never in use, hold an image and identity that are superseded."""
        known = versions_of(self._superseded, in_use)
        if not known or any(each.digest == digest[: len(each.digest)] for each in known):
            return False
        if compare(in_use, arrived).likeness is Likeness.SAME:
            return False
        return any(compare(each.path, arrived).likeness is Likeness.SAME for each in known)

    def _tell(self, arrived: Path, digest: str, in_use: Path) -> None:
        """Keep ``arrived`` until the administrator decides.

        If it is equal to what is superseded, it counts as superseded, too: so it is told once.
        """
        is_superseded = self._is_like_superseded(arrived, digest, in_use)
        self._names.link(arrived, aside_path(self._conflicts, in_use, digest))
        if is_superseded:
            self._names.link(arrived, aside_path(self._superseded, in_use, digest))
            aside_path(self._dismissed, in_use, digest).unlink(missing_ok=True)

    def _replace(self, file: Path, in_use: Path, is_other_image: bool) -> None:
        """Put ``file`` in the place of ``in_use``, which gets a name aside first."""
        old = aside_path(self._superseded, in_use, content_digest(in_use), is_other_image)
        self._names.link(in_use, old)
        self._names.replace(file, in_use)

    def in_use(self, version: Version) -> Path:
        """The file that is in use under the UIDs of ``version``."""
        folder = self._spool / version.study_instance_uid / version.series_instance_uid
        return folder / f"{version.sop_instance_uid}.dcm"

    def open_conflicts(self, study_instance_uid: str | None = None) -> list[OpenConflict]:
        """Every open conflict, of one study or of all.

        Raises:
            OSError: a file cannot be read.
        """
        found = []
        for version in versions(self._conflicts, study_instance_uid):
            with suppress(FileNotFoundError):  # decided or deleted meanwhile
                differs, newer = self._compared(version)
                is_older, was_in_use = newer == self.in_use(version), self._was_in_use(version)
                found.append(OpenConflict(version, _arrived(version.path), differs, was_in_use, is_older))
        return found

    def corrections(self, study_instance_uid: str | None = None) -> list[Correction]:
        """Every version that was in use, of one study or of all, the oldest first.

        Raises:
            OSError: a file cannot be read.
        """
        found = []
        for version in versions(self._superseded, study_instance_uid):
            with suppress(FileNotFoundError):
                in_use = self.in_use(version)
                replaced = _arrived(in_use) if in_use.exists() else None
                found.append(Correction(version, _arrived(version.path), self._compared(version)[0], replaced))
        return sorted(found, key=lambda each: each.arrived)

    def _compared(self, version: Version) -> tuple[tuple[str, ...], Path | None]:
        """By what the version differs from the one in use, and which is newer; empty if none is in use any more."""
        in_use = self.in_use(version)
        found = compare(in_use, version.path) if in_use.exists() else None
        return ((), None) if found is None else (found.differs, found.newer)

    def _was_in_use(self, version: Version) -> bool:
        in_use = self.in_use(version)
        return any(aside_path(self._superseded, in_use, version.digest, each).exists() for each in (False, True))

    def take(self, version: Version) -> None:
        """Use a version that waits for a decision; the one in use is kept aside. A second call does nothing.

        Raises:
            StorageError: the instance in use is gone.
            OSError: the disk refuses.
        """
        with self._alone():
            in_use = self.in_use(version)
            if not version.path.exists():
                return
            if not in_use.exists():
                raise StorageError(f"instance {version.sop_instance_uid} is not in the spool any more")
            is_other_image = compare(in_use, version.path).likeness is Likeness.OTHER
            self._replace(version.path, in_use, is_other_image)
            for each in (False, True):  # it is in use again
                aside_path(self._superseded, in_use, version.digest, each).unlink(missing_ok=True)
        log.warning("conflict_taken", **_uids(version))

    def keep(self, version: Version) -> None:
        """Go on with the instance in use; the version is dismissed. A second call does nothing.

        Raises:
            OSError: the disk refuses.
        """
        with self._alone():
            if not version.path.exists():
                return
            self._names.link(version.path, aside_path(self._dismissed, self.in_use(version), version.digest))
            version.path.unlink()
            sync_folder(version.path.parent)
        log.warning("conflict_kept_out", **_uids(version))


def _uids(version: Version) -> dict[str, str]:
    return {"study_instance_uid": version.study_instance_uid, "sop_instance_uid": version.sop_instance_uid}


def _arrived(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
