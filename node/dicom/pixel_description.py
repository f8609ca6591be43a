"""Rules of the standard for the description of pixel data (PS3.3 C.7.6.3, PS3.5 8.1.1), from the header alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.dicom.frames import Lookup
from node.dicom.value_rules import finite_number
from node.errors import InstanceRefused

_ALLOCATED = (8, 16, 32)
_LEAST_SLOPE = 1e-30
_STEPS = 2.0**23  # that float32 tells apart
_TERM = re.compile(r"[A-Z0-9_ ]{1,16}|missing")
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
_COUNTS = (
    ("SamplesPerPixel", "Samples per Pixel (0028,0002)"),
    ("BitsAllocated", "Bits Allocated (0028,0100)"),
    ("BitsStored", "Bits Stored (0028,0101)"),
    ("HighBit", "High Bit (0028,0102)"),
    ("PixelRepresentation", "Pixel Representation (0028,0103)"),
)


def pixel_problem(image: Lookup) -> str | None:
    """Why the pixels of an MR image cannot be read by its description, or None; the reason names the attribute."""
    numbers: dict[str, int] = {}
    for keyword, name in _COUNTS:
        value = image(keyword)
        if not isinstance(value, int):
            return f"{name} is missing or no number"
        numbers[keyword] = value
    photometric = str(image("PhotometricInterpretation") or "missing")
    allocated, stored = numbers["BitsAllocated"], numbers["BitsStored"]
    if photometric not in _PHOTOMETRIC:
        shown = photometric if _TERM.fullmatch(photometric) else "malformed"
        return f"Photometric Interpretation (0028,0004) is {shown}: not a grey-scale image"
    if numbers["SamplesPerPixel"] != 1:
        return f"Samples per Pixel (0028,0002) is {numbers['SamplesPerPixel']}: not a grey-scale image"
    if allocated not in _ALLOCATED or not 1 <= stored <= allocated:
        return f"Bits Stored (0028,0101) is {stored} of {allocated} bits allocated, which no MR image may have"
    if numbers["HighBit"] != stored - 1:
        return f"High Bit (0028,0102) is {numbers['HighBit']} with Bits Stored {stored}, which the standard forbids"
    if numbers["PixelRepresentation"] not in (0, 1):
        return f"Pixel Representation (0028,0103) is {numbers['PixelRepresentation']}, which is not defined"
    if image("ModalityLUTSequence"):
        return "Modality LUT Sequence (0028,3000) is given, which no MR image may have"
    return None


def first_pixel_problem(images: Sequence[Lookup]) -> str | None:
    """`pixel_problem` of the first of ``images`` that has one."""
    return next((reason for reason in map(pixel_problem, images) if reason), None)


def rescale_of(image: Lookup) -> tuple[float, float]:
    """Rescale Slope and Intercept, by which stored values become pixel values; absent ones change nothing.

    Raises:
        InstanceRefused: one of them is no number, or the slope is none that an MR image can have; the text names it.
    """
    slope = _number(image, "RescaleSlope", "Rescale Slope (0028,1053)", 1.0)
    intercept = _number(image, "RescaleIntercept", "Rescale Intercept (0028,1052)", 0.0)
    if not _LEAST_SLOPE <= slope <= 1 / _LEAST_SLOPE:
        raise InstanceRefused("Rescale Slope (0028,1053) is not positive, or out of any range: no image comes of it")
    if abs(intercept) > slope * _STEPS:
        raise InstanceRefused("Rescale Intercept (0028,1052) is so large that pixel values cannot be told apart")
    return slope, intercept


def _number(image: Lookup, keyword: str, name: str, default: float) -> float:
    value = image(keyword)
    if value is None:
        return default
    found = finite_number(value)
    if found is None:
        raise InstanceRefused(f"{name} is not one number")
    return found


def without_unused_bits(stored: NDArray[Any], bits_stored: int) -> NDArray[Any]:
    """Native pixel data without what lies above Bits Stored, overlays of old files, say; the sign is extended."""
    unused = stored.dtype.itemsize * 8 - bits_stored
    if unused == 0:
        return stored
    cleared: NDArray[Any] = np.right_shift(np.left_shift(stored, unused), unused)
    return cleared


def padding_mask(stored: NDArray[Any], image: Lookup) -> NDArray[np.bool_] | None:
    """Where ``stored`` is padding, which is no part of the image (PS3.3 C.7.5.1.1.2); None: the image has no padding.

    Both attributes count as bit patterns, since their value representation (US or SS) is often wrong.

    Raises:
        InstanceRefused: one of them is given and is no number; the text names it.
    """
    value, limit = (
        _padding(image, "PixelPaddingValue", "Pixel Padding Value (0028,0120)"),
        _padding(image, "PixelPaddingRangeLimit", "Pixel Padding Range Limit (0028,0121)"),
    )
    if value is None:
        return None
    ends = [_as(stored.dtype, end) for end in (value, limit) if end is not None]
    mask: NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return mask


def _padding(image: Lookup, keyword: str, name: str) -> int | None:
    value = image(keyword)
    if value is None or value == "":
        return None
    if not isinstance(value, int):
        raise InstanceRefused(f"{name} is not one number")
    return value


def _as(dtype: np.dtype[Any], value: int) -> int:
    """``value`` with the bits of ``dtype``, read with its sign."""
    bits = dtype.itemsize * 8
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value
