"""Notices to humans about corrections, conflicts and withdrawals of a study's instances."""

from __future__ import annotations

from node.config import Config
from node.dicom import uids
from node.processing.input_state import InputState
from node.workflow.client import WorkflowClient
from node.workflow.engine import NOTICE_QUEUE
from node.workflow.workflow_id import WorkflowId

CONFLICT, CORRECTED, IS_WITHDRAWN = "conflict", "corrected", "withdrawn"
"""What notices tell beside states of a study (``notify.states``)."""


def notify_of_inputs(config: Config, client: WorkflowClient, study_instance_uid: str, state: InputState) -> None:
    """Enqueue a notice for each kind of change of the study's inputs, once for each set of changes.

    Raises:
        EngineError: the database does not answer.
    """
    hint = f"`glionode conflicts {study_instance_uid}`" if not config.log.hide_uids else "`glionode conflicts`"
    told = {
        CONFLICT: (state.conflicts, f"{len(state.conflicts)} versions of instances wait for a decision: {hint}"),
        CORRECTED: (
            [line for line in state.changes if line.startswith("superseded")],
            f"{len(state.superseded)} instances were corrected",
        ),
        IS_WITHDRAWN: ([line for line in state.changes if line.startswith("withdrawn")], state.withdrawn_text),
    }
    for name, (lines, text) in told.items():
        if config.notify.urls and name in config.notify.states and lines:
            digest = uids.digest((study_instance_uid, name, *lines))[:32]
            arguments = (name, study_instance_uid, text)
            attributes = {"study_instance_uid": study_instance_uid}
            notice = WorkflowId(digest).notice_of(name)
            client.enqueue(NOTICE_QUEUE, "notice", str(notice), *arguments, attributes=attributes)
