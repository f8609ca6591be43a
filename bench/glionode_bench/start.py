"""How long the short commands take, and the imports of the node's processes, beside Python alone.

All run in turn, so that a machine whose speed varies slows down all of them alike, and the best run of each counts:
whatever else the machine does can only add to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from glionode_bench.series_speed import write_study
from node.config import build_config
from node.processing.pipeline import Progress
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE

COLUMNS = ("what", "seconds", "CPU seconds", "CPU of Python alone")

_INSTANCES = 96
_COMMAND = ("-m", "node")
_IMPORTS = {
    "imports of serve --role receive": "node.app, node.web.page, node.scp.server, node.scp.assembly, dbos",
    "imports of serve --role work": "node.app, node.delivery.delivery, node.notify.notices, node.workflow.engine, dbos",
    "imports of the computing process": "node.processing.computing",
}


@dataclass(frozen=True, slots=True)
class Start:
    """The best wall and CPU seconds (user and system) of one process from its start to its end."""

    what: str
    seconds: float
    cpu_seconds: float

    def cells(self, alone: Start) -> tuple[str, ...]:
        """The line as text, in the order of :data:`COLUMNS`. ``alone``: Python that does nothing."""
        ratio = f"{self.cpu_seconds / alone.cpu_seconds:.1f}"
        return self.what, f"{self.seconds:.2f}", f"{self.cpu_seconds:.2f}", ratio


def bench(runs: int, progress: Progress | None) -> list[Start]:
    """Measure each process ``runs`` times; the first row is Python alone."""
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        folder = Path(name)
        write_study(folder / "study", _INSTANCES, side=16)
        # the command finds no config in this folder, and the node's own folder in it
        with closing(WorkflowClient(build_config({}, folder / "config.toml"))) as client:
            client.enqueue(STUDY_QUEUE, "process", "0" * 32, attributes={"study_instance_uid": "1.2.3"})
        commands = {
            "python -c pass": ("-c", "pass"),
            "glionode --help": (*_COMMAND, "--help"),
            "glionode studies": (*_COMMAND, "studies"),
            f"glionode series, {_INSTANCES} instances": (*_COMMAND, "series", "study"),
            **{what: ("-c", f"import {modules}") for what, modules in _IMPORTS.items()},
        }
        taken: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
        for run in range(runs):
            for what, arguments in commands.items():
                taken[what].append(_seconds(arguments, folder))
            if progress:
                progress("starting", (run + 1) / runs)
    return [Start(what, min(wall for wall, _ in each), min(cpu for _, cpu in each)) for what, each in taken.items()]


def _seconds(arguments: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - begun, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent
