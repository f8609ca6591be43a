"""The workflow that tells humans of a study: again and again until the service took it. And how it is begun."""

from __future__ import annotations

from typing import Any

import structlog

from node.config import Config
from node.dicom.uids import shortened
from node.errors import NotifyError
from node.log import study_context
from node.workflow.engine import NOTICE_QUEUE
from node.workflow.steps import Steps

log = structlog.get_logger()


def notify_humans(config: Config, steps: Steps, state: str, study_instance_uid: str, reason: str) -> None:
    """Have humans told what became of a study, if the config wants it; once for each workflow and state."""
    if config.notify.urls and state in config.notify.states:
        # begins with what no delivery's id does, for these are called <digest>-<destination>
        child = f"notice-{state}-{steps.workflow_id}"
        steps.start(NOTICE_QUEUE, "notice", child, state, study_instance_uid, reason)


class Notices:
    """The steps, with what they need from the config."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def notice(self, steps: Steps, state: str, study_instance_uid: str, reason: str) -> dict[str, Any]:
        """Send one notice; with growing pauses, as deliveries are, for ``delivery.give_up_days``."""
        section = self._config.delivery
        pause, waited = section.first_retry_seconds, 0.0
        with study_context(study_instance_uid):
            while True:
                trouble = steps.step("tell", self.tell, state, study_instance_uid, reason)
                if trouble is None:
                    return {"state": "told", "reason": None}
                if waited >= section.give_up_days * 86400:
                    raise NotifyError(trouble)
                log.warning("notice_failed", reason=trouble)
                steps.tell(f"retrying: {trouble}")
                steps.sleep(pause)
                waited += pause
                pause = min(2 * pause, section.longest_retry_seconds)

    def tell(self, state: str, study_instance_uid: str, reason: str) -> str | None:
        """One attempt; None if it was told, else why not."""
        # apprise is loaded only where a notice is told
        from node.notify.services import tell

        config = self._config
        if config.log.hide_uids:
            study_instance_uid, reason = "(hidden)", shortened(reason)
        try:
            tell(config.notify, state, study_instance_uid, reason, config.node.station_name)
        except NotifyError as error:
            return str(error)
        return None
