"""A receiver or worker that kills itself by SIGKILL at random moments.

``python mortal.py ROLE CONFIG SEED PROBABILITY``; the worker starts ``python mortal.py compute SEED PROBABILITY FD``.

It is the real node. What decides over life and death is wrapped around the calls between which things may be lost:
flush, link, rename, send, and what is recorded. The worker's cascade is replaced by a threshold, for chaos is about
what is kept and sent, not about tumours. A file ``hold`` in the node's folder holds every segmentation until it is
gone; each is noted by its worker's process id in the file ``segmentations``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from node.processing.request import ProcessingRequest
from node.processing.step_records import Segmentation

INPUTS = "inputs"
"""The file in a result's folder that lists the instances it was made from."""


class Fate:
    """Kills this process before or after a wrapped call, with a probability."""

    def __init__(self, seed: int, probability: float) -> None:
        self._random = random.Random(seed)
        self._probability = probability
        self._lock = threading.Lock()

    def strike(self) -> None:
        """Live, or die by SIGKILL."""
        with self._lock:
            is_struck = self._random.random() < self._probability
        if is_struck:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        """Wrap ``owner.name``."""
        function: Callable[..., Any] = getattr(owner, name)

        def mortal(*arguments: Any, **keywords: Any) -> Any:
            self.strike()
            result = function(*arguments, **keywords)
            self.strike()
            return result

        setattr(owner, name, mortal)


def receive(config_file: Path, fate: Fate) -> None:
    """The receiver, mortal in write, flush, link, and between its answer and the hand-over."""
    from node import app
    from node.processing.dispatcher import StudyDispatcher
    from node.scp.spool import Spool

    for owner, name in ((os, "fsync"), (os, "link"), (Spool, "_link"), (StudyDispatcher, "start")):
        fate.around(owner, name)
    from node.config import load_config

    app.serve(load_config(config_file), "receive", config_file)


def work(config_file: Path, fate: Fate) -> None:
    """The worker, mortal between an answer and its record, and in sending; its computing process is mortal, too."""
    from dbos import DBOS

    from node import app
    from node.config import load_config
    from node.delivery import destination_requests

    for owner, name in (
        (os, "fsync"), (Path, "replace"), (destination_requests, "send_results"),
        (DBOS, "run_step"), (DBOS, "set_event"),
    ):  # fmt: skip
        fate.around(owner, name)
    computing = [sys.executable, __file__, "compute", *sys.argv[3:]]
    app.run_worker(load_config(config_file), app.stop_event(), None, computing)


def compute(descriptor: int, fate: Fate) -> None:
    """The computing process, mortal in flush and rename, and so between SEG and SR."""
    from node.config import Config
    from node.processing import computing
    from node.processing.pipeline import Pipeline

    class Threshold(Pipeline):
        """The pipeline with a threshold where the cascade is."""

        def _segment(self, request: ProcessingRequest, folder: str) -> Segmentation:
            node = self._config.folder
            with (node / "segmentations").open("a") as file:
                file.write(f"{os.getppid()}\n")
            while (node / "hold").exists():
                time.sleep(0.05)
            Path(folder).mkdir(parents=True, exist_ok=True)
            note_inputs(request, Path(folder) / INPUTS)
            return segment_by_threshold(request, Path(folder))

    def make(config: Config) -> Pipeline:
        for owner, name in ((os, "fsync"), (Path, "replace")):
            fate.around(owner, name)
        return Threshold(config)

    computing.compute(descriptor, make)


def note_inputs(request: ProcessingRequest, file: Path) -> None:
    """The SOP Instance UIDs of all series chosen, one a line: the history checker compares them with what is held."""
    assert request.selection is not None
    uids = [instance.sop_instance_uid for each in request.selection.chosen.values() for instance in each.instances]
    part = file.with_suffix(".part")
    part.write_text("\n".join(uids), "ascii")
    part.rename(file)


def segment_by_threshold(request: Any, folder: Path) -> Segmentation:
    """Nested regions by intensity of the T1c series, written as the cascade's are."""
    from node.methods.contract import REGIONS
    from node.segmentation.exam import ExamFacts, ExamSegmentation
    from node.segmentation.regions_file import write_regions
    from node.segmentation.volume import read_volume
    from node.study import Contrast

    source = read_volume(request.selection.chosen[Contrast.T1C])
    import SimpleITK

    array_zyx = SimpleITK.GetArrayFromImage(source.image)
    limits = np.quantile(array_zyx, (0.5, 0.7, 0.9))
    masks = {region: array_zyx > limit for region, limit in zip(REGIONS, limits, strict=True)}
    facts = ExamFacts(1.0, {}, ())
    write_regions(ExamSegmentation(source, masks, np.zeros(array_zyx.shape, np.float32), facts), folder)
    return Segmentation(1.0, {}, [], 0.0)


def main() -> None:
    """Run the role until it is told to stop, or dies."""
    if sys.argv[1] == "compute":
        _, _, seed, probability, descriptor = sys.argv
        # not the seed of the worker, or both would do the same; and not always the same, or none would get further
        compute(int(descriptor), Fate(int(seed) * 100_003 + os.getpid(), float(probability)))
        return
    role, config_file, seed, probability = sys.argv[1:]
    fate = Fate(int(seed), float(probability))
    from node.config_sections import LogSection
    from node.log import set_up_log

    set_up_log(LogSection(format="json"))
    {"receive": receive, "work": work}[role](Path(config_file), fate)


if __name__ == "__main__":
    main()
