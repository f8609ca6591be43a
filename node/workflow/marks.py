"""A mark of each workflow: enough to see which studies changed, and read without the engine's records.

The engine's own list takes some 70 microseconds for each workflow, a mark takes seven. So the lists of a node that has
processed many studies read all marks, but only the records of those few studies that they show or that changed.
"""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config
from node.workflow.serialization import read_attributes
from node.workflow.sqlite_records import (
    ATTRIBUTES_ON_SQLITE,
    OLDEST_FIRST_ON_SQLITE,
    STUDY_ATTRIBUTE,
    STUDY_ON_SQLITE,
)
from node.workflow.tables import ENGINE_WORKFLOWS, is_sqlite, open_database
from node.workflow.workflow_record import WorkflowMark


class Marks:
    """Reads marks from a database in which the engine created its tables before."""

    def __init__(self, config: Config) -> None:
        self._database = open_database(config)
        texts = (f"attributes ->> '{STUDY_ATTRIBUTE}'", "created_at", "CAST(attributes AS TEXT)")
        if is_sqlite(config):
            texts = (STUDY_ON_SQLITE, OLDEST_FIRST_ON_SQLITE, ATTRIBUTES_ON_SQLITE)
        study, order, attributes = texts
        self._study: sa.ColumnElement[str] = sa.literal_column(study)
        self._order: sa.ColumnElement[str] = sa.literal_column(order)
        self._attributes: sa.ColumnElement[str] = sa.literal_column(attributes)

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.dispose()

    def read(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """The marks of all workflows called by one of ``names``, oldest first.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        engine = ENGINE_WORKFLOWS.c
        columns = (engine.workflow_uuid, engine.name, self._study, engine.status, engine.updated_at, self._attributes)
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns).where(engine.name.in_(names)).order_by(self._order))
            return [WorkflowMark(*row) for row in rows]

    def attributes(self, name: str) -> list[dict[str, str]]:
        """The attributes of all workflows called ``name``, oldest first.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        engine = ENGINE_WORKFLOWS.c
        query = sa.select(self._attributes).where(engine.name == name).order_by(self._order)
        with self._database.connect() as connection:
            found = [read_attributes(text or "{}") for text in connection.execute(query).scalars()]
        return [each if _is_plain(each) else {} for each in found]  # what is damaged tells nothing


def _is_plain(attributes: object) -> bool:
    """True for attributes as glionode writes them: texts by their names."""
    return isinstance(attributes, dict) and all(isinstance(each, str) for each in attributes.values())
