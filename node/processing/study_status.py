"""The status of each study, read from the spool and the workflows. Read-only; nothing is stored here."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from node.config import Config
from node.errors import EngineError
from node.processing.request_sequence import digest_of, judged, successor_id
from node.scp.spool import Spool
from node.workflow.engine import ACTIVE, WorkflowClient, WorkflowRecord
from node.workflow.states import CRASHED_TOO_OFTEN, DeliveryState, DeliveryStatus, PublishedState, StudyState
from node.workflow.workflow_id import WorkflowId

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """One study: the status of its latest workflow.

    Attributes:
        state: that of the latest workflow; after a comparison of images, that of the workflow that follows it.
        reason: why there is no result.
        deliveries: destination name to the delivery's status.
        ordered: when the workflow was enqueued; None: not yet.
        kind: class name of the error whose text is the reason.
        folder: name of the results' folder in ``work/``.
        judged: digests of the sets of instances that were judged; not part of `as_dict`.
    """

    study_instance_uid: str
    workflow_id: str | None
    state: StudyState
    reason: str | None
    since: datetime
    deliveries: dict[str, DeliveryStatus]
    ordered: datetime | None = None
    kind: str | None = None
    folder: str | None = None
    judged: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; stable: keys are only ever added."""
        return {
            "study_instance_uid": self.study_instance_uid,
            "workflow_id": self.workflow_id,
            "state": str(self.state),
            "reason": self.reason,
            "since": self.since.isoformat(),
            "deliveries": {name: str(status) for name, status in self.deliveries.items()},
            "ordered": None if self.ordered is None else self.ordered.isoformat(),
            "kind": self.kind,
            "folder": self.folder,
        }


def read_study_statuses(config: Config, client: WorkflowClient | None = None) -> list[StudyStatus]:
    """Every study, oldest first. ``client``: used instead of opening the database again."""
    own = client or WorkflowClient(config)
    try:
        requests, deliveries = own.workflows("process"), own.workflows("deliver")
    finally:
        if client is None:
            own.close()
    statuses = statuses_of(requests, deliveries)
    return with_spool(config, statuses, {status.study_instance_uid for status in statuses})


def statuses_of(requests: Iterable[WorkflowRecord], deliveries: Iterable[WorkflowRecord]) -> list[StudyStatus]:
    """The status of each study that has a request. ``deliveries``: at least those of these requests."""
    by_study: dict[str, list[WorkflowRecord]] = {}
    for record in requests:
        by_study.setdefault(record.attributes["study_instance_uid"], []).append(record)
    by_processing = _by_processing(deliveries)
    return [_status(uid, records, by_processing) for uid, records in by_study.items()]


def with_spool(config: Config, statuses: Iterable[StudyStatus], requested: Container[str]) -> list[StudyStatus]:
    """``statuses`` with what the spool says, oldest first: the studies in it that are not among those ``requested``."""
    spool, statuses = Spool(config.spool_folder), list(statuses)
    for uid in spool.studies():
        if uid not in requested:
            try:
                arrived = datetime.fromtimestamp(spool.study_folder(uid).stat().st_mtime, UTC)
            except FileNotFoundError:  # retention deleted the study meanwhile
                continue
            statuses.append(StudyStatus(uid, None, StudyState.RECEIVING, None, arrived, {}))
    return sorted(statuses, key=lambda status: status.since)


def _by_processing(deliveries: Iterable[WorkflowRecord]) -> dict[WorkflowId, dict[str, WorkflowRecord]]:
    """Id of the processing workflow to destination name to the delivery of its results."""
    found: dict[WorkflowId, dict[str, WorkflowRecord]] = {}
    for record in deliveries:
        workflow_id = WorkflowId.parse(record.workflow_id)
        found.setdefault(workflow_id.processing, {})[workflow_id.destination] = record
    return found


def _status(
    uid: str, records: list[WorkflowRecord], deliveries: dict[WorkflowId, dict[str, WorkflowRecord]]
) -> StudyStatus:
    ids = {each.workflow_id for each in records}
    *earlier, record = [each for each in records if successor_id(each) not in ids] or records
    children = deliveries.get(WorkflowId.parse(record.workflow_id), {})
    published = _state(record)
    state, reason = _known(StudyState, published, record), published.reason
    if record.engine_status == "DELAYED" and earlier:
        state, reason = StudyState.WAITING, _state(earlier[-1]).reason
    statuses = {name: _delivery_status(child) for name, child in children.items()}
    if state == StudyState.REPORTED and statuses:
        state, reason = _after_deliveries(list(statuses.values()))
    return StudyStatus(
        uid,
        record.workflow_id,
        state,
        reason,
        since=max([record.updated, *(child.updated for child in children.values())]),
        deliveries=statuses,
        ordered=record.created,
        kind=record.output.get("kind") if isinstance(record.output, dict) else None,
        folder=digest_of(record),
        judged=judged(records),
    )


def _after_deliveries(statuses: list[DeliveryStatus]) -> tuple[StudyState, str | None]:
    """State and reason of a study whose results are being delivered."""
    failed = [each.reason for each in statuses if each.state == DeliveryState.FAILED and each.reason]
    if failed:
        return StudyState.FAILED, "; ".join(failed)
    states = {each.state for each in statuses}
    if states == {DeliveryState.COMMITTED}:
        return StudyState.COMMITTED, None
    if states <= {DeliveryState.DELIVERED, DeliveryState.COMMITTING, DeliveryState.COMMITTED}:
        return StudyState.DELIVERED, None
    return StudyState.REPORTED, None


def _delivery_status(record: WorkflowRecord) -> DeliveryStatus:
    published = _state(record)
    return DeliveryStatus(_known(DeliveryState, published, record), published.reason)


def _known(states: type[S], published: PublishedState, record: WorkflowRecord) -> S:
    """The published state as one of ``states``.

    Raises:
        EngineError: this version knows no such state.
    """
    try:
        return states(published.state)
    except ValueError:
        text = f"workflow {record.workflow_id} has the state '{published.state}', which this version does not know"
        raise EngineError(f"engine.database: {text}") from None


def _state(record: WorkflowRecord) -> PublishedState:
    """The state and reason that a running workflow published last, or with which a workflow ended."""
    if record.engine_status == "SUCCESS":
        return PublishedState(str(record.output["state"]), record.output["reason"])
    if record.engine_status in ACTIVE:
        return record.state or PublishedState(StudyState.STABLE)
    if record.engine_status == "CANCELLED":
        return PublishedState(StudyState.CANCELLED)
    if record.engine_status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return PublishedState(StudyState.FAILED, CRASHED_TOO_OFTEN)
    return PublishedState(StudyState.FAILED, record.error or record.engine_status)


def read_history(config: Config, client: WorkflowClient, study_instance_uid: str) -> list[tuple[datetime, str]]:
    """All recorded events of a study, oldest first: time and description."""
    history: list[tuple[datetime, str]] = []
    arrived = sorted(_arrivals(Spool(config.spool_folder).study_folder(study_instance_uid)))
    if arrived:
        history.append((datetime.fromtimestamp(arrived[0], UTC), "first instance received"))
        history.append((datetime.fromtimestamp(arrived[-1], UTC), f"last of {len(arrived)} instances received"))
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
    if record.engine_status not in ACTIVE:
        state, following = _state(record), successor_id(record)
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
