"""The ids of workflows: joined and parsed by one class, in the form that 0.1.0 gave them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.workflow.workflow_id import WorkflowId, WorkflowKind

DIGEST = "925edd8d094e9d8c9e20e969545e2d1c"


@pytest.mark.parametrize(
    ("text", "workflow_id", "kind"),
    [
        (DIGEST, WorkflowId(DIGEST), "process"),
        (f"{DIGEST}.2", WorkflowId(DIGEST, 2), "process"),
        (f"{DIGEST}.12", WorkflowId(DIGEST, 12), "process"),
        (f"{DIGEST}-pacs", WorkflowId(DIGEST, destination="pacs"), "deliver"),
        (f"{DIGEST}.3-pacs-2.b", WorkflowId(DIGEST, 3, "pacs-2.b"), "deliver"),
        (f"notice-failed-{DIGEST}.2", WorkflowId(DIGEST, 2, notice="failed"), "notice"),
        (f"notice-failed-{DIGEST}-pacs", WorkflowId(DIGEST, destination="pacs", notice="failed"), "notice"),
    ],
)
def test_ids_have_the_form_that_databases_hold(text: str, workflow_id: WorkflowId, kind: str) -> None:
    """Each part of an id is read, and joined again in the same form; the parts say what the workflow does."""
    assert WorkflowId.parse(text) == workflow_id
    assert str(workflow_id) == text
    assert workflow_id.kind == WorkflowKind(kind)


@given(
    digest=st.text("0123456789abcdef", min_size=1),
    attempt=st.integers(1, 10**6),
    destination=st.text(),
    notice=st.sampled_from(["", "failed", "refused", "reported"]),
)
def test_every_id_is_read_back(digest: str, attempt: int, destination: str, notice: str) -> None:
    """Whatever a destination is called, its name is read back from the id."""
    workflow_id = WorkflowId(digest, attempt, destination, notice)
    assert WorkflowId.parse(str(workflow_id)) == workflow_id


@pytest.mark.parametrize("text", ["", ".2", "-pacs", f"{DIGEST}.x", f"{DIGEST}.0", f"{DIGEST}.-1"])
def test_other_texts_are_no_ids(text: str) -> None:
    """A text without a digest, or with an attempt that is no number from 1, is an error that names it."""
    with pytest.raises(ValueError, match="no workflow id"):
        WorkflowId.parse(text)


def test_ids_of_the_workflows_around_a_study() -> None:
    """An attempt leads to its deliveries and notices, and each of them leads back to the attempt."""
    attempt = WorkflowId(DIGEST, 2)
    delivery = attempt.delivery("pacs")
    assert str(delivery) == f"{DIGEST}.2-pacs"
    assert str(delivery.notice_of("failed")) == f"notice-failed-{DIGEST}.2-pacs"
    assert delivery.processing == delivery.notice_of("failed").processing == attempt
