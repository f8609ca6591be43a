"""What happens to a study. THE page to read first.

::

    select  ->  segment  ->  report  ->  deliver (one workflow per destination)
       |           ^
       +- compare -+   if headers leave open which T1 is after contrast (a workflow of its own)

Selection is done where the study is assembled (headers only); everything after it is a durable workflow. Outputs are
files in ``work/<workflow id>/``, written aside and renamed, so that every step may run twice. A refused study ends
here, too: with its reason, listed like all others.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from node.config import Config
from node.errors import (
    EngineError,
    GlionodeError,
    ModelPackError,
    RefusedError,
    RetryableError,
    SelectionRefused,
    UnforeseenError,
    VerificationError,
)
from node.log import study_context
from node.notify.notices import notify_humans
from node.processing.request import ProcessingRequest, RequestOptions, attempt_id, attempt_of, build_request
from node.processing.request_history import COMPARED, later_request, request_after_comparison, workflows_of_study
from node.processing.results import RESULT_FILES, made_results, rounded, write_refused, write_results
from node.study import Contrast
from node.workflow.engine import STUDY_QUEUE, WorkflowClient, delivery_queue
from node.workflow.steps import Steps

if TYPE_CHECKING:
    from node.segmentation.cascade import Cascade
    from node.segmentation.packs import Card

T = TypeVar("T")

log = structlog.get_logger()

Progress = Callable[[str, float], None]

_MADE_BEFORE = {"is_made": True}
"""What ``segment`` returns if there is nothing to be done, for the results are there."""


class Pipeline:
    """The steps, with what they need from the config. ``progress`` gets what is being done and the fraction done.

    ``is_anew``: results that are there are made all the same, for whoever asks wants to see it done.
    """

    def __init__(self, config: Config, progress: Progress | None = None, is_anew: bool = False) -> None:
        self._config = config
        self._is_anew = is_anew
        self._progress = progress
        self._cascade: Cascade | None = None
        self._model = ""
        self._device = "cpu"

    # ---- workflow: no effects outside steps --------------------------------------------------------------------

    def process(self, steps: Steps, order_json: str, folder: str) -> dict[str, Any]:
        """Process one study into ``folder``; returns its state, and the reason if it has no results.

        Trouble outside the study ends this attempt and orders the next one, so that others do not wait behind it.
        """
        request = ProcessingRequest.from_json(order_json)
        with study_context(request.study_instance_uid):
            try:
                try:
                    return self._compared(steps, request, folder) or self._reported(steps, request, folder)
                except RefusedError as error:
                    return self._refused(steps, request, folder, error)
            except RetryableError as error:
                return self._failed(steps, order_json, folder, error)

    def _compared(self, steps: Steps, request: ProcessingRequest, folder: str) -> dict[str, Any] | None:
        """If only images can decide: the workflow of what they decided goes on, so that nothing is done twice."""
        if not request.is_undecided:
            return None
        steps.tell("comparing")
        decided = ProcessingRequest.from_json(steps.step("compare", self.compare, request))
        following = steps.step(
            "succeed", self.request_after_comparison, decided, steps.workflow_id, str(Path(folder).parent)
        )
        if following["order"] is not None:
            arguments = (following["order"], following["folder"])
            steps.start(STUDY_QUEUE, "process", following["workflow_id"], *arguments)
        log.info("study_compared", follows=following["workflow_id"])
        return {"state": COMPARED, "reason": None, "volumes_ml": None, "follows": following["workflow_id"]}

    def _reported(self, steps: Steps, request: ProcessingRequest, folder: str) -> dict[str, Any]:
        if request.selection is None:
            raise SelectionRefused(request.refusal or "no selection", request.considered)
        steps.tell("selected")
        facts = steps.step("segment", self.segment, request, folder)
        steps.tell("segmented")
        result = steps.step("report", self.report, request, folder, facts)
        steps.tell("reported")
        self._start_deliveries(steps, request, folder, RESULT_FILES)
        notify_humans(self._config, steps, "reported", request.study_instance_uid, "")
        log.info("study_reported", volumes_ml=result["volumes_ml"])
        return {"state": "reported", "reason": None, "volumes_ml": result["volumes_ml"]}

    def _refused(self, steps: Steps, request: ProcessingRequest, folder: str, error: RefusedError) -> dict[str, Any]:
        reason = str(error)
        if isinstance(error, SelectionRefused):
            request = replace(request, considered=error.considered)
        files = steps.step("refuse", self.refuse, request, folder, reason)
        steps.tell("refused")
        if files:
            self._start_deliveries(steps, request, folder, files)
        notify_humans(self._config, steps, "refused", request.study_instance_uid, reason)
        log.warning("study_refused", reason=reason)
        return {"state": "refused", "reason": reason, "volumes_ml": None, "kind": type(error).__name__}

    def _failed(self, steps: Steps, order_json: str, folder: str, error: RetryableError) -> dict[str, Any]:
        section = self._config.engine
        request, attempt = ProcessingRequest.from_json(order_json), attempt_of(steps.workflow_id)
        outcome = {"state": "failed", "reason": str(error), "volumes_ml": None, "kind": type(error).__name__}
        later = steps.step("later", self.later, request, steps.workflow_id)
        if later is not None:  # what is superseded must not be delivered last
            log.warning("study_superseded", reason=str(error), later=later)
            return outcome | {"reason": f"{error}; not tried again, for a later order of the study exists"}
        if attempt >= section.attempts:
            notify_humans(self._config, steps, "failed", request.study_instance_uid, str(error))
            log.error("study_failed", reason=str(error), attempts=attempt)
            return outcome
        pause = section.attempt_pause_seconds * 2 ** (attempt - 1)
        following = attempt_id(request.workflow_id, attempt + 1)
        steps.start(STUDY_QUEUE, "process", following, order_json, folder, delay_seconds=pause)
        log.warning("study_tried_again_later", reason=str(error), attempts=attempt, pause_seconds=pause)
        return outcome

    def _start_deliveries(self, steps: Steps, request: ProcessingRequest, folder: str, files: Sequence[str]) -> None:
        for section in self._config.destination:
            child = f"{steps.workflow_id or request.workflow_id}-{section.name}"
            attributes = (request.study_instance_uid, folder, section.name, list(files))
            steps.start(delivery_queue(section.name), "deliver", child, *attributes)

    # ---- steps: each may run twice -----------------------------------------------------------------------------

    def compare(self, request: ProcessingRequest) -> str:
        """The order of what the images decide: which T1 series is after contrast; as JSON.

        Raises:
            RefusedError: they do not tell, either.
        """
        return _guarded(self._compare, request)

    def _compare(self, request: ProcessingRequest) -> str:
        from node.segmentation.enhancement import compare_enhancement

        options = RequestOptions(request.study_instance_uid, use=request.use)
        anew = build_request(request.folder, self._config, options, compare_enhancement)
        if anew.refusal is not None:
            raise SelectionRefused(anew.refusal, anew.considered)
        told = replace(anew, created=request.created, earlier=request.earlier, force=request.force)
        return told.as_json()

    def request_after_comparison(
        self, request: ProcessingRequest, workflow_id: str, work_folder: str
    ) -> dict[str, Any]:
        """The workflow that goes on where the comparison ``workflow_id`` ends; its order and folder, or None."""
        with closing(WorkflowClient(self._config)) as client:
            following, anew = request_after_comparison(client, request, workflow_id, Path(work_folder))
        folder = str(Path(work_folder) / request.workflow_id)
        return {"workflow_id": following, "order": anew and anew.as_json(), "folder": folder}

    def later(self, request: ProcessingRequest, workflow_id: str) -> str | None:
        """The study's latest order, if that is another one, and was made after ``workflow_id``."""
        if not workflow_id:  # without an engine there is nothing but this one
            return None
        try:
            with closing(WorkflowClient(self._config)) as client:
                found = later_request(workflows_of_study(client, request.study_instance_uid), workflow_id)
        except EngineError:
            return None  # one attempt more does less harm than one less
        return None if found is None else found.workflow_id

    def segment(self, request: ProcessingRequest, folder: str) -> dict[str, Any]:
        """Volumes, grid, brain, cascade; writes the regions on the T1c grid. Nothing, if the results are there."""
        is_made = _guarded(self._made, request, folder) is not None
        return _MADE_BEFORE if is_made else _guarded(self._segment, request, folder)

    def _made(self, request: ProcessingRequest, folder: str) -> dict[str, Any] | None:
        return None if self._is_anew else made_results(request, Path(folder))

    def _segment(self, request: ProcessingRequest, folder: str) -> dict[str, Any]:
        # torch is imported here, not above: the receiver never needs it
        from node.segmentation.method import segment_exam
        from node.segmentation.regions_file import write_regions

        assert request.selection is not None
        begun = time.monotonic()
        cascade = self._loaded_cascade(request.model)
        seed = int(request.workflow_id[:8], 16)
        exam = segment_exam(request.selection, cascade, seed, self._device, self._progress)
        write_regions(exam, Path(folder))
        return {
            "brain_ml": round(exam.facts.brain_ml, 1),
            "agreement": {region: rounded(asdict(each)) for region, each in exam.facts.agreement.items()},
            "cautions": [*request.selection.cautions, *exam.facts.cautions],
            "seconds": round(time.monotonic() - begun, 2),
        }

    def report(self, request: ProcessingRequest, folder: str, facts: dict[str, Any]) -> dict[str, Any]:
        """SEG and SR from the regions, read back and compared; then ``result.json``. Those that are there stay."""
        return _guarded(self._report, request, folder, facts)

    def _report(self, request: ProcessingRequest, folder: str, facts: dict[str, Any]) -> dict[str, Any]:
        made = self._made(request, folder)
        if made is None and facts == _MADE_BEFORE:
            raise VerificationError("the results that were there are gone")
        return made or write_results(self._config, request, Path(folder), facts)

    def refuse(self, request: ProcessingRequest, folder: str, reason: str) -> list[str]:
        """``result.json`` of a study that has no results; returns the files to be sent, if any."""
        return _guarded(write_refused, self._config, request, Path(folder), reason)

    # ---- what the steps share ----------------------------------------------------------------------------------

    def _loaded_cascade(self, model: str) -> Cascade:
        if self._cascade is None or self._model != model:
            from node.segmentation.cascade import Cascade
            from node.segmentation.device import prepare_device
            from node.segmentation.packs import load_networks

            section = self._config.segmentation
            self._device = prepare_device(section.device, section.threads)
            networks = load_networks(
                _cascade_card(model),
                self._config.models_folder,
                self._device,
                self._config.memory_bytes,
                section.precision,
            )
            self._cascade, self._model = Cascade(networks, section.mode, self._cascade_progress), model
        return self._cascade

    def _cascade_progress(self, view: str, fraction: float) -> None:
        if self._progress:
            self._progress(f"segmenting: {view}", 0.32 + 0.64 * fraction)


def _cascade_card(model: str) -> Card:
    """The card of a pack that the cascade can run.

    Raises:
        ModelPackError: its method is another, or needs other contrasts.
    """
    from node.segmentation.packs import read_card

    card = read_card(model)
    if len(card.inputs) != len(Contrast):
        raise ModelPackError(f"model pack '{model}' wants {', '.join(card.inputs)}; its method is not in this version")
    return card


def _guarded(function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function``; an unforeseen error becomes one that the study may be tried again after."""
    try:
        return function(*arguments)
    except GlionodeError:
        raise
    except OSError as error:
        raise UnforeseenError(f"{error.filename or 'the disk'}: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - a boundary: one study must not end the worker's work on others
        # the error's text may repeat what stood in a header, so only its kind and place are told
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UnforeseenError(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}") from None
