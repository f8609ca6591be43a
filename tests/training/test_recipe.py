"""Recipes of training: what is wrong is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import ConfigError
from node.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"

WRONG = {
    'name = "a"': "folds",
    'name = "a"\nfolds = [["x"], ["x"]]': "x",
    'name = "a"\nfolds = [["x"]]\n[optimiser]\nstep = 3': "optimiser.step",
    'name = "a"\nfolds = [["x"]]\n[contrasts]\ndrop = 1.5': "contrasts.drop",
    'name = "a"\nfolds = [["x"]]\n[patches]\nsize_zyx = [20, 32, 32]': "patches.size_zyx",
    'name = "a"\nfolds = [["x"]]\n[optimiser]\nsteps = 10': "optimiser",
}


@pytest.mark.parametrize(("text", "key"), WRONG.items(), ids=WRONG.values())
def test_wrong_recipe_is_refused_by_file_and_key(tmp_path: Path, text: str, key: str):
    """A missing key, an unknown one, a value out of range and a case in two folds are each named, with the file."""
    file = tmp_path / "recipe.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"recipe\.toml") as raised:
        read_recipe(file)
    assert key in str(raised.value)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_recipes_of_the_project_are_valid(file: Path):
    """Every recipe in recipes/ can be read and has more than one fold, so that cases are held out."""
    assert len(read_recipe(file).folds) > 1
