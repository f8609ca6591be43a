"""Instances that are no longer input, although they are in the spool or may still arrive.

::

    <spool>/.withdrawn/<study>/<note>.<digest>.dcm           a Key Object Selection of the study, kept as received
    <spool>/.withdrawn/<study>/<reason>.json                 instances of the study that are withdrawn, and why
    <spool>/.withdrawn/<study>/moved-<sop>-<n>.json          the same of one that moved; the first without <n>
    <spool>/.withdrawn/<study>/restored/<reason>/<sop>       one of them that is input again

A withdrawn instance keeps its place in the spool, but no request uses it. What an instance that arrives after the note
is, depends on the note:

- *quality*, *patient safety*: it stays withdrawn, in whatever version. A corrected image gets a new UID.
- *wrong worklist entry*: it stays withdrawn, unless it is a correction of the instance in use: the same image under
  another identity, which is what such a note announces.
- *retention expired*: it is input again. Nothing is wrong with it; its archive only deleted it.

An instance that moved to another study is input again once it is sent to this one again; the other study then loses it
(`node.scp.moved`). It may move to and fro any number of times.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from node.scp.aside import SUPERSEDED, WITHDRAWN, versions
from node.scp.corrections import StoreOutcome
from node.scp.disk import sync_folder
from node.scp.durable import DurableNames
from node.scp.rejection_note import EXPIRED, REJECTIONS, WRONG_WORKLIST_ENTRY, RejectionNote

log = structlog.get_logger()

MOVED = "moved"
"""The reason of an instance that arrived again in another study."""

_RESTORED = "restored"
_WEAKEST_FIRST = (EXPIRED, MOVED, WRONG_WORKLIST_ENTRY, *(code for code in REJECTIONS if code not in (EXPIRED,)))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Why an instance is no longer input. ``reason``: a code of `REJECTIONS`, or `MOVED`.

    ``source``: SOP Instance UID of the note, or the study that the instance moved to.
    """

    series_instance_uid: str
    sop_instance_uid: str
    reason: str
    source: str
    since: datetime

    @property
    def text(self) -> str:
        """The reason in words."""
        if self.reason == MOVED:
            return f"moved to study {self.source}"
        return f"{REJECTIONS[self.reason]} ({self.reason}), by note {self.source}"


def withdrawals_of(
    spool_folder: Path, study_instance_uid: str, sop_instance_uid: str | None = None
) -> dict[str, Withdrawal]:
    """SOP Instance UID to the withdrawal of each withdrawn instance of the study, whether it is in the spool or not.

    ``sop_instance_uid``: the one that is looked for; records of other instances that moved need not be read.

    Raises:
        OSError: a record cannot be read.
    """
    folder = spool_folder / WITHDRAWN / study_instance_uid
    found: list[Withdrawal] = []
    for file in sorted(folder.glob("*.json")):
        if sop_instance_uid and _moved_instance(file) not in (None, sop_instance_uid):
            continue
        record = json.loads(file.read_text("utf-8"))
        since = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        restored = {each.name for each in (folder / _RESTORED / file.stem).glob("*")}
        found += [
            Withdrawal(series, sop, record["reason"], record["source"], since)
            for sop, series in record["instances"].items()
            if sop not in restored
        ]
    found.sort(key=lambda each: _WEAKEST_FIRST.index(each.reason))
    return {each.sop_instance_uid: each for each in found}


def returns_of(spool_folder: Path, study_instance_uid: str) -> dict[str, int]:
    """SOP Instance UID to when each instance that had moved away was last sent to the study again, in nanoseconds.

    Raises:
        OSError: a folder cannot be read.
    """
    found: dict[str, int] = {}
    for mark in (spool_folder / WITHDRAWN / study_instance_uid / _RESTORED).glob(f"{MOVED}-*/*"):
        found[mark.name] = max(found.get(mark.name, 0), mark.stat().st_mtime_ns)
    return found


def _moved_instance(record: Path) -> str | None:
    """The SOP Instance UID of the record of an instance that moved; None: it is the record of a note."""
    reason, _, rest = record.stem.partition("-")
    return rest.partition("-")[0] if reason == MOVED else None


def remove_withdrawals(spool_folder: Path, study_instance_uid: str) -> None:
    """Forget what was withdrawn of a study, once its inputs, results and records are deleted.

    Raises:
        OSError: the disk refuses.
    """
    folder = spool_folder / WITHDRAWN / study_instance_uid
    if folder.is_dir():
        shutil.rmtree(folder)


class Withdrawals:
    """Records withdrawals, durably. Safe for many threads, and for many processes on one file system."""

    def __init__(self, folder: Path, names: DurableNames | None = None) -> None:
        self._spool = folder
        self._folder = folder / WITHDRAWN
        self._names = names or DurableNames(folder)

    def keep_document(self, file: Path, name: tuple[str, str], digest: str, note: RejectionNote | None) -> None:
        """Keep a Key Object Selection, complete and synced, and withdraw what it rejects. A second call adds nothing.

        ``name``: its Study and SOP Instance UID.

        Raises:
            OSError: the disk refuses; to be sent again.
        """
        study, sop = name
        key = f"{sop}.{digest[:16]}"
        self._names.link(file, self._folder / study / f"{key}.dcm")
        if note is None:
            return
        for study_instance_uid, instances in note.instances.items():
            self._record(study_instance_uid, key, note.code, sop, instances)

    def move(self, study_instance_uid: str, instances: dict[str, str], to: str) -> None:
        """Withdraw instances (SOP to Series Instance UID) of a study that arrived again in the study ``to``.

        Raises:
            OSError: the disk refuses.
        """
        for sop, series in instances.items():
            self._record(study_instance_uid, self._key_of_move(study_instance_uid, sop), MOVED, to, {sop: series})

    def _key_of_move(self, study: str, sop: str) -> str:
        """The first name whose record is not undone: none may be written twice, or a restart could not tell them."""
        folder = self._folder / study / _RESTORED
        names = (f"{MOVED}-{sop}" + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
        return next(name for name in names if not (folder / name / sop).exists())

    def _record(self, study: str, key: str, reason: str, source: str, instances: dict[str, str]) -> None:
        final = self._folder / study / f"{key}.json"
        if final.exists():
            sync_folder(final.parent)
            return
        aside = self._folder / f"part.{uuid.uuid4().hex}"
        self._folder.mkdir(exist_ok=True)
        try:
            with aside.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps({"reason": reason, "source": source, "instances": instances}))
                stream.flush()
                os.fsync(stream.fileno())
            self._names.link(aside, final)
        finally:
            aside.unlink(missing_ok=True)
        log.warning("instances_withdrawn", study_instance_uid=study, reason=reason, instances=len(instances))

    def note_arrival(self, study_instance_uid: str, sop_instance_uid: str, outcome: StoreOutcome) -> None:
        """Let an instance that arrived be input again, if what withdrew it allows that.

        Raises:
            OSError: the disk refuses.
        """
        if not (self._folder / study_instance_uid).is_dir():
            return
        of_instance = (self._spool, study_instance_uid, sop_instance_uid)
        while (found := withdrawals_of(*of_instance).get(sop_instance_uid)) is not None:
            is_back = found.reason == MOVED and outcome is not StoreOutcome.CONFLICT
            if found.reason != EXPIRED and not is_back and not self._is_corrected(study_instance_uid, found, outcome):
                return
            self._restore(study_instance_uid, found)
            log.warning("instance_restored", study_instance_uid=study_instance_uid, sop_instance_uid=sop_instance_uid)

    def _is_corrected(self, study: str, withdrawal: Withdrawal, outcome: StoreOutcome) -> bool:
        """True if the instance in use is the correction that a note of a wrong worklist entry announced.

        A correction that is in use may arrive again: the process may have ended before it became input.
        """
        if withdrawal.reason != WRONG_WORKLIST_ENTRY or outcome is StoreOutcome.CORRECTION:
            return withdrawal.reason == WRONG_WORKLIST_ENTRY
        if outcome is not StoreOutcome.DUPLICATE:
            return False
        sop = withdrawal.sop_instance_uid
        superseded = [each for each in versions(self._spool / SUPERSEDED, study) if each.sop_instance_uid == sop]
        in_use = [self._spool / study / each.series_instance_uid / f"{sop}.dcm" for each in superseded]
        return any(
            datetime.fromtimestamp(each.stat().st_mtime, UTC) >= withdrawal.since for each in in_use if each.exists()
        )

    def _restore(self, study_instance_uid: str, withdrawal: Withdrawal) -> None:
        folder = self._folder / study_instance_uid
        is_moved, sop = withdrawal.reason == MOVED, withdrawal.sop_instance_uid
        for file in folder.glob(f"{MOVED}-{sop}*.json" if is_moved else f"{withdrawal.source}.*.json"):
            record = json.loads(file.read_text("utf-8"))
            if record["reason"] == withdrawal.reason and withdrawal.sop_instance_uid in record["instances"]:
                mark = self._folder / f"part.{uuid.uuid4().hex}"
                mark.touch(exist_ok=False)
                try:
                    self._names.link(mark, folder / _RESTORED / file.stem / withdrawal.sop_instance_uid)
                finally:
                    mark.unlink()
