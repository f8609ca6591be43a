"""``glionode demo``: an embedded PACS sends one exam to a node in its own processes and receives the results."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from rich.table import Table

from node.config import build_config
from node.demo.overlay import write_overlay
from node.demo.pacs import HOST, EmbeddedPacs
from node.errors import DeliveryError, RefusedError, SourceUnreachableError
from node.methods.packs import is_installed, pull
from node.scu.store import echo
from node.segmentation.volume import read_volume
from node.series.headers import read_study
from node.series.select import Choice, select
from node.series.vocabulary import load_vocabulary
from node.sr_writer.report import read_volumes
from node.study import Contrast, Destination

Progress = Callable[[str, float], None]
MODEL = "anisotropic_nets_brats17"
SHIPPED_MODEL = "glionode_any_t1c"
"""What answers where the published model cannot be fetched: it is a part of glionode."""

_START_SECONDS, _RESULT_SECONDS = 60.0, 1800.0


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The results that the PACS received, and the folder that holds them.

    Attributes:
        method: name of the algorithm in the SEG.
        why_shipped: why the published model did not run; None: it did.
    """

    folder: Path
    method: str
    why_shipped: str | None
    volumes_ml: dict[str, float]
    sent: int
    seconds: float
    truth_ml: dict[str, float]

    def table(self) -> Table:
        """The report's numbers, as read from the SR that the PACS holds."""
        table = Table(title="Report (TID 1500) as received by the PACS")
        table.add_column("segment")
        table.add_column("volume / mL", justify="right")
        if self.truth_ml:
            table.add_column("true / mL", justify="right")
        for label, volume in self.volumes_ml.items():
            truth = [f"{self.truth_ml[label]:.1f}"] if self.truth_ml else []
            table.add_row(label, f"{volume:.1f}", *truth)
        return table

    def lines(self) -> list[str]:
        """A summary of the run, in sentences."""
        why = f", shipped with glionode: {self.why_shipped}" if self.why_shipped else ""
        return [
            f"method: {self.method}{why}",
            f"{self.sent} MR instances routed to the node; SEG and SR were back after {self.seconds:.0f} s",
            f"written: {self.folder}/overlay.png, pacs/SEG.dcm, pacs/SR.dcm, node/ (spool, results, log)",
        ]


def run_demo(study_dir: Path | None, out: Path, mirror: str, progress: Progress | None) -> DemoOutcome:
    """Send one exam (without ``study_dir``: a synthetic patient's) through a node of its own; write only below ``out``.

    The published model segments it; where that cannot be fetched, the model that is shipped, and the outcome says why.

    Raises:
        ModelPackError: fetched weights are not those of the model's card, or are not in the mirror folder.
        RefusedError: the node refused the exam, with its reason.
        DeliveryError: the node did not start, or no result arrived in time.
    """
    report = progress or (lambda _text, _fraction: None)
    models = out / "models"
    why_shipped = _why_not_fetched(models, mirror, report)
    for name in ("node", "pacs"):
        shutil.rmtree(out / name, ignore_errors=True)
    truth: dict[str, float] = {}
    if study_dir is None:
        report("making a synthetic patient", 0.05)
        study_dir, truth = _synthetic_exam(out / "exam")
    selection = select(read_study(study_dir), load_vocabulary(), Choice(needed=(Contrast.T1C,)))
    files = [instance.path for series in read_study(study_dir).series for instance in series.instances]
    begun = time.monotonic()
    with EmbeddedPacs("DEMO-PACS", _free_port(), out / "pacs") as pacs, _running_node(out, pacs, models) as node:
        report("routing the exam to the node", 0.15)
        sent = pacs.route(files, node)
        seg, sr = _results(pacs, out, report)
    seconds = time.monotonic() - begun
    report("drawing the overlay", 0.97)
    write_overlay(seg, read_volume(selection.chosen[Contrast.T1C]), out / "overlay.png")
    method = str(pydicom.dcmread(seg).SegmentSequence[0].SegmentAlgorithmName)
    return DemoOutcome(out, method, why_shipped, read_volumes(pydicom.dcmread(sr)), sent, seconds, truth)


def _why_not_fetched(models: Path, mirror: str, report: Progress) -> str | None:
    """Fetch the published model; why it cannot be fetched, or None once it is in ``models``."""
    if is_installed(MODEL, models):
        return None
    report("fetching the model", 0.0)
    try:
        pull(MODEL, models, mirror)
    except SourceUnreachableError as error:
        report(f"{MODEL} cannot be fetched: {SHIPPED_MODEL} takes its place", 0.04)
        return str(error)
    return None


def _synthetic_exam(folder: Path) -> tuple[Path, dict[str, float]]:
    """The synthetic patient's exam as DICOM, and the true volume of each segment in mL."""
    from node.demo.mr_writer import write_study
    from node.demo.patient import ENHANCING, NECROSIS, OEDEMA, TRUE_VOLUME_ML, make_patient

    shutil.rmtree(folder, ignore_errors=True)
    write_study(folder, make_patient())
    core = TRUE_VOLUME_ML[NECROSIS] + TRUE_VOLUME_ML[ENHANCING]
    whole = core + TRUE_VOLUME_ML[OEDEMA]
    truth = {"Whole tumour": whole, "Tumour core": core, "Enhancing tumour": TRUE_VOLUME_ML[ENHANCING]}
    return folder, truth


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _settings(out: Path, pacs: EmbeddedPacs, models: Path) -> dict[str, Any]:
    destination = {"name": "demo-pacs", "ae_title": "DEMO-PACS", "host": HOST, "port": pacs.destination.port}
    return {
        "node": {"folder": str((out / "node").absolute())},
        "scp": {"port": _free_port(), "watermark_mebibytes": 256},
        "assembly": {"stable_seconds": 4.0, "series_stable_seconds": 2.0},
        "models": {"folder": str(models.absolute())},
        "segmentation": {"models": [MODEL, SHIPPED_MODEL]},
        "web": {"port": _free_port()},
        "delivery": {"first_retry_seconds": 2.0},
        "destination": [destination],
    }


def _toml(settings: dict[str, Any]) -> str:
    """Settings as TOML; JSON strings and numbers are valid TOML as well."""
    lines = []
    for section, values in settings.items():
        for table in values if isinstance(values, list) else [values]:
            lines.append(f"[[{section}]]" if isinstance(values, list) else f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


@contextmanager
def _running_node(out: Path, pacs: EmbeddedPacs, models: Path) -> Iterator[Destination]:
    """Run the node in its own processes; yields once it answers C-ECHO."""
    settings = _settings(out, pacs, models)
    folder = out / "node"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.toml"
    file.write_text(_toml(settings), encoding="utf-8")
    section = build_config(settings).scp
    node = Destination("node", section.ae_title, section.host, section.port)
    with (folder / "node.log").open("wb") as log:
        command = [sys.executable, "-P", "-m", "node", "serve", "--config", str(file)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(node, process, folder)
            yield node
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_until_it_answers(node: Destination, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while echo(node, "DEMO-PACS", 2.0) is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise DeliveryError(f"the node did not start; see {folder / 'node.log'}")
        time.sleep(0.2)


def _results(pacs: EmbeddedPacs, out: Path, report: Progress) -> tuple[Path, Path]:
    """Wait for SEG and SR; a refusal by the node ends the wait."""
    begun = time.monotonic()
    while time.monotonic() - begun < _RESULT_SECONDS:
        seg, sr = pacs.wait_for("SEG", 1.0), pacs.wait_for("SR", 1.0)
        if seg and sr:
            return seg, sr
        elapsed = time.monotonic() - begun
        report(f"the node is at work ({elapsed:.0f} s)", 0.2 + 0.75 * min(elapsed / 120, 1.0))
        for file in (out / "node" / "work").glob("*/result.json"):
            result = json.loads(file.read_text("utf-8"))
            if result["state"] == "refused":
                raise RefusedError(result["reason"])
    raise DeliveryError(f"no result within {_RESULT_SECONDS:.0f} s; see {out / 'node' / 'node.log'}")
