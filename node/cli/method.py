"""Commands for the method alone, without DICOM: ``segment`` and ``evaluate`` on NIfTI cases."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar
from node.config import Config
from node.errors import ModelPackError
from node.study import Contrast

if TYPE_CHECKING:
    from node.methods.card import Card
    from node.methods.contract import Method
    from node.processing.pipeline import Progress


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

    CASE_DIR holds four co-registered, skull-stripped files (*_flair *_t1 *_t1ce *_t2.nii.gz, or since
    2023 *-t2f *-t1n *-t1c *-t2w); the labels written are 0, 1, 2, 4.
    """
    from node.segmentation.nifti_case import read_case, write_label_map

    config = configure(config_file, quiet=True, as_caller=True).with_segmentation(mode=mode, device=device)
    case = read_case(case_dir)
    with progress_bar() as progress:
        card = _card(config, None, case.volumes_zyx)
        volumes = {contrast: case.volumes_zyx[contrast] for contrast in card.inputs}
        result = _method(config, card, progress).run(volumes, seed)
    write_label_map(result.label_zyx, case, out)
    click.echo(f"written: {out}")


@click.command()
@click.argument("cases_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .json or .md file.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="A .png of predicted and true volumes.")
@click.option("--mode", type=click.Choice(["slab", "published"]), help="Default: segmentation.mode of the config.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--labels",
    type=click.Choice(["brats2017", "brats2023"]),
    help="Enhancing tumour is 4 (to BraTS 2022), or 3 with the cavity as 4.  [default: as the labels tell]",
)
@click.option("--model", help="Model pack. Default: the first of segmentation.models that fits.")
@click.option("--drop", default="", help="Contrasts that the method is not given, as in t2,flair.")
@ConfigOption
def evaluate(cases_dir: Path, out: Path, plot: Path | None, labels: str | None, **options: Any) -> None:
    """Measure the accuracy of a method on labelled cases.

    Writes Dice, HD95, sensitivity and volumes. The cases are in BraTS form, with labels in *_seg.nii.gz or
    *-seg.nii.gz. Cases that the networks were trained on, by the card of the model pack, have a table of their own.
    """
    from node.methods.card import subset_name
    from node.segmentation import evaluate as evaluation
    from node.segmentation.truth import LabelConvention, convention_of, labelled_cases
    from node.segmentation.volume_plot import write_plot

    config = configure(options["config_file"], quiet=True, as_caller=True).with_segmentation(mode=options["mode"])
    section, seed = config.segmentation, options["seed"]
    dropped = _dropped(options["drop"])
    at_hand = [contrast for contrast in Contrast if contrast not in dropped]
    card = _card(config, options["model"], at_hand)
    taken = [contrast for contrast in at_hand if contrast in card.inputs]
    cases = labelled_cases(cases_dir)
    convention = convention_of(cases, LabelConvention(labels) if labels else None)
    with progress_bar() as progress:
        method = _method(config, card)
        scores = evaluation.evaluate(
            cases,
            lambda volumes: method.run({contrast: volumes[contrast] for contrast in taken}, seed),
            card.exposure,
            convention,
            progress,
        )
    settings = {"model": card.name, "mode": section.mode, "seed": str(seed)}
    if len(taken) < len(Contrast):
        settings["contrasts"] = subset_name(taken)
    write = evaluation.write_markdown if out.suffix == ".md" else evaluation.write_json
    write(scores, settings, out)
    if plot:
        write_plot(scores, plot)
    click.echo(f"{len(scores)} cases: {out}")


def _card(config: Config, model: str | None, contrasts: Collection[Contrast]) -> Card:
    """The card of ``model``, or the first of the config's packs that is installed and can do with ``contrasts``.

    Raises:
        ModelPackError: there is no such pack, or it needs other contrasts.
    """
    from node.methods.card import subset_name
    from node.methods.registry import cards_at_hand

    cards = cards_at_hand([model] if model else config.segmentation.models, config.models_folder)
    for card in cards:
        if card.fits(contrasts):
            return card
    needs = "; ".join(f"{card.name} needs {subset_name(card.needed)}" for card in cards)
    raise ModelPackError(f"no method for {subset_name(contrasts) or 'no contrast'}: {needs}")


def _method(config: Config, card: Card, progress: Progress | None = None) -> Method:
    from node.methods.registry import Runtime, load_method
    from node.segmentation.device import prepare_device

    section = config.segmentation
    device = prepare_device(section.device, section.threads)
    runtime = Runtime(device, config.memory_bytes, section.precision, section.mode, progress)
    return load_method(card, config.models_folder, runtime)


def _dropped(text: str) -> frozenset[Contrast]:
    """Contrasts named in ``text``, separated by commas, in any case.

    Raises:
        click.BadParameter: a name is none of the four.
    """
    names = {contrast.casefold(): contrast for contrast in Contrast}
    given = [part.strip().casefold() for part in text.split(",") if part.strip()]
    for name in given:
        if name not in names:
            raise click.BadParameter(f"'{name}' is none of {', '.join(Contrast)}", param_hint="--drop")
    return frozenset(names[name] for name in given)
