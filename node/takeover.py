"""Workers watch each other: what a dead one left unfinished is resumed by another (ENGINE's only gap).

Each worker counts up a beat of its own in the database. A worker whose beat stood still for ``engine.dead_seconds``, as
seen by this process's own monotonic clock, is taken for dead: no two machines' clocks are compared. Of the living
workers the first by name resumes the dead one's workflows, so that two do not resume the same.

A worker that was only asleep wakes to find that the engine no longer lets it record steps of workflows it lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog

from node.config import Config

log = structlog.get_logger()

_WORKERS = sa.Table(
    "glionode_workers",
    sa.MetaData(),
    sa.Column("executor_id", sa.String(255), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)


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


class Heartbeat:
    """One worker's beat in the database, and its look at the others'."""

    def __init__(self, config: Config, identity: str) -> None:
        url = sa.make_url(config.database_url)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(url)
        self._identity = identity
        self._watch = Watch(identity, config.engine.dead_seconds)
        _WORKERS.metadata.create_all(self._engine)

    def beat(self, now: float) -> list[str]:
        """Count up the own beat, look at all; the ids of workflows that were resumed."""
        from dbos import DBOS

        with self._engine.begin() as connection:
            mine = sa.update(_WORKERS).where(_WORKERS.c.executor_id == self._identity)
            if connection.execute(mine.values(beat=_WORKERS.c.beat + 1)).rowcount == 0:
                connection.execute(sa.insert(_WORKERS).values(executor_id=self._identity, beat=1))
            beats = {row.executor_id: row.beat for row in connection.execute(sa.select(_WORKERS))}
        pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        dead = self._watch.dead(beats, {each.executor_id for each in pending if each.executor_id}, now)
        resumed = []
        for workflow in pending:
            if workflow.executor_id in dead:
                DBOS.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
                resumed.append(workflow.workflow_id)
                log.warning("workflow_taken_over", workflow_id=workflow.workflow_id, executor=workflow.executor_id)
        return resumed

    def close(self) -> None:
        """Let go of the database. The beat stands still from now on."""
        self._engine.dispose()


@contextmanager
def watching_others(config: Config, identity: str) -> Iterator[None]:
    """Beat, and take over what dead workers left, in a thread until the block ends."""
    stopping = threading.Event()
    heartbeat = Heartbeat(config, identity)

    def run() -> None:
        while True:
            try:
                heartbeat.beat(time.monotonic())
            except (sa.exc.SQLAlchemyError, OSError) as error:
                # a database that is away for a while ends nothing: the next beat tries again
                log.error("heartbeat_failed", reason=type(error).__name__)
            if stopping.wait(config.engine.heartbeat_seconds):
                return

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        heartbeat.close()
