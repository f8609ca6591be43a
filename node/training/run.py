"""A whole training run: the folds take turns, so that none is left behind when time ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from node.errors import ContentRefused
from node.methods.dropout_pack import load_networks
from node.segmentation.truth import labelled_cases
from node.training.cases import TrainingCase, prepared
from node.training.fold import FoldTraining
from node.training.held_out import as_markdown, held_out_scores, mean_accuracy, write_plot
from node.training.pack_writer import card_of, measured_in, write_card, write_curves, write_weights
from node.training.recipe import Recipe

Progress = Callable[[str], None]


def train_pack(recipe: Recipe, data: Path, out: Path, device: str, progress: Progress) -> None:
    """Train all folds, from their checkpoints if there are any, and write the pack with what it reaches held out.

    Args:
        data: folder of labelled cases, which holds all that the recipe names.
        out: folder of the pack; the folder ``training`` in it has what a run needs to go on, and may be deleted.

    Raises:
        ConfigError: a checkpoint in ``out`` is of another recipe; names the key.
        ContentRefused: a case is not there, or not as training needs it; names it.
    """
    work = out / "training"
    cases = prepared_cases(recipe, data, work / "cases", progress)
    folds = trained_folds(recipe, cases, work, device, progress)
    measure(recipe, folds, data, out, progress)


def measure(recipe: Recipe, folds: Sequence[FoldTraining], data: Path, out: Path, progress: Progress) -> None:
    """Write weights, curves, and the card with what the weights as written reach on the cases held out."""
    digest = write_weights(folds, out)
    write_curves(folds, out / "curves.png")
    card = card_of(recipe, digest, {})
    write_card(card, out)
    scores = held_out_scores(data, card, load_networks(card, out), progress, measured_in(recipe))
    (out / "held_out.md").write_text(as_markdown(scores), "utf-8")
    write_plot(scores, out / "held_out.png")
    write_card(card_of(recipe, digest, mean_accuracy(scores)), out)


def prepared_cases(recipe: Recipe, folder: Path, cache: Path, progress: Progress) -> dict[str, TrainingCase]:
    """The cases that the recipe names, by name, found below ``folder`` and prepared in ``cache``.

    Raises:
        ContentRefused: a case of the recipe is not there; names it.
    """
    found = {case.name: case for case in labelled_cases(folder)}
    names = [name for fold in recipe.folds for name in fold]
    missing = [name for name in names if name not in found]
    if missing:
        raise ContentRefused(f"{folder}: cases of the recipe are not there: {', '.join(missing)}")
    cases = {}
    for number, name in enumerate(names):
        progress(f"case {number + 1} of {len(names)}: {name}")
        cases[name] = prepared(found[name], cache)
    return cases


def seen_by(recipe: Recipe, number: int, cases: Mapping[str, TrainingCase]) -> list[TrainingCase]:
    """The cases that the network of fold ``number`` (from 1) is trained on: with one fold only, all but that one's."""
    held_out = recipe.folds[number - 1]
    return [case for name, case in cases.items() if name not in held_out]


def checkpoint_file(out: Path, number: int) -> Path:
    """Where the state of a fold is kept."""
    return out / f"fold{number}.pt"


def trained_folds(
    recipe: Recipe, cases: Mapping[str, TrainingCase], out: Path, device: str, progress: Progress
) -> Sequence[FoldTraining]:
    """Train every fold to its end, from its checkpoint in ``out`` if there is one.

    Raises:
        ConfigError: a checkpoint is of another recipe; names the key.
    """
    out.mkdir(parents=True, exist_ok=True)
    folds = []
    for number in range(1, len(recipe.folds) + 1):
        fold = FoldTraining(recipe, number, seen_by(recipe, number, cases), device)
        if checkpoint_file(out, number).is_file():
            fold.resume(checkpoint_file(out, number))
        folds.append(fold)
    while not all(fold.is_done for fold in folds):
        for fold in folds:
            _turn(fold, recipe, out, progress)
    return folds


def _turn(fold: FoldTraining, recipe: Recipe, out: Path, progress: Progress) -> None:
    """Some steps of one fold, so that the one furthest ahead waits for the others."""
    if fold.is_done:
        return
    section = recipe.optimiser
    until = min(section.steps, (fold.step // section.round_steps + 1) * section.round_steps)
    losses = [fold.run_step() for _ in range(until - fold.step)]
    fold.save(checkpoint_file(out, fold.number))
    progress(f"fold {fold.number}: step {fold.step} of {section.steps}, loss {sum(losses) / len(losses):.3f}")
