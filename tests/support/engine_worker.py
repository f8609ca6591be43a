"""A worker with tiny workflows, run as a process that tests may kill: ``python engine_worker.py CONFIG [FLAG...]``.

Flags: ``version=NAME`` (of the application), ``release=NAME`` (of glionode), ``forgets`` (the outcome of the first
workflow that ends is not recorded), ``removes=SECONDS`` (after which the files and rows of a dead worker are removed).
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
from typing import Any

import sqlalchemy
from dbos._sys_db import SystemDatabase
from faults import wait_until
from processes import stopped_in_the_end

import node
from node.app import stop_event
from node.config import load_config
from node.errors import DeliveryError
from node.workflow import engine, leftovers
from node.workflow.engine import NOTICE_QUEUE, running_worker
from node.workflow.steps import Steps
from node.workflow.workflow_id import WorkflowId

DEADLINE_SECONDS = 60.0


def start_worker(config_file: Path, *flags: str) -> subprocess.Popen[bytes]:
    """A worker process that may end before it is ready; its log is in ``worker.log`` beside the config."""
    with config_file.with_name("worker.log").open("ab") as log:
        command = [sys.executable, __file__, str(config_file), *flags]
        return subprocess.Popen(command, stdout=log, stderr=log)


@contextmanager
def engine_worker(config_file: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that is ready; stopped by SIGTERM in the end unless a test has killed it."""
    process = start_worker(config_file, *flags)
    with stopped_in_the_end(process, config_file.with_name("worker.log")):
        wait_until(config_file.with_name(f"ready-{process.pid}").exists, DEADLINE_SECONDS)
        yield process


def lines(file: Path) -> list[str]:
    """The lines of a file; an empty list before it exists."""
    return file.read_text().splitlines() if file.exists() else []


def note(folder: Path, name: str) -> int:
    """Add a line with the process id to ``folder/name``; the number of its lines."""
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len((folder / name).read_text().splitlines())


def wait_for_release(folder: Path, name: str) -> int:
    """As `note`; then kill this process if ``folder/poison`` exists, and wait as long as ``folder/hold`` does."""
    count = note(folder, name)
    if (folder / "poison").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while (folder / "hold").exists():
        time.sleep(0.02)
    return count


def two_steps(steps: Steps, folder: str) -> dict[str, int]:
    """Two steps that count how often they ran, and a child; the second step may be held."""
    first = steps.step("first", note, Path(folder), "first")
    steps.publish("segmented")
    second = steps.step("second", wait_for_release, Path(folder), "second")
    steps.start(NOTICE_QUEUE, WorkflowId.parse(Path(folder).name).delivery("child"), folder)
    return {"first": first, "second": second}


def child(steps: Steps, folder: str) -> int:
    """One step."""
    return steps.step("child", note, Path(folder), "child")


def failing(steps: Steps, text: str, is_ours: bool) -> None:
    """End with an error, glionode's own or another."""
    steps.publish("segmented")
    raise DeliveryError(text) if is_ours else ValueError(text)


def defective(steps: Steps, folder: str) -> None:
    """Note the run, then meet a programming error outside of all steps."""
    note(Path(folder), "runs")
    raise KeyError("PatientName")


def sleeping(steps: Steps, seconds: float) -> Any:
    """Sleep between two steps; the moments of both."""
    before = steps.step("before", time.time)
    steps.sleep(seconds)
    return before, steps.step("after", time.time)


def receiving(steps: Steps, folder: str, seconds: float) -> Any:
    """Wait for a message; the message, and how often the step after it ran."""
    message = steps.receive("commitment", seconds)
    return message, steps.step("received", note, Path(folder), "received")


def large(steps: Steps, folder: str) -> int:
    """One step that may be held, with a result of 300 000 characters; its length."""

    def result() -> str:
        wait_for_release(Path(folder), "large")
        return "x" * 300_000

    return len(steps.step("large", result))


def forget_one_outcome() -> None:
    """Let the database take no record of the first workflow that ends."""
    record, failed = SystemDatabase.update_workflow_outcome, threading.Event()

    def update(*arguments: Any, **keywords: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database or disk is full"))
        return record(*arguments, **keywords)

    SystemDatabase.update_workflow_outcome = update  # type: ignore[method-assign]


def main() -> None:
    """Run the workflows until SIGTERM."""
    stop = stop_event()
    config = load_config(Path(sys.argv[1]))
    for flag in sys.argv[2:]:
        key, _, value = flag.partition("=")
        if key == "forgets":
            forget_one_outcome()
        elif key == "release":
            node.__version__ = value
        elif key == "removes":
            leftovers.REMOVAL_SECONDS = leftovers.ROUND_SECONDS = float(value)
        else:
            engine.APPLICATION_VERSION = value
    workflows = {
        "process": two_steps, "deliver": child, "failing": failing, "sleeping": sleeping, "receiving": receiving,
        "large": large, "defective": defective,
    }  # fmt: skip
    with running_worker(config, workflows):
        Path(sys.argv[1]).with_name(f"ready-{os.getpid()}").touch()
        stop.wait()
        # as the node's own worker: what a step is doing is left
        threading.Timer(2.0, os._exit, (0,)).start()
    os._exit(0)


if __name__ == "__main__":
    main()
