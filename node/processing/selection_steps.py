"""The steps of a study's workflow that make another selection, or look for one that exists already."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from node.config import Config
from node.errors import EngineError, SelectionRefused
from node.processing.report_anew import with_own_identity, with_own_words
from node.processing.request import ProcessingRequest, RequestOptions, WhyUnusable, build_request
from node.processing.request_sequence import later_request, request_after_comparison, workflows_of_study
from node.processing.step_records import FollowingWorkflow
from node.workflow.client import WorkflowClient


def decided_request(config: Config, request: ProcessingRequest, why_unusable: WhyUnusable | None = None) -> str:
    """The request (as JSON) with the selection that the images decide.

    They decide which T1 series is after contrast and, with ``why_unusable``, which series become volumes.

    Raises:
        RefusedError: the images do not decide it, or too few series become volumes.
    """
    from node.segmentation.enhancement import compare_enhancement

    options = RequestOptions(request.study_instance_uid, use=request.use, keeps_expired=request.keeps_expired)
    compare = compare_enhancement if config.series.compare_images else None
    decided = build_request(request.folder, config, options, compare, why_unusable)
    if decided.refusal is not None:
        raise SelectionRefused(decided.refusal, decided.considered)
    return replace(decided, created=request.created, earlier=request.earlier, force=request.force).as_json()


def following_workflow(
    config: Config, request: ProcessingRequest, workflow_id: str, work_folder: str
) -> FollowingWorkflow:
    """The workflow that processes ``request``, to which the workflow ``workflow_id`` led."""
    with closing(WorkflowClient(config)) as client:
        records = workflows_of_study(client, request.study_instance_uid)
        request = with_own_identity(request, Path(work_folder))
        request = request if request.force else with_own_words(request, records, Path(work_folder))
        following, enqueued = request_after_comparison(client, request, workflow_id, Path(work_folder))
    folder = str(Path(work_folder) / request.workflow_id)
    return FollowingWorkflow(str(following), None if enqueued is None else enqueued.as_json(), folder)


def later_workflow(config: Config, request: ProcessingRequest, workflow_id: str) -> str | None:
    """The id of the study's latest workflow, if it processes another request enqueued after ``workflow_id``."""
    if not workflow_id:  # without an engine there is no other workflow
        return None
    try:
        with closing(WorkflowClient(config)) as client:
            found = later_request(workflows_of_study(client, request.study_instance_uid), workflow_id)
    except EngineError:
        return None  # an unneeded attempt does less harm than a missing one
    return None if found is None else found.workflow_id
