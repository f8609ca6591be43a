"""Opens the engine's database for commands that read or change what is known of studies; makes none.

A node that never ran has no database, and no study: that is no error. Where studies lie in the spool or results in the
work folder, a missing database is an error, since nobody knows any more what became of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from node.config import Config
from node.errors import EngineError
from node.scp.removal import studies_held
from node.workflow.database_access import database_exists, database_name, sqlite_file
from node.workflow.sqlite_records import Records, SqliteRecords

if TYPE_CHECKING:
    from node.workflow.client import WorkflowClient


@contextmanager
def open_ledger(config: Config) -> Iterator[WorkflowClient | None]:
    """A client of the database; None: the node has received nothing yet, and has no database.

    Raises:
        EngineError: the database is missing although there are studies or results, or it cannot be used.
        OSError: the spool or the folder of results cannot be read.
    """
    if not database_exists(config):
        require_no_traces(config)
        yield None
        return
    from node.workflow.client import WorkflowClient  # deferred, for `open_records` mostly does without

    with closing(WorkflowClient(config, creates=False)) as client:
        yield client


@contextmanager
def open_records(config: Config) -> Iterator[Records | None]:
    """As `open_ledger`, for reading only: an SQLite database of this version is read without the engine.

    Raises:
        EngineError, OSError: as `open_ledger`.
    """
    file = sqlite_file(config)
    records = SqliteRecords.opened(file) if file is not None and database_exists(config) else None
    if records is None:
        with open_ledger(config) as client:
            yield client
        return
    with closing(records):
        yield records


def require_no_traces(config: Config) -> None:
    """Check that nothing was received and no result was made, as befits a missing database.

    Raises:
        EngineError: there are studies or results.
        OSError: the spool or the folder of results cannot be read.
    """
    studies = len(studies_held(config.spool_folder))
    results = len(list(config.work_folder.glob("[!.]*"))) if config.work_folder.is_dir() else 0
    if studies or results:
        there = f"{config.folder} holds inputs of {studies} studies and {results} folders of results"
        cure = "restore it from a backup, or see 'The database is lost' in the runbook"
        text = f"{database_name(config)} is missing or empty, although {there}; {cure}"
        raise EngineError(f"engine.database: {text}")
