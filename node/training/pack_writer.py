"""A training run's outcome: weights, card and curves in a folder that `dropout_pack` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from node.methods.card import CARD, DropoutCard, Grid, PackFile
from node.methods.contract import REGIONS
from node.methods.dropout_pack import WEIGHTS, Accuracy
from node.methods.dropout_unet import CHANNELS, half_precision
from node.methods.network import Precision
from node.study import Contrast
from node.training.fold import FoldTraining
from node.training.recipe import Recipe

_SMOOTHED_STEPS = 20

_METHOD = "3-D residual U-Nets with contrast dropout, mean of all networks, every second one on the mirrored exam"
_INTENDED_USE = "Research. Segmentation of glioma on pre-operative adult brain MR. Not a medical device."
_LICENCE = "The networks: as glionode (MIT). The training cases keep their own terms: see training_data"


def write_weights(folds: Sequence[FoldTraining], folder: Path) -> str:
    """Write the moving means of all networks in float16; the file's SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"fold{fold.number}/{name}": tensor for fold in folds for name, tensor in half_precision(fold.average).items()
    }
    temporary = folder / (WEIGHTS + ".part")
    save_file(tensors, temporary)
    temporary.chmod(0o644)  # every account may run the pack, as those of node.methods.packs
    temporary.replace(folder / WEIGHTS)
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def measured_in(recipe: Recipe) -> Precision:
    """The precision in which a pack is measured: that of its training, where inference has it."""
    return "bfloat16" if recipe.optimiser.precision == "bfloat16" else "float32"


def card_of(recipe: Recipe, weights_sha256: str, accuracy: Accuracy) -> DropoutCard:
    """The card of a run: what it is made from, and what was measured."""
    names = [name for fold in recipe.folds for name in fold]
    return DropoutCard(
        name=recipe.name,
        version=weights_sha256[:7],
        kind="dropout_net",
        needed=(Contrast.T1C,),
        optional=tuple(contrast for contrast in CHANNELS if contrast is not Contrast.T1C),
        outputs=REGIONS,
        grid=Grid(spacing_mm=1, orientation="LPS"),
        measured_accuracy=_in_words(accuracy, len(names)),
        files=(PackFile(path=WEIGHTS, sha256=weights_sha256),),
        measured_by=f"glionode measure CASES --pack PACK --precision {measured_in(recipe)}",
        states=("pre-operative",),
        training_data=recipe.training_data or f"{len(names)} labelled cases, named in folds",
        widths=recipe.network.widths,
        blocks=recipe.network.blocks,
        steps=recipe.optimiser.steps,
        folds=recipe.folds,
        accuracy=accuracy,
        reference="glionode train",
        method=_METHOD,
        intended_use=_INTENDED_USE,
        licence=_LICENCE,
    )


def _in_words(accuracy: Accuracy, cases: int) -> str:
    if not accuracy:
        return "not measured yet"
    means = [f"{subset} {' / '.join(f'{each:.3f}' for each in values.values())}" for subset, values in accuracy.items()]
    return f"Held-out mean Dice, {cases} cases, whole tumour / core / enhancing: {'; '.join(means)}"


def _toml(value: Any) -> str:
    """A value of a card as TOML writes it on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def write_card(card: DropoutCard, folder: Path) -> None:
    """Write ``card.toml``. JSON's strings, numbers and lists are TOML's, too."""
    fields = card.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"folds", "accuracy"})
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
    lines += ["# the cases that each network did not see; it saw those of the other folds", "folds = ["]
    lines += [f"    {json.dumps(names)}," for names in card.folds] + ["]"]
    for subset, values in card.accuracy.items():
        lines += ["", f"[accuracy.{json.dumps(subset)}]", *(f"{region} = {value}" for region, value in values.items())]
    temporary = folder / (CARD + ".part")
    temporary.write_text("\n".join(lines) + "\n", "utf-8")
    temporary.replace(folder / CARD)


def write_curves(folds: Sequence[FoldTraining], file: Path) -> None:
    """Plot the loss of every fold over its steps, smoothed, as PNG."""
    # imported here, since matplotlib creates its cache folders when it is imported
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    for fold in folds:
        width = min(_SMOOTHED_STEPS, len(fold.losses))
        starts = range(len(fold.losses) - width + 1)
        means = [sum(fold.losses[start : start + width]) / width for start in starts]
        axis.plot([start + width for start in starts], means, label=f"fold {fold.number}")
    axis.set(xlabel="step", ylabel=f"loss (Dice + cross entropy), mean of {_SMOOTHED_STEPS} steps")
    axis.legend(frameon=False)
    axis.grid(visible=True, alpha=0.3)
    figure.savefig(file, dpi=110)
