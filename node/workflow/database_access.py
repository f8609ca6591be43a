"""Whether the engine's database is there and can be used, asked before a command reads it.

SQLite makes an empty database of a file that is missing, and the engine fills it with empty tables. In it, studies that
were delivered long ago would look as if they were still being received. So a command that reads makes no database.
"""

from __future__ import annotations

import os
import pwd
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from node.config import Config
from node.errors import EngineError
from node.workflow.sqlite_records import connected

_SQLITE = "sqlite:///"


def sqlite_file(config: Config) -> Path | None:
    """The file of an SQLite database; None: the database is in PostgreSQL."""
    url = config.database_url
    return Path(url.removeprefix(_SQLITE).partition("?")[0]) if url.startswith(_SQLITE) else None


def database_exists(config: Config) -> bool:
    """True if the database is there with the engine's tables; False if it is missing or empty. Creates nothing.

    Raises:
        EngineError: this cannot be found out, or the database cannot be used; the text names it, and what mends it.
    """
    file = sqlite_file(config)
    return _postgresql_holds_tables(config) if file is None else _sqlite_exists(file)


def database_name(config: Config) -> str:
    """The database's file, or the server's address and the name of the database there, without user or password."""
    file = sqlite_file(config)
    if file is not None:
        return str(file)
    from sqlalchemy import make_url

    url = make_url(config.database_url)
    return f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}, database {url.database or ''}"


def _sqlite_exists(file: Path) -> bool:
    try:
        status = file.stat()
    except FileNotFoundError:
        return False
    except PermissionError:
        raise EngineError(
            f"engine.database: {file}: {_user()} may not enter its folder; {_cure(file.parent)}"
        ) from None
    except OSError as error:
        raise EngineError(f"engine.database: {file}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise EngineError(f"engine.database: {file} is no file")
    if not os.access(file, os.R_OK | os.W_OK, effective_ids=True):
        text = f"{_user()} may not read and write it ({_owner(status.st_uid)}, mode {status.st_mode & 0o7777:o})"
        raise EngineError(f"engine.database: {file}: {text}; {_cure(file)}")
    if not os.access(file.parent, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        # SQLite keeps its journal beside the database
        raise EngineError(f"engine.database: {file.parent}: {_user()} may not write there; {_cure(file.parent)}")
    if status.st_size == 0:
        return False
    return _sqlite_holds_tables(file)


def _sqlite_holds_tables(file: Path) -> bool:
    try:
        with closing(connected(file)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'workflow_status'")
            return found.fetchone() is not None
    except sqlite3.Error as error:
        raise EngineError(f"engine.database: {file}: {error}; restore it from a backup") from None


def _postgresql_holds_tables(config: Config) -> bool:
    import sqlalchemy as sa

    from node.workflow.tables import ENGINE_WORKFLOWS, open_database

    engine = open_database(config)
    try:
        return sa.inspect(engine).has_table(ENGINE_WORKFLOWS.name, schema=ENGINE_WORKFLOWS.schema)
    except sa.exc.SQLAlchemyError as error:
        # not the server's own text, which may hold more of the URL
        reason = f"{database_name(config)}: it does not answer, or refuses the user ({type(error).__name__})"
        raise EngineError(f"engine.database: {reason}") from None
    finally:
        engine.dispose()


def _user() -> str:
    return _name(os.geteuid())


def _owner(uid: int) -> str:
    return f"owner {_name(uid)}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _cure(path: Path) -> str:
    """Whom to run the command as: the owner of ``path``, or of the nearest folder above that shows its owner."""
    for each in (path, *path.parents):
        try:
            return f"run the command as {_name(each.stat().st_uid)}"
        except OSError:
            continue
    return "run the command as the user of the service"


@contextmanager
def database_errors() -> Iterator[None]:
    """Errors of the database and of the engine in the block become EngineError."""
    from dbos import error as dbos_errors
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, dbos_errors.DBOSException, OSError) as error:
        raise EngineError(f"engine.database: {getattr(error, 'strerror', None) or type(error).__name__}") from None
