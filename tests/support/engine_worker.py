"""A worker with tiny workflows, run as a process that tests may kill: ``python engine_worker.py CONFIG [FLAG...]``.

Flags: ``version=NAME`` (of the application), ``release=NAME`` (of glionode), ``forgets`` (the first end of a workflow
is not recorded).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos._sys_db import SystemDatabase

import node
from node.app import stop_event
from node.config import load_config
from node.errors import DeliveryError
from node.workflow import engine
from node.workflow.engine import NOTICE_QUEUE, running_worker
from node.workflow.steps import Steps


def note(folder: Path, name: str) -> int:
    """Add a line to ``folder/name``; how many there are now."""
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len((folder / name).read_text().splitlines())


def wait_for_release(folder: Path, name: str) -> int:
    """As `note`, then die if ``folder/poison`` exists, and wait as long as ``folder/hold`` does."""
    count = note(folder, name)
    if (folder / "poison").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while (folder / "hold").exists():
        time.sleep(0.02)
    return count


def two_steps(steps: Steps, folder: str) -> dict[str, int]:
    """Two steps that count how often they ran; the second may be held."""
    first = steps.step("first", note, Path(folder), "first")
    steps.tell("segmented")
    second = steps.step("second", wait_for_release, Path(folder), "second")
    steps.start(NOTICE_QUEUE, "child", f"{Path(folder).name}-child", folder)
    return {"first": first, "second": second}


def child(steps: Steps, folder: str) -> int:
    """One step."""
    return steps.step("child", note, Path(folder), "child")


def failing(steps: Steps, text: str, is_ours: bool) -> None:
    """End with an error, glionode's own or another."""
    steps.tell("segmented")
    raise DeliveryError(text) if is_ours else ValueError(text)


def sleeping(steps: Steps, seconds: float) -> Any:
    """Sleep between two steps; the moments of both."""
    before = steps.step("before", time.time)
    steps.sleep(seconds)
    return before, steps.step("after", time.time)


def receiving(steps: Steps, folder: str, seconds: float) -> Any:
    """Wait for a message; it and how many came to look for it."""
    message = steps.receive("commitment", seconds)
    return message, steps.step("received", note, Path(folder), "received")


def large(steps: Steps, folder: str) -> int:
    """One step that may be held, with a result that takes room; its length."""

    def result() -> str:
        wait_for_release(Path(folder), "large")
        return "x" * 300_000

    return len(steps.step("large", result))


def forget_one_end() -> None:
    """Let the first workflow that ends do so while the database takes nothing."""
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
            forget_one_end()
        elif key == "release":
            node.__version__ = value
        else:
            engine.APPLICATION_VERSION = value
    workflows = {
        "process": two_steps, "child": child, "failing": failing, "sleeping": sleeping, "receiving": receiving,
        "large": large,
    }  # fmt: skip
    with running_worker(config, workflows):
        Path(sys.argv[1]).with_name(f"ready-{os.getpid()}").touch()
        stop.wait()
        # as the node's own worker: what a step is doing is left
        threading.Timer(2.0, os._exit, (0,)).start()
    os._exit(0)


if __name__ == "__main__":
    main()
