"""Files that are written aside: old content or new, never a mixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.dicom.aside_file import written_aside


def test_two_writers_of_one_file_do_not_mix_their_bytes(tmp_path):
    """An attempt that was thought dead and the one after it write to different paths; the last to end wins whole."""
    file = tmp_path / "seg.dcm"
    with written_aside(file) as late:
        late.write_bytes(b"late, first part")
        with written_aside(file) as early:
            early.write_bytes(b"early")
        assert file.read_bytes() == b"early"
        late.write_bytes(b"late, whole")
    assert file.read_bytes() == b"late, whole"
    assert list(tmp_path.iterdir()) == [file]


def test_content_that_fails_its_check_leaves_the_old_file(tmp_path):
    """An error in the block keeps the old content and deletes the new."""
    file = tmp_path / "seg.dcm"
    file.write_bytes(b"old")
    with pytest.raises(UnicodeDecodeError):
        _write_checked(file, b"\xff")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def _write_checked(file: Path, content: bytes) -> None:
    with written_aside(file) as aside:
        aside.write_bytes(content)
        aside.read_text(encoding="utf-8")


def test_path_aside_keeps_the_ending(tmp_path):
    """Libraries that choose the format by the ending, as nibabel does, choose the right one."""
    with written_aside(tmp_path / "label_map.nii.gz") as aside:
        aside.write_bytes(b"")
        assert aside.name.endswith(".nii.gz")
