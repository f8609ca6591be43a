"""The results of a delivery's steps, as `node.workflow.records` stores them.

The results of a request for storage commitment and of a query are the SCU's types `CommitmentOutcome` and
`QueryOutcome`.
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
    """The instances that are to be sent (step ``plan``).

    Attributes:
        is_to_be_committed: storage commitment is to be requested for the instances.
        trouble: why the results cannot be read now; None: they were read.
        secret: random; the Transaction UIDs of the requests for commitment follow from it. Empty: glionode 0.1.0 made
            the plan, whose Transaction UIDs followed from the workflow's id.
    """

    is_to_be_committed: bool = False
    instances: list[PlannedInstance] = field(default_factory=list)
    trouble: str | None = None
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The destination's answer for one instance (step ``send`` returns one per file, in the order of the files).

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
        status, reason: those of the destination's last answer.
        is_present: the last query found the instance, whether or not it is committed.
        failure_reason: why the destination refused to commit to the instance (PS3.3 C.14.1.1); None: it did not.
        attempts: how often the instance was sent.
        reported_in: number of the latest request whose report names the instance, from 1; 0: none does.
    """

    file: str
    sop_instance_uid: str
    status: int | None = None
    is_delivered: bool = False
    is_committed: bool = False
    is_present: bool = False
    failure_reason: int | None = None
    reason: str | None = None
    attempts: int = 0
    reported_in: int = 0
