"""A real worker that takes its segmentations from a finished demo: ``python replay_worker.py CONFIG NODE_FOLDER``.

Networks give the same answer to the same images each time, which the demo has waited for already. The regions are
taken over only if the four series hold, byte for byte, the data sets that the demo's node received. All else, from
the database to SEG and SR, is this worker's own work.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from instances import data_set_bytes
from threshold_worker import worker_process

from node.config import load_config
from node.config_sections import LogSection
from node.log import set_up_log
from node.processing.computing import compute
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest
from node.processing.step_records import Segmentation


def replay_worker(config_file: Path, node_folder: Path) -> AbstractContextManager[Path]:
    """The worker of this file, as a process; ``node_folder`` is the folder of the demo's node."""
    return worker_process(__file__, config_file, node_folder)


def replayed(request: ProcessingRequest, folder: Path, node_folder: Path) -> Segmentation:
    """The regions and facts of the demo's only study, if ``request`` asks for the same images."""
    assert request.selection is not None
    (done,) = (node_folder / "work").iterdir()
    for series in request.selection.chosen.values():
        theirs = node_folder / "spool" / series.study_instance_uid / series.series_instance_uid
        mine = {instance.path.name: instance.path for instance in series.instances}
        assert sorted(mine) == sorted(path.name for path in theirs.iterdir())
        for name, path in mine.items():
            assert data_set_bytes(path.read_bytes()) == data_set_bytes((theirs / name).read_bytes()), path
    from node.segmentation.regions_file import LABEL_MAP_FILE, REGIONS_FILE, SPREAD_FILE

    folder.mkdir(parents=True, exist_ok=True)
    for name in (REGIONS_FILE, LABEL_MAP_FILE, SPREAD_FILE):
        shutil.copy(done / name, folder / name)
    told = json.loads((done / "result.json").read_text("utf-8"))
    return Segmentation(told["brain_ml"], told["agreement"], told["cautions"], told["seconds"]["segment"])


def main() -> None:
    """The worker until SIGTERM, or with ``compute`` as second argument its computing process."""
    node_folder = Path(sys.argv[2])
    if sys.argv[1] == "compute":

        class Replay(Pipeline):
            """The pipeline with a finished segmentation where method and cascade are."""

            def _segment(self, request: ProcessingRequest, folder: str) -> Segmentation:
                return replayed(request, Path(folder), node_folder)

        compute(int(sys.argv[3]), Replay)
        return
    from node import app

    set_up_log(LogSection(format="json"))
    config = load_config(Path(sys.argv[1]))
    app.run_worker(config, app.stop_event(), None, [sys.executable, __file__, "compute", str(node_folder)])


if __name__ == "__main__":
    main()
