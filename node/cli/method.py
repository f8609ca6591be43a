"""Commands for the method alone, without DICOM: ``segment`` and ``evaluate`` on NIfTI cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar
from node.config import Config

if TYPE_CHECKING:
    from node.processing.pipeline import Progress
    from node.segmentation.cascade import Cascade


@click.command()
@click.argument("case_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .nii.gz file.")
@click.option("--mode", type=click.Choice(["slab", "published"]), help="Default: segmentation.mode of the config.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--device", help="auto, cpu, cuda or cuda:N. Default: segmentation.device of the config.")
@ConfigOption
def segment(
    case_dir: Path, out: Path, mode: str | None, seed: int, device: str | None, config_file: Path | None
) -> None:
    """Segment one NIfTI case with the networks alone.

    CASE_DIR holds four co-registered, skull-stripped files (*_flair *_t1 *_t1ce *_t2.nii.gz); labels are 0, 1, 2, 4.
    """
    from node.segmentation.nifti_case import read_case, write_label_map

    config = configure(config_file, quiet=True, as_caller=True).with_segmentation(mode=mode, device=device)
    case = read_case(case_dir)
    with progress_bar() as progress:
        result = _cascade(config, progress).run(case.volumes_zyx, seed)
    write_label_map(result.label_zyx, case, out)
    click.echo(f"written: {out}")


@click.command()
@click.argument("cases_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .json or .md file.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="A .png of predicted and true volumes.")
@click.option("--mode", type=click.Choice(["slab", "published"]), help="Default: segmentation.mode of the config.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@ConfigOption
def evaluate(
    cases_dir: Path, out: Path, plot: Path | None, mode: str | None, seed: int, config_file: Path | None
) -> None:
    """Measure the accuracy of the cascade on labelled cases.

    Writes Dice, HD95, sensitivity and volumes. The cases are in BraTS form, with labels in *_seg.nii.gz.
    """
    from node.segmentation import evaluate as evaluation
    from node.segmentation.volume_plot import write_plot

    config = configure(config_file, quiet=True, as_caller=True).with_segmentation(mode=mode)
    cases = evaluation.labelled_cases(cases_dir)
    with progress_bar() as progress:
        scores = evaluation.evaluate(cases, _cascade(config), seed, progress)
    settings = {"model": config.segmentation.model, "mode": config.segmentation.mode, "seed": str(seed)}
    write = evaluation.write_markdown if out.suffix == ".md" else evaluation.write_json
    write(scores, settings, out)
    if plot:
        write_plot(scores, plot)
    click.echo(f"{len(scores)} cases: {out}")


def _cascade(config: Config, progress: Progress | None = None) -> Cascade:
    from node.segmentation.cascade import Cascade
    from node.segmentation.device import prepare_device
    from node.segmentation.packs import load_networks, read_card

    section = config.segmentation
    device = prepare_device(section.device, section.threads)
    card = read_card(section.model)
    networks = load_networks(card, config.models_folder, device, config.memory_bytes, section.precision)
    return Cascade(networks, section.mode, progress)
