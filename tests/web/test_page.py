"""The status page: what it shows, what it never shows, and when the node is not well."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest

from node.config import Config, build_config
from node.engine import WorkflowRecord
from node.metrics import Metrics
from node.web.page import Sources, build_page

STUDY = "1.2.840.99.123456789"


@dataclass
class Recorded:
    """Stands in for the engine's client: one refused study, one delivered."""

    is_empty: bool = False
    asked: list[str] = field(default_factory=list)

    def workflows(self, name: str) -> list[WorkflowRecord]:
        """All of one name."""
        self.asked.append(name)
        if self.is_empty or name != "process":
            return []
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        outcome = {"state": "refused", "reason": "no FLAIR: <b>series 3</b> is T2"}
        about = {"study_instance_uid": STUDY}
        return [WorkflowRecord("w", "SUCCESS", None, about, outcome, None, moment, moment)]


def get(path: str, tmp_path: Path, *, is_well: bool = True, is_empty: bool = False, **log: bool) -> httpx.Response:
    """What the page answers, without a network."""
    config: Config = build_config({"node": {"folder": str(tmp_path)}, "log": log})
    app = build_page(config, Sources(Recorded(is_empty), Metrics(), lambda: is_well))

    async def fetch() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
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
    }


@pytest.mark.parametrize(("is_well", "status"), [(True, 200), (False, 503)])
def test_health_tells_whether_studies_are_handed_over(is_well: bool, status: int, tmp_path: Path) -> None:
    """A receiver that no longer starts studies is not healthy."""
    assert get("/health", tmp_path, is_well=is_well).status_code == status


def test_metrics_are_in_prometheus_form(tmp_path: Path) -> None:
    """The counters have their names and no labels that could hold an identifier."""
    text = get("/metrics", tmp_path).text
    assert "# TYPE glionode_studies_started_total counter" in text
    assert STUDY not in text
