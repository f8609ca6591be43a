"""Rows and files of workers that no longer exist are removed, so that renamed hosts and devices leave nothing behind.

A worker is removed once it gave no heartbeat for an hour, as seen by this process, and owns no unfinished workflow.
Every worker removes, since workers on several hosts may share the database, but not the folder. A worker that was only
frozen loses nothing that it needs: its files are locked, so they stay, and its next heartbeat writes its row anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import sqlalchemy as sa
import structlog

from node.workflow.states import ACTIVE_STATUSES
from node.workflow.tables import ENGINE_WORKFLOWS, UNDER_WAY, WORKERS
from node.workflow.worker_files import remove_files, workers_with_files
from node.workflow.worker_watch import WorkerWatch

log = structlog.get_logger()

REMOVAL_SECONDS, ROUND_SECONDS = 3600.0, 600.0
"""How long a worker is silent before it is removed, and the time between two looks."""


class Leftovers:
    """Removes rows and files of dead workers from database and ``folder``. Time is passed in, in monotonic seconds."""

    def __init__(self, tables: sa.Engine, folder: Path, identity: str, dead_seconds: float) -> None:
        self._tables = tables
        self._folder = folder
        self._watch = WorkerWatch(identity, max(REMOVAL_SECONDS, dead_seconds))
        self._identity = identity
        self._next_round: float | None = None

    def remove(self, beats: Mapping[str, int], owners: Collection[str], now: float) -> list[str]:
        """Remove dead workers, at most once in a round; returns their ids.

        Args:
            beats: executor id to the count of its heartbeats.
            owners: executor ids of all pending workflows.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        if self._next_round is not None and now < self._next_round:
            return []
        self._next_round = now + ROUND_SECONDS
        self._remove_marks()
        with_files = workers_with_files(self._folder)
        self._watch.look(beats, {*owners, *with_files}, now)
        removed = []
        for worker in sorted(self._watch.silent - {*owners, self._identity}):
            if worker not in with_files or self._are_files_removed(worker):
                removed.append(worker)
                log.info("dead_worker_removed", executor=worker)
        silent = [(WORKERS.c.executor_id == worker) & (WORKERS.c.beat == beats.get(worker)) for worker in removed]
        if silent:
            with self._tables.begin() as connection:  # a row that changed since it was read stays
                connection.execute(sa.delete(WORKERS).where(sa.or_(*silent)))
        return removed

    def _are_files_removed(self, worker: str) -> bool:
        try:
            return remove_files(self._folder, worker, partial(self._has_marks, worker))
        except OSError as error:
            log.warning("dead_worker_not_removed", executor=worker, reason=error.strerror)
            return False

    def _has_marks(self, worker: str) -> bool:
        """True if the worker may have crashed in a workflow that is not over; its files say whether it did."""
        with self._tables.connect() as connection:
            marks = sa.select(UNDER_WAY.c.workflow_id).where(UNDER_WAY.c.executor_id == worker)
            return connection.execute(marks.limit(1)).first() is not None

    def _remove_marks(self) -> None:
        """Remove the marks of workflows that are over, whose worker died before it could remove them."""
        with self._tables.connect() as connection:
            marks = connection.execute(sa.select(UNDER_WAY)).all()
            engine = ENGINE_WORKFLOWS.c
            active = sa.select(engine.workflow_uuid).where(
                engine.workflow_uuid.in_([mark.workflow_id for mark in marks]), engine.status.in_(ACTIVE_STATUSES)
            )
            unfinished = set(connection.execute(active).scalars()) if marks else set()
        for mark in marks:
            if mark.workflow_id not in unfinished:
                this = UNDER_WAY.c.workflow_id == mark.workflow_id
                same = UNDER_WAY.c.executor_id.is_not_distinct_from(mark.executor_id)
                with self._tables.begin() as connection:  # a mark that changed since it was read stays
                    connection.execute(sa.delete(UNDER_WAY).where(this, same, UNDER_WAY.c.crashes == mark.crashes))
