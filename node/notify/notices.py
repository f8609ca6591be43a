"""The workflow ``notice``, which sends a notice until the services accept it, and the function that starts it."""

from __future__ import annotations

from typing import Any

import structlog

from node.config import Config
from node.dicom.uids import shortened
from node.errors import NotifyError, OverdueError
from node.log import study_context
from node.workflow.engine import NOTICE_QUEUE
from node.workflow.retry_pauses import RetryPauses
from node.workflow.states import NoticeState
from node.workflow.steps import Steps
from node.workflow.workflow_id import WorkflowId

log = structlog.get_logger()


def notify_humans(config: Config, steps: Steps, state: str, study_instance_uid: str, reason: str) -> None:
    """Start a notice about the study's ``state`` if ``notify.states`` names it; once for each workflow and state."""
    if config.notify.urls and state in config.notify.states:
        notice = WorkflowId.parse(steps.workflow_id).notice_of(state)
        steps.start(NOTICE_QUEUE, notice, str(state), study_instance_uid, reason)


class Notices:
    """The workflow ``notice`` and its step."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def notice(self, steps: Steps, state: str, study_instance_uid: str, reason: str) -> dict[str, Any]:
        """Send one notice; retry with the pauses of deliveries, for ``delivery.give_up_days``.

        Raises:
            NotifyError: ``delivery.give_up_days`` are over.
        """
        pauses = RetryPauses(self._config.delivery)
        with study_context(study_instance_uid):
            while True:
                try:
                    trouble = steps.step("tell", self.send, state, study_instance_uid, reason)
                except OverdueError as error:
                    trouble = str(error)
                if trouble is None:
                    return {"state": str(NoticeState.TOLD), "reason": None}
                if pauses.is_over:
                    raise NotifyError(trouble)
                log.warning("notice_failed", reason=trouble)
                steps.publish(NoticeState.RETRYING, trouble)
                steps.sleep(pauses.next_seconds())

    def send(self, state: str, study_instance_uid: str, reason: str) -> str | None:
        """One attempt to send; None if every service accepted the notice, else the reason."""
        # apprise is imported only where a notice is sent
        from node.notify.services import send_notice

        config = self._config
        if config.log.hide_uids:
            study_instance_uid, reason = "(hidden)", shortened(reason)
        try:
            send_notice(config.notify, state, study_instance_uid, reason, config.node.station_name)
        except NotifyError as error:
            return str(error)
        return None
