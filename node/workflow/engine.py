"""The durable workflow engine (DBOS Transact): workers, queues and clients. Only `node.workflow` imports it.

A *worker* launches the engine and runs workflows; a *client* (receiver, command line, status page) enqueues workflows
and reads their records. Both use one database: SQLite in the node's folder, or PostgreSQL.

A workflow is ordinary code whose steps go through ``Steps``. After a restart, finished steps return their recorded
results, and the first unfinished step runs again. So steps are idempotent, and code outside of steps has no effect on
files, networks or the database.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from node.config import Config
from node.errors import EngineError, GlionodeError
from node.workflow.crash_counter import CrashCounter
from node.workflow.durable import DurableSteps, DurableWork
from node.workflow.marks import Marks, WorkflowMark
from node.workflow.states import PublishedState
from node.workflow.study_index import STUDY_ATTRIBUTE, StudyIndex
from node.workflow.tables import ACTIVE_STATUSES, ENGINE_APPLICATION, is_sqlite, open_tables
from node.workflow.takeover import Heartbeat, watching_others
from node.workflow.worker_files import WORKER_ROLE, alive_file, worker_lock

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions, ScheduleInput, WorkflowStatus

APPLICATION_VERSION = "1"
"""Raised only when a change makes recorded steps unusable: only workers of their version finish begun workflows."""

STUDY_QUEUE, NOTICE_QUEUE = "gpu", "notice"
ACTIVE = ACTIVE_STATUSES
"""The engine's status of a workflow that is not over."""

_POLLING_SECONDS = 0.5
# Deliveries wait for their destination in threads, and the engine does not limit their number: the limit of each queue.
_WAITING_WORKFLOWS = 128
_COUNTED = "process"
"""The workflow that computes and may crash its worker; crashes in other workflows are not counted."""
_MOST_IDS = 500
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
) -> Iterator[None]:
    """Run ``workflows`` (name to function taking ``Steps`` first) from the queues until the block ends.

    Workflows that this worker left unfinished are resumed at once, those of dead workers after ``engine.dead_seconds``.
    ``hourly`` is called once an hour by one of all workers; ``given_up`` is called with the id of a workflow that ends
    because workers crashed in it, and the reason. The process ends with status 1 if the database takes no record of a
    step.

    Raises:
        ConfigError: another worker of this host and device runs on this folder.
        EngineError: the database does not answer.
    """
    from dbos import DBOS

    identity = executor_id(config, WORKER_ROLE)
    with worker_lock(config.folder, identity):
        with _database_errors():
            tables = open_tables(config)
        alive = alive_file(config.folder, identity)
        crashes = CrashCounter(tables, identity, alive, config.engine.max_recoveries, given_up)
        work = DurableWork(crashes)
        DBOS(
            config={
                "name": ENGINE_APPLICATION,
                "system_database_url": config.database_url,
                "executor_id": identity,
                "application_version": APPLICATION_VERSION,
                "log_level": "CRITICAL",
                "notification_listener_polling_interval_sec": _POLLING_SECONDS,
            }
        )
        for name, function in workflows.items():
            # no limit: the engine counts ordinary restarts, too, and crashes that another workflow caused
            DBOS.workflow(name=name, max_recovery_attempts=None)(work.bound(function, is_counted=name == _COUNTED))
        schedule = _scheduled(work, hourly)
        try:
            crashes.begin()
            with _database_errors():
                DBOS.launch()
                _register_queues(config)
                if schedule:
                    DBOS.apply_schedules([schedule])
            heartbeat = Heartbeat(config, tables, identity, APPLICATION_VERSION, work.running)
            try:
                with watching_others(heartbeat, config.engine.heartbeat_seconds, work.end):
                    yield
            finally:
                crashes.leave()
        finally:
            DBOS.destroy(destroy_registry=True)
            tables.dispose()


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


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """One workflow as the engine recorded it.

    Attributes:
        engine_status: the engine's status: ENQUEUED, PENDING, SUCCESS, ERROR, CANCELLED, ...
        state: the last state that an active workflow published, or None.
        attributes: the attributes that the workflow was enqueued with, and those that were added later.
        output: the result of a workflow in SUCCESS.
        error: the reason of an ERROR.
    """

    workflow_id: str
    engine_status: str
    state: PublishedState | None
    attributes: Mapping[str, str]
    output: Any
    error: str | None
    created: datetime
    updated: datetime


@contextmanager
def _database_errors() -> Iterator[None]:
    from dbos import error as dbos_errors
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, dbos_errors.DBOSException, OSError) as error:
        raise EngineError(f"engine.database: {getattr(error, 'strerror', None) or type(error).__name__}") from None


class WorkflowClient:
    """Enqueues workflows and reads their records, from any process; EngineError if the database does not answer."""

    def __init__(self, config: Config) -> None:
        from dbos import DBOS, DBOSClient

        with _database_errors():
            config.folder.mkdir(parents=True, exist_ok=True)
            # the engine's client creates no tables, and no worker may have run yet
            DBOS.migrate(config.database_url)
            self._client: DBOSClient = DBOSClient(system_database_url=config.database_url)
            self._studies = StudyIndex(config) if is_sqlite(config) else None
            self._marks = Marks(config)

    def close(self) -> None:
        """Close the connections to the database."""
        if self._studies is not None:
            self._studies.close()
        self._marks.close()
        self._client.destroy()

    def enqueue(
        self, queue: str, name: str, workflow_id: str, *arguments: Any, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Enqueue a workflow, once for each id; ``attributes`` are listed without reading the workflow's arguments."""
        options: EnqueueOptions = {"queue_name": queue, "workflow_name": name, "workflow_id": workflow_id}
        options["attributes"] = dict(attributes or {})
        with _database_errors():
            self._client.enqueue(options, *arguments)

    def describe(self, workflow_id: str, attributes: Mapping[str, str]) -> None:
        """Add to the attributes of a workflow."""
        with _database_errors():
            self._client.update_workflow_attributes(workflow_id, dict(attributes), merge=True)

    def send(self, workflow_id: str, topic: str, message: Any, key: str) -> None:
        """Send a message to a workflow, which ``receive``s it; once for each ``key``."""
        with _database_errors():
            self._client.send(workflow_id, message, topic, idempotency_key=key)

    def cancel(self, workflow_id: str) -> None:
        """Cancel a workflow before its next step; a workflow that is over does not change."""
        with _database_errors():
            self._client.cancel_workflow(workflow_id)

    def delete(self, workflow_ids: Sequence[str]) -> None:
        """Delete workflows and everything that was recorded for them, in one transaction."""
        with _database_errors():
            self._client.delete_workflows(list(workflow_ids))

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """A mark of each workflow called by one of ``names``: what shows cheaply that a workflow went on."""
        with _database_errors():
            return self._marks.read(names)

    def attributes(self, name: str) -> list[dict[str, str]]:
        """The attributes of each workflow called ``name``; much cheaper than the workflows' records."""
        with _database_errors():
            return self._marks.attributes(name)

    def workflows(
        self,
        name: str,
        prefix: str | None = None,
        attributes: Mapping[str, str] | None = None,
        workflow_ids: Sequence[str] | None = None,
    ) -> list[WorkflowRecord]:
        """The workflows called ``name`` whose id starts with ``prefix`` and that have ``attributes``, oldest first.

        ``attributes`` name at least the study: an index finds it. ``workflow_ids``: only these; None: all.
        """
        with _database_errors():
            if workflow_ids is None:
                return [self._record(status) for status in self._found(name, prefix, dict(attributes or {}))]
            return [self._record(status) for status in self._of_ids(name, workflow_ids)]

    def _of_ids(self, name: str, workflow_ids: Sequence[str]) -> Iterator[WorkflowStatus]:
        for first in range(0, len(workflow_ids), _MOST_IDS):  # a statement takes so many parameters only
            some = list(workflow_ids[first : first + _MOST_IDS])
            yield from self._client.list_workflows(workflow_ids=some, name=name, load_input=False)

    def _found(self, name: str, prefix: str | None, attributes: dict[str, str]) -> list[WorkflowStatus]:
        if self._studies is None or not attributes:
            return self._client.list_workflows(
                name=name, workflow_id_prefix=prefix, attributes=attributes or None, load_input=False
            )
        ids = self._studies.workflow_ids(attributes[STUDY_ATTRIBUTE], name)
        if not ids:  # no ids would be all ids to the engine
            return []
        found = self._client.list_workflows(workflow_ids=ids, workflow_id_prefix=prefix, load_input=False)
        by_id = {each.workflow_id: each for each in found}
        ordered = [by_id[workflow_id] for workflow_id in ids if workflow_id in by_id]
        return [each for each in ordered if attributes.items() <= (each.attributes or {}).items()]

    def steps(self, workflow_id: str) -> list[tuple[str, datetime]]:
        """The finished steps of a workflow in their order: name, and the moment when the step ended."""
        with _database_errors():
            found = self._client.list_workflow_steps(workflow_id, load_output=False)
        return [(step["function_name"], _moment(step["completed_at_epoch_ms"])) for step in found]

    def _record(self, status: WorkflowStatus) -> WorkflowRecord:
        return WorkflowRecord(
            workflow_id=status.workflow_id,
            engine_status=status.status,
            state=self._state(status.workflow_id) if status.status in ACTIVE else None,
            attributes=status.attributes or {},
            output=status.output,
            error=None if status.error is None else _reason(status.error),
            created=_moment(status.created_at),
            updated=_moment(status.updated_at),
        )

    def _state(self, workflow_id: str) -> PublishedState | None:
        message = self._client.get_event(workflow_id, "state", timeout_seconds=0)
        return None if message is None else PublishedState.from_message(message)


def _reason(error: Exception) -> str:
    """The text of glionode's own errors; only the kind of other errors, whose text may repeat a header's value."""
    return str(error) if isinstance(error, GlionodeError) else type(error).__name__


def _moment(epoch_ms: int | None) -> datetime:
    return datetime.fromtimestamp((epoch_ms or 0) / 1000, UTC)
