"""Whether the spool's disk has room for what arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable

_LOOK_BYTES = 8 << 20


class FreeSpace:
    """Free space against the watermark. Safe for many threads.

    Nobody says in advance how large an instance is. So the disk is looked at whenever all that arrives has grown by
    8 MiB, and at every fragment while it is too full: the watermark is overshot by 8 MiB at most, however many
    instances arrive at once. They are judged one after another, and what a refused one leaves is there for the next:
    of many that do not fit together, some are taken.
    """

    def __init__(self, free_bytes: Callable[[], int], watermark_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._watermark_bytes = watermark_bytes
        self._lock = threading.Lock()
        self._unseen_bytes = 0
        self._was_free = False

    def is_free(self) -> bool:
        """True if free space is not below the watermark now.

        Raises:
            OSError: the disk does not say.
        """
        with self._lock:
            return self._look()

    def takes(self, more_bytes: int, refuse: Callable[[], None]) -> bool:
        """True if so much more of an instance may be written; the disk is looked at only now and then.

        If not, ``refuse`` was called, which deletes what there is of the instance. It must not raise.

        Raises:
            OSError: the disk does not say.
        """
        with self._lock:
            self._unseen_bytes += more_bytes
            if (self._was_free and self._unseen_bytes < _LOOK_BYTES) or self._look():
                return True
            refuse()  # before anyone else looks, or all would be refused for the room that all take
            return False

    def _look(self) -> bool:
        """The lock is held, so that nothing goes on unseen meanwhile."""
        self._was_free = False  # should the disk not say
        self._was_free = self._free_bytes() >= self._watermark_bytes
        self._unseen_bytes = 0
        return self._was_free
