"""A whole training run on generated cases: it can be stopped, goes on bit for bit, and makes a pack that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generated_cases import write_generated_case

from node.errors import ConfigError
from node.methods.agreement import dice
from node.methods.contract import region_of
from node.methods.dropout_net import DropoutNet
from node.methods.dropout_pack import WEIGHTS, load_networks, read_dropout_card
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import read_truth
from node.study import Contrast
from node.training.held_out import SUBSETS
from node.training.recipe import Recipe, read_recipe
from node.training.run import train_pack

pytestmark = pytest.mark.slow
pytest.importorskip("monai", reason="the extra glionode[train] is not installed")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(Path(__file__).parents[2] / "recipes" / "smoke.toml")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for number in range(1, 5):
        write_generated_case(folder / f"smoke_{number}", number)
    return folder


def shortened(recipe: Recipe, steps: int, seed: int | None = None) -> Recipe:
    section = recipe.optimiser.model_copy(update={"steps": steps, "decay_steps": 5, "round_steps": 5})
    return recipe.model_copy(update={"optimiser": section, "seed": recipe.seed if seed is None else seed})


class StoppedError(Exception):
    """Raised where a test stops a run."""


def test_trained_pack_segments_a_case_that_it_never_saw(tmp_path: Path, recipe: Recipe, cases: Path):
    """The smoke recipe gives weights, card, curves and table, and finds a new head's tumour, with T1c alone too."""
    train_pack(recipe, cases, tmp_path / "pack", "cpu", lambda _: None)
    card = read_dropout_card(tmp_path / "pack")
    assert set(card.accuracy) == set(SUBSETS)
    assert card.folds == recipe.folds
    assert (tmp_path / "pack" / "curves.png").stat().st_size > 0
    case = write_generated_case(tmp_path / "new", 77)
    volumes, truth = read_case(case).volumes_zyx, read_truth(case)
    method = DropoutNet(load_networks(card, tmp_path / "pack"))
    found = method.run(volumes)
    assert dice(found.region_zyx("whole_tumour"), region_of(truth, "whole_tumour")) > 0.8
    alone = method.run({Contrast.T1C: volumes[Contrast.T1C]})
    assert dice(alone.region_zyx("tumour_core"), region_of(truth, "tumour_core")) > 0.6


def test_stopped_run_goes_on_bit_for_bit(tmp_path: Path, recipe: Recipe, cases: Path):
    """A run that is stopped in its midst and started again gives the weights of a run that was never stopped."""
    short = shortened(recipe, 15)
    train_pack(short, cases, tmp_path / "whole", "cpu", lambda _: None)

    def stop(line: str) -> None:
        if line.startswith("fold 1: step 10"):
            raise StoppedError

    with pytest.raises(StoppedError):
        train_pack(short, cases, tmp_path / "stopped", "cpu", stop)
    train_pack(short, cases, tmp_path / "stopped", "cpu", lambda _: None)
    assert (tmp_path / "stopped" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_run_of_another_recipe_is_not_continued(tmp_path: Path, recipe: Recipe, cases: Path):
    """A checkpoint of a run with another seed is refused, and the message names the key."""
    train_pack(shortened(recipe, 10), cases, tmp_path / "pack", "cpu", lambda _: None)
    with pytest.raises(ConfigError, match="seed"):
        train_pack(shortened(recipe, 10, seed=9), cases, tmp_path / "pack", "cpu", lambda _: None)


def test_checkpoint_is_read_without_pickled_code(tmp_path: Path, recipe: Recipe, cases: Path):
    """A checkpoint holds tensors and plain values only."""
    train_pack(shortened(recipe, 10), cases, tmp_path / "pack", "cpu", lambda _: None)
    state = torch.load(tmp_path / "pack" / "training" / "fold1.pt", weights_only=True)
    assert len(state["losses"]) == 10
    assert np.isfinite(state["losses"]).all()
