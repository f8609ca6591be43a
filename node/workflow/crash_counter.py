"""How often workers died at one workflow, so that a study that kills them does not do so for ever.

The engine counts every start instead: ordinary restarts use its limit up, and a take-over resets it. Here a workflow is
marked while a worker is at it. A mark that is still there when it starts again means that the worker died. One that
stopped in good order, or ended itself because it could not record, takes its marks back; the second cannot say so in
the database, but it can delete a file, which takes no room on a full disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog

from node.errors import EngineError
from node.workflow.tables import UNDER_WAY

log = structlog.get_logger()

_TOO_OFTEN = "the worker died at it too often (engine.max_recoveries)"


class CrashCounter:
    """The marks of one worker. A database in trouble stops no work here: whoever has to record will notice.

    Args:
        alive: a file that is there as long as the worker lives, and after it died.
        most: a workflow at which workers died so often is not begun again.
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
        """To be called before any workflow starts."""
        if not self._alive.exists():
            self._take_marks_back()
        self._alive.touch()

    def leave(self) -> None:
        """The worker stops in good order; what it is at is no death."""
        self._is_leaving = True
        self._take_marks_back()
        self.leave_without_record()

    def leave_without_record(self) -> None:
        """The worker ends itself, for the database takes nothing."""
        self._alive.unlink(missing_ok=True)

    @contextmanager
    def counted(self, workflow_id: str) -> Iterator[None]:
        """Mark the workflow while the block runs.

        Raises:
            EngineError: workers died at it too often.
        """
        crashes = self._mark(workflow_id)
        try:
            if crashes >= self._most:
                log.error("study_kills_workers", workflow_id=workflow_id, crashes=crashes)
                self._given_up(workflow_id, _TOO_OFTEN)
                raise EngineError(_TOO_OFTEN)
            yield
        finally:
            mine = sa.or_(UNDER_WAY.c.executor_id == self._identity, UNDER_WAY.c.executor_id.is_(None))
            self._tried(sa.delete(UNDER_WAY).where(UNDER_WAY.c.workflow_id == workflow_id, mine))

    def _mark(self, workflow_id: str) -> int:
        """Mark it; how often workers died at it."""
        if self._is_leaving:
            return 0
        this = UNDER_WAY.c.workflow_id == workflow_id
        try:
            with self._engine.begin() as connection:
                row = connection.execute(sa.select(UNDER_WAY).where(this)).one_or_none()
                if row is None:
                    values = {"workflow_id": workflow_id, "executor_id": self._identity, "deaths": 0}
                    connection.execute(sa.insert(UNDER_WAY).values(values))
                    return 0
                crashes = int(row.crashes) + (row.executor_id is not None)
                connection.execute(sa.update(UNDER_WAY).where(this).values(executor_id=self._identity, crashes=crashes))
                return crashes
        except sa.exc.SQLAlchemyError as error:
            log.warning("deaths_not_counted", workflow_id=workflow_id, kind=type(error).__name__)
            return 0

    def _take_marks_back(self) -> None:
        self._tried(sa.update(UNDER_WAY).where(UNDER_WAY.c.executor_id == self._identity).values(executor_id=None))

    def _tried(self, statement: sa.Update | sa.Delete) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(statement)
        except sa.exc.SQLAlchemyError as error:
            log.warning("deaths_not_counted", kind=type(error).__name__)
