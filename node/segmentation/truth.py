"""The expert's label maps of labelled cases, in the two conventions of the BraTS challenges."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import ContentRefused, InstanceRefused
from node.methods.contract import CORE, ENHANCING, OEDEMA
from node.segmentation.nifti_case import find_file, read_lps

TRUTH_SUFFIXES = ("_seg", "-seg")
"""Endings of the file names of label maps: to 2022, and since 2023."""

LabelMap = NDArray[np.uint8]


class LabelConvention(StrEnum):
    """What the values of a label map mean; 1 is necrotic and non-enhancing core and 2 oedema in both.

    ``brats2017``: 4 is enhancing tumour (BraTS 2017 to 2022). ``brats2023``: 3 is enhancing tumour, and 4 the resection
    cavity, which is no tumour (since BraTS 2023; the cavity since 2024).
    """

    BRATS_2017 = "brats2017"
    BRATS_2023 = "brats2023"


_MEANINGS = {
    LabelConvention.BRATS_2017: {1: CORE, 2: OEDEMA, 4: ENHANCING},
    LabelConvention.BRATS_2023: {1: CORE, 2: OEDEMA, 3: ENHANCING, 4: 0},
}


def labelled_cases(folder: Path) -> list[Path]:
    """Folders below ``folder`` (or ``folder`` itself) that hold a label map.

    Raises:
        InstanceRefused: there is none.
    """
    found = {file.parent for suffix in TRUTH_SUFFIXES for file in folder.rglob(f"*{suffix}.nii*")}
    if not found:
        raise InstanceRefused(f"{folder}: no labelled case (*_seg.nii.gz or *-seg.nii.gz) in it")
    return sorted(found)


def convention_of(cases: Iterable[Path], named: LabelConvention | None = None) -> LabelConvention:
    """The convention of the label maps of ``cases``, which are of one challenge: ``named``, or what all values tell.

    Where no value tells, no case has enhancing tumour or a cavity, and both conventions give the same regions.

    Raises:
        ContentRefused: a value has no meaning in the convention named, or values of both occur; names case and value.
    """
    cases_with: dict[int, str] = {}  # a label, and the first case that has it
    for folder in cases:
        for value in np.unique(_stored(folder)):
            cases_with.setdefault(int(value), folder.name)
    if named is None:
        if {3, 4} <= cases_with.keys():
            raise ContentRefused(
                f"labels 3 ({cases_with[3]}) and 4 ({cases_with[4]}) occur: if 3 is enhancing tumour and 4 a resection "
                "cavity, say --labels brats2023; if cases of both conventions are in one folder, evaluate them apart"
            )
        named = LabelConvention.BRATS_2023 if 3 in cases_with else LabelConvention.BRATS_2017
    for value in cases_with.keys() - {0, *_MEANINGS[named]}:
        raise ContentRefused(f"{cases_with[value]}: label {value} has no meaning in the convention {named}")
    return named


def read_truth(folder: Path, convention: LabelConvention | None = None) -> LabelMap:
    """The expert's label map of a case, ``[z, y, x]``, axes turned to LPS, in the values of ``contract``.

    ``convention``: None means that the values of this case decide. A resection cavity counts as no tumour.

    Raises:
        ContentRefused: see `convention_of`.
    """
    table = np.zeros(256, np.uint8)
    for value, meaning in _MEANINGS[convention_of([folder], convention)].items():
        table[value] = meaning
    truth: LabelMap = table[_stored(folder)]
    return truth


def _stored(folder: Path) -> LabelMap:
    values = read_lps(find_file(folder, *TRUTH_SUFFIXES))
    if ((values < 0) | (values > 4) | (values != np.round(values))).any():
        raise ContentRefused(f"{folder.name}: the label map holds values other than 0 to 4")
    return values.astype(np.uint8)
