"""Small tables of glionode's own in the engine's database: which workers live, and at which study they are."""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config

_TABLES = sa.MetaData()

WORKERS = sa.Table(
    "glionode_workers",
    _TABLES,
    sa.Column("executor_id", sa.String(255), primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)

UNDER_WAY = sa.Table(
    "glionode_under_way",
    _TABLES,
    sa.Column("workflow_id", sa.String(255), primary_key=True),
    sa.Column("executor_id", sa.String(255)),  # NULL: nobody is at it, as its worker stopped in good order
    sa.Column("deaths", sa.Integer, nullable=False),
)

_LOCK_SECONDS = 30.0  # as the engine waits for SQLite's lock


def open_tables(config: Config) -> sa.Engine:
    """The database with the tables in it. The caller disposes of it.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    url = sa.make_url(config.database_url)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    arguments = {"timeout": _LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
    engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=True)
    try:
        _TABLES.create_all(engine)
    except sa.exc.SQLAlchemyError:
        # another process may have made them between the look and the making; what else is wrong shows again
        _TABLES.create_all(engine)
    return engine
