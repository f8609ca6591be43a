"""The statuses of very many studies: what has not changed is kept, and what is not shown is not read."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from node.config import Config
from node.processing.study_status import StudyStatus, statuses_of, with_spool
from node.workflow.engine import ACTIVE, WorkflowClient
from node.workflow.marks import WorkflowMark
from node.workflow.workflow_id import WorkflowId

_MOST_READ_BY_ID = 2000
"""Above this, the engine's list of all workflows is faster than lists by ids."""

_Marks = frozenset[WorkflowMark]


class KnownStudies:
    """Statuses as `read_study_statuses` gives them. Safe for many threads.

    A status is kept as long as no workflow of the study is active, or differs from what it was at the last reading.
    """

    def __init__(self, config: Config, client: WorkflowClient) -> None:
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
            return self._sorted(marks, marks)

    def latest(self, count: int) -> tuple[list[StudyStatus], int]:
        """The ``count`` studies that changed last, oldest first, and those being received; and how many are left out.

        Raises:
            EngineError: the database does not answer.
        """
        with self._lock:
            marks = self._marks()
            changed = {uid: max(mark.updated_ms for mark in each) for uid, each in marks.items()}
            shown = sorted(changed, key=changed.__getitem__)[-count:]
            return self._sorted(marks, shown), len(marks) - len(shown)

    def _marks(self) -> dict[str, _Marks]:
        """The marks of each study's workflows, by Study Instance UID."""
        found: dict[str, list[WorkflowMark]] = {}
        every = self._client.marks(("process", "deliver"))
        # deliveries of glionode 0.1.0 may name no study, but their ids name the request
        by_id: dict[str, str] = {}
        if any(mark.study_instance_uid is None for mark in every):
            by_id = {mark.workflow_id: mark.study_instance_uid or "" for mark in every if mark.name == "process"}
        for mark in every:
            uid = mark.study_instance_uid or by_id.get(str(WorkflowId.parse(mark.workflow_id).processing))
            if uid:
                found.setdefault(uid, []).append(mark)
        is_known = {uid for uid, marks in found.items() if any(mark.name == "process" for mark in marks)}
        return {uid: frozenset(marks) for uid, marks in found.items() if uid in is_known}

    def _sorted(self, marks: dict[str, _Marks], shown: Collection[str]) -> list[StudyStatus]:
        unread = {uid: marks[uid] for uid in shown if not self._is_kept(uid, marks[uid])}
        for status in self._read(unread):
            self._kept[status.study_instance_uid] = (marks[status.study_instance_uid], status)
        return with_spool(self._config, [self._kept[uid][1] for uid in shown if uid in self._kept], marks)

    def _is_kept(self, uid: str, marks: _Marks) -> bool:
        kept = self._kept.get(uid)
        return kept is not None and kept[0] == marks and not any(mark.engine_status in ACTIVE for mark in marks)

    def _read(self, marks: dict[str, _Marks]) -> Iterable[StudyStatus]:
        ids = [mark.workflow_id for each in marks.values() for mark in each]
        if not ids:
            return ()
        every = None if len(ids) > _MOST_READ_BY_ID else ids
        requests, deliveries = (self._client.workflows(name, workflow_ids=every) for name in ("process", "deliver"))
        return [status for status in statuses_of(requests, deliveries) if status.study_instance_uid in marks]
