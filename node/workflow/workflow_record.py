"""One workflow as the engine recorded it, with what cannot be read named instead of raised.

So one damaged row is the trouble of one study, and all others are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from node.errors import GlionodeError, UnreadableRecordError
from node.workflow.serialization import OtherError
from node.workflow.states import ACTIVE_STATUSES, UNREADABLE, PublishedState

if TYPE_CHECKING:
    from dbos import WorkflowStatus


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """One workflow as the engine recorded it.

    Attributes:
        engine_status: the engine's status: ENQUEUED, PENDING, SUCCESS, ERROR, CANCELLED, ...
        state: the last state that an active workflow published, or None.
        attributes: the attributes that the workflow was enqueued with, and those that were added later.
        output: the result of a workflow in SUCCESS; never a text.
        error: the reason of an ERROR.
        unreadable: which record of the workflow cannot be read, in a sentence; None: all can.
        priority: the number by which the workflow waits in its queue; lower numbers are begun first.
    """

    workflow_id: str
    engine_status: str
    state: PublishedState | None
    attributes: Mapping[str, str]
    output: Any
    error: str | None
    created: datetime
    updated: datetime
    unreadable: str | None = None
    priority: int = 0


class WorkflowMark(NamedTuple):
    """One workflow: a later mark differs once it goes on, or is described.

    Attributes:
        study_instance_uid: None if it was enqueued without, or the record does not tell it.
        attributes: as the database has them; the time of a change does not tell that they changed.
    """

    workflow_id: str
    name: str
    study_instance_uid: str | None
    engine_status: str
    updated_ms: int
    attributes: str


class EngineRow(NamedTuple):
    """The columns that a record is made of, under the names of the engine's own ``WorkflowStatus``."""

    workflow_id: str
    status: str
    attributes: Any
    created_at: int
    updated_at: int
    priority: int
    output: Any
    error: Any


def record_of(status: WorkflowStatus | EngineRow, event: Callable[[], Any]) -> WorkflowRecord:
    """The record of a workflow. ``event`` reads what it published; it is called for an active workflow only."""
    unreadable: list[str] = []
    attributes = status.attributes or {}
    if not isinstance(attributes, dict) or not all(isinstance(each, str) for each in attributes.values()):
        unreadable.append("workflow_status.attributes")
        attributes = {}
    if UNREADABLE in attributes:
        unreadable.append(attributes[UNREADABLE])
    output: Any = status.output
    error: Any = status.error
    # the engine gives back the bare text of a record that it could not read
    if isinstance(output, str | Exception):
        unreadable.append("workflow_output.output")
        output = None
    if error is not None and not isinstance(error, Exception):
        unreadable.append("workflow_output.error")
        error = None
    state = None
    if status.status in ACTIVE_STATUSES:
        try:
            message = event()
            state = None if message is None else PublishedState.from_message(message)
        # TypeError: the row names a form of records that the engine does not know
        except (UnreadableRecordError, ValueError, TypeError):
            unreadable.append("workflow_events.value of state")
    named = f"engine.database: workflow {status.workflow_id}: {', '.join(unreadable)} cannot be read"
    return WorkflowRecord(
        workflow_id=status.workflow_id,
        engine_status=status.status,
        state=state,
        attributes=attributes,
        output=output,
        error=None if error is None else _reason(status.workflow_id, error),
        created=moment(status.created_at),
        updated=moment(status.updated_at),
        unreadable=named if unreadable else None,
        priority=status.priority or 0,
    )


def _reason(workflow_id: str, error: Exception) -> str:
    """The text of glionode's own errors; only the kind of other errors, whose text may repeat a header's value."""
    if isinstance(error, UnreadableRecordError) and workflow_id not in str(error):
        return f"engine.database: workflow {workflow_id}, its arguments: {error}"  # met before the workflow began
    return str(error) if isinstance(error, GlionodeError | OtherError) else type(error).__name__


def moment(epoch_ms: int | None) -> datetime:
    """A time of the engine's database."""
    return datetime.fromtimestamp((epoch_ms or 0) / 1000, UTC)
