"""What the steps of a delivery return, as `node.workflow.records` keeps it.

What the destination says to a request for storage commitment or to a query is recorded as the SCU's own outcome
(`CommitmentOutcome`, `QueryOutcome`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlannedInstance:
    """One SOP instance that is to be sent: the name of its file in the results' folder, and its UID."""

    file: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent (step ``plan``).

    Attributes:
        is_to_be_committed: the destination shall commit to keep the instances.
        trouble: why the results cannot be read now; None: they were read.
    """

    is_to_be_committed: bool = False
    instances: list[PlannedInstance] = field(default_factory=list)
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the destination answered for one instance (step ``send`` returns one for each file, in the files' order).

    Attributes:
        status: DIMSE or HTTP status; None: no answer.
        is_permanent: sending the instance again would change nothing.
    """

    status: int | None
    is_delivered: bool
    is_permanent: bool
    reason: str | None


@dataclass(slots=True)
class InstanceProgress:
    """How far one instance is. The workflow's result lists it with these keys.

    Attributes:
        status, reason: of the destination's last answer.
        attempts: how often the instance was sent.
    """

    file: str
    sop_instance_uid: str
    status: int | None = None
    is_delivered: bool = False
    is_committed: bool = False
    reason: str | None = None
    attempts: int = 0
