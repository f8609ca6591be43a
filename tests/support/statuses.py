"""Delivery statuses for tests, written as humans read them."""

from __future__ import annotations

from node.workflow.states import DeliveryState, DeliveryStatus, PublishedState


def delivery_status(text: str) -> DeliveryStatus:
    """The status that is shown as ``text``, such as ``retrying: no answer``."""
    published = PublishedState.from_message(text)
    return DeliveryStatus(DeliveryState(published.state), published.reason)


def delivery_statuses(**texts: str) -> dict[str, DeliveryStatus]:
    """Destination name to `delivery_status`."""
    return {name: delivery_status(text) for name, text in texts.items()}
