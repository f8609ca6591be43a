"""The spool's disk: nothing is written below its mount point, neither before it is mounted nor after it vanished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import structlog
from small_disk import shown_at, small_disk

from node.errors import ConfigError
from node.scp.spool import Spool


def begun(folder: Path) -> Spool:
    """A spool whose receiver has started and ended."""
    spool = Spool(folder)
    spool.begin()
    spool.end()
    return spool


def everything(folder: Path) -> list[str]:
    """All paths in a folder, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def mount_point(tmp_path):
    (tmp_path / "var" / "spool").mkdir(parents=True)
    return tmp_path / "var" / "spool"


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        yield disk


def test_start_before_the_mount_fails(mount_point, disk):
    """A spool that was on a disk of its own cannot begin while the disk is not mounted, and can afterwards."""
    with shown_at(mount_point, disk):
        begun(mount_point)
    for act in (Spool(mount_point).begin, Spool(mount_point).rehearse):
        with pytest.raises(ConfigError, match=r"^node\.folder: .*spool was on a disk of its own, which is not mounted"):
            act()
    assert everything(mount_point) == []
    with shown_at(mount_point, disk):
        begun(mount_point)


def test_an_emptied_spool_is_no_missing_disk(mount_point, disk, tmp_path):
    """A first start, and a start after the spool was emptied or deleted by hand, are no missing disk."""
    plain = tmp_path / "plain" / "spool"
    begun(plain)
    shutil.rmtree(plain)
    begun(plain)
    assert not (tmp_path / "plain" / ".spool-id").exists()
    with shown_at(mount_point, disk):
        name = (begun(mount_point).folder / ".spool-id").read_text()
        for path in mount_point.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert (begun(mount_point).folder / ".spool-id").read_text() != name


def test_a_spool_that_moved_is_known_by_its_name(mount_point, disk):
    """A spool that was copied with its ID from its own disk to the parent's disk can begin there."""
    with shown_at(mount_point, disk):
        begun(mount_point)
    shutil.copytree(disk, mount_point, dirs_exist_ok=True)
    begun(mount_point)


def test_disk_that_vanishes_and_comes_back(mount_point, disk):
    """While its disk is not mounted, the spool stores nothing and raises OSError; mounted again, it stores."""
    spool = Spool(mount_point)
    with shown_at(mount_point, disk):
        spool.begin()
        arriving = spool.open_incoming(b"head")
    for act in (lambda: spool.open_incoming(b"head"), lambda: spool.keep("1.2", "1.3", "1.4", arriving)):
        with pytest.raises(OSError, match="the spool's disk is not mounted"):
            act()
    with pytest.raises(OSError, match="the spool's disk is not mounted"):
        spool.free_bytes()
    assert everything(mount_point) == []
    with shown_at(mount_point, disk):
        spool.open_incoming(b"head").discard()
        spool.keep("1.2", "1.3", "1.4", arriving)
        assert spool.free_bytes() > 0
    arriving.discard()
    spool.end()
    assert (disk / "1.2" / "1.3" / "1.4.dcm").exists()


def test_disk_that_comes_back_under_another_number(mount_point, disk, tmp_path):
    """A share that is mounted again may have another device number; the spool is recognized by its ID."""
    spool = Spool(mount_point)
    with shown_at(mount_point, disk):
        spool.begin()
    with small_disk(tmp_path / "other", "4m") as other:
        with shown_at(mount_point, other), pytest.raises(OSError, match="not mounted"):
            spool.open_incoming(b"head")
        shutil.copytree(disk, other, dirs_exist_ok=True)
        with shown_at(mount_point, other), structlog.testing.capture_logs() as events:
            spool.open_incoming(b"head").discard()
            spool.open_incoming(b"head").discard()
    assert [event["event"] for event in events] == ["spool_mounted_anew"]
    spool.end()


def test_folder_that_was_deleted_is_not_made_anew(tmp_path):
    """A spool whose folder was deleted by hand stores nothing until the folder exists again."""
    spool = Spool(tmp_path / "spool")
    spool.begin()
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(FileNotFoundError):
        spool.open_incoming(b"head")
    assert not (tmp_path / "spool").exists()
    (tmp_path / "spool").mkdir()
    spool.open_incoming(b"head").discard()
    spool.end()
