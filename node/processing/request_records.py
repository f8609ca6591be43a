"""What the records of a study's workflows tell without anything else: read by whatever lists studies.

Nothing heavy is imported here, so that such a command starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from node.workflow.states import StudyState
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord

JUDGED = "judged-"
"""What the name of an attribute begins with that tells which instances were judged."""
REVISION = "revision"
"""Attribute of a workflow: `ProcessingRequest.revision`; absent where it is empty."""
INPUTS_DELETED = "inputs-deleted"
"""Attribute of a workflow whose study's inputs retention deleted; empty, once the study was judged again."""
CHOICE_LOST = "choice-lost"
"""Attribute of a workflow: which choice could not be kept, and why; absent where each was kept."""


def judged(records: Iterable[WorkflowRecord]) -> frozenset[str]:
    """The digests ``ProcessingRequest.instances`` that were enqueued, or that left the selection unchanged.

    Only those since the latest correction or withdrawal: instances that are input again would look as if they had never
    been withdrawn. None, once retention has deleted the study's inputs: file names cannot tell whether it comes back
    corrected.
    """
    return judged_in([each.attributes for each in records])


def judged_in(every: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """The same, from the attributes of a study's workflows, oldest first."""
    if not every or any(attributes.get(INPUTS_DELETED) for attributes in every):
        return frozenset()
    revision = every[-1].get(REVISION, "")
    latest = (attributes for attributes in every if attributes.get(REVISION, "") == revision)
    return frozenset(key.removeprefix(JUDGED) for attributes in latest for key in attributes if key.startswith(JUDGED))


def study_of(record: WorkflowRecord) -> str:
    """The Study Instance UID of the record's study; a sentence if the record does not tell it."""
    return record.attributes.get("study_instance_uid") or unknown_study(record.workflow_id)


def unknown_study(workflow_id: str) -> str:
    """What stands in the place of a Study Instance UID that the workflow's record does not tell."""
    return f"unknown study of workflow {workflow_id}"


def successor_id(record: WorkflowRecord) -> str | None:
    """The id of the workflow that goes on with the selection to which ``record`` led; None if it led to none."""
    output = record.output if isinstance(record.output, dict) else {}
    is_led_on = output.get("state") in (StudyState.COMPARED, StudyState.RESELECTED) and output.get("follows")
    return str(output["follows"]) if is_led_on else None


def digest_of(record: WorkflowRecord) -> str:
    """The digest of the request that ``record`` processes."""
    return WorkflowId.parse(record.workflow_id).digest


def lost_text(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The sentence that a choice by hand could not be kept; none if it was."""
    return tuple(filter(None, (attributes.get(CHOICE_LOST),)))
