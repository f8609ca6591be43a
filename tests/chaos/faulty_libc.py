"""Compiles ``faulty_libc.c``, and tells a running process which calls of its fail, are slow, or tell another time."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_BYTES = 4096
_ERROR, _READING, _SYNC, _CLOCK, _HITS, _FOLDER = range(0, 48, 8)


def build_library(folder: Path) -> Path:
    """The library that a process is to preload."""
    library = folder / "faulty_libc.so"
    command = ["gcc", "-O2", "-Wall", "-Wno-nonnull-compare", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return library


class FaultControl:
    """The faults of one process, which survive its restarts: calls on files below ``folder``, and the wall clock."""

    def __init__(self, library: Path, file: Path, folder: Path) -> None:
        self._library, self._file = library, file
        name = os.fsencode(folder.resolve())
        file.write_bytes(bytes(_FOLDER) + name + bytes(_BYTES - _FOLDER - len(name)))
        with file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _BYTES)

    def environment(self) -> dict[str, str]:
        """What the process needs in its environment."""
        return {"LD_PRELOAD": str(self._library), "GLIONODE_FAULTS": str(self._file)}

    def fail(self, error: int, *, reading: bool = False) -> None:
        """Let writing, flushing, linking, renaming and creating fail with ``error``; 0 heals."""
        self._set(_READING, int(reading))
        self._set(_ERROR, error)

    def slow_sync(self, milliseconds: int) -> None:
        """Let each flush take so much longer."""
        self._set(_SYNC, milliseconds)

    def set_clock(self, seconds: int) -> None:
        """Let the wall clock differ by so much."""
        self._set(_CLOCK, seconds)

    def heal(self) -> None:
        """No fault any more, and the right time."""
        for offset in (_ERROR, _READING, _SYNC, _CLOCK):
            self._set(offset, 0)

    @property
    def hits(self) -> int:
        """Calls that failed or were slow."""
        return int(struct.unpack_from("q", self._memory, _HITS)[0])

    def _set(self, offset: int, value: int) -> None:
        struct.pack_into("q", self._memory, offset, value)
