"""What happens to a study. THE page to read first.

::

    select  ->  segment  ->  report  ->  deliver (one workflow per destination)

Selection is done where the study is assembled (headers only); everything after it is a durable workflow. Outputs are
files in ``work/<workflow id>/``, written aside and renamed, so that every step may run twice. A refused study ends
here, too: with its reason, listed like all others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import structlog

from node import __version__
from node.config import Config
from node.engine import DELIVERY_QUEUE, Steps
from node.errors import DeliveryError, RefusedError
from node.log import study_context
from node.order import Order
from node.series.explain import selection_as_dict
from node.study import Contrast, InstanceDelivery, ResultIdentity

if TYPE_CHECKING:
    from node.segmentation.cascade import Cascade

log = structlog.get_logger()

Progress = Callable[[str, float], None]
RESULT_FILES = ("seg.dcm", "sr.dcm")
WORK_FILES = (*RESULT_FILES, "label_map.nii.gz", "disagreement.nii.gz", "regions.npz")


class Pipeline:
    """The steps, with what they need from the config. ``progress`` gets what is being done and the fraction done."""

    def __init__(self, config: Config, progress: Progress | None = None) -> None:
        self._config = config
        self._progress = progress
        self._cascade: Cascade | None = None
        self._device = "cpu"

    # ---- workflows: no effects outside steps -------------------------------------------------------------------

    def process(self, steps: Steps, order: Order, folder: str) -> dict[str, Any]:
        """Process one study into ``folder``; returns its state, and the reason if it was refused."""
        with study_context(order.study_instance_uid):
            if order.selection is None:
                return self._refused(steps, order, folder, order.refusal or "")
            try:
                steps.tell("selected")
                facts = steps.step("segment", self.segment, order, folder)
                steps.tell("segmented")
                result = steps.step("report", self.report, order, folder, facts)
                steps.tell("reported")
            except RefusedError as error:
                return self._refused(steps, order, folder, str(error))
            for destination in self._config.destination:
                child = f"{order.workflow_id}-{destination.name}"
                steps.start(DELIVERY_QUEUE, "deliver", child, order.study_instance_uid, folder, destination.name)
            log.info("study_reported", volumes_ml=result["volumes_ml"])
            return {"state": "reported", "reason": None, "volumes_ml": result["volumes_ml"]}

    def _refused(self, steps: Steps, order: Order, folder: str, reason: str) -> dict[str, Any]:
        steps.step("refuse", self.refuse, order, folder, reason)
        steps.tell("refused")
        log.warning("study_refused", reason=reason)
        return {"state": "refused", "reason": reason, "volumes_ml": None}

    def deliver(self, steps: Steps, study_instance_uid: str, folder: str, name: str) -> dict[str, Any]:
        """Send the results to destination ``name``, again and again with growing pauses, until it took them."""
        section = self._config.delivery
        begun = steps.step("clock", time.time)
        pause = section.first_retry_seconds
        attempts = 0
        with study_context(study_instance_uid, destination=name):
            while True:
                attempts += 1
                outcomes = steps.step("send", self.send, folder, name)
                if all(outcome.is_delivered for outcome in outcomes):
                    steps.tell("delivered")
                    log.info("results_delivered", attempts=attempts)
                    return {"state": "delivered", "reason": None, "attempts": attempts}
                reason = "; ".join(sorted({outcome.reason for outcome in outcomes if not outcome.is_delivered}))
                log.warning("delivery_failed", reason=reason, attempts=attempts)
                is_over = steps.step("clock", time.time) - begun > section.give_up_days * 86400
                if is_over or any(outcome.is_permanent for outcome in outcomes):
                    raise DeliveryError(f"{name}: {reason}")
                steps.tell(f"retrying: {reason}")
                steps.sleep(pause)
                pause = min(2 * pause, section.longest_retry_seconds)

    # ---- steps: each may run twice -----------------------------------------------------------------------------

    def segment(self, order: Order, folder: str) -> dict[str, Any]:
        """Volumes, grid, brain, cascade; writes the regions on the T1c grid."""
        # torch is imported here, not above: the receiver never needs it
        from node.segmentation.method import segment_exam
        from node.segmentation.regions_file import write_regions

        assert order.selection is not None
        begun = time.monotonic()
        cascade = self._loaded_cascade()
        seed = int(order.workflow_id[:8], 16)
        exam = segment_exam(order.selection, cascade, seed, self._device, self._progress)
        write_regions(exam, Path(folder))
        return {
            "brain_ml": round(exam.facts.brain_ml, 1),
            "agreement": {region: _rounded(asdict(each)) for region, each in exam.facts.agreement.items()},
            "cautions": [*order.selection.cautions, *exam.facts.cautions],
            "seconds": round(time.monotonic() - begun, 2),
        }

    def report(self, order: Order, folder: str, facts: dict[str, Any]) -> dict[str, Any]:
        """SEG and SR from the regions, read back and compared; then ``result.json``."""
        assert order.selection is not None
        begun = time.monotonic()
        volumes = self._write_objects(order, facts["cautions"], Path(folder))
        result = {
            "state": "reported",
            "study_instance_uid": order.study_instance_uid,
            "workflow_id": order.workflow_id,
            "created": order.created.isoformat(),
            "volumes_ml": volumes,
            "brain_ml": facts["brain_ml"],
            "agreement": facts["agreement"],
            "cautions": facts["cautions"],
            "selection": selection_as_dict(order.selection),
            "seconds": {"segment": facts["seconds"], "report": round(time.monotonic() - begun, 2)},
            "versions": self._versions(order),
        }
        _write_json(Path(folder) / "result.json", result)
        return result

    def _write_objects(self, order: Order, cautions: list[str], folder: Path) -> dict[str, float]:
        """``seg.dcm`` and ``sr.dcm``, each read back and compared before it gets its name; the volumes reported."""
        from node.segmentation.regions_file import read_masks
        from node.segmentation.seg_writer import verify_seg, write_seg
        from node.segmentation.volume import read_volume
        from node.sr_writer.measurements import measure
        from node.sr_writer.report import ReportContent, verify_report, write_report

        assert order.selection is not None
        identity = self._identity(order)
        source, masks = read_volume(order.selection.chosen[Contrast.T1C]), read_masks(folder)
        seg = write_seg(source, masks, identity)
        aside = folder / "seg.part"
        _write_dataset(seg, aside)
        verify_seg(aside, source, masks)
        header = pydicom.dcmread(source.sources[0][0], stop_before_pixels=True)
        report = write_report(seg, ReportContent(order.selection, header, tuple(cautions)), identity)
        _write_dataset(report, folder / "sr.part")
        verify_report(folder / "sr.part", seg, header)
        aside.replace(folder / "seg.dcm")
        (folder / "sr.part").replace(folder / "sr.dcm")
        return {each.concept.region: round(each.volume_ml, 3) for each in measure(seg)}

    def refuse(self, order: Order, folder: str, reason: str) -> None:
        """``result.json`` of a study that cannot be processed; no other result stays beside it."""
        for name in WORK_FILES:
            (Path(folder) / name).unlink(missing_ok=True)
        selection = None if order.selection is None else selection_as_dict(order.selection)
        facts = {"state": "refused", "reason": reason, "created": order.created.isoformat(), "selection": selection}
        identity = {"study_instance_uid": order.study_instance_uid or None, "workflow_id": order.workflow_id}
        _write_json(Path(folder) / "result.json", {**identity, **facts})

    def send(self, folder: str, name: str) -> list[InstanceDelivery]:
        """One attempt to store the results at destination ``name``."""
        from node.scu import send_instances

        found = [each for each in self._config.destinations() if each.name == name]
        if not found:
            raise DeliveryError(f"destination {name} is no longer in the config")
        files = [Path(folder) / file for file in RESULT_FILES]
        return send_instances(found[0], self._config.scp.ae_title, files, self._config.delivery.timeout_seconds)

    # ---- what the steps share ----------------------------------------------------------------------------------

    def _loaded_cascade(self) -> Cascade:
        if self._cascade is None:
            from node.segmentation.cascade import Cascade
            from node.segmentation.device import prepare_device
            from node.segmentation.packs import load_networks, read_card

            section = self._config.segmentation
            self._device = prepare_device(section.device, section.threads)
            networks = load_networks(
                read_card(section.model),
                self._config.models_folder,
                self._device,
                self._config.memory_bytes,
                section.precision,
            )
            self._cascade = Cascade(networks, section.mode, self._cascade_progress)
        return self._cascade

    def _cascade_progress(self, view: str, fraction: float) -> None:
        if self._progress:
            self._progress(f"segmenting: {view}", 0.32 + 0.64 * fraction)

    def _identity(self, order: Order) -> ResultIdentity:
        from node.segmentation.packs import read_card

        section = self._config.segmentation
        return ResultIdentity(
            workflow_id=order.workflow_id,
            created=order.created,
            software=read_card(section.model).software(mode=section.mode, precision=section.precision),
            node_version=__version__,
            station_name=self._config.node.station_name,
            device_serial_number=self._config.node.device_serial_number,
        )

    def _versions(self, order: Order) -> dict[str, str]:
        from importlib.metadata import version

        identity = self._identity(order)
        packages = ("torch", "SimpleITK", "highdicom", "dicom2nifti", "deepbet", "pydicom")
        model = {"model": f"{identity.software.name} {identity.software.version}", **identity.software.parameters}
        return {"glionode": __version__, **model, **{name: version(name) for name in packages}}


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}


def _write_dataset(dataset: pydicom.Dataset, file: Path) -> None:
    with file.open("wb") as stream:
        dataset.save_as(stream, enforce_file_format=True)
        stream.flush()
        os.fsync(stream.fileno())


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(file.name + ".part")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)
