"""The desk where studies are ordered, tried again and cancelled. Knows spool folders and the engine's client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from node.config import Config
from node.engine import ACTIVE, STUDY_QUEUE, WorkflowClient, WorkflowRecord
from node.errors import RefusedError, StorageError, StudyError
from node.metrics import Metrics
from node.order import (
    Order,
    Wish,
    attempt_id,
    attempt_of,
    instances_by_name,
    order_of,
    order_study,
    with_earlier_moment,
)
from node.removal import is_out_of_the_way
from node.series.headers import read_study
from node.series.unknown import collect
from node.series.vocabulary import load_vocabulary
from node.study import Contrast
from node.succession import earlier_orders, end_waiting, judged, judged_by_study, orders_of_study, words_about

log = structlog.get_logger()


class StudyDesk:
    """Turns studies into workflows: the assembly hands stable ones over, the admin retries and cancels."""

    def __init__(self, config: Config, client: WorkflowClient, metrics: Metrics) -> None:
        self._config = config
        self._client = client
        self._metrics = metrics

    def settled(self, studies: Iterable[str]) -> frozenset[str]:
        """Those of ``studies`` of which the spool holds nothing that was not judged; told by names, no file is read.

        Raises:
            EngineError: the database does not answer.
            OSError: a folder cannot be listed.
        """
        known = judged_by_study(self._client)
        folder = self._config.spool_folder
        return frozenset(uid for uid in studies if instances_by_name(folder / uid) in known.get(uid, frozenset()))

    def is_complete(self, study_instance_uid: str, quiet_series: frozenset[str]) -> bool:
        """True if every contrast the method needs is among ``quiet_series``, and the model is the one for all four."""
        order = self._order(Wish(study_instance_uid, quiet_series))
        return order.selection is not None and order.model == self._config.segmentation.model

    def start(self, study_instance_uid: str, quiet_series: frozenset[str] | None = None) -> None:
        """Enqueue the study's workflow (of ``quiet_series``; None: all).

        The same instances never run twice, also if they would be judged otherwise now, by other settings or rules: what
        was delivered stays what it is until somebody asks for more (`retry`).
        """
        folder = self._config.spool_folder / study_instance_uid
        if not folder.is_dir():
            if is_out_of_the_way(self._config.spool_folder, study_instance_uid) or folder.is_dir():
                raise StorageError("the study is being looked at for deletion")  # and may come back
            return  # deleted since, as every destination has its results
        order = self._order(Wish(study_instance_uid, quiet_series))
        records = orders_of_study(self._client, order.study_instance_uid)
        is_judged = order.instances in judged(records)
        known = [each.workflow_id for each in records if order_of(each.workflow_id) == order.workflow_id]
        if known and not is_judged:  # more came than was ordered, and nothing of it matters
            self._client.describe(known[-1], words_about(order))
        if known or is_judged:
            log.info("study_unchanged", study_instance_uid=study_instance_uid, workflow_id=order.workflow_id)
            return
        self._enqueue(order, 1, records)
        if self._config.series.collect_unknown:
            self._collect_unknown(order)

    def retry(self, study_instance_uid: str, use: Mapping[Contrast, str]) -> str:
        """Try the study again, with ``use`` taken for its contrasts; returns the workflow's id.

        Raises:
            StudyError: nobody knows the study, nothing of it is in the spool, or it is being processed.
        """
        records = self._known(study_instance_uid)
        if not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"study {study_instance_uid}: nothing of it is in the spool; send it again")
        order = self._order(Wish(study_instance_uid, use=use))
        if use and order.selection is None and not order.is_undecided:
            raise StudyError(f"study {study_instance_uid}: {order.refusal}")
        # what a comparison will lead to is not known yet: its attempts must not be those of an earlier one
        known = [each for each in records if order.is_undecided or order_of(each.workflow_id) == order.workflow_id]
        if any(record.engine_status in ACTIVE and record.engine_status != "DELAYED" for record in known):
            raise StudyError(f"study {study_instance_uid} is being processed")
        for record in known:
            if record.engine_status in ACTIVE:
                self._client.cancel(record.workflow_id)
        attempt = 1 + max((attempt_of(record.workflow_id) for record in known), default=0)
        return self._enqueue(replace(order, is_by_hand=True), attempt, records)

    def cancel(self, study_instance_uid: str) -> list[str]:
        """End what is under way for the study, deliveries included; the ids of what was ended.

        Raises:
            StudyError: nobody knows the study, or nothing is under way.
        """
        about = {"study_instance_uid": study_instance_uid}
        records = [*self._known(study_instance_uid), *self._client.workflows("deliver", about=about)]
        active = [record.workflow_id for record in records if record.engine_status in ACTIVE]
        if not active:
            raise StudyError(f"study {study_instance_uid}: nothing is under way")
        for workflow_id in active:
            self._client.cancel(workflow_id)
        return active

    def _known(self, study_instance_uid: str) -> list[WorkflowRecord]:
        """The study's workflows, oldest first; none while it is being received."""
        records = orders_of_study(self._client, study_instance_uid)
        if not records and not (self._config.spool_folder / study_instance_uid).is_dir():
            raise StudyError(f"no study {study_instance_uid}")
        return records

    def _enqueue(self, order: Order, attempt: int, records: Sequence[WorkflowRecord]) -> str:
        order = replace(order, earlier=earlier_orders(records, order.workflow_id))
        if not order.is_undecided:  # else a comparison may find that what waits is what is wanted
            end_waiting(self._client, records, order.workflow_id)
        workflow_id = attempt_id(order.workflow_id, attempt)
        folder = self._config.work_folder / order.workflow_id
        # results made before keep their moment, so that making them again gives equal bytes under their UIDs
        order = with_earlier_moment(order, folder)
        about = words_about(order)
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

    def _order(self, wish: Wish) -> Order:
        return order_study(self._config.spool_folder / wish.study_instance_uid, self._config, wish)
