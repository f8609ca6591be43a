"""How much of each study the spool holds, so that no study grows without end."""

from __future__ import annotations

import threading
from collections import OrderedDict

from node.scp.spool import Spool

_MOST_STUDIES_KNOWN = 1024


class StudySizes:
    """Bytes held of each study. Safe for use by many threads.

    A study is measured on the disk when it is first asked for after a start, and again before it is refused: by then
    some of it may have been deleted. What another receiver of a shared spool writes counts from then on.
    """

    def __init__(self, spool: Spool, limit_bytes: int) -> None:
        self._spool = spool
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def has_room(self, study_instance_uid: str, more_bytes: int) -> bool:
        """True if the study stays within the limit with so much more.

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
        """So much more of the study was kept."""
        with self._lock:
            if study_instance_uid in self._sizes:
                self._sizes[study_instance_uid] += more_bytes
                self._sizes.move_to_end(study_instance_uid)
