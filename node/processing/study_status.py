"""The status of each study, read from the spool and the workflows. Read-only; nothing is stored here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from node.config import Config
from node.errors import UnreadableRecordError
from node.processing.attention import attention_of_studies, held_text
from node.processing.request_records import digest_of, judged, lost_text, study_of, successor_id
from node.processing.study_ledger import open_records
from node.processing.waiting import Waiting, waiting_places
from node.scp.removal import received_studies
from node.workflow.sqlite_records import Records
from node.workflow.states import (
    ACTIVE_STATUSES,
    CRASHED_TOO_OFTEN,
    DeliveryState,
    DeliveryStatus,
    PublishedState,
    StudyState,
)
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord

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
        waiting: its place in the queue, if no worker has begun it.
        judged: digests of the sets of instances that were judged; not part of `as_dict`.
        attention: sentences about corrections, conflicts and withdrawals of its instances (`attention`).
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
    waiting: Waiting | None = None
    judged: frozenset[str] = frozenset()
    attention: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """For humans: the reason, or the place in the queue."""
        return self.reason or ("" if self.waiting is None else str(self.waiting))

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
            "waiting": None if self.waiting is None else asdict(self.waiting),
            "attention": list(self.attention),
        }


def read_study_statuses(config: Config, client: Records | None = None) -> list[StudyStatus]:
    """Every study, oldest first. ``client``: used instead of opening the database again.

    Raises:
        EngineError: the database does not answer, or is missing although there are studies.
    """
    if client is None:
        with open_records(config) as own:
            return [] if own is None else read_study_statuses(config, own)
    requests, deliveries = client.workflows("process"), client.workflows("deliver")
    statuses = statuses_of(requests, deliveries)
    statuses += receiving_studies(config, {status.study_instance_uid for status in statuses})
    return complete_statuses(config, statuses, waiting_places(client, requests))


def statuses_of(
    requests: Iterable[WorkflowRecord],
    deliveries: Iterable[WorkflowRecord],
    study: Callable[[WorkflowRecord], str] = study_of,
) -> list[StudyStatus]:
    """The status of each study that has a request, without what `complete_statuses` adds.

    Args:
        deliveries: at least those of these requests.
        study: returns the Study Instance UID of a request.
    """
    by_study: dict[str, list[WorkflowRecord]] = {}
    for record in requests:
        by_study.setdefault(study(record), []).append(record)
    by_processing = _by_processing(deliveries)
    return [_status(uid, records, by_processing) for uid, records in by_study.items()]


def complete_statuses(
    config: Config, statuses: Iterable[StudyStatus], places: Mapping[str, Waiting]
) -> list[StudyStatus]:
    """The statuses with what does not stand in the study's own workflows, oldest first.

    Args:
        places: the places in the queue by workflow id.
    """
    statuses = list(statuses)
    attention = attention_of_studies(config.spool_folder, {each.study_instance_uid for each in statuses})
    told = [
        replace(
            each,
            waiting=places.get(each.workflow_id or ""),
            attention=each.attention + attention.get(each.study_instance_uid, ()),
        )
        for each in statuses
    ]
    return sorted(told, key=lambda status: status.since)


def receiving_studies(config: Config, requested: Container[str]) -> list[StudyStatus]:
    """The studies in the spool that are not among those ``requested``."""
    statuses = []
    for uid in received_studies(config.spool_folder):
        if uid not in requested:
            try:
                arrived = datetime.fromtimestamp((config.spool_folder / uid).stat().st_mtime, UTC)
            except FileNotFoundError:  # retention deleted the study meanwhile
                continue
            statuses.append(StudyStatus(uid, None, StudyState.RECEIVING, None, arrived, {}))
    return statuses


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
    state, reason = _known(StudyState, published_state(record), record)
    if record.engine_status == "DELAYED" and earlier:
        state, reason = StudyState.WAITING, published_state(earlier[-1]).reason
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
        kind=_kind(record),
        folder=digest_of(record),
        judged=judged(records),
        attention=(*held_text(records[-1].attributes), *lost_text(records[-1].attributes)),
    )


def _kind(record: WorkflowRecord) -> str | None:
    """Class name of the error with whose text the workflow ended."""
    if record.unreadable is not None:
        return UnreadableRecordError.__name__
    kind = record.output.get("kind") if isinstance(record.output, dict) else None
    return kind if isinstance(kind, str) else None


def _after_deliveries(statuses: list[DeliveryStatus]) -> tuple[StudyState, str | None]:
    """State and reason of a study whose results are being delivered."""
    failed = [each.reason for each in statuses if each.state == DeliveryState.FAILED and each.reason]
    if failed:
        return StudyState.FAILED, "; ".join(failed)
    states = {each.state for each in statuses}
    if states == {DeliveryState.COMMITTED}:
        return StudyState.COMMITTED, None
    if states <= {DeliveryState.PRESENT, DeliveryState.COMMITTED}:
        return StudyState.PRESENT, None
    if states <= {DeliveryState.DELIVERED, DeliveryState.COMMITTING, DeliveryState.PRESENT, DeliveryState.COMMITTED}:
        return StudyState.DELIVERED, None
    return StudyState.REPORTED, None


def _delivery_status(record: WorkflowRecord) -> DeliveryStatus:
    state, reason = _known(DeliveryState, published_state(record), record)
    if state == DeliveryState.COMMITTED and reason is not None:
        # glionode 0.1.0 ended so a delivery whose instances a query found; what is reported committed has no remark
        state = DeliveryState.PRESENT
    return DeliveryStatus(state, reason)


def _known(states: type[S], published: PublishedState, record: WorkflowRecord) -> tuple[S, str | None]:
    """The published state as one of ``states``; one that this version does not know is a failure that names it."""
    if published.state in list(states):
        return states(published.state), published.reason
    text = f"workflow {record.workflow_id} has the state '{published.state}', which this version does not know"
    return states("failed"), f"engine.database: {text}"


def published_state(record: WorkflowRecord) -> PublishedState:
    """The state and reason that a running workflow published last, or with which a workflow ended."""
    if record.unreadable is not None:
        return PublishedState(StudyState.FAILED, record.unreadable)
    if record.engine_status == "SUCCESS":
        try:
            return PublishedState.from_message(record.output if isinstance(record.output, dict) else None)
        except ValueError:
            text = f"engine.database: workflow {record.workflow_id}: workflow_output.output holds no state"
            return PublishedState(StudyState.FAILED, text)
    if record.engine_status in ACTIVE_STATUSES:
        return record.state or PublishedState(StudyState.STABLE)
    if record.engine_status == "CANCELLED":
        return PublishedState(StudyState.CANCELLED)
    if record.engine_status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return PublishedState(StudyState.FAILED, CRASHED_TOO_OFTEN)
    return PublishedState(StudyState.FAILED, record.error or record.engine_status)
