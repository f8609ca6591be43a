"""A picture of the SEG on its T1c series: three planes through the tumour's centre, in radiological orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from node.segmentation.grid import SPACING_MM, common_grid, to_grid
from node.segmentation.seg_writer import read_masks
from node.segmentation.volume import SourceVolume
from node.sr_writer.codes import SEGMENTS

_TITLES = ("axial", "coronal", "sagittal")


def write_overlay(seg_file: Path, source: SourceVolume, picture: Path) -> None:
    """Draw the segments of ``seg_file`` as contours on ``source``; the patient's left is on the picture's right."""
    # imported here, since matplotlib creates folders for its settings and fonts when it is imported
    import matplotlib as mpl
    from matplotlib.figure import Figure

    grid = common_grid(source.image)
    anatomy = sitk.GetArrayFromImage(to_grid(source.image, grid))
    masks = {region: _on_grid(mask, source, grid) for region, mask in read_masks(seg_file, source).items()}
    centre = _centre(masks[SEGMENTS[0].region])
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(12, 4.6), facecolor="black", layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, plane, title in zip(axes, range(3), _TITLES, strict=True):
            shown = _slice(anatomy, plane, centre)
            high = float(np.percentile(anatomy[anatomy > 0], 99.7))
            axis.imshow(shown, cmap="gray", vmin=0, vmax=high, origin="upper", extent=_extent(shown))
            for concept in SEGMENTS:
                cut = _slice(masks[concept.region], plane, centre)
                if cut.any():
                    colour = tuple(channel / 255 for channel in concept.rgb)
                    axis.contour(_grid_x(cut), _grid_y(cut), cut, levels=[0.5], colors=[colour], linewidths=1.2)
            axis.set_title(title, color="white")
            axis.axis("off")
        figure.legend(handles=_handles(), loc="outside lower center", ncols=3, frameon=False, labelcolor="white")
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, dpi=110, facecolor="black")


def _on_grid(mask: NDArray[np.bool_], source: SourceVolume, grid: object) -> NDArray[np.float32]:
    image = sitk.GetImageFromArray(mask.astype(np.float32))
    image.CopyInformation(source.image)
    values: NDArray[np.float32] = sitk.GetArrayFromImage(to_grid(image, grid))
    return values


def _centre(mask: NDArray[np.float32]) -> tuple[int, int, int]:
    """The slices (z, y, x) with most voxels of the region; the middle of the volume if the region is empty."""
    inside = mask > 0.5
    if not inside.any():
        return mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2
    z, y, x = (int(inside.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1)))
    return z, y, x


def _slice(array_zyx: NDArray[np.float32], plane: int, centre: tuple[int, int, int]) -> NDArray[np.float32]:
    cut: NDArray[np.float32] = np.take(array_zyx, centre[plane], axis=plane)
    return cut if plane == 0 else cut[::-1]  # superior is up


def _extent(cut: NDArray[np.float32]) -> tuple[float, float, float, float]:
    return (0.0, cut.shape[1] * SPACING_MM, cut.shape[0] * SPACING_MM, 0.0)


def _grid_x(cut: NDArray[np.float32]) -> NDArray[np.floating]:
    return (np.arange(cut.shape[1]) + 0.5) * SPACING_MM


def _grid_y(cut: NDArray[np.float32]) -> NDArray[np.floating]:
    return (np.arange(cut.shape[0]) + 0.5) * SPACING_MM


def _handles() -> list[object]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=tuple(c / 255 for c in concept.rgb), label=concept.label) for concept in SEGMENTS]
