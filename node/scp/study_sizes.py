"""The size of each study in the spool, so that no study grows without limit."""

from __future__ import annotations

import threading
from collections import OrderedDict

from node.scp.spool import Spool

_MOST_STUDIES_KNOWN = 1024


class StudySizes:
    """Bytes in the spool of each study. Thread-safe.

    A study is measured on the disk at the first instance after a start, and again before an instance of it is refused,
    because files may have been deleted since. What another receiver of a shared spool writes counts once it is
    measured.
    """

    def __init__(self, spool: Spool, limit_bytes: int) -> None:
        self._spool = spool
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def fits(self, study_instance_uid: str, more_bytes: int) -> bool:
        """True if the study stays within the limit with ``more_bytes`` more.

        Raises:
            InstanceRefused: the UID is invalid.
        """
        with self._lock:
            known = self._sizes.get(study_instance_uid)
        if known is not None and known + more_bytes <= self._limit_bytes:
            return True
        measured = self._spool.study_bytes(study_instance_uid)
        with self._lock:
            self._sizes[study_instance_uid] = measured
            while len(self._sizes) > _MOST_STUDIES_KNOWN:
                self._sizes.popitem(last=False)
        return measured + more_bytes <= self._limit_bytes

    def add(self, study_instance_uid: str, more_bytes: int) -> None:
        """Note that ``more_bytes`` of the study were stored."""
        with self._lock:
            if study_instance_uid in self._sizes:
                self._sizes[study_instance_uid] += more_bytes
                self._sizes.move_to_end(study_instance_uid)
