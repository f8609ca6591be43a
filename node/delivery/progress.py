"""What a delivery workflow remembers: each instance and what was answered about it, attempts, pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from node.config_sections import DeliverySection
from node.errors import DeliveryError
from node.workflow.steps import Steps

log = structlog.get_logger()

_DAY_SECONDS = 86400.0


class DeliveryProgress:
    """How far one delivery is. It lives in the workflow: after a restart, the recorded steps build it up again."""

    def __init__(self, section: DeliverySection, steps: Steps, folder: str, name: str) -> None:
        self._section = section
        self._steps = steps
        self.folder = folder
        self.name = name
        self.instances: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.attempts = 0
        self.start_counting()

    def begin(self, instances: list[dict[str, Any]]) -> None:
        """These (file, sop_instance_uid) are to be sent."""
        facts = {"status": None, "is_delivered": False, "is_committed": False, "reason": None, "attempts": 0}
        self.instances = [{**each, **facts} for each in instances]
        self.start_counting()

    def start_counting(self) -> None:
        """From now on, pauses are short again, and the days until giving up are counted anew."""
        self._pause_seconds = self._section.first_retry_seconds
        self._waited_seconds = 0.0

    def files(self, key: str) -> list[str]:
        """Names of the files whose instances are not yet ``key`` (is_delivered, is_committed)."""
        return [each["file"] for each in self.instances if not each[key]]

    def take_answers(self, answers: list[dict[str, Any]]) -> None:
        """Note what the destination answered to an attempt; an instance is told by its UID, or its file's name."""
        known = {each[key]: each for each in self.instances for key in ("sop_instance_uid", "file")}
        for answer in answers:
            instance = known[answer.get("sop_instance_uid") or answer["file"]]
            instance |= {key: answer[key] for key in ("status", "is_delivered", "reason")}
            instance["attempts"] += 1
            if answer["is_permanent"]:
                self.refused.add(instance["file"])

    def take_commitment(self, sop_instance_uids: Sequence[str]) -> None:
        """Note what the destination holds."""
        for each in self.instances:
            each["is_committed"] = each["is_committed"] or each["sop_instance_uid"] in sop_instance_uids

    def describe(self) -> str:
        """Each instance by its file, which is no patient's data."""
        return "; ".join(
            f"{each['file']} {'delivered' if each['is_delivered'] else each['reason']}" for each in self.instances
        )

    def wait(self, reason: str) -> None:
        """The next pause before another attempt.

        Raises:
            DeliveryError: it was waited long enough.
        """
        if self.is_over:
            raise DeliveryError(f"{self.name}: given up after {self._section.give_up_days:g} days: {reason}")
        self._steps.tell(f"retrying: {reason}")
        self._steps.sleep(self.next_pause_seconds())

    @property
    def is_over(self) -> bool:
        """True if it was waited long enough. Seconds waited count, not the clock, which may jump."""
        return self._waited_seconds >= self._section.give_up_days * _DAY_SECONDS

    def count_waited(self, seconds: float) -> None:
        """Note a wait that was in vain."""
        self._waited_seconds += seconds

    def next_pause_seconds(self) -> float:
        """The next pause, counted as waited; it grows from one to the next."""
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, self._section.longest_retry_seconds)
        self.count_waited(pause)
        return pause

    def result(self, state: str, reason: str | None) -> dict[str, Any]:
        """What the workflow returns."""
        self._steps.tell(state)
        log.info(f"results_{state}", attempts=self.attempts, reason=reason)
        return {"state": state, "reason": reason, "attempts": self.attempts, "instances": self.instances}
