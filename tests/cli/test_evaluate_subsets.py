"""``glionode evaluate`` with fewer contrasts, and with another method."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cards import OTHERS, know_cards, make_card
from command_line import run_glionode
from node_process import write_config


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """One labelled case: a bright cube in a dim one; FLAIR, T1 and T2 are as dim everywhere."""
    folder = tmp_path / "cases" / "one"
    folder.mkdir(parents=True)
    dim = np.zeros((20, 22, 24), np.float32)
    dim[3:17, 3:19, 3:21] = 100 + np.arange(18)
    bright = dim.copy()
    bright[6:10, 8:12, 10:14] = 1000
    for suffix, array in (("flair", dim), ("t1", dim), ("t1ce", bright), ("t2", dim)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"one_{suffix}.nii.gz")
    label = np.where(bright == 1000, 4, 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "one_seg.nii.gz")
    return folder.parent


def evaluated(tmp_path: Path, cases: Path, *arguments: str) -> tuple[int, str, dict]:
    """Exit code, standard error and report of the command."""
    out = tmp_path / "report.json"
    config_file = write_config(tmp_path / "node", segmentation={"models": ["any_t1c", "core"]})
    done = run_glionode("evaluate", cases, "--out", out, "--config", config_file, *arguments)
    return done.exit_code, done.stderr, json.loads(out.read_text()) if out.exists() else {}


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    know_cards(monkeypatch, make_card("any_t1c", optional=OTHERS), make_card("core", outputs=("tumour_core",)))


def test_dropped_contrasts_are_not_given_to_the_method(tmp_path: Path, cases: Path) -> None:
    """The report names the method and the contrasts that it was given."""
    code, _, report = evaluated(tmp_path, cases, "--drop", "t2, FLAIR")
    assert code == 0
    assert (report["settings"]["model"], report["settings"]["contrasts"]) == ("any_t1c", "T1, T1c")
    assert report["cases"][0]["regions"]["enhancing_tumour"]["dice"] == 1.0


def test_method_is_measured_on_the_regions_that_it_gives(tmp_path: Path, cases: Path) -> None:
    """A method for the core alone has scores and a mean of the core alone; the plot is drawn all the same."""
    code, _, report = evaluated(tmp_path, cases, "--model", "core", "--plot", str(tmp_path / "plot.png"))
    assert code == 0
    assert report["settings"]["contrasts"] == "T1c"
    assert list(report["cases"][0]["regions"]) == ["tumour_core"]
    assert [list(means) for means in report["summary"].values()] == [["tumour_core"]]
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.parametrize("dropped", ["t1c", "t1,t3"])
def test_what_no_method_can_do_without_is_not_dropped(tmp_path: Path, cases: Path, dropped: str) -> None:
    """Without T1c, or with a name that is no contrast, the command ends with a reason and writes nothing."""
    code, error, report = evaluated(tmp_path, cases, "--drop", dropped)
    assert code != 0
    assert ("any_t1c needs T1c" if dropped == "t1c" else "'t3' is none of T1, T1c, T2, FLAIR") in error
    assert report == {}
