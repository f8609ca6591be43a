"""Plot of predicted against true volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.segmentation.evaluate import CaseScore
from node.segmentation.exam import REGIONS
from node.sr_writer.codes import SEGMENTS


def write_plot(scores: Sequence[CaseScore], file: Path) -> None:
    """Plot a point per case and region on logarithmic axes with the line of equality; empty regions are at 0.01 mL."""
    # imported here, since matplotlib creates its cache folders when it is imported
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axis = figure.subplots()
    colours = {concept.region: tuple(channel / 255 for channel in concept.rgb) for concept in SEGMENTS}
    for region in REGIONS:
        true = [max(case.regions[region].true_ml, 0.01) for case in scores]
        predicted = [max(case.regions[region].predicted_ml, 0.01) for case in scores]
        axis.scatter(true, predicted, color=colours[region], label=region.replace("_", " "), edgecolor="black", s=45)
    axis.plot([0.008, 500], [0.008, 500], color="grey", linewidth=1, zorder=0)
    axis.set(xscale="log", yscale="log", xlim=(0.008, 500), ylim=(0.008, 500), aspect="equal")
    axis.set_xlabel("true volume / mL (0.01: none)")
    axis.set_ylabel("predicted volume / mL (0.01: none)")
    axis.legend(loc="upper left", frameon=False)
    axis.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(file, dpi=110)
