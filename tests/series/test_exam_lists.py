"""Whole examinations as lists of series: each is chosen as a radiologist would choose, or refused for a true reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.errors import SelectionRefused
from node.series.explain import selection_as_dict
from node.series.facts import SeriesFacts
from node.series.select import select_by_facts
from node.study import Contrast, Instance, Series, Study

AXIAL, CORONAL, SAGITTAL = (1.0, 0, 0, 0, 1, 0), (1.0, 0, 0, 0, 0, -1), (0.0, 1, 0, 0, 0, -1)


def kind(te, tr, sequence, dimensions="2D", ti=None, flip=90.0, count=28, step=5.0):
    """Facts of one kind of acquisition; times in ms, the distance of the slices in mm."""
    return {
        "echo_time_ms": te,
        "repetition_time_ms": tr,
        "scanning_sequence": tuple(sequence.split()),
        "mr_acquisition_type": dimensions,
        "inversion_time_ms": ti,
        "flip_angle": flip,
        "slice_count": count,
        "slice_step_mm": step,
        "images_per_position": 1.0,
        "image_orientation_patient": AXIAL,
        "image_type": ("ORIGINAL", "PRIMARY", "M"),
    }


KINDS = {
    "se": kind(12.0, 550.0, "SE"),
    "spc": kind(11.0, 700.0, "SE", "3D", count=176, step=1.0),
    "mprage": kind(3.0, 2000.0, "GR IR", "3D", 900.0, 9.0, 176, 1.0),
    "gre": kind(4.0, 9.0, "GR", "3D", None, 20.0, 176, 1.0),
    "t2": kind(98.0, 5200.0, "SE"),
    "t23d": kind(400.0, 3200.0, "SE", "3D", count=176, step=1.0),
    "flair": kind(110.0, 9000.0, "SE IR", ti=2500.0),
    "flair3d": kind(390.0, 5000.0, "SE IR", "3D", 1800.0, count=176, step=1.0),
    "dwi": kind(90.0, 5000.0, "EP") | {"diffusion_b_value": 1000.0},
    "swi": kind(20.0, 28.0, "GR", "3D", flip=15.0, count=72, step=2.0),
    "tof": kind(5.0, 24.0, "GR", "3D", flip=20.0, count=120, step=1.0),
    "perf": kind(30.0, 1800.0, "EP"),
    "loc": kind(4.0, 8.6, "GR", flip=20.0, count=9, step=20.0),
    "haste": kind(90.0, 1400.0, "SE", count=20, step=8.0),
    "ciss": kind(2.5, 5.5, "GR", "3D", flip=50.0, count=176, step=0.8),
    "pd": kind(12.0, 5200.0, "SE"),
}


@dataclass
class Exam:
    """One examination of ``exam_lists.txt``: its series with their facts, and what is to be chosen."""

    name: str
    expected: tuple[str, ...]
    is_bare: bool
    series: list[Series] = field(default_factory=list)
    facts: dict[str, SeriesFacts] = field(default_factory=dict)

    def add(self, line: str) -> None:
        """Add the series of one line."""
        left, _, right = line.partition("|")
        number, minute, description = left.strip().split(" ", 2)
        name, *changes = right.split()
        values = dict(KINDS[name])
        for change in changes:
            values |= changed(change)
        if "coverage_mm" not in values:
            values["coverage_mm"] = values["slice_count"] * values["slice_step_mm"]
        if self.is_bare:
            kept = ("slice_count", "slice_step_mm", "coverage_mm", "images_per_position")
            values = {key: value for key, value in values.items() if key in kept}
        moment = None if minute == "-" else datetime(2020, 1, 1, 14) + timedelta(minutes=int(minute))
        uid = f"1.2.3.{number}"
        instance = Instance(Path(f"{number}.dcm"), f"{uid}.1", "1.2.840.10008.5.1.4.1.1.4")
        self.series.append(Series(uid, "1.2.3", "MR", description, int(number), "1.2.3.9", (instance,)))
        self.facts[uid, ""] = SeriesFacts(
            description=description, frame_of_reference_uid="1.2.3.9", acquisition_datetime=moment, **values
        )

    def outcome(self, vocabulary) -> tuple[str, ...]:
        """Series numbers chosen, or "refused" and the reason."""
        try:
            chosen = select_by_facts(Study("1.2.3", tuple(self.series)), self.facts, vocabulary).chosen
        except SelectionRefused as error:
            return ("refused", str(error))
        return tuple(str(chosen[contrast].series_number) for contrast in Contrast)

    def verdict(self, vocabulary) -> str:
        """Right, missed (refused, though a choice was expected), or wrong."""
        found = self.outcome(vocabulary)
        if self.expected[0] == "refused":
            is_right = found[0] == "refused" and f"no {self.expected[1]}:" in found[1]
            return "right" if is_right else f"wrong: {found}"
        if found[0] == "refused":
            return f"missed: {found[1]}"
        agrees = all(one in wanted.split("/") for one, wanted in zip(found, self.expected, strict=True))
        return "right" if agrees else f"wrong: {found}"


def changed(change: str) -> dict[str, Any]:
    """The facts that one word behind the kind of acquisition changes."""
    words: dict[str, dict[str, Any]] = {
        "tag": {"contrast_bolus_agent": "Gadovist"},
        "fs": {"scan_options": ("FS",)},
        "cor": {"image_orientation_patient": CORONAL},
        "sag": {"image_orientation_patient": SAGITTAL},
        "derived": {"image_type": ("DERIVED", "PRIMARY", "M")},
    }
    if change in words:
        return words[change]
    key, value = change.split("=")
    names = {
        "n": "slice_count",
        "d": "slice_step_mm",
        "cov": "coverage_mm",
        "te": "echo_time_ms",
        "tr": "repetition_time_ms",
        "ti": "inversion_time_ms",
    }
    if key == "bp":
        return {"body_part_examined": value}
    return {names[key]: int(value) if key == "n" else float(value)}


def read_exams() -> list[Exam]:
    """The examinations of ``exam_lists.txt``."""
    exams: list[Exam] = []
    for line in Path(__file__).with_name("exam_lists.txt").read_text("utf-8").splitlines():
        if line.startswith("=="):
            name, _, expected = line.removeprefix("==").partition("->")
            words = [word for word in expected.split() if word != "bare"]
            exams.append(Exam(name.strip(), tuple(words), "bare" in expected.split()))
        elif re.match(r"\d", line):
            exams[-1].add(line)
    return exams


EXAMS = {exam.name: exam for exam in read_exams()}


def test_there_are_at_least_sixty_exams():
    """The lists are read, each with four expected series or the contrast of the refusal."""
    assert len(EXAMS) >= 60
    assert all(len(exam.expected) == (2 if exam.expected[0] == "refused" else 4) for exam in EXAMS.values())


@pytest.mark.parametrize("name", EXAMS)
def test_exam_is_chosen_or_refused_as_a_radiologist_would(name, vocabulary):
    """The four right series, or a refusal that names the contrast that is missing."""
    assert EXAMS[name].verdict(vocabulary) == "right"


@pytest.mark.parametrize("name", EXAMS)
def test_the_order_of_arrival_changes_no_word(name, vocabulary):
    """Reversed and rotated, the same series give the same choice, verdicts, cautions and refusal."""
    exam = EXAMS[name]
    orders = (exam.series, exam.series[::-1], exam.series[2:] + exam.series[:2])
    told = [told_of(Study("1.2.3", tuple(series)), exam.facts, vocabulary) for series in orders]
    assert told[0] == told[1] == told[2]


def told_of(study, facts, vocabulary):
    """Everything that is told of a selection or of its refusal."""
    try:
        return selection_as_dict(select_by_facts(study, facts, vocabulary))
    except SelectionRefused as error:
        return str(error), error.considered and selection_as_dict(error.considered)
