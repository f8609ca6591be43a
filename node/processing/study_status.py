"""What became of each study: spool and workflows seen together. Read-only; nothing is kept here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from node.config import Config
from node.processing.request import order_of
from node.processing.request_history import judged, successor_id
from node.scp.spool import Spool
from node.workflow.engine import ACTIVE, WorkflowClient, WorkflowRecord


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """One study as its latest workflow left it.

    Attributes:
        state: receiving, stable, comparing, selected, segmented, reported, delivered, committed; refused, failed,
            cancelled, or waiting to be tried again. A comparison that is over is seen through what follows it.
        reason: why there is no result.
        deliveries: destination name to its state.
        ordered: when the workflow was ordered; None: not yet.
        kind: name of the error that the reason came from.
        folder: name of the results' folder in ``work/``.
        judged: the sets of instances that were looked at; for the node alone, not told.
    """

    study_instance_uid: str
    workflow_id: str | None
    state: str
    reason: str | None
    since: datetime
    deliveries: dict[str, str]
    ordered: datetime | None = None
    kind: str | None = None
    folder: str | None = None
    judged: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; stable: keys are only ever added."""
        ordered = None if self.ordered is None else self.ordered.isoformat()
        told = {key: value for key, value in asdict(self).items() if key != "judged"}
        return told | {"since": self.since.isoformat(), "ordered": ordered}


def read_study_statuses(config: Config, client: WorkflowClient | None = None) -> list[StudyStatus]:
    """Every study, oldest first. ``client``: one to use instead of opening the database anew."""
    own = client or WorkflowClient(config)
    try:
        requests: dict[str, list[WorkflowRecord]] = {}
        for record in own.workflows("process"):
            requests.setdefault(record.attributes["study_instance_uid"], []).append(record)
        deliveries = _by_study_workflow(own.workflows("deliver"))
    finally:
        if client is None:
            own.close()
    lines = [_line(uid, records, deliveries) for uid, records in requests.items()]
    spool = Spool(config.spool_folder)
    for uid in spool.studies():
        if uid not in requests:
            arrived = datetime.fromtimestamp(spool.study_folder(uid).stat().st_mtime, UTC)
            lines.append(StudyStatus(uid, None, "receiving", None, arrived, {}))
    return sorted(lines, key=lambda line: line.since)


def _by_study_workflow(deliveries: list[WorkflowRecord]) -> dict[str, dict[str, WorkflowRecord]]:
    """Workflow id of the study to destination name to delivery; a delivery is called <workflow id>-<destination>."""
    found: dict[str, dict[str, WorkflowRecord]] = {}
    for record in deliveries:
        parent, _, name = record.workflow_id.partition("-")
        found.setdefault(parent, {})[name] = record
    return found


def _line(uid: str, records: list[WorkflowRecord], deliveries: dict[str, dict[str, WorkflowRecord]]) -> StudyStatus:
    ids = {each.workflow_id for each in records}
    *earlier, record = [each for each in records if successor_id(each) not in ids] or records
    children = deliveries.get(record.workflow_id, {})
    state, reason = _state(record)
    if record.engine_status == "DELAYED" and earlier:
        state, reason = "waiting to be tried again", _state(earlier[-1])[1]
    states = {name: _state(child) for name, child in children.items()}
    if state == "reported" and states:
        failed = [text for each, text in states.values() if each == "failed" and text]
        if failed:
            state, reason = "failed", "; ".join(failed)
        elif all(each == "committed" for each, _ in states.values()):
            state = "committed"
        elif all(each in ("delivered", "committed", "committing") for each, _ in states.values()):
            state = "delivered"
    texts = {name: each if text is None else f"{each}: {text}" for name, (each, text) in states.items()}
    since = max([record.updated, *(child.updated for child in children.values())])
    kind = record.output.get("kind") if isinstance(record.output, dict) else None
    folder = order_of(record.workflow_id)
    facts = (record.created, kind, folder, judged(records))
    return StudyStatus(uid, record.workflow_id, state, reason, since, texts, *facts)


def _state(record: WorkflowRecord) -> tuple[str, str | None]:
    if record.engine_status == "SUCCESS":
        return str(record.output["state"]), record.output["reason"]
    if record.engine_status in ACTIVE:
        return record.state or "stable", None
    if record.engine_status == "CANCELLED":
        return "cancelled", None
    if record.engine_status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return "failed", "the worker died at it too often (engine.max_recoveries)"
    return "failed", record.error or record.engine_status


def read_history(config: Config, client: WorkflowClient, study_instance_uid: str) -> list[tuple[datetime, str]]:
    """Everything recorded about a study, oldest first: moment and what happened."""
    history: list[tuple[datetime, str]] = []
    arrived = [
        file.stat().st_mtime for file in Spool(config.spool_folder).study_folder(study_instance_uid).rglob("*.dcm")
    ]
    if arrived:
        history.append((datetime.fromtimestamp(min(arrived), UTC), "first instance received"))
        history.append((datetime.fromtimestamp(max(arrived), UTC), f"last of {len(arrived)} instances received"))
    attributes = {"study_instance_uid": study_instance_uid}
    for name in ("process", "deliver", "notice"):
        for record in client.workflows(name, attributes=attributes):
            history.append((record.created, f"{name} {record.workflow_id}: ordered"))
            history += [(moment, f"{name} {record.workflow_id}: {step}") for step, moment in _told(client, record)]
            if record.engine_status not in ACTIVE:
                state, reason = _state(record)
                following = successor_id(record)
                reason = f"{following} goes on" if following else reason
                history.append(
                    (record.updated, f"{name} {record.workflow_id}: {state}" + (f": {reason}" if reason else ""))
                )
    # the database keeps whole seconds: what arrived in the same one came before what was ordered
    return sorted(history, key=lambda entry: entry[0].replace(microsecond=0))


def _told(client: WorkflowClient, record: WorkflowRecord) -> list[tuple[str, datetime]]:
    """The steps of a workflow that say something to humans: not the engine's own."""
    return [(step, moment) for step, moment in client.steps(record.workflow_id) if not step.startswith("DBOS.")]
