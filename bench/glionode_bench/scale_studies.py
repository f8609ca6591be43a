"""``glionode bench scale``: the selection from one study of very many instances, and the memory of a worker over many.

The worker is the real one: it reads, registers, masks the brain, writes SEG and report. Instead of the nine networks it
runs one that takes no time, so that many studies fit into a bench.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glionode_bench.receiver_process import resident_mebibytes
from glionode_bench.series_speed import write_study
from node.config import Config, load_config
from node.errors import RetryableError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE

if TYPE_CHECKING:
    from node.demo.acquisition import Acquisition
    from node.methods.card import Card
    from node.methods.contract import Method
    from node.processing.pipeline import Pipeline

Progress = Callable[[str, float], None]

_SMALL, _SIDE = 10, 16
_STEP_MM = 2.0
_UIDS = re.compile(rb"2\.25\.\d{20,}")
_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Selecting:
    """The selection from one study of ``instances``: wall and CPU seconds, and the most memory of its process."""

    instances: int
    seconds: float
    cpu_seconds: float
    most_mebibytes: float


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Memory of the worker and its computing process after ``studies`` studies, and the mean seconds of a study."""

    studies: int
    resident_mebibytes: float
    seconds_each: float


def bench_large_study(instances: int, progress: Progress | None) -> list[Selecting]:
    """The selection from a tenth of ``instances``, and from all."""
    report = progress or (lambda _what, _share: None)
    found = []
    for count in (instances // _SMALL, instances):
        with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
            report(f"writing {count} instances", 0.0)
            write_study(Path(name) / "study", count, side=_SIDE)
            report(f"selecting from {count} instances", 0.5)
            command = [sys.executable, "-P", "-m", "node", "bench", "select", str(Path(name) / "study")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(Selecting(count, **json.loads(done.stdout)))
    return found


def run_selection(study_folder: Path, config: Config) -> str:
    """Select from one study in this process; figures as JSON."""
    import resource

    from node.processing.request import build_request

    begun, cpu = time.perf_counter(), time.process_time()
    request = build_request(study_folder, config)
    figures = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "most_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if request.selection is None:
        raise RetryableError(f"nothing was selected: {request.refusal}")
    return json.dumps(figures)


def bench_worker(studies: int, most_seconds: float, progress: Progress | None) -> list[WorkerMemory]:
    """Memory of the worker over ``studies`` studies, or over as many as ``most_seconds`` allow.

    Raises:
        RetryableError: a study was not reported, or the worker ended.
    """
    report = progress or (lambda _what, _share: None)
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text('[node]\nfolder = "var"\n[retention]\nenabled = false\n', "utf-8")
        config = load_config(folder / "config.toml")
        report("writing an exam", 0.0)
        files = _write_exam(folder / "exam")
        command = [sys.executable, "-P", "-m", "node", "bench", "worker", str(folder / "config.toml")]
        with (
            (folder / "worker.log").open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as worker,
            closing(WorkflowClient(config)) as client,
        ):
            try:
                return _process_all(config, client, (files, studies, most_seconds), worker, report)
            finally:
                worker.terminate()


def _process_all(
    config: Config,
    client: WorkflowClient,
    plan: tuple[dict[str, bytes], int, float],
    worker: subprocess.Popen[bytes],
    report: Progress,
) -> list[WorkerMemory]:
    files, studies, most_seconds = plan
    dispatcher, found = StudyDispatcher(config, client, Metrics()), []
    begun = time.perf_counter()
    for number in range(1, studies + 1):
        dispatcher.start(_put_study(config, files, number))
        deadline = time.monotonic() + _SECONDS
        while client.marks(("process",))[-1].engine_status in ACTIVE or len(client.marks(("process",))) < number:
            if worker.poll() is not None or time.monotonic() > deadline:
                raise RetryableError("the worker ended, or takes too long")
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        found.append(WorkerMemory(number, _resident_with_children(worker.pid), seconds / number))
        report(f"{number} of {studies} studies", number / studies)
        if seconds > most_seconds:
            break
    states = {record.output["state"] for record in client.workflows("process") if isinstance(record.output, dict)}
    if states != {"reported"}:
        raise RetryableError(f"not every study was reported: {sorted(states)}")
    return found


def _resident_with_children(pid: int) -> float:
    """MiB of a worker and of its computing process."""
    children = (task / "children" for task in Path(f"/proc/{pid}/task").iterdir())
    pids = [int(child) for file in children for child in file.read_text("utf-8").split()]
    return sum(resident_mebibytes(each) for each in (pid, *pids))


def _write_exam(folder: Path) -> dict[str, bytes]:
    """The synthetic patient's exam in voxels of 2 mm: path within the study to content."""
    from node.demo.acquisition import STANDARD_EXAM
    from node.demo.mr_writer import write_study as write_exam
    from node.demo.patient import make_patient

    write_exam(folder, make_patient(), [_coarse(each) for each in STANDARD_EXAM if each.contrast])
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.dcm"))}


def _coarse(acquisition: Acquisition) -> Acquisition:
    columns, rows, slices = acquisition.size
    between = max(_STEP_MM, acquisition.spacing_between_slices_mm)
    return replace(
        acquisition,
        size=(
            round(columns * acquisition.pixel_spacing[1] / _STEP_MM),
            round(rows * acquisition.pixel_spacing[0] / _STEP_MM),
            round(slices * acquisition.spacing_between_slices_mm / between),
        ),
        pixel_spacing=(_STEP_MM, _STEP_MM),
        spacing_between_slices_mm=between,
    )


def _put_study(config: Config, files: dict[str, bytes], number: int) -> str:
    """The exam under UIDs of its own, in the spool; its Study Instance UID."""
    import io

    import pydicom

    def renamed(match: re.Match[bytes]) -> bytes:
        return match[0][:-6] + f"{number:06d}".encode()

    uid = ""
    for content in files.values():
        changed = _UIDS.sub(renamed, content)
        header = pydicom.dcmread(io.BytesIO(changed), stop_before_pixels=True)
        uid = str(header.StudyInstanceUID)
        folder = config.spool_folder / uid / str(header.SeriesInstanceUID)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{header.SOPInstanceUID}.dcm").write_bytes(changed)
    return uid


class _Quick:
    """A network of one multiplication: what is bright on FLAIR is the target."""

    def logits(self, x: Any) -> Any:
        """As the networks of the pack: [N, D, H, W, 4] to [N, D-8, H, W, 2]."""
        import torch

        target = 4 * x[:, 4:-4, ..., 0] - 8
        return torch.stack([-target, target], dim=-1)


def run_worker(config_file: Path) -> None:
    """The worker in this process, until SIGTERM; its computing process is this module, run as a program."""
    from node import app

    computing = [sys.executable, "-P", "-m", "glionode_bench.scale_studies"]
    app.run_worker(load_config(config_file), app.stop_event(), None, computing)


def _quick_pipeline(config: Config) -> Pipeline:
    """The pipeline of the computing process, with a quick network."""
    from node.methods.cascade import STAGES, VIEWS, Cascade
    from node.processing.loaded_method import LoadedMethod
    from node.processing.pipeline import Pipeline
    from node.segmentation.device import prepare_device

    class Quick(LoadedMethod):
        def of(self, card: Card) -> Method:
            self.device = prepare_device("cpu", 0)
            return Cascade({f"{stage}_{view}": _Quick() for stage in STAGES for view in VIEWS})

    return Pipeline(config, method=Quick(config))


if __name__ == "__main__":
    from node.processing.computing import compute

    compute(int(sys.argv[1]), _quick_pipeline)
