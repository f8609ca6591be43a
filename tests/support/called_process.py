"""The other side of a `KillableProcess`, with functions that hang, die and leave children: ``called_process.py FD``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from node.workflow.killable_process import serve_calls

COMMAND = (sys.executable, __file__)


def hang(file: str) -> NoReturn:
    """Note the process ids of this process and of a child in ``file``, and never return, whatever SIGTERM says."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "3600"])
    Path(f"{file}.new").write_text(f"{os.getpid()} {child.pid}")
    Path(f"{file}.new").replace(file)
    while True:
        time.sleep(3600)


def die(number: int) -> None:
    """Die by a signal."""
    os.kill(os.getpid(), number)


def functions(greeting: str) -> dict:
    """What can be called. A greeting ``broken`` ends the process before it is ready."""
    if greeting == "broken":
        sys.exit(7)
    return {"hang": hang, "die": die, "pid": os.getpid, "greeting": lambda *more: [greeting, *more]}


def is_running(pid: int) -> bool:
    """True unless the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def noted(file: Path) -> list[int]:
    """The process ids that `hang` noted; none before it did."""
    return [int(word) for word in file.read_text().split()] if file.exists() else []


if __name__ == "__main__":
    serve_calls(int(sys.argv[1]), functions)
