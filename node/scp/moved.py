"""Instances that arrived again in another study: an archive that merges studies keeps their UIDs, but not the study's.

Such an instance is looked for among the studies that hold a series of the same UID, since a merge moves whole series
and keeps their UIDs, too. Of two places of one image the later one counts; in the other it is withdrawn. Later is where
it arrived last: an image that moved away and is sent to its first study again has moved back, even if its file there is
as old as ever. The order of arrival does not count where a header tells which of the two corrects the other, for that
one may arrive first; but it does once the image was sent back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import structlog

from node.dicom.same_image import Likeness, compare
from node.dicom.uids import is_usable_uid
from node.scp.withdrawals import Withdrawals, returns_of, withdrawals_of

log = structlog.get_logger()


class MovedInstances:
    """Finds instances that moved between studies. Not thread-safe.

    The series of each study are listed again only when its folder has changed.
    """

    def __init__(self, spool_folder: Path) -> None:
        self._spool = spool_folder
        self._withdrawals = Withdrawals(spool_folder)
        self._series: dict[str, tuple[int, frozenset[str]]] = {}

    def settle(self, study_instance_uid: str) -> list[str]:
        """Withdraw the older of two places of each instance of the study; returns the studies that lost instances.

        Raises:
            OSError: the disk refuses.
        """
        self._look()
        _, mine = self._series.get(study_instance_uid, (0, frozenset()))
        others = [(uid, mine & theirs) for uid, (_, theirs) in self._series.items() if uid != study_instance_uid]
        lost: set[str] = set()
        for other, shared in others:
            for series in sorted(shared):
                lost |= self._settle_series(study_instance_uid, other, series)
        return sorted(lost)

    def _look(self) -> None:
        seen: dict[str, tuple[int, frozenset[str]]] = {}
        with suppress(FileNotFoundError), os.scandir(self._spool) as entries:
            for entry in entries:
                if is_usable_uid(entry.name):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        changed = entry.stat().st_mtime_ns
                        known = self._series.get(entry.name)
                        if known is None or known[0] != changed:
                            known = changed, frozenset(each.name for each in Path(entry.path).iterdir())
                        seen[entry.name] = known
        self._series = seen

    def _settle_series(self, one: str, other: str, series: str) -> set[str]:
        """Withdraw instances of a series that two studies hold; returns the studies that lost some."""
        lost: dict[str, dict[str, str]] = {}
        gone = {uid: withdrawals_of(self._spool, uid) for uid in (one, other)}
        back = {uid: returns_of(self._spool, uid) for uid in (one, other)}
        for path in sorted((self._spool / one / series).glob("*.dcm")):
            there = self._spool / other / series / path.name
            if path.stem in gone[one] or path.stem in gone[other] or not there.exists():
                continue
            places = ((one, path), (other, there))
            found = compare(there, path)
            if found.likeness is Likeness.OTHER:
                log.warning("uid_of_two_images", sop_instance_uid=path.stem, differs=list(found.differs))
            else:
                arrived = {uid: max(file.stat().st_mtime_ns, back[uid].get(path.stem, 0)) for uid, file in places}
                older = other if arrived[other] <= arrived[one] else one
                if found.newer and not any(path.stem in each for each in back.values()):  # else the sender decided
                    older = other if found.newer == path else one
                lost.setdefault(older, {})[path.stem] = series
        for study, instances in lost.items():
            self._withdrawals.move(study, instances, to=one if study == other else other)
        return set(lost)
