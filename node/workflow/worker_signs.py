"""What a process that is no worker sees of the workers: whether any lives, and how long their steps take.

No two machines' clocks are compared: a worker counts its heartbeats, and publishes the ages of its steps in seconds;
this process measures by its own monotonic clock since when they stand still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from node.config import Config
from node.workflow.tables import STEPS, WORKERS, open_tables
from node.workflow.worker_watch import WorkerWatch

OVERDUE_MARGIN_SECONDS = 60.0
"""A step that is past its limit by more than this is trouble: its worker should have ended it."""

_STOP_SECONDS = 5.0
_NO_WORKER = ""  # this process is no worker: the watch lists no worker under this name


@dataclass(frozen=True, slots=True)
class StepAge:
    """A step that a worker runs: the id of its workflow, how long it has run, and how long it may."""

    workflow_id: str
    executor_id: str
    step: str
    seconds: float
    limit_seconds: float


class StepAges:
    """The steps under way. Time is passed in, in monotonic seconds. Any thread may ask for `steps`."""

    def __init__(self, dead_seconds: float) -> None:
        self._watch = WorkerWatch(_NO_WORKER, dead_seconds)
        self._seen: dict[tuple[str, str, str], tuple[StepAge, float]] = {}

    def saw(self, rows: Sequence[StepAge], beats: dict[str, int], now: float) -> None:
        """Take in the published ages and the workers' heartbeats. Steps of dead workers are taken over, or wait."""
        self._watch.look(beats, (), now)
        seen = {}
        for row in rows:
            if row.executor_id in self._watch.living:
                key = (row.executor_id, row.workflow_id, row.step)
                before = self._seen.get(key)
                seen[key] = before if before is not None and before[0].seconds == row.seconds else (row, now)
        self._seen = seen

    def steps(self, now: float) -> list[StepAge]:
        """The steps under way, oldest first. An age that stands still, because its worker hangs, grows here."""
        grown = [
            StepAge(row.workflow_id, row.executor_id, row.step, row.seconds + now - since, row.limit_seconds)
            for row, since in self._seen.values()
        ]
        return sorted(grown, key=lambda age: -age.seconds)

    def trouble(self, now: float) -> str | None:
        """The step that is past its limit although its worker should have ended it, in a sentence; None: no step is."""
        for each in self.steps(now):
            if each.seconds > each.limit_seconds + OVERDUE_MARGIN_SECONDS:
                return (
                    f"step {each.step} of workflow {each.workflow_id} runs for {each.seconds:.0f} s, its limit is "
                    f"{each.limit_seconds:g} s: worker {each.executor_id} hangs; restart it"
                )
        return None


class WorkerLiveness:
    """Whether any worker lives, as seen by a process that is no worker. Any thread may ask for ``trouble``."""

    def __init__(self, dead_seconds: float, now: float) -> None:
        self._dead_seconds = dead_seconds
        self._beats: dict[str, int] | None = None
        self._moved = now
        self._failure: str | None = None

    def saw(self, beats: dict[str, int], now: float) -> None:
        """Take in the counts of all workers, by executor id. A count of the first look may be that of a dead worker."""
        if self._beats is not None and any(self._beats.get(executor) != beat for executor, beat in beats.items()):
            self._moved = now
        self._beats, self._failure = beats, None

    def failed(self, reason: str) -> None:
        """Note that the database did not answer."""
        self._failure = reason

    def trouble(self, now: float) -> str | None:
        """The trouble, in a sentence for humans; None if a worker lives, or if there was no time yet to see one."""
        if self._failure is not None:
            return f"engine.database: {self._failure}"
        if now - self._moved >= self._dead_seconds:
            return f"no worker gave a sign of life for {self._dead_seconds:g} s; studies are received, not processed"
        return None


class WorkerSigns:
    """`WorkerLiveness` and `StepAges` of this moment."""

    def __init__(self, dead_seconds: float) -> None:
        self._liveness = WorkerLiveness(dead_seconds, time.monotonic())
        self._ages = StepAges(dead_seconds)

    def look(self, tables: sa.Engine) -> None:
        """Read heartbeats and steps.

        Raises:
            SQLAlchemyError, OSError: the database does not answer.
        """
        with tables.connect() as connection:
            beats = {row.executor_id: row.beat for row in connection.execute(sa.select(WORKERS))}
            rows = [
                StepAge(row.workflow_id, row.executor_id, row.step, row.age_seconds, row.limit_seconds)
                for row in connection.execute(sa.select(STEPS))
            ]
        now = time.monotonic()
        self._ages.saw(rows, beats, now)
        self._liveness.saw(beats, now)

    def failed(self, reason: str) -> None:
        """Note that the database did not answer."""
        self._liveness.failed(reason)

    def trouble(self) -> str | None:
        """Why no study is processed, or which step hangs; None: neither."""
        now = time.monotonic()
        return self._liveness.trouble(now) or self._ages.trouble(now)

    def steps(self) -> list[StepAge]:
        """The steps under way, oldest first."""
        return self._ages.steps(time.monotonic())


@contextmanager
def watching_workers(config: Config) -> Iterator[WorkerSigns]:
    """Look at the workers' heartbeats and steps, in a thread until the block ends."""
    stopping = threading.Event()
    signs = WorkerSigns(config.engine.dead_seconds)

    def look(tables: sa.Engine | None) -> sa.Engine | None:
        try:
            tables = tables or open_tables(config)
            signs.look(tables)
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
        yield signs
    finally:
        stopping.set()
        thread.join(_STOP_SECONDS)  # the thread may wait for a database that does not answer
