"""The workflow ``deliver``: sends a study's results to one destination, then has them committed if configured.

::

    sending  ->  delivered  ->  committing  ->  committed
       ^                            |
       +-- instances not committed -+

*Delivered*: the destination responded that it stored each instance. *Committed*: its report of storage commitment
(PS3.4 J) lists each instance or, if no report comes, its response to a query (C-FIND) does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from pydantic import TypeAdapter

from node.config import Config
from node.delivery.destination_requests import DestinationRequests
from node.delivery.overdue import TolerantSteps
from node.delivery.progress import DeliveryProgress
from node.delivery.records import Answer, Plan
from node.dicom.commitment import PERMANENT_REASONS, CommitmentReport, describe_failure
from node.dicom.uids import derived_uid
from node.errors import DeliveryError
from node.log import study_context
from node.notify.notices import notify_humans
from node.scu.commitment import CommitmentOutcome, CommitmentState
from node.scu.query import QueryOutcome, QueryState
from node.study import RESULT_FILES
from node.workflow.records import recorded_step
from node.workflow.states import DeliveryState, StudyState
from node.workflow.steps import Steps

log = structlog.get_logger()

COMMITMENT_TOPIC = "commitment"
"""The topic of the message that carries a report of storage commitment to the workflow that awaits it."""

_ANSWERS: Any = list[Answer]
_REPORT = TypeAdapter(CommitmentReport)


class Delivery:
    """The workflow ``deliver``. Its steps may run twice: instances are sent again under their own UIDs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def deliver(
        self,
        steps: Steps,
        study_instance_uid: str,
        folder: str,
        name: str,
        files: Sequence[str] = RESULT_FILES,
    ) -> dict[str, Any]:
        """Send ``files`` of ``folder`` to destination ``name`` until it stored all; request commitment if configured.

        Returns state (delivered, committed), reason (None: no remark on the state), attempts, and per instance: file,
        sop_instance_uid, status, is_delivered, is_committed, reason, attempts.

        Raises:
            DeliveryError: an instance is refused for good, or ``delivery.give_up_days`` are over. The text names the
                instances; humans are notified.
        """
        with study_context(study_instance_uid, destination=name):
            steps.publish(DeliveryState.SENDING)
            run = _Run(self._config, TolerantSteps(steps), folder, name)
            try:
                return run.deliver(list(files))
            except DeliveryError as error:
                notify_humans(self._config, steps, StudyState.FAILED, study_instance_uid, str(error))
                log.error("results_not_delivered", reason=str(error), attempts=run.progress.attempts)
                raise


class _Run:
    """One run of the workflow, from its beginning or, after a restart, from its recorded steps."""

    def __init__(self, config: Config, steps: Steps, folder: str, name: str) -> None:
        self._section = config.delivery
        self._steps = steps
        self._name = name
        self._requests = DestinationRequests(config, folder, name)
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
            return progress.result(DeliveryState.DELIVERED, None)
        self._steps.publish(DeliveryState.DELIVERED)
        log.info("results_delivered", attempts=progress.attempts, reason=None)
        progress.pauses.restart()
        return self._commit()

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

    def _commit(self) -> dict[str, Any]:
        self._steps.publish(DeliveryState.COMMITTING)
        transactions: list[str] = []
        try:
            state, reason = self._commit_in_rounds(transactions)
        except DeliveryError:
            self._steps.step("forget", self._requests.forget, transactions)
            raise
        self._steps.step("forget", self._requests.forget, transactions)
        return self.progress.result(state, reason)

    def _commit_in_rounds(self, transactions: list[str]) -> tuple[DeliveryState, str | None]:
        """Final state and reason. Each round requests under its own Transaction UID, added to ``transactions``."""
        steps, progress = self._steps, self.progress
        while True:
            transactions.append(derived_uid("storage commitment", steps.workflow_id, str(len(transactions))))
            failed, silence = self._report(transactions[-1])
            reason = silence or "; ".join(sorted({describe_failure(each) for each in failed.values()}))
            is_final = any(each in PERMANENT_REASONS for each in failed.values())
            note = None
            if progress.uncommitted and (silence or is_final):
                query = self._query()
                if query.state != QueryState.ANSWERED:
                    reason = f"{reason}; {query.reason}"
                    if silence:
                        return DeliveryState.DELIVERED, f"not committed: {reason}"
                progress.take_commitment(query.held)
                note = f"found by query: {reason}"
            if not progress.uncommitted:
                return DeliveryState.COMMITTED, note
            log.warning("commitment_failed", reason=reason)
            if is_final or progress.pauses.is_over:
                raise DeliveryError(f"{self._name}: {', '.join(progress.uncommitted)} not committed: {reason}")
            steps.publish(DeliveryState.RETRYING, f"not committed: {reason}")
            steps.sleep(progress.pauses.next_seconds())
            progress.send_uncommitted_again()
            self._send_all()
            steps.publish(DeliveryState.COMMITTING)

    def _report(self, transaction_uid: str) -> tuple[dict[str, int], str | None]:
        """SOP Instance UID to Failure Reason from the destination's report; or the reason why there is no report."""
        steps, progress, request = self._steps, self.progress, self._requests.commit
        while True:
            arguments = (progress.uncommitted, transaction_uid, steps.workflow_id)
            outcome = recorded_step(steps, "commit", CommitmentOutcome, request, *arguments)
            if outcome.report is not None:
                progress.take_commitment(outcome.report.committed)
                return dict(outcome.report.failed), None
            if outcome.state == CommitmentState.UNSUPPORTED:
                return {}, outcome.reason
            is_asked = outcome.state == CommitmentState.ASKED
            wait = self._section.commitment_wait_seconds if is_asked else progress.pauses.next_seconds()
            report = self._awaited(transaction_uid, wait)
            if report is not None:
                return dict(report.failed), None
            if is_asked:
                progress.pauses.count(wait)
                return {}, f"no report within {wait:g} s"
            if progress.pauses.is_over:
                return {}, outcome.reason

    def _awaited(self, transaction_uid: str, wait: float) -> CommitmentReport | None:
        """The report on this transaction; None: none in time. A late report on an earlier transaction counts, too."""
        while (message := self._steps.receive(COMMITMENT_TOPIC, wait)) is not None:
            report = _REPORT.validate_python(message)
            self.progress.take_commitment(report.committed)
            if report.transaction_uid == transaction_uid or not self.progress.uncommitted:
                return report
        return None

    def _query(self) -> QueryOutcome:
        while True:
            uncommitted = self.progress.uncommitted
            outcome = recorded_step(self._steps, "query", QueryOutcome, self._requests.query, uncommitted)
            if outcome.state != QueryState.UNANSWERED or self.progress.pauses.is_over:
                return outcome
            self._steps.sleep(self.progress.pauses.next_seconds())
