"""A disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of ``size`` at ``folder``."""
    folder.mkdir()
    as_root = () if os.geteuid() == 0 else ("sudo", "-n")
    mounted = subprocess.run(
        [*as_root, "mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("no tmpfs can be mounted")
        pytest.skip("no tmpfs can be mounted: neither root nor sudo")
    try:
        yield folder
    finally:
        subprocess.run([*as_root, "umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of ``disk``; the file that takes them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast
    raise AssertionError("a disk without an end")
