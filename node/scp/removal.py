"""Deleting a study's inputs so that neither an instance that arrives meanwhile nor a kill at any moment loses one.

::

    spool/.deleting/<study>            taken out of the way, not yet looked at again: put back if it is found there
    spool/.deleting/<study>.decided    looked at, its deletion is begun: finished if it is found there

The receiver answers Success only once its folder is still in place after its link: a study that was renamed meanwhile
makes it answer out of resources, and the instance is sent again. Only files that were looked at are deleted, one by
one; what else lies there goes back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.dicom.uids import is_valid_uid
from node.errors import InstanceRefused
from node.scp.spool import data_set_digest

DELETING = ".deleting"
_CONFLICTS = ".conflicts"
_DECIDED = ".decided"
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is of a study: its instances, those kept aside included.

    ``arrived``: when the latest one was written; None: there is none. ``changed``: when the latest
    one of the study itself got its place; None: there is nothing but what was kept aside.
    """

    instances: int
    bytes: int
    arrived: datetime | None
    changed: datetime | None


def studies_held(spool_folder: Path) -> list[str]:
    """Study Instance UIDs of which anything lies in the spool, or aside, or out of the way; sorted."""
    folders = (spool_folder, spool_folder / _CONFLICTS, spool_folder / DELETING)
    return sorted({entry.name for folder in folders for entry in _entries(folder) if is_valid_uid(entry.name)})


def is_held(spool_folder: Path, study_instance_uid: str) -> bool:
    """True if anything of the study may still lie in the spool."""
    return any(folder.exists() for folder in _folders(spool_folder, study_instance_uid))


def is_out_of_the_way(spool_folder: Path, study_instance_uid: str) -> bool:
    """True while it is looked at once more whether the study may go: it may come back."""
    return (spool_folder / DELETING / study_instance_uid).exists()


def contents(spool_folder: Path, study_instance_uid: str) -> Contents:
    """Count what there is of the study."""
    home, away, aside = _folders(spool_folder, study_instance_uid)
    main = [_status(file) for folder in (home, away) for file in _files(folder)]
    found = [status for status in (*main, *map(_status, _files(aside))) if status is not None]
    # a folder's time is that of the latest link into it, which may be later than the file's own
    series = [_status(entry) for folder in (home, away) for entry in _entries(folder) if entry.is_dir()]
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
    """Delete the study; False if by now it holds other than ``expected`` or is needed (then it is back in its place).

    ``is_needed`` is asked with the UID when the study is out of the way: whoever orders it later finds nothing.

    Raises:
        OSError: the file system refused; what is left is taken up by `take_up_leftovers`.
    """
    home, away, aside = _folders(spool_folder, study_instance_uid)
    if home.is_dir():
        away.parent.mkdir(exist_ok=True)
        home.rename(away)
        _sync(spool_folder, away.parent)
    # listed before they are counted: what comes later is not in the list
    judged = [file.relative_to(away) for file in _files(away)]
    judged_aside = _files(aside)
    found = contents(spool_folder, study_instance_uid)
    is_same = (found.instances, found.bytes, found.arrived) == (expected.instances, expected.bytes, expected.arrived)
    is_kept = True
    try:
        is_kept = not is_same or is_needed(study_instance_uid)
    finally:
        if is_kept:  # also if it could not be asked
            _put_back(away, spool_folder, study_instance_uid)
    if is_kept:
        return False
    if away.is_dir():
        decided = away.with_name(away.name + _DECIDED)
        away.rename(decided)
        _sync(away.parent)
        _finish(decided, [decided / file for file in judged], spool_folder, study_instance_uid)
    _delete(aside, judged_aside)
    return True


def take_up_leftovers(spool_folder: Path) -> int:
    """Finish what a kill interrupted, or undo it if nothing was decided; how many studies.

    Raises:
        OSError: the file system refused one or more; the others are settled.
    """

    def settle(entry: Path) -> None:
        uid = entry.name.removesuffix(_DECIDED)
        if entry.name.endswith(_DECIDED):
            _finish(entry, _files(entry), spool_folder, uid)
        else:
            _put_back(entry, spool_folder, uid)

    entries = [each for each in _entries(spool_folder / DELETING) if is_valid_uid(each.name.removesuffix(_DECIDED))]
    _each(settle, entries)
    return len(entries)


def remove_folder(folder: Path) -> None:
    """Delete a folder that nobody writes to as if at once: a kill leaves it whole, or out of the way."""
    away = folder.parent / DELETING / folder.name
    away.parent.mkdir(exist_ok=True)
    if away.exists():
        shutil.rmtree(away)
    folder.rename(away)
    shutil.rmtree(away)


def remove_rest(parent: Path) -> None:
    """Delete what a kill in `remove_folder` left.

    Raises:
        OSError: the file system refused one or more; the others are gone.
    """
    _each(shutil.rmtree, _entries(parent / DELETING))


def _each(settle: Callable[[Path], object], entries: Iterable[Path]) -> None:
    """One that the file system refuses does not hold up the others; the last such refusal is raised."""
    refusal = None
    for entry in entries:
        try:
            settle(entry)
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def _folders(spool_folder: Path, uid: str) -> tuple[Path, Path, Path]:
    return spool_folder / uid, spool_folder / DELETING / uid, spool_folder / _CONFLICTS / uid


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _files(folder: Path) -> list[Path]:
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # moved meanwhile
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
    """Delete ``files``, then the folders below and with ``folder`` that are empty."""
    for file in files:
        file.unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            Path(parent).rmdir()
        except OSError as error:
            if error.errno not in (*_NOT_EMPTY, errno.ENOENT):
                raise


def _finish(decided: Path, judged: Iterable[Path], spool_folder: Path, uid: str) -> None:
    _delete(decided, judged)
    if decided.exists():  # an instance got its place here after all
        _put_back(decided, spool_folder, uid)


def _put_back(away: Path, spool_folder: Path, uid: str) -> None:
    """Move what lies in ``away`` to its place; nothing that is there by now is replaced."""
    home, _, aside = _folders(spool_folder, uid)
    try:
        away.rename(home)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NOT_EMPTY:
            raise
        for file in _files(away):
            _put_file_back(file, home / file.relative_to(away), aside / file.relative_to(away))
        _delete(away, ())
    _sync(spool_folder, away.parent)


def _put_file_back(file: Path, final: Path, aside: Path) -> None:
    if not _linked(file, final) and _digest(file) != _digest(final):
        # other bytes came under the same UID: both are kept, as the receiver does
        _linked(file, aside.with_suffix(f".{_digest(file)[:16]}.dcm"))
    file.unlink()


def _linked(file: Path, final: Path) -> bool:
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, final)
    except FileExistsError:
        return False
    _sync(final.parent, final.parent.parent)
    return True


def _digest(file: Path) -> str:
    try:
        return data_set_digest(file)
    except InstanceRefused:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
