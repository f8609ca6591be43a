"""The durable workflow engine (DBOS Transact): start, queues, checkpoints, recovery. The only file that knows it.

Two sides. A *worker* launches the engine and runs workflows; a *client* (receiver, command line, status page) enqueues
them and looks at them. Both meet in one database: SQLite inside the node's folder, or PostgreSQL.

A workflow is ordinary code whose steps go through ``Steps``: after a restart, finished steps give back their recorded
results and the first unfinished one runs again; so steps are idempotent, and workflow code outside them has no effect.
"""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.config import Config
from node.errors import ConfigError, EngineError, GlionodeError
from node.workflow.crash_counter import CrashCounter
from node.workflow.durable import DurableSteps, DurableWork
from node.workflow.tables import open_tables
from node.workflow.takeover import Heartbeat, watching_others

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions, ScheduleInput, WorkflowStatus

APPLICATION_VERSION = "1"
"""Raised only when a change makes recorded steps unusable; else an upgrade orphans pending workflows."""

STUDY_QUEUE, NOTICE_QUEUE = "gpu", "notice"
ACTIVE = ("ENQUEUED", "PENDING", "DELAYED")
"""The engine's words for a workflow that is not over."""

_POLLING_SECONDS = 0.5
# Deliveries wait for their destination in threads, which the engine does not limit: so many for each queue, no more.
_WAITING_WORKFLOWS = 128
_COUNTED = "process"
"""The workflow that computes, and can kill its worker by what a study holds. Others are taken up without end."""
_SLASH_FREE = str.maketrans("/:", "__")


def delivery_queue(destination: str) -> str:
    """The queue of one destination: what waits for one that is down does not hold up the others."""
    return f"deliver-{destination}"


def executor_id(config: Config, role: str) -> str:
    """Unique per process: two processes under one id would both run the same recovered workflow."""
    return f"{socket.gethostname()}-{role}-{config.segmentation.device}".translate(_SLASH_FREE)


@contextmanager
def running_worker(
    config: Config,
    workflows: Mapping[str, Callable[..., Any]],
    hourly: Callable[[], Any] | None = None,
    given_up: Callable[[str, str], None] = lambda *_: None,
) -> Iterator[None]:
    """Run ``workflows`` (name to function taking ``Steps`` first) from the queues until the block ends.

    Workflows that this worker left unfinished are taken up again at once, those of workers that died after
    ``engine.dead_seconds``. ``hourly`` is called once an hour by one of all workers, ``given_up`` with the id of a
    workflow that ends because workers died at it, and the reason. The process ends with status 1 if the database does
    not take what a workflow did.

    Raises:
        ConfigError: another worker of this host and device runs on this folder.
        EngineError: the database does not answer.
    """
    from dbos import DBOS

    identity = executor_id(config, "work")
    with _lock(config.folder / f"{identity}.lock"):
        with _database_errors():
            tables = open_tables(config)
        alive = config.folder / f"{identity}.alive"
        crashes = CrashCounter(tables, identity, alive, config.engine.max_recoveries, given_up)
        work = DurableWork(crashes)
        DBOS(
            config={
                "name": "glionode",
                "system_database_url": config.database_url,
                "executor_id": identity,
                "application_version": APPLICATION_VERSION,
                "log_level": "CRITICAL",
                "notification_listener_polling_interval_sec": _POLLING_SECONDS,
            }
        )
        for name, function in workflows.items():
            # no limit: the engine counts ordinary restarts, too, and deaths that others are to blame for
            DBOS.workflow(name=name, max_recovery_attempts=None)(work.bound(function, is_counted=name == _COUNTED))
        schedule = _scheduled(work, hourly)
        try:
            crashes.begin()
            with _database_errors():
                DBOS.launch()
                _register_queues(config)
                if schedule:
                    DBOS.apply_schedules([schedule])
            heartbeat = Heartbeat(config, tables, identity, APPLICATION_VERSION, work.at_work)
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
    # what waits for a destination that is no longer in the config must come to its end, too
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


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"node.folder: another worker runs here ({file.name} is locked)") from None
        yield


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """One workflow as the engine recorded it.

    Attributes:
        engine_status: ENQUEUED, PENDING, SUCCESS, ERROR, CANCELLED, ... as the engine has it.
        state: what an active workflow told last, or None.
        about: the words it was enqueued with.
        error: the reason of an ERROR.
    """

    workflow_id: str
    engine_status: str
    state: str | None
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
    """Enqueues workflows and looks at them, from any process; an EngineError if the database does not answer."""

    def __init__(self, config: Config) -> None:
        from dbos import DBOS, DBOSClient

        with _database_errors():
            config.folder.mkdir(parents=True, exist_ok=True)
            # the client makes no tables, and may be here before the first worker ever ran
            DBOS.migrate(config.database_url)
            self._client: DBOSClient = DBOSClient(system_database_url=config.database_url)

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def enqueue(
        self, queue: str, name: str, workflow_id: str, *arguments: Any, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Start a workflow, once for an id; ``about``: words kept beside it, listed without reading its arguments."""
        options: EnqueueOptions = {"queue_name": queue, "workflow_name": name, "workflow_id": workflow_id}
        options["attributes"] = dict(attributes or {})
        with _database_errors():
            self._client.enqueue(options, *arguments)

    def describe(self, workflow_id: str, attributes: Mapping[str, str]) -> None:
        """Add to the words kept beside a workflow."""
        with _database_errors():
            self._client.update_workflow_attributes(workflow_id, dict(attributes), merge=True)

    def send(self, workflow_id: str, topic: str, message: Any, key: str) -> None:
        """Send a message to a workflow, which ``receive``s it; once for each ``key``."""
        with _database_errors():
            self._client.send(workflow_id, message, topic, idempotency_key=key)

    def cancel(self, workflow_id: str) -> None:
        """End a workflow before its next step; one that is over stays as it is."""
        with _database_errors():
            self._client.cancel_workflow(workflow_id)

    def delete(self, workflow_ids: Sequence[str]) -> None:
        """Forget workflows and all that was recorded for them, in one transaction."""
        with _database_errors():
            self._client.delete_workflows(list(workflow_ids))

    def workflows(
        self, name: str, prefix: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> list[WorkflowRecord]:
        """All workflows called ``name`` (whose id starts with ``prefix``, kept with ``about``), oldest first."""
        with _database_errors():
            light = self._client.list_workflows(
                name=name, workflow_id_prefix=prefix, load_input=False, load_output=attributes is None
            )
            if attributes is not None:  # SQLite cannot be asked for attributes
                ids = [each.workflow_id for each in light if attributes.items() <= (each.attributes or {}).items()]
                light = self._client.list_workflows(workflow_ids=ids, load_input=False) if ids else []
                light.sort(key=lambda each: ids.index(each.workflow_id))  # SQLite has whole seconds: ids would decide
            return [self._record(status) for status in light]

    def steps(self, workflow_id: str) -> list[tuple[str, datetime]]:
        """The finished steps of a workflow: name and moment, in their order."""
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

    def _state(self, workflow_id: str) -> str | None:
        state = self._client.get_event(workflow_id, "state", timeout_seconds=0)
        return None if state is None else str(state)


def _reason(error: Exception) -> str:
    """Our own errors' text; of others only the kind, for their text may repeat what was in a header."""
    return str(error) if isinstance(error, GlionodeError) else type(error).__name__


def _moment(epoch_ms: int | None) -> datetime:
    return datetime.fromtimestamp((epoch_ms or 0) / 1000, UTC)
