"""Segmentation of one exam: from four series to three nested regions on the grid of the T1c series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from node.errors import GeometryRefused
from node.methods.contract import REGIONS, Method, MethodResult
from node.segmentation import grid as grids
from node.segmentation.align import align_rigid
from node.segmentation.brain import brain_mask
from node.segmentation.exam import ExamFacts, ExamSegmentation
from node.segmentation.lesions import lesion_cautions
from node.segmentation.plausibility import check_plausible
from node.segmentation.surgery import ExamState, SurgeryTold, exam_state, resection_cavity
from node.segmentation.volume import SourceVolume
from node.study import Contrast

LEAST_COVERAGE = 0.80
"""A series that covers a smaller share of the brain is refused."""

CAUTIOUS_COVERAGE = 0.97
"""A series that covers a smaller share of the brain gets a caution."""

_VOXEL_ML = grids.SPACING_MM**3 / 1000

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The exam on the common grid: skull-stripped volumes as a method needs them."""

    grid: sitk.Image
    volumes_zyx: dict[Contrast, NDArray[np.float32]]
    brain_zyx: NDArray[np.bool_]
    cautions: tuple[str, ...]
    state: ExamState = field(default_factory=ExamState)


def segment_exam(
    volumes: Mapping[Contrast, SourceVolume],
    method: Method,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    told: SurgeryTold | None = None,
) -> ExamSegmentation:
    """Segment one exam: register on one 1 mm grid, mask the brain, run the method, map to the T1c grid.

    Args:
        volumes: the exam's series as `exam_reader.ExamReader` reads them.
        seed: seed of the method (see ``contract.Method.run``).
        progress: called with the current step and the fraction done.
        told: what the headers say of surgery; None: nothing.

    Raises:
        RefusedError: geometry or content of a series do not allow a segmentation; the text names series and reason.
    """
    report = progress or (lambda _text, _fraction: None)
    prepared = _prepare(volumes, device, report, told or SurgeryTold())
    result, state = _without_cavity(method.run(prepared.volumes_zyx, seed), prepared)
    report("back to the source grid", 0.97)
    source = volumes[Contrast.T1C]
    return ExamSegmentation(
        source=source,
        masks_zyx=_on_source(result, prepared, source),
        spread_zyx=grids.to_source(result.spread_zyx, prepared.grid, source.image),
        facts=ExamFacts(
            brain_ml=float(prepared.brain_zyx.sum()) * _VOXEL_ML,
            agreement=dict(result.agreement),
            cautions=(*prepared.cautions, *state.cautions(), *_method_cautions(result)),
            state=state,
        ),
    )


def _without_cavity(result: MethodResult, prepared: _Prepared) -> tuple[MethodResult, ExamState]:
    """The result of an exam after surgery with the resection cavity in no region; that of any other exam unchanged."""
    state = prepared.state
    cavity = resection_cavity(prepared.volumes_zyx, result.label_zyx) if state.is_postoperative else None
    if cavity is None:
        return result, state
    label = np.where(cavity, np.uint8(0), result.label_zyx)
    return replace(result, label_zyx=label), replace(state, cavity_ml=float(cavity.sum()) * _VOXEL_ML)


def _method_cautions(result: MethodResult) -> list[str]:
    """Cautions from the uncertainty of the method itself, in sentences."""
    cautions = [
        f"{region.replace('_', ' ')}: the three views agree poorly (Dice {agreement.view_dice:.2f}); check the outline"
        for region, agreement in result.agreement.items()
        if agreement.is_doubtful and result.region_zyx(region).any()
    ]
    if result.dropped_enhancing_voxels:
        dropped_ml = result.dropped_enhancing_voxels * _VOXEL_ML
        cautions.append(
            f"{dropped_ml:.2f} mL of possible enhancement was too little or too doubtful to report; please look"
        )
    return [*cautions, *lesion_cautions(result.label_zyx)]


def _prepare(volumes: Mapping[Contrast, SourceVolume], device: str, report: Progress, told: SurgeryTold) -> _Prepared:
    reference = volumes[Contrast.T1C].image
    grid = grids.common_grid(reference)
    fixed = grids.to_grid(reference, grid)
    images, seen = {Contrast.T1C: fixed}, {Contrast.T1C: grids.field_of_view(reference, grid)}
    others = [contrast for contrast in volumes if contrast is not Contrast.T1C]
    for number, contrast in enumerate(others):
        report(f"registering {contrast} to T1c", 0.08 + 0.06 * number)
        image = volumes[contrast].image
        transform = align_rigid(fixed, image, volumes[contrast].series.label)
        images[contrast] = grids.to_grid(image, grid, transform)
        seen[contrast] = grids.field_of_view(image, grid, transform)
    report("brain mask", 0.26)
    brain = brain_mask(fixed, volumes[Contrast.T1C].series.label, device)
    state = exam_state(told, sitk.GetArrayViewFromImage(fixed), brain)
    cautions = tuple(_coverage(volumes, seen, brain))
    report("checking what the images show", 0.30)
    names = {contrast: volume.series.label for contrast, volume in volumes.items()}
    aligned = {contrast: sitk.GetArrayFromImage(image) for contrast, image in images.items()}
    cautions = (*cautions, *check_plausible(aligned, brain, seen, names))
    arrays = {contrast: _stripped(image, brain & seen[contrast]) for contrast, image in images.items()}
    return _Prepared(grid, arrays, brain, cautions, state)


def _coverage(
    volumes: Mapping[Contrast, SourceVolume], seen: Mapping[Contrast, NDArray[np.bool_]], brain: NDArray[np.bool_]
) -> list[str]:
    cautions = []
    for contrast, mask in seen.items():
        fraction = float((mask & brain).sum() / brain.sum())
        label = volumes[contrast].series.label
        if fraction < LEAST_COVERAGE:
            raise GeometryRefused(f"{label} ({contrast}) covers only {fraction:.0%} of the brain")
        if fraction < CAUTIOUS_COVERAGE:
            cautions.append(f"{label} ({contrast}) covers {fraction:.0%} of the brain seen on T1c")
    return cautions


def _stripped(image: sitk.Image, brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``image`` with positive brain voxels and all others exactly 0, as the networks' normalisation expects."""
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    inside = array[brain]
    least = np.float32(inside.min()) if inside.size else np.float32(0)
    positive = array - min(least, np.float32(0)) + np.float32(1e-3)
    stripped: NDArray[np.float32] = np.where(brain, positive, np.float32(0))
    return stripped


def _decided(result: MethodResult, region: str) -> NDArray[np.float32]:
    """Probability of ``region``, adjusted so that a threshold of 0.5 gives the final label map.

    The label map differs from the thresholded probability where morphological rules changed it.
    """
    probability, mask = result.probability_zyx[region], result.region_zyx(region)
    above, below = np.maximum(probability, np.float32(0.51)), np.minimum(probability, np.float32(0.49))
    return np.where(mask, above, below)


def _on_source(result: MethodResult, prepared: _Prepared, source: SourceVolume) -> dict[str, NDArray[np.bool_]]:
    """Resample probabilities, not labels, to the source grid, then threshold them.

    An outer region is made at least as probable as the regions inside it. So the regions stay nested at every point
    between voxels, and interpolation does not erode an inner region whose surroundings are less certain.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    inner = np.zeros(result.label_zyx.shape, np.float32)
    given = [region for region in REGIONS if region in result.probability_zyx]
    for region in reversed(given):
        inner = np.maximum(_decided(result, region), inner)
        masks[region] = grids.to_source(inner, prepared.grid, source.image) > 0.5
    return {region: masks[region] for region in given}
