"""Rewrites the pickled records of glionode 0.1.0 in the form of this version, once, while the node is stopped.

Everything happens in one transaction: after a crash the database is as it was before. A record that glionode 0.1.0
cannot have written stays as it is; the node then reports it as unreadable.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from node.config import Config
from node.errors import EngineError, UnreadableRecordError
from node.workflow.pickled_records import record_of_pickle
from node.workflow.record_format import has_workflows, noted_format
from node.workflow.serialization import FORMAT_NAME
from node.workflow.states import ACTIVE_STATUSES, NORMAL_PRIORITY
from node.workflow.tables import (
    ENGINE_WORKFLOWS,
    RECORD_FORMAT,
    WORKERS,
    engine_table,
    is_sqlite,
    open_tables,
)
from node.workflow.worker_files import worker_lock, workers_with_files

_PICKLED = "py_pickle"
_ROWS_AT_ONCE = 500
_SCHEMA = ENGINE_WORKFLOWS.schema
_VERSION_OF_0_1_0 = "1"
_PRIORITY_OF_0_1_0 = 0


class _Records(NamedTuple):
    """A table of the engine: its key, and its columns of records."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


_NAMED = (
    _Records("operation_outputs", ("workflow_uuid", "function_id"), ("output", "error")),
    _Records("notifications", ("message_uuid",), ("message",)),
    _Records("workflow_events", ("workflow_uuid", "key"), ("value",)),
    _Records("workflow_events_history", ("workflow_uuid", "key", "function_id"), ("value",)),
    _Records("streams", ("workflow_uuid", "key", "offset"), ("value",)),
)
"""Tables whose rows name the form of their records."""

_OF_WORKFLOWS = (
    _Records("workflow_status", ("workflow_uuid",), ("inputs", "output", "error")),
    _Records("workflow_input", ("workflow_uuid",), ("inputs",)),
    _Records("workflow_output", ("workflow_uuid",), ("output", "error")),
)
"""Tables of whose records the row in ``workflow_status`` names the form."""

_SCHEDULES = _Records("workflow_schedules", ("schedule_id",), ("context",))


@dataclass(slots=True)
class Migrated:
    """The number of rewritten records, and where those stand that cannot be read."""

    rewritten: int = 0
    unreadable: list[str] = field(default_factory=list)


def migrate(config: Config, application_version: str) -> Migrated:
    """Rewrite the records, and give unfinished workflows to workers of ``application_version``.

    A database whose records have this version's form already is left as it is.

    Raises:
        ConfigError: a worker of this machine runs.
        EngineError: there is no database, or a worker of another machine runs.
        SQLAlchemyError: the database does not answer.
    """
    file = sa.make_url(config.database_url).database
    if is_sqlite(config) and not Path(file or "").is_file():
        raise EngineError(f"engine.database: no file {file}")
    with ExitStack() as stack:
        for worker in sorted(workers_with_files(config.folder)):
            stack.enter_context(worker_lock(config.folder, worker))
        tables = open_tables(config)
        stack.callback(tables.dispose)
        _require_silence(tables, 2.5 * config.engine.heartbeat_seconds)
        migrated = Migrated()
        with tables.begin() as connection:
            if noted_format(connection) is not None:
                return migrated
            # takes SQLite's lock for writing, so that nothing else is written until the end
            connection.execute(sa.insert(RECORD_FORMAT).values(format=FORMAT_NAME))
            if has_workflows(connection, config):
                if not is_sqlite(config):
                    connection.execute(sa.text(f"LOCK TABLE {_SCHEMA}.workflow_status IN ACCESS EXCLUSIVE MODE"))
                _rewrite_all(connection, migrated)
                _hand_over(connection, application_version)
        return migrated


def _require_silence(tables: sa.Engine, seconds: float) -> None:
    """Watch the heartbeats in the database.

    Raises:
        EngineError: one of them is counted.
    """

    def beats() -> dict[str, int]:
        with tables.connect() as connection:
            return {row.executor_id: row.beat for row in connection.execute(sa.select(WORKERS))}

    before = beats()
    if before:
        threading.Event().wait(seconds)
    running = sorted(worker for worker, beat in beats().items() if before.get(worker) != beat)
    if running:
        raise EngineError(f"engine.database: the worker {running[0]} runs; stop the node first")


def _rewrite_all(connection: sa.Connection, migrated: Migrated) -> None:
    for records in _NAMED:
        for rows in _named_rows(connection, records):
            _rewrite(connection, records, rows, migrated)
    _rewrite(connection, _SCHEDULES, _rows(connection, _SCHEDULES), migrated)
    status = engine_table("workflow_status", ("workflow_uuid", "serialization"))
    is_old = sa.or_(status.c.serialization.is_(None), status.c.serialization == _PICKLED)
    query = sa.select(status.c.workflow_uuid).where(is_old).limit(_ROWS_AT_ONCE)
    while these := list(connection.execute(query).scalars()):
        for records in _OF_WORKFLOWS:
            _rewrite(connection, records, _rows(connection, records, these), migrated)
        done = sa.update(status).where(status.c.workflow_uuid.in_(these)).values(serialization=FORMAT_NAME)
        connection.execute(done)


def _table(records: _Records) -> sa.Table:
    return engine_table(records.table, (*records.key, *records.columns, "serialization"))


def _rows(connection: sa.Connection, records: _Records, ids: Sequence[str] | None = None) -> list[Any]:
    """The rows of the workflows ``ids``; None: all rows."""
    table = _table(records)
    query = sa.select(*(table.c[each] for each in (*records.key, *records.columns)))
    if ids is not None:
        query = query.where(table.c.workflow_uuid.in_(ids))
    return list(connection.execute(query).all())


def _named_rows(connection: sa.Connection, records: _Records) -> Iterator[list[Any]]:
    """The rows whose records are pickled, some at a time; each has this version's form noted afterwards."""
    table = _table(records)
    is_old = sa.or_(table.c.serialization.is_(None), table.c.serialization == _PICKLED)
    is_filled = sa.or_(*(table.c[each].is_not(None) for each in records.columns))
    query = sa.select(*(table.c[each] for each in (*records.key, *records.columns))).where(is_old, is_filled)
    keys = [table.c[each] for each in records.key]
    noted = sa.update(table).where(*(key == sa.bindparam(f"b_{key.name}") for key in keys))
    while rows := list(connection.execute(query.limit(_ROWS_AT_ONCE)).all()):
        yield rows
        given = [{f"b_{name}": getattr(row, name) for name in records.key} for row in rows]
        connection.execute(noted.values(serialization=FORMAT_NAME), given)


def _rewrite(connection: sa.Connection, records: _Records, rows: Iterable[Any], migrated: Migrated) -> None:
    """Rewrite the records of ``rows``; those that cannot be read stay, and are noted."""
    table = _table(records)
    for row in rows:
        this = {name: getattr(row, name) for name in records.key}
        values = {}
        for column in records.columns:
            text = getattr(row, column)
            if not isinstance(text, str) or text.startswith("{"):  # nothing, or in the new form already
                continue
            try:
                values[column] = record_of_pickle(text, is_error=column == "error")
            except UnreadableRecordError:
                migrated.unreadable.append(f"{records.table}.{column} of {' '.join(map(str, this.values()))}")
        if values:
            condition = (table.c[name] == value for name, value in this.items())
            connection.execute(sa.update(table).where(*condition).values(values))
            migrated.rewritten += len(values)


def _hand_over(connection: sa.Connection, application_version: str) -> None:
    """Give unfinished workflows to workers of this version, behind no study that is to be processed first."""
    engine = ENGINE_WORKFLOWS
    unfinished = engine.c.status.in_(ACTIVE_STATUSES)
    old = engine.c.application_version == _VERSION_OF_0_1_0
    connection.execute(sa.update(engine).where(unfinished, old).values(application_version=application_version))
    first = engine.c.priority == _PRIORITY_OF_0_1_0
    connection.execute(sa.update(engine).where(unfinished, first).values(priority=NORMAL_PRIORITY))
