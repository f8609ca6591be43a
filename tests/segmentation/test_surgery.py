"""Before or after surgery: traces in skull and scalp on the right side, refusal by config, and the cavity left."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from node.errors import ContentRefused
from node.methods.contract import REGIONS, MethodResult
from node.segmentation import grid as grids
from node.segmentation import method
from node.segmentation.brain import brain_mask
from node.segmentation.midplane import mid_plane
from node.segmentation.skull import skull_traces
from node.segmentation.surgery import ExamState, SurgeryTold, exam_state, resection_cavity
from node.segmentation.volume import read_volume
from node.series.headers import read_study
from node.study import Contrast

SHAPE = (150, 200, 180)
CENTRE = np.array([70.0, 100.0, 90.0])  # z, y, x
SITES = {"frontal": (0.5, -0.5), "parietal": (0.6, 0.3)}  # z and y of a direction, x is its rest


def head(tilt_degrees=0.0):
    """(T1c, brain, depth, place): brain, bone of 6 mm, scalp of 7 mm, as ellipsoids; depth in mm outside the brain."""
    z, y, x = (axis - c for axis, c in zip(np.indices(SHAPE, dtype=np.float32), CENTRE, strict=True))
    tilt = np.deg2rad(tilt_degrees)
    x, y = x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)
    depth = (np.sqrt((z / 55) ** 2 + (y / 75) ** 2 + (x / 62) ** 2) - 1) * 62
    noise = np.random.default_rng(0).normal(0, 4, SHAPE)
    t1c = np.select([depth < 0, depth < 6, depth < 13], [100, 15, 200], 0) + noise
    return np.maximum(t1c, 0).astype(np.float32), depth < 0, depth, (z, y, x)


def patch(where, site, side, radius_mm):
    """The voxels within ``radius_mm`` of a ray through the head; ``side`` 1 is the patient's left (x grows)."""
    z, y, x = where
    dz, dy = SITES[site]
    direction = np.array([dz, dy, side * np.sqrt(1 - dz**2 - dy**2)])
    along = z * direction[0] + y * direction[1] + x * direction[2]
    off = np.sqrt(np.maximum(z**2 + y**2 + x**2 - along**2, 0))
    return (along > 0) & (off < radius_mm)


@pytest.mark.parametrize("tilt_degrees", [0.0, 12.0])
@pytest.mark.parametrize(("side", "name"), [(1, "left"), (-1, "right")])
@pytest.mark.parametrize("site", SITES)
def test_missing_bone_is_found_on_its_side(tilt_degrees, side, name, site):
    """Bone replaced by soft tissue over 5 cm is found, on the side of the patient, in a turned head too."""
    t1c, brain, depth, where = head(tilt_degrees)
    t1c[(depth >= 0) & (depth < 6) & patch(where, site, side, 25)] = 110
    (found,) = skull_traces(t1c, brain)
    assert (found.side, found.kind) == (name, "missing bone")
    assert 8 < found.area_cm2 < 30


@pytest.mark.parametrize(("side", "name"), [(1, "left"), (-1, "right")])
def test_void_of_metal_is_found_on_its_side(side, name):
    """Bone and scalp without signal over 4 cm, as around clips and plates, are a signal void of that side."""
    t1c, brain, depth, where = head()
    t1c[(depth >= 0) & patch(where, "parietal", side, 20)] = 5
    (found,) = skull_traces(t1c, brain)
    assert (found.side, found.kind) == (name, "signal void")


@pytest.mark.parametrize("tilt_degrees", [0.0, 12.0])
def test_whole_head_has_no_trace_and_stripped_one_is_not_judged(tilt_degrees):
    """A symmetric head has no trace; one without skull gives None, for nothing can be said."""
    t1c, brain, _, _ = head(tilt_degrees)
    assert skull_traces(t1c, brain) == ()
    assert skull_traces(np.where(brain, t1c, 0), brain) is None


def test_mid_plane_follows_the_head():
    """The plane's normal turns with the head, and its centre is that of the head."""
    _, brain, _, _ = head(12.0)
    plane = mid_plane(brain)
    assert np.degrees(np.arccos(plane.normal_xyz @ [np.cos(np.deg2rad(12)), -np.sin(np.deg2rad(12)), 0])) < 2
    assert abs((plane.centre_xyz - CENTRE[::-1]) @ plane.normal_xyz) < 1.5


def test_exam_after_surgery_is_told_or_refused():
    """Words alone make an exam post-operative, with a caution; the config may refuse it; else it is an assumption."""
    t1c, brain, _, _ = head()
    assumed = exam_state(SurgeryTold(), t1c, brain)
    assert (assumed.as_dict()["state"], assumed.cautions()) == ("pre-operative assumed", [])
    told = exam_state(SurgeryTold(("Study Description says 'postop'",)), t1c, brain)
    assert told.as_dict()["state"] == "post-operative"
    assert "postop" in told.cautions()[0]
    with pytest.raises(ContentRefused, match="postop"):
        exam_state(SurgeryTold(("Study Description says 'postop'",), is_refused=True), t1c, brain)


def exam_with_ball(signal, radius=12):
    """Volumes of a uniform brain with a ball of other signal, and the ball."""
    z, y, x = np.indices((60, 60, 60)) - 30
    distance = np.sqrt(z**2 + y**2 + x**2)
    brain, ball = distance < 28, distance < radius
    volumes = {each: np.where(ball, signal[each], 100.0) * brain for each in signal}
    return {each: volume.astype(np.float32) for each, volume in volumes.items()}, ball, distance


FLUID = {Contrast.T1C: 30.0, Contrast.T2: 250.0, Contrast.FLAIR: 30.0}


def test_fluid_in_the_tumour_is_the_cavity():
    """Fluid within a labelled rim is found nearly whole, whether or not the label map holds it."""
    volumes, ball, distance = exam_with_ball(FLUID)
    for label in (np.where(distance < 16, 1, 0), np.where((distance < 16) & ~ball, 4, 0)):
        cavity = resection_cavity(volumes, label.astype(np.uint8))
        assert (cavity & ~ball).sum() == 0
        assert cavity.sum() > 0.9 * ball.sum()


@pytest.mark.parametrize(("contrast", "value"), [(Contrast.T1C, 150.0), (Contrast.FLAIR, 150.0), (Contrast.T2, 100.0)])
def test_what_enhances_or_is_bright_on_flair_is_no_cavity(contrast, value):
    """Enhancement, a bright FLAIR and a T2 like brain's are tumour, not fluid."""
    volumes, _, distance = exam_with_ball({**FLUID, contrast: value})
    assert not resection_cavity(volumes, np.where(distance < 16, 1, 0).astype(np.uint8)).any()


def test_without_flair_no_cavity_is_claimed():
    """With T2 or FLAIR missing, fluid is not known from necrosis: the answer is None."""
    volumes, _, distance = exam_with_ball(FLUID)
    del volumes[Contrast.FLAIR]
    assert resection_cavity(volumes, np.where(distance < 16, 1, 0).astype(np.uint8)) is None


def test_cavity_is_told_with_its_volume():
    """The caution of an exam after surgery names the cavity in mL, and ``result.json`` has the number."""
    state = ExamState(("signal void",), True, 3.14159)
    assert any("3.1 mL" in each for each in state.cautions())
    assert state.as_dict()["cavity_ml"] == 3.142


@pytest.mark.parametrize("turned_degrees", [0.0, 20.0])
@pytest.mark.parametrize("flip", [(False, False, False), (True, False, False), (True, True, True)])
def test_side_is_the_patients_whatever_the_source_grid(flip, turned_degrees):
    """A defect on the left stays on the left for a source whose axes are reversed, oblique, or both."""
    t1c, brain, depth, where = head()
    t1c[(depth >= 0) & (depth < 6) & patch(where, "parietal", 1, 25)] = 110
    turn = sitk.Euler3DTransform([90.0, 100.0, 75.0], 0.1, 0.0, np.deg2rad(turned_degrees))
    matrix = np.reshape(turn.GetMatrix(), (3, 3))
    moved = []
    for array in (t1c, brain.astype(np.float32)):
        patient = sitk.GetImageFromArray(array)
        oblique = sitk.Image(patient.GetSize(), sitk.sitkFloat32)
        oblique.SetDirection(matrix.ravel().tolist())
        oblique.SetOrigin(turn.TransformPoint((0.0, 0.0, 0.0)))
        source = sitk.Flip(sitk.Resample(patient, oblique, sitk.Transform(), sitk.sitkLinear, 0.0), flip)
        moved.append(sitk.GetArrayFromImage(grids.to_grid(source, grids.common_grid(source))))
    assert {each.side for each in skull_traces(moved[0], moved[1] > 0.5)} == {"left"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_craniotomy_of_a_real_exam_is_seen_on_its_left(data_folder):
    """BRAINIX is after surgery by its T1c alone, on the left; TCGA-FG-6692 has no trace on either side."""
    series = next(each for each in read_study(data_folder / "brainix").series if each.series_number == 801)
    images = [read_volume(series).image, sitk.ReadImage(str(data_folder / "tcga-fg-6692/t1c.nii.gz"), sitk.sitkFloat32)]
    found = []
    for image in images:
        fixed = grids.to_grid(image, grids.common_grid(image))
        found.append(skull_traces(sitk.GetArrayFromImage(fixed), brain_mask(fixed, "T1c")))
    assert {each.side for each in found[0]} == {"left"}
    assert found[1] == ()


@pytest.mark.parametrize("evidence", [(), ("signal void",)])
def test_cavity_leaves_the_regions_only_after_surgery(evidence):
    """Fluid inside the core is taken out of every region of an exam after surgery, and of no other."""
    volumes, ball, distance = exam_with_ball(FLUID)
    label = np.where(distance < 16, 1, 0).astype(np.uint8)
    probability = dict.fromkeys(REGIONS, (distance < 16).astype(np.float32))
    answer = MethodResult(label, probability, np.zeros(label.shape, np.float32), {}, 0)
    prepared = method._Prepared(None, volumes, volumes[Contrast.T1C] > 0, (), ExamState(evidence, True))
    result, state = method._without_cavity(answer, prepared)
    if evidence:
        assert result.region_zyx("whole_tumour")[ball].mean() < 0.1
        assert state.cavity_ml == pytest.approx(ball.sum() / 1000, rel=0.1)
    else:
        assert (result.label_zyx == label).all()
        assert state.cavity_ml is None
