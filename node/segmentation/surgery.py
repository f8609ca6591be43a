"""Whether an exam is before or after surgery, by what its headers say and what its images show; and the cavity left.

No trace is no proof: a flap that healed well, a burr hole or a biopsy leaves none that is looked for here. So an exam
is "after surgery" by evidence, or before surgery by assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.errors import AnotherMethodFits, ContentRefused
from node.segmentation.skull import skull_traces
from node.study import Contrast

BEFORE, AFTER = "pre-operative", "post-operative"
"""States of exams, as cards of methods name them."""

LEAST_CAVITY_ML = 0.5
_DARK_T1C, _DARK_FLAIR, _BRIGHT_T2 = 0.6, 0.6, 1.5  # of the brain's median: fluid, which does not enhance
_CLOSING_MM = 5  # a cavity that the tumour surrounds is often left out of the label map
_VOXEL_ML = 1e-3

Volume = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SurgeryTold:
    """What is known before the images are looked at.

    Attributes:
        evidence: what the headers say of surgery, one sentence each.
        is_refused: an exam after surgery is refused.
        method_states: of the exams that the method was made for.
        another_request: from the evidence for surgery to the request (JSON) for a method that was made for exams after
            surgery, None if there is none; asked only where this method was not.
    """

    evidence: tuple[str, ...] = ()
    is_refused: bool = False
    method_states: tuple[str, ...] = (BEFORE,)
    another_request: Callable[[tuple[str, ...]], str | None] | None = None


@dataclass(frozen=True, slots=True)
class ExamState:
    """Before or after surgery.

    Attributes:
        evidence: for surgery, one sentence each; empty: the exam is assumed to be before surgery.
        is_skull_judged: False if the images show no skull, as after skull-stripping.
        cavity_ml: volume of the resection cavity; None: not looked for.
        method_states: of the exams that the method was made for.
    """

    evidence: tuple[str, ...] = ()
    is_skull_judged: bool = False
    cavity_ml: float | None = None
    method_states: tuple[str, ...] = (BEFORE,)

    @property
    def is_postoperative(self) -> bool:
        """Whether there is evidence for surgery."""
        return bool(self.evidence)

    def sentence(self) -> str:
        """The state for a reader of the report."""
        if self.evidence:
            return f"after surgery: {'; '.join(self.evidence)}"
        images = "in headers or skull" if self.is_skull_judged else "in headers; the images show no skull to judge"
        return f"assumed to be before surgery: no trace of surgery {images}"

    def cautions(self) -> list[str]:
        """The cautions on the result of an exam after surgery, or before it if the method was made for none such."""
        if not self.evidence:
            if BEFORE in self.method_states:
                return []
            return [f"the exam is {self.sentence()}. The method was made for exams after surgery alone"]
        if AFTER in self.method_states:
            found = [f"the exam is {self.sentence()}. The method was made for such exams, too"]
        else:
            found = [
                f"the exam is {self.sentence()}. The method was made for exams before surgery: cavity, blood and scar "
                "may be taken for tumour"
            ]
        if self.cavity_ml:
            found.append(
                f"resection cavity: {self.cavity_ml:.1f} mL of fluid without enhancement, in none of the segments"
            )
        return found

    def as_dict(self) -> dict[str, object]:
        """As JSON values, for ``result.json``."""
        return {
            "state": AFTER if self.evidence else "pre-operative assumed",
            "sentence": self.sentence(),
            "evidence": list(self.evidence),
            "skull_judged": self.is_skull_judged,
            "cavity_ml": None if self.cavity_ml is None else round(self.cavity_ml, 3),
        }


def exam_state(told: SurgeryTold, t1c_zyx: Volume, brain_zyx: Mask) -> ExamState:
    """The state of an exam.

    Args:
        t1c_zyx: the T1c head on the common grid (LPS, 1 mm), not skull-stripped.
        brain_zyx: its brain mask.

    Raises:
        ContentRefused: the exam is after surgery, and such exams are refused.
        AnotherMethodFits: it is after surgery, the method was not made for such exams, and another was.
    """
    traces = skull_traces(t1c_zyx, brain_zyx)
    seen = [
        f"{each.kind} in skull and scalp on the {each.side}, {each.area_cm2:.0f} cm², none at its mirror (T1c)"
        for each in traces or ()
    ]
    state = ExamState((*told.evidence, *seen), traces is not None, method_states=told.method_states)
    if state.is_postoperative and told.is_refused:
        raise ContentRefused(f"the exam is {state.sentence()}; [clinical] postoperative is 'refuse'")
    if state.is_postoperative and AFTER not in told.method_states and told.another_request is not None:
        request = told.another_request(state.evidence)
        if request is not None:
            raise AnotherMethodFits(f"the exam is {state.sentence()}", request)
    return state


def resection_cavity(volumes_zyx: Mapping[Contrast, Volume], label_zyx: NDArray[np.uint8]) -> Mask | None:
    """The fluid in and among the labelled tumour: dark on T1c and FLAIR, bright on T2; empty below `LEAST_CAVITY_ML`.

    Only in an exam after surgery is this a resection cavity; before it, it may be a cyst of the tumour.

    Args:
        volumes_zyx: skull-stripped contrasts on the common grid, background exactly 0.
        label_zyx: BraTS labels on it.

    Returns:
        A mask ``[z, y, x]``; None if T2 or FLAIR is missing, without which fluid is not known from necrosis.
    """
    if not {Contrast.T1C, Contrast.T2, Contrast.FLAIR} <= volumes_zyx.keys():
        return None
    brain = volumes_zyx[Contrast.T1C] > 0
    relative = {
        each: volumes_zyx[each] / np.median(volumes_zyx[each][brain])
        for each in (Contrast.T1C, Contrast.T2, Contrast.FLAIR)
    }
    fluid = brain & (relative[Contrast.T1C] < _DARK_T1C) & (relative[Contrast.FLAIR] < _DARK_FLAIR)
    fluid &= relative[Contrast.T2] > _BRIGHT_T2
    among = _filled(label_zyx > 0)
    parts, _ = ndimage.label(ndimage.binary_opening(fluid & among))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    cavity: Mask = (sizes * _VOXEL_ML >= LEAST_CAVITY_ML)[parts]
    return cavity


def _filled(mask: Mask) -> Mask:
    """``mask`` closed over gaps of up to 10 mm, its holes filled."""
    boxes: Sequence[tuple[slice, ...]] = ndimage.find_objects(mask.astype(np.uint8))
    filled = mask.copy()
    for box in boxes:
        padded = np.pad(mask[box], _CLOSING_MM)
        far = ndimage.distance_transform_edt(~padded) > _CLOSING_MM
        closed = ndimage.binary_fill_holes(ndimage.distance_transform_edt(~far) > _CLOSING_MM)
        inner = (slice(_CLOSING_MM, -_CLOSING_MM),) * 3
        filled[box] |= closed[inner]
    return filled
