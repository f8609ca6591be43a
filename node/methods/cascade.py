"""The cascade of Wang et al. 2017: whole tumour, then tumour core inside it, then enhancing tumour inside the core.

Each stage averages three networks, one per view (axial, sagittal, coronal). Arrays are ``[z, y, x]``, oriented so that
x points to the patient's left, y to posterior, z to superior (LPS), 1 mm, skull-stripped, background exactly 0.

Two modes:

``published``
    the authors' test code with its quirks: chunks of 19 slices in mini-batches of five, fresh noise for each chunk, and
    the last ten slices of a view overwritten with the output for noise if the last mini-batch was filled up. This mode
    is for verification; with equal random numbers it reproduces the original.
``slab``
    one slab per view, as the networks of the second and third stage were trained; no slice is lost. Background and
    padding are noise from a seeded generator, since the networks were trained with noise (zeros cost 0.15 in Dice, see
    docs/accuracy.md). Enhancing tumour is not reported if it is tiny, or if the three views do not agree on it: on
    tumours without enhancement the third stage still marks voxels, but each view marks others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.methods.agreement import DOUBTFUL_DICE, agreement_of, view_dice
from node.methods.contract import CORE, ENHANCING, OEDEMA, REGIONS, Mask, MethodResult, Volume, region_of
from node.methods.input_check import check_volumes
from node.methods.regions import Box, bounding_box, closing, keep_above, keep_inside, keep_two
from node.methods.views import (
    Network,
    Noise,
    fast_noise,
    legacy_noise,
    normalised,
    published_view,
    slab_view,
)
from node.study import Contrast

Mode = Literal["slab", "published"]
Progress = Callable[[str, float], None]

CHANNELS = (Contrast.FLAIR, Contrast.T1, Contrast.T1C, Contrast.T2)
STAGES = ("wt", "tc", "en")
VIEWS = ("axial", "sagittal", "coronal")

PUBLISHED_LEAST_ENHANCING_VOXELS = 30
LEAST_ENHANCING_VOXELS = 500
"""Half a millilitre, a sphere of 10 mm: below it enhancement is not measurable by RANO (Wen et al. 2010), and on
tumours without enhancement the third stage regularly marks some hundred voxels (a rule of Isensee et al. 2018)."""

_LEAST_WT = {"axial": (180, 160), "sagittal": (160, 180), "coronal": (160, 160)}
_LEAST_INNER = (96, 96)
_TRANSPOSE = {"axial": (0, 1, 2), "sagittal": (2, 0, 1), "coronal": (1, 0, 2)}
_INVERSE = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (1, 0, 2)}


@dataclass(frozen=True, slots=True)
class _StageOutput:
    """Output of one stage on its crop: mean and standard deviation over the views, and each view's own mask."""

    mean: Volume
    spread: Volume
    views: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class _Stages:
    """Outputs of the three stages; the second's box in the first's crop, and the third's box in the second's crop."""

    outputs: tuple[_StageOutput, _StageOutput, _StageOutput]
    box_tc: Box
    box_en: Box

    def placed(self, stage: int, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """An array on a stage's crop, placed on the first stage's crop of size ``shape``; 0 outside."""
        if stage == 0:
            return array
        full = np.zeros(shape, array.dtype)
        inner = full[self.box_tc]
        inner[self.box_en if stage == 2 else ...] = array
        return full


class Cascade:
    """The nine networks in one mode, ready to run on cases.

    Args:
        networks: ``wt_axial`` ... ``en_coronal``.
        mode: see the module's docstring.
        progress: called with the stage and the fraction done (0 to 1) after each view.
    """

    def __init__(self, networks: Mapping[str, Network], mode: Mode = "slab", progress: Progress | None = None) -> None:
        self._networks = networks
        is_slab = mode == "slab"
        self._view, self._noise = (slab_view, fast_noise) if is_slab else (published_view, legacy_noise)
        self._is_slab = is_slab
        self._progress = progress

    def _stage(self, stage: str, volumes: list[NDArray[Any]], noise: Noise) -> _StageOutput:
        """Run the three views of a stage and combine their probabilities of the target, [z, y, x]."""
        total = np.zeros(volumes[0].shape, np.float64)
        squares = np.zeros(volumes[0].shape, np.float64)
        views = []
        for number, view in enumerate(VIEWS):
            least = _LEAST_WT[view] if stage == "wt" else _LEAST_INNER
            turned = [volume.transpose(_TRANSPOSE[view]) for volume in volumes]
            output = self._view(self._networks[f"{stage}_{view}"], turned, least, noise)
            output = output.transpose(_INVERSE[view])
            total += output
            squares += np.square(output, dtype=np.float64)
            views.append(output > 0.5)
            if self._progress:
                self._progress(f"{stage} {view}", (STAGES.index(stage) * len(VIEWS) + number + 1) / 9)
        mean = total / len(VIEWS)
        spread = np.sqrt(np.maximum(squares / len(VIEWS) - mean**2, 0))
        return _StageOutput(mean.astype(np.float32), spread.astype(np.float32), tuple(views))

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> MethodResult:
        """Segment one case.

        Args:
            volumes_zyx: the four contrasts, equal shapes.
            seed: seed of the noise that fills background and padding; equal seeds give equal results.

        Raises:
            ContentRefused: a contrast is missing, empty, constant or not finite; shapes differ.
        """
        given = {contrast: volumes_zyx[contrast] for contrast in CHANNELS if contrast in volumes_zyx}
        check_volumes(given, CHANNELS, "the cascade")
        volumes = list(given.values())
        noise = self._noise(seed)
        box = bounding_box(volumes[0] != 0)
        brain = volumes[0][box] > 0
        stages = self._stages([normalised(volume[box], noise) for volume in volumes], brain, noise)
        label = _fused(stages, brain)
        found = label == ENHANCING
        dropped = int(found.sum()) if self._is_dropped(int(found.sum()), stages, brain) else 0
        if dropped:
            label[found] = CORE
        return _result(stages, (volumes[0].shape, box, brain), label, dropped)

    def _is_dropped(self, voxels: int, stages: _Stages, brain: Mask) -> bool:
        """True if the enhancing tumour found is too small or too doubtful to be reported."""
        if not self._is_slab:
            return voxels < PUBLISHED_LEAST_ENHANCING_VOXELS
        views = [stages.placed(2, view, brain.shape) & brain for view in stages.outputs[2].views]
        return voxels < LEAST_ENHANCING_VOXELS or view_dice(views) < DOUBTFUL_DICE

    def _stages(self, volumes: list[NDArray[Any]], brain: Mask, noise: Noise) -> _Stages:
        """Run the stages; each runs in the box around the region that the stage before it found."""
        first = self._stage("wt", volumes, noise)
        wt = closing((first.mean > 0.5) & brain)
        # empty whole tumour: like the original, use all positive FLAIR, which with noise outside is the whole crop
        box_tc = bounding_box(keep_above(wt)) if wt.any() else bounding_box(volumes[0] > 0)
        inner = [volume[box_tc] for volume in volumes]
        second = self._stage("tc", inner, noise)
        tc = closing((second.mean > 0.5) & brain[box_tc])
        box_en = bounding_box(keep_two(tc)) if tc.any() else bounding_box(np.ones_like(tc))
        third = self._stage("en", [volume[box_en] for volume in inner], noise)
        return _Stages((first, second, third), box_tc, box_en)


def _fused(stages: _Stages, brain: Mask) -> NDArray[np.uint8]:
    """The label map: small components removed, the core inside the whole tumour, enhancing tumour inside the core."""
    masks = [stages.placed(number, output.mean > 0.5, brain.shape) for number, output in enumerate(stages.outputs)]
    wt, tc, en = (mask & brain for mask in masks)
    tumour = closing(wt | tc | en)
    tumour = keep_above(tumour) if tumour.any() else tumour
    wt &= tumour
    core = keep_two(keep_inside(closing((tc | en) & tumour), wt))
    wt |= core
    en &= core
    label = np.zeros(brain.shape, np.uint8)
    label[wt], label[core], label[en] = OEDEMA, CORE, ENHANCING
    return label


def _result(
    stages: _Stages, frame: tuple[tuple[int, ...], Box, Mask], label: NDArray[np.uint8], dropped: int
) -> MethodResult:
    """The result on the grid of the input. ``frame``: its shape, the crop's box in it, and the brain in the crop."""
    shape, box, brain = frame

    def full(array: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(shape, array.dtype)
        out[box] = array
        return out

    probability, agreement = {}, {}
    spread = np.zeros(brain.shape, np.float32)
    label_full = full(label)
    for number, (region, output) in enumerate(zip(REGIONS, stages.outputs, strict=True)):
        mean = stages.placed(number, output.mean, brain.shape) * brain
        probability[region] = full(mean)
        np.maximum(spread, stages.placed(number, output.spread, brain.shape) * brain, out=spread)
        views = [stages.placed(number, view, brain.shape) & brain for view in output.views]
        agreement[region] = agreement_of(region_of(label, region), mean, views)
    return MethodResult(label_full, probability, full(spread), agreement, dropped)
