"""The workflow ``deliver``: sends a study's results to one destination, then has them committed if configured.

::

    sending  ->  delivered  ->  committing  ->  committed, or present
       ^                            |
       +-- instances not committed -+

*Delivered*: the destination responded that it stored each instance. *Committed*: its report of storage commitment
(PS3.4 J) lists each instance. *Present*: no report came, and its response to a query (C-FIND) lists each instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from node.audit.auditor import Auditor
from node.config import Config
from node.delivery.commitment_rounds import CommitmentRounds
from node.delivery.destination_requests import DestinationRequests
from node.delivery.overdue import TolerantSteps
from node.delivery.progress import DeliveryProgress
from node.delivery.records import Answer, Plan
from node.errors import DeliveryError
from node.log import study_context
from node.notify.notices import notify_humans
from node.study import RESULT_FILES
from node.workflow.records import recorded_step
from node.workflow.states import DeliveryState, StudyState
from node.workflow.steps import Steps

log = structlog.get_logger()

_ANSWERS: Any = list[Answer]


class Delivery:
    """The workflow ``deliver``. Its steps may run twice: instances are sent again under their own UIDs."""

    def __init__(self, config: Config, auditor: Auditor | None = None) -> None:
        self._config = config
        self._auditor = auditor

    def deliver(
        self,
        steps: Steps,
        study_instance_uid: str,
        folder: str,
        name: str,
        files: Sequence[str] = RESULT_FILES,
    ) -> dict[str, Any]:
        """Send ``files`` of ``folder`` to destination ``name`` until it stored all; request commitment if configured.

        Returns state (delivered, present, committed), reason (None: no remark on the state), attempts, and per
        instance the fields of `InstanceProgress`.

        Raises:
            DeliveryError: an instance is refused for good, or ``delivery.give_up_days`` are over. The text names the
                instances; humans are notified.
        """
        with study_context(study_instance_uid, destination=name):
            steps.publish(DeliveryState.SENDING)
            requests = DestinationRequests(self._config, folder, name, self._auditor)
            run = _Run(self._config, TolerantSteps(steps), name, requests)
            try:
                return run.deliver(list(files))
            except DeliveryError as error:
                notify_humans(self._config, steps, StudyState.FAILED, study_instance_uid, str(error))
                log.error("results_not_delivered", reason=str(error), attempts=run.progress.attempts)
                raise


class _Run:
    """One run of the workflow, from its beginning or, after a restart, from its recorded steps."""

    def __init__(self, config: Config, steps: Steps, name: str, requests: DestinationRequests) -> None:
        self._section = config.delivery
        self._steps = steps
        self._name = name
        self._requests = requests
        self.progress = DeliveryProgress(config.delivery, steps, name)

    def deliver(self, files: list[str]) -> dict[str, Any]:
        progress = self.progress
        plan = self._plan(files)
        while plan.trouble is not None:
            log.warning("delivery_failed", reason=plan.trouble, attempts=progress.attempts)
            progress.wait(plan.trouble)
            plan = self._plan(files)
        progress.begin(plan.instances)
        self._send_all()
        if not plan.is_to_be_committed:
            return progress.result(DeliveryState.DELIVERED, progress.remarks)
        self._steps.publish(DeliveryState.DELIVERED)
        log.info("results_delivered", attempts=progress.attempts, reason=progress.remarks)
        progress.pauses.restart()
        self._steps.publish(DeliveryState.COMMITTING)
        rounds = CommitmentRounds(self._section, self._steps, self._requests, progress, self._send_all, plan.secret)
        return progress.result(*rounds.run())

    def _plan(self, files: list[str]) -> Plan:
        return recorded_step(self._steps, "plan", Plan, self._requests.plan, files)

    def _send_all(self) -> None:
        progress = self.progress
        while pending := [file for file in progress.undelivered if file not in progress.refused]:
            progress.attempts += 1
            answers = recorded_step(self._steps, "send", _ANSWERS, self._requests.send, pending)
            progress.take_answers(pending, answers)
            if not set(progress.undelivered) - progress.refused:
                break
            log.warning("delivery_failed", reason=progress.describe(), attempts=progress.attempts)
            progress.wait(progress.describe())
        if progress.refused:
            raise DeliveryError(f"{self._name}: {progress.describe()}")
