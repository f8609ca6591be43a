"""``glionode spool``: what is held, why, and what --clean does."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import run_glionode
from database import make_database
from statuses import delivery_statuses

from node.config import load_config
from node.processing.study_status import StudyStatus
from node.workflow.states import StudyState

NOW = datetime.now(UTC)
OLD, NEW = "1.2.3", "1.2.4"


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a study delivered long ago and one delivered just now."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[node]\nfolder = "var"\n[scp]\nwatermark_mebibytes = 1\n'
        '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104\n',
        encoding="utf-8",
    )
    lines = []
    for uid, days in ((OLD, 40), (NEW, 1)):
        moment = NOW - timedelta(days=days)
        instance = tmp_path / "var" / "spool" / uid / f"{uid}.1" / f"{uid}.1.1.dcm"
        instance.parent.mkdir(parents=True)
        instance.write_bytes(bytes(2**20))
        for path in (instance, instance.parent):
            os.utime(path, (moment.timestamp() - 60, moment.timestamp() - 60))
        lines.append(
            StudyStatus(
                uid, uid, StudyState.DELIVERED, None, moment, delivery_statuses(pacs="delivered"), moment, None, uid
            )
        )
    make_database(load_config(file))
    monkeypatch.setattr("node.retention.cleanup.read_study_statuses", lambda *_: lines)
    return file


def held(config_file: Path) -> set[str]:
    """The studies whose instances are there."""
    return {path.name.removesuffix(".1.1.dcm") for path in config_file.parent.rglob("*.dcm")}


def test_the_table_says_what_is_held_and_why(config_file: Path) -> None:
    """With totals, and the free space against the watermark."""
    done = run_glionode("spool", "--config", config_file)
    words = " ".join(done.output.split())
    assert done.exit_code == 0
    assert OLD in words
    assert "2 studies" in words
    assert "2.0" in words
    assert "kept" in words
    assert "nothing is received below 1 MiB" in words
    assert held(config_file) == {OLD, NEW}


def test_json_is_for_scripts(config_file: Path) -> None:
    """The same, with stable keys."""
    facts = json.loads(run_glionode("spool", "--json", "--config", config_file).output)
    old, new = facts["studies"]
    assert (old["study_instance_uid"], old["instances"], old["bytes"]) == (OLD, 1, 2**20)
    assert (old["state"], old["held_because"]) == ("delivered", None)
    assert new["held_because"].startswith("kept until")
    assert (facts["instances"], facts["bytes"], facts["watermark_bytes"]) == (2, 2**21, 2**20)
    assert facts["free_bytes"] > 0
    assert facts["deleted"] is None


def test_dry_run_names_what_would_go(config_file: Path) -> None:
    """And deletes nothing."""
    done = run_glionode("spool", "--clean", "--dry-run", "--config", config_file)
    assert f"would delete: inputs of study {OLD}" in done.output
    assert NEW not in done.output
    assert held(config_file) == {OLD, NEW}


def test_clean_deletes_what_may_go(config_file: Path) -> None:
    """Said once; the second time there is nothing more."""
    first, second = (run_glionode("spool", "--clean", "--config", config_file) for _ in range(2))
    assert f"deleted: inputs of study {OLD}" in first.output
    assert held(config_file) == {NEW}
    assert "nothing may go" in second.output


def test_clean_as_json(config_file: Path) -> None:
    """What went is listed."""
    facts = json.loads(run_glionode("spool", "--clean", "--json", "--config", config_file).output)
    assert facts["deleted"] == {"is_dry_run": False, "studies": [OLD], "results": []}
    assert held(config_file) == {NEW}


def test_dry_run_alone_is_a_usage_error(config_file: Path) -> None:
    """It says nothing about --clean then."""
    assert run_glionode("spool", "--dry-run", "--config", config_file).exit_code == 2
