"""The priority by which a workflow waits in its queue: workflows of lower numbers are begun first.

The engine begins the waiting workflow of the lowest number, and of equal numbers the oldest. It has no interface that
changes the number of a workflow that waits.
"""

from __future__ import annotations

import sqlalchemy as sa

from node.config import Config
from node.workflow.tables import ENGINE_WORKFLOWS, engine_table, open_database

_WAITING = ("ENQUEUED", "DELAYED")
_MILLISECONDS = 1000.0


def change_waiting(config: Config, workflow_id: str, priority: int) -> bool:
    """Give a workflow that no worker has begun another priority; False if it does not wait (any more).

    One statement, which changes the row only while the workflow waits. A worker claims a workflow by a statement with
    the same condition, so either this comes first and the worker sees the new number, or nothing is changed.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    database = open_database(config)
    try:
        engine = ENGINE_WORKFLOWS.c
        this = sa.update(ENGINE_WORKFLOWS).where(engine.workflow_uuid == workflow_id, engine.status.in_(_WAITING))
        with database.begin() as connection:
            return connection.execute(this.values(priority=priority)).rowcount == 1
    finally:
        database.dispose()


def step_seconds(config: Config, workflow_ids: list[str], names: tuple[str, ...]) -> dict[str, float]:
    """How long the finished steps called ``names`` of each workflow took together, by workflow id.

    Raises:
        SQLAlchemyError: the database does not answer.
    """
    columns = ("workflow_uuid", "function_name", "started_at_epoch_ms", "completed_at_epoch_ms")
    steps = engine_table("operation_outputs", columns).c
    took = sa.func.sum(steps.completed_at_epoch_ms - steps.started_at_epoch_ms)
    query = sa.select(steps.workflow_uuid, took).where(
        steps.workflow_uuid.in_(workflow_ids), steps.function_name.in_(names), steps.completed_at_epoch_ms.is_not(None)
    )
    database = open_database(config)
    try:
        with database.connect() as connection:
            rows = connection.execute(query.group_by(steps.workflow_uuid)).all()
        return {workflow_id: float(milliseconds) / _MILLISECONDS for workflow_id, milliseconds in rows}
    finally:
        database.dispose()
