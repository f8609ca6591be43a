"""What became of each study: spool and workflows seen together. Read-only; nothing is kept here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from node.config import Config
from node.engine import ACTIVE, WorkflowClient, WorkflowRecord
from node.scp.spool import Spool


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One study: its latest workflow's state (receiving, stable, selected, segmented, reported, delivered; refused,
    failed) and, for the last two, the reason.
    """

    study_instance_uid: str
    workflow_id: str | None
    state: str
    reason: str | None
    since: datetime
    deliveries: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; stable: keys are only ever added."""
        return asdict(self) | {"since": self.since.isoformat()}


def read_ledger(config: Config, client: WorkflowClient | None = None) -> list[LedgerLine]:
    """Every study, oldest first. ``client``: one to use instead of opening the database anew."""
    own = client or WorkflowClient(config)
    try:
        latest = {record.about["study_instance_uid"]: record for record in own.workflows("process")}
        deliveries = _by_study_workflow(own.workflows("deliver"))
    finally:
        if client is None:
            own.close()
    lines = [_line(uid, record, deliveries.get(record.workflow_id, {})) for uid, record in latest.items()]
    spool = Spool(config.spool_folder)
    for uid in spool.studies():
        if uid not in latest:
            arrived = datetime.fromtimestamp(spool.study_folder(uid).stat().st_mtime, UTC)
            lines.append(LedgerLine(uid, None, "receiving", None, arrived, {}))
    return sorted(lines, key=lambda line: line.since)


def _by_study_workflow(deliveries: list[WorkflowRecord]) -> dict[str, dict[str, WorkflowRecord]]:
    """Workflow id of the study to destination name to delivery; a delivery is called <workflow id>-<destination>."""
    found: dict[str, dict[str, WorkflowRecord]] = {}
    for record in deliveries:
        parent, _, name = record.workflow_id.partition("-")
        found.setdefault(parent, {})[name] = record
    return found


def _line(uid: str, record: WorkflowRecord, children: dict[str, WorkflowRecord]) -> LedgerLine:
    state, reason = _state(record)
    states = {name: _state(child) for name, child in children.items()}
    if state == "reported" and states:
        failed = [text for each, text in states.values() if each == "failed" and text]
        if failed:
            state, reason = "failed", "; ".join(failed)
        elif all(each == "delivered" for each, _ in states.values()):
            state = "delivered"
    texts = {name: each if text is None else f"{each}: {text}" for name, (each, text) in states.items()}
    since = max([record.updated, *(child.updated for child in children.values())])
    return LedgerLine(uid, record.workflow_id, state, reason, since, texts)


def _state(record: WorkflowRecord) -> tuple[str, str | None]:
    if record.engine_status == "SUCCESS":
        return str(record.output["state"]), record.output["reason"]
    if record.engine_status in ACTIVE:
        return record.state or "stable", None
    return "failed", record.error or record.engine_status
