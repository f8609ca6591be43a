"""What every card of a model pack says, whatever its kind, and how a wrong key is named. torch is not imported here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from node.methods.contract import REGIONS
from node.study import Contrast, Software

State = Literal["pre-operative", "post-operative"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of a pack: a folder has it, and SEG and SR (VR LO, PS3.5 6.2)."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line that is not empty."""

_AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
        raise ValueError("a path must stay inside the pack's folder")
    return path


def _region(name: str) -> str:
    if name not in REGIONS:
        raise ValueError(f"is none of {', '.join(REGIONS)}")
    return name


def _orientation(code: str) -> str:
    if sorted(_AXES.get(letter, -1) for letter in code) != [0, 1, 2]:
        raise ValueError("three letters are wanted, one of L and R, one of P and A, one of S and I")
    return code


def _spacing(spacing_mm: float) -> float:
    if spacing_mm != 1:
        raise ValueError("the node gives voxels of 1 mm, and no others")
    return spacing_mm


Region = Annotated[str, AfterValidator(_region)]


class CardSection(BaseModel):
    """A part of a card; a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PackFile(CardSection):
    """A file of a pack: path relative to its folder, SHA-256 in hexadecimal, size if it is known beforehand."""

    path: Annotated[str, AfterValidator(_inside)]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int | None = Field(default=None, alias="bytes", gt=0)


class Exposure(StrEnum):
    """Whether networks were trained on a case; if so, their accuracy on it says little of a new patient."""

    UNSEEN = "unseen in training"
    SEEN = "seen in training"
    UNKNOWN = "not known whether seen"


class Grid(CardSection):
    """What a method's voxels are.

    Attributes:
        spacing_mm: of all three axes.
        orientation: for each axis of the input, in order, the side of the patient to which its index grows: ``LPS`` is
            the order x, y, z of DICOM (PS3.3 C.7.6.2.1.1).
    """

    spacing_mm: Annotated[float, AfterValidator(_spacing)]
    orientation: Annotated[str, AfterValidator(_orientation)]

    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """From arrays ``[x, y, z]`` in LPS: which axis each axis of the input is, and which of the input's to flip."""
        order = tuple(_AXES[letter] for letter in self.orientation)
        return order, tuple(axis for axis, letter in enumerate(self.orientation) if letter in "RAI")


class Card(CardSection):
    """What a pack is, for whom it was made, and which bytes belong to it. Its kinds add what their methods need.

    Attributes:
        version: of the pack, as SEG and SR name it.
        method: in words.
        kind: of the method that runs the pack (see ``registry``).
        needed: contrasts without which the method does not run; for a network of other software, in the order of its
            input's channels. T1c is always among them: results lie on its grid.
        optional: contrasts that it takes if they are at hand.
        outputs: the regions that it gives; for a network of other software, in the order of its output's channels.
        states: of the exams that it was made for.
        grid: of its input.
        refuses: which inputs it refuses, in sentences.
        measured_accuracy: what was measured, on how many cases, by whom.
        training_cases: names of labelled cases that the networks were trained on, as patterns (``fnmatch``).
        unseen_cases: names of those of which it is known that they were not.
        cost: by the contrasts at hand, as `subset_name` writes them, and by region: the mean absolute difference in mL
            from the experts' volume (``glionode evaluate --drop``); empty where it was not measured.
        files: every file that is read of the pack.
        is_shipped: its files lie inside the package.
    """

    name: str = Field(pattern=NAME)
    version: str = Field(pattern=r"^[ -\[\]-~]{1,64}$")
    kind: str
    method: Text
    reference: Text
    licence: Text
    training_data: Text
    measured_accuracy: Text
    intended_use: Text
    needed: tuple[Contrast, ...]
    optional: tuple[Contrast, ...] = ()
    outputs: tuple[Region, ...] = Field(min_length=1)
    states: tuple[State, ...] = Field(min_length=1)
    grid: Grid
    refuses: tuple[Text, ...] = ()
    training_cases: tuple[Text, ...] = ()
    unseen_cases: tuple[Text, ...] = ()
    cost: Mapping[str, Mapping[Region, float]] = Field(default_factory=dict)
    files: tuple[PackFile, ...] = ()
    is_shipped: bool = False

    @model_validator(mode="after")
    def _check_lists(self) -> Card:
        if Contrast.T1C not in self.needed:
            raise ValueError("needed lacks T1c, on whose grid results lie")
        for key, values in (
            ("needed and optional", (*self.needed, *self.optional)),
            ("outputs", self.outputs),
            ("states", self.states),
            ("files", [each.path for each in self.files]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{key} name something twice")
        return self

    @property
    def inputs(self) -> tuple[Contrast, ...]:
        """Every contrast that the method takes, in the order of `Contrast`."""
        return tuple(contrast for contrast in Contrast if contrast in (*self.needed, *self.optional))

    @property
    def is_own(self) -> bool:
        """True for a pack that glionode itself knows: its card is part of the package."""
        return self.is_shipped

    def fits(self, contrasts: Collection[Contrast]) -> bool:
        """True if the method runs on an exam that holds ``contrasts``."""
        return set(self.needed) <= set(contrasts)

    def is_for(self, is_postoperative: bool) -> bool:
        """True if the method was made for exams after surgery, or for those before it."""
        return ("post-operative" if is_postoperative else "pre-operative") in self.states

    def exposure(self, case_name: str) -> Exposure:
        """Whether the networks were trained on the labelled case of that name."""
        if any(fnmatchcase(case_name, pattern) for pattern in self.training_cases):
            return Exposure.SEEN
        if any(fnmatchcase(case_name, pattern) for pattern in self.unseen_cases):
            return Exposure.UNSEEN
        return Exposure.UNKNOWN

    def software(self, **parameters: str) -> Software:
        """Algorithm identification for SEG and SR."""
        return Software(name=self.name, version=self.version, parameters=parameters)


def subset_name(contrasts: Collection[Contrast]) -> str:
    """Contrasts in one text, in the order of `Contrast`: ``T1c, T2``."""
    return ", ".join(contrast for contrast in Contrast if contrast in contrasts)


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong: its key, and what is wanted; no value of the file is repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    reason = {"missing": "is missing", "extra_forbidden": "is not supported"}.get(first["type"], first["msg"])
    reason = reason.removeprefix("Value error, ")
    return f"{key}: {reason}" if key else reason
