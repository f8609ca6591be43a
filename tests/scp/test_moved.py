"""Instances that arrive again in another study: one image counts in one study, the later one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from instances import SERIES, make_instance, sop_instance_uid, write_instance_file

from node.scp.moved import MovedInstances
from node.scp.withdrawals import withdrawals_of

OLD, NEW = "1.2.3", "1.2.4"
SOP = sop_instance_uid(1)


def put(spool: Path, study: str, seconds: float, pixel: int = 0, series: str = SERIES) -> None:
    """An instance of a study that arrived at this time."""
    instance = make_instance(study_instance_uid=study, pixel=pixel)
    instance.SeriesInstanceUID = series
    folder = spool / study / series
    folder.mkdir(parents=True)
    os.utime(write_instance_file(folder, instance), (seconds, seconds))


@pytest.mark.parametrize("due", [OLD, NEW])
def test_the_older_place_counts_no_more(tmp_path: Path, due: str) -> None:
    """Whichever study is due first, the instance is withdrawn from the one in which it arrived first, once."""
    put(tmp_path, OLD, 1000)
    moved = MovedInstances(tmp_path)
    assert moved.settle(OLD) == []
    put(tmp_path, NEW, 2000)
    assert moved.settle(due) == [OLD]
    assert moved.settle(due) == []
    assert {sop: (each.reason, each.source) for sop, each in withdrawals_of(tmp_path, OLD).items()} == {
        SOP: ("moved", NEW)
    }
    assert withdrawals_of(tmp_path, NEW) == {}


def test_two_images_under_one_uid_are_told_and_both_used(tmp_path: Path) -> None:
    """Other pixels are another image: nobody knows here which of the two studies it belongs to."""
    put(tmp_path, OLD, 1000)
    put(tmp_path, NEW, 2000, pixel=1)
    with structlog.testing.capture_logs() as events:
        assert MovedInstances(tmp_path).settle(NEW) == []
    assert [(each["event"], each["differs"]) for each in events] == [
        ("uid_of_two_images", ["StudyInstanceUID", "pixel data"])
    ]


def test_other_series_are_not_compared(tmp_path: Path) -> None:
    """Instances are looked for by their series; an absent spool has none."""
    put(tmp_path, OLD, 1000)
    put(tmp_path, NEW, 2000, series="1.2.9")
    assert MovedInstances(tmp_path).settle(NEW) == []
    assert MovedInstances(tmp_path / "absent").settle(NEW) == []
