"""Free space against the watermark, looked at often enough, and not more often."""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.scp.free_space import FreeSpace

MEBIBYTE = 1 << 20


class Disk:
    """A disk of so many free bytes, which counts how often it is looked at."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes
        self.looks = 0
        self.is_silent = False
        self.seconds = 0.0

    def look(self) -> int:
        """What `Spool.free_bytes` would say."""
        self.looks += 1
        if self.is_silent:
            raise OSError(errno.ESTALE, "Stale file handle")
        free_bytes = self.free_bytes
        time.sleep(self.seconds)
        return free_bytes


def nothing() -> None:
    """Of this arrival nothing was written yet."""


def test_disk_is_looked_at_every_eight_mebibytes_of_all_that_arrives():
    """Many arrivals together overshoot the watermark by 8 MiB and one fragment at most."""
    disk = Disk(100 * MEBIBYTE)
    room = FreeSpace(disk.look, 50 * MEBIBYTE)
    assert room.is_free()
    while room.takes(MEBIBYTE // 8, nothing):
        disk.free_bytes -= MEBIBYTE // 8
    assert disk.free_bytes >= 42 * MEBIBYTE
    assert disk.looks <= 1 + 8


def test_each_fragment_is_refused_while_the_disk_is_full():
    """Once the disk is too full, it is looked at for every fragment, so that every arrival ends; then no longer."""
    disk = Disk(MEBIBYTE)
    room = FreeSpace(disk.look, 2 * MEBIBYTE)
    assert [room.is_free(), room.takes(1, nothing), room.takes(1, nothing)] == [False] * 3
    disk.free_bytes *= 2
    assert [room.takes(1, nothing), room.takes(1, nothing), room.takes(1, nothing)] == [True] * 3
    assert disk.looks == 4


def test_disk_that_does_not_say_is_asked_again():
    """An error of the disk is raised, and the next fragment asks anew."""
    disk = Disk(MEBIBYTE)
    room = FreeSpace(disk.look, MEBIBYTE)
    disk.is_silent = True
    for ask in (room.is_free, lambda: room.takes(1, nothing)):
        with pytest.raises(OSError, match="Stale"):
            ask()
    disk.is_silent = False
    assert room.takes(1, nothing)


def test_room_that_one_leaves_is_there_for_the_others():
    """Of many that together are too much, whose fragments come at once on a slow disk, one is refused, and no more."""
    disk = Disk(MEBIBYTE)
    disk.seconds = 0.02
    room = FreeSpace(disk.look, 2 * MEBIBYTE)

    def refuse() -> None:
        time.sleep(disk.seconds)
        disk.free_bytes += MEBIBYTE

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: room.takes(1, refuse), range(8)))
    assert sorted(answers) == [False] + 7 * [True]
