"""The tables of glionode in the workflow engine's database, and the columns that it reads of the engine's own table.

Rows of the engine's table are read where the engine's interface would read all workflows to find a few. They are
written in two places only: by the migration of records, and where a waiting workflow gets another priority
(`queue_priority`), for which the engine has no interface.
"""

from __future__ import annotations

from collections.abc import Iterable

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

RECORD_FORMAT = sa.Table(
    "glionode_record_format",
    _TABLES,
    sa.Column("format", sa.String(255), primary_key=True),
)
"""One row: the form of the records in this database (`record_format`). Databases of glionode 0.1.0 have none."""

STEPS = sa.Table(
    "glionode_steps",
    _TABLES,
    sa.Column("workflow_id", sa.String(255), primary_key=True),
    sa.Column("executor_id", sa.String(255), nullable=False),
    sa.Column("step", sa.String(255), nullable=False),
    sa.Column("age_seconds", sa.Float, nullable=False),
    sa.Column("limit_seconds", sa.Float, nullable=False),
)
"""One row for each step that a worker runs: how long it has run, by the worker's monotonic clock, and may run."""

ENGINE_APPLICATION = "glionode"
"""The name under which the engine knows this application; workflows without a name belong to every application."""

ENGINE_WORKFLOWS = sa.Table(
    "workflow_status",
    _ENGINE_TABLES,
    sa.Column("workflow_uuid", sa.Text, primary_key=True),
    sa.Column("status", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("executor_id", sa.Text),
    sa.Column("priority", sa.Integer),
    sa.Column("created_at", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger),
    sa.Column("application_version", sa.Text),
    sa.Column("application_name", sa.Text),
    sa.Column("queue_name", sa.Text),
    sa.Column("attributes", sa.Text),  # JSON; jsonb on PostgreSQL, where it is not read
)

_LOCK_SECONDS = 30.0  # as the engine waits for SQLite's lock


def engine_table(name: str, columns: Iterable[str]) -> sa.Table:
    """Some columns, without their types, of another table of the engine."""
    return sa.Table(name, sa.MetaData(schema=_ENGINE_TABLES.schema), *(sa.Column(each) for each in columns))


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
        if engine.dialect.name == "postgresql":  # "if not exists" alone does not keep two processes apart there
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock(hashtext('{WORKERS.name}'))"))
        for table in _TABLES.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        version = WORKERS.c.application_version
        if version.name not in {column["name"] for column in sa.inspect(connection).get_columns(WORKERS.name)}:
            column = sa.schema.CreateColumn(version).compile(dialect=engine.dialect)
            connection.execute(sa.text(f"ALTER TABLE {WORKERS.name} ADD COLUMN {column}"))
