"""An index by which a study's workflows are found, however many workflows the engine's table holds.

On PostgreSQL the engine finds workflows by their attributes, with an index of its own. On SQLite it does not, so an
index on the study's attribute is added to the engine's table. The database itself keeps the index: workflows of
glionode 0.1.0, and those that other processes enqueue or delete, need no further care.
"""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config
from node.workflow.tables import ENGINE_WORKFLOWS, open_database

STUDY_ATTRIBUTE = "study_instance_uid"

# written out, for SQLite uses the index only for an expression that reads the same, not for one with a parameter
_PATH: sa.ColumnElement[str] = sa.literal_column(f"'$.{STUDY_ATTRIBUTE}'")
_INDEX = f"""
    CREATE INDEX IF NOT EXISTS glionode_workflows_of_study
    ON {ENGINE_WORKFLOWS.name} (json_extract(attributes, '$.{STUDY_ATTRIBUTE}'), name)
"""


class StudyIndex:
    """The index in an SQLite database in which the engine created its tables before."""

    def __init__(self, config: Config) -> None:
        self._database = open_database(config)
        # one statement, and so one transaction: two processes that do this at once wait for each other
        with self._database.begin() as connection:
            connection.execute(sa.text(_INDEX))

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.dispose()

    def workflow_ids(self, study_instance_uid: str, name: str) -> list[str]:
        """The ids of the study's workflows called ``name``, oldest first."""
        engine = ENGINE_WORKFLOWS.c
        study = sa.func.json_extract(engine.attributes, _PATH)
        query = sa.select(engine.workflow_uuid).where(study == study_instance_uid, engine.name == name)
        # the engine records whole seconds on SQLite: within one second the rows are in the order of their insertion
        query = query.order_by(engine.created_at, sa.literal_column("rowid"))
        with self._database.connect() as connection:
            return list(connection.execute(query).scalars())
