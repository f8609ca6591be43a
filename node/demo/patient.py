"""A synthetic patient with a glioblastoma-like tumour whose label map is known exactly.

Tissue signals are relative to normal white matter; the tumour's signals follow the medians of real glioma examinations
(T1, T1c, T2, FLAIR), so that published networks find the tumour. Arrays are ``zyx``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.demo.anatomy import (
    GRID_ORIGIN_LPS_MM,
    GRID_SHAPE_ZYX,
    HEAD_SCALE,
    TUMOUR_CENTRE_MM,
    Field,
    Layer,
    ellipsoid,
    head,
    inside,
    intracranial_surface,
    pose,
    smooth_noise,
    template,
    vessels,
    warped,
)
from node.study import Contrast

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # the labels of BraTS
TRUE_VOLUME_ML = {NECROSIS: 7.0, OEDEMA: 45.0, ENHANCING: 10.0}
CORE_RADII_MM = (14.0, 19.0, 15.0)

TEMPLATE_WHITE, TEMPLATE_GREY = 223.0, 164.0  # medians of the template's T1 in pure tissue
WHITE_SIGNAL = {Contrast.T1: 520.0, Contrast.T1C: 560.0, Contrast.T2: 330.0, Contrast.FLAIR: 400.0}
SIGNAL = {  # relative to white matter: T1, T1c, T2, FLAIR
    "muscle": (0.62, 0.72, 0.55, 0.60),
    "fat": (1.45, 1.40, 1.45, 1.00),
    "skin": (0.75, 0.85, 0.70, 0.75),
    "bone": (0.10, 0.10, 0.10, 0.10),
    "marrow": (0.90, 0.95, 0.75, 0.60),
    "mucosa": (0.60, 1.35, 2.30, 1.60),
    "air": (0.00, 0.00, 0.00, 0.00),
    "vitreous": (0.30, 0.31, 3.10, 0.35),
    "dura": (0.55, 0.95, 0.70, 0.70),
    "fluid": (0.34, 0.35, 3.00, 0.28),
    "grey": (0.74, 0.78, 1.30, 1.15),
    "white": (1.00, 1.00, 1.00, 1.00),
    "choroid": (0.55, 1.45, 2.20, 0.85),
    "vein": (0.55, 1.70, 0.45, 0.50),
    "oedema": (0.82, 0.82, 2.00, 1.65),
    "enhancing": (0.84, 1.48, 2.10, 1.65),
    "necrosis": (0.62, 0.62, 2.75, 1.45),
}
TEXTURE_GAIN = (1.0, 1.0, -0.6, -0.4)  # how far each contrast follows the template's own T1 texture
BIAS_AMPLITUDE = 0.06
TEXTURE_AMPLITUDE = 0.025


@dataclass(frozen=True, slots=True)
class SyntheticPatient:
    """A head on a 1 mm LPS grid, without noise, with its true label map.

    ``contrast_zyx``: float32 signal of each contrast, shape (z, y, x), air is 0.
    ``label_zyx``: uint8, 0 no tumour, 1 necrosis, 2 oedema, 4 enhancing.
    ``brain_zyx``: bool, the brain with its ventricles and sulci.
    ``affine_lps``: 4x4, index (x, y, z, 1) to LPS mm.
    """

    seed: int
    contrast_zyx: dict[Contrast, NDArray[np.float32]]
    label_zyx: NDArray[np.uint8]
    brain_zyx: NDArray[np.bool_]
    affine_lps: NDArray[np.float64]


def make_patient(seed: int = 0) -> SyntheticPatient:
    """Build the patient of ``seed``: pose, anatomy, tumour, then the four contrasts.

    The volume of each label is exactly ``TRUE_VOLUME_ML``.
    """
    rng = np.random.default_rng(seed)
    points_mm = pose(rng)
    t1, grey, white = template(warped(points_mm, rng))
    brain = ndimage.binary_fill_holes(t1 > TEMPLATE_WHITE * 0.1)
    surface_mm = intracranial_surface(brain)
    fluid = np.clip(1 - grey - white, 0, 1) * inside(surface_mm, 1.0)
    images = np.zeros((len(Contrast), *GRID_SHAPE_ZYX), dtype=np.float32)
    for name, fraction in head(points_mm, surface_mm, rng):
        _mix(images, name, fraction)
    _add_brain(images, t1, grey, white)
    tumour, label = _tumour(points_mm, grey, fluid, rng)
    for name, fraction in (*vessels(points_mm, surface_mm, fluid, rng), *tumour):
        _mix(images, name, fraction)
    sensitivity = np.clip((points_mm[2] + 145) / 60, 0.15, 1)  # coil sensitivity, decreasing below the head
    unevenness = sensitivity * (1 + TEXTURE_AMPLITUDE * smooth_noise(rng, GRID_SHAPE_ZYX, 1.5))
    contrast_zyx = {}
    for image, contrast in zip(images, Contrast, strict=True):
        bias = 1 + BIAS_AMPLITUDE * smooth_noise(rng, GRID_SHAPE_ZYX, 50)
        contrast_zyx[contrast] = (image * bias * unevenness * WHITE_SIGNAL[contrast]).astype(np.float32)
    affine_lps = np.eye(4)
    affine_lps[:3, 3] = GRID_ORIGIN_LPS_MM
    return SyntheticPatient(seed, contrast_zyx, label, brain | (label > 0), affine_lps)


def _mix(images: Field, name: str, fraction: Field) -> None:
    """Blend a tissue into the images (contrast, z, y, x); where ``fraction`` is 1, it replaces all earlier tissues."""
    for image, signal in zip(images, SIGNAL[name], strict=True):
        image += fraction * (np.float32(signal) - image)


def _add_brain(images: Field, t1: Field, grey: Field, white: Field) -> None:
    """Add grey and white matter over the fluid, with the texture of the template."""
    tissue = grey + white
    expected = (grey * TEMPLATE_GREY + white * TEMPLATE_WHITE) / np.maximum(tissue, 1e-3)
    texture = np.where(tissue > 0.5, np.clip(t1 / np.maximum(expected, 1.0), 0.8, 1.2) - 1, 0)
    for image, signal_grey, signal_white, gain in zip(
        images, SIGNAL["grey"], SIGNAL["white"], TEXTURE_GAIN, strict=True
    ):
        image += (grey * signal_grey + white * signal_white) * (1 + gain * texture) - tissue * image


def _tumour(
    points_mm: Field, grey: Field, fluid: Field, rng: np.random.Generator
) -> tuple[list[Layer], NDArray[np.uint8]]:
    """The tumour's layers (tissue, fraction) and its label map.

    Each part consists of the voxels of lowest irregular distance, as many as make its ``TRUE_VOLUME_ML``; its fraction
    is one half on its border.
    """
    distance = ellipsoid(points_mm, TUMOUR_CENTRE_MM, CORE_RADII_MM) * HEAD_SCALE
    distance += 2.2 * smooth_noise(rng, GRID_SHAPE_ZYX, 7)
    core_voxels = _voxels(NECROSIS) + _voxels(ENHANCING)
    core, core_mm = _lowest(distance, core_voxels)
    hollow = np.where(core, distance + 1.2 * smooth_noise(rng, GRID_SHAPE_ZYX, 4), 99)
    necrosis, necrosis_mm = _lowest(hollow, _voxels(NECROSIS))
    spread = distance + 3.5 * smooth_noise(rng, GRID_SHAPE_ZYX, 8) + 12 * grey + 40 * fluid
    spread[core] = core_mm - 40
    whole, whole_mm = _lowest(spread, core_voxels + _voxels(OEDEMA))
    label = np.zeros(GRID_SHAPE_ZYX, dtype=np.uint8)
    label[whole], label[core], label[necrosis] = OEDEMA, ENHANCING, NECROSIS
    patchy = 1 + 0.15 * np.clip(smooth_noise(rng, GRID_SHAPE_ZYX, 5), -2, 0)
    core_fraction = inside(distance - core_mm, 0.8)
    layers = [
        ("oedema", inside(spread - whole_mm, 3.0) * patchy),
        ("enhancing", core_fraction * patchy),
        ("necrosis", inside(hollow - necrosis_mm, 0.8)),
    ]
    return layers, label


def _voxels(label: int) -> int:
    return round(TRUE_VOLUME_ML[label] * 1000)


def _lowest(field: Field, count: int) -> tuple[NDArray[np.bool_], float]:
    """The ``count`` voxels of lowest value, and the value that separates them from the rest."""
    flat = field.ravel()
    order = np.argpartition(flat, count)[: count + 1]
    chosen = np.zeros(flat.shape, dtype=bool)
    chosen[order[:count]] = True
    return chosen.reshape(field.shape), float(flat[order[count]])
