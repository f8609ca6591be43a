"""The durable workflow engine (DBOS Transact): workers and queues. Only `node.workflow` imports it.

A *worker* launches the engine and runs workflows; a *client* (receiver, command line, status page; `client`) enqueues
workflows and reads their records. Both use one database: SQLite in the node's folder, or PostgreSQL.

A workflow is ordinary code whose steps go through ``Steps``. After a restart, finished steps return their recorded
results, and the first unfinished step runs again. So steps are idempotent, and code outside of steps has no effect on
files, networks or the database.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from node.config import Config
from node.workflow.crash_counter import CrashCounter
from node.workflow.database_access import database_errors
from node.workflow.durable import DurableSteps, DurableWork
from node.workflow.loop_watch import LoopWatch
from node.workflow.migration import Migrated, migrate
from node.workflow.record_format import remove_unreadable_schedules, require_current_records
from node.workflow.serialization import engine_serializer, read_attributes
from node.workflow.states import ACTIVE_STATUSES
from node.workflow.step_limits import limits_of
from node.workflow.step_watch import StepWatch, watching_steps
from node.workflow.tables import ENGINE_APPLICATION, open_tables
from node.workflow.takeover import Heartbeat, watching_others
from node.workflow.worker_files import WORKER_ROLE, alive_file, worker_lock

if TYPE_CHECKING:
    import sqlalchemy as sa
    from dbos import ScheduleInput

APPLICATION_VERSION = "2"
"""2: JSON records, which workers of 0.1.0 cannot read.

Raised only when a change makes recorded steps unusable: only workers of their version finish begun workflows.
"""

STUDY_QUEUE, NOTICE_QUEUE = "gpu", "notice"
ACTIVE = ACTIVE_STATUSES
"""The engine's status of a workflow that is not over."""

_POLLING_SECONDS = 0.5
# Deliveries wait for their destination in threads, and the engine does not limit their number: the limit of each queue.
_WAITING_WORKFLOWS = 128
_COUNTED = "process"
"""The workflow that computes and may crash its worker; crashes in other workflows are not counted."""
_SLASH_FREE = str.maketrans("/:", "__")


def delivery_queue(destination: str) -> str:
    """The queue of one destination: deliveries to a destination that is down do not hold up those to the others."""
    return f"deliver-{destination}"


def executor_id(config: Config, role: str) -> str:
    """The executor's id, unique per process: two processes of one id would both run the same recovered workflow."""
    return f"{socket.gethostname()}-{role}-{config.segmentation.device}".translate(_SLASH_FREE)


@contextmanager
def running_worker(
    config: Config,
    workflows: Mapping[str, Callable[..., Any]],
    hourly: Callable[[], Any] | None = None,
    given_up: Callable[[str, str], None] = lambda *_: None,
) -> Iterator[LoopWatch]:
    """Run ``workflows`` (name to function taking ``Steps`` first) from the queues until the block ends.

    Workflows that this worker left unfinished are resumed at once, those of dead workers after ``engine.dead_seconds``.
    ``hourly`` is called once an hour by one of all workers; ``given_up`` is called with the id of a workflow that ends
    because workers crashed in it, and the reason. The process ends with status 1 if the database takes no record of a
    step. Yields the watch of the worker's loops.

    Raises:
        ConfigError: another worker of this host and device runs on this folder.
        EngineError: the database does not answer.
    """
    from dbos import DBOS

    identity = executor_id(config, WORKER_ROLE)
    with worker_lock(config.folder, identity):
        with database_errors():
            require_current_records(config)
            tables = open_tables(config)
        alive = alive_file(config.folder, identity)
        crashes = CrashCounter(tables, identity, alive, config.engine.max_recoveries, given_up)
        work = DurableWork(crashes, limits_of(config))
        DBOS(
            config={
                "name": ENGINE_APPLICATION,
                "system_database_url": config.database_url,
                "executor_id": identity,
                "application_version": APPLICATION_VERSION,
                "log_level": "CRITICAL",
                "serializer": engine_serializer(),
                "db_engine_kwargs": {"json_deserializer": read_attributes},
                "notification_listener_polling_interval_sec": _POLLING_SECONDS,
            }
        )
        for name, function in workflows.items():
            # no limit: the engine counts ordinary restarts, too, and crashes that another workflow caused
            DBOS.workflow(name=name, max_recovery_attempts=None)(work.bound(function, is_counted=name == _COUNTED))
        schedule = _scheduled(work, hourly)
        try:
            crashes.begin()
            with database_errors():
                DBOS.migrate(config.database_url)
                remove_unreadable_schedules(tables)
                DBOS.launch()
                _register_queues(config)
                if schedule:
                    DBOS.apply_schedules([schedule])
            try:
                with _loops(config, tables, identity, work) as loops:
                    yield loops
            finally:
                crashes.leave()
        finally:
            DBOS.destroy(destroy_registry=True)
            tables.dispose()


@contextmanager
def _loops(config: Config, tables: sa.Engine, identity: str, work: DurableWork) -> Iterator[LoopWatch]:
    """The worker's heartbeat and its look at its steps, until the block ends."""
    seconds = config.engine.heartbeat_seconds
    heartbeat = Heartbeat(config, tables, identity, APPLICATION_VERSION, work.running)
    steps = StepWatch(tables, identity, work.runs, seconds)
    loops = LoopWatch("heartbeat", "step-watch")
    with (
        watching_others(heartbeat, seconds, work.end, partial(loops.moved, "heartbeat")),
        watching_steps(steps, partial(loops.moved, "step-watch"), work.end),
    ):
        yield loops


def _register_queues(config: Config) -> None:
    from dbos import DBOS

    DBOS.register_queue(STUDY_QUEUE, worker_concurrency=1, polling_interval_sec=_POLLING_SECONDS)
    queues = {NOTICE_QUEUE, *(delivery_queue(section.name) for section in config.destination)}
    # deliveries to a destination that is no longer in the config must come to their end, too
    left = DBOS.list_workflows(name="deliver", status=list(ACTIVE), load_input=False, load_output=False)
    queues |= {each.queue_name for each in left if each.queue_name and each.queue_name.startswith(delivery_queue(""))}
    for queue in sorted(queues):
        DBOS.register_queue(queue, worker_concurrency=_WAITING_WORKFLOWS, polling_interval_sec=_POLLING_SECONDS)


def _scheduled(work: DurableWork, hourly: Callable[[], Any] | None) -> ScheduleInput | None:
    from dbos import DBOS

    if hourly is None:
        return None

    def once_an_hour(steps: DurableSteps, _planned: datetime, _context: Any) -> None:
        steps.step("hourly", hourly)

    registered = DBOS.workflow(name="hourly", max_recovery_attempts=None)(work.bound(once_an_hour))
    return {"schedule_name": "hourly", "workflow_fn": registered, "schedule": "17 * * * *"}


def migrate_records(config: Config) -> Migrated:
    """Rewrite the records of glionode 0.1.0 in this version's form, while no worker runs.

    Raises:
        ConfigError, EngineError: a worker runs, or the database does not answer.
    """
    from dbos import DBOS

    with database_errors():
        migrated = migrate(config, APPLICATION_VERSION)
        DBOS.migrate(config.database_url)
    return migrated
