"""Which form the records of a database have: that of this version, or the pickled one of glionode 0.1.0.

The form is noted in the database when the first process opens it, before the engine has anything to record. A database
that holds workflows without that note is one of glionode 0.1.0.
"""

from __future__ import annotations

import sqlalchemy as sa
import structlog

from node.config import Config
from node.errors import EngineError
from node.workflow.serialization import FORMAT_NAME, RecordSerializer
from node.workflow.tables import (
    ENGINE_APPLICATION,
    ENGINE_WORKFLOWS,
    RECORD_FORMAT,
    engine_table,
    is_sqlite,
    open_tables,
)

log = structlog.get_logger()

MIGRATE_COMMAND = "glionode migrate"
OLD_RECORDS = f"its records are those of glionode 0.1.0; stop the node, then run: {MIGRATE_COMMAND}"
"""What a node says that meets such a database."""


def require_current_records(config: Config) -> None:
    """Note the form of records in a new database.

    Raises:
        EngineError: the records are those of glionode 0.1.0, or of a later version.
        SQLAlchemyError: the database does not answer.
    """
    tables = open_tables(config)
    try:
        with tables.begin() as connection:
            found = noted_format(connection)
            if found is None and has_workflows(connection, config):
                raise EngineError(f"engine.database: {OLD_RECORDS}")
            if found is not None and found != FORMAT_NAME:
                raise EngineError("engine.database: its records are those of a later version of glionode")
        if found is None:
            _note(tables)
    finally:
        tables.dispose()


def noted_format(connection: sa.Connection) -> str | None:
    """The form that is noted in the database; None: none."""
    return connection.execute(sa.select(RECORD_FORMAT.c.format)).scalar()


def has_workflows(connection: sa.Connection, config: Config) -> bool:
    """True if the engine recorded anything in this database; False also if it has no tables there yet."""
    schema = None if is_sqlite(config) else ENGINE_WORKFLOWS.schema
    if not sa.inspect(connection).has_table(ENGINE_WORKFLOWS.name, schema=schema):
        return False
    query = sa.select(ENGINE_WORKFLOWS.c.workflow_uuid).limit(1)
    return connection.execute(query).first() is not None


def _note(tables: sa.Engine) -> None:
    try:
        with tables.begin() as connection:
            connection.execute(sa.insert(RECORD_FORMAT).values(format=FORMAT_NAME))
    except sa.exc.IntegrityError:  # another process noted the same at the same moment
        with tables.connect() as connection:
            if noted_format(connection) != FORMAT_NAME:
                raise


def remove_unreadable_schedules(tables: sa.Engine) -> None:
    """Remove the engine's schedules whose context is not the empty one that glionode writes.

    To be called before the engine starts: its scheduler would end at a context that it cannot read. The worker then
    writes its own schedule anew.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    schedules = engine_table("workflow_schedules", ("context", "application_name"))
    ours = sa.or_(schedules.c.application_name == ENGINE_APPLICATION, schedules.c.application_name.is_(None))
    empty = RecordSerializer().serialize(None)
    with tables.begin() as connection:
        removed = connection.execute(sa.delete(schedules).where(ours, schedules.c.context != empty)).rowcount
    if removed:
        log.error("unreadable_schedules_removed", count=removed)
