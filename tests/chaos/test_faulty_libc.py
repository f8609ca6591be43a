"""The library with which tests give a process a bad disk and a wrong clock does what it says, and only there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_libc import FaultControl, build_library

SCRIPT = """
import datetime, os, pathlib, sys, time
folder, answers = pathlib.Path(sys.argv[1]), []
(folder / "there").touch()
file = (folder / "open").open("wb", buffering=0)
calls = {
    "open": lambda: (folder / "new").open("xb"),
    "read": lambda: (folder / "there").open("rb"),
    "write": lambda: file.write(b"x"),
    "fsync": lambda: os.fsync(file.fileno()),
    "folder": lambda: os.fsync(os.open(folder, os.O_RDONLY)),
    "link": lambda: os.link(folder / "there", folder / "linked"),
    "rename": lambda: (folder / "there").rename(folder / "renamed"),
    "mkdir": lambda: (folder / "folder").mkdir(),
}
print(flush=True)
for line in sys.stdin:
    name = line.strip()
    before, monotonic = time.time(), time.monotonic()
    try:
        calls[name]()
        error = 0
    except OSError as caught:
        error = caught.errno
    print(error, round(time.monotonic() - monotonic, 1), int(datetime.datetime.now().timestamp()), flush=True)
"""


class Process:
    """A process that makes one call for each line."""

    def __init__(self, control: FaultControl, folder: Path) -> None:
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)],
            env=os.environ | control.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def call(self, name: str) -> tuple[int, float, int]:
        """Error, seconds, and the wall clock after it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        error, seconds, clock = self.process.stdout.readline().split()
        return int(error), float(seconds), int(clock)

    def end(self) -> None:
        """No more calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once."""
    return build_library(tmp_path_factory.mktemp("library"))


def test_a_bad_disk_is_bad_below_its_folder_only(library: Path, tmp_path: Path):
    """Each kind of call fails while it is told to; the same calls of the same process elsewhere do not."""
    control = FaultControl(library, tmp_path / "faults", tmp_path / "spool")
    bad, good = Process(control, tmp_path / "spool"), Process(control, tmp_path / "other")
    control.fail(errno.ENOSPC)
    names = ("open", "write", "fsync", "link", "mkdir", "rename")
    assert [bad.call(name)[0] for name in names] == [errno.ENOSPC] * len(names)
    assert bad.call("read")[0] == 0
    assert control.hits == len(names)
    assert [good.call(name)[0] for name in names] == [0] * len(names)
    control.fail(errno.EIO, reading=True)
    assert [bad.call(name)[0] for name in ("read", "folder", "write")] == [errno.EIO] * 3
    control.heal()
    assert [bad.call(name)[0] for name in names] == [0] * len(names)
    for process in (bad, good):
        process.end()


def test_a_slow_disk_and_a_wrong_clock(library: Path, tmp_path: Path):
    """Flushes take longer; the wall clock differs, the monotonic one does not."""
    control = FaultControl(library, tmp_path / "faults", tmp_path / "spool")
    process = Process(control, tmp_path / "spool")
    control.slow_sync(300)
    error, seconds, clock = process.call("fsync")
    assert error == 0
    assert seconds >= 0.3
    control.slow_sync(0)
    control.set_clock(-7200)
    _, seconds, jumped = process.call("write")
    assert -7200 <= jumped - clock < -7100
    assert seconds < 60
    process.end()
