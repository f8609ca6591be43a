"""The cascade of Wang et al. 2017: whole tumour, then tumour core inside it, then enhancing tumour inside that.

Each stage averages three networks, one per view (axial, sagittal, coronal). Arrays are ``[z, y, x]``, oriented so that
x runs to the patient's left, y to posterior, z to superior (LPS), 1 mm, skull-stripped, background exactly 0.

Two modes:

``published``
    what the authors' test code does, its quirks included: chunks of 19 slices in mini-batches of five, fresh noise for
    each chunk, and the last ten slices of a view overwritten with the answer to noise whenever the last mini-batch was
    filled up. For proof; with equal random numbers it repeats the original.
``slab``
    one slab per view, as the networks of the second and third stage were trained; no slice is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from node.errors import ContentRefused
from node.segmentation.network import LOST_SLICES, MSNet
from node.segmentation.regions import Box, Mask, bounding_box, closing, keep_above, keep_inside, keep_two
from node.study import Contrast

Volume = NDArray[np.float32]
Noise = Callable[[tuple[int, ...]], NDArray[np.float64]]
Mode = Literal["slab", "published"]
Progress = Callable[[str, float], None]

CHANNELS = (Contrast.FLAIR, Contrast.T1, Contrast.T1C, Contrast.T2)
STAGES = ("wt", "tc", "en")
VIEWS = ("axial", "sagittal", "coronal")
MINIMUM_ENHANCING_VOXELS = 30
OEDEMA, CORE, ENHANCING = 2, 1, 4
"""BraTS labels of the label map."""

_TRANSPOSE = {"axial": (0, 1, 2), "sagittal": (2, 0, 1), "coronal": (1, 0, 2)}
_INVERSE = {"axial": (0, 1, 2), "sagittal": (1, 2, 0), "coronal": (1, 0, 2)}
_LEAST_WT = {"axial": (180, 160), "sagittal": (160, 180), "coronal": (160, 160)}
_LEAST_INNER = (96, 96)

_CHUNK, _KEPT, _BATCH = 19, 11, 5
_FEWEST_SLICES = 6


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """What the cascade says, on the grid of its input.

    Attributes:
        label_zyx: uint8, 0 background, 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour.
        probability_zyx: per region (``whole_tumour``, ``tumour_core``, ``enhancing_tumour``) the mean probability of
            the three views, float32; 0 where a stage did not look.
    """

    label_zyx: NDArray[np.uint8]
    probability_zyx: Mapping[str, Volume]

    def region_zyx(self, region: str) -> Mask:
        """One of the nested regions as a mask."""
        if region == "whole_tumour":
            return np.asarray(self.label_zyx > 0)
        if region == "tumour_core":
            return np.asarray((self.label_zyx == CORE) | (self.label_zyx == ENHANCING))
        return np.asarray(self.label_zyx == ENHANCING)


REGIONS = ("whole_tumour", "tumour_core", "enhancing_tumour")


def seeded_noise(seed: int) -> Noise:
    """Standard normal numbers; the legacy generator, so that a seed repeats what ``numpy.random.seed`` gave."""
    generator = np.random.RandomState(seed)
    return lambda shape: generator.normal(0, 1, size=shape)


def _checked(volumes_zyx: Mapping[Contrast, Volume]) -> list[Volume]:
    missing = [contrast for contrast in CHANNELS if contrast not in volumes_zyx]
    if missing:
        raise ContentRefused(f"the cascade needs FLAIR, T1, T1c and T2; missing: {', '.join(missing)}")
    shapes = {contrast.value: volumes_zyx[contrast].shape for contrast in CHANNELS}
    if len(set(shapes.values())) != 1 or len(shapes[Contrast.T1]) != 3:
        raise ContentRefused(f"the four volumes differ in shape: {shapes}")
    for contrast in CHANNELS:
        volume = volumes_zyx[contrast]
        if not np.isfinite(volume).all():
            raise ContentRefused(f"{contrast} holds values that are not finite (NaN or infinite)")
        if not (volume > 0).any() or volume[volume > 0].std() == 0:
            raise ContentRefused(f"{contrast} is empty or constant inside the brain")
    return [volumes_zyx[contrast] for contrast in CHANNELS]


def _normalised(volume: Volume, noise: Noise) -> NDArray[np.float64]:
    """Zero mean and unit deviation over positive voxels; background (exactly 0) becomes noise."""
    brain = volume[volume > 0].astype(np.float64)
    out: NDArray[np.float64] = (volume - brain.mean()) / brain.std()
    fill = noise(volume.shape)
    background = volume == 0
    out[background] = fill[background]
    return out


def _network_size(height: int, width: int, least: tuple[int, int]) -> tuple[int, int]:
    return max(-(-height // 4) * 4, least[0]), max(-(-width // 4) * 4, least[1])


def _pasted(canvas: NDArray[np.float64], view: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Slices ``first ..`` of ``view`` into ``canvas`` (noise), centred in plane; slices outside the view stay noise."""
    depth, height, width = view.shape
    start, stop = max(first, 0), min(first + canvas.shape[0], depth)
    top, left = canvas.shape[1] // 2 - height // 2, canvas.shape[2] // 2 - width // 2
    canvas[start - first : stop - first, top : top + height, left : left + width] = view[start:stop]
    return canvas


def _target(net: MSNet, chunks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Probability of the target, [N, D-8, H, W], for chunks of shape [4, D, H, W] sharing their batch statistics."""
    batch = torch.from_numpy(np.stack(chunks)).permute(0, 2, 3, 4, 1)
    logits = net.logits(batch)
    return torch.sigmoid(logits[..., 1] - logits[..., 0]).cpu().numpy()


def _published_view(net: MSNet, views: list[NDArray[np.float64]], least: tuple[int, int], noise: Noise) -> Volume:
    depth, height, width = views[0].shape
    if depth < _FEWEST_SLICES:
        raise ContentRefused(f"a region of {depth} slices is too thin for mode published (least {_FEWEST_SLICES})")
    size = _network_size(height, width, least)
    half = _KEPT // 2
    count = -(-depth // _KEPT)
    centres = [min(half + _KEPT * k, depth - half) for k in range(-(-count // _BATCH) * _BATCH)]
    shape = (_CHUNK, *size)
    first = [centre - _CHUNK // 2 for centre in centres]
    chunks = [
        np.stack([_pasted(noise(shape), view, first[k]).astype(np.float32) for view in views]) for k in range(count)
    ]
    # the last mini-batch is completed with chunks of pure noise, whose answers are written, too (a quirk)
    chunks += [noise((len(views), *shape)).astype(np.float32) for _ in range(len(centres) - count)]
    out = np.zeros((depth, height, width), np.float32)
    top, left = size[0] // 2 - height // 2, size[1] // 2 - width // 2
    for start in range(0, len(chunks), _BATCH):
        answers = _target(net, chunks[start : start + _BATCH])
        for answer, centre in zip(answers, centres[start : start + _BATCH], strict=True):
            low, high = max(centre - half, 0), min(centre + half + 1, depth)
            window = answer[low - (centre - half) : high - (centre - half), top : top + height, left : left + width]
            out[low:high] = window
    return out


def _slab_view(net: MSNet, views: list[NDArray[np.float64]], least: tuple[int, int], noise: Noise) -> Volume:
    depth, height, width = views[0].shape
    size = _network_size(height, width, least)
    shape = (depth + LOST_SLICES, *size)
    slab = np.stack([_pasted(noise(shape), view, -LOST_SLICES // 2).astype(np.float32) for view in views])
    top, left = size[0] // 2 - height // 2, size[1] // 2 - width // 2
    return _target(net, [slab])[0, :, top : top + height, left : left + width]


class Cascade:
    """The nine networks and a mode, ready to run on cases.

    Args:
        networks: ``wt_axial`` ... ``en_coronal``.
        mode: see the module's text.
        progress: called with the stage and the fraction done (0 to 1) after each view.
    """

    def __init__(self, networks: Mapping[str, MSNet], mode: Mode = "slab", progress: Progress | None = None) -> None:
        self._networks = networks
        self._view = _slab_view if mode == "slab" else _published_view
        self._progress = progress

    def _stage(self, stage: str, volumes: list[NDArray[np.float64]], noise: Noise) -> Volume:
        """Mean over the views of the target's probability, [z, y, x]."""
        total = np.zeros(volumes[0].shape, np.float64)
        for number, view in enumerate(VIEWS):
            least = _LEAST_WT[view] if stage == "wt" else _LEAST_INNER
            turned = [volume.transpose(_TRANSPOSE[view]) for volume in volumes]
            answer = self._view(self._networks[f"{stage}_{view}"], turned, least, noise)
            total += answer.transpose(_INVERSE[view])
            if self._progress:
                self._progress(f"{stage} {view}", (STAGES.index(stage) * len(VIEWS) + number + 1) / 9)
        return (total / len(VIEWS)).astype(np.float32)

    def run(self, volumes_zyx: Mapping[Contrast, Volume], seed: int = 0) -> CascadeResult:
        """Segment one case.

        Args:
            volumes_zyx: the four contrasts, equal shapes.
            seed: of the noise that fills background and padding; equal seeds give equal results.

        Raises:
            ContentRefused: a contrast is missing, empty, constant or not finite; shapes differ.
        """
        volumes = _checked(volumes_zyx)
        noise = seeded_noise(seed)
        shape = volumes[0].shape
        if not volumes[0].any():
            raise ContentRefused("FLAIR is empty")
        box = bounding_box(volumes[0] != 0)
        brain = volumes[0][box] > 0
        normalised = [_normalised(volume[box], noise) for volume in volumes]
        probabilities, boxes = self._stages(normalised, brain, noise)
        label = _fused(probabilities, boxes, brain)
        full_label = np.zeros(shape, np.uint8)
        full_label[box] = label
        maps = {}
        for region, probability in zip(REGIONS, _placed(probabilities, boxes, brain.shape), strict=True):
            maps[region] = np.zeros(shape, np.float32)
            maps[region][box] = probability * brain
        return CascadeResult(full_label, maps)

    def _stages(
        self, volumes: list[NDArray[np.float64]], brain: Mask, noise: Noise
    ) -> tuple[tuple[Volume, Volume, Volume], tuple[Box, Box]]:
        """The three probabilities, each on its own box, and the boxes of the second (in the first) and third."""
        p_wt = self._stage("wt", volumes, noise)
        wt = (p_wt > 0.5) & brain
        # an empty answer: the original looks at all positive FLAIR, which with noise outside is the whole crop
        box_tc = bounding_box(keep_above(closing(wt))) if closing(wt).any() else bounding_box(volumes[0] > 0)
        inner = [volume[box_tc] for volume in volumes]
        p_tc = self._stage("tc", inner, noise)
        tc = (p_tc > 0.5) & brain[box_tc]
        whole: Box = (slice(0, tc.shape[0]), slice(0, tc.shape[1]), slice(0, tc.shape[2]))
        box_en = bounding_box(keep_two(closing(tc))) if closing(tc).any() else whole
        p_en = self._stage("en", [volume[box_en] for volume in inner], noise)
        return (p_wt, p_tc, p_en), (box_tc, box_en)


def _placed(
    probabilities: tuple[Volume, Volume, Volume], boxes: tuple[Box, Box], shape: tuple[int, ...]
) -> Iterator[Volume]:
    """The three probabilities, each on the first stage's grid."""
    p_wt, p_tc, p_en = probabilities
    box_tc, box_en = boxes
    tc, en = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    tc[box_tc] = p_tc
    en[box_tc][box_en] = p_en
    yield from (p_wt, tc, en)


def _fused(probabilities: tuple[Volume, Volume, Volume], boxes: tuple[Box, Box], brain: Mask) -> NDArray[np.uint8]:
    """The label map from the three stages: small parts removed, the core inside the tumour, enhancement in the core."""
    wt, tc, en = ((p > 0.5) & brain for p in _placed(probabilities, boxes, brain.shape))
    tumour = closing(wt | tc | en)
    tumour = keep_above(tumour) if tumour.any() else tumour
    wt &= tumour
    core = keep_inside(closing((tc | en) & tumour), wt)
    core = keep_two(core)
    wt = wt | core
    en &= core
    if en.sum() < MINIMUM_ENHANCING_VOXELS:
        en = np.zeros_like(en)
    label = np.zeros(brain.shape, np.uint8)
    label[wt], label[core], label[en] = OEDEMA, CORE, ENHANCING
    return label
