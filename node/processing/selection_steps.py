"""The steps of a study's workflow that make another selection, or look for one that exists already."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from node.config import Config
from node.errors import EngineError, RefusedError, RetryableError, SelectionRefused
from node.processing.report_anew import with_own_identity, with_own_words
from node.processing.request import ProcessingRequest, RequestOptions, WhyUnusable, build_request
from node.processing.request_records import digest_of
from node.processing.request_sequence import later_request, request_after_comparison, workflows_of_study
from node.processing.step_errors import guarded
from node.processing.step_records import FollowingWorkflow
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE
from node.workflow.records import recorded_step
from node.workflow.steps import Steps
from node.workflow.workflow_id import WorkflowId


def decided_request(
    config: Config,
    request: ProcessingRequest,
    why_unusable: WhyUnusable | None = None,
    surgery_seen: tuple[str, ...] = (),
) -> str:
    """The request (as JSON) with the selection that the images decide.

    They decide which T1 series is after contrast and, with ``why_unusable``, which series become volumes; and with what
    was ``surgery_seen``, for which state of exams the method is to be made.

    Raises:
        RefusedError: the images do not decide it, or too few series become volumes.
    """
    from node.segmentation.enhancement import compare_enhancement

    options = RequestOptions(
        request.study_instance_uid, use=request.use, keeps_expired=request.keeps_expired, surgery_seen=surgery_seen
    )
    compare = compare_enhancement if config.series.compare_images else None
    decided = build_request(request.folder, config, options, compare, why_unusable)
    if decided.refusal is not None:
        raise SelectionRefused(decided.refusal, decided.considered)
    return replace(decided, created=request.created, earlier=request.earlier, force=request.force).as_json()


def another_request(
    config: Config, request: ProcessingRequest, why_unusable: WhyUnusable, surgery_seen: tuple[str, ...]
) -> str | None:
    """The request (as JSON) for a listed method that was made for exams after surgery; None if no such method fits."""
    from node.methods.registry import cards_at_hand

    cards = cards_at_hand(config.segmentation.models, config.models_folder)
    if not any(card.is_for(is_postoperative=True) for card in cards):
        return None
    try:
        decided = decided_request(config, request, why_unusable, surgery_seen)
    except RefusedError:
        return None  # what was selected for the method at hand stays
    return decided if ProcessingRequest.from_json(decided).model != request.model else None


def start_following(steps: Steps, config: Config, decided: str, work_folder: Path) -> WorkflowId:
    """Start the workflow that processes the request ``decided`` (JSON), unless it exists already; returns its id."""
    given = (config, ProcessingRequest.from_json(decided), steps.workflow_id, str(work_folder))
    following = recorded_step(steps, "succeed", FollowingWorkflow, following_workflow, *given)
    following_id = WorkflowId.parse(following.workflow_id)
    if following.request is not None:
        steps.start(STUDY_QUEUE, following_id, following.request, following.folder)
    return following_id


def following_workflow(
    config: Config, request: ProcessingRequest, workflow_id: str, work_folder: str
) -> FollowingWorkflow:
    """The workflow that processes ``request``, to which the workflow ``workflow_id`` led."""
    with closing(WorkflowClient(config)) as client:
        return find_following(client, request, workflow_id, Path(work_folder))


def find_following(
    client: WorkflowClient, request: ProcessingRequest, workflow_id: str, work_folder: Path
) -> FollowingWorkflow:
    """As `following_workflow`, by a client that is open."""
    records = workflows_of_study(client, request.study_instance_uid)
    request = with_own_identity(request, work_folder)
    request = request if request.force else with_own_words(request, records, work_folder)
    following, enqueued = request_after_comparison(client, request, workflow_id, work_folder)
    folder = str(work_folder / request.workflow_id)
    return FollowingWorkflow(str(following), None if enqueued is None else enqueued.as_json(), folder)


def known_request(config: Config, request: ProcessingRequest, workflow_id: str) -> str | None:
    """What would be ordered of the study now (as JSON), if it is another request that was ordered already; else None.

    None also if it cannot be found out now: the next attempt asks again.
    """
    if not workflow_id:  # without an engine there is no other order
        return None
    try:
        with closing(WorkflowClient(config)) as client:
            return guarded(find_known, client, config, request)
    except RetryableError:
        return None


def find_known(client: WorkflowClient, config: Config, request: ProcessingRequest) -> str | None:
    """As `known_request`, by a client that is open."""
    options = RequestOptions(request.study_instance_uid, use=request.use, keeps_expired=request.keeps_expired)
    now = with_own_identity(build_request(request.folder, config, options), config.work_folder)
    records = workflows_of_study(client, request.study_instance_uid)
    now = with_own_words(now, records, config.work_folder)
    if now.workflow_id == request.workflow_id or now.workflow_id not in map(digest_of, records):
        return None
    return replace(now, earlier=request.earlier).as_json()


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
