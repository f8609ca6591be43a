"""The statuses of very many studies: what has not changed is kept, and what is not shown is not read."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from node.config import Config
from node.processing.request_records import unknown_study
from node.processing.study_status import StudyStatus, complete_statuses, receiving_studies, statuses_of
from node.processing.waiting import WAITS, Waiting, waiting_places
from node.workflow.sqlite_records import Records
from node.workflow.states import ACTIVE_STATUSES
from node.workflow.workflow_id import WorkflowId, WorkflowKind
from node.workflow.workflow_record import WorkflowMark

_MOST_READ_BY_ID = 2000
"""Above this, the engine's list of all workflows is faster than lists by ids."""

_MOST_ENDED_READ = 100
"""By how many of the workflows that ended last, reported or not, the time of the next ones is estimated."""

_Marks = tuple[WorkflowMark, ...]


class KnownStudies:
    """Statuses as `read_study_statuses` gives them. Safe for many threads.

    A status is kept as long as no workflow of the study is active, or differs from what it was at the last reading.
    """

    def __init__(self, config: Config, client: Records) -> None:
        self._config, self._client = config, client
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[_Marks, StudyStatus]] = {}

    def all(self) -> list[StudyStatus]:
        """Every study, oldest first.

        Raises:
            EngineError: the database does not answer.
        """
        with self._lock:
            marks = self._marks()
            self._kept = {uid: each for uid, each in self._kept.items() if uid in marks}
            return self._complete(marks, marks)

    def latest(self, count: int) -> tuple[list[StudyStatus], int]:
        """The ``count`` studies that changed last, oldest first, and those being received; and how many are left out.

        Raises:
            EngineError: the database does not answer.
        """
        with self._lock:
            marks = self._marks()
            changed = {uid: max(mark.updated_ms for mark in each) for uid, each in marks.items()}
            shown = sorted(changed, key=changed.__getitem__)[-count:]
            return self._complete(marks, shown), len(marks) - len(shown)

    def _marks(self) -> dict[str, _Marks]:
        """The marks of each study's workflows, by Study Instance UID."""
        found: dict[str, list[WorkflowMark]] = {}
        every = self._client.marks(("process", "deliver"))
        studies = {
            mark.workflow_id: mark.study_instance_uid or unknown_study(mark.workflow_id)
            for mark in every
            if mark.name == WorkflowKind.PROCESS
        }
        for mark in every:
            if mark.name == WorkflowKind.PROCESS:
                uid = studies[mark.workflow_id]
            else:  # deliveries of glionode 0.1.0 may name no study, but their ids name the request
                processing = str(WorkflowId.parse(mark.workflow_id).processing)
                uid = mark.study_instance_uid or studies.get(processing, "")
            found.setdefault(uid, []).append(mark)
        is_known = set(studies.values())
        return {uid: tuple(marks) for uid, marks in found.items() if uid in is_known}

    def _complete(self, marks: dict[str, _Marks], shown: Collection[str]) -> list[StudyStatus]:
        unread = {uid: marks[uid] for uid in shown if not self._is_kept(uid, marks[uid])}
        for status in self._read(unread):
            self._kept[status.study_instance_uid] = (marks[status.study_instance_uid], status)
        statuses = [self._kept[uid][1] for uid in shown if uid in self._kept]
        statuses += receiving_studies(self._config, marks)
        return complete_statuses(self._config, statuses, self._places(marks))

    def _places(self, marks: dict[str, _Marks]) -> dict[str, Waiting]:
        """The places of all that wait, for which few other records are read."""
        requests = [mark for each in marks.values() for mark in each if mark.name == WorkflowKind.PROCESS]
        if not any(mark.engine_status == WAITS for mark in requests):
            return {}
        ended = sorted((mark for mark in requests if mark.engine_status == "SUCCESS"), key=lambda mark: mark.updated_ms)
        read = [mark for mark in requests if mark.engine_status in ACTIVE_STATUSES] + ended[-_MOST_ENDED_READ:]
        ids = [mark.workflow_id for mark in read]
        return waiting_places(self._client, self._client.workflows(WorkflowKind.PROCESS, workflow_ids=ids))

    def _is_kept(self, uid: str, marks: _Marks) -> bool:
        kept = self._kept.get(uid)
        return (
            kept is not None and kept[0] == marks and not any(mark.engine_status in ACTIVE_STATUSES for mark in marks)
        )

    def _read(self, marks: dict[str, _Marks]) -> Iterable[StudyStatus]:
        ids = [mark.workflow_id for each in marks.values() for mark in each]
        if not ids:
            return ()
        every = None if len(ids) > _MOST_READ_BY_ID else ids
        requests, deliveries = (self._client.workflows(name, workflow_ids=every) for name in ("process", "deliver"))
        studies = {mark.workflow_id: uid for uid, each in marks.items() for mark in each}
        # a workflow that was enqueued since the marks were read is left for the next time
        known = [each for each in requests if each.workflow_id in studies]
        return statuses_of(known, deliveries, lambda record: studies[record.workflow_id])
