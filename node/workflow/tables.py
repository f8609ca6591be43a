"""The tables of glionode in the workflow engine's database, and the columns that it reads of the engine's own table.

No row of the engine's table is written. Its rows are read where the engine's interface would read all workflows to find
a few.
"""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config

_TABLES, _ENGINE_TABLES = sa.MetaData(), sa.MetaData(schema="dbos")

WORKERS = sa.Table(
    "glionode_workers",
    _TABLES,
    sa.Column("executor_id", sa.String(255), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
    # workers of glionode 0.1.0 do not write this column; their application version is 1
    sa.Column("application_version", sa.String(255), nullable=False, server_default="1"),
)
"""One row for each worker: the count of its heartbeats, and the version of the workflows that it runs."""

UNDER_WAY = sa.Table(
    "glionode_under_way",
    _TABLES,
    sa.Column("workflow_id", sa.String(255), primary_key=True),
    sa.Column("executor_id", sa.String(255)),  # NULL: no worker runs it, for its worker stopped in good order
    sa.Column("deaths", sa.Integer, key="crashes", nullable=False),  # named as in the databases of glionode 0.1.0
)
"""One row for each workflow that a worker runs: the worker, and how often workers crashed in the workflow."""

ENGINE_APPLICATION = "glionode"
"""The name under which the engine knows this application; workflows without a name belong to every application."""

ENGINE_WORKFLOWS = sa.Table(
    "workflow_status",
    _ENGINE_TABLES,
    sa.Column("workflow_uuid", sa.Text, primary_key=True),
    sa.Column("status", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("executor_id", sa.Text),
    sa.Column("created_at", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger),
    sa.Column("application_version", sa.Text),
    sa.Column("application_name", sa.Text),
    sa.Column("queue_name", sa.Text),
    sa.Column("attributes", sa.Text),  # JSON; jsonb on PostgreSQL, where it is not read
)

ACTIVE_STATUSES = ("ENQUEUED", "PENDING", "DELAYED")
"""The engine's status of a workflow that is not over."""

_LOCK_SECONDS = 30.0  # as the engine waits for SQLite's lock


def is_sqlite(config: Config) -> bool:
    """True if the database is SQLite, False if it is PostgreSQL."""
    return sa.make_url(config.database_url).get_backend_name() == "sqlite"


def open_database(config: Config) -> sa.Engine:
    """The database, for statements on the tables of this module. The caller disposes of it."""
    url = sa.make_url(config.database_url)
    if is_sqlite(config):
        engine = sa.create_engine(url, connect_args={"timeout": _LOCK_SECONDS}, pool_pre_ping=True)
        return engine.execution_options(schema_translate_map={_ENGINE_TABLES.schema: None})  # SQLite has no schemas
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return sa.create_engine(url, pool_pre_ping=True)


def open_tables(config: Config) -> sa.Engine:
    """The database with glionode's tables in it; those of glionode 0.1.0 are extended. The caller disposes of it.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    engine = open_database(config)
    try:
        _create_tables(engine)
    except sa.exc.SQLAlchemyError:
        # another process may have made the same change at the same moment, as a whole; any other error is raised again
        _create_tables(engine)
    return engine


def _create_tables(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for table in _TABLES.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
    version = WORKERS.c.application_version
    if version.name not in {column["name"] for column in sa.inspect(engine).get_columns(WORKERS.name)}:
        column = sa.schema.CreateColumn(version).compile(dialect=engine.dialect)
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {WORKERS.name} ADD COLUMN {column}"))
