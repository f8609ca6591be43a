"""Which of a study's orders came before which, and what follows a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.processing.request import ProcessingRequest
from node.processing.request_records import judged, successor_id
from node.processing.request_sequence import (
    earlier_requests,
    later_request,
    request_after_comparison,
    request_attributes,
)
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord

BEGUN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
STUDY = "1.2.3"
A, B, UNDECIDED, LATER = "a" * 32, "b" * 32, "c" * 32, "d" * 32


@dataclass
class Client:
    """Stands in for the engine's client."""

    records: list[WorkflowRecord]
    cancelled: list[str] = field(default_factory=list)

    def workflows(self, name: str, attributes: dict[str, str]) -> list[WorkflowRecord]:
        """The study's."""
        assert (name, attributes) == ("process", {"study_instance_uid": STUDY})
        return self.records

    def cancel(self, workflow_id: str) -> None:
        """Remember it."""
        self.cancelled.append(workflow_id)


def request(workflow_id: str, **facts: object) -> ProcessingRequest:
    """An order of the study."""
    return ProcessingRequest(workflow_id, STUDY, None, None, BEGUN, instances=f"seen by {workflow_id[:1]}", **facts)


def records(*found: tuple[str, str] | tuple[str, str, str]) -> list[WorkflowRecord]:
    """Workflows, oldest first: id, the engine's status, and the comparison that each is, or follows."""
    made = []
    for minute, (workflow_id, status, *comparing) in enumerate(found):
        attributes = request_attributes(request((comparing or [workflow_id])[0], is_undecided=bool(comparing)))
        moment = BEGUN + timedelta(minutes=minute)
        made.append(WorkflowRecord(workflow_id, status, None, attributes, None, None, moment, moment))
    return made


def test_earlier_orders_are_named_newest_first() -> None:
    """Each once, whatever its attempts, and never the order itself."""
    found = records((A, "SUCCESS"), (B, "CANCELLED"), (f"{A}.2", "SUCCESS"), (LATER, "ENQUEUED"))
    assert earlier_requests(found, LATER) == (A, B)
    assert earlier_requests(found, A) == (LATER, B)


def test_later_order_is_one_of_another_selection_made_after() -> None:
    """Neither an attempt at the same order, nor one made before, nor a comparison, which may change nothing."""
    found = records((B, "SUCCESS"), (A, "SUCCESS"), (f"{A}.2", "PENDING"), (UNDECIDED, "ENQUEUED", UNDECIDED))
    assert later_request(found, A) is None
    assert later_request(found, "unknown") is None
    (after,) = records((LATER, "ENQUEUED", UNDECIDED))  # what follows a comparison counts
    found.append(replace(after, created=BEGUN + timedelta(hours=1)))
    assert later_request(found, A) == found[-1]
    assert later_request(found, B) == found[-1]


def test_sets_of_instances_are_remembered() -> None:
    """Those of every workflow of the study."""
    assert judged(records((A, "SUCCESS"), (B, "ENQUEUED"))) == {"seen by a", "seen by b"}


def test_comparison_is_followed() -> None:
    """One that ended so names what goes on; any other workflow follows nothing."""
    (record,) = records((UNDECIDED, "SUCCESS", UNDECIDED))
    assert successor_id(record) is None
    assert successor_id(replace(record, output={"state": "refused", "reason": "x"})) is None
    assert successor_id(replace(record, output={"state": "compared", "reason": None, "follows": A})) == A
    assert successor_id(replace(record, output={"state": "reselected", "reason": "x", "follows": A})) == A


@pytest.mark.parametrize(
    ("found", "force", "following", "is_new"),
    [
        ([], False, A, True),
        ([(A, "SUCCESS")], False, A, False),
        ([(A, "SUCCESS"), (f"{A}.3", "PENDING")], False, f"{A}.3", False),
        ([(A, "CANCELLED")], False, A, False),
        ([(A, "SUCCESS")], True, f"{A}.2", True),
        ([(B, "SUCCESS")], False, A, True),
    ],
    ids=["unknown", "known", "tried again", "cancelled", "by hand", "another before"],
)
def test_what_images_decided_is_done_once(
    found: list[tuple[str, str]], force: bool, following: str, is_new: bool, tmp_path: Path
) -> None:
    """A selection that is known already is only named, unless a human asked for it again."""
    client = Client(records(*found, (UNDECIDED, "PENDING", UNDECIDED)))
    decided = request(A, force=force, earlier=(A, B))
    next_id, anew = request_after_comparison(client, decided, UNDECIDED, tmp_path)
    assert (str(next_id), anew is not None) == (following, is_new)
    assert anew is None or anew.earlier == (B,)
    assert client.cancelled == []


def test_attempt_is_carried_over(tmp_path: Path) -> None:
    """What follows the third attempt at a comparison is a third attempt."""
    client = Client(records((UNDECIDED, "SUCCESS", UNDECIDED), (f"{UNDECIDED}.3", "PENDING", UNDECIDED)))
    assert request_after_comparison(client, request(A), f"{UNDECIDED}.3", tmp_path)[0] == WorkflowId(A, 3)


def test_what_images_decided_ends_what_waits(tmp_path: Path) -> None:
    """Another selection of the study that waits for its turn, or for another attempt, is superseded."""
    waiting = ((B, "SUCCESS"), (f"{B}.2", "DELAYED"), (LATER, "ENQUEUED", LATER), (UNDECIDED, "PENDING", UNDECIDED))
    client = Client(records(*waiting))
    assert request_after_comparison(client, request(A), UNDECIDED, tmp_path)[0] == WorkflowId(A)
    assert client.cancelled == [f"{B}.2"]


def test_later_order_is_not_superseded_by_a_comparison(tmp_path: Path) -> None:
    """What images decided is not begun if the study has an order that was made meanwhile."""
    client = Client(records((UNDECIDED, "PENDING", UNDECIDED), (B, "ENQUEUED")))
    assert request_after_comparison(client, request(A), UNDECIDED, tmp_path) == (WorkflowId(B), None)
    assert client.cancelled == []


def test_selection_that_was_superseded_is_done_when_pixels_lead_back_to_it(tmp_path: Path) -> None:
    """A workflow that was cancelled for a request whose series cannot be used is enqueued again, as another attempt."""
    client = Client(records((A, "SUCCESS"), (B, "CANCELLED"), (LATER, "SUCCESS")))
    following, anew = request_after_comparison(client, request(B), LATER, tmp_path)
    assert (following, anew is not None) == (WorkflowId(B, 2), True)
    client = Client(records((A, "SUCCESS"), (B, "SUCCESS"), (LATER, "SUCCESS")))
    assert request_after_comparison(client, request(B), LATER, tmp_path) == (WorkflowId(B), None)
