"""Workers watch each other: what a dead one left unfinished is resumed by another (ENGINE's only gap).

Each worker counts up a beat of its own in the database. A worker whose beat stood still for ``engine.dead_seconds``, as
seen by this process's own monotonic clock, is taken for dead: no two machines' clocks are compared. Of the living
workers the first by name resumes the dead one's workflows, so that two do not resume the same.

A worker also resumes what is its own by name and what no thread of it runs: the engine gives up, without a word, what
the database did not take for a moment. One that was only asleep wakes to find that the engine no longer lets it record
steps of workflows it lost.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from node.config import Config
from node.workflow.tables import WORKERS, open_tables

if TYPE_CHECKING:
    from dbos import WorkflowStatus

log = structlog.get_logger()

_STOP_SECONDS = 5.0


class Watch:
    """Who lives, judged by beats. Time is passed in, in monotonic seconds."""

    def __init__(self, identity: str, dead_seconds: float) -> None:
        self._identity = identity
        self._dead_seconds = dead_seconds
        self._seen: dict[str, tuple[int | None, float]] = {}

    def dead(self, beats: dict[str, int], owners: Iterable[str], now: float) -> list[str]:
        """The ``owners`` of unfinished workflows that are dead and that it is this worker's turn to take over.

        ``beats``: executor id to its count. An owner without a beat is given ``dead_seconds``, too.
        """
        owners = set(owners)
        for executor in owners | set(beats):
            beat = beats.get(executor)
            if executor not in self._seen or self._seen[executor][0] != beat:
                self._seen[executor] = (beat, now)
        for gone in set(self._seen) - owners - set(beats):
            del self._seen[gone]
        silent = {executor for executor, (_, since) in self._seen.items() if now - since >= self._dead_seconds}
        living = set(beats) - silent | {self._identity}
        return sorted((owners & silent) - {self._identity}) if min(living) == self._identity else []


class RunningWorkflows:
    """The workflows that threads of this worker run now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: Counter[str] = Counter()

    @contextmanager
    def running(self, workflow_id: str) -> Iterator[None]:
        """It runs as long as the block does."""
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
        """Of this moment."""
        with self._lock:
            return set(self._runs)


class AbandonedWorkflows:
    """Which workflows of this worker no thread runs, for longer than it takes to begin or to end one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def due(self, idle: Iterable[str], now: float) -> set[str]:
        """Of the ``idle`` ones those that were idle at every look for ``seconds``; they are given as long again."""
        self._since = {workflow_id: self._since.get(workflow_id, now) for workflow_id in idle}
        due = {workflow_id for workflow_id, since in self._since.items() if now - since >= self._seconds}
        for workflow_id in due:
            del self._since[workflow_id]
        return due


class Heartbeat:
    """One worker's beat in the database, and its look at the others' and at what is its own."""

    def __init__(
        self, config: Config, tables: sa.Engine, identity: str, version: str, at_work: RunningWorkflows
    ) -> None:
        self._tables = tables
        self._identity = identity
        self._version = version
        self._at_work = at_work
        self._watch = Watch(identity, config.engine.dead_seconds)
        self._forgotten = AbandonedWorkflows(config.engine.dead_seconds)

    def beat(self, now: float) -> list[str]:
        """Count up the own beat, look at all; the ids of workflows that were resumed."""
        from dbos import DBOS

        with self._tables.begin() as connection:
            mine = sa.update(WORKERS).where(WORKERS.c.executor_id == self._identity)
            if connection.execute(mine.values(beat=WORKERS.c.beat + 1)).rowcount == 0:
                connection.execute(sa.insert(WORKERS).values(executor_id=self._identity, beat=1))
            beats = {row.executor_id: row.beat for row in connection.execute(sa.select(WORKERS))}
        # those of another version wait for a worker of that version
        pending = DBOS.list_workflows(status="PENDING", app_version=self._version, load_input=False, load_output=False)
        dead = self._watch.dead(beats, {each.executor_id for each in pending if each.executor_id}, now)
        # asked after the list: what began meanwhile is in it
        own = {each.workflow_id for each in pending if each.executor_id == self._identity}
        forgotten = self._forgotten.due(own - self._at_work.ids(), now)
        resumed = []
        for workflow in pending:
            if workflow.executor_id in dead or workflow.workflow_id in forgotten:
                resumed.append(self._resume(workflow))
        return resumed

    def _resume(self, workflow: WorkflowStatus) -> str:
        from dbos import DBOS

        DBOS.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
        event = "workflow_taken_up_again" if workflow.executor_id == self._identity else "workflow_taken_over"
        log.warning(event, workflow_id=workflow.workflow_id, executor=workflow.executor_id)
        return workflow.workflow_id


@contextmanager
def watching_others(heartbeat: Heartbeat, pause_seconds: float, end_worker: Callable[[str], None]) -> Iterator[None]:
    """Beat, and take over what dead workers left, in a thread until the block ends.

    ``end_worker`` is called with the event to log should that thread die: others would take all its work at every beat.
    """
    from dbos import error as dbos_errors

    stopping = threading.Event()
    # a database that is away for a while ends nothing: the next beat tries again
    survived = (sa.exc.SQLAlchemyError, OSError, dbos_errors.DBOSException, dbos_errors.DBOSBaseException)

    def run() -> None:
        try:
            while True:
                try:
                    heartbeat.beat(time.monotonic())
                except survived as error:
                    log.error("heartbeat_failed", reason=type(error).__name__)
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


class WorkerLiveness:
    """Whether any worker lives, as seen by a process that is none. ``trouble`` may be asked by any thread."""

    def __init__(self, dead_seconds: float, now: float) -> None:
        self._dead_seconds = dead_seconds
        self._beats: dict[str, int] | None = None
        self._moved = now
        self._failure: str | None = None

    def saw(self, beats: dict[str, int], now: float) -> None:
        """Take in a look at the beats (executor id to its count). Whose stood there at the first may be long dead."""
        if self._beats is not None and any(self._beats.get(executor) != beat for executor, beat in beats.items()):
            self._moved = now
        self._beats, self._failure = beats, None

    def failed(self, reason: str) -> None:
        """Take in that the database did not answer."""
        self._failure = reason

    def trouble(self, now: float) -> str | None:
        """What is wrong; None: a worker lives, or there was no time yet to see one."""
        if self._failure is not None:
            return f"engine.database: {self._failure}"
        if now - self._moved >= self._dead_seconds:
            return f"no worker gave a sign of life for {self._dead_seconds:g} s; studies are received, not processed"
        return None


@contextmanager
def watching_workers(config: Config) -> Iterator[Callable[[], str | None]]:
    """Look at the workers' beats, in a thread until the block ends; yields what says if no worker lives."""
    stopping = threading.Event()
    signs = WorkerLiveness(config.engine.dead_seconds, time.monotonic())

    def look(tables: sa.Engine | None) -> sa.Engine | None:
        try:
            tables = tables or open_tables(config)
            with tables.connect() as connection:
                beats = {row.executor_id: row.beat for row in connection.execute(sa.select(WORKERS))}
            signs.saw(beats, time.monotonic())
        except (sa.exc.SQLAlchemyError, OSError) as error:
            signs.failed(type(error).__name__)
        return tables

    def run() -> None:
        tables = look(None)
        while not stopping.wait(config.engine.heartbeat_seconds):
            tables = look(tables)
        if tables is not None:
            tables.dispose()

    thread = threading.Thread(target=run, name="worker-signs", daemon=True)
    thread.start()
    try:
        yield lambda: signs.trouble(time.monotonic())
    finally:
        stopping.set()
        thread.join(_STOP_SECONDS)  # it may be waiting for a machine that does not answer
