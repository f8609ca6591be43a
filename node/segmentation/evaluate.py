"""Evaluation of a method on labelled cases in BraTS form: Dice, HD95, sensitivity, volume error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from node.methods.agreement import dice
from node.methods.card import Exposure
from node.methods.contract import REGIONS, Mask, MethodResult, Volume, region_of
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import LabelConvention, read_truth
from node.study import Contrast

_VOXEL_ML = 1e-3

_PAPER = {"whole_tumour": 0.905, "tumour_core": 0.838, "enhancing_tumour": 0.786}


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Scores of one region of one case.

    Attributes:
        dice: 1 if both masks are empty, 0 if only one is (BraTS convention).
        hd95_mm: 95th percentile of surface distances both ways, 1 mm voxels; None if a mask is empty.
        sensitivity: found share of the truth; None if the truth is empty.
        predicted_ml, true_ml: volumes.
        view_dice: the method's own agreement of its views (see ``agreement.Agreement``); None if it has one view alone.
    """

    dice: float
    hd95_mm: float | None
    sensitivity: float | None
    predicted_ml: float
    true_ml: float
    view_dice: float | None

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus true volume."""
        return self.predicted_ml - self.true_ml


@dataclass(frozen=True, slots=True)
class CaseScore:
    """Scores of one case, by region. ``exposure``: whether the networks were trained on it."""

    name: str
    exposure: Exposure
    regions: dict[str, RegionScore]


def evaluate(
    cases: Sequence[Path],
    run: Callable[[Mapping[Contrast, Volume]], MethodResult],
    exposure: Callable[[str], Exposure],
    convention: LabelConvention,
    progress: Callable[[str, float], None] | None = None,
) -> list[CaseScore]:
    """Segment every case and compare the result with the true label map.

    Args:
        run: segments the volumes of one case (`contract.Method.run`).
        exposure: whether the networks were trained on the case of a name (`card.Card.exposure`).
        convention: of the label maps, all cases together (`truth.convention_of`).

    Raises:
        ContentRefused: a label map holds a value that the convention does not know.
    """
    scores = []
    for number, folder in enumerate(cases):
        if progress:
            progress(folder.name, number / len(cases))
        result = run(read_case(folder).volumes_zyx)
        truth = read_truth(folder, convention)
        regions = {
            region: score(result.region_zyx(region), region_of(truth, region), result.view_dice(region))
            for region in REGIONS
            if region in result.probability_zyx
        }
        scores.append(CaseScore(folder.name, exposure(folder.name), regions))
    return scores


def score(predicted: Mask, truth: Mask, view_dice: float | None) -> RegionScore:
    """Compare two masks of 1 mm voxels."""
    both, true_voxels = int((predicted & truth).sum()), int(truth.sum())
    return RegionScore(
        dice=dice(predicted, truth),
        hd95_mm=hd95_mm(predicted, truth),
        sensitivity=both / true_voxels if true_voxels else None,
        predicted_ml=float(predicted.sum()) * _VOXEL_ML,
        true_ml=true_voxels * _VOXEL_ML,
        view_dice=view_dice,
    )


def hd95_mm(one: Mask, other: Mask) -> float | None:
    """95th percentile of each surface voxel's distance to the other surface, both ways; None if a mask is empty."""
    if not one.any() or not other.any():
        return None
    union = ndimage.find_objects((one | other).astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in union)
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (one, other)]
    distances = [
        ndimage.distance_transform_edt(~target)[source]
        for source, target in ((surfaces[0], surfaces[1]), (surfaces[1], surfaces[0]))
    ]
    return float(np.percentile(np.concatenate(distances), 95))


def summaries(scores: Sequence[CaseScore]) -> dict[Exposure, dict[str, dict[str, float | int | None]]]:
    """A summary for each exposure of which there are cases: cases seen in training never share a mean with others."""
    groups = {each: [case for case in scores if case.exposure is each] for each in Exposure}
    return {each: summary(cases) for each, cases in groups.items() if cases}


def summary(scores: Sequence[CaseScore]) -> dict[str, dict[str, float | int | None]]:
    """Means per region, over all cases and over those whose truth is not empty, with the counts of empty ones."""
    means: dict[str, dict[str, float | int | None]] = {}
    for region in REGIONS:
        every = [case.regions[region] for case in scores if region in case.regions]
        if not every:  # a region that the method does not give
            continue
        present = [each for each in every if each.true_ml > 0]
        means[region] = {
            "cases": len(every),
            "mean_dice": _mean([each.dice for each in every]),
            "mean_dice_truth_present": _mean([each.dice for each in present]),
            "truth_empty": len(every) - len(present),
            "truth_empty_answered_empty": sum(each.dice == 1.0 for each in every if each.true_ml == 0),
            "mean_hd95_mm": _mean([each.hd95_mm for each in every if each.hd95_mm is not None]),
            "mean_sensitivity": _mean([each.sensitivity for each in present if each.sensitivity is not None]),
            "mean_absolute_volume_error_ml": _mean([abs(each.volume_error_ml) for each in every]),
            "paper_mean_dice": _PAPER[region],
        }
    return means


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def write_json(scores: Sequence[CaseScore], settings: dict[str, str], file: Path) -> None:
    """Write settings, means and every score as JSON."""
    content = {"settings": settings, "summary": summaries(scores), "cases": [asdict(case) for case in scores]}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_markdown(scores: Sequence[CaseScore], settings: dict[str, str], file: Path) -> None:
    """Write, for each exposure, the scores and their means as Markdown tables."""
    lines = [", ".join(f"{key}: {value}" for key, value in settings.items())]
    for exposure, means in summaries(scores).items():
        cases = [case for case in scores if case.exposure is exposure]
        lines += ["", f"## Cases {exposure} ({len(cases)})", "", *_case_lines(cases), "", *_mean_lines(means)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _case_lines(scores: Sequence[CaseScore]) -> list[str]:
    lines = ["| case | region | Dice | HD95 / mm | sensitivity | volume / mL | true / mL | agreement of views |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for case in scores:
        for region, each in case.regions.items():
            cells = (_text(each.dice, 3), _text(each.hd95_mm, 1), _text(each.sensitivity, 3))
            volumes = (_text(each.predicted_ml, 2), _text(each.true_ml, 2), _text(each.view_dice, 2))
            lines.append("| " + " | ".join((case.name, region.replace("_", " "), *cells, *volumes)) + " |")
    return lines


def _mean_lines(means: dict[str, dict[str, float | int | None]]) -> list[str]:
    lines = ["| region | mean Dice | where truth is not empty | truth empty (answered so) | mean HD95 / mm | paper |"]
    lines += ["|---|---|---|---|---|---|"]
    for region, each in means.items():
        empty = f"{each['truth_empty']} ({each['truth_empty_answered_empty']})"
        cells = [_text(each[key], 3) for key in ("mean_dice", "mean_dice_truth_present")]
        rest = (empty, _text(each["mean_hd95_mm"], 1), _text(each["paper_mean_dice"], 3))
        lines.append("| " + " | ".join((region.replace("_", " "), *cells, *rest)) + " |")
    return lines


def _text(value: float | int | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
