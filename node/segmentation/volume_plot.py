"""Plot of predicted against true volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.methods.card import Exposure
from node.methods.contract import REGIONS
from node.segmentation.evaluate import CaseScore
from node.sr_writer.codes import SEGMENTS

_MARKERS = {Exposure.UNSEEN: "o", Exposure.SEEN: "D", Exposure.UNKNOWN: "s"}


def write_plot(scores: Sequence[CaseScore], file: Path) -> None:
    """Plot a mark per case and region on logarithmic axes with the line of equality; empty regions are at 0.01 mL.

    The form of a mark tells whether the networks were trained on the case.
    """
    # imported here, since matplotlib creates its cache folders when it is imported
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axis = figure.subplots()
    colours = {concept.region: tuple(channel / 255 for channel in concept.rgb) for concept in SEGMENTS}
    for region in REGIONS:
        for exposure in sorted({case.exposure for case in scores}):
            of_exposure = [case for case in scores if case.exposure is exposure]
            of_cases = [case.regions[region] for case in of_exposure if region in case.regions]
            if not of_cases:  # a region that the method does not give
                continue
            true = [max(each.true_ml, 0.01) for each in of_cases]
            predicted = [max(each.predicted_ml, 0.01) for each in of_cases]
            label, marker = f"{region.replace('_', ' ')}, {exposure}", _MARKERS[exposure]
            axis.scatter(true, predicted, color=colours[region], label=label, marker=marker, edgecolor="black", s=45)
    axis.plot([0.008, 500], [0.008, 500], color="grey", linewidth=1, zorder=0)
    axis.set(xscale="log", yscale="log", xlim=(0.008, 500), ylim=(0.008, 500), aspect="equal")
    axis.set_xlabel("true volume / mL (0.01: none)")
    axis.set_ylabel("predicted volume / mL (0.01: none)")
    axis.legend(loc="upper left", frameon=False, fontsize="small")
    axis.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(file, dpi=110)
