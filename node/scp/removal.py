"""Deletes a study from the spool without losing an instance that arrives meanwhile, even if the process is killed.

::

    spool/.deleting/<study>            moved away, not checked yet: `take_up_leftovers` moves it back
    spool/.deleting/<study>.decided    checked, its deletion has begun: `take_up_leftovers` ends it

The receiver responds with Success only if the study's folder is still in place after the instance is linked: if the
folder was moved meanwhile, it responds with out of resources, and the instance is sent again. Only files that were
counted in the check are deleted, one by one; all others are moved back.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.dicom.uids import is_usable_uid
from node.scp.aside import ASIDE, CONFLICTS, content_digest

DELETING = ".deleting"
_DECIDED = ".decided"
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


@dataclass(frozen=True, slots=True)
class Contents:
    """The instances of a study in the spool, versions that are not in use included (`node.scp.aside`).

    ``arrived``: when the latest instance was written; None: there is none. ``changed``: when the latest instance in use
    was linked into the study; None: none is in use.
    """

    instances: int
    bytes: int
    arrived: datetime | None
    changed: datetime | None


def received_studies(spool_folder: Path) -> list[str]:
    """Study Instance UIDs of the received studies, sorted."""
    entries = spool_folder.iterdir() if spool_folder.is_dir() else iter(())
    return sorted(entry.name for entry in entries if entry.is_dir() and is_usable_uid(entry.name))


def studies_held(spool_folder: Path) -> list[str]:
    """Study Instance UIDs with a folder in the spool, among versions not in use, or in its deletions; sorted."""
    folders = (spool_folder, *(spool_folder / name for name in (*ASIDE, DELETING)))
    return sorted({entry.name for folder in folders for entry in _entries(folder) if is_usable_uid(entry.name)})


def is_held(spool_folder: Path, study_instance_uid: str) -> bool:
    """True if the spool may still hold a file of the study."""
    return any(folder.exists() for folder in _folders(spool_folder, study_instance_uid))


def is_moved_for_deletion(spool_folder: Path, study_instance_uid: str) -> bool:
    """True while the study is moved away and checked before its deletion; it may be moved back."""
    return (spool_folder / DELETING / study_instance_uid).exists()


def contents(spool_folder: Path, study_instance_uid: str) -> Contents:
    """Count the instances of the study."""
    study_folder, away, *aside = _folders(spool_folder, study_instance_uid)
    main = [_status(file) for folder in (study_folder, away) for file in _files(folder)]
    found = [status for status in (*main, *map(_status, _all_files(aside))) if status is not None]
    # the folder's time is that of the latest link, which may be later than the file's own time
    series = [_status(entry) for folder in (study_folder, away) for entry in _entries(folder) if entry.is_dir()]
    changed = [status.st_mtime for status in (*main, *series) if status is not None]
    return Contents(
        instances=len(found),
        bytes=sum(status.st_size for status in found),
        arrived=_moment([status.st_mtime for status in found]),
        changed=_moment(changed),
    )


def remove_study(
    spool_folder: Path, study_instance_uid: str, expected: Contents, is_needed: Callable[[str], bool]
) -> bool:
    """Delete the study. False, with the study moved back, if its contents are not ``expected`` or it is needed.

    ``is_needed`` is called with the UID when the study is moved away: a request created later finds no instance.

    Raises:
        OSError: the file system refused; `take_up_leftovers` finishes or undoes the deletion.
    """
    study_folder, away, *aside = _folders(spool_folder, study_instance_uid)
    if study_folder.is_dir():
        away.parent.mkdir(exist_ok=True)
        study_folder.rename(away)
        _sync(spool_folder, away.parent)
    # listed before they are counted: a file that comes later is not in the list
    checked = [file.relative_to(away) for file in _files(away)]
    checked_aside = _all_files(aside)
    found = contents(spool_folder, study_instance_uid)
    is_same = (found.instances, found.bytes, found.arrived) == (expected.instances, expected.bytes, expected.arrived)
    is_kept = True
    try:
        is_kept = not is_same or is_needed(study_instance_uid)
    finally:
        if is_kept:  # also if is_needed raised
            _put_back(away, spool_folder, study_instance_uid)
    if is_kept:
        return False
    if away.is_dir():
        decided = away.with_name(away.name + _DECIDED)
        away.rename(decided)
        _sync(away.parent)
        _finish(decided, [decided / file for file in checked], spool_folder, study_instance_uid)
    for folder in aside:
        _delete(folder, [file for file in checked_aside if file.is_relative_to(folder)])
    return True


def take_up_leftovers(spool_folder: Path) -> int:
    """Finish each deletion that a crash interrupted, or undo it if it was not decided; returns the number of studies.

    Raises:
        OSError: the file system refused for one or more studies; the others are done.
    """

    def settle(entry: Path) -> None:
        uid = entry.name.removesuffix(_DECIDED)
        if entry.name.endswith(_DECIDED):
            _finish(entry, _files(entry), spool_folder, uid)
        else:
            _put_back(entry, spool_folder, uid)

    entries = [each for each in _entries(spool_folder / DELETING) if is_usable_uid(each.name.removesuffix(_DECIDED))]
    _each(settle, entries)
    return len(entries)


def remove_folder(folder: Path) -> None:
    """Delete a folder that no process writes to. A crash leaves it complete, or moved away for `remove_rest`."""
    away = folder.parent / DELETING / folder.name
    away.parent.mkdir(exist_ok=True)
    if away.exists():
        shutil.rmtree(away)
    folder.rename(away)
    shutil.rmtree(away)


def remove_rest(parent: Path) -> None:
    """Delete the folders that a crash in `remove_folder` left.

    Raises:
        OSError: the file system refused for one or more folders; the others are deleted.
    """
    _each(shutil.rmtree, _entries(parent / DELETING))


def _each(settle: Callable[[Path], object], entries: Iterable[Path]) -> None:
    """Call ``settle`` for each entry; the last OSError is raised when all entries were tried."""
    refusal = None
    for entry in entries:
        try:
            settle(entry)
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _folders(spool_folder: Path, uid: str) -> tuple[Path, ...]:
    """The study's folder, that of its deletion, and those of its versions not in use."""
    return (spool_folder / uid, spool_folder / DELETING / uid, *(spool_folder / name / uid for name in ASIDE))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def _all_files(folders: Iterable[Path]) -> list[Path]:
    return [file for folder in folders for file in _files(folder)]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # moved or deleted meanwhile
        return None


def _moment(times: list[float]) -> datetime | None:
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _sync(*folders: Path) -> None:
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete(folder: Path, files: Iterable[Path]) -> None:
    """Delete ``files``, then ``folder`` and the folders in it as far as they are empty."""
    for file in files:
        file.unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            Path(parent).rmdir()
        except OSError as error:
            if error.errno not in (*_NOT_EMPTY, errno.ENOENT):
                raise


def _finish(decided: Path, checked: Iterable[Path], spool_folder: Path, uid: str) -> None:
    _delete(decided, checked)
    if decided.exists():  # an instance was linked into it meanwhile
        _put_back(decided, spool_folder, uid)


def _put_back(away: Path, spool_folder: Path, uid: str) -> None:
    """Move the files of ``away`` back into the study; a file that exists there is not replaced."""
    study_folder, conflicts = spool_folder / uid, spool_folder / CONFLICTS / uid
    try:
        away.rename(study_folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NOT_EMPTY:
            raise
        for file in _files(away):
            _put_file_back(file, study_folder / file.relative_to(away), conflicts / file.relative_to(away))
        _delete(away, ())
    _sync(spool_folder, away.parent)


def _put_file_back(file: Path, final: Path, conflict: Path) -> None:
    if not _linked(file, final) and content_digest(file) != content_digest(final):
        # both are kept, and the administrator decides: this one may be older or newer than what arrived meanwhile
        _linked(file, conflict.with_suffix(f".{content_digest(file)[:16]}.dcm"))
    file.unlink()


def _linked(file: Path, final: Path) -> bool:
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, final)
    except FileExistsError:
        return False
    _sync(final.parent, final.parent.parent)
    return True
