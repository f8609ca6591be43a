"""Workers watch each other, for the engine does not resume what a dead worker left unfinished.

Each worker counts its heartbeats in the database. A worker whose count stood still for ``engine.dead_seconds`` is taken
for dead. Of the living workers of one application version the first by name resumes the dead one's workflows of that
version, so that two workers do not resume the same.

A worker also resumes the workflows that it owns and that none of its threads runs: the engine drops a workflow without
a log entry if the database refuses a write for a moment. A worker that was only frozen finds that the engine records
no more steps of the workflows it lost.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import sqlalchemy as sa
import structlog

from node.config import Config
from node.workflow.leftovers import Leftovers
from node.workflow.states import UNREADABLE
from node.workflow.tables import ENGINE_APPLICATION, ENGINE_WORKFLOWS, WORKERS
from node.workflow.versions import ApplicationVersions
from node.workflow.worker_watch import OverdueIds, WorkerWatch

log = structlog.get_logger()


class RunningWorkflows:
    """The workflows that threads of this worker run now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: Counter[str] = Counter()

    @contextmanager
    def running(self, workflow_id: str) -> Iterator[None]:
        """The workflow counts as running until the block ends."""
        with self._lock:
            self._runs[workflow_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs[workflow_id] -= 1
                if not self._runs[workflow_id]:
                    del self._runs[workflow_id]

    def ids(self) -> set[str]:
        """The workflows that run at this moment."""
        with self._lock:
            return set(self._runs)


class _Pending(NamedTuple):
    """A workflow that a worker runs, or ran when it died."""

    workflow_id: str
    executor_id: str | None
    application_version: str | None
    queue_name: str | None


class Heartbeat:
    """One worker's heartbeat in the database, and its look at the other workers and at its own workflows."""

    def __init__(
        self, config: Config, tables: sa.Engine, identity: str, version: str, running: RunningWorkflows
    ) -> None:
        seconds = config.engine.dead_seconds
        self._tables = tables
        self._identity = identity
        self._version = version
        self._running = running
        self._same_version, self._everyone = WorkerWatch(identity, seconds), WorkerWatch(identity, seconds)
        self._dropped = OverdueIds(seconds)
        self._most_resumed = config.engine.max_recoveries
        self._resumed: Counter[str] = Counter()
        self._versions = ApplicationVersions(tables, seconds)
        self._leftovers = Leftovers(tables, config.folder, identity, seconds)

    def beat(self, now: float) -> list[str]:
        """Count a heartbeat, then look at all workers; returns the ids of the workflows that were resumed."""
        versions, beats = self._count()
        pending = self._pending()
        for begun in self._running.ids():
            self._resumed.pop(begun, None)
        resumed = [self._resume(workflow) for workflow in self._abandoned(pending, versions, beats, now)]
        self._everyone.look(beats, (), now)
        if self._everyone.is_first:
            self._versions.look({versions.get(executor, self._version) for executor in self._everyone.living}, now)
        self._leftovers.remove(beats, {each.executor_id for each in pending if each.executor_id}, now)
        return resumed

    def _count(self) -> tuple[dict[str, str], dict[str, int]]:
        """Count the own heartbeat; version and count of every worker, by executor id."""
        with self._tables.begin() as connection:
            mine = sa.update(WORKERS).where(WORKERS.c.executor_id == self._identity)
            counted = mine.values(beat=WORKERS.c.beat + 1, application_version=self._version)
            if connection.execute(counted).rowcount == 0:
                row = {"executor_id": self._identity, "beat": 1, "application_version": self._version}
                connection.execute(sa.insert(WORKERS).values(row))
            rows = connection.execute(sa.select(WORKERS)).all()
        return {row.executor_id: row.application_version for row in rows}, {row.executor_id: row.beat for row in rows}

    def _pending(self) -> list[_Pending]:
        """The pending workflows of all application versions, oldest first."""
        engine = ENGINE_WORKFLOWS.c
        query = sa.select(engine.workflow_uuid, engine.executor_id, engine.application_version, engine.queue_name)
        # written out, for only then can SQLite use the engine's index of these workflows
        is_pending = engine.status == sa.literal_column("'PENDING'")
        is_ours = sa.or_(engine.application_name == ENGINE_APPLICATION, engine.application_name.is_(None))
        with self._tables.connect() as connection:
            rows = connection.execute(query.where(is_pending, is_ours).order_by(engine.created_at))
            return [_Pending(*row) for row in rows]

    def _abandoned(
        self, pending: Sequence[_Pending], versions: Mapping[str, str], beats: Mapping[str, int], now: float
    ) -> list[_Pending]:
        """The workflows of this worker's version that it is to resume."""
        # a worker that started again as another version is, for the workflows of this version, a dead one
        peers = {executor: beat for executor, beat in beats.items() if versions[executor] == self._version}
        workflows = [each for each in pending if each.application_version == self._version]
        self._same_version.look(peers, {each.executor_id for each in workflows if each.executor_id}, now)
        dead = self._same_version.silent if self._same_version.is_first else frozenset()
        own = {each.workflow_id for each in workflows if each.executor_id == self._identity}
        # the running ones are asked for after the list was read: a workflow that began meanwhile is among them
        dropped = self._dropped.due(own - self._running.ids(), now)
        return [each for each in workflows if each.executor_id in dead or each.workflow_id in dropped]

    def _resume(self, workflow: _Pending) -> str:
        """Let the engine begin the workflow again, unless no thread of this worker ever came to run it.

        The engine drops a workflow whose row it cannot use (a form of records that it does not know, say), each time.
        """
        from dbos import DBOS

        self._resumed[workflow.workflow_id] += 1
        if self._resumed[workflow.workflow_id] > self._most_resumed:
            del self._resumed[workflow.workflow_id]
            log.error("workflow_cannot_begin", workflow_id=workflow.workflow_id)
            told = {UNREADABLE: "its row in workflow_status"}
            DBOS.update_workflow_attributes(workflow.workflow_id, told, merge=True)
            DBOS.cancel_workflow(workflow.workflow_id)
            return workflow.workflow_id
        DBOS.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
        event = "workflow_taken_up_again" if workflow.executor_id == self._identity else "workflow_taken_over"
        log.warning(event, workflow_id=workflow.workflow_id, executor=workflow.executor_id)
        return workflow.workflow_id


@contextmanager
def watching_others(
    heartbeat: Heartbeat,
    pause_seconds: float,
    end_worker: Callable[[str], None],
    moved: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Beat, and take over the workflows of dead workers, in a thread until the block ends.

    ``end_worker`` is called with an event to log if that thread ends by an error: the other workers would resume all
    workflows of this one at each of their heartbeats. ``moved`` is called after each round.
    """
    from dbos import error as dbos_errors

    stopping = threading.Event()
    # a database that does not answer for a while ends nothing: the next heartbeat tries again
    survived = (sa.exc.SQLAlchemyError, OSError, dbos_errors.DBOSException, dbos_errors.DBOSBaseException)

    def run() -> None:
        try:
            while True:
                try:
                    heartbeat.beat(time.monotonic())
                except survived as error:
                    log.error("heartbeat_failed", reason=type(error).__name__)
                moved()
                if stopping.wait(pause_seconds):
                    return
        finally:
            if not stopping.is_set():
                end_worker("heartbeat_died")

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
