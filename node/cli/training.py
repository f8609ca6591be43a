"""Commands for networks of our own: ``train`` makes a pack from labelled cases, ``measure`` measures one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click

from node.cli.options import StudyFolder
from node.errors import ConfigError


@click.command()
@click.argument("recipe_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", required=True, type=StudyFolder, help="Folder of labelled cases in BraTS form.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the pack.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="CPU threads; 0: one per core.")
def train(recipe_file: Path, data: Path, out: Path, device: str, threads: int) -> None:
    """Train networks by a recipe, and measure them on the cases that each did not see.

    Writes weights, card, curves and the table of accuracy into the folder of --out. A run that was stopped goes on when
    the same command is given again.
    """
    if find_spec("monai") is None:
        raise ConfigError("training needs MONAI, which is not installed; run: pip install 'glionode[train]'")
    from node.segmentation.device import prepare_device
    from node.training.recipe import read_recipe
    from node.training.run import train_pack

    recipe = read_recipe(recipe_file)
    train_pack(recipe, data, out, prepare_device(device, threads), click.echo)
    click.echo(f"written: {out}")


@click.command()
@click.argument("cases_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .md file.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="A .png of all scores.")
@click.option("--pack", type=click.Path(file_okay=False, path_type=Path), help="Default: the pack that is shipped.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
def measure(
    cases_dir: Path, out: Path, plot: Path | None, pack: Path | None, precision: Literal["float32", "bfloat16"]
) -> None:
    """Measure a pack of our own: each labelled case by the network that did not see it, per subset of contrasts."""
    from node.methods.dropout_pack import SHIPPED, load_networks, read_dropout_card
    from node.segmentation.device import prepare_device
    from node.training.held_out import as_markdown, held_out_scores, write_plot

    prepare_device("cpu", 0)
    folder = pack or SHIPPED
    card = read_dropout_card(folder)
    scores = held_out_scores(cases_dir, card, load_networks(card, folder), click.echo, precision)
    out.write_text(as_markdown(scores), "utf-8")
    if plot:
        write_plot(scores, plot)
    click.echo(f"written: {out}")
