"""A process that runs functions for this one, one call after the other, and can be killed at any moment.

It stays between two calls, and keeps what it has loaded. Calls and answers are JSON texts on a pair of sockets. It is
the leader of a process group of its own, which is killed as a whole. It ends when the process that started it ends,
even by SIGKILL: idle, it reads the end of the connection; at work, the kernel kills it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from typing import Any

import structlog

from node.errors import UnforeseenError
from node.workflow.step_limits import StepLimit, step_under_way

log = structlog.get_logger()

MOST_UNKILLABLE = 2
"""With so many processes that survive SIGKILL, since the kernel waits for a disk or driver, no further one starts."""

_START_LIMIT = StepLimit(300.0, "start of its process")

_PR_SET_PDEATHSIG = 1  # prctl(2)
_REAP_SECONDS = 1.0


class ProcessDied(Exception):  # noqa: N818 - the name says what happened
    """The process ended in the middle of a call; ``str(error)`` says how."""


class _Running:
    """One process, with the connection to it."""

    def __init__(self, command: Sequence[str], greeting: str) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self.process = subprocess.Popen(
                [*command, str(number)], stdin=subprocess.DEVNULL, pass_fds=[number], process_group=0
            )
        self._socket = mine
        self._connection = Connection(os.dup(mine.fileno()))
        self._lock = threading.Lock()
        self._greeting = greeting
        self.is_ready = False
        self.is_killed = False

    def greet(self) -> None:
        """Send the greeting; returns once the process is ready for calls.

        Raises:
            EOFError, OSError: the process ended, or was killed.
        """
        if not self.is_ready:
            self.ask(self._greeting)
            self.is_ready = True

    def ask(self, question: str) -> str:
        """Send a question; returns the answer.

        Raises:
            EOFError, OSError: the process ended, or was killed.
        """
        self._connection.send_bytes(question.encode())
        return self._connection.recv_bytes().decode()

    def kill(self) -> None:
        """Kill the process group, and end `ask`, even if the kernel does not let the process end."""
        with self._lock:
            self.is_killed = True
            if self.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def is_gone(self) -> bool:
        """True once the process has ended; waits a moment for it."""
        with self._lock, suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAP_SECONDS)
            with suppress(ProcessLookupError):  # what it started
                os.killpg(self.process.pid, signal.SIGKILL)
            return True
        return False

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._socket.close()


class KillableProcess:
    """Starts the process when it is first called, and again after its end.

    Args:
        command: the command line; the number of a file descriptor is added to it (see `serve_calls`).
        greeting: the first text that each process receives.
    """

    def __init__(self, command: Sequence[str], greeting: str) -> None:
        self._command = list(command)
        self._greeting = greeting
        self._alone = threading.Lock()
        self._running: _Running | None = None
        self._unkillable: list[_Running] = []
        self._is_stopped = threading.Event()
        # the kernel kills the process when the *thread* that started it ends, so that one stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="process-starter")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the function ``name`` in the process with JSON values; returns its result.

        If the step that this thread works for is over (`step_limits`), the process is killed.

        Raises:
            ProcessDied: it ended in the middle of the call.
            UnforeseenError: no process can be started, or it ends before it is ready.
        """
        step = step_under_way()
        with self._alone:
            self._wait_if_stopped()
            running = self._ready()
            with nullcontext() if step is None else step.breaking(running.kill):
                try:
                    if not running.is_ready and step is not None:
                        step.restart(_START_LIMIT)  # the step's limit is for its work
                    running.greet()
                    if step is not None:
                        step.restart()
                    return json.loads(running.ask(json.dumps([name, arguments])))
                except (EOFError, OSError):
                    pass
        end = self._end_of(running)
        if not running.is_ready and not running.is_killed:
            raise UnforeseenError(f"the process that computes does not start: {end}")
        raise ProcessDied(end)

    def _ready(self) -> _Running:
        """The process, started if there is none that lives."""
        if self._running is not None and self._running.process.poll() is None and not self._running.is_killed:
            return self._running
        self._put_aside()
        self._unkillable = [each for each in self._unkillable if not each.is_gone()]
        if len(self._unkillable) >= MOST_UNKILLABLE:
            raise UnforeseenError(f"{len(self._unkillable)} processes cannot be killed: a disk or a driver hangs")
        try:
            self._running = self._starter.submit(_Running, self._command, self._greeting).result()
        except OSError as error:
            raise UnforeseenError(f"no process can be started: {error.strerror}") from None
        log.info("process_started", process=self._running.process.pid)
        return self._running

    def _put_aside(self) -> None:
        """Close the process that has ended or was killed."""
        if self._running is not None:
            if not self._running.is_gone():
                log.error("process_cannot_be_killed", process=self._running.process.pid)
                self._unkillable.append(self._running)
            self._running.close()
            self._running = None

    def _end_of(self, running: _Running) -> str:
        self._wait_if_stopped()
        if not running.is_gone():
            running.kill()  # it has only closed the connection
        return _told(running.process.returncode if running.is_gone() else None)

    def _wait_if_stopped(self) -> None:
        """Return never if this process is about to end: the step that was cut off must not be recorded as failed."""
        if self._is_stopped.is_set():
            threading.Event().wait()

    def stop(self) -> None:
        """Kill the process; a call that waits for it never returns, because this process is about to end."""
        self._is_stopped.set()
        if self._running is not None:
            self._running.kill()
        # a call has read the end of its connection; a second one may wait for ever in its place
        if self._alone.acquire(timeout=_REAP_SECONDS):
            self._put_aside()
            self._alone.release()
        self._starter.shutdown(wait=False)


def _told(status: int | None) -> str:
    """How a process ended, for humans."""
    if status is None:
        return "it does not end"
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def serve_calls(descriptor: int, functions: Callable[[str], Mapping[str, Callable[..., Any]]]) -> None:
    """The process's side: answer calls until the connection ends.

    Args:
        functions: makes the functions by their names from the greeting; they take and return JSON values.
    """
    _die_with_parent()
    connection = Connection(descriptor)
    with suppress(EOFError):
        table = functions(connection.recv_bytes().decode())
        connection.send_bytes(b"ready")
        while True:
            name, arguments = json.loads(connection.recv_bytes().decode())
            connection.send_bytes(json.dumps(table[name](*arguments)).encode())


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent has died: it may be deep in a library then.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
