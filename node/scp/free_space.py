"""Checks, while instances arrive, that the free space of the spool's disk is not below the watermark."""

from __future__ import annotations

import threading
from collections.abc import Callable

_READ_AFTER_BYTES = 8 << 20


class FreeSpace:
    """The free space of a disk against the watermark. Thread-safe.

    No peer says in advance how large an instance is. So the free space is read each time that 8 MiB of all instances
    together have arrived, and at every fragment while the disk is too full: free space falls below the watermark by
    8 MiB at most, however many instances arrive at once. Fragments are checked one after another, and the space of a
    refused instance is free for the next: of many instances that do not fit together, some are stored.
    """

    def __init__(self, free_bytes: Callable[[], int], watermark_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._watermark_bytes = watermark_bytes
        self._lock = threading.Lock()
        self._bytes_since_read = 0
        self._is_known_sufficient = False

    def is_sufficient(self) -> bool:
        """True if the free space is not below the watermark now.

        Raises:
            OSError: the free space cannot be read.
        """
        with self._lock:
            return self._read()

    def allows(self, more_bytes: int, refuse: Callable[[], None]) -> bool:
        """True if ``more_bytes`` of an instance may be written; the free space is not read at each call.

        If not, ``refuse`` was called, which deletes what was written of the instance. It must not raise.

        Raises:
            OSError: the free space cannot be read.
        """
        with self._lock:
            self._bytes_since_read += more_bytes
            if (self._is_known_sufficient and self._bytes_since_read < _READ_AFTER_BYTES) or self._read():
                return True
            refuse()  # under the lock, or all instances would be refused for the space they take together
            return False

    def _read(self) -> bool:
        """Read the free space. The caller holds the lock, so that no other fragment is written meanwhile."""
        self._is_known_sufficient = False  # if reading fails
        self._is_known_sufficient = self._free_bytes() >= self._watermark_bytes
        self._bytes_since_read = 0
        return self._is_known_sufficient
