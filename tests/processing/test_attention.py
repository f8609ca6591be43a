"""What the administrator is told of a study's instances; only of studies that are shown."""

from __future__ import annotations

from pathlib import Path

from node.processing.attention import attention_of_studies

SHOWN, OTHER = "1.2.3", "1.2.30"


def put(spool: Path, name: str, study: str) -> Path:
    """A version of an instance that is not in use."""
    file = spool / name / study / "1.2.4" / "1.2.5.0123456789abcdef.dcm"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_nothing_is_read_of_studies_that_are_not_asked_for(tmp_path: Path) -> None:
    """An archive rejects instances of studies that this node never had; the page takes no longer for them."""
    for name in (".conflicts", ".superseded"):
        for study in (SHOWN, OTHER):
            put(tmp_path, name, study)
    unread = tmp_path / ".withdrawn" / OTHER / "1.2.9.json"
    unread.parent.mkdir(parents=True)
    unread.write_text("not read", encoding="utf-8")
    assert attention_of_studies(tmp_path, {SHOWN, "1.2.31"}) == {
        SHOWN: (
            f"1 instances are in conflict, and wait for a decision: `glionode conflicts {SHOWN}`",
            "1 instances were corrected",
        )
    }
    assert attention_of_studies(tmp_path / "absent", {SHOWN}) == {}
