"""An index by which a study's workflows are found, however many workflows the engine's table holds.

On PostgreSQL the engine finds workflows by their attributes, with an index of its own. On SQLite it does not, so an
index on the study's attribute is added to the engine's table. The database itself keeps the index: workflows of
glionode 0.1.0, and those that other processes enqueue or delete, need no further care.
"""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config
from node.workflow.sqlite_records import OLDEST_FIRST_ON_SQLITE, STUDY_ON_SQLITE
from node.workflow.tables import ENGINE_WORKFLOWS, open_database

_INDEX = f"""
    CREATE INDEX IF NOT EXISTS glionode_workflows_by_study ON {ENGINE_WORKFLOWS.name} ({STUDY_ON_SQLITE}, name)
"""
# the index of earlier versions; attributes that are no JSON are an error for it
_NO_EARLIER_INDEX = "DROP INDEX IF EXISTS glionode_workflows_of_study"


class StudyIndex:
    """The index in an SQLite database in which the engine created its tables before."""

    def __init__(self, config: Config) -> None:
        self._database = open_database(config)
        # each statement is a transaction of its own: two processes that do this at once wait for each other
        for statement in (_INDEX, _NO_EARLIER_INDEX):
            with self._database.begin() as connection:
                connection.execute(sa.text(statement))

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.dispose()

    def workflow_ids(self, study_instance_uid: str, name: str) -> list[str]:
        """The ids of the study's workflows called ``name``, oldest first."""
        # written out, for SQLite uses the index only for an expression that reads the same, with no parameter in it
        engine = ENGINE_WORKFLOWS.c
        study: sa.ColumnElement[str] = sa.literal_column(STUDY_ON_SQLITE)
        query = sa.select(engine.workflow_uuid).where(study == study_instance_uid, engine.name == name)
        query = query.order_by(sa.text(OLDEST_FIRST_ON_SQLITE))
        with self._database.connect() as connection:
            return list(connection.execute(query).scalars())
