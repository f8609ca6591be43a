"""``glionode bench surgery``: how often traces of surgery are found, how often they are seen where there are none.

Skull defects are made in the raw exams that show no trace: bone over a round patch becomes like soft tissue, or bone
and scalp lose their signal, at four sites of each side and in three sizes. In skull-stripped cases, which show no
skull, fluid takes the place of the labelled core. Words are tried on a table of real series descriptions, and the
sentences on lesions on the expert labels.
"""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from glionode_bench.exams import Exam, Mask
from node.segmentation.lesions import lesion_cautions
from node.segmentation.midplane import mid_plane
from node.segmentation.nifti_case import read_case
from node.segmentation.skull import skull_traces
from node.segmentation.surgery import resection_cavity
from node.segmentation.truth import labelled_cases, read_truth
from node.series.subject_words import surgery_word
from node.study import Contrast

COLUMNS = ("situation", "tried", "found", "wrong side or kind")
_RADII_MM = (15, 25, 35)
_SITES = {"frontal": (-55, 25), "temporal": (0, 8), "parietal": (20, 45), "occipital": (60, 20)}
"""Azimuth (anterior is negative) and elevation in degrees."""

_BONE, _REACH_MM = 0.6, 40  # dark against the brain; how far from the brain mask bone and scalp reach
_FLUID = {Contrast.T1: 0.45, Contrast.T1C: 0.4, Contrast.T2: 2.5, Contrast.FLAIR: 0.3}  # of the brain's median

Tell = Callable[[str], None]


@dataclass
class Row:
    """One line of the table; ``wrong``: found, but on the other side, or as something else."""

    situation: str
    count: int = 0
    found: int = 0
    wrong: int = 0

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of :data:`COLUMNS`."""
        return self.situation, str(self.count), str(self.found), str(self.wrong)


def bench(exams: Iterable[Exam], tell: Tell) -> tuple[list[Row], list[float]]:
    """The table over ``exams``, and the CPU seconds of the check of each skull; ``tell`` gets a line per exam."""
    rows: dict[str, Row] = {}
    seconds: list[float] = []

    def count(situation: str, found: bool, wrong: bool = False) -> None:
        row = rows.setdefault(situation, Row(situation))
        row.count, row.found, row.wrong = row.count + 1, row.found + found, row.wrong + wrong

    for exam in exams:
        t1c = exam.volumes_zyx[Contrast.T1C]
        begun = time.process_time()
        traces = skull_traces(t1c, exam.brain_zyx)
        seconds.append(time.process_time() - begun)
        kind = "raw" if exam.is_raw else "skull-stripped"
        if traces is None:
            tell(f"{exam.name}: no skull to judge")
            count(f"as it is, {kind}: skull not judged", False)
        else:
            said = "; ".join(f"{each.kind} {each.side} {each.area_cm2:.1f} cm²" for each in traces)
            tell(f"{exam.name}: {said or 'no trace'}")
            count(f"as it is, {kind}", bool(traces))
            mirrored = skull_traces(t1c[:, :, ::-1], exam.brain_zyx[:, :, ::-1]) or ()
            swapped = {"left": "right", "right": "left"}
            is_same = sorted(swapped[each.side] for each in traces) == sorted(each.side for each in mirrored)
            count(f"mirrored, {kind}: the same traces on the other side", is_same)
        if exam.is_raw:
            for situation, volume, brain in harder(exam):
                found = skull_traces(volume, brain) or ()
                same = {each.side for each in found} == {each.side for each in traces or ()}
                count(f"{situation}, raw: the same answer", same)
        if traces == ():
            for situation, side, made in defects(exam):
                found = skull_traces(made, exam.brain_zyx) or ()
                is_right = any(each.side == side for each in found)
                count(situation, is_right, bool(found) and any(each.side != side for each in found))
    return list(rows.values()), seconds


def harder(exam: Exam) -> Iterator[tuple[str, NDArray[np.floating], Mask]]:
    """(situation, T1c, brain mask) for each way in which the head of ``exam`` is made harder to judge."""
    t1c, brain = exam.volumes_zyx[Contrast.T1C], exam.brain_zyx
    noise = np.random.default_rng(0).normal(0, 0.15 * float(np.median(t1c[brain])), t1c.shape)
    yield "noise of 15 %", np.abs(t1c + noise), brain
    field = np.linspace(0.55, 1.45, t1c.shape[2], dtype=np.float32)
    yield "receive field of 45 % from side to side", t1c * field, brain
    yield "slices of 5 mm", ndimage.uniform_filter1d(t1c, 5, axis=0), brain
    yield "mask 2 mm too large", t1c, ndimage.binary_dilation(brain, iterations=2)
    yield "mask 2 mm too small", t1c, ndimage.binary_erosion(brain, iterations=2)


def defects(exam: Exam) -> Iterator[tuple[str, str, NDArray[np.floating]]]:
    """(situation, side, T1c) for each defect made in ``exam``."""
    t1c = exam.volumes_zyx[Contrast.T1C]
    level = float(np.median(t1c[exam.brain_zyx]))
    near = ndimage.distance_transform_edt(~exam.brain_zyx)
    outside = (near > 0) & (near < _REACH_MM)
    rng = np.random.default_rng(0)
    for (site, angles), (side, sign), radius_mm in itertools.product(
        _SITES.items(), (("left", 1), ("right", -1)), _RADII_MM
    ):
        patch = outside & _cylinder(exam.brain_zyx, np.deg2rad(angles), sign, radius_mm)
        noise = rng.normal(0, 0.05 * level, int(patch.sum())).astype(np.float32)
        void, open_bone = t1c.copy(), t1c.copy()
        void[patch] = np.abs(noise)
        yield f"signal void of {2 * radius_mm} mm, {site}", side, void
        head = patch & (near < _depth_of_skin(t1c, patch, near, level))
        filled = np.maximum(t1c[head], (1.1 * level + rng.normal(0, 0.05 * level, int(head.sum()))).astype(np.float32))
        open_bone[head] = np.where(t1c[head] < _BONE * 1.5 * level, filled, t1c[head])
        yield f"missing bone of {2 * radius_mm} mm, {site}", side, open_bone


def _depth_of_skin(t1c: NDArray[np.floating], patch: Mask, near: NDArray[np.float64], level: float) -> float:
    """Depth in mm, from the brain, of the middle of the scalp in ``patch``: where the mean signal is highest."""
    depth = near[patch].astype(int)
    mean = np.bincount(depth, t1c[patch]) / np.maximum(np.bincount(depth), 1)
    return float(np.argmax(mean[:25] / level))


def _cylinder(brain_zyx: Mask, angles: NDArray[np.float64], sign: int, radius_mm: float) -> Mask:
    """The voxels within ``radius_mm`` of a ray from the middle of the brain; ``sign`` 1: to the patient's left."""
    plane = mid_plane(brain_zyx)
    to_left, to_posterior, to_superior = plane.axes()
    azimuth, up = angles
    ray = np.cos(up) * (sign * np.cos(azimuth) * to_left + np.sin(azimuth) * to_posterior) + np.sin(up) * to_superior
    z, y, x = np.indices(brain_zyx.shape, dtype=np.float32)
    x, y, z = (each - np.float32(middle) for each, middle in zip((x, y, z), plane.centre_xyz, strict=True))
    along = x * ray[0] + y * ray[1] + z * ray[2]
    cylinder: Mask = (along > 0) & (x * x + y * y + z * z - along * along < radius_mm**2)
    return cylinder


def bench_labelled(data: Path) -> list[Row]:
    """Sentences on lesions, and fluid taken for a cavity, on every labelled case in BraTS form below ``data``."""
    many, none = Row("expert labels: told as many lesions"), Row("expert labels: told as no tumour")
    as_is, made = (
        Row("labelled case as it is: fluid in the tumour"),
        Row("core replaced by fluid: found, Dice above 0.8"),
    )
    for folder in labelled_cases(data):
        case, label = read_case(folder), read_truth(folder)
        texts = list(lesion_cautions(label))
        for row, word in ((many, "separate"), (none, "no tumour")):
            row.count, row.found = row.count + 1, row.found + any(word in text for text in texts)
        honest = resection_cavity(case.volumes_zyx, label)
        as_is.count, as_is.found = as_is.count + 1, as_is.found + bool(honest is not None and honest.any())
        core = ndimage.binary_erosion((label == 1) | (label == 4), iterations=2)
        if core.sum() < 1000:
            continue
        changed = {each: volume.copy() for each, volume in case.volumes_zyx.items()}
        for contrast, volume in changed.items():
            volume[core] = _FLUID[contrast] * np.median(volume[volume > 0])
        cavity = resection_cavity(changed, label)
        dice = 0.0 if cavity is None else 2 * (cavity & core).sum() / (cavity.sum() + core.sum())
        made.count, made.found = made.count + 1, made.found + (dice > 0.8)
    return [many, none, as_is, made]


def bench_words(labelled_csv: Path) -> Row:
    """How many real descriptions of ordinary series are taken for words of surgery."""
    row = Row("real series descriptions: words of surgery")
    with labelled_csv.open(encoding="utf-8", newline="") as stream:
        for each in csv.DictReader(stream):
            row.count, row.found = row.count + 1, row.found + (surgery_word(each["description"]) is not None)
    return row
