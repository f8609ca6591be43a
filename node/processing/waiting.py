"""Where a waiting study stands in the queue, and when its turn may come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from node.workflow.priority_levels import level_of_priority
from node.workflow.sqlite_records import Records
from node.workflow.states import StudyState
from node.workflow.workflow_record import WorkflowRecord

WAITS = "ENQUEUED"
"""The engine's status of a workflow that no worker has begun."""

_RECENT = 20
_STEPS = ("segment", "report")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The place of a study that no worker has begun.

    Attributes:
        place: 1 for the study that is begun next.
        of: how many studies wait.
        level: its priority, as a name or a number.
        estimated_seconds: until a worker begins it; None: no study has been processed yet by which to estimate.
    """

    place: int
    of: int
    level: str
    estimated_seconds: float | None

    def __str__(self) -> str:
        seconds = self.estimated_seconds
        about = "no estimate" if seconds is None else f"begun in about {_rounded(seconds)}"
        return f"place {self.place} of {self.of} in the queue, priority {self.level}, {about}"


def _rounded(seconds: float) -> str:
    if seconds < 60:
        return "a minute" if seconds > 0 else "a moment"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"


def waiting_places(client: Records, records: Sequence[WorkflowRecord]) -> dict[str, Waiting]:
    """The place of every waiting workflow of ``records``, which are all workflows ``process``, by its id.

    The estimate takes the workflows ahead to last as long as the recent ones did (the median of their steps ``segment``
    and ``report``), on as many workers as are at work now, each of which has just begun.

    Raises:
        EngineError: the database does not answer.
    """
    queue = [each for each in records if each.engine_status == WAITS]
    queue.sort(key=lambda each: (each.priority, each.created))  # as the engine takes them; stable for equal times
    if not queue:
        return {}
    seconds = _usual_seconds(client, records)
    busy = sum(each.engine_status == "PENDING" for each in records)
    found = {}
    for ahead, record in enumerate(queue):
        rounds = ahead // max(busy, 1) + (busy > 0)
        estimate = None if seconds is None else rounds * seconds
        found[record.workflow_id] = Waiting(ahead + 1, len(queue), level_of_priority(record.priority), estimate)
    return found


def _usual_seconds(client: Records, records: Sequence[WorkflowRecord]) -> float | None:
    """The median time of the latest workflows that were reported; None: there is none."""
    reported = [
        each
        for each in records
        if each.engine_status == "SUCCESS"
        and isinstance(each.output, dict)
        and each.output.get("state") == StudyState.REPORTED
    ]
    latest = sorted(reported, key=lambda each: each.updated)[-_RECENT:]
    times = client.step_seconds([each.workflow_id for each in latest], _STEPS) if latest else {}
    return median(times.values()) if times else None
