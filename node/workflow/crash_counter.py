"""How often workers crashed in a workflow, so that a study that crashes them is not begun for ever.

The engine counts every start instead: ordinary restarts use its limit up, and a take-over resets it. Here a worker
marks a workflow while it runs it. A mark that is still there when the workflow starts again means that the worker
crashed. A worker that stops in good order takes its marks back. So does one that ends itself because the database takes
no record: it cannot say so in the database, but it can delete a file, which needs no room on a full disk.

The steps that compute run in a process of their own (`killable_process`). If that process crashes, the worker lives,
and counts the crash at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog

from node.errors import DefectError, EngineError
from node.workflow.states import CRASHED_TOO_OFTEN
from node.workflow.tables import UNDER_WAY

log = structlog.get_logger()


class CrashCounter:
    """The marks of one worker. An error of the database is only logged: the engine meets it when it records a step.

    Args:
        alive: a file that is there as long as the worker runs, and after a crash.
        most: a workflow in which workers crashed so often is not begun again.
        given_up: called with such a workflow's id and the reason that it ends with.
    """

    def __init__(
        self,
        engine: sa.Engine,
        identity: str,
        alive: Path,
        most: int,
        given_up: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._alive = alive
        self._most = most
        self._given_up = given_up
        self._is_leaving = False

    def begin(self) -> None:
        """Start the worker; to be called before any workflow starts."""
        if not self._alive.exists():
            self._take_marks_back()
        self._alive.touch()

    def leave(self) -> None:
        """Stop the worker in good order: the workflows that it runs have not crashed it."""
        self._is_leaving = True
        self._take_marks_back()
        self.leave_without_record()

    def leave_without_record(self) -> None:
        """End the worker by its own decision, because the database takes no record."""
        self._alive.unlink(missing_ok=True)

    @contextmanager
    def counted(self, workflow_id: str) -> Iterator[None]:
        """Mark the workflow while the block runs.

        Raises:
            EngineError: workers crashed in it too often.
        """
        crashes = self._mark(workflow_id)
        try:
            if crashes >= self._most:
                log.error("study_crashes_workers", workflow_id=workflow_id, crashes=crashes)
                self._given_up(workflow_id, CRASHED_TOO_OFTEN)
                raise EngineError(CRASHED_TOO_OFTEN)
            yield
        finally:
            mine = sa.or_(UNDER_WAY.c.executor_id == self._identity, UNDER_WAY.c.executor_id.is_(None))
            self._tried(sa.delete(UNDER_WAY).where(UNDER_WAY.c.workflow_id == workflow_id, mine))

    def crashed(self, workflow_id: str) -> int:
        """Count a crash of a process that computed for a workflow; returns how often it crashed, workers included.

        Raises:
            DefectError: it crashed too often.
        """
        this = UNDER_WAY.c.workflow_id == workflow_id
        self._tried(sa.update(UNDER_WAY).where(this).values(crashes=UNDER_WAY.c.crashes + 1))
        try:
            with self._engine.connect() as connection:
                crashes = connection.execute(sa.select(UNDER_WAY.c.crashes).where(this)).scalar() or 0
        except sa.exc.SQLAlchemyError:  # the update before it has logged that
            return 0
        if crashes >= self._most:
            log.error("study_crashes_workers", workflow_id=workflow_id, crashes=crashes)
            raise DefectError(CRASHED_TOO_OFTEN)
        return int(crashes)

    def _mark(self, workflow_id: str) -> int:
        """Mark the workflow; returns how often workers crashed in it."""
        if self._is_leaving:
            return 0
        this = UNDER_WAY.c.workflow_id == workflow_id
        try:
            with self._engine.begin() as connection:
                row = connection.execute(sa.select(UNDER_WAY).where(this)).one_or_none()
                if row is None:
                    values = {"workflow_id": workflow_id, "executor_id": self._identity, "crashes": 0}
                    connection.execute(sa.insert(UNDER_WAY).values(values))
                    return 0
                crashes = int(row.crashes) + (row.executor_id is not None)
                connection.execute(sa.update(UNDER_WAY).where(this).values(executor_id=self._identity, crashes=crashes))
                return crashes
        except sa.exc.SQLAlchemyError as error:
            log.warning("crashes_not_counted", workflow_id=workflow_id, kind=type(error).__name__)
            return 0

    def _take_marks_back(self) -> None:
        self._tried(sa.update(UNDER_WAY).where(UNDER_WAY.c.executor_id == self._identity).values(executor_id=None))

    def _tried(self, statement: sa.Update | sa.Delete) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(statement)
        except sa.exc.SQLAlchemyError as error:
            log.warning("crashes_not_counted", kind=type(error).__name__)
