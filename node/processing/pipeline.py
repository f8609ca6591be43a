"""The workflow of one study, from its processing request to its results.

::

    select  ->  segment  ->  report  ->  deliver (one workflow per destination)
       |           ^
       +- compare -+   if headers leave open which T1 is after contrast (a workflow of its own)

The receiver selects the series (headers only); everything after that is a durable workflow. Outputs are files in
``work/<digest of the request>/``, written aside and renamed, so that every step may run twice. The workflow of a
refused study ends with the reason of the refusal, and is listed like all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from node.config import Config
from node.errors import (
    AnotherMethodFits,
    DefectError,
    GlionodeError,
    InputsChanged,
    RefusedError,
    RetryableError,
    SelectionRefused,
    VerificationError,
)
from node.log import study_context
from node.notify.notices import notify_humans
from node.processing.input_check import check_inputs
from node.processing.loaded_method import LoadedMethod
from node.processing.request import ProcessingRequest
from node.processing.result_files import earlier_segmentation, existing_results, rounded, write_refused, write_results
from node.processing.selection_steps import (
    another_request,
    decided_request,
    known_request,
    later_workflow,
    start_following,
)
from node.processing.step_errors import guarded
from node.processing.step_records import (
    SEGMENTED,
    AnotherMethod,
    ReportedResults,
    ResultsExist,
    Segmentation,
    Segmented,
    StudyOutcome,
    UnusableSeries,
)
from node.series.subject import surgery_told
from node.study import RESULT_FILES
from node.workflow.engine import STUDY_QUEUE, delivery_queue
from node.workflow.records import recorded_step
from node.workflow.states import StudyState
from node.workflow.steps import Steps
from node.workflow.workflow_id import WorkflowId

if TYPE_CHECKING:
    from node.segmentation.exam_reader import ExamReader

log = structlog.get_logger()

Progress = Callable[[str, float], None]


class Pipeline:
    """The workflow ``process`` and its steps.

    Args:
        progress: called with the current work and the fraction done.
        force: run the method even if the results exist already.
        reader: holds volumes of the study that are read already.
        method: holds a method that is loaded already.
    """

    def __init__(
        self,
        config: Config,
        progress: Progress | None = None,
        force: bool = False,
        reader: ExamReader | None = None,
        method: LoadedMethod | None = None,
    ) -> None:
        self._config = config
        self._force = force
        self._progress = progress
        self._exam_reader = reader
        self._method = method or LoadedMethod(config, progress)

    # ---- the workflow: no effects outside steps ----------------------------------------------------------------

    def process(self, steps: Steps, request_json: str, folder: str) -> dict[str, Any]:
        """Process one study into ``folder``; returns `StudyOutcome` as plain values.

        An error outside the study ends this attempt and enqueues the next one with a delay, so that no other study
        waits meanwhile. A programming error ends the study: it would occur again in the next attempt.
        """
        request = ProcessingRequest.from_json(request_json)
        again = partial(self._try_again, steps, request, request_json, folder)
        with study_context(request.study_instance_uid):
            try:
                try:
                    outcome = self._compared(steps, request, folder) or self._reported(steps, request, folder)
                except RefusedError as error:
                    outcome = self._refused(steps, request, folder, error)
            except InputsChanged as error:
                # of two receivers the slower may order what it saw after the other has ordered what is there since
                now = steps.step("now", known_request, self._config, request, steps.workflow_id)
                outcome = self._reselected(steps, now, folder, str(error)) if now else again(error)
            except RetryableError as error:
                outcome = again(error)
            except DefectError as error:
                outcome = self._failed(steps, request, error)
            return outcome.as_output()

    def _compared(self, steps: Steps, request: ProcessingRequest, folder: str) -> StudyOutcome | None:
        """If only images can decide: start the workflow of the selection they lead to, unless it exists already."""
        if not request.is_undecided:
            return None
        steps.publish(StudyState.COMPARING)
        decided = steps.step("compare", self.compare, request)
        following_id = start_following(steps, self._config, decided, Path(folder).parent)
        log.info("study_compared", follows=str(following_id))
        return StudyOutcome(StudyState.COMPARED, follows=following_id)

    def _reselected(self, steps: Steps, decided: str, folder: str, reason: str) -> StudyOutcome:
        """Start the workflow of another selection, or of another state of the study, if it is not started already."""
        following_id = start_following(steps, self._config, decided, Path(folder).parent)
        log.warning("study_reselected", reason=reason, follows=str(following_id))
        return StudyOutcome(StudyState.RESELECTED, reason, follows=following_id)

    def _reported(self, steps: Steps, request: ProcessingRequest, folder: str) -> StudyOutcome:
        if request.selection is None:
            raise SelectionRefused(request.refusal or "no selection", request.considered)
        steps.publish(StudyState.SELECTED)
        segmented = recorded_step(steps, "segment", SEGMENTED, self.segment, request, folder)
        if isinstance(segmented, UnusableSeries):
            decided = steps.step("reselect", self.reselect, request)
            return self._reselected(steps, decided, folder, segmented.unusable_reason)
        if isinstance(segmented, AnotherMethod):
            if not steps.workflow_id:  # without an engine there is no other workflow: this one goes on with it
                return self._reported(steps, ProcessingRequest.from_json(segmented.another_request), folder)
            return self._reselected(steps, segmented.another_request, folder, segmented.another_reason)
        steps.publish(StudyState.SEGMENTED)
        results = recorded_step(steps, "report", ReportedResults, self.report, request, folder, segmented)
        steps.publish(StudyState.REPORTED)
        self._start_deliveries(steps, request, folder, RESULT_FILES)
        notify_humans(self._config, steps, StudyState.REPORTED, request.study_instance_uid, "")
        log.info("study_reported", volumes_ml=results.volumes_ml)
        return StudyOutcome(StudyState.REPORTED, volumes_ml=results.volumes_ml)

    def _refused(self, steps: Steps, request: ProcessingRequest, folder: str, error: RefusedError) -> StudyOutcome:
        reason = str(error)
        if isinstance(error, SelectionRefused):
            request = replace(request, considered=error.considered)
        files = steps.step("refuse", self.refuse, request, folder, reason)
        steps.publish(StudyState.REFUSED)
        if files:
            self._start_deliveries(steps, request, folder, files)
        notify_humans(self._config, steps, StudyState.REFUSED, request.study_instance_uid, reason)
        log.warning("study_refused", reason=reason)
        return StudyOutcome(StudyState.REFUSED, reason, kind=type(error).__name__)

    def _try_again(
        self, steps: Steps, request: ProcessingRequest, request_json: str, folder: str, error: RetryableError
    ) -> StudyOutcome:
        """End this attempt; enqueue the next one unless the study has a later request or this was the last attempt."""
        section = self._config.engine
        attempt = WorkflowId.parse(steps.workflow_id).attempt if steps.workflow_id else 1
        outcome = StudyOutcome(StudyState.FAILED, str(error), kind=type(error).__name__)
        later = steps.step("later", later_workflow, self._config, request, steps.workflow_id)
        if later is not None:  # an older request's results must not reach destinations after newer ones
            log.warning("study_superseded", reason=str(error), later=later)
            return replace(outcome, reason=f"{error}; not tried again, for a later order of the study exists")
        if attempt >= section.attempts:
            return self._failed(steps, request, error, attempt)
        # without a longest pause, a dozen attempts would take days, and a hundred would never be made
        pause = min(section.attempt_pause_seconds * 2 ** (attempt - 1), section.longest_attempt_pause_seconds)
        following = WorkflowId(request.workflow_id, attempt + 1)
        steps.start(STUDY_QUEUE, following, request_json, folder, delay_seconds=pause)
        log.warning("study_tried_again_later", reason=str(error), attempts=attempt, pause_seconds=pause)
        return outcome

    def _failed(
        self, steps: Steps, request: ProcessingRequest, error: GlionodeError, attempts: int = 1
    ) -> StudyOutcome:
        """End the study without another attempt; humans are notified."""
        notify_humans(self._config, steps, StudyState.FAILED, request.study_instance_uid, str(error))
        log.error("study_failed", reason=str(error), attempts=attempts)
        return StudyOutcome(StudyState.FAILED, str(error), kind=type(error).__name__)

    def _start_deliveries(self, steps: Steps, request: ProcessingRequest, folder: str, files: Sequence[str]) -> None:
        attempt = WorkflowId.parse(steps.workflow_id or request.workflow_id)
        for section in self._config.destination:
            arguments = (request.study_instance_uid, folder, section.name, list(files))
            steps.start(delivery_queue(section.name), attempt.delivery(section.name), *arguments)

    # ---- steps: each may run twice -----------------------------------------------------------------------------

    def compare(self, request: ProcessingRequest) -> str:
        """The request (as JSON) with the selection that the images decide: which T1 series is after contrast.

        Raises:
            RefusedError: the images do not decide it.
        """
        return guarded(decided_request, self._config, request)

    def reselect(self, request: ProcessingRequest) -> str:
        """The request (as JSON) with a selection of series all of which become volumes.

        Raises:
            RefusedError: there is none.
        """
        return guarded(decided_request, self._config, request, self._reader.why_unusable)

    def segment(self, request: ProcessingRequest, folder: str) -> Segmented:
        """Volumes, grid, brain mask, method; writes the regions on the T1c grid. Existing results are kept."""
        guarded(check_inputs, request)
        is_made = guarded(self._existing_results, request, folder) is not None
        return ResultsExist(is_made=True) if is_made else guarded(self._segment, request, folder)

    def _existing_results(self, request: ProcessingRequest, folder: str) -> dict[str, Any] | None:
        return None if self._force else existing_results(request, Path(folder))

    def _segment(self, request: ProcessingRequest, folder: str) -> Segmented:
        # torch is imported here, not above: the receiver never needs it
        from node.methods.card import read_card
        from node.segmentation.method import segment_exam
        from node.segmentation.regions_file import write_regions
        from node.segmentation.surgery import SurgeryTold

        assert request.selection is not None
        card = read_card(request.model, self._config.models_folder)
        is_refused = self._config.clinical.postoperative == "refuse"
        another = partial(another_request, self._config, request, self._reader.why_unusable)
        told = SurgeryTold(surgery_told(request.selection), is_refused, card.states, another)
        known = None if told.is_refused else earlier_segmentation(request, Path(folder), told.evidence)
        if known is not None:
            return known
        begun = time.monotonic()
        for series in request.selection.chosen.values():
            reason = self._reader.why_unusable(series)
            if reason is not None:
                return UnusableSeries(f"{series.label}: {reason}")
        volumes = self._reader.take(request.selection)
        method = self._method.of(card)
        seed = int((request.images or request.regions_of or request.workflow_id)[:8], 16)
        try:
            exam = segment_exam(volumes, method, seed, self._method.device, self._progress, told)
        except AnotherMethodFits as found:
            return AnotherMethod(found.request, str(found))
        write_regions(exam, Path(folder))
        return Segmentation(
            brain_ml=round(exam.facts.brain_ml, 1),
            agreement={region: rounded(asdict(each)) for region, each in exam.facts.agreement.items()},
            cautions=[*request.selection.cautions, *exam.facts.cautions],
            seconds=round(time.monotonic() - begun, 2),
            surgery=exam.facts.state.as_dict(),
        )

    def report(
        self, request: ProcessingRequest, folder: str, segmented: Segmentation | ResultsExist
    ) -> ReportedResults:
        """SEG and SR from the regions, read back and compared; then ``result.json``. Existing results are kept."""
        return guarded(self._report, request, folder, segmented)

    def _report(
        self, request: ProcessingRequest, folder: str, segmented: Segmentation | ResultsExist
    ) -> ReportedResults:
        result = self._existing_results(request, folder)
        if result is None:
            if isinstance(segmented, ResultsExist):
                raise VerificationError("the results that were there are gone")
            result = write_results(self._config, request, Path(folder), segmented)
        return ReportedResults(result["volumes_ml"])

    def refuse(self, request: ProcessingRequest, folder: str, reason: str) -> list[str]:
        """Write ``result.json`` of a refused study; returns the files to be sent, if any."""
        return guarded(write_refused, self._config, request, Path(folder), reason)

    # ---- what the steps share ----------------------------------------------------------------------------------

    @property
    def _reader(self) -> ExamReader:
        if self._exam_reader is None:
            from node.segmentation.exam_reader import ExamReader

            self._exam_reader = ExamReader()
        return self._exam_reader
