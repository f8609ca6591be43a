"""How far a delivery is: the answer for each instance, attempts, and pauses between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from node.config_sections import DeliverySection
from node.delivery.records import Answer, InstanceProgress, PlannedInstance
from node.dicom.commitment import CommitmentReport
from node.errors import DeliveryError
from node.workflow.retry_pauses import RetryPauses
from node.workflow.states import DeliveryState
from node.workflow.steps import Steps

log = structlog.get_logger()


class DeliveryProgress:
    """The progress of one delivery, kept in memory: after a restart, the workflow's recorded steps restore it.

    Attributes:
        name: the destination's name.
        pauses: between attempts, at sending and at commitment.
        attempts: how often instances were sent.
        refused: files of the instances that the destination refused for good.
    """

    def __init__(self, section: DeliverySection, steps: Steps, name: str) -> None:
        self._section = section
        self._steps = steps
        self.name = name
        self._instances: list[InstanceProgress] = []
        self.refused: set[str] = set()
        self.attempts = 0
        self.pauses = RetryPauses(section)

    def begin(self, instances: Sequence[PlannedInstance]) -> None:
        """Begin with the instances that are to be sent."""
        self._instances = [InstanceProgress(each.file, each.sop_instance_uid) for each in instances]
        self.pauses.restart()

    @property
    def undelivered(self) -> list[str]:
        """Files of the instances that the destination has not stored."""
        return [each.file for each in self._instances if not each.is_delivered]

    @property
    def uncommitted(self) -> list[str]:
        """Files of the instances that the destination has not committed to."""
        return [each.file for each in self._instances if not each.is_committed]

    def uids_of(self, files: Collection[str]) -> frozenset[str]:
        """SOP Instance UIDs of the instances in ``files``."""
        return frozenset(each.sop_instance_uid for each in self._instances if each.file in files)

    def take_answers(self, files: Sequence[str], answers: Sequence[Answer]) -> None:
        """Take in the destination's answers, one for each of ``files``."""
        by_file = {each.file: each for each in self._instances}
        for file, answer in zip(files, answers, strict=True):
            instance = by_file[file]
            instance.status, instance.reason = answer.status, answer.reason
            instance.is_delivered = answer.is_delivered
            instance.attempts += 1
            if answer.is_permanent:
                self.refused.add(file)

    def take_report(self, number: int, report: CommitmentReport) -> None:
        """Take in the report on request ``number`` for commitment, counted from 1.

        Of reports on several requests the one on the latest counts; of several on one request, a failure. So a late
        report on an earlier request does not undo a later refusal, and no refusal is undone by another report on it.
        """
        for each in self._instances:
            uid, is_later = each.sop_instance_uid, number > each.reported_in
            if uid in report.failed and (is_later or number == each.reported_in):
                each.is_committed, each.failure_reason = False, report.failed[uid]
                each.reported_in = number
            elif uid in report.committed and is_later:
                each.is_committed, each.failure_reason = True, None
                each.reported_in = number

    def unreported(self, number: int) -> list[str]:
        """Files of the instances that are neither committed nor named by the reports on request ``number``."""
        return [each.file for each in self._instances if not each.is_committed and each.reported_in != number]

    @property
    def failures(self) -> list[int]:
        """Why the destination refused to commit to instances that it has not committed to since."""
        return [each.failure_reason for each in self._instances if each.failure_reason is not None]

    def take_presence(self, sop_instance_uids: Collection[str]) -> bool:
        """Take in which instances a query found; True if each one is committed or found, and none is refused."""
        for each in self._instances:
            each.is_present = each.sop_instance_uid in sop_instance_uids
        return not self.failures and all(each.is_committed or each.is_present for each in self._instances)

    @property
    def lacking(self) -> list[str]:
        """Files of the instances that the destination refused to commit to, or that no query found, either."""
        return [
            each.file
            for each in self._instances
            if not each.is_committed and (each.failure_reason is not None or not each.is_present)
        ]

    def send_uncommitted_again(self) -> None:
        """Mark the instances of `lacking` as undelivered."""
        lacking = self.lacking
        for each in self._instances:
            each.is_delivered = each.file not in lacking

    @property
    def remarks(self) -> str | None:
        """The answers that say more than that an instance was stored; None: there is none."""
        said = [f"{each.file} {each.reason}" for each in self._instances if each.is_delivered and each.status]
        return "; ".join(said) or None

    def describe(self) -> str:
        """The last answer for each instance. The instance is named by its file, which holds no patient data."""
        return "; ".join(f"{each.file} {'delivered' if each.is_delivered else each.reason}" for each in self._instances)

    def wait(self, reason: str) -> None:
        """Publish ``reason`` and wait for the next pause.

        Raises:
            DeliveryError: ``delivery.give_up_days`` are over.
        """
        if self.pauses.is_over:
            raise DeliveryError(f"{self.name}: given up after {self._section.give_up_days:g} days: {reason}")
        self._steps.publish(DeliveryState.RETRYING, reason)
        self._steps.sleep(self.pauses.next_seconds())

    def result(self, state: DeliveryState, reason: str | None) -> dict[str, Any]:
        """Publish the delivery's end; returns the workflow's result as plain JSON values."""
        self._steps.publish(state)
        log.info(f"results_{state}", attempts=self.attempts, reason=reason)
        instances = [asdict(each) for each in self._instances]
        return {"state": str(state), "reason": reason, "attempts": self.attempts, "instances": instances}
