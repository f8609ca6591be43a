"""Free space against the watermark: read as often as needed, and not more often."""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.scp.free_space import FreeSpace

MEBIBYTE = 1 << 20


class Disk:
    """A disk with ``free_bytes``, which counts how often they are read."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes
        self.reads = 0
        self.is_silent = False
        self.seconds = 0.0

    def read(self) -> int:
        """As `Spool.free_bytes`."""
        self.reads += 1
        if self.is_silent:
            raise OSError(errno.ESTALE, "Stale file handle")
        free_bytes = self.free_bytes
        time.sleep(self.seconds)
        return free_bytes


def nothing() -> None:
    """Delete nothing: no byte of this instance was written yet."""


def test_disk_is_looked_at_every_eight_mebibytes_of_all_that_arrives():
    """Instances that arrive together pass the watermark by 8 MiB and one fragment at most."""
    disk = Disk(100 * MEBIBYTE)
    free_space = FreeSpace(disk.read, 50 * MEBIBYTE)
    assert free_space.is_sufficient()
    while free_space.allows(MEBIBYTE // 8, nothing):
        disk.free_bytes -= MEBIBYTE // 8
    assert disk.free_bytes >= 42 * MEBIBYTE
    assert disk.reads <= 1 + 8


def test_each_fragment_is_refused_while_the_disk_is_full():
    """While the disk is too full, free space is read for each fragment, and each is refused; afterwards no longer."""
    disk = Disk(MEBIBYTE)
    free_space = FreeSpace(disk.read, 2 * MEBIBYTE)
    assert [free_space.is_sufficient(), free_space.allows(1, nothing), free_space.allows(1, nothing)] == [False] * 3
    disk.free_bytes *= 2
    assert [free_space.allows(1, nothing), free_space.allows(1, nothing), free_space.allows(1, nothing)] == [True] * 3
    assert disk.reads == 4


def test_disk_that_does_not_say_is_asked_again():
    """A disk error is raised, and free space is read again for the next fragment."""
    disk = Disk(MEBIBYTE)
    free_space = FreeSpace(disk.read, MEBIBYTE)
    disk.is_silent = True
    for ask in (free_space.is_sufficient, lambda: free_space.allows(1, nothing)):
        with pytest.raises(OSError, match="Stale"):
            ask()
    disk.is_silent = False
    assert free_space.allows(1, nothing)


def test_room_that_one_leaves_is_there_for_the_others():
    """Of many instances that do not fit together, on a slow disk, one is refused, and its space lets the others in."""
    disk = Disk(MEBIBYTE)
    disk.seconds = 0.02
    free_space = FreeSpace(disk.read, 2 * MEBIBYTE)

    def refuse() -> None:
        time.sleep(disk.seconds)
        disk.free_bytes += MEBIBYTE

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: free_space.allows(1, refuse), range(8)))
    assert sorted(answers) == [False] + 7 * [True]
