"""Reads the workflows of an SQLite database without the engine, for commands that only list studies.

Importing the engine and SQLAlchemy takes three times as long as everything else that such a command does. What is read
here are the rows that the engine's own list would read, of its tables of this version, in the form of this version
(`serialization`); a test compares the two.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from node.errors import EngineError, UnreadableRecordError
from node.workflow.serialization import FORMAT_NAME, RecordSerializer, read_attributes
from node.workflow.workflow_record import EngineRow, WorkflowMark, WorkflowRecord, record_of

STUDY_ATTRIBUTE = "study_instance_uid"
STUDY_ON_SQLITE = f"CASE WHEN json_valid(attributes) THEN json_extract(attributes, '$.{STUDY_ATTRIBUTE}') END"
"""The study of a row; NULL, too, if the attributes are no JSON: one such row must not end the statement for all."""

ATTRIBUTES_ON_SQLITE = "CASE WHEN json_valid(attributes) THEN CAST(attributes AS TEXT) ELSE hex(attributes) END"
"""The attributes as text; what is no JSON may be bytes that make no text."""

OLDEST_FIRST_ON_SQLITE = "created_at, rowid"
"""The engine records whole seconds on SQLite: within one second the rows are in the order of their insertion."""

_MARKS = f"""
    SELECT workflow_uuid, name, {STUDY_ON_SQLITE}, status, updated_at, {ATTRIBUTES_ON_SQLITE}
    FROM workflow_status WHERE name IN (SELECT value FROM json_each(?)) ORDER BY {OLDEST_FIRST_ON_SQLITE}
"""
_RECORDS = f"""
    SELECT workflow_uuid, status, CASE WHEN attributes IS NOT NULL THEN {ATTRIBUTES_ON_SQLITE} END,
        created_at, updated_at, priority, serialization,
        COALESCE((SELECT output FROM workflow_output AS made WHERE made.workflow_uuid = workflow_status.workflow_uuid),
            output),
        COALESCE((SELECT error FROM workflow_output AS made WHERE made.workflow_uuid = workflow_status.workflow_uuid),
            error)
    FROM workflow_status WHERE name = ?
"""
_OF_IDS = "AND workflow_uuid IN (SELECT value FROM json_each(?))"
_STATE = "SELECT value, serialization FROM workflow_events WHERE workflow_uuid = ? AND key = 'state'"
_STEP_SECONDS = """
    SELECT workflow_uuid, SUM(completed_at_epoch_ms - started_at_epoch_ms) / 1000.0
    FROM operation_outputs
    WHERE workflow_uuid IN (SELECT value FROM json_each(?)) AND function_name IN (SELECT value FROM json_each(?))
        AND completed_at_epoch_ms IS NOT NULL
    GROUP BY workflow_uuid
"""
_LOCK_SECONDS = 30.0  # as the engine waits for SQLite's lock


class Records(Protocol):
    """What the lists of studies read: from `WorkflowClient`, or from `SqliteRecords`. See there."""

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]: ...

    def workflows(self, name: str, *, workflow_ids: Sequence[str] | None = None) -> list[WorkflowRecord]: ...

    def step_seconds(self, workflow_ids: list[str], names: tuple[str, ...]) -> dict[str, float]: ...


def connected(file: Path) -> sqlite3.Connection:
    """The SQLite database ``file``, which is not made anew if it was deleted at this moment."""
    return sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=rw", timeout=_LOCK_SECONDS, uri=True)


class SqliteRecords:
    """An SQLite database whose tables and records are those of this version; EngineError if it does not answer.

    For the thread that made it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @staticmethod
    def opened(file: Path) -> SqliteRecords | None:
        """The database; None: only the engine's client can tell what is in it, for it is older or newer, or in use."""
        connection = connected(file)
        try:
            formats = connection.execute("SELECT format FROM glionode_record_format").fetchall()
            connection.execute(f"{_RECORDS} LIMIT 0", ("",))
            connection.execute(_STEP_SECONDS, ("[]", "[]"))
            connection.execute(_STATE, ("",))
        except sqlite3.Error:  # a table or column is missing, say; the client will meet what ails a broken database
            formats = []
        if formats == [(FORMAT_NAME,)]:
            return SqliteRecords(connection)
        connection.close()
        return None

    def close(self) -> None:
        """Close the connection to the database."""
        self._connection.close()

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """See `WorkflowClient.marks`."""
        return [WorkflowMark(*row) for row in self._rows(_MARKS, json.dumps(names))]

    def workflows(self, name: str, *, workflow_ids: Sequence[str] | None = None) -> list[WorkflowRecord]:
        """See `WorkflowClient.workflows`."""
        if workflow_ids is None:
            rows = self._rows(f"{_RECORDS} ORDER BY {OLDEST_FIRST_ON_SQLITE}", name)
            return [self._record(row) for row in rows]
        found = {row[0]: row for row in self._rows(_RECORDS + _OF_IDS, name, json.dumps(workflow_ids))}
        return [self._record(found[each]) for each in workflow_ids if each in found]

    def step_seconds(self, workflow_ids: list[str], names: tuple[str, ...]) -> dict[str, float]:
        """See `WorkflowClient.step_seconds`."""
        return dict(self._rows(_STEP_SECONDS, json.dumps(workflow_ids), json.dumps(names)))

    def _record(self, row: tuple[Any, ...]) -> WorkflowRecord:
        workflow_id, status, attributes, created, updated, priority, form, output, error = row
        read = None if attributes is None else read_attributes(attributes)
        values = (_value_or_text(output, form), _value_or_text(error, form))
        return record_of(
            EngineRow(workflow_id, status, read, created, updated, priority, *values), lambda: self._state(workflow_id)
        )

    def _state(self, workflow_id: str) -> Any:
        """What the workflow published last; None: nothing yet."""
        found = self._rows(_STATE, workflow_id)
        return _value(*found[0]) if found else None

    def _rows(self, statement: str, *parameters: str) -> list[Any]:
        with sqlite_errors():
            return self._connection.execute(statement, parameters).fetchall()


def _value(text: Any, form: str | None) -> Any:
    """A recorded value.

    Raises:
        UnreadableRecordError: it is no record of this form.
    """
    if form not in (None, FORMAT_NAME):
        raise UnreadableRecordError("it is of another form")
    return RecordSerializer().deserialize(text)


def _value_or_text(text: Any, form: str | None) -> Any:
    """A recorded value; of one that cannot be read, its bare text, as the engine's list gives it."""
    if text is None:
        return None
    try:
        return _value(text, form)
    except UnreadableRecordError:
        return str(text)


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Errors of the database in the block become EngineError."""
    try:
        yield
    except sqlite3.Error as error:
        raise EngineError(f"engine.database: {type(error).__name__}") from None
