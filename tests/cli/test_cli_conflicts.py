"""``glionode conflicts``: what is listed, and what the decisions do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run_glionode
from instances import PATIENT_ID, SERIES, STUDY, encode_instance, make_instance, sop_instance_uid

from node.scp.incoming import length_of_head
from node.scp.spool import Spool

SOP, OTHER = sop_instance_uid(1), sop_instance_uid(2)


def keep(spool: Spool, number: int, pixel: int = 0, patient_id: str = PATIENT_ID) -> None:
    """An instance arrives."""
    instance = make_instance(number, pixel=pixel)
    instance.PatientID = patient_id
    content = encode_instance(instance)
    head_bytes = length_of_head(content)
    incoming = spool.open_incoming(content[:head_bytes])
    incoming.write(content[head_bytes:])
    spool.keep(STUDY, SERIES, sop_instance_uid(number), incoming)
    incoming.discard()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """One instance corrected, one in conflict."""
    spool = Spool(tmp_path / "var" / "spool")
    for number in (1, 2):
        keep(spool, number)
    keep(spool, 1, patient_id="RIGHT-1")
    keep(spool, 2, pixel=3, patient_id="RIGHT-1")
    return spool


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The config of the spool's node."""
    file = tmp_path / "config.toml"
    file.write_text('[node]\nfolder = "var"\n', encoding="utf-8")
    return file


def listed(config_file: Path, *arguments: str) -> dict[str, list[dict]]:
    """What --json prints."""
    done = run_glionode("conflicts", *arguments, "--json", "--config", config_file)
    assert done.exit_code == 0
    return json.loads(done.output)


def test_list_names_attributes_and_no_value(spool: Spool, config_file: Path) -> None:
    """Study, series, instance, time and the keywords that differ, of conflicts and of corrections."""
    found = listed(config_file)
    (conflict,), (correction,) = found["conflicts"], found["corrections"]
    assert (conflict["sop_instance_uid"], conflict["differs"]) == (OTHER, ["PatientID", "pixel data"])
    assert (correction["sop_instance_uid"], correction["differs"]) == (SOP, ["PatientID"])
    assert conflict["study_instance_uid"] == correction["study_instance_uid"] == STUDY
    assert conflict["series_instance_uid"] == correction["series_instance_uid"] == SERIES
    table = run_glionode("conflicts", "--config", config_file).output
    assert "corrected" in table
    assert "RIGHT" not in table + json.dumps(found)
    assert listed(config_file, "1.2.3") == {"conflicts": [], "corrections": []}


def test_keep_goes_on_with_what_is_in_use(spool: Spool, config_file: Path) -> None:
    """The other version is kept for audit, and no conflict is left to decide about."""
    in_use = (spool.folder / STUDY / SERIES / f"{OTHER}.dcm").read_bytes()
    done = run_glionode("conflicts", STUDY, "--keep", "--config", config_file)
    assert done.exit_code == 0
    assert f"kept out: {OTHER}" in done.output
    assert (spool.folder / STUDY / SERIES / f"{OTHER}.dcm").read_bytes() == in_use
    assert len(list((spool.folder / ".dismissed").rglob("*.dcm"))) == 1
    again = run_glionode("conflicts", STUDY, "--keep", "--config", config_file)
    assert (again.exit_code, again.stderr) == (1, f"error: study {STUDY} has no conflict\n")


def test_take_uses_the_other_and_orders_the_study(spool: Spool, config_file: Path) -> None:
    """Of one instance; the latest of several versions is taken, and the study gets an order."""
    keep(spool, 2, pixel=4)
    done = run_glionode("conflicts", STUDY, "--instance", OTHER, "--take", "--config", config_file)
    assert done.exit_code == 0, done.output
    # the latest is taken last: whoever is interrupted and begins again takes none of the others
    assert [line.split(":")[0] for line in done.output.splitlines()[:2]] == ["kept out", "taken"]
    taken = (spool.folder / STUDY / SERIES / f"{OTHER}.dcm").read_bytes()
    assert taken.endswith(bytes([4, 0]) * 16)
    assert listed(config_file)["conflicts"] == []
    (line,) = json.loads(run_glionode("studies", "--json", "--config", config_file).output)
    assert line["workflow_id"]
    assert line["attention"] == ["2 instances were corrected"]
    history = json.loads(run_glionode("show", STUDY, "--config", config_file).output)["history"]
    told = [each["event"] for each in history if "corrected in series" in each["event"]]
    assert sorted(text.split("differs by ")[1] for text in told) == ["PatientID", "pixel data"]


@pytest.mark.parametrize(
    "arguments", [("--take",), (STUDY, "--keep", "--take"), ("../x", "--keep"), ("--instance", SOP)]
)
def test_unclear_decision_is_a_usage_error(config_file: Path, arguments: tuple[str, ...]) -> None:
    """Nothing is decided for all studies at once, or both ways."""
    assert run_glionode("conflicts", *arguments, "--config", config_file).exit_code == 2


def test_instance_that_is_in_no_conflict_is_no_conflict(spool: Spool, config_file: Path) -> None:
    """The message names it."""
    done = run_glionode("conflicts", STUDY, "--instance", SOP, "--take", "--config", config_file)
    assert (done.exit_code, done.stderr) == (1, f"error: instance {SOP} is in no conflict\n")
