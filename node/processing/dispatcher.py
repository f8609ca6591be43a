"""Enqueues processing requests: for studies that are due, and for retry and cancel of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from node.config import Config
from node.errors import RefusedError, StorageError, StudyError
from node.metrics import Metrics
from node.processing.attention import HELD
from node.processing.choice_by_hand import choice_attributes, earlier_choice
from node.processing.input_notices import notify_of_inputs
from node.processing.input_state import read_state
from node.processing.priority import study_priority
from node.processing.report_anew import with_own_identity, with_own_words
from node.processing.request import (
    ProcessingRequest,
    RequestOptions,
    build_request,
    instances_by_name,
    with_first_creation_time,
)
from node.processing.request_records import INPUTS_DELETED, REVISION, digest_of, judged
from node.processing.request_sequence import (
    cancel_outdated_deliveries,
    cancel_waiting,
    earlier_requests,
    is_led_back,
    judged_attribute,
    judged_by_study,
    latest_report,
    request_attributes,
    request_once_more,
    workflows_of_study,
)
from node.scp.moved import MovedInstances
from node.scp.removal import is_moved_for_deletion
from node.series.headers import read_study
from node.series.unknown import collect
from node.series.vocabulary import load_vocabulary
from node.study import Contrast
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE, STUDY_QUEUE
from node.workflow.workflow_id import WorkflowId
from node.workflow.workflow_record import WorkflowRecord

log = structlog.get_logger()


class StudyDispatcher:
    """Enqueues the workflow of a study that is due; enqueues it again or cancels it at the admin's command."""

    def __init__(self, config: Config, client: WorkflowClient, metrics: Metrics) -> None:
        self._config = config
        self._client = client
        self._metrics = metrics
        self._moved = MovedInstances(config.spool_folder)
        self._lost: dict[str, set[str]] = {}

    def judged_before(self, studies: Iterable[str]) -> frozenset[str]:
        """The ``studies`` whose instances in the spool were all judged before; compares file names, reads no file.

        Raises:
            EngineError: the database does not answer.
            OSError: a folder cannot be listed.
        """
        known = judged_by_study(self._client)
        folder = self._config.spool_folder
        return frozenset(uid for uid in studies if instances_by_name(folder / uid) in known.get(uid, frozenset()))

    def is_complete(self, study_instance_uid: str, quiet_series: frozenset[str]) -> bool:
        """True if ``quiet_series`` hold all four contrasts: a study that may yet get another one waits for it."""
        request = self._request(RequestOptions(study_instance_uid, quiet_series))
        return request.selection is not None and len(request.selection.chosen) == len(Contrast)

    def start(self, study_instance_uid: str, quiet_series: frozenset[str] | None = None) -> None:
        """Enqueue the study's workflow (of ``quiet_series``; None: all).

        The same instances are never processed again by themselves, even if changed settings or rules would now select
        other series: delivered results stay as they are until the admin requests new ones (`retry`).

        Raises:
            StorageError: retention is checking the study at this moment, or another receiver ordered it; try again.
            EngineError: the database does not answer.
        """
        folder = self._config.spool_folder / study_instance_uid
        if not folder.is_dir():
            if is_moved_for_deletion(self._config.spool_folder, study_instance_uid) or folder.is_dir():
                raise StorageError("the study is being looked at for deletion")
            return  # retention deleted the inputs, since every destination has the results
        others = self._lost.setdefault(
            study_instance_uid, set()
        )  # kept until all were judged: they are found once only
        others.update(self._moved.settle(study_instance_uid))
        state = read_state(folder)
        records = workflows_of_study(self._client, study_instance_uid)
        is_reported = latest_report(records) is not None
        options = RequestOptions(study_instance_uid, quiet_series, keeps_expired=is_reported)
        request, lost = self._request_again(options, records)
        if quiet_series is not None and is_led_back(request, records):  # an earlier request may have had fewer series
            request, lost = self._request_again(replace(options, series=None), records)
        notify_of_inputs(self._config, self._client, study_instance_uid, state)
        self._order(request, records, lost, is_by_hand=False)
        for other in sorted(others):
            self.start(other)
        self._lost.pop(study_instance_uid, None)

    def redo(self, study_instance_uid: str) -> None:
        """As `start`, also if ``assembly.corrections`` holds the study: the administrator decided about its instances.

        Raises:
            StudyError: the study is unknown, or has no instance in the spool.
        """
        records = self._known(study_instance_uid)
        if not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"study {study_instance_uid}: nothing of it is in the spool; send it again")
        is_reported = latest_report(records) is not None
        request, lost = self._request_again(RequestOptions(study_instance_uid, keeps_expired=is_reported), records)
        self._order(request, records, lost, is_by_hand=True)

    def _request_again(
        self, options: RequestOptions, records: Sequence[WorkflowRecord]
    ) -> tuple[ProcessingRequest, str]:
        """The request with what is left of the earlier choice by hand; and a sentence about what is lost of it."""
        folder = self._config.spool_folder / options.study_instance_uid
        state = read_state(folder)
        choice = earlier_choice(records, folder, state.without_expired() if options.keeps_expired else state)
        return self._request(replace(options, use=choice.use)), choice.lost

    def _order(
        self, request: ProcessingRequest, records: Sequence[WorkflowRecord], lost: str, is_by_hand: bool
    ) -> None:
        """Enqueue ``request`` unless it, or one that is as good, was enqueued before, or the study is held."""
        if lost:
            log.warning("choice_by_hand_not_kept", study_instance_uid=request.study_instance_uid, reason=lost)
        if not is_by_hand and self._is_ordered_meanwhile(request.study_instance_uid, records):
            raise StorageError("another receiver has ordered the study meanwhile; it is looked at again")
        if self._enqueue_if_new(request, records, lost, is_by_hand):
            return  # its inputs count as judged once the administrator decided
        for each in records:
            if each.attributes.get(INPUTS_DELETED):  # it came back, and was judged now
                self._client.describe(each.workflow_id, {INPUTS_DELETED: ""})

    def _is_ordered_meanwhile(self, study_instance_uid: str, records: Sequence[WorkflowRecord]) -> bool:
        """True if the study has workflows that are not among ``records``.

        Its headers, which take long to read, may have been read before the other receiver's instances arrived: what
        they say would be ordered after what is there now.
        """
        now = workflows_of_study(self._client, study_instance_uid)
        return {each.workflow_id for each in now} != {each.workflow_id for each in records}

    def _enqueue_if_new(
        self, request: ProcessingRequest, records: Sequence[WorkflowRecord], lost: str, is_by_hand: bool
    ) -> bool:
        """Enqueue ``request`` if it is new; True if the study is held instead."""
        study_instance_uid = request.study_instance_uid
        known_id = request.workflow_id
        request = with_own_identity(request, self._config.work_folder)
        is_other_identity = request.workflow_id != known_id  # than the results name, though the spool tells none
        is_judged = not is_other_identity and request.instances in judged(records)
        if not is_judged:
            request = with_own_words(request, records, self._config.work_folder)
        known = [each.workflow_id for each in records if digest_of(each) == request.workflow_id]
        is_to_be_repeated = is_led_back(request, records)
        if known and not is_judged and not is_to_be_repeated:  # instances arrived since; the selection has not changed
            self._client.describe(records[-1].workflow_id, judged_attribute(request))
        if records and records[-1].attributes.get(HELD):  # decided again below
            self._client.describe(records[-1].workflow_id, {HELD: ""})
        if (known or is_judged) and not is_to_be_repeated:
            log.info("study_unchanged", study_instance_uid=study_instance_uid, workflow_id=request.workflow_id)
            return False
        if cancelled := cancel_outdated_deliveries(self._client, request):
            log.warning("outdated_deliveries_cancelled", study_instance_uid=study_instance_uid, workflows=cancelled)
        if not is_by_hand and (why := self._why_held(request, records, is_other_identity)):
            self._client.describe(records[-1].workflow_id, {HELD: why})
            log.warning("study_held", study_instance_uid=study_instance_uid, reason=why)
            return True
        request, attempt = request_once_more(request, records) if is_to_be_repeated else (request, 1)
        self._enqueue(request, attempt, records, lost)
        if self._config.series.collect_unknown:
            self._collect_unknown(request)
        return False

    def _why_held(self, request: ProcessingRequest, records: Sequence[WorkflowRecord], is_other_identity: bool) -> str:
        """Why a reported study whose inputs changed waits for the administrator; empty: it does not."""
        reported = latest_report(records)
        if self._config.assembly.corrections == "redo" or reported is None:
            return ""
        is_same_revision = request.revision == reported.attributes.get(REVISION, "")
        if is_same_revision and not is_other_identity:
            return ""
        return "corrected or withdrawn in part"

    def retry(self, study_instance_uid: str, use: Mapping[Contrast, str]) -> str:
        """Process the study again; returns the workflow's id. ``use``: the series to take for a contrast.

        Raises:
            StudyError: the study is unknown, has no instance in the spool, or is being processed.
        """
        records = self._known(study_instance_uid)
        if not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"study {study_instance_uid}: nothing of it is in the spool; send it again")
        is_reported = latest_report(records) is not None
        request = self._request(RequestOptions(study_instance_uid, use=use, keeps_expired=is_reported))
        request = with_own_identity(request, self._config.work_folder)
        if use and request.selection is None and not request.is_undecided:
            raise StudyError(f"study {study_instance_uid}: {request.refusal}")
        if not use:  # what is chosen by hand is an attempt at the same request, even where nothing else is chosen
            request = with_own_words(request, records, self._config.work_folder)
        # the selection that a comparison leads to is not known yet: its attempts must have other ids than earlier ones
        known = [each for each in records if request.is_undecided or digest_of(each) == request.workflow_id]
        if any(record.engine_status in ACTIVE and record.engine_status != "DELAYED" for record in known):
            raise StudyError(f"study {study_instance_uid} is being processed")
        for record in known:
            if record.engine_status in ACTIVE:
                self._client.cancel(record.workflow_id)
        attempt = 1 + max((WorkflowId.parse(record.workflow_id).attempt for record in known), default=0)
        return self._enqueue(replace(request, force=True), attempt, records)

    def cancel(self, study_instance_uid: str) -> list[str]:
        """Cancel the study's active workflows, deliveries included; returns their ids.

        Raises:
            StudyError: the study is unknown, or has no active workflow.
        """
        attributes = {"study_instance_uid": study_instance_uid}
        records = [*self._known(study_instance_uid), *self._client.workflows("deliver", attributes=attributes)]
        active = [record.workflow_id for record in records if record.engine_status in ACTIVE]
        if not active:
            raise StudyError(f"study {study_instance_uid}: nothing is under way")
        for workflow_id in active:
            self._client.cancel(workflow_id)
        return active

    def _known(self, study_instance_uid: str) -> list[WorkflowRecord]:
        """The study's workflows, oldest first; an empty list while it is being received."""
        records = workflows_of_study(self._client, study_instance_uid)
        if not records and not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"no study {study_instance_uid}")
        return records

    def _enqueue(
        self, request: ProcessingRequest, attempt: int, records: Sequence[WorkflowRecord], lost: str = ""
    ) -> str:
        request = replace(request, earlier=earlier_requests(records, request.workflow_id))
        if not request.is_undecided:  # a comparison may lead to the same request as the one that waits
            cancel_waiting(self._client, records, request.workflow_id)
        workflow_id = str(WorkflowId(request.workflow_id, attempt))
        folder = self._config.work_folder / request.workflow_id
        # with the creation time of existing results, new results have equal bytes under the same UIDs
        request = with_first_creation_time(request, folder)
        attributes = request_attributes(request) | choice_attributes(request, lost)
        priority = study_priority(self._config, request.folder, records)
        arguments = (request.as_json(), str(folder))
        self._client.enqueue(STUDY_QUEUE, "process", workflow_id, *arguments, attributes=attributes, priority=priority)
        self._metrics.studies.inc()
        log.info("study_started", study_instance_uid=request.study_instance_uid, workflow_id=workflow_id)
        return workflow_id

    def _collect_unknown(self, request: ProcessingRequest) -> None:
        try:
            study = read_study(request.folder)
        except RefusedError:
            return  # the workflow refuses the study with this reason
        collect(self._config.unknown_descriptions_file, study, load_vocabulary(dict(self._config.series.rules)))

    def _request(self, options: RequestOptions) -> ProcessingRequest:
        return build_request(self._config.spool_folder / options.study_instance_uid, self._config, options)
