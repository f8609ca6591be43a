"""A request that took longer than its limit is a missing answer, in the records of a delivery's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from recording_steps import RecordingSteps

from node.config import build_config
from node.delivery.overdue import TolerantSteps
from node.delivery.records import Answer, Plan
from node.errors import OverdueError
from node.notify.notices import Notices
from node.scu.commitment import CommitmentOutcome, CommitmentState
from node.scu.query import QueryOutcome, QueryState
from node.workflow.records import recorded_step

REASON = "step send took longer than 1800 s (limits.request_timeouts)"


def overdue(*_: Any) -> Any:
    """Take too long."""
    raise OverdueError(REASON)


@pytest.mark.parametrize(
    ("name", "record_type", "record"),
    [
        ("plan", Plan, Plan(trouble=REASON)),
        ("send", list[Answer], 2 * [Answer(None, is_delivered=False, is_permanent=False, reason=REASON)]),
        ("commit", CommitmentOutcome, CommitmentOutcome(CommitmentState.UNANSWERED, REASON)),
        ("query", QueryOutcome, QueryOutcome(QueryState.UNANSWERED, reason=REASON)),
    ],
)
def test_overdue_step_is_an_unanswered_one(name: str, record_type: Any, record: Any) -> None:
    """Each step of a delivery gives the record with which the workflow tries again, and its reason."""
    steps = TolerantSteps(RecordingSteps("w-pacs", **{name: overdue}))
    assert recorded_step(steps, name, record_type, overdue, ["seg.dcm", "sr.dcm"]) == record


def test_records_that_are_not_forgotten_in_time_end_no_delivery() -> None:
    """Retention deletes them later; any other step that is overdue is an error."""
    assert TolerantSteps(RecordingSteps("w-pacs")).step("forget", overdue, []) is None
    with pytest.raises(OverdueError):
        TolerantSteps(RecordingSteps("w-pacs")).step("sleep", overdue)


def test_overdue_notice_is_tried_again() -> None:
    """It waits as after a service that did not accept it."""
    answers: list[Callable[..., Any]] = [lambda *_: None, overdue]

    class Patient(RecordingSteps):
        def sleep(self, seconds: float) -> None:
            self.names.append("sleep")

    steps = Patient("notice-failed-w", tell=lambda *given: answers.pop()(*given))
    outcome = Notices(build_config({})).notice(steps, "failed", "1.2.3", "")
    assert (outcome["state"], steps.names) == ("told", ["tell", "sleep", "tell"])
    assert steps.told == [f"retrying: {REASON}"]
