"""Builds the parts of the node from the config, starts them, waits for SIGTERM, and stops them in reverse order.

The receiver and the worker are separate processes, so that a CUDA fault or a long registration cannot drop an
association. ``serve`` with role *all* is the receiver, and starts and restarts one worker process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from node.config import Config
from node.errors import EngineError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.pack_support import require_methods
from node.processing.pipeline import Pipeline
from node.processing.request_sequence import study_of
from node.series.vocabulary import load_vocabulary
from node.workflow.database_access import database_exists, database_name
from node.workflow.engine import NOTICE_QUEUE, WorkflowClient
from node.workflow.states import StudyState
from node.workflow.workflow_id import WorkflowId

if TYPE_CHECKING:
    from node.audit.auditor import Auditor
    from node.scp.observer import Observer
    from node.scp.server import Receiver

log = structlog.get_logger()

_WORKER_PAUSE_SECONDS = 5.0
_WORKER_STOP_SECONDS = 30.0
_STEP_GRACE_SECONDS = 5.0
_PARENT_WATCH_SECONDS = 1.0
_RECEIVER_WATCH_SECONDS = 1.0
_RECEIVER_LEAVE_SECONDS = 60.0


@contextmanager
def running_receiver(config: Config) -> Iterator[Receiver]:
    """Spool, assembly, SCP, status page and audit trail, until the block ends."""
    from node.scp.observer import Observer

    metrics = Metrics()
    with audit_trail_of(config, f"{socket.gethostname()}-receive-{config.scp.port}", metrics) as auditor:
        observer = Observer(auditor.instances_received, auditor.peer_refused) if auditor else None
        with _receiver(config, metrics, observer) as receiver:
            yield receiver


def audit_trail_of(config: Config, process: str, metrics: Metrics) -> AbstractContextManager[Auditor | None]:
    """The audit trail of one process, as a context manager that gives its auditor; None: the config wants none."""
    from node.audit.opened import audit_trail

    sections = (config.node, config.audit, config.tls)
    return audit_trail(sections, config.audit_folder, process, config.scp.ae_title, metrics)


@contextmanager
def _receiver(config: Config, metrics: Metrics, observer: Observer | None) -> Iterator[Receiver]:
    from node.delivery.commitment_rounds import COMMITMENT_TOPIC
    from node.dicom.commitment import Commitments
    from node.scp.assembly import Assembly, AssemblyLoop
    from node.scp.commitment import CommitmentHandler
    from node.scp.handlers import StorageHandlers
    from node.scp.server import Receiver
    from node.scp.spool import Spool
    from node.web.page import Sources, running_page
    from node.workflow.takeover import watching_workers

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
        with receiver, watching_workers(config) as worker_trouble:
            sources = Sources(client, metrics, lambda: loop.is_alive and receiver.is_alive, worker_trouble)
            with running_page(config, sources):
                yield receiver
    finally:
        loop.stop()
        client.close()
        spool.end()


def run_worker(config: Config, stop: threading.Event, parent: int | None, pipeline: Pipeline | None = None) -> None:
    """Run workflows until ``stop`` is set, or ``parent`` (process id) is gone.

    A running step is not waited for; it is idempotent and runs again later.
    """
    from node.delivery.delivery import Delivery
    from node.notify.notices import Notices
    from node.workflow.engine import executor_id, running_worker
    from node.workflow.worker_files import WORKER_ROLE

    pipeline = pipeline or Pipeline(config)
    trail = ExitStack()
    auditor = trail.enter_context(audit_trail_of(config, executor_id(config, WORKER_ROLE), Metrics()))
    workflows: dict[str, Callable[..., Any]] = {
        "process": pipeline.process,
        "deliver": Delivery(config, auditor).deliver,
        "notice": Notices(config).notice,
    }
    with trail, running_worker(config, workflows, _hourly(config), partial(_notify_of_crashes, config)):
        log.info("worker_ready", device=config.segmentation.device, model=config.segmentation.model)
        while not stop.wait(_PARENT_WATCH_SECONDS):
            if parent is not None and os.getppid() != parent:
                log.error("parent_died")
                break
        # the engine waits for its threads, which may compute for minutes; steps are recorded, so they may be cut off
        threading.Timer(_STEP_GRACE_SECONDS, os._exit, (0,)).start()
        trail.close()
    log.info("worker_stopped")
    os._exit(0)


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
    from node.retention.cleanup import retention_round

    # also if retention is off: an earlier worker's schedule stays in the database, and runs of a workflow that no
    # worker registers would pile up there
    return partial(retention_round, config)


class WorkerProcess:
    """A worker process that is started again when it ends."""

    def __init__(self, config_file: Path | None) -> None:
        arguments = [] if config_file is None else ["--config", str(config_file)]
        # if this process is killed, the worker must end, too: its lock would keep the next worker from starting
        role = ["--role", "work", "--parent", str(os.getpid())]
        self._command = [sys.executable, "-P", "-m", "node", "serve", *role, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="worker-watch")

    def start(self) -> None:
        """Start the worker and watch it."""
        self._begin()
        self._thread.start()

    def _begin(self) -> bool:
        """Start the process; False if the operating system cannot start one now."""
        try:
            self._process = subprocess.Popen(self._command)
        except OSError as error:
            log.error("worker_not_started", reason=error.strerror)
            return False
        return True

    def _watch(self) -> None:
        while not self._stop.is_set():
            if self._process is not None:
                if self._process.poll() is None:
                    self._stop.wait(0.2)
                    continue
                log.error("worker_died", exit_status=self._process.returncode)
            while not self._stop.wait(_WORKER_PAUSE_SECONDS) and not self._begin():
                pass  # logged; tried again after a pause

    def stop(self) -> None:
        """End the worker; kill it if it does not end in time."""
        self._stop.set()
        self._thread.join()
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set. For the main thread."""
    event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set())
    return event


def _wait(stop: threading.Event, receiver: Receiver) -> None:
    """Return once ``stop`` is set. If the receiver ends before, end the process: the service manager starts it again.

    Raises:
        SystemExit: with status 1.
    """
    while not stop.wait(_RECEIVER_WATCH_SECONDS):
        if not receiver.is_alive:
            log.error("receiver_ended")
            # in good order, but within a limit: a thread that waits for a disk would keep the process from ending
            leave = threading.Timer(_RECEIVER_LEAVE_SECONDS, os._exit, (1,))
            leave.daemon = True
            leave.start()
            raise SystemExit(1)


def serve(config: Config, role: str, config_file: Path | None, parent: int | None = None) -> None:
    """Run the node (``role``: all, receive, work) until SIGTERM; a worker also ends when process ``parent`` is gone."""
    begun = time.monotonic()
    load_vocabulary(dict(config.series.rules))  # an error in the config is reported now, not for the first study
    require_methods(config.segmentation)
    stop = stop_event()
    if role == "work":
        run_worker(config, stop, parent)
        return
    worker = WorkerProcess(config_file) if role == "all" else None
    with running_receiver(config) as receiver:
        if worker:
            worker.start()
        try:
            log.info("node_ready", role=role, seconds=round(time.monotonic() - begun, 2))
            _wait(stop, receiver)
        finally:
            if worker:
                worker.stop()
