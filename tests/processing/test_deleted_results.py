"""Of which source deleted results were made is known, and nothing else of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_study import make_small_study, write_small_study

from node.config import build_config
from node.processing.deleted_results import is_of_another_source, note_deletion, source_digest
from node.processing.request import build_request
from node.study import Selection


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """The selection from the small study."""
    folder = write_small_study(tmp_path_factory.mktemp("study"), make_small_study())
    found = build_request(folder, build_config({"node": {"folder": "/nowhere"}})).selection
    assert found is not None
    return found


def noted(folder: Path, text: str | None) -> Path:
    """Results with this ``result.json`` (None: without one), whose deletion is noted."""
    folder.mkdir()
    if text is not None:
        (folder / "result.json").write_text(text)
    note_deletion(folder)
    return folder


def test_results_of_the_same_instances_are_known(tmp_path: Path, selection: Selection) -> None:
    """Results that were never deleted, and deleted ones of the same source, are of no other source."""
    source = source_digest(selection)
    assert not is_of_another_source(selection, tmp_path, "w")
    noted(tmp_path / "w", json.dumps({"state": "reported", "source": source}))
    assert not is_of_another_source(selection, tmp_path, "w")
    assert [file.read_text() for file in (tmp_path / ".deleted").iterdir()] == [source]


@pytest.mark.parametrize("text", ['{"state":"reported","source":"ab"}', '{"state":"reported"}', "{", "7"])
def test_in_doubt_deleted_results_are_of_another_source(text: str, tmp_path: Path, selection: Selection) -> None:
    """So are those of version 0.1.0, which do not tell their source, and those that cannot be read."""
    noted(tmp_path / "w", text)
    assert is_of_another_source(selection, tmp_path, "w")


@pytest.mark.parametrize("text", ['{"state":"refused"}', None])
def test_nothing_stays_of_what_is_no_report(text: str | None, tmp_path: Path, selection: Selection) -> None:
    """A refused study has no results, and unfinished ones were sent to nobody."""
    noted(tmp_path / "w", text)
    assert not is_of_another_source(selection, tmp_path, "w")
