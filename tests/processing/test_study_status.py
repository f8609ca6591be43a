"""What the node says about each study, from its workflows and its spool."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from node_process import write_config
from statuses import delivery_statuses

from node.config import Config, load_config
from node.processing.study_history import read_history
from node.processing.study_status import StudyStatus, read_study_statuses
from node.scp.spool import Spool
from node.workflow.client import WorkflowClient
from node.workflow.states import DeliveryState, DeliveryStatus, PublishedState
from node.workflow.workflow_record import WorkflowRecord

BEGUN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
STUDY = "1.2.3"


@dataclass
class RecordedWorkflows:
    """Stands in for the engine's client."""

    process: list[WorkflowRecord] = field(default_factory=list)
    deliver: list[WorkflowRecord] = field(default_factory=list)

    def workflows(self, name: str) -> list[WorkflowRecord]:
        """All of one name."""
        return {"process": self.process, "deliver": self.deliver}[name]


def record(workflow_id: str, attributes: dict[str, str], **facts: Any) -> WorkflowRecord:
    """A workflow; ``minute`` (of its last change) and what else is of interest."""
    minute = facts.pop("minute", 0)
    values = {"engine_status": "ENQUEUED", "state": None, "output": None, "error": None} | facts
    if values["state"] is not None:
        values["state"] = PublishedState.from_message(values["state"])
    moment = BEGUN + timedelta(minutes=minute)
    return WorkflowRecord(workflow_id=workflow_id, attributes=attributes, created=BEGUN, updated=moment, **values)


def process(workflow_id: str = "w", study: str = STUDY, **facts: Any) -> WorkflowRecord:
    """The workflow of one study."""
    return record(workflow_id, {"study_instance_uid": study}, **facts)


def reported() -> WorkflowRecord:
    """A study whose results are made."""
    return process(engine_status="SUCCESS", state="reported", output={"state": "reported", "reason": None})


def delivery(name: str, **facts: Any) -> WorkflowRecord:
    """The delivery of study's results to one destination."""
    return record(f"w-{name}", {}, **facts)


def delivered(name: str, **facts: Any) -> WorkflowRecord:
    """A delivery that is over."""
    return delivery(name, engine_status="SUCCESS", output={"state": "delivered", "reason": None}, **facts)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path))


def only_line(config: Config, *records: WorkflowRecord) -> StudyStatus:
    """The ledger's one line; records about a study are studies, the others deliveries."""
    is_process = ["study_instance_uid" in each.attributes for each in records]
    client = RecordedWorkflows(
        [each for each, yes in zip(records, is_process, strict=True) if yes],
        [each for each, yes in zip(records, is_process, strict=True) if not yes],
    )
    (line,) = read_study_statuses(config, client)
    return line


def test_nothing_received(config: Config) -> None:
    """An empty node has an empty ledger."""
    assert read_study_statuses(config, RecordedWorkflows()) == []


def test_receiving(config: Config) -> None:
    """A study of which only the spool knows is being received."""
    (config.spool_folder / STUDY / "1.2.3.4").mkdir(parents=True)
    (config.spool_folder / ".conflicts" / "1.2.9").mkdir(parents=True)
    line = only_line(config)
    assert (line.study_instance_uid, line.workflow_id, line.state, line.reason) == (STUDY, None, "receiving", None)


@pytest.mark.parametrize("told", [None, "selected", "segmented", "reported"])
def test_on_its_way(config: Config, told: str | None) -> None:
    """A study in work is as far as its workflow told; one that waits is stable."""
    (config.spool_folder / STUDY).mkdir(parents=True)
    line = only_line(config, process(engine_status="PENDING" if told else "ENQUEUED", state=told))
    assert (line.state, line.reason) == (told or "stable", None)


def test_refused(config: Config) -> None:
    """A refused study has its reason."""
    outcome = {"state": "refused", "reason": "no FLAIR"}
    line = only_line(config, process(engine_status="SUCCESS", state="refused", output=outcome))
    assert (line.state, line.reason) == ("refused", "no FLAIR")


@pytest.mark.parametrize(
    ("engine_status", "error", "reason"),
    [
        ("ERROR", "model pack x is not installed", "model pack x is not installed"),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, "the worker died at it too often (engine.max_recoveries)"),
    ],
)
def test_failed(config: Config, engine_status: str, error: str | None, reason: str) -> None:
    """A workflow that ended in any other way has failed: its error says why, or the engine's word."""
    line = only_line(config, process(engine_status=engine_status, state="selected", error=error))
    assert (line.state, line.reason) == ("failed", reason)


def test_delivered_to_all(config: Config) -> None:
    """A study is delivered when every destination took its results, at the moment the last did."""
    line = only_line(config, reported(), delivered("a", minute=1), delivered("b", minute=2))
    assert (line.state, line.reason) == ("delivered", None)
    assert line.deliveries == delivery_statuses(a="delivered", b="delivered")
    assert line.since == BEGUN + timedelta(minutes=2)


def test_delivered_to_some(config: Config) -> None:
    """While one destination does not answer the study is reported; the destination's line says what is tried."""
    waiting = delivery("b", engine_status="PENDING", state="retrying: PACS at host:104 cannot be reached")
    line = only_line(config, reported(), delivered("a"), waiting)
    assert (line.state, line.reason) == ("reported", None)
    assert line.deliveries == delivery_statuses(a="delivered", b="retrying: PACS at host:104 cannot be reached")
    assert str(line.deliveries["b"]) == "retrying: PACS at host:104 cannot be reached"


def test_delivery_failed(config: Config) -> None:
    """One destination that will never take the results makes the study failed, with the reason."""
    refused = delivery("b", engine_status="ERROR", error="b: 0xC000 cannot understand")
    line = only_line(config, reported(), delivered("a"), refused)
    assert (line.state, line.reason) == ("failed", "b: 0xC000 cannot understand")
    assert line.deliveries["b"] == DeliveryStatus(DeliveryState.FAILED, "b: 0xC000 cannot understand")


def test_reported_without_destinations(config: Config) -> None:
    """A study of a node that sends nothing ends as reported."""
    assert only_line(config, reported()).state == "reported"


def test_latest_workflow_counts(config: Config) -> None:
    """Of a study that was processed anew, the latest workflow and only its deliveries are shown."""
    old = delivery("a", engine_status="ERROR", error="a: 0xC000 cannot understand")
    new = process("x", engine_status="PENDING", state="segmented", minute=9)
    line = only_line(config, reported(), old, new)
    assert (line.workflow_id, line.state, line.deliveries) == ("x", "segmented", {})


def test_comparison_is_seen_through_what_follows_it(config: Config) -> None:
    """A study that images decided is what became of the selection, whichever of its comparisons ended last."""
    outcome = {"state": "compared", "reason": None, "follows": "w"}
    compared = [process(each, engine_status="SUCCESS", output=outcome, minute=9) for each in ("u1", "u2")]
    line = only_line(config, compared[0], reported(), compared[1], delivered("a", minute=1))
    assert (line.workflow_id, line.folder, line.state) == ("w", "w", "delivered")
    assert (line.since, line.deliveries) == (BEGUN + timedelta(minutes=1), delivery_statuses(a="delivered"))
    assert only_line(config, compared[0]).state == "compared"  # if what follows it is not known


def test_reason_of_a_failed_attempt_is_told_beside_a_comparison(config: Config) -> None:
    """While what follows a comparison waits for its next attempt, the reason is that of its last one."""
    compared = process("u", engine_status="SUCCESS", output={"state": "compared", "reason": None, "follows": "w"})
    failed = process("w", engine_status="SUCCESS", output={"state": "failed", "reason": "no model", "kind": "X"})
    line = only_line(config, compared, failed, process("w.2", engine_status="DELAYED", minute=1))
    assert (line.state, line.reason) == ("waiting to be tried again", "no model")


def test_studies_are_in_order(config: Config) -> None:
    """Several studies stand in the order of their last change."""
    client = RecordedWorkflows([process("w1", "1.2.1", minute=5), process("w2", "1.2.2", minute=3)])
    assert [line.study_instance_uid for line in read_study_statuses(config, client)] == ["1.2.2", "1.2.1"]


def test_line_as_json_values(config: Config) -> None:
    """As JSON a line has these keys, and its moment is ISO 8601 with the time zone."""
    assert only_line(config, reported(), delivered("a")).as_dict() == {
        "study_instance_uid": STUDY,
        "workflow_id": "w",
        "state": "delivered",
        "reason": None,
        "since": "2024-01-02T03:04:05+00:00",
        "deliveries": {"a": "delivered"},
        "ordered": "2024-01-02T03:04:05+00:00",
        "kind": None,
        "attention": [],
        "folder": "w",
        "waiting": None,
    }


def test_cancelled(config: Config) -> None:
    """A study that the admin cancelled is neither failed nor on its way."""
    line = only_line(config, process(engine_status="CANCELLED", state="selected"))
    assert (line.state, line.reason) == ("cancelled", None)


def test_next_attempt_keeps_the_reason_of_the_last(config: Config) -> None:
    """While a study waits for its next attempt, its line says so, and why the one before failed."""
    failed = process("w", engine_status="SUCCESS", output={"state": "failed", "reason": "no model", "kind": "X"})
    line = only_line(config, failed, process("w.2", engine_status="DELAYED", minute=1))
    assert (line.workflow_id, line.state, line.reason) == ("w.2", "waiting to be tried again", "no model")
    assert line.folder == "w"


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("committed", "committed"), "committed"),
        (("committed", "delivered"), "delivered"),
        (("committed", "present"), "present"),
        (("present", "present"), "present"),
        (("present", "delivered"), "delivered"),
        (("present", "committing"), "delivered"),
        (("committing",) * 2, "delivered"),
    ],
)
def test_committed(config: Config, states: tuple[str, str], state: str) -> None:
    """A study is committed when every destination is; before that it is delivered."""
    children = [
        delivery(name, engine_status="SUCCESS", output={"state": each, "reason": None})
        for name, each in zip("ab", states, strict=True)
    ]
    assert only_line(config, reported(), *children).state == state


def test_delivery_that_0_1_0_ended_by_a_query_is_present(config: Config) -> None:
    """It was recorded as committed, with the remark that a query had found it; presence is no commitment."""
    outcome = {"state": "committed", "reason": "found by query: no report within 3600 s"}
    line = only_line(config, reported(), delivery("a", engine_status="SUCCESS", output=outcome))
    assert line.state == "present"
    assert str(line.deliveries["a"]) == "present: found by query: no report within 3600 s"


def test_instances_that_retention_deletes_meanwhile_are_not_counted(config: Config) -> None:
    """A file that is listed and then gone (here: a link to nothing) is left out of the history; the rest is told."""
    series = config.spool_folder / STUDY / "1.2.3.1"
    series.mkdir(parents=True)
    (series / "1.dcm").write_bytes(b"")
    (series / "2.dcm").symlink_to(series / "gone")
    with closing(WorkflowClient(config)) as client:
        events = [event for _, event in read_history(config, client, STUDY)]
    assert events == ["first instance received", "last of 1 instances received"]


def test_study_that_retention_deletes_meanwhile_is_not_listed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study whose folder is listed and then gone is no study any more."""
    monkeypatch.setattr(Spool, "studies", lambda _: [STUDY])
    assert read_study_statuses(config, RecordedWorkflows()) == []


@pytest.mark.parametrize("state", ["", "teleported", "Reported", "reported: 3"])
def test_state_of_another_version_is_a_failure_that_names_the_workflow(config: Config, state: str) -> None:
    """A state that a later version recorded is never taken for another one: for the study and for a delivery."""
    outcome = {"state": state, "reason": None}
    odd = delivery("a", engine_status="SUCCESS", output=outcome)
    for records in ([process("x", engine_status="SUCCESS", output=outcome)], [reported(), odd]):
        line = only_line(config, *records)
        assert line.state == "failed"
        assert re.search(f"workflow (x|w-a)( has the state '{state}'|: workflow_output.output holds)", str(line.reason))


def test_own_client_is_opened_and_closed(config: Config) -> None:
    """Without a client the ledger opens the database itself, also one that no worker has ever used."""
    assert read_study_statuses(config) == []
