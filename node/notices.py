"""The workflow that tells humans of a study: again and again until the service took it."""

from __future__ import annotations

from typing import Any

import structlog

from node.config import Config
from node.errors import NotifyError
from node.log import study_context
from node.notify import tell
from node.steps import Steps

log = structlog.get_logger()


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
        config = self._config
        shown = "(hidden)" if config.log.hide_uids else study_instance_uid
        try:
            tell(config.notify, state, shown, reason, config.node.station_name)
        except NotifyError as error:
            return str(error)
        return None
