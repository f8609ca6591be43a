"""A real worker without networks, as a process: ``python threshold_worker.py CONFIG``.

A threshold stands where the cascade is, and where images are compared, the series with the higher number is after.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from faults import wait_until
from processes import stopped_in_the_end

from node.config import Config, load_config
from node.config_sections import LogSection
from node.log import set_up_log
from node.processing.computing import compute
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest
from node.processing.step_records import Segmentation

CHAOS = Path(__file__).parents[1] / "chaos"
START_SECONDS = 120.0


@contextmanager
def worker_process(script: str | Path, config_file: Path, *arguments: str | Path) -> Iterator[Path]:
    """The worker that ``script`` runs, ready; yields its log file. It is stopped by SIGTERM in the end.

    What it logged is part of a failure.
    """
    log_file = config_file.with_name("worker.log")
    command = [sys.executable, str(script), str(config_file), *map(str, arguments)]
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    with stopped_in_the_end(process, log_file):
        wait_until(lambda: "worker_ready" in log_file.read_text("utf-8") or process.poll() is not None, START_SECONDS)
        assert process.poll() is None
        yield log_file
        assert process.poll() is None


def threshold_worker(config_file: Path) -> AbstractContextManager[Path]:
    """The worker of this file, as a process."""
    return worker_process(__file__, config_file)


def _after_by_number(one: Any, other: Any) -> Any:
    from node.study import Comparison

    return Comparison("one" if one.series_number > other.series_number else "other", "it is brighter")


def thresholds(config: Config) -> Pipeline:
    """The pipeline of the computing process: a threshold where the cascade is."""
    sys.path.insert(0, str(CHAOS))
    from mortal import segment_by_threshold

    from node.segmentation import enhancement

    class Threshold(Pipeline):
        def _segment(self, request: ProcessingRequest, folder: str) -> Segmentation:
            return segment_by_threshold(request, Path(folder))

    enhancement.compare_enhancement = _after_by_number
    return Threshold(config)


def main() -> None:
    """The worker until SIGTERM, or with an argument ``compute`` its computing process."""
    if sys.argv[1] == "compute":
        compute(int(sys.argv[2]), thresholds)
        return
    from node import app

    set_up_log(LogSection(format="json"))
    config = load_config(Path(sys.argv[1]))
    app.run_worker(config, app.stop_event(), None, [sys.executable, __file__, "compute"])


if __name__ == "__main__":
    main()
