"""``glionode bench plausibility``: how often the checks find a lie, and how often they doubt an honest exam.

Every lie is made from an honest exam, in the resolution of the checks: contrasts under each other's names, one contrast
mirrored left to right or of another exam in its place and registered again, a mask that holds skull. For exams of raw
images each contrast is mirrored and replaced in turn; for skull-stripped ones, which are many, one contrast each.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from glionode_bench.exams import Exam, Mask, Volume
from node.errors import RefusedError
from node.segmentation.align import align_coarse
from node.segmentation.local_contrast import CoarseExam, coarse_exam, exam_of_signal
from node.segmentation.plausibility import findings
from node.segmentation.same_head import limited
from node.study import Contrast

COLUMNS = ("situation", "exams", "refused", "caution", "silent")
NAMES = {contrast: f"series {number}" for number, contrast in enumerate(Contrast, 1)}
HONEST = "honest"
_GROWN_MM = (4, 8, 12)
_NOISE = 0.15  # standard deviation over the brain's median
_FIELD = 0.45  # relative change of the signal between the middle and the sides of the head
_THICK = 5  # mm

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: of ``count`` exams, how many were refused or got a caution; the others passed."""

    situation: str
    count: int
    refused: int
    caution: int

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of :data:`COLUMNS`."""
        numbers = (self.count, self.refused, self.caution, self.count - self.refused - self.caution)
        return (self.situation, *map(str, numbers))


def bench(exams: Iterable[Exam], tell: Tell) -> tuple[list[Row], list[float]]:
    """The table over ``exams``, and the CPU seconds of the checks on each honest exam.

    ``tell`` gets a line for each honest exam that is doubted and for each lie that passes.
    """
    results: dict[str, Counter[str]] = {}
    seconds: list[float] = []
    before: dict[bool, CoarseExam] = {}  # the last exam of the same kind gives the other head
    for index, exam in enumerate(exams):
        begun = time.process_time()
        honest = coarse(exam)
        _count(results, f"{HONEST}, {_kind(exam)}", exam.name, honest, tell)
        seconds.append(time.process_time() - begun)
        changed = tuple(Contrast) if exam.is_raw else (tuple(Contrast)[index % len(Contrast)],)
        for situation, made in situations(exam, honest, before.get(exam.is_raw), changed):
            _count(results, situation, exam.name, made, tell)
        before[exam.is_raw] = honest
    rows = [Row(name, each.total(), each["refused"], each["caution"]) for name, each in sorted(results.items())]
    return rows, seconds


def coarse(exam: Exam) -> CoarseExam:
    """``exam`` as the method gives it to the checks."""
    seen = np.logical_and.reduce([exam.brain_zyx, *exam.seen_zyx.values()])
    return coarse_exam(exam.volumes_zyx, seen, NAMES)


def outcome_of(exam: CoarseExam) -> tuple[str, str]:
    """("refused", "caution" or "silent", and why) for one exam."""
    try:
        found = findings(exam)
    except RefusedError as error:
        return "refused", str(error)
    reasons = "; ".join(each.text for each in found)
    return ("refused" if any(each.is_refusal for each in found) else "caution" if found else "silent"), reasons


def situations(
    exam: Exam, honest: CoarseExam, other: CoarseExam | None, changed: Iterable[Contrast]
) -> Iterator[tuple[str, CoarseExam]]:
    """Each way in which ``exam`` is made harder, or a lie, and the exam so made."""
    kind = _kind(exam)
    yield f"{HONEST} with noise of {_NOISE:.0%}, {kind}", coarse(_noisy(exam))
    yield f"{HONEST} with receive fields of {_FIELD:.0%}, {kind}", coarse(_biased(exam))
    yield f"{HONEST} with T2 and FLAIR in slices of {_THICK} mm, {kind}", coarse(_thick(exam))
    for one, two in itertools.combinations(Contrast, 2):
        yield f"{one} and {two} exchanged", exchanged(honest, one, two)
    for contrast in changed:
        mirrored, brain = honest.signal[contrast][:, :, ::-1], honest.brain[:, :, ::-1]
        yield f"{contrast} mirrored", replaced(honest, contrast, mirrored, brain)
        if other is not None:
            yield f"{contrast} of another head", replaced(honest, contrast, other.signal[contrast], other.brain)
    if exam.is_raw:
        head = _head(exam)
        for grown_mm in _GROWN_MM:
            mask = ndimage.binary_dilation(exam.brain_zyx, iterations=grown_mm) & head
            yield f"mask grown by {grown_mm} mm", coarse(replace(exam, brain_zyx=mask))
        yield "mask of the whole head", coarse(replace(exam, brain_zyx=head))


def exchanged(exam: CoarseExam, one: Contrast, two: Contrast) -> CoarseExam:
    """``exam`` with two contrasts under each other's names."""
    names = {one: two, two: one}
    signal, local = ({each: of[names.get(each, each)] for each in Contrast} for of in (exam.signal, exam.local))
    return replace(exam, signal=signal, local=local)


def replaced(exam: CoarseExam, contrast: Contrast, signal: Volume, brain: Mask) -> CoarseExam:
    """``exam`` with other voxels for ``contrast``, registered to T1c (T1c itself to T1)."""
    fixed = Contrast.T1 if contrast is Contrast.T1C else Contrast.T1C
    shape = exam.brain.shape
    moving = _centred(limited(signal, brain), shape)
    mask = _centred(brain.astype(np.float32), shape)
    placed, seen = align_coarse(limited(exam.signal[fixed], exam.brain), moving, mask)
    signals: Mapping[Contrast, Volume] = {**exam.signal, contrast: np.maximum(placed, 0)}
    return exam_of_signal(signals, exam.brain & (seen > 0.5), exam.names)


def _kind(exam: Exam) -> str:
    return "raw" if exam.is_raw else "skull-stripped"


def _count(results: dict[str, Counter[str]], situation: str, name: str, exam: CoarseExam, tell: Tell) -> None:
    outcome, reason = outcome_of(exam)
    results.setdefault(situation, Counter())[outcome] += 1
    if situation.startswith(HONEST) != (outcome == "silent"):
        tell(f"{name}: {situation}: {outcome} {reason}".rstrip())


def _centred(array: Volume, shape: tuple[int, ...]) -> Volume:
    """``array`` in the middle of an array of ``shape``; what reaches beyond is cut off."""
    placed = np.zeros(shape, array.dtype)
    counts = [min(n, m) for n, m in zip(array.shape, shape, strict=True)]
    source, target = (
        tuple(slice((n - count) // 2, (n - count) // 2 + count) for n, count in zip(sizes, counts, strict=True))
        for sizes in (array.shape, shape)
    )
    placed[target] = array[source]
    return placed


def _noisy(exam: Exam) -> Exam:
    rng = np.random.default_rng(0)

    def with_noise(volume: Volume) -> Volume:
        scale = _NOISE * float(np.median(volume[exam.brain_zyx]))
        one, two = (rng.standard_normal(volume.shape, np.float32) for _ in range(2))
        noisy: Volume = np.hypot(volume + scale * one, scale * two)
        return noisy

    return replace(exam, volumes_zyx={each: with_noise(volume) for each, volume in exam.volumes_zyx.items()})


def _biased(exam: Exam) -> Exam:
    """Every contrast under a smooth field, in another direction for each."""
    z, y, x = (
        np.linspace(-1, 1, n, dtype=np.float32).reshape([-1 if axis == each else 1 for each in range(3)])
        for axis, n in enumerate(exam.brain_zyx.shape)
    )
    fields: dict[Contrast, Volume] = dict(zip(Contrast, (z, y, x, ((x + y - z) / 3).astype(np.float32)), strict=True))
    return replace(
        exam, volumes_zyx={each: volume * (1 + _FIELD * fields[each]) for each, volume in exam.volumes_zyx.items()}
    )


def _thick(exam: Exam) -> Exam:
    def thick(volume: Volume) -> Volume:
        means = ndimage.uniform_filter1d(volume, _THICK, axis=0)
        index = np.arange(len(volume)) // _THICK * _THICK + _THICK // 2
        slices: Volume = means[np.minimum(index, len(volume) - 1)]
        return slices

    volumes = {each: thick(exam.volumes_zyx[each]) for each in (Contrast.T2, Contrast.FLAIR)}
    return replace(exam, volumes_zyx={**exam.volumes_zyx, **volumes})


def _head(exam: Exam) -> Mask:
    """The head with bone and cavities: the largest piece that has signal on T1c, filled."""
    t1c = exam.volumes_zyx[Contrast.T1C]
    tissue = ndimage.binary_opening(t1c > 0.25 * np.median(t1c[exam.brain_zyx]), iterations=2)
    pieces, _ = ndimage.label(ndimage.binary_fill_holes(ndimage.binary_closing(tissue, iterations=10)))
    head: Mask = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return head
