"""Builds the parts from the config, starts them, waits for SIGTERM, stops them in reverse.

The receiver and the worker are processes of their own, so that a CUDA fault or a long registration cannot drop an
association. ``serve`` with role *all* is the receiver, and looks after one worker process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from node.config import Config
from node.engine import STUDY_QUEUE, WorkflowClient
from node.metrics import Metrics
from node.order import Order, order_study
from node.pipeline import Pipeline

log = structlog.get_logger()

_WORKER_PAUSE_SECONDS = 5.0
_WORKER_STOP_SECONDS = 30.0
_STEP_GRACE_SECONDS = 5.0
_PARENT_WATCH_SECONDS = 1.0


class StudyDesk:
    """Turns stable studies into workflows. Handed to the assembly; knows spool folders and the engine's client."""

    def __init__(self, config: Config, client: WorkflowClient, metrics: Metrics) -> None:
        self._config = config
        self._client = client
        self._metrics = metrics

    def is_complete(self, study_instance_uid: str) -> bool:
        """True if every contrast the method needs is there."""
        return self._order(study_instance_uid).selection is not None

    def start(self, study_instance_uid: str) -> None:
        """Enqueue the study's workflow; the same instances never run twice."""
        order = self._order(study_instance_uid)
        if self._client.is_known(order.workflow_id):
            log.info("study_unchanged", study_instance_uid=study_instance_uid, workflow_id=order.workflow_id)
            return
        folder = str(self._config.work_folder / order.workflow_id)
        about = {"study_instance_uid": study_instance_uid}
        self._client.enqueue(STUDY_QUEUE, "process", order.workflow_id, order, folder, about=about)
        self._metrics.studies.inc()
        log.info("study_started", study_instance_uid=study_instance_uid, workflow_id=order.workflow_id)

    def _order(self, study_instance_uid: str) -> Order:
        return order_study(self._config.spool_folder / study_instance_uid, self._config, study_instance_uid)


@contextmanager
def running_receiver(config: Config) -> Iterator[None]:
    """Spool, assembly, SCP and status page, until the block ends."""
    from node.scp.assembly import Assembly, AssemblyLoop
    from node.scp.handlers import StorageHandlers
    from node.scp.server import Receiver
    from node.scp.spool import Spool
    from node.web.page import Sources, running_page

    metrics = Metrics()
    spool = Spool(config.spool_folder)
    metrics.free_bytes.set_function(spool.free_bytes)
    leftovers = spool.remove_incoming_leftovers()
    client = WorkflowClient(config)
    desk = StudyDesk(config, client, metrics)
    loop = AssemblyLoop(Assembly(config.assembly, desk.is_complete), desk.start)
    watermark_bytes = config.scp.watermark_mebibytes * 2**20
    handlers = StorageHandlers(spool, metrics, watermark_bytes, loop.instance_stored)
    log.info("spool_opened", studies=len(spool.studies()), leftovers=leftovers)
    try:
        loop.start({study: [folder.name for folder in spool.series_folders(study)] for study in spool.studies()})
        with (
            Receiver(config.scp, handlers, metrics),
            running_page(config, Sources(client, metrics, lambda: loop.is_alive)),
        ):
            yield
    finally:
        loop.stop()
        client.close()


def run_worker(config: Config, stop: threading.Event, parent: int | None) -> None:
    """Run workflows until ``stop`` is set, or ``parent`` (process id) is gone.

    A step under way is left; it is idempotent and runs again later.
    """
    from node.engine import running_worker

    pipeline = Pipeline(config)
    with running_worker(config, {"process": pipeline.process, "deliver": pipeline.deliver}):
        log.info("worker_ready", device=config.segmentation.device, model=config.segmentation.model)
        while not stop.wait(_PARENT_WATCH_SECONDS):
            if parent is not None and os.getppid() != parent:
                log.error("parent_died")
                break
        # the engine waits for its threads, which may compute for minutes; the recorded steps make leaving them safe
        threading.Timer(_STEP_GRACE_SECONDS, os._exit, (0,)).start()
    log.info("worker_stopped")
    os._exit(0)


class WorkerProcess:
    """A worker process that is started again when it dies."""

    def __init__(self, config_file: Path | None) -> None:
        arguments = [] if config_file is None else ["--config", str(config_file)]
        # if this process is killed, the worker must not go on alone: it would hold the place of the next one
        role = ["--role", "work", "--parent", str(os.getpid())]
        self._command = [sys.executable, "-m", "node", "serve", *role, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="worker-watch")

    def start(self) -> None:
        """Start the worker and watch it."""
        self._process = subprocess.Popen(self._command)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            assert self._process is not None
            if self._process.poll() is None:
                self._stop.wait(0.2)
                continue
            log.error("worker_died", exit_status=self._process.returncode)
            if not self._stop.wait(_WORKER_PAUSE_SECONDS):
                self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        """End the worker; killed if it does not end in time."""
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


def serve(config: Config, role: str, config_file: Path | None, parent: int | None = None) -> None:
    """Run the node (``role``: all, receive, work) until SIGTERM; a worker also ends when process ``parent`` is gone."""
    begun = time.monotonic()
    stop = stop_event()
    if role == "work":
        run_worker(config, stop, parent)
        return
    worker = WorkerProcess(config_file) if role == "all" else None
    with running_receiver(config):
        if worker:
            worker.start()
        try:
            log.info("node_ready", role=role, seconds=round(time.monotonic() - begun, 2))
            stop.wait()
        finally:
            if worker:
                worker.stop()
