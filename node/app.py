"""Builds the parts of the node from the config, starts them, waits for SIGTERM, and stops them in reverse order.

The receiver and the worker are separate processes, so that a CUDA fault or a long registration cannot drop an
association. ``serve`` with role *all* is the receiver, and starts and restarts one worker process.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from node.config import Config
from node.errors import EngineError
from node.metrics import Metrics
from node.processing.computing import COMMAND, RemotePipeline
from node.processing.dispatcher import StudyDispatcher
from node.processing.pack_support import require_methods
from node.processing.request_records import study_of
from node.series.vocabulary import load_vocabulary
from node.service_manager import ServiceManager
from node.worker_process import WorkerProcess
from node.workflow.client import WorkflowClient
from node.workflow.database_access import database_exists, database_name
from node.workflow.engine import NOTICE_QUEUE
from node.workflow.states import StudyState
from node.workflow.workflow_id import WorkflowId

if TYPE_CHECKING:
    from node.audit.auditor import Auditor
    from node.scp.observer import Observer
    from node.scp.server import Receiver
    from node.workflow.loop_watch import LoopWatch

log = structlog.get_logger()

_STEP_GRACE_SECONDS = 5.0
_PARENT_WATCH_SECONDS = 1.0
_RECEIVER_WATCH_SECONDS = 1.0
_RECEIVER_LEAVE_SECONDS = 60.0
_STANDING_SECONDS = 120.0
"""A loop of the worker that has ended no round for so long hangs: a database may take a minute, not two."""


@contextmanager
def running_receiver(config: Config) -> Iterator[tuple[Receiver, Callable[[], bool]]]:
    """Spool, assembly, SCP, status page and audit trail, until the block ends.

    Yields the receiver, and a function that returns True while instances are received and handed over.
    """
    from node.scp.observer import Observer

    metrics = Metrics()
    with audit_trail_of(config, f"{socket.gethostname()}-receive-{config.scp.port}", metrics) as auditor:
        observer = Observer(auditor.instances_received, auditor.peer_refused) if auditor else None
        with _receiver(config, metrics, observer) as parts:
            yield parts


def audit_trail_of(config: Config, process: str, metrics: Metrics) -> AbstractContextManager[Auditor | None]:
    """The audit trail of one process, as a context manager that gives its auditor; None: the config wants none."""
    from node.audit.opened import audit_trail

    sections = (config.node, config.audit, config.tls)
    return audit_trail(sections, config.audit_folder, process, config.scp.ae_title, metrics)


@contextmanager
def _receiver(
    config: Config, metrics: Metrics, observer: Observer | None
) -> Iterator[tuple[Receiver, Callable[[], bool]]]:
    from node.delivery.commitment_rounds import COMMITMENT_TOPIC
    from node.dicom.commitment import Commitments
    from node.scp.assembly import Assembly, AssemblyLoop
    from node.scp.commitment import CommitmentHandler
    from node.scp.handlers import StorageHandlers
    from node.scp.server import Receiver
    from node.scp.spool import Spool
    from node.web.page import Sources, running_page
    from node.workflow.worker_signs import watching_workers

    # several receivers may share one spool: each has its own folder for arriving instances
    spool = Spool(config.spool_folder, f"{socket.gethostname()}-{config.scp.port}")
    if not database_exists(config):
        log.warning("database_made", database=database_name(config), studies=len(spool.studies()))
    client = WorkflowClient(config)
    dispatcher = StudyDispatcher(config, client, metrics)
    loop = AssemblyLoop(Assembly(config.assembly, dispatcher.is_complete, spool.changes), dispatcher.start)
    handlers = StorageHandlers(spool, metrics, config.scp, loop.instance_stored, observer)
    reports = CommitmentHandler(
        Commitments(config.commitments_folder),
        metrics,
        lambda workflow_id, message, key: client.send(workflow_id, COMMITMENT_TOPIC, message, key),
    )
    try:
        leftovers = spool.begin()
        log.info("spool_opened", studies=len(spool.studies()), leftovers=leftovers)
        held = {study: [folder.name for folder in spool.series_folders(study)] for study in spool.studies()}
        loop.start(held, partial(dispatcher.judged_before, held))
        receiver = Receiver(config.scp, handlers, metrics, config.tls, reports, observer)

        def is_well() -> bool:
            return loop.is_alive and receiver.is_alive

        with (
            receiver,
            watching_workers(config) as signs,
            running_page(config, Sources(client, metrics, is_well, signs.trouble, signs.steps)),
        ):
            yield receiver, is_well
    finally:
        loop.stop()
        client.close()
        spool.end()


def run_worker(
    config: Config, stop: threading.Event, parent: int | None, computing_command: Sequence[str] = COMMAND
) -> None:
    """Run workflows until ``stop`` is set, or ``parent`` (process id) is gone.

    A running step is not waited for; it is idempotent and runs again later. ``computing_command``: the command line of
    the process that computes.
    """
    from node.delivery.delivery import Delivery
    from node.notify.notices import Notices
    from node.workflow.engine import executor_id, running_worker
    from node.workflow.worker_files import WORKER_ROLE

    pipeline, manager = RemotePipeline(config, computing_command), ServiceManager()
    trail = ExitStack()
    auditor = trail.enter_context(audit_trail_of(config, executor_id(config, WORKER_ROLE), Metrics()))
    workflows: dict[str, Callable[..., Any]] = {
        "process": pipeline.process,
        "deliver": Delivery(config, auditor).deliver,
        "notice": Notices(config).notice,
    }
    with trail, running_worker(config, workflows, _hourly(config), partial(_notify_of_crashes, config)) as loops:
        log.info("worker_ready", device=config.segmentation.device, models=config.segmentation.models)
        manager.ready()
        _watch_worker(stop, parent, loops, manager)
        manager.stopping()
        pipeline.stop()
        # the engine waits for its threads, which may compute for minutes; steps are recorded, so they may be cut off
        threading.Timer(_STEP_GRACE_SECONDS, os._exit, (0,)).start()
        trail.close()
    log.info("worker_stopped")
    os._exit(0)


def _watch_worker(stop: threading.Event, parent: int | None, loops: LoopWatch, manager: ServiceManager) -> None:
    """Return when the worker is to stop; until then, tell the service manager that the worker's loops turn."""
    while not stop.wait(_PARENT_WATCH_SECONDS):
        if parent is not None and os.getppid() != parent:
            log.error("parent_died")
            return
        standing = loops.standing(_STANDING_SECONDS)
        if standing:
            log.error("worker_hangs", loops=standing)
        else:
            manager.alive()


def _notify_of_crashes(config: Config, workflow_id: str, reason: str) -> None:
    """Enqueue a notice about a study that failed because it crashed workers; its workflow runs no step that could."""
    if not config.notify.urls or "failed" not in config.notify.states:
        return
    try:
        with closing(WorkflowClient(config)) as client:
            for record in client.workflows("process", prefix=workflow_id):
                if record.workflow_id == workflow_id:
                    arguments = ("failed", study_of(record), reason)
                    # one notice, however often this is called
                    notice = WorkflowId.parse(workflow_id).notice_of(StudyState.FAILED)
                    client.enqueue(NOTICE_QUEUE, "notice", str(notice), *arguments, attributes=record.attributes)
    except EngineError as error:
        log.error("notice_not_enqueued", workflow_id=workflow_id, reason=str(error))


def _hourly(config: Config) -> Callable[[], Any]:
    """The function that a worker calls once an hour."""
    from node.retention.retention_process import killable_retention_round

    # also if retention is off: an earlier worker's schedule stays in the database, and runs of a workflow that no
    # worker registers would pile up there
    return partial(killable_retention_round, config)


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set. For the main thread."""
    event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set())
    return event


def _wait(
    stop: threading.Event,
    parts: tuple[Receiver, Callable[[], bool]],
    worker: WorkerProcess | None,
    manager: ServiceManager,
) -> None:
    """Return once ``stop`` is set. If the receiver ends before, end the process: the service manager starts it again.

    Until then, tell the service manager that the parts live.

    Raises:
        SystemExit: with status 1.
    """
    receiver, is_well = parts
    while not stop.wait(_RECEIVER_WATCH_SECONDS):
        if not receiver.is_alive:
            log.error("receiver_ended")
            # in good order, but within a limit: a thread that waits for a disk would keep the process from ending
            leave = threading.Timer(_RECEIVER_LEAVE_SECONDS, os._exit, (1,))
            leave.daemon = True
            leave.start()
            raise SystemExit(1)
        if is_well() and (worker is None or worker.is_watched):
            manager.alive()


def serve(config: Config, role: str, config_file: Path | None, parent: int | None = None) -> None:
    """Run the node (``role``: all, receive, work) until SIGTERM; a worker also ends when process ``parent`` is gone."""
    begun = time.monotonic()
    load_vocabulary(dict(config.series.rules))  # an error in the config is reported now, not for the first study
    require_methods(config.segmentation, config.models_folder)
    stop = stop_event()
    if role == "work":
        run_worker(config, stop, parent)
        return
    worker, manager = WorkerProcess(config_file) if role == "all" else None, ServiceManager()
    with running_receiver(config) as parts:
        if worker:
            worker.start()
        try:
            log.info("node_ready", role=role, seconds=round(time.monotonic() - begun, 2))
            manager.ready()
            _wait(stop, parts, worker, manager)
        finally:
            manager.stopping()
            if worker:
                worker.stop()
