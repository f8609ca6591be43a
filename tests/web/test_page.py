"""The status page: what it shows, what it never shows, and when the node is not well."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.types import ASGIApp
from statuses import marks_of

from node.config import Config, build_config
from node.errors import EngineError
from node.metrics import Metrics
from node.web.page import Sources, build_page
from node.workflow.worker_signs import StepAge
from node.workflow.workflow_record import WorkflowMark, WorkflowRecord

STUDY = "1.2.840.99.123456789"


@dataclass
class Recorded:
    """Stands in for the engine's client: one refused study, and ``more`` before it."""

    is_empty: bool = False
    more: int = 0
    is_down: bool = False
    reason: str = "no FLAIR: <b>series 3</b> is T2"
    asked: list[str] = field(default_factory=list)

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """Those of all workflows of these names."""
        return [mark for name in names for mark in marks_of(name, self._records(name))]

    def workflows(self, name: str, workflow_ids: Sequence[str] | None = None) -> list[WorkflowRecord]:
        """All of one name, or those asked for."""
        self.asked.append(name)
        return [each for each in self._records(name) if workflow_ids is None or each.workflow_id in workflow_ids]

    def _records(self, name: str) -> list[WorkflowRecord]:
        if self.is_down:
            raise EngineError("engine.database: no answer")
        if self.is_empty or name != "process":
            return []
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        outcome = {"state": "refused", "reason": self.reason, "kind": "SelectionRefused"}
        attributes = {"study_instance_uid": STUDY}
        refused = WorkflowRecord("w", "SUCCESS", None, attributes, outcome, None, moment, moment)
        others = [(f"w{i}", {"study_instance_uid": f"1.2.{i}"}) for i in range(self.more)]
        return [replace(refused, workflow_id=name, attributes=study) for name, study in others] + [refused]


def get(path: str, tmp_path: Path, *, is_well: bool = True, is_empty: bool = False, **log: bool) -> httpx.Response:
    """What the page answers, without a network."""
    config: Config = build_config({"node": {"folder": str(tmp_path)}, "log": log})
    return ask(config, Recorded(is_empty), path, is_well=is_well)[0]


def ask(config: Config, client: Recorded, *paths: str, is_well: bool = True) -> list[httpx.Response]:
    """What one page answers to several requests."""
    app = build_page(config, Sources(client, Metrics(), lambda: is_well))
    return [_answer(app, path) for path in paths]


def _answer(app: ASGIApp, path: str) -> httpx.Response:
    async def fetch() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.get(path)

    return anyio.run(fetch)


def test_a_refused_study_is_shown_with_its_reason(tmp_path: Path) -> None:
    """The page names the study by UID and says why it has no result; text of a series is never markup."""
    text = get("/", tmp_path).text
    assert STUDY in text
    assert "refused" in text
    assert "no FLAIR: &lt;b&gt;series 3&lt;/b&gt; is T2" in text


def test_an_empty_node_says_so(tmp_path: Path) -> None:
    """Before the first study the page is no empty table."""
    assert "No study has been received yet" in get("/", tmp_path, is_empty=True).text


@pytest.mark.parametrize("path", ["/", "/studies.json"])
def test_uids_can_be_hidden(path: str, tmp_path: Path) -> None:
    """With log.hide_uids neither the page nor its JSON shows a whole UID."""
    text = get(path, tmp_path, hide_uids=True).text
    assert STUDY not in text
    assert STUDY[-4:] in text


@pytest.mark.parametrize("path", ["/", "/studies.json"])
def test_uids_in_reasons_can_be_hidden(path: str, tmp_path: Path) -> None:
    """With log.hide_uids no reason, of a study or of a delivery, and no caution shows a whole UID."""
    config = build_config({"node": {"folder": str(tmp_path)}, "log": {"hide_uids": True}})
    file = config.work_folder / "w" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cautions": [f"replaces the report ({STUDY})"]}), encoding="utf-8")
    client = Recorded(reason=f"holds 2 studies: 2.25.1234567, {STUDY}; at 10.0.12.7:104")
    text = ask(config, client, path)[0].text
    assert STUDY not in text
    assert "2.25.1234567" not in text
    assert "…4567" in text.replace("\\u2026", "…")
    assert "10.0.12.7:104" in text


def test_json_holds_what_the_page_shows(tmp_path: Path) -> None:
    """One object for each study, with stable keys."""
    (line,) = get("/studies.json", tmp_path).json()
    assert line == {
        "study_instance_uid": STUDY,
        "workflow_id": "w",
        "state": "refused",
        "reason": "no FLAIR: <b>series 3</b> is T2",
        "since": "2026-01-02T03:04:05+00:00",
        "deliveries": {},
        "ordered": "2026-01-02T03:04:05+00:00",
        "kind": "SelectionRefused",
        "folder": "w",
        "attention": [],
        "waiting": None,
    }


@pytest.mark.parametrize(("is_well", "status"), [(True, 200), (False, 503)])
def test_health_tells_whether_studies_are_handed_over(is_well: bool, status: int, tmp_path: Path) -> None:
    """A receiver that no longer starts studies is not healthy."""
    assert get("/health", tmp_path, is_well=is_well).status_code == status


def test_health_tells_that_no_worker_lives(tmp_path: Path) -> None:
    """In the words of whoever watches the workers."""
    config = build_config({"node": {"folder": str(tmp_path)}})
    sources = Sources(Recorded(), Metrics(), lambda: True, lambda: "engine.database: OperationalError")
    answer = _answer(build_page(config, sources), "/health")
    assert (answer.status_code, answer.text) == (503, "engine.database: OperationalError")


def test_metrics_are_in_prometheus_form(tmp_path: Path) -> None:
    """The counters have their names and no labels that could hold an identifier."""
    text = get("/metrics", tmp_path).text
    assert "# TYPE glionode_studies_started_total counter" in text
    assert STUDY not in text


def test_only_the_latest_studies_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    """A page of ten thousand rows helps nobody; the count by state is of all."""
    config = build_config({"node": {"folder": str(tmp_path)}})
    (answer,) = ask(config, Recorded(more=250), "/")
    assert answer.text.count("<tr>") == 1 + 200
    assert "and 51 earlier studies" in answer.text
    assert "refused: 251" in answer.text


@pytest.mark.parametrize(("mebibytes", "is_told"), [(1, False), (10**9, True)])
def test_free_space_is_shown_against_the_watermark(mebibytes: int, is_told: bool, tmp_path: Path) -> None:
    """Below it, the page says that nothing is received."""
    config = build_config({"node": {"folder": str(tmp_path)}, "scp": {"watermark_mebibytes": mebibytes}})
    (answer,) = ask(config, Recorded(), "/")
    assert re.search(rf"free on the spool's disk: \d+ MiB · watermark: {mebibytes} MiB", answer.text)
    assert ("nothing is received" in answer.text) is is_told


def test_the_chosen_series_and_the_cautions_are_shown(tmp_path: Path) -> None:
    """The short form of ``result.json``, why each was chosen, and what the reader should know; markup is text."""
    config = build_config({"node": {"folder": str(tmp_path)}})
    result = {"selection": {"short": ["T1c: series 801 '<b>'; the only T1c"]}, "cautions": ["T2: slices every 5 mm"]}
    file = config.work_folder / "w" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(result), encoding="utf-8")
    shown = ask(config, Recorded(), "/")[0].text
    assert "T1c: series 801 &#39;&lt;b&gt;&#39;; the only T1c<br>" in shown
    assert '<div class="caution">T2: slices every 5 mm</div>' in shown
    file.write_text(json.dumps({"selection": None}), encoding="utf-8")
    assert ask(config, Recorded(), "/")[0].status_code == 200


def test_studies_are_measured_by_state_and_refused_ones_by_kind(tmp_path: Path) -> None:
    """Counted from the ledger, which is read once for scrapes that follow one another at once."""
    config, client = build_config({"node": {"folder": str(tmp_path)}}), Recorded(more=2)
    first, second = ask(config, client, "/metrics", "/metrics")
    for line in ('glionode_studies{state="refused"} 3.0', 'glionode_studies_refused{kind="SelectionRefused"} 3.0'):
        assert line in first.text
        assert line in second.text
    assert client.asked.count("process") == 1


@pytest.mark.parametrize("path", ["/", "/studies.json"])
def test_page_says_that_the_database_does_not_answer(path: str, tmp_path: Path) -> None:
    """With the status that a proxy or a monitor understands."""
    (answer,) = ask(build_config({"node": {"folder": str(tmp_path)}}), Recorded(is_down=True), path)
    assert answer.status_code == 503
    assert answer.text.startswith("engine.database: ")


def test_metrics_answer_while_the_database_does_not(tmp_path: Path) -> None:
    """Only the studies are missing from them."""
    config = build_config({"node": {"folder": str(tmp_path)}})
    (answer,) = ask(config, Recorded(is_down=True), "/metrics")
    assert answer.status_code == 200
    assert "glionode_spool_free_bytes" in answer.text
    assert "glionode_studies{" not in answer.text


def test_steps_under_way_are_shown_with_their_age(tmp_path: Path) -> None:
    """The page lists each step and its limit; the metrics give the oldest of each name; a step that hangs is a 503."""
    steps = [StepAge("w1", "a", "segment", 90.0, 1800.0), StepAge("w2-pacs", "a", "send", 7.0, 1800.0)]
    steps.append(StepAge("w3-pacs", "a", "send", 3.0, 1800.0))
    trouble = "step segment of workflow w1 runs for 1900 s, its limit is 1800 s: worker a hangs; restart it"
    config = build_config({"node": {"folder": str(tmp_path)}})
    page = build_page(config, Sources(Recorded(), Metrics(), lambda: True, lambda: trouble, lambda: steps))
    assert "under way: segment of w1 for 90 s (limit: 1800 s)" in _answer(page, "/").text
    measured = _answer(page, "/metrics").text
    assert 'glionode_step_age_seconds{step="segment"} 90.0' in measured
    assert 'glionode_step_age_seconds{step="send"} 7.0' in measured
    health = _answer(page, "/health")
    assert (health.status_code, health.text) == (503, trouble)
