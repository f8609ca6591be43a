"""The second half of a delivery: the destination is asked to commit to the results (PS3.4 J), in rounds.

A report that lists an instance as failed is a refusal: it is never undone by a query, only by a later report. The
instance is sent again and asked for again. An instance that no report names is looked for by a query (C-FIND): what it
lists is *present*, which is less than committed.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from pydantic import TypeAdapter

from node.config_sections import DeliverySection
from node.delivery.destination_requests import DestinationRequests
from node.delivery.progress import DeliveryProgress
from node.dicom.commitment import PERMANENT_REASONS, CommitmentReport, describe_failure
from node.dicom.uids import derived_uid
from node.errors import DeliveryError
from node.scu.commitment import CommitmentOutcome, CommitmentState
from node.scu.query import QueryOutcome, QueryState
from node.workflow.records import recorded_step
from node.workflow.states import DeliveryState
from node.workflow.steps import Steps

log = structlog.get_logger()

COMMITMENT_TOPIC = "commitment"
"""The topic of the message that carries a report of storage commitment to the workflow that awaits it."""

_REPORT = TypeAdapter(CommitmentReport)


class CommitmentRounds:
    """Requests for commitment, each under a Transaction UID of its own, until the destination has committed to all.

    Args:
        send_all: sends what ``progress`` lists as undelivered; DeliveryError if it is refused for good.
        secret: random text from which the Transaction UIDs follow, so that a restart uses the same.
    """

    def __init__(
        self,
        section: DeliverySection,
        steps: Steps,
        requests: DestinationRequests,
        progress: DeliveryProgress,
        send_all: Callable[[], None],
        secret: str,
    ) -> None:
        self._section = section
        self._steps = steps
        self._requests = requests
        self._progress = progress
        self._send_all = send_all
        self._secret = secret
        self._asked: dict[str, frozenset[str]] = {}  # Transaction UID to the instances asked for; in their order

    def run(self) -> tuple[DeliveryState, str | None]:
        """The final state (committed, present, delivered) and a remark on it.

        Raises:
            DeliveryError: the destination refuses to commit, for good or until ``delivery.give_up_days`` are over, or
                does not hold an instance.
        """
        try:
            found = self._until_settled()
        except DeliveryError:
            self._forget()
            raise
        self._forget()
        return found

    @property
    def _is_of_0_1_0(self) -> bool:
        """True if glionode 0.1.0 began the delivery: what it recorded is gone through again in that version's steps.

        It took a report on some instances as the answer to its request, and asked once more for the others.
        """
        return not self._secret

    def _forget(self) -> None:
        """From here on, reports on what was asked for are refused."""
        self._steps.step("forget", self._requests.forget, list(self._asked))

    def _until_settled(self) -> tuple[DeliveryState, str | None]:
        steps, progress = self._steps, self._progress
        while True:
            silence = self._ask()
            if not progress.uncommitted:
                return DeliveryState.COMMITTED, None
            is_asked_again = silence is None and self._is_of_0_1_0  # a report on a part was all that it waited for
            found = None if progress.failures or is_asked_again else self._by_query(silence or "")
            if found is not None:
                self._forget()
                while (message := steps.receive(COMMITMENT_TOPIC, 0.0)) is not None:
                    self._take(_REPORT.validate_python(message))  # acknowledged while the destination was queried
                if not progress.uncommitted:
                    return DeliveryState.COMMITTED, None
                if not progress.failures:
                    return found
            reason = "; ".join(sorted({describe_failure(each) for each in progress.failures})) or silence or ""
            log.warning("commitment_failed", reason=reason)
            if progress.pauses.is_over or any(each in PERMANENT_REASONS for each in progress.failures):
                raise DeliveryError(f"{progress.name}: {', '.join(progress.lacking)} not committed: {reason}")
            steps.publish(DeliveryState.RETRYING, f"not committed: {reason}")
            steps.sleep(progress.pauses.next_seconds())
            progress.send_uncommitted_again()
            self._send_all()
            if progress.failures:  # what was refused is not as good as delivered until it is committed
                steps.publish(DeliveryState.RETRYING, f"sent and asked for again; not committed before: {reason}")
            else:
                steps.publish(DeliveryState.COMMITTING)

    def _ask(self) -> str | None:
        """Ask for what is not committed, and take in the report; why there is none, or not on all instances."""
        steps, progress = self._steps, self._progress
        number = len(self._asked) + 1
        # a delivery that began under glionode 0.1.0 has no secret, and may have asked under this UID already
        transaction_uid = derived_uid("storage commitment", self._secret or steps.workflow_id, str(number - 1))
        files = progress.uncommitted
        self._asked[transaction_uid] = progress.uids_of(files)
        while True:
            arguments = (files, transaction_uid, steps.workflow_id)
            outcome = recorded_step(steps, "commit", CommitmentOutcome, self._requests.commit, *arguments)
            if outcome.report is not None:
                self._take(outcome.report)
                if self._is_of_0_1_0 or not progress.unreported(number):
                    return None
            if outcome.state == CommitmentState.UNSUPPORTED:
                return outcome.reason
            is_asked = outcome.state in (CommitmentState.ASKED, CommitmentState.REPORTED)
            wait = self._section.commitment_wait_seconds if is_asked else progress.pauses.next_seconds()
            if self._is_reported(number, wait):
                return None
            if is_asked:
                progress.pauses.count(wait)
                is_partial = len(progress.unreported(number)) < len(files)
                return f"the report names only some instances within {wait:g} s" if is_partial else _no_report(wait)
            if progress.pauses.is_over:
                return outcome.reason

    def _is_reported(self, number: int, wait: float) -> bool:
        """Wait for reports. True once they name all instances of request ``number`` that are not committed."""
        while (message := self._steps.receive(COMMITMENT_TOPIC, wait)) is not None:
            report = _REPORT.validate_python(message)
            self._take(report)
            is_of_part_enough = self._is_of_0_1_0 and report.transaction_uid == list(self._asked)[number - 1]
            if is_of_part_enough or not self._progress.unreported(number):
                return True
        return False

    def _take(self, report: CommitmentReport) -> None:
        """Take in a report on one of this workflow's requests, and of it only what was asked for there."""
        asked = self._asked.get(report.transaction_uid)
        if asked is None:
            log.warning("commitment_report_ignored", reason="no request of this delivery has its Transaction UID")
            return
        number = list(self._asked).index(report.transaction_uid) + 1
        committed = tuple(uid for uid in report.committed if uid in asked)
        failed = {uid: reason for uid, reason in report.failed.items() if uid in asked}
        self._progress.take_report(number, CommitmentReport(report.transaction_uid, committed, failed))

    def _by_query(self, silence: str) -> tuple[DeliveryState, str | None] | None:
        """Final state and remark by a query, if there is no report; None: it does not list an instance."""
        query = self._query()
        if query.state != QueryState.ANSWERED:
            return DeliveryState.DELIVERED, f"not committed: {silence}; {query.reason}"
        if self._progress.take_presence(query.held):
            return DeliveryState.PRESENT, f"found by query: {silence}"
        return None

    def _query(self) -> QueryOutcome:
        while True:
            uncommitted = self._progress.uncommitted
            outcome = recorded_step(self._steps, "query", QueryOutcome, self._requests.query, uncommitted)
            if outcome.state != QueryState.UNANSWERED or self._progress.pauses.is_over:
                return outcome
            self._steps.sleep(self._progress.pauses.next_seconds())


def _no_report(wait: float) -> str:
    return f"no report within {wait:g} s"
