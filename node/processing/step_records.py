"""The results of the steps of a study's workflow, and of the workflow; `node.workflow.records` stores them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from node.workflow.states import StudyState
from node.workflow.workflow_id import WorkflowId


@dataclass(frozen=True, slots=True)
class FollowingWorkflow:
    """The workflow that follows a comparison of images, or another selection (step ``succeed``).

    Attributes:
        workflow_id: its id.
        request: its processing request as JSON; None: that workflow runs or has run already.
        folder: the folder of its results.
    """

    workflow_id: str
    request: Annotated[str | None, Field(validation_alias=AliasChoices("request", "order"))]  # 0.1.0 wrote "order"
    folder: str


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Facts about the segmentation for the report, besides the regions themselves (step ``segment``).

    Attributes:
        brain_ml: volume of the brain mask.
        agreement: region name to the agreement of the network's views, by measure.
        seconds: wall time of the step.
        surgery: before or after surgery, as ``result.json`` tells it; empty in records of earlier versions.
    """

    brain_ml: float
    agreement: dict[str, dict[str, float]]
    cautions: list[str]
    seconds: float
    surgery: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResultsExist:
    """The step ``segment`` did nothing, since the request's results exist already."""

    is_made: Literal[True]


@dataclass(frozen=True, slots=True)
class UnusableSeries:
    """The step ``segment`` did nothing, since a chosen series cannot become a volume, as its pixels showed."""

    unusable_reason: str


@dataclass(frozen=True, slots=True)
class AnotherMethod:
    """The step ``segment`` did nothing: its images show surgery, and another listed method was made for such exams.

    Attributes:
        another_request: the processing request for that method, as JSON.
        another_reason: what the images show.
    """

    another_request: str
    another_reason: str


Segmented = Segmentation | ResultsExist | UnusableSeries | AnotherMethod
SEGMENTED: Any = Segmented
"""What the step ``segment`` returns."""


@dataclass(frozen=True, slots=True)
class ReportedResults:
    """The results that the step ``report`` wrote or found: region name to volume."""

    volumes_ml: dict[str, float]


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """How a workflow ``process`` ended.

    Attributes:
        reason: why there are no results.
        kind: class name of the error whose text is the reason.
        follows: if this workflow led to another selection, the workflow that processes that one.
    """

    state: StudyState
    reason: str | None = None
    volumes_ml: dict[str, float] | None = None
    kind: str | None = None
    follows: WorkflowId | None = None

    def as_output(self) -> dict[str, Any]:
        """Plain JSON values, as the engine records them."""
        output: dict[str, Any] = {"state": str(self.state), "reason": self.reason, "volumes_ml": self.volumes_ml}
        if self.kind is not None:
            output["kind"] = self.kind
        if self.follows is not None:
            output["follows"] = str(self.follows)
        return output
