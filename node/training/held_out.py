"""Accuracy on cases held out: each labelled case by the one network that did not see it, per subset of contrasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from node.errors import ContentRefused
from node.methods.agreement import dice
from node.methods.card import DropoutCard
from node.methods.contract import REGIONS, region_of
from node.methods.dropout_net import DropoutNet
from node.methods.dropout_pack import Accuracy
from node.methods.dropout_unet import CHANNELS, DropoutUNet
from node.methods.network import Precision
from node.segmentation.nifti_case import read_case
from node.segmentation.truth import labelled_cases, read_truth
from node.study import Contrast

SUBSETS: Mapping[str, tuple[Contrast, ...]] = {
    "all four": CHANNELS,
    "without FLAIR": (Contrast.T1, Contrast.T1C, Contrast.T2),
    "without T1": (Contrast.FLAIR, Contrast.T1C, Contrast.T2),
    "without T2": (Contrast.FLAIR, Contrast.T1, Contrast.T1C),
    "T1c alone": (Contrast.T1C,),
}
"""The subsets that are measured."""


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """Dice of each region (1 if both masks are empty), of one case with one subset of contrasts."""

    case: str
    subset: str
    dice: Mapping[str, float]


def held_out_scores(
    folder: Path,
    card: DropoutCard,
    networks: Mapping[str, DropoutUNet],
    progress: Callable[[str], None],
    precision: Precision = "float32",
) -> list[HeldOutScore]:
    """Scores of all labelled cases below ``folder`` that a fold of the pack holds out.

    Raises:
        ContentRefused: there is none.
    """
    cases = [(case, card.fold_of(case.name)) for case in labelled_cases(folder)]
    held_out = [(case, fold) for case, fold in cases if fold is not None]
    if not held_out:
        raise ContentRefused(f"{folder}: no case that a fold of pack {card.name} holds out")
    scores = []
    for case, fold in held_out:
        progress(case.name)
        name = f"fold{fold}"
        scores += _scores_of(case, DropoutNet({name: networks[name]}, precision=precision))
    return scores


def _scores_of(folder: Path, method: DropoutNet) -> list[HeldOutScore]:
    volumes, truth = read_case(folder).volumes_zyx, read_truth(folder)
    scores = []
    for subset, contrasts in SUBSETS.items():
        result = method.run({contrast: volumes[contrast] for contrast in contrasts})
        of_regions = {region: dice(result.region_zyx(region), region_of(truth, region)) for region in REGIONS}
        scores.append(HeldOutScore(folder.name, subset, of_regions))
    return scores


def mean_accuracy(scores: Sequence[HeldOutScore]) -> Accuracy:
    """Mean Dice over the cases, by subset and region."""
    return {
        subset: {
            region: round(fmean(each.dice[region] for each in scores if each.subset == subset), 3) for region in REGIONS
        }
        for subset in SUBSETS
    }


def as_markdown(scores: Sequence[HeldOutScore]) -> str:
    """Tables of the means per subset, and of every case with all four contrasts and with T1c alone."""
    head = "| {} | whole tumour | tumour core | enhancing tumour |\n|---|---|---|---|\n"
    means = mean_accuracy(scores).items()
    text = head.format("contrasts") + "".join(_row(subset, values) for subset, values in means)
    for subset in ("all four", "T1c alone"):
        chosen = [each for each in scores if each.subset == subset]
        text += "\n" + head.format(f"case, {subset}") + "".join(_row(each.case, each.dice) for each in chosen)
    return text


def _row(name: str, values: Mapping[str, float]) -> str:
    return f"| {name} | " + " | ".join(f"{values[region]:.3f}" for region in REGIONS) + " |\n"


def write_plot(scores: Sequence[HeldOutScore], file: Path) -> None:
    """Plot the Dice of every case and the mean, per subset and region, as PNG."""
    # imported here, since matplotlib creates its cache folders when it is imported
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, len(REGIONS), sharey=True)
    means = mean_accuracy(scores)
    for axis, region in zip(axes, REGIONS, strict=True):
        for place, subset in enumerate(SUBSETS):
            values = [each.dice[region] for each in scores if each.subset == subset]
            axis.scatter([place] * len(values), values, s=14, alpha=0.5, color="tab:blue")
            axis.hlines(means[subset][region], place - 0.3, place + 0.3, color="black")
        axis.set(title=region.replace("_", " "), ylim=(-0.02, 1.02))
        axis.set_xticks(range(len(SUBSETS)), list(SUBSETS), rotation=60, ha="right", fontsize="small")
        axis.grid(visible=True, axis="y", alpha=0.3)
    axes[0].set_ylabel("Dice, each case held out (bar: mean)")
    figure.savefig(file, dpi=110)
