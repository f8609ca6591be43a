"""States that workflows publish: a state and a reason, also if 0.1.0 wrote both into one text."""

from __future__ import annotations

import json

import pytest

from node.workflow.states import DeliveryState, DeliveryStatus, PublishedState


@pytest.mark.parametrize("reason", [None, "PACS at host:104: no answer"])
def test_published_state_is_read_back(reason: str | None) -> None:
    """A state goes through the database as plain JSON values, and its reason may hold colons."""
    published = PublishedState(DeliveryState.RETRYING, reason)
    message = json.loads(json.dumps(published.as_message()))
    assert PublishedState.from_message(message) == published
    assert type(published.as_message()["state"]) is str


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("sending", PublishedState("sending")),
        ("retrying: PACS at host:104: no answer", PublishedState("retrying", "PACS at host:104: no answer")),
    ],
)
def test_state_of_0_1_0_is_read(text: str, published: PublishedState) -> None:
    """Version 0.1.0 wrote the reason behind the state."""
    assert PublishedState.from_message(text) == published


def test_delivery_status_is_shown_as_before() -> None:
    """The command line and the page show a delivery's state, and its reason behind a colon."""
    assert str(DeliveryStatus(DeliveryState.DELIVERED)) == "delivered"
    assert str(DeliveryStatus(DeliveryState.FAILED, "pacs: 0xC000")) == "failed: pacs: 0xC000"
