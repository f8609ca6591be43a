"""Disks of a few mebibytes, which come and go."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def run_as_root(*command: object, must: bool = True) -> int:
    """The exit status of a command that only root may run."""
    as_root = () if os.geteuid() == 0 else ("sudo", "-n")
    return subprocess.run([*as_root, *map(str, command)], check=must).returncode


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of ``size`` at ``folder``, which is made if need be."""
    folder.mkdir(exist_ok=True)
    if run_as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder, must=False) != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("no tmpfs can be mounted")
        pytest.skip("no tmpfs can be mounted: neither root nor sudo")
    try:
        yield folder
    finally:
        run_as_root("umount", folder)


@contextmanager
def shown_at(folder: Path, disk: Path) -> Iterator[None]:
    """What ``disk`` holds is at ``folder``, too; at the end it vanishes from there, whoever still uses it."""
    run_as_root("mount", "--bind", disk, folder)
    try:
        yield
    finally:
        run_as_root("umount", "--lazy", folder)


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
