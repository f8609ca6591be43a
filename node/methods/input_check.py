"""What every method asks of the volumes that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from node.errors import ContentRefused
from node.methods.contract import Volume
from node.study import Contrast


def check_volumes(volumes_zyx: Mapping[Contrast, Volume], needed: Sequence[Contrast], who: str) -> None:
    """Make sure that a method can run on ``volumes_zyx``, all of which it is going to use.

    Args:
        needed: the contrasts without which the method does not run.
        who: names the method for the reader.

    Raises:
        ContentRefused: a contrast is missing; one is empty or constant inside the brain (its voxels above 0), or not
            finite; the volumes differ in shape.
    """
    missing = [contrast for contrast in needed if contrast not in volumes_zyx]
    if missing:
        raise ContentRefused(f"{who} needs {', '.join(needed)}; missing: {', '.join(missing)}")
    shapes = {contrast.value: volume.shape for contrast, volume in volumes_zyx.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 3:
        raise ContentRefused(f"the volumes differ in shape: {shapes}")
    for contrast, volume in volumes_zyx.items():
        if not np.isfinite(volume).all():
            raise ContentRefused(f"{contrast} holds values that are not finite (NaN or infinite)")
        inside = volume[volume > 0]
        if not inside.size or inside.std() == 0:
            raise ContentRefused(f"{contrast} is empty or constant inside the brain")
