"""A worker with tiny workflows, run as a process that tests may kill: ``python engine_worker.py CONFIG``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from node.app import stop_event
from node.config import load_config
from node.engine import NOTICE_QUEUE, running_worker
from node.errors import DeliveryError
from node.steps import Steps


def note(folder: Path, name: str) -> int:
    """Add a line to ``folder/name``; how many there are now."""
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len((folder / name).read_text().splitlines())


def wait_for_release(folder: Path, name: str) -> int:
    """As `note`, then wait as long as ``folder/hold`` exists."""
    count = note(folder, name)
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


def main() -> None:
    """Run the workflows until SIGTERM."""
    stop = stop_event()
    config = load_config(Path(sys.argv[1]))
    workflows = {"process": two_steps, "child": child, "failing": failing, "sleeping": sleeping}
    with running_worker(config, workflows):
        (config.folder / f"ready-{os.getpid()}").touch()
        stop.wait()


if __name__ == "__main__":
    main()
