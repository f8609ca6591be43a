"""The files of a study's work folder: ``seg.dcm``, ``sr.dcm`` and ``result.json``, or the refusal.

Each file is written under another name and then renamed; DICOM files are read back and compared before that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom

from node import __version__
from node.config import Config
from node.dicom.aside_file import written_aside
from node.dicom.identity import checked_identities
from node.dicom.uids import derived_uid
from node.processing.deleted_results import SOURCE, source_digest
from node.processing.input_check import any_header, check_inputs
from node.processing.request import ProcessingRequest
from node.processing.step_records import Segmentation
from node.series.explain import selection_as_dict, short_lines
from node.series.values import DICOM_UNREADABLE
from node.study import RESULT_FILES, Contrast, ResultIdentity, Software

REFUSAL_FILE = "refusal.dcm"
_REGION_FILES = ("label_map.nii.gz", "disagreement.nii.gz", "regions.npz")
WORK_FILES = (*RESULT_FILES, REFUSAL_FILE, *_REGION_FILES)


def write_results(config: Config, request: ProcessingRequest, folder: Path, segmented: Segmentation) -> dict[str, Any]:
    """SEG and SR from the regions in ``folder``, then ``result.json``; returns its content.

    Raises:
        VerificationError: a file that was read back differs from the content it was written from.
        InstanceRefused: the source does not say for certain whose images they are.
        InputsChanged: instances were corrected or withdrawn since the request was made, even while this was written.
    """
    assert request.selection is not None
    begun = time.monotonic()
    replaced = _replaced(folder.parent, request)
    doubts = [*_replacement(request, replaced), *segmented.cautions]
    source = source_digest(request.selection)  # read before the inputs are checked
    volumes, cautions = _write_objects(config, request, replace(segmented, cautions=doubts), folder)
    result = {
        "state": "reported",
        "study_instance_uid": request.study_instance_uid,
        "workflow_id": request.workflow_id,
        "created": request.created.isoformat(),
        "files": list(RESULT_FILES),
        "sha256": {name: _sha256(folder / name) for name in RESULT_FILES},
        SOURCE: source,
        "replaces": replaced["workflow_id"] if replaced else None,
        "volumes_ml": volumes,
        "brain_ml": segmented.brain_ml,
        "agreement": segmented.agreement,
        "cautions": cautions,
        "surgery": segmented.surgery,
        "selection": selection_as_dict(request.selection),
        "seconds": {"segment": segmented.seconds, "report": round(time.monotonic() - begun, 2)},
        "versions": _versions(config, request),
    }
    _write_json(folder / "result.json", result)
    return result


def earlier_segmentation(request: ProcessingRequest, folder: Path, told: Sequence[str] = ()) -> Segmentation | None:
    """The regions of the earlier request ``regions_of``, copied into ``folder``; None if its results are gone.

    None also if the headers have since ``told`` of surgery: regions of an exam after surgery are made otherwise.

    Raises:
        OSError: a file cannot be copied.
    """
    if not request.regions_of or request.selection is None:
        return None
    source = folder.parent / request.regions_of
    try:
        result: dict[str, Any] = json.loads((source / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    surgery: dict[str, Any] = result.get("surgery", {})
    if any(each not in surgery.get("evidence", ()) for each in told):
        return None
    if result["state"] != "reported" or not all((source / name).is_file() for name in _REGION_FILES):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for name in _REGION_FILES:
        aside = folder / f".part.{name}"
        shutil.copyfile(source / name, aside)
        aside.replace(folder / name)
    cautions = result["cautions"][1:] if result["replaces"] else result["cautions"]
    of_selection = result["selection"]["cautions"]
    return Segmentation(
        brain_ml=result["brain_ml"],
        agreement=result["agreement"],
        cautions=[*request.selection.cautions, *(each for each in cautions if each not in of_selection)],
        seconds=result["seconds"]["segment"],
        surgery=surgery,
    )


def existing_results(request: ProcessingRequest, folder: Path) -> dict[str, Any] | None:
    """The content of ``result.json`` if ``folder`` holds the complete results of ``request``; None: it does not.

    Existing results are not made again: their UIDs depend on the request alone, so another version or station name of
    the node would give other bytes under the same UIDs.

    Raises:
        OSError: a result file exists and cannot be read now.
    """
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
        if (result["state"], result["workflow_id"]) != ("reported", request.workflow_id):
            return None
        for name in RESULT_FILES:
            uid = pydicom.dcmread(folder / name).SOPInstanceUID
            sha256 = result.get("sha256", {}).get(name)
            if uid != derived_uid(request.workflow_id, Path(name).stem) or sha256 not in (None, _sha256(folder / name)):
                return None
    except FileNotFoundError:
        return None
    except DICOM_UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk; pydicom's have no number
            raise
        return None
    return result


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_objects(
    config: Config, request: ProcessingRequest, segmented: Segmentation, folder: Path
) -> tuple[dict[str, float], list[str]]:
    """Write ``seg.dcm`` and ``sr.dcm``, each read back and compared before it is renamed.

    Returns volumes in ml, and the cautions: the segmentation's, and what was changed in values that are copied from the
    source.
    """
    from node.segmentation.regions_file import read_masks
    from node.segmentation.seg_writer import verify_seg, write_seg
    from node.segmentation.volume import read_volume
    from node.sr_writer.measurements import measure
    from node.sr_writer.report import ReportContent, verify_report, write_report

    assert request.selection is not None
    identity = _identity(config, request, _method(config, request))
    source, masks = read_volume(request.selection.chosen[Contrast.T1C]), read_masks(folder)
    files = dict.fromkeys(path for path, _ in source.sources)
    checked = checked_identities(pydicom.dcmread(path, stop_before_pixels=True) for path in files)
    seg = write_seg(source, masks, identity)
    doubts = segmented.cautions
    header, cautions = checked.header, [*doubts, *(text for text in checked.cautions if text not in doubts)]
    content = ReportContent(request.selection, header, tuple(cautions), short_lines(request.selection))
    told = segmented.surgery
    content = replace(content, state_line=told.get("sentence", ""), is_postoperative=bool(told.get("evidence")))
    replaced = _replaced(folder.parent, request)
    if replaced is not None and _is_same_choice(request, replaced):
        content = replace(content, predecessor=replaced["workflow_id"])
    report = write_report(seg, content, identity)
    # both are right before one is replaced; the SEG, to which the report refers, is replaced first
    with written_aside(folder / "sr.dcm") as sr_file, written_aside(folder / "seg.dcm") as seg_file:
        _write_dataset(seg, seg_file)
        verify_seg(seg_file, source, masks)
        _write_dataset(report, sr_file)
        verify_report(sr_file, seg, header)
        check_inputs(request)  # as late as possible: what was read may have been corrected while it was read
    return {each.concept.region: round(each.volume_ml, 3) for each in measure(seg)}, cautions


def write_refused(config: Config, request: ProcessingRequest, folder: Path, reason: str) -> list[str]:
    """Write ``result.json`` of a study that cannot be processed, and delete its other results.

    Returns the files to be sent: ``refusal.dcm`` if ``delivery.send_refusals`` is set, a destination is configured, and
    an instance of the study can be read.
    """
    for name in WORK_FILES:
        (folder / name).unlink(missing_ok=True)
    files = _write_refusal(config, request, folder, reason)
    considered = request.selection or request.considered
    selection = None if considered is None else selection_as_dict(considered)
    facts = {"state": "refused", "reason": reason, "created": request.created.isoformat(), "selection": selection}
    identity = {"study_instance_uid": request.study_instance_uid or None, "workflow_id": request.workflow_id}
    _write_json(folder / "result.json", {**identity, **facts, "files": files})
    return files


def _write_refusal(config: Config, request: ProcessingRequest, folder: Path, reason: str) -> list[str]:
    from node.sr_writer.refusal import verify_refusal, write_refusal

    is_wanted = config.delivery.send_refusals and config.destination
    header = any_header(request) if is_wanted else None
    if header is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(config, request, Software("glionode", __version__, "Selection of series"))
    with written_aside(folder / REFUSAL_FILE) as aside:
        _write_dataset(write_refusal(header, request.study_instance_uid, reason, identity), aside)
        verify_refusal(aside, header, reason)
    return [REFUSAL_FILE]


def _replaced(work_folder: Path, request: ProcessingRequest) -> dict[str, Any] | None:
    """The ``result.json`` of the latest earlier request of the study that has a report; None: there is none."""
    for workflow_id in request.earlier:
        try:
            earlier: dict[str, Any] = json.loads((work_folder / workflow_id / "result.json").read_text("utf-8"))
        except FileNotFoundError:
            continue
        if earlier["state"] == "reported":
            return earlier
    return None


def _replacement(request: ProcessingRequest, earlier: dict[str, Any] | None) -> list[str]:
    """A list with the caution that names the replaced report; empty if no report is replaced."""
    if earlier is None or request.selection is None:
        return []
    uid, moment = derived_uid(earlier["workflow_id"], "sr"), datetime.fromisoformat(earlier["created"])
    since = "of the same series, made anew since"
    if request.versions:
        since = "instances were corrected since"
    elif not _is_same_choice(request, earlier):
        since = "other series were chosen since"
    return [f"replaces the report of {moment:%Y-%m-%d %H:%M} ({uid}): {since}"]


def _is_same_choice(request: ProcessingRequest, earlier: dict[str, Any]) -> bool:
    """True if the earlier report is of the same series; its content is then part of the new one (PS3.3 C.17.2)."""
    assert request.selection is not None
    return bool(earlier["selection"].get("chosen") == selection_as_dict(request.selection)["chosen"])


def _method(config: Config, request: ProcessingRequest) -> Software:
    from node.methods.card import read_card, subset_name

    section, card = config.segmentation, read_card(request.model, config.models_folder)
    if card.kind == "cascade":
        return card.software(mode=section.mode, precision=section.precision)
    contrasts = subset_name(request.selection.chosen if request.selection else ())
    return card.software(contrasts=contrasts)


def _identity(config: Config, request: ProcessingRequest, software: Software) -> ResultIdentity:
    return ResultIdentity(
        workflow_id=request.workflow_id,
        created=request.created,
        software=software,
        node_version=__version__,
        station_name=config.node.station_name,
        device_serial_number=config.node.device_serial_number,
    )


def _versions(config: Config, request: ProcessingRequest) -> dict[str, str]:
    from importlib.metadata import version

    identity = _identity(config, request, _method(config, request))
    packages = ("torch", "SimpleITK", "highdicom", "dicom2nifti", "deepbet", "pydicom")
    model = {"model": f"{identity.software.name} {identity.software.version}", **identity.software.parameters}
    return {"glionode": __version__, **model, **{name: version(name) for name in packages}}


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """Each number rounded to three decimals."""
    return {name: round(number, 3) for name, number in numbers.items()}


def _write_dataset(dataset: pydicom.Dataset, file: Path) -> None:
    with file.open("wb") as stream:
        dataset.save_as(stream, enforce_file_format=True)
        stream.flush()
        os.fsync(stream.fileno())


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(file) as aside, aside.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
