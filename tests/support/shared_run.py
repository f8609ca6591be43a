"""Resources that the tests of one run share, in all its processes: each is built once, under a lock."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from node.demo import patient as patients
from node.demo.patient import SyntheticPatient, make_patient
from node.demo.run import DemoOutcome, run_demo
from node.study import Contrast


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder that all processes of a test run know."""

    folder: Path

    def built(self, name: str, build: Callable[[Path], object]) -> Path:
        """The subfolder ``name``, filled by ``build`` in the first process that asks for it; others wait."""
        target, done = self.folder / name, self.folder / f"{name}.done"
        with FileLock(self.folder / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                build(target)
                done.touch()
        return target


def saved_patient(folder: Path) -> None:
    """Make the synthetic patient (seed 0) and save its arrays."""
    patient = make_patient()
    for contrast, signal in patient.contrast_zyx.items():
        np.save(folder / f"{contrast.value}.npy", signal)
    for name in ("label_zyx", "brain_zyx", "affine_lps"):
        np.save(folder / f"{name}.npy", getattr(patient, name))


def stored_patient(folder: Path) -> SyntheticPatient:
    """The patient that `saved_patient` left; the workers' memory holds its arrays once."""
    label, brain, affine = (np.load(folder / f"{n}.npy", "r") for n in ("label_zyx", "brain_zyx", "affine_lps"))
    contrasts = {contrast: np.load(folder / f"{contrast.value}.npy", "r") for contrast in Contrast}
    return SyntheticPatient(0, contrasts, label, brain, affine)


@dataclass(frozen=True, slots=True)
class Demo:
    """A finished demo: its outcome, the progress it reported, and the patient that it made."""

    outcome: DemoOutcome
    told: list[tuple[str, float]]
    patient: SyntheticPatient


def demo_folder(folder: Path, models_folder: Path) -> Path:
    """A folder for a demo that need not fetch the model."""
    folder.mkdir()
    (folder / "models").symlink_to(models_folder)
    return folder


def run_whole_demo(out: Path, models_folder: Path) -> Demo:
    """Run the demo with its own synthetic patient."""
    told: list[tuple[str, float]] = []
    made: list[SyntheticPatient] = []

    def make_and_keep() -> SyntheticPatient:
        made.append(make_patient())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patients, "make_patient", make_and_keep)
        outcome = run_demo(None, demo_folder(out, models_folder), "", lambda text, part: told.append((text, part)))
    (patient,) = made
    return Demo(outcome, told, patient)
