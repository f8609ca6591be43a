"""Which of a study's orders came before which: what is known already, what need not run any more, what runs next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from node.processing.request import ProcessingRequest, attempt_id, attempt_of, order_of, with_first_creation_time
from node.workflow.engine import WorkflowClient, WorkflowRecord

COMPARED = "compared"
"""State of a workflow that only found out, by images, which selection is to be done: another workflow does it."""

_COMPARING, _JUDGED = "comparing", "judged-"
_WAITING = ("ENQUEUED", "DELAYED")


def request_attributes(request: ProcessingRequest) -> dict[str, str]:
    """What is kept beside the order's workflows: the study, that these instances were judged, that it compares."""
    words = {"study_instance_uid": request.study_instance_uid, f"{_JUDGED}{request.instances}": "yes"}
    return words | {_COMPARING: request.workflow_id} if request.is_undecided else words


def workflows_of_study(client: WorkflowClient, study_instance_uid: str) -> list[WorkflowRecord]:
    """The workflows of a study, oldest first.

    Raises:
        EngineError: the database does not answer.
    """
    return client.workflows("process", attributes={"study_instance_uid": study_instance_uid})


def judged(records: Iterable[WorkflowRecord]) -> frozenset[str]:
    """Digests of instances (``ProcessingRequest.instances``) that the workflows were started for or found unchanged."""
    return frozenset(
        word.removeprefix(_JUDGED) for each in records for word in each.attributes if word.startswith(_JUDGED)
    )


def judged_by_study(client: WorkflowClient) -> dict[str, frozenset[str]]:
    """As `judged`, for every study that the engine knows.

    Raises:
        EngineError: the database does not answer.
    """
    by_study: dict[str, list[WorkflowRecord]] = {}
    for record in client.workflows("process"):
        by_study.setdefault(record.attributes["study_instance_uid"], []).append(record)
    return {uid: judged(records) for uid, records in by_study.items()}


def successor_id(record: WorkflowRecord) -> str | None:
    """The workflow that does what this one only found out; None if this one did it itself."""
    output = record.output if isinstance(record.output, dict) else {}
    return str(output["follows"]) if output.get("state") == COMPARED else None


def earlier_requests(records: Sequence[WorkflowRecord], request_id: str) -> tuple[str, ...]:
    """The study's other orders, newest first."""
    others = (order_of(each.workflow_id) for each in reversed(records))
    return tuple(dict.fromkeys(each for each in others if each != request_id))


def later_request(records: Sequence[WorkflowRecord], workflow_id: str) -> WorkflowRecord | None:
    """A workflow of another selection that was ordered after ``workflow_id``; one that still compares does not count.

    It may find out that nothing changed.
    """
    ids = [each.workflow_id for each in records]
    after = records[ids.index(workflow_id) + 1 :] if workflow_id in ids else ()
    others = [each for each in after if order_of(each.workflow_id) != order_of(workflow_id) and not _is_comparing(each)]
    return others[-1] if others else None


def _is_comparing(record: WorkflowRecord) -> bool:
    """True of the comparison itself; what follows it inherits its words."""
    return record.attributes.get(_COMPARING) == order_of(record.workflow_id)


def cancel_waiting(client: WorkflowClient, records: Iterable[WorkflowRecord], request_id: str) -> None:
    """End the study's other orders that still wait for their turn."""
    for record in records:
        if record.engine_status in _WAITING and order_of(record.workflow_id) != request_id:
            client.cancel(record.workflow_id)


def request_after_comparison(
    client: WorkflowClient, request: ProcessingRequest, workflow_id: str, work_folder: Path
) -> tuple[str, ProcessingRequest | None]:
    """What comes after the comparison ``workflow_id``, which gave ``order``: a workflow's id, and its order.

    Without an order there is nothing to start: the selection is known already, or the study has a later one. What a
    human asked for is done again all the same. May be called twice.

    Raises:
        EngineError: the database does not answer.
    """
    records = workflows_of_study(client, request.study_instance_uid)
    known = [each.workflow_id for each in records if order_of(each.workflow_id) == request.workflow_id]
    later = later_request(records, workflow_id)
    if later is not None and order_of(later.workflow_id) != request.workflow_id:
        return later.workflow_id, None
    if known and not request.force:
        return max(known, key=attempt_of), None
    cancel_waiting(client, (each for each in records if not _is_comparing(each)), request.workflow_id)
    attempt = max(attempt_of(workflow_id), 1 + max(map(attempt_of, known), default=0))
    earlier = tuple(each for each in request.earlier if each != request.workflow_id)
    anew = with_first_creation_time(replace(request, earlier=earlier), work_folder / request.workflow_id)
    return attempt_id(request.workflow_id, attempt), anew
