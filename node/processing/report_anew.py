"""Reports made anew of the same images: SEG and report get UIDs of their own, and the regions stay as they are.

- A study that grew: the same series are chosen, but the report would say something else of the choice. So an exam ends
  with the same words whether its series arrive at once or one after the other.
- A study that was corrected: the same images have another identity.

The report names the one that it replaces.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom

from node.dicom import uids
from node.dicom.character_sets import use_own_table
from node.dicom.identity import differing_identity
from node.dicom.patient_match import differing_attributes, identity_of_patient
from node.errors import InstanceRefused
from node.processing.deleted_results import is_of_another_source, source_digest
from node.processing.request import ProcessingRequest
from node.processing.request_records import digest_of
from node.processing.request_sequence import IMAGES, TOLD, told_digest, told_of
from node.series.values import DICOM_UNREADABLE
from node.study import Contrast
from node.workflow.workflow_record import WorkflowRecord


def with_own_words(
    request: ProcessingRequest, records: Sequence[WorkflowRecord], work_folder: Path
) -> ProcessingRequest:
    """``request`` under an id of its own if the study's earlier request of the same series told other words of them.

    Its id is then a digest of the earlier id and of the words. ``records``: the study's workflows, oldest first;
    ``work_folder``: where the results lie, which tell the words of requests that do not record them.
    """
    request = _with_known_regions(request, records, work_folder)
    earlier = [each for each in records if digest_of(each) == request.workflow_id]
    if request.selection is None or not earlier:
        return request
    told, now = earlier[-1].attributes.get(TOLD) or _told_by_result(work_folder / request.workflow_id), told_of(request)
    if told is None or told == now:
        return request
    return replace(request, workflow_id=uids.digest((request.workflow_id, now))[:32], regions_of=request.workflow_id)


def _with_known_regions(
    request: ProcessingRequest, records: Sequence[WorkflowRecord], work_folder: Path
) -> ProcessingRequest:
    """A corrected study's request with the regions of an earlier request of the same images, if there is one."""
    if not request.images:
        return request
    of_images = (each for each in reversed(records) if each.attributes.get(IMAGES) == request.images)
    known = [*(digest_of(each) for each in of_images), request.images]
    reported = [each for each in known if each != request.workflow_id and _told_by_result(work_folder / each)]
    return replace(request, regions_of=reported[0]) if reported else request


def with_own_identity(request: ProcessingRequest, work_folder: Path) -> ProcessingRequest:
    """``request`` under an id of its own if the results of its id name another patient, or another order, than it does.

    A study may come back corrected after retention deleted its inputs: nothing in the spool tells it then, but the
    results do. Their regions are not used again, because nobody compared the images. Of deleted results only their
    source is known: any difference gives the request an id of its own.

    Raises:
        OSError: a file cannot be read now.
    """
    if request.selection is None:
        return request
    source = request.selection.chosen[Contrast.T1C].instances[0].path
    if not _is_other(request, source, work_folder):
        return request
    own = uids.digest((request.workflow_id, "identity", source_digest(request.selection)))[:32]
    return replace(request, workflow_id=own)


def _is_other(request: ProcessingRequest, source: Path, work_folder: Path) -> bool:
    """True if the results of the request's id, deleted or not, have another identity than ``source`` has."""
    assert request.selection is not None
    report = work_folder / request.workflow_id / "sr.dcm"
    try:
        if not report.exists():
            return is_of_another_source(request.selection, work_folder, request.workflow_id)
        headers = [_header(path) for path in (report, source)]
    except FileNotFoundError:  # deleted meanwhile
        return False
    except DICOM_UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return False
    result, header = headers
    try:
        is_other_order = differing_identity(result, header, ("AccessionNumber",)) != ""  # cleans both, in place
    except InstanceRefused:
        return False
    return bool(differing_attributes(map(identity_of_patient, headers))) or is_other_order


def _header(path: Path) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True)
        use_own_table(header)
        return header


def _told_by_result(folder: Path) -> str | None:
    """The digest of the words in the report of ``folder``; None if there is no report."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    selection = result["selection"] if result["state"] == "reported" else None
    return None if selection is None else told_digest(selection["short"], selection["cautions"])
