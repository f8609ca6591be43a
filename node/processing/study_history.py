"""All that is recorded of one study, by its times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from node.config import Config
from node.processing.request_records import successor_id
from node.processing.study_status import published_state
from node.scp.corrections import Corrections
from node.scp.spool import Spool
from node.scp.withdrawals import withdrawals_of
from node.workflow.client import WorkflowClient
from node.workflow.states import ACTIVE_STATUSES
from node.workflow.workflow_record import WorkflowRecord


def read_history(config: Config, client: WorkflowClient, study_instance_uid: str) -> list[tuple[datetime, str]]:
    """All recorded events of a study, oldest first: time and description."""
    history: list[tuple[datetime, str]] = []
    arrived = sorted(_arrivals(Spool(config.spool_folder).study_folder(study_instance_uid)))
    if arrived:
        history.append((datetime.fromtimestamp(arrived[0], UTC), "first instance received"))
        history.append((datetime.fromtimestamp(arrived[-1], UTC), f"last of {len(arrived)} instances received"))
    history += _of_inputs(config.spool_folder, study_instance_uid)
    attributes = {"study_instance_uid": study_instance_uid}
    for name in ("process", "deliver", "notice"):
        for record in client.workflows(name, attributes=attributes):
            history += [(moment, f"{name} {record.workflow_id}: {event}") for moment, event in _events(client, record)]
    # compared in whole seconds, as the database keeps them: in one second, instances were received before the workflow
    # was enqueued
    return sorted(history, key=lambda entry: entry[0].replace(microsecond=0))


def _events(client: WorkflowClient, record: WorkflowRecord) -> Iterator[tuple[datetime, str]]:
    """The events of one workflow: enqueued, each finished step (without the engine's own steps), and its end."""
    yield record.created, "ordered"
    for step, moment in client.steps(record.workflow_id):
        if not step.startswith("DBOS."):
            yield moment, step
    if record.engine_status not in ACTIVE_STATUSES:
        state, following = published_state(record), successor_id(record)
        reason = f"{following} goes on" if following else state.reason
        yield record.updated, state.state + (f": {reason}" if reason else "")


def _arrivals(study_folder: Path) -> Iterator[float]:
    """The time when each instance of the study was stored. Retention may delete instances and the folder meanwhile."""
    for folder, _, names in os.walk(study_folder):  # os.walk skips folders that no longer exist
        for name in names:
            if name.endswith(".dcm"):
                try:
                    yield (Path(folder) / name).stat().st_mtime
                except FileNotFoundError:
                    continue


def _of_inputs(spool_folder: Path, study_instance_uid: str) -> Iterator[tuple[datetime, str]]:
    """Corrections, conflicts and withdrawals of a study with their times, one event for each series and kind.

    Raises:
        OSError: a file cannot be read.
    """
    corrections = Corrections(spool_folder)
    events: dict[str, list[datetime]] = {}
    for each in corrections.corrections(study_instance_uid):
        series, differs = each.version.series_instance_uid, ", ".join(each.differs) or "nothing any more"
        text = f"corrected in series {series}; in use differs by {differs}"
        events.setdefault(text, []).append(each.replaced or each.arrived)
    for conflict in corrections.open_conflicts(study_instance_uid):
        series, differs = conflict.version.series_instance_uid, ", ".join(conflict.differs)
        text = f"in conflict with series {series}; differs by {differs}"
        events.setdefault(text, []).append(conflict.arrived)
    for withdrawal in withdrawals_of(spool_folder, study_instance_uid).values():
        text = f"withdrawn of series {withdrawal.series_instance_uid}: {withdrawal.text}"
        events.setdefault(text, []).append(withdrawal.since)
    for text, moments in events.items():
        yield max(moments), f"{len(moments)} instances {text}"
