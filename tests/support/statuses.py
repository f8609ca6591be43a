"""Delivery statuses for tests, written as humans read them; and the marks of recorded workflows."""

from __future__ import annotations

import json
from collections.abc import Iterable

from node.workflow.states import DeliveryState, DeliveryStatus, PublishedState
from node.workflow.workflow_record import WorkflowMark, WorkflowRecord


def delivery_status(text: str) -> DeliveryStatus:
    """The status that is shown as ``text``, such as ``retrying: no answer``."""
    published = PublishedState.from_message(text)
    return DeliveryStatus(DeliveryState(published.state), published.reason)


def delivery_statuses(**texts: str) -> dict[str, DeliveryStatus]:
    """Destination name to `delivery_status`."""
    return {name: delivery_status(text) for name, text in texts.items()}


def marks_of(name: str, records: Iterable[WorkflowRecord]) -> list[WorkflowMark]:
    """What the engine's client gives as the marks of ``records``, which are called ``name``."""
    return [
        WorkflowMark(
            each.workflow_id, name, each.attributes.get("study_instance_uid"), each.engine_status,
            int(each.updated.timestamp() * 1000), json.dumps(dict(each.attributes)),
        )
        for each in records
    ]  # fmt: skip
