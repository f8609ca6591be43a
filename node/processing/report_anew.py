"""A study that grew: the same series are chosen, but the report would say something else of the choice.

The regions stay as they are; SEG and report are made anew under UIDs of their own, and the report names the one that it
replaces. So an exam ends with the same words whether its series arrive at once or one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.dicom import uids
from node.processing.request import ProcessingRequest
from node.processing.request_sequence import TOLD, digest_of, told_digest, told_of
from node.workflow.engine import WorkflowRecord


def with_own_words(
    request: ProcessingRequest, records: Sequence[WorkflowRecord], work_folder: Path
) -> ProcessingRequest:
    """``request`` under an id of its own if the study's earlier request of the same series told other words of them.

    Its id is then a digest of the earlier id and of the words. ``records``: the study's workflows, oldest first;
    ``work_folder``: where the results lie, which tell the words of requests that do not record them.
    """
    earlier = [each for each in records if digest_of(each) == request.workflow_id]
    if request.selection is None or not earlier:
        return request
    told, now = earlier[-1].attributes.get(TOLD) or _told_by_result(work_folder / request.workflow_id), told_of(request)
    if told is None or told == now:
        return request
    return replace(request, workflow_id=uids.digest((request.workflow_id, now))[:32], regions_of=request.workflow_id)


def _told_by_result(folder: Path) -> str | None:
    """The digest of the words in the report of ``folder``; None if there is no report."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    selection = result["selection"] if result["state"] == "reported" else None
    return None if selection is None else told_digest(selection["short"], selection["cautions"])
