"""What goes between worker and computing process arrives unchanged; crashes of that process are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recording_steps import RecordingSteps
from small_study import make_small_study, write_small_study

from node import errors
from node.config import Config, build_config, load_config
from node.errors import DefectError, GlionodeError, SelectionRefused, UnforeseenError
from node.processing import computing
from node.processing.computing import RemotePipeline
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest, build_request
from node.study import Selection, Verdict
from node.workflow.killable_process import ProcessDied

KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GlionodeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_arrives_as_it_was(kind: type[GlionodeError]) -> None:
    """Class and text of every error of the tree are the same on the other side."""
    there = json.loads(json.dumps(computing._error_record(kind("seg.dcm: the reason"))))
    here = computing._error(there)
    assert (type(here), str(here)) == (kind, "seg.dcm: the reason")


def test_refusal_arrives_with_its_verdicts() -> None:
    """What was considered for a refused selection goes into the result, and so must arrive."""
    verdict = Verdict("1.2.3", 4, "T1 \u00fc", None, ("words",), False, "no contrast")
    error = SelectionRefused("no FLAIR", Selection("1.2", {}, (verdict,), ("a caution",)))
    here = computing._error(json.loads(json.dumps(computing._error_record(error))))
    assert isinstance(here, SelectionRefused)
    assert here.considered == error.considered


class Dying:
    """Stands in for the process: dies in the first calls, then answers."""

    def __init__(self, deaths: int) -> None:
        self.calls, self._deaths = 0, deaths

    def call(self, name: str, *arguments: Any) -> Any:
        """Die, or answer."""
        self.calls += 1
        if self.calls <= self._deaths:
            raise ProcessDied("SIGSEGV")
        return {"result": ["sr.dcm"]}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node whose studies fail after three crashes."""
    return build_config({"node": {"folder": str(tmp_path)}, "engine": {"max_recoveries": 3}})


def request_for(folder: Path, config: Config) -> ProcessingRequest:
    """The request of a study without FLAIR, which is refused."""
    study = make_small_study()
    del study["FLAIR"]
    return build_request(write_small_study(folder / "study", study), config)


@pytest.mark.parametrize(("deaths", "calls"), [(2, 3), (3, 3), (9, 3)])
def test_step_runs_again_after_crashes_until_there_were_too_many(
    deaths: int, calls: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the database does not count them; then the study fails for good."""
    monkeypatch.setattr(computing, "_CRASH_PAUSE_SECONDS", 0.0)
    pipeline = RemotePipeline(config)
    pipeline._process = process = Dying(deaths)  # type: ignore[assignment]
    request = request_for(tmp_path, config)
    if deaths < 3:
        assert pipeline.refuse(request, "f", "no FLAIR") == ["sr.dcm"]
    else:
        with pytest.raises(DefectError, match="max_recoveries"):
            pipeline.refuse(request, "f", "no FLAIR")
    assert process.calls == calls


@pytest.mark.slow
def test_worker_and_command_line_make_the_same(tmp_path: Path) -> None:
    """A study that is refused gets the same results through the computing process as in one process."""
    text = (
        '[node]\nfolder = "var"\n[delivery]\nsend_refusals = true\n[[destination]]\nname = "a"\nprotocol = "dicomweb"\n'
        'url = "http://127.0.0.1:9"\n[[destination]]\nname = "b"\nae_title = "B"\nhost = "127.0.0.1"\nport = 9\n'
    )
    (tmp_path / "config.toml").write_text(text)
    config = load_config(tmp_path / "config.toml")
    request = request_for(tmp_path, config)
    remote = RemotePipeline(config)
    made = {}
    for name, pipeline in (("here", Pipeline(config)), ("there", remote)):
        folder = tmp_path / name
        outcome = pipeline.process(RecordingSteps(request.workflow_id), request.as_json(), str(folder))
        made[name] = outcome, {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    remote.stop()
    assert made["there"] == made["here"]
    assert "refusal.dcm" in made["here"][1]


def test_process_that_does_not_start_is_an_error_outside_the_study(config: Config, tmp_path: Path) -> None:
    """The study is tried again later; it did not crash anything."""
    pipeline = RemotePipeline(config, ["false"])
    with pytest.raises(UnforeseenError, match="does not start: exit status 1"):
        pipeline.refuse(request_for(tmp_path, config), "f", "no FLAIR")
    pipeline.stop()
