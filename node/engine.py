"""The durable workflow engine (DBOS Transact): start, queues, checkpoints, recovery. The only file that knows it.

Two sides. A *worker* launches the engine and runs workflows; a *client* (receiver, command line, status page) enqueues
them and looks at them. Both meet in one database: SQLite inside the node's folder, or PostgreSQL.

A workflow is ordinary code whose steps go through ``Steps``: after a restart, finished steps give back their recorded
results and the first unfinished one runs again; so steps are idempotent, and workflow code outside them has no effect.
"""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from node.config import Config
from node.errors import ConfigError, EngineError, GlionodeError

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions

T = TypeVar("T")

APPLICATION_VERSION = "1"
"""Raised only when a change makes recorded steps unusable; else an upgrade orphans pending workflows."""

STUDY_QUEUE, DELIVERY_QUEUE = "gpu", "deliver"
ACTIVE = ("ENQUEUED", "PENDING", "DELAYED")
"""The engine's words for a workflow that is not over."""

_POLLING_SECONDS = 0.5
_SLASH_FREE = str.maketrans("/:", "__")


class Steps(Protocol):
    """What a workflow may do besides computing."""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``; its result is recorded and given back instead of calling again after a restart."""

    def tell(self, state: str) -> None:
        """Publish how far the study is (a word of the study's way)."""

    def sleep(self, seconds: float) -> None:
        """Wait; what remains of the wait survives a restart."""

    def start(self, queue: str, name: str, workflow_id: str, *arguments: Any) -> None:
        """Start another workflow on ``queue``; once, however often this is called with one id."""


class DirectSteps:
    """Runs steps at once and records nothing: for ``glionode process``, which has no queue and no restart."""

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function``."""
        return function(*arguments)

    def tell(self, state: str) -> None:
        """Nobody listens."""

    def sleep(self, seconds: float) -> None:
        """Never needed: nothing is delivered."""

    def start(self, queue: str, name: str, workflow_id: str, *arguments: Any) -> None:
        """Never needed: nothing is delivered."""


class DurableSteps:
    """Steps recorded by the engine; usable inside a running workflow only."""

    def __init__(self, workflows: dict[str, Callable[..., Any]]) -> None:
        self._workflows = workflows

    def step(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Record ``function``'s result under its position in the workflow."""
        from dbos import DBOS

        return DBOS.run_step({"name": name}, function, *arguments)

    def tell(self, state: str) -> None:
        """An event of the workflow, read by ``WorkflowClient``."""
        from dbos import DBOS

        DBOS.set_event("state", state)

    def sleep(self, seconds: float) -> None:
        """A durable sleep."""
        from dbos import DBOS

        DBOS.sleep(seconds)

    def start(self, queue: str, name: str, workflow_id: str, *arguments: Any) -> None:
        """Enqueue a child workflow."""
        from dbos import DBOS, SetWorkflowID

        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(queue, self._workflows[name], *arguments)


def executor_id(config: Config, role: str) -> str:
    """Unique per process: two processes under one id would both run the same recovered workflow."""
    return f"{socket.gethostname()}-{role}-{config.segmentation.device}".translate(_SLASH_FREE)


@contextmanager
def running_worker(config: Config, workflows: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Run ``workflows`` (name to function taking ``Steps`` first) from the queues until the block ends.

    Workflows that this worker left unfinished are taken up again at once.

    Raises:
        ConfigError: another worker of this host and device runs on this folder.
    """
    from dbos import DBOS

    identity = executor_id(config, "work")
    with _lock(config.folder / f"{identity}.lock"):
        registered: dict[str, Callable[..., Any]] = {}
        steps = DurableSteps(registered)
        DBOS(
            config={
                "name": "glionode",
                "system_database_url": config.database_url,
                "executor_id": identity,
                "application_version": APPLICATION_VERSION,
                "log_level": "ERROR",
                "notification_listener_polling_interval_sec": _POLLING_SECONDS,
            }
        )
        for name, function in workflows.items():
            registered[name] = DBOS.workflow(name=name)(_bound(function, steps))
        DBOS.launch()
        try:
            DBOS.register_queue(STUDY_QUEUE, worker_concurrency=1, polling_interval_sec=_POLLING_SECONDS)
            DBOS.register_queue(DELIVERY_QUEUE, worker_concurrency=16, polling_interval_sec=_POLLING_SECONDS)
            yield
        finally:
            DBOS.destroy(destroy_registry=True)


def _bound(function: Callable[..., Any], steps: Steps) -> Callable[..., Any]:
    def workflow(*arguments: Any) -> Any:
        return function(steps, *arguments)

    workflow.__qualname__ = f"{function.__qualname__}.workflow"
    return workflow


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
    about: Mapping[str, str]
    output: Any
    error: str | None
    created: datetime
    updated: datetime


@contextmanager
def _database_errors() -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        raise EngineError(f"engine.database: {getattr(error, 'strerror', None) or type(error).__name__}") from None


class WorkflowClient:
    """Enqueues workflows and looks at them, from any process.

    Raises:
        EngineError: from each method, if the database does not answer.
    """

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
        self, queue: str, name: str, workflow_id: str, *arguments: Any, about: Mapping[str, str] | None = None
    ) -> None:
        """Start a workflow; with an id that was used before nothing happens.

        ``about``: words kept beside it, to be listed without reading its arguments.
        """
        options: EnqueueOptions = {"queue_name": queue, "workflow_name": name, "workflow_id": workflow_id}
        options["attributes"] = dict(about or {})
        with _database_errors():
            self._client.enqueue(options, *arguments)

    def is_known(self, workflow_id: str) -> bool:
        """True if a workflow of this id was ever enqueued."""
        with _database_errors():
            return bool(self._client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False))

    def workflows(self, name: str, prefix: str | None = None) -> list[WorkflowRecord]:
        """All workflows called ``name`` (whose id starts with ``prefix``), oldest first."""
        with _database_errors():
            return [
                WorkflowRecord(
                    workflow_id=status.workflow_id,
                    engine_status=status.status,
                    state=self._state(status.workflow_id) if status.status in ACTIVE else None,
                    about=status.attributes or {},
                    output=status.output,
                    error=None if status.error is None else _reason(status.error),
                    created=_moment(status.created_at),
                    updated=_moment(status.updated_at),
                )
                for status in self._client.list_workflows(name=name, workflow_id_prefix=prefix, load_input=False)
            ]

    def _state(self, workflow_id: str) -> str | None:
        state = self._client.get_event(workflow_id, "state", timeout_seconds=0)
        return None if state is None else str(state)


def _reason(error: Exception) -> str:
    """Our own errors' text; of others only the kind, for their text may repeat what was in a header."""
    return str(error) if isinstance(error, GlionodeError) else type(error).__name__


def _moment(epoch_ms: int | None) -> datetime:
    return datetime.fromtimestamp((epoch_ms or 0) / 1000, UTC)
