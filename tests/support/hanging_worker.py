"""A real worker whose steps hang or crash on demand: ``python hanging_worker.py CONFIG``.

Files in the node's folder say when: ``hang-<study>`` (its segmentation never returns and ignores SIGTERM),
``crash-<study>`` (its segmentation dies by SIGSEGV), ``hang-send`` (a thread that sends never returns). A threshold
stands where the cascade is. Each segmentation is noted in ``computing``: process id, worker, study.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from threshold_worker import thresholds, worker_process

from node.config import Config, load_config
from node.config_sections import LogSection
from node.log import set_up_log
from node.processing.computing import compute
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest
from node.processing.step_records import Segmentation


def hanging_worker(config_file: Path) -> AbstractContextManager[Path]:
    """The worker of this file, as a process."""
    return worker_process(__file__, config_file)


def segmentations(config: Config, study: str) -> list[tuple[int, int]]:
    """Computing process and worker of each segmentation of the study that began."""
    file = config.folder / "computing"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(int(pid), int(worker)) for pid, worker, uid in lines if uid == study]


def hanging(config: Config) -> Pipeline:
    """The pipeline of the computing process."""
    # loaded before the limit of a step counts
    for module in ("regions_file", "volume", "converter", "second_reader", "exam"):
        importlib.import_module(f"node.segmentation.{module}")

    base = thresholds(config)

    class Hanging(type(base)):  # type: ignore[misc]
        def _segment(self, request: ProcessingRequest, folder: str) -> Segmentation:
            study = request.study_instance_uid
            with (config.folder / "computing").open("a") as file:
                file.write(f"{os.getpid()} {os.getppid()} {study}\n")
            if (config.folder / f"crash-{study}").exists():
                os.kill(os.getpid(), signal.SIGSEGV)
            if (config.folder / f"hang-{study}").exists():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    time.sleep(3600)
            return super()._segment(request, folder)

    return Hanging(config)


def main() -> None:
    """The worker until SIGTERM, or with an argument ``compute`` its computing process."""
    if sys.argv[1] == "compute":
        compute(int(sys.argv[2]), hanging)
        return
    from node import app
    from node.delivery import destination_requests

    set_up_log(LogSection(format="json"))
    config = load_config(Path(sys.argv[1]))
    send: Callable[..., Any] = destination_requests.send_results

    def send_or_hang(*arguments: Any) -> Sequence[Any]:
        while (config.folder / "hang-send").exists():
            time.sleep(0.2)
        return send(*arguments)

    destination_requests.send_results = send_or_hang
    app.run_worker(config, app.stop_event(), None, [sys.executable, __file__, "compute"])


if __name__ == "__main__":
    main()
