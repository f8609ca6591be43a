"""The ids of workflows. Only this file builds and parses them.

::

    <digest>                          the first attempt at a processing request
    <digest>.2                        its second attempt
    <digest>.2-pacs                   the delivery of that attempt's results to the destination "pacs"
    notice-failed-<digest>.2          the notice that this attempt failed
    notice-failed-<digest>.2-pacs     the notice that this delivery failed
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

_FORM = re.compile(
    r"(?:notice-(?P<notice>[a-z]+)-)?(?P<digest>[^.-]+)(?:\.(?P<attempt>[1-9]\d*))?(?:-(?P<destination>.+))?", re.DOTALL
)


class WorkflowKind(StrEnum):
    """The kind of a workflow; the value is the name under which its function is registered with the engine."""

    PROCESS = "process"
    DELIVER = "deliver"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class WorkflowId:
    """The id of one workflow, as its parts.

    Attributes:
        digest: digest of the processing request, which is also the name of the results' folder.
        attempt: number of the attempt at the request, from 1.
        destination: name of the destination, if the workflow is a delivery or a notice about a delivery; else empty.
        notice: the state that a notice is about; empty: the workflow is no notice.
    """

    digest: str
    attempt: int = 1
    destination: str = ""
    notice: str = ""

    @staticmethod
    def parse(text: str) -> WorkflowId:
        """The id that ``str`` wrote as ``text``.

        Raises:
            ValueError: ``text`` is no workflow id.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"no workflow id: {text!r}")
        attempt = int(match["attempt"] or 1)
        return WorkflowId(match["digest"], attempt, match["destination"] or "", match["notice"] or "")

    def __str__(self) -> str:
        attempt = "" if self.attempt == 1 else f".{self.attempt}"
        destination = f"-{self.destination}" if self.destination else ""
        notice = f"notice-{self.notice}-" if self.notice else ""
        return f"{notice}{self.digest}{attempt}{destination}"

    @property
    def kind(self) -> WorkflowKind:
        """The kind of the workflow."""
        if self.notice:
            return WorkflowKind.NOTICE
        return WorkflowKind.DELIVER if self.destination else WorkflowKind.PROCESS

    @property
    def processing(self) -> WorkflowId:
        """The processing workflow that this one belongs to."""
        return WorkflowId(self.digest, self.attempt)

    def delivery(self, destination: str) -> WorkflowId:
        """The delivery of this attempt's results to ``destination``."""
        return replace(self, destination=destination)

    def notice_of(self, state: str) -> WorkflowId:
        """The notice that this workflow's study reached ``state``."""
        return replace(self, notice=str(state))
