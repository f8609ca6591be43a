from __future__ import annotations

import math

import numpy as np
import phantoms
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import RefusedError
from node.segmentation import volume
from node.series import stack
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.stack import describe_stack

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def planes(points, orientation=AXIAL, **attributes):
    """One lookup per image."""
    size = {"Rows": 10, "Columns": 10}
    common = {"ImageOrientationPatient": list(orientation), "PixelSpacing": [1, 1], **size, **attributes}
    return [{**common, "ImagePositionPatient": list(point)}.get for point in points]


def irregularity(points, **attributes):
    return describe_stack(AXIAL, planes(points, **attributes)).irregularity


EVEN = [(0, 0, 2 * index) for index in range(12)]


def test_a_regular_stack_has_steps_and_coverage():
    """Twelve planes every 2 mm: step, coverage and count, and no fault."""
    found = describe_stack(AXIAL, planes(EVEN))
    assert (found.slice_count, found.slice_step_mm, found.coverage_mm, found.images_per_position) == (12, 2.0, 24.0, 1)
    assert found.irregularity is None


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        pytest.param(EVEN[:5] + EVEN[6:], "a slice is missing: gaps of 2.00 to 4.00 mm", id="missing slice"),
        pytest.param([(0, 0, 2 * i + 0.2 * (i > 5)) for i in range(12)], "slice gaps differ", id="unequal steps"),
        pytest.param([*EVEN, (0, 0, 4.05)], "share one position", id="two at one position"),
        pytest.param([(0, 0.3 * i, 2 * i) for i in range(12)], "tilted: over the stack they shift 3.3 mm", id="tilt"),
        pytest.param([(0, 0, 0), (0, 3, 2), *EVEN[2:]], "tilted", id="one plane aside"),
        pytest.param([*EVEN, None], "Image Position (Patient) (0020,0032) is missing", id="no position"),
    ],
)
def test_an_irregular_stack_is_told(points, reason):
    """A missing slice, unequal steps, doubled positions, tilt and a missing position are named."""
    found = describe_stack(AXIAL, planes([point or () for point in points]))
    assert reason in (found.irregularity or "")


@pytest.mark.parametrize("keyword", ["PixelSpacing", "Rows", "FrameOfReferenceUID", "ImageOrientationPatient"])
def test_what_must_be_equal_in_all_images(keyword):
    """One image of another spacing, size, frame of reference or orientation breaks the volume."""
    turned = [0, 1, 0, 1, 0, 0]
    others = {"PixelSpacing": [1, 2], "Rows": 9, "FrameOfReferenceUID": "1.9", "ImageOrientationPatient": turned}
    *most, last = planes(EVEN, Rows=4, FrameOfReferenceUID="1.2")
    odd = {keyword: others[keyword]}
    found = describe_stack(AXIAL, [*most, lambda name: odd[name] if name in odd else last(name)])
    assert "differs between its images" in (found.irregularity or "")


def test_the_limits_are_those_of_the_volume():
    """Selection passes over what the volume would refuse, by the same tolerances."""
    assert (stack.POSITION_TOLERANCE_MM, stack.SPACING_TOLERANCE) == (
        volume.POSITION_TOLERANCE_MM,
        volume.SPACING_TOLERANCE,
    )


def shifted(instances, move):
    """The instances with their positions moved by ``move(index)`` in mm."""
    for index, instance in enumerate(instances):
        pairs = zip(instance.ImagePositionPatient, move(index), strict=True)
        instance.ImagePositionPatient = [round(float(a) + b, 4) for a, b in pairs]
    return instances


@pytest.mark.slow
@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda index: (0, 0, 0), id="regular"),
        pytest.param(lambda index: (0, 0, 0.5 * (index == 7)), id="one step aside"),
        pytest.param(lambda index: (0, 0, 0.005 * (index == 7)), id="rounding"),
        pytest.param(lambda index: (0, 0.2 * index, 0), id="tilt"),
        pytest.param(lambda index: (0, 0.004 * index, 0), id="tilt below the limit"),
        pytest.param(lambda index: (0, 0.02 * index, 0), id="small tilt"),
        pytest.param(lambda index: (0, 0, 3.0 * (index > 7)), id="gap"),
    ],
)
def test_selection_and_volume_agree(tmp_path, move):
    """A series is called irregular exactly when it cannot be read as a volume."""
    geometry = phantoms.Geometry(pixel_spacing=(3.0, 3.0), size=(24, 20, 16), spacing_between_slices_mm=3.0)
    phantoms.write_series(tmp_path, shifted(phantoms.classic(geometry), move))
    (series,) = read_study(tmp_path).series
    try:
        volume.read_volume(series)
        is_refused = False
    except RefusedError:
        is_refused = True
    assert (read_facts(series).irregularity is not None) is is_refused


@given(st.floats(-math.pi, math.pi), st.floats(-1.5, 1.5), st.floats(0.5, 8), st.integers(3, 40))
def test_an_oblique_stack_is_as_regular_as_an_axial_one(azimuth, elevation, step_mm, count):
    """Planes stacked along their normal are regular in any direction, in any order of instances."""
    normal = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    row = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    orientation = (*row, *np.cross(normal, row))
    points = [tuple(normal * step_mm * index) for index in range(count)][::-1]
    found = describe_stack(orientation, planes(points, orientation))
    assert found.irregularity is None
    assert found.slice_step_mm == pytest.approx(step_mm, abs=1e-3)


@given(st.lists(st.none() | st.lists(st.floats(), max_size=4) | st.text(max_size=3), max_size=6))
def test_no_position_crashes(values):
    """Whatever positions hold, the stack is described or called irregular."""
    describe_stack(AXIAL, [{"ImagePositionPatient": value, "PixelSpacing": value}.get for value in values])


@pytest.mark.parametrize("digits", [4, 5, 6])
def test_cosines_of_few_digits_are_no_tilt(digits):
    """An oblique stack of 160 mm whose cosines are rounded is as regular as it was, and one that is tilted is told."""
    cosine, sine = 0.995, (1 - 0.995**2) ** 0.5
    orientation = (1, 0, 0, 0, round(cosine, digits), round(sine, digits))
    even = [(0, -sine * 2 * index, cosine * 2 * index) for index in range(80)]
    assert describe_stack(orientation, planes(even, orientation)).irregularity is None
    tilted = [(0.004 * index, y, z) for index, (_, y, z) in enumerate(even)]
    assert "tilted" in (describe_stack(orientation, planes(tilted, orientation)).irregularity or "")
