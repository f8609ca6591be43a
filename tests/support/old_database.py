"""The database of glionode 0.1.0, a database made to look like one, and pickles that run code when they are read."""

from __future__ import annotations

import base64
import builtins
import pickle
import socket
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos._schemas.system_database import SystemSchema

from node.config import Config
from node.workflow.serialization import OtherError, RecordSerializer
from node.workflow.tables import RECORD_FORMAT, engine_table, open_database

_FILE = Path(__file__).parents[1] / "processing" / "data" / "database_0_1_0.sql"
RECORD_COLUMNS = {"inputs", "output", "error", "message", "value", "context"}
"""The columns of the engine's tables that hold records."""


def restore(config: Config) -> sqlite3.Connection:
    """Put the database of 0.1.0 into the node's folder, as if this host had made it."""
    config.folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(config.folder / "glionode.sqlite")
    database.executescript(_FILE.read_text("utf-8").replace("{host}", socket.gethostname()))
    return database


def places() -> list[tuple[str, str, bool]]:
    """Every column of records: table, column, and whether the table's rows name the form."""
    tables = SystemSchema.metadata_obj.tables.values()
    return [
        (table.name, column.name, "serialization" in table.c)
        for table in tables
        for column in table.c
        if column.name in RECORD_COLUMNS
    ]


def pickled(value: Any) -> str:
    """A record as 0.1.0 wrote it."""
    return base64.b64encode(pickle.dumps(value)).decode()


def make_old(config: Config) -> None:
    """Rewrite every record as 0.1.0 would have written it, and forget that this version has the database."""
    database = open_database(config)
    with database.begin() as connection:
        connection.execute(sa.delete(RECORD_FORMAT))
        for name, column, is_named in places():
            table = engine_table(name, (column, "serialization"))
            texts = [text for text in connection.execute(sa.select(table.c[column]).distinct()).scalars() if text]
            for text in texts:
                value = RecordSerializer().deserialize(text)
                value = vars(builtins)[str(value)]("Doe^Jane") if isinstance(value, OtherError) else value
                values = {column: pickled(value)}
                values |= {"serialization": "py_pickle"} if is_named else {}
                connection.execute(sa.update(table).where(table.c[column] == text).values(values))
        status = engine_table("workflow_status", ("serialization",))
        connection.execute(sa.update(status).values(serialization="py_pickle"))
    database.dispose()


class Payload:
    """Read by ``pickle``, it creates a file: code that whoever wrote the record chose was run."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        """Call ``open(flag, "w")``."""
        return open, (str(self._flag), "w")


def tamper(config: Config, text: str, form: str | None, workflow_id: str | None = None) -> None:
    """Write ``text`` into every column of records, of one workflow or of all, and ``form`` beside it."""
    database = open_database(config)
    with database.begin() as connection:
        for name, column, is_named in [*places(), ("workflow_status", "serialization", True)]:
            key = {"notifications": "destination_uuid", "workflow_schedules": None}.get(name, "workflow_uuid")
            table = engine_table(name, {column, "serialization", key or column})
            values = {column: text} | ({"serialization": form} if is_named else {})
            if column == "serialization":
                values = {column: form}
            statement = sa.update(table).values(values)
            if workflow_id is None:
                connection.execute(statement)
            elif key is not None:
                connection.execute(statement.where(table.c[key] == workflow_id))
    database.dispose()
