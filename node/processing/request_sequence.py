"""The processing requests of one study in the order of their workflows: which is known, superseded, or next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from node.dicom import uids
from node.processing.request import ProcessingRequest, with_first_creation_time
from node.processing.request_records import JUDGED, REVISION, digest_of, judged_in, successor_id
from node.series.explain import short_lines
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE
from node.workflow.states import DeliveryState, StudyState
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord

_COMPARING = "comparing"
TOLD = "told"
"""Attribute of a workflow: the digest of what its report says of the selection."""
IMAGES = "images"
"""Attribute of a workflow: `ProcessingRequest.images`; absent where it is empty."""
_WAITING = ("ENQUEUED", "DELAYED")
_AT_THE_DESTINATION = (DeliveryState.DELIVERED, DeliveryState.COMMITTING)


def request_attributes(request: ProcessingRequest) -> dict[str, str]:
    """The attributes of the request's workflows: the study, the instances that were judged, and whether it compares."""
    attributes = {"study_instance_uid": request.study_instance_uid, **judged_attribute(request)}
    attributes |= {name: value for name, value in ((IMAGES, request.images), (REVISION, request.revision)) if value}
    if request.is_undecided:
        return attributes | {_COMPARING: request.workflow_id}
    return attributes | ({TOLD: told_of(request)} if request.selection else {})


def judged_attribute(request: ProcessingRequest) -> dict[str, str]:
    """The attribute of a workflow by which the request's instances are known to have been judged."""
    return {f"{JUDGED}{request.instances}": "yes"}


def told_of(request: ProcessingRequest) -> str:
    """The digest of what the report says of the selection; of equal selections in equal words it is equal."""
    if request.selection is None:
        return ""
    return told_digest(short_lines(request.selection), request.selection.cautions)


def told_digest(short: Iterable[str], cautions: Iterable[str]) -> str:
    """The digest of a report's words: its lines about the series, and its cautions about the selection."""
    return uids.digest((*short, *cautions))[:32]


def workflows_of_study(client: WorkflowClient, study_instance_uid: str) -> list[WorkflowRecord]:
    """The workflows of a study, oldest first.

    Raises:
        EngineError: the database does not answer.
    """
    return client.workflows("process", attributes={"study_instance_uid": study_instance_uid})


def is_led_back(request: ProcessingRequest, records: Sequence[WorkflowRecord]) -> bool:
    """True if corrections, withdrawals or decisions since led back to a request that a later one took the place of."""
    in_place = _not_led_on(records)
    if not in_place or in_place[-1].attributes.get(REVISION, "") == request.revision:
        return False
    known = [digest_of(each) for each in in_place]
    return request.workflow_id in known and known[-1] != request.workflow_id


def _not_led_on(records: Sequence[WorkflowRecord]) -> list[WorkflowRecord]:
    """The records without those that led to another one of them."""
    ids = {each.workflow_id for each in records}
    return [each for each in records if successor_id(each) not in ids]


def request_once_more(request: ProcessingRequest, records: Sequence[WorkflowRecord]) -> tuple[ProcessingRequest, int]:
    """A request that `is_led_back`, as it is to be enqueued, and the number of its attempt.

    If it was reported and another result took the place of its own, it gets an id, and so UIDs, of its own. If nothing
    was told since, its results are delivered once more as they are: an order that comes too late tells nothing.
    """
    known = [each for each in records if digest_of(each) == request.workflow_id]
    is_begun = latest_report(known) is not None or any(each.engine_status in ACTIVE for each in known)
    after = records[records.index(known[-1]) + 1 :]
    if not is_begun or not any(_may_tell(each, request) for each in after):
        return request, 1 + max(WorkflowId.parse(each.workflow_id).attempt for each in known)
    own = uids.digest((request.workflow_id, "once more", records[-1].workflow_id))[:32]  # each time another
    return replace(request, workflow_id=own, regions_of=request.regions_of or request.workflow_id), 1


def _may_tell(record: WorkflowRecord, request: ProcessingRequest) -> bool:
    """True if the workflow told a result of its own, or may still do so although ``request`` is what there is now."""
    if record.engine_status == "CANCELLED" or successor_id(record):
        return False
    has_selection = TOLD in record.attributes
    if has_selection and record.attributes.get(REVISION, "") != request.revision:
        # its inputs changed since it was ordered, which ends it without a result
        return isinstance(record.output, dict) and record.output.get("state") in (
            StudyState.REPORTED,
            StudyState.REFUSED,
        )
    return True


def judged_by_study(client: WorkflowClient) -> dict[str, frozenset[str]]:
    """`judged` for every study that the engine knows, by Study Instance UID.

    Raises:
        EngineError: the database does not answer.
    """
    by_study: dict[str, list[Mapping[str, str]]] = {}
    for attributes in client.attributes("process"):
        # a workflow whose record names no study is none of a study in the spool
        by_study.setdefault(attributes.get("study_instance_uid", ""), []).append(attributes)
    return {uid: judged_in(every) for uid, every in by_study.items()}


def latest_report(records: Sequence[WorkflowRecord]) -> WorkflowRecord | None:
    """The study's latest workflow that ended with a report; None: there is none."""
    outputs = ((each, each.output if isinstance(each.output, dict) else {}) for each in reversed(records))
    return next((each for each, output in outputs if output.get("state") == StudyState.REPORTED), None)


def earlier_requests(records: Sequence[WorkflowRecord], request_id: str) -> tuple[str, ...]:
    """The digests of the study's other requests, newest first."""
    others = (digest_of(each) for each in reversed(records))
    return tuple(dict.fromkeys(each for each in others if each != request_id))


def later_request(records: Sequence[WorkflowRecord], workflow_id: str) -> WorkflowRecord | None:
    """The study's latest workflow of another request that was enqueued after ``workflow_id``; None: there is none.

    A workflow that compares images does not count, because its selection may be the same.
    """
    ids = [each.workflow_id for each in records]
    after = records[ids.index(workflow_id) + 1 :] if workflow_id in ids else ()
    digest = WorkflowId.parse(workflow_id).digest
    others = [each for each in after if digest_of(each) != digest and not _is_comparing(each)]
    return others[-1] if others else None


def _is_comparing(record: WorkflowRecord) -> bool:
    """True if ``record`` is the comparison itself; the workflow that follows it has the same attributes."""
    return record.attributes.get(_COMPARING) == digest_of(record)


def _is_cancelled(records: Sequence[WorkflowRecord], request_id: str) -> bool:
    """True if the latest workflow of the request was cancelled, for a later request of other series, say."""
    latest = [each for each in records if digest_of(each) == request_id][-1]
    return latest.engine_status == "CANCELLED"


def cancel_waiting(client: WorkflowClient, records: Iterable[WorkflowRecord], request_id: str) -> None:
    """Cancel the study's workflows of other requests, if no worker has begun them."""
    for record in records:
        if record.engine_status in _WAITING and digest_of(record) != request_id:
            client.cancel(record.workflow_id)


def cancel_outdated_deliveries(client: WorkflowClient, request: ProcessingRequest) -> list[str]:
    """Cancel deliveries of results made before the study's latest correction or withdrawal; returns their ids.

    A delivery may wait for its destination for days, and must not bring the old identity then, perhaps after the new
    one. Results that the destination has are left to the report that names them as its predecessor.
    """
    cancelled = []
    for record in client.workflows("deliver", attributes={"study_instance_uid": request.study_instance_uid}):
        is_outdated = record.attributes.get(REVISION, "") != request.revision
        has_results = record.state is not None and record.state.state in _AT_THE_DESTINATION
        if record.engine_status in ACTIVE and is_outdated and not has_results:
            client.cancel(record.workflow_id)
            cancelled.append(record.workflow_id)
    return cancelled


def request_after_comparison(
    client: WorkflowClient, request: ProcessingRequest, workflow_id: str, work_folder: Path
) -> tuple[WorkflowId, ProcessingRequest | None]:
    """The workflow that follows ``workflow_id``, which led to the selection of ``request``; and the request to enqueue.

    The request is None if there is nothing to enqueue: the same selection was requested before, or the study has a
    later request. A forced request is enqueued even if the selection was requested before. May be called twice.

    Raises:
        EngineError: the database does not answer.
    """
    records = workflows_of_study(client, request.study_instance_uid)
    ids = [WorkflowId.parse(each.workflow_id) for each in records]
    attempts = [each.attempt for each in ids if each.digest == request.workflow_id]
    later = later_request(records, workflow_id)
    if later is not None and digest_of(later) != request.workflow_id:
        return WorkflowId.parse(later.workflow_id), None
    is_comparison = any(each.workflow_id == workflow_id and _is_comparing(each) for each in records)
    if attempts and not request.force and (is_comparison or not _is_cancelled(records, request.workflow_id)):
        return WorkflowId(request.workflow_id, max(attempts)), None
    cancel_waiting(client, (each for each in records if not _is_comparing(each)), request.workflow_id)
    attempt = max(WorkflowId.parse(workflow_id).attempt, 1 + max(attempts, default=0))
    earlier = tuple(each for each in request.earlier if each != request.workflow_id)
    enqueued = with_first_creation_time(replace(request, earlier=earlier), work_folder / request.workflow_id)
    return WorkflowId(request.workflow_id, attempt), enqueued
