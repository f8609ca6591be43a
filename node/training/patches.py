"""One step's input: a patch of a case, with contrasts left out and disturbed as raw exams are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.methods.contract import CORE, ENHANCING
from node.methods.dropout_unet import CHANNELS
from node.study import Contrast
from node.training import disturbances
from node.training.cases import TrainingCase
from node.training.recipe import ContrastSection, Recipe

_T1C = CHANNELS.index(Contrast.T1C)


@dataclass(frozen=True, slots=True)
class Patch:
    """``x`` [4, D, H, W] and ``present`` [4] as `dropout_unet.DropoutUNet` takes them; ``regions`` [3, D, H, W]."""

    x: Tensor
    present: Tensor
    regions: Tensor


def patch_of(cases: Sequence[TrainingCase], recipe: Recipe, random: np.random.Generator) -> Patch:
    """A random patch of a random case, disturbed as the recipe says; all chance comes from ``random``."""
    case = cases[int(random.integers(len(cases)))]
    size, margin = np.array(recipe.patches.size_zyx), recipe.patches.margin
    start = _start(case, recipe, random, size) - margin
    values, labels = _window(case, start, size + 2 * margin)
    if random.random() < recipe.augmentation.carve:
        _carve(cases, case, start, (values, labels), random)
    x, regions = torch.from_numpy(values), torch.from_numpy(_regions(labels))
    x, regions = disturbances.turned(x, regions, margin, recipe.augmentation, random)
    if random.random() < 0.5:  # left and right: x is the last axis
        x, regions = x.flip(-1), regions.flip(-1)
    present = _present(recipe.contrasts, random)
    out = torch.zeros_like(x)
    for channel in np.flatnonzero(present):
        deviation = float(case.deviations[channel])
        out[channel] = disturbances.normalised(x[channel], deviation, recipe.augmentation, random)
    return Patch(out, torch.from_numpy(present), regions)


def _present(section: ContrastSection, random: np.random.Generator) -> NDArray[np.float32]:
    draw = random.random()
    kept = random.random(len(CHANNELS)) >= section.drop
    if draw < section.all_present:
        kept[:] = True
    elif draw < section.all_present + section.t1c_alone:
        kept[:] = False
    kept[_T1C] = True
    return kept.astype(np.float32)


def _start(case: TrainingCase, recipe: Recipe, random: np.random.Generator, size: NDArray[np.int_]) -> NDArray[np.int_]:
    """First voxel of the patch: its centre is a voxel of core, tumour or brain, moved by up to a quarter."""
    draw, kind = random.random(), "brain"
    if draw < recipe.patches.core_centre and len(case.centres["core"]):
        kind = "core"
    elif draw < recipe.patches.core_centre + recipe.patches.tumour_centre and len(case.centres["tumour"]):
        kind = "tumour"
    places = case.centres[kind]
    centre = places[int(random.integers(len(places)))].astype(int)
    moved = random.integers(-(size // 4), size // 4 + 1)
    start: NDArray[np.int_] = centre + moved - size // 2
    return start


def _window(
    case: TrainingCase, start: NDArray[np.int_], size: NDArray[np.int_]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The part of a case from ``start``, zeros where it reaches over the case's edge."""
    values, labels = np.zeros((len(CHANNELS), *size), np.float32), np.zeros(tuple(size), np.uint8)
    source, target = _overlap(start, size, case.labels_zyx.shape)
    values[(slice(None), *target)] = case.values[(slice(None), *source)]
    labels[target] = case.labels_zyx[source]
    return values, labels


def _overlap(
    start: NDArray[np.int_], size: NDArray[np.int_], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low, high = np.maximum(start, 0), np.minimum(start + size, shape)
    high = np.maximum(low, high)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    return source, target


def _carve(
    cases: Sequence[TrainingCase],
    case: TrainingCase,
    start: NDArray[np.int_],
    window: tuple[NDArray[np.float32], NDArray[np.uint8]],
    random: np.random.Generator,
) -> None:
    """Put another case's tumour into ``window``, at its own place, in the head's own mean and deviation."""
    donor = cases[int(random.integers(len(cases)))]
    if donor is case or donor.labels_zyx.shape != case.labels_zyx.shape:
        return
    values, labels = window
    source, target = _overlap(start, np.array(labels.shape), donor.labels_zyx.shape)
    inside = (values[_T1C][target] > 0) & (donor.values[_T1C][source] > 0)
    mask = donor.carved_zyx[source] & inside
    labels[target][mask] = donor.labels_zyx[source][mask]
    for channel in range(len(CHANNELS)):
        ratio = case.deviations[channel] / donor.deviations[channel]
        taken = donor.values[channel][source][mask].astype(np.float32)
        values[channel][target][mask] = np.maximum((taken - 1) * ratio + 1, 0)


def _regions(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    enhancing = labels == ENHANCING
    return np.stack([labels > 0, enhancing | (labels == CORE), enhancing]).astype(np.float32)
