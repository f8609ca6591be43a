"""Instances that arrive again in another study: one image counts in one study, the later one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from instances import SERIES, encode_instance, make_instance, sop_instance_uid, write_instance_file
from pydicom.dataset import Dataset
from spool_arrival import arrive

from node.scp.moved import MovedInstances
from node.scp.rejection_note import QUALITY, RejectionNote
from node.scp.spool import Spool, StoreOutcome
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


def send(spool: Path, study: str, **attributes: object) -> StoreOutcome:
    """What a receiver that has just been started makes of the instance of a study."""
    instance = make_instance(study_instance_uid=study)
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    return arrive(Spool(spool), study, encode_instance(instance))


@pytest.mark.parametrize("due", [OLD, NEW])
@pytest.mark.parametrize("attributes", [{}, {"PatientID": "RIGHT-1"}], ids=["the same bytes", "corrected"])
def test_image_that_moves_to_and_fro_counts_where_it_was_sent_last(
    tmp_path: Path, due: str, attributes: dict[str, str]
) -> None:
    """Moved back it is input in its first study again, and in no other; each time anew, and also after a restart."""
    send(tmp_path, OLD)
    for number, study in enumerate((NEW, OLD, NEW, OLD, OLD)):
        left = NEW if study == OLD else OLD
        send(tmp_path, study, **({name: f"{value}{number}" for name, value in attributes.items()}))
        assert MovedInstances(tmp_path).settle(due) == ([left] if number < 4 else [])
        assert MovedInstances(tmp_path).settle(due) == []
        assert withdrawals_of(tmp_path, study) == {}
        assert {sop: each.source for sop, each in withdrawals_of(tmp_path, left).items()} == {SOP: study}
        assert set(withdrawals_of(tmp_path, left, SOP)) == {SOP}


@pytest.mark.parametrize("due", [OLD, NEW])
def test_place_whose_header_tells_that_it_corrects_the_other_counts_although_it_arrived_first(
    tmp_path: Path, due: str
) -> None:
    """An older node sends the image with the study it had before the merge: only what is sent back counts again."""
    change, before = Dataset(), Dataset()
    before.StudyInstanceUID = OLD
    change.ModifiedAttributesSequence = [before]
    send(tmp_path, NEW, OriginalAttributesSequence=[change])
    send(tmp_path, OLD)
    assert MovedInstances(tmp_path).settle(due) == [OLD]
    assert withdrawals_of(tmp_path, NEW) == {}
    send(tmp_path, OLD)
    assert MovedInstances(tmp_path).settle(due) == [NEW]


def test_conflict_with_an_image_that_moved_away_brings_nothing_back(tmp_path: Path) -> None:
    """What waits for the administrator's decision is not in use, and so neither is the image before it."""
    put(tmp_path, OLD, 1000)
    put(tmp_path, NEW, 2000)
    assert MovedInstances(tmp_path).settle(NEW) == [OLD]
    assert send(tmp_path, OLD, EchoTime="99") is StoreOutcome.CONFLICT
    assert set(withdrawals_of(tmp_path, OLD)) == {SOP}


def test_image_that_a_note_withdrew_is_not_brought_back_by_a_move(tmp_path: Path) -> None:
    """Moved away, and rejected for quality meanwhile: sent again it stays withdrawn."""
    put(tmp_path, OLD, 1000)
    put(tmp_path, NEW, 2000)
    assert MovedInstances(tmp_path).settle(NEW) == [OLD]
    note = RejectionNote(QUALITY, {OLD: {SOP: SERIES}})
    document = write_instance_file(tmp_path, make_instance())
    Spool(tmp_path).withdrawals.keep_document(document, (OLD, "1.2.9"), "0" * 64, note)
    assert send(tmp_path, OLD) is StoreOutcome.DUPLICATE
    assert {each.reason for each in withdrawals_of(tmp_path, OLD).values()} == {QUALITY}


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
