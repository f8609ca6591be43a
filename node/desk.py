"""The desk where studies are ordered, tried again and cancelled. Knows spool folders and the engine's client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from node.config import Config
from node.engine import ACTIVE, STUDY_QUEUE, WorkflowClient, WorkflowRecord
from node.errors import RefusedError, StudyError
from node.metrics import Metrics
from node.order import Order, Wish, attempt_id, attempt_of, order_study, with_earlier_moment
from node.series.headers import read_study
from node.series.unknown import collect
from node.series.vocabulary import load_vocabulary
from node.study import Contrast

log = structlog.get_logger()


class StudyDesk:
    """Turns studies into workflows: the assembly hands stable ones over, the admin retries and cancels."""

    def __init__(self, config: Config, client: WorkflowClient, metrics: Metrics) -> None:
        self._config = config
        self._client = client
        self._metrics = metrics

    def is_complete(self, study_instance_uid: str, quiet_series: frozenset[str]) -> bool:
        """True if every contrast the method needs is among ``quiet_series``, and the model is the one for all four."""
        order = self._order(Wish(study_instance_uid, quiet_series))
        return order.selection is not None and order.model == self._config.segmentation.model

    def start(self, study_instance_uid: str, quiet_series: frozenset[str] | None = None) -> None:
        """Enqueue the study's workflow (of ``quiet_series``; None: all); the same instances never run twice."""
        if not (self._config.spool_folder / study_instance_uid).is_dir():
            return  # deleted since, as every destination has its results
        order = self._order(Wish(study_instance_uid, quiet_series))
        if self._client.is_known(order.workflow_id):
            log.info("study_unchanged", study_instance_uid=study_instance_uid, workflow_id=order.workflow_id)
            return
        self._enqueue(order, 1)
        if self._config.series.collect_unknown:
            self._collect_unknown(order)

    def retry(self, study_instance_uid: str, use: Mapping[Contrast, str]) -> str:
        """Try the study again, with ``use`` taken for its contrasts; returns the workflow's id.

        Raises:
            StudyError: nothing of the study is in the spool, or it is being processed.
        """
        if not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"study {study_instance_uid}: nothing of it is in the spool; send it again")
        order = self._order(Wish(study_instance_uid, use=use))
        if use and order.selection is None and not order.is_undecided:
            raise StudyError(f"study {study_instance_uid}: {order.refusal}")
        known = self._client.workflows("process", prefix=order.workflow_id)
        if any(record.engine_status in ACTIVE and record.engine_status != "DELAYED" for record in known):
            raise StudyError(f"study {study_instance_uid} is being processed")
        for record in known:
            if record.engine_status in ACTIVE:
                self._client.cancel(record.workflow_id)
        return self._enqueue(order, 1 + max((attempt_of(record.workflow_id) for record in known), default=0))

    def cancel(self, study_instance_uid: str) -> list[str]:
        """End what is under way for the study, deliveries included; the ids of what was ended.

        Raises:
            StudyError: nothing is under way.
        """
        about = {"study_instance_uid": study_instance_uid}
        records = [*self._client.workflows("process", about=about), *self._client.workflows("deliver", about=about)]
        active = [record.workflow_id for record in records if record.engine_status in ACTIVE]
        if not active:
            raise StudyError(f"study {study_instance_uid}: nothing is under way")
        for workflow_id in active:
            self._client.cancel(workflow_id)
        return active

    def _enqueue(self, order: Order, attempt: int) -> str:
        about = {"study_instance_uid": order.study_instance_uid}
        order = self._replacing(order, self._client.workflows("process", about=about))
        workflow_id = attempt_id(order.workflow_id, attempt)
        folder = self._config.work_folder / order.workflow_id
        # results made before keep their moment, so that making them again gives equal bytes under their UIDs
        order = with_earlier_moment(order, folder)
        self._client.enqueue(STUDY_QUEUE, "process", workflow_id, order.as_json(), str(folder), about=about)
        self._metrics.studies.inc()
        log.info("study_started", study_instance_uid=order.study_instance_uid, workflow_id=workflow_id)
        return workflow_id

    def _collect_unknown(self, order: Order) -> None:
        try:
            study = read_study(order.folder)
        except RefusedError:
            return  # it is refused with this reason
        collect(self._config.unknown_descriptions_file, study, load_vocabulary(dict(self._config.series.rules)))

    def _replacing(self, order: Order, records: list[WorkflowRecord]) -> Order:
        """``order`` with the study's latest earlier one, which is ended if it still waits for its turn."""
        earlier = [each for each in records if each.workflow_id.partition(".")[0] != order.workflow_id]
        for record in earlier:
            if record.engine_status in ("ENQUEUED", "DELAYED"):
                self._client.cancel(record.workflow_id)
        return replace(order, replaces=earlier[-1].workflow_id.partition(".")[0]) if earlier else order

    def _order(self, wish: Wish) -> Order:
        return order_study(self._config.spool_folder / wish.study_instance_uid, self._config, wish)
