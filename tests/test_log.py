"""The log: what hide_uids leaves of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from node.config_sections import LogSection
from node.log import set_up_log, study_context

STUDY = "1.2.840.99.123456789"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a set-up changes is changed back."""
    levels = {name: logging.getLogger(name).level for name in ("pynetdicom", "pydicom", "highdicom", "dicom2nifti")}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("format_", ["json", "console"])
def test_uids_are_hidden_in_every_value(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In reasons and lists as under the keys that are made for them; addresses and numbers stay."""
    set_up_log(LogSection(hide_uids=True, format=format_))
    structlog.get_logger().warning("refused", reason=f"{STUDY} at 10.0.0.7:104", files=[f"{STUDY}.dcm"], spacing=1.5)
    with study_context(STUDY):
        structlog.get_logger().warning("refused")
    text = capsys.readouterr().err
    assert STUDY not in text
    assert "10.0.0.7:104" in text
    assert "hidden" in text
    if format_ == "json":
        first = json.loads(text.splitlines()[0])
        assert (first["reason"], first["files"], first["spacing"]) == ("…6789 at 10.0.0.7:104", ["…6789.dcm"], 1.5)


def test_uids_are_hidden_in_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    """An error's text is a value of the event, too."""
    set_up_log(LogSection(hide_uids=True, format="json"))
    try:
        raise OSError(f"/spool/{STUDY}/1.dcm")
    except OSError:
        structlog.get_logger().exception("unforeseen")
    event = json.loads(capsys.readouterr().err)
    assert event["exception"][0]["exc_value"] == "/spool/…6789/1.dcm"
    assert STUDY not in json.dumps(event)


def test_uids_are_shown_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Without hide_uids they are what an administrator looks for."""
    set_up_log(LogSection(format="json"))
    with study_context(STUDY):
        structlog.get_logger().warning("refused", reason=STUDY)
    event = json.loads(capsys.readouterr().err)
    assert (event["study_instance_uid"], event["reason"]) == (STUDY, STUDY)
