"""The worker process of ``serve``: the receiver's process starts it, watches it and stops it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import structlog

from node.service_manager import PROCESS_VARIABLE, SOCKET_VARIABLE, WATCHDOG_VARIABLE

log = structlog.get_logger()

_WORKER_PAUSE_SECONDS = 5.0
_WORKER_STOP_SECONDS = 30.0
_WORKER_SILENCE_SECONDS = 60.0
"""A worker that gave no sign of life for so long is killed."""


def worker_command(config_file: Path | None) -> list[str]:
    """The command line of a worker that ends when this process does; no module comes from the working folder."""
    arguments = [] if config_file is None else ["--config", str(config_file)]
    # if this process is killed, the worker must end, too: its lock would keep the next worker from starting
    role = ["--role", "work", "--parent", str(os.getpid())]
    return [sys.executable, "-P", "-m", "node", "serve", *role, *arguments]


class WorkerProcess:
    """A worker process that is started again when it ends, and killed when it gives no sign of life.

    This process is its service manager: it listens on an abstract socket for the worker's datagrams.
    """

    def __init__(self, config_file: Path | None) -> None:
        self._command = worker_command(config_file)
        self._signs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._signs.bind("")  # the kernel chooses an abstract name
        self._signs.setblocking(False)
        self._heard: float | None = None  # None: the worker is not ready yet
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="worker-watch")

    def start(self) -> None:
        """Start the worker and watch it."""
        self._begin()
        self._thread.start()

    @property
    def is_watched(self) -> bool:
        """True while a thread watches the worker."""
        return self._thread.is_alive()

    def _begin(self) -> bool:
        """Start the process; False if the operating system cannot start one now."""
        name = "@" + self._signs.getsockname()[1:].decode()
        watched = {SOCKET_VARIABLE: name, WATCHDOG_VARIABLE: str(int(_WORKER_SILENCE_SECONDS * 1e6))}
        environment = {key: value for key, value in os.environ.items() if key != PROCESS_VARIABLE} | watched
        self._listen()  # to what the worker before it said
        self._heard = None
        try:
            self._process = subprocess.Popen(self._command, env=environment)
        except OSError as error:
            log.error("worker_not_started", reason=error.strerror)
            return False
        return True

    def _watch(self) -> None:
        while not self._stop.is_set():
            if self._process is not None:
                if self._process.poll() is None:
                    self._kill_if_silent(self._process)
                    self._stop.wait(0.2)
                    continue
                log.error("worker_died", exit_status=self._process.returncode)
            while not self._stop.wait(_WORKER_PAUSE_SECONDS) and not self._begin():
                pass  # logged; tried again after a pause

    def _kill_if_silent(self, process: subprocess.Popen[bytes]) -> None:
        """Read the worker's signs of life; kill it if they have stopped since it was ready."""
        self._listen()
        if self._heard is not None and time.monotonic() - self._heard > _WORKER_SILENCE_SECONDS:
            log.error("worker_silent", seconds=_WORKER_SILENCE_SECONDS)
            process.kill()
            self._heard = None

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while self._signs.recv(4096):
                self._heard = time.monotonic()

    def stop(self) -> None:
        """End the worker; kill it if it does not end in time."""
        self._stop.set()
        self._thread.join()
        self._signs.close()
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
