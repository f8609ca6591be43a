"""Workflows of an application version that no living worker has.

The engine gives a workflow to workers of one application version only: once begun, to those of the version that began
it; before that, to those of the version that was registered last. After a return to an earlier release, no worker
might begin a workflow. So the first of all living workers makes another version the current one. Begun workflows of a
version without workers are kept and reported: their recorded steps mean nothing to other code.
"""

from __future__ import annotations

from collections.abc import Set

import sqlalchemy as sa
import structlog

from node.workflow.tables import ENGINE_APPLICATION, ENGINE_WORKFLOWS
from node.workflow.worker_watch import OverdueIds

log = structlog.get_logger()

_REPORT_SECONDS = 3600.0


class ApplicationVersions:
    """One worker's look at versions without workers. Time is passed in, in monotonic seconds."""

    def __init__(self, tables: sa.Engine, dead_seconds: float) -> None:
        self._tables = tables
        self._current = OverdueIds(dead_seconds)
        self._begun = OverdueIds(dead_seconds)
        self._next_report: dict[str, float] = {}

    def look(self, living: Set[str], now: float) -> None:
        """Replace the current version and report workflows whose version is not among ``living`` for ``dead_seconds``.

        Args:
            living: the versions of the living workers.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        self._replace_current(living, now)
        counts = self._unfinished()
        for version in sorted(self._begun.due(set(counts) - living, now)):
            if now >= self._next_report.get(version, now):
                self._next_report[version] = now + _REPORT_SECONDS
                log.error("workflows_without_worker", application_version=version, count=counts[version])

    def _replace_current(self, living: Set[str], now: float) -> None:
        from dbos import DBOS

        registered = [each["version_name"] for each in DBOS.list_application_versions()]  # newest first
        if not self._current.due(set(registered[:1]) - living, now):
            return
        for version in registered[1:]:
            if version in living:
                DBOS.set_latest_application_version(version)
                log.warning("current_version_replaced", application_version=version, without_worker=registered[0])
                return

    def _unfinished(self) -> dict[str, int]:
        """The number of begun workflows of each version."""
        engine = ENGINE_WORKFLOWS.c
        # written out, for only then can SQLite use the engine's index of the workflows that are not over
        statuses: sa.ColumnElement[str] = sa.literal_column("('ENQUEUED', 'PENDING')")
        query = sa.select(engine.application_version, sa.func.count()).where(
            engine.status.op("IN")(statuses),
            engine.application_version.is_not(None),
            sa.or_(engine.application_name == ENGINE_APPLICATION, engine.application_name.is_(None)),
        )
        with self._tables.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(engine.application_version))}
