"""Commands about the method alone: the cascade on NIfTI cases, its accuracy, its speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from node.cli_options import ConfigOption, StudyFolder, configure, progress_bar
from node.config import Config

if TYPE_CHECKING:
    from node.pipeline import Progress
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
    """The cascade alone on co-registered, skull-stripped NIfTI (*_flair *_t1 *_t1ce *_t2.nii.gz): labels 0, 1, 2, 4."""
    from node.segmentation.nifti_case import read_case, write_label_map

    config = configure(config_file, quiet=True).with_segmentation(mode=mode, device=device)
    case = read_case(case_dir)
    with progress_bar() as progress:
        result = _cascade(config, progress).run(case.volumes_zyx, seed)
    write_label_map(result.label_zyx, case, out)
    click.echo(f"written: {out}")


@click.command()
@click.argument("cases_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .json or .md file.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="A .png of volumes predicted and true.")
@click.option("--mode", type=click.Choice(["slab", "published"]), help="Default: segmentation.mode of the config.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@ConfigOption
def evaluate(
    cases_dir: Path, out: Path, plot: Path | None, mode: str | None, seed: int, config_file: Path | None
) -> None:
    """Dice, HD95, sensitivity and volumes of the cascade on labelled cases in BraTS form (*_seg.nii.gz)."""
    from node.segmentation import evaluate as evaluation
    from node.segmentation.volume_plot import write_plot

    config = configure(config_file, quiet=True).with_segmentation(mode=mode)
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


@click.group()
def bench() -> None:
    """The benchmarks of docs/performance.md."""


@bench.command("cascade")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", "devices", multiple=True, help="More than one may be given. Default: auto.")
@ConfigOption
def bench_cascade(case_dir: Path, devices: tuple[str, ...], config_file: Path | None) -> None:
    """Wall and CPU seconds, peak memory and speed of each form of the cascade, as ratios in one run."""
    from node.bench.cascade import bench as run

    configure(config_file, quiet=True)
    arguments = [] if config_file is None else ["--config", str(config_file)]
    with progress_bar() as progress:
        results = run(case_dir, arguments, devices or ("auto",), progress)
    table = Table("form", "device", "wall / s", "CPU / s", "CPU ratio", "peak / MiB", "GFLOP", "GFLOP/s", "of peak")
    for each in results:
        numbers = (f"{each.wall_seconds:.1f}", f"{each.cpu_seconds:.1f}")
        ratio = f"{each.cpu_seconds / results[0].cpu_seconds:.2f}"
        speed = (f"{each.gigaflop:.0f}", f"{each.gigaflop_per_second:.0f}", f"{each.peak_share:.0%}")
        table.add_row(each.form, each.device, *numbers, ratio, str(each.peak_mebibytes), *speed)
    Console(width=140).print(table)


@bench.command("series")
@click.argument("labelled_csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--instances", type=click.IntRange(min=640), default=5000, show_default=True, help="For the headers.")
@ConfigOption
def bench_series(labelled_csv: Path, instances: int, config_file: Path | None) -> None:
    """How often the words of a description name the right contrast, also with whole groups left out; and how fast."""
    from node.bench import series_speed
    from node.bench.series import COLUMNS, read_labelled
    from node.bench.series import bench as run

    configure(config_file, quiet=True)
    table = Table(*COLUMNS)
    for score in run(labelled_csv):
        table.add_row(*score.cells())
    Console(width=140).print(table)
    table = Table(*series_speed.COLUMNS)
    for speed in series_speed.bench_speed([row["description"] for row in read_labelled(labelled_csv)], instances):
        table.add_row(*speed.cells())
    Console(width=140).print(table)


@bench.command("receive")
@click.option("--instances", type=click.IntRange(min=4), default=20000, show_default=True, help="For the memory table.")
@click.option(
    "--mebibytes", type=click.IntRange(2, 4095), default=2048, show_default=True, help="Of the large instance."
)
@ConfigOption
def bench_receive(instances: int, mebibytes: int, config_file: Path | None) -> None:
    """The receiver against DCMTK's storescp, what flushing to the disk costs, and its memory: over many instances, and
    while one large Enhanced MR instance arrives.
    """
    from node.bench.receive import SLICES
    from node.bench.receive import bench as run

    configure(config_file, quiet=True)
    with progress_bar() as progress:
        speeds, memory, large = run(instances, mebibytes, progress)
    table = Table("receiver", "associations", f"{SLICES} instances / s", "ms each", "ratio")
    for each in speeds:
        ratio = f"{each.seconds / next(one.seconds for one in speeds if one.associations == each.associations):.1f}"
        numbers = (f"{each.seconds:.2f}", f"{each.seconds / SLICES * 1000:.1f}", ratio)
        table.add_row(each.receiver, str(each.associations), *numbers)
    Console(width=140).print(table)
    table = Table("instances", "resident / MiB", "instances / s")
    for row in memory:
        table.add_row(str(row.instances), f"{row.resident_mebibytes:.1f}", f"{row.instances_per_second:.0f}")
    Console(width=140).print(table)
    table = Table("instance / MiB", "resident before / MiB", "most while it arrives / MiB", "seconds")
    figures = (large.before_mebibytes, large.most_mebibytes, large.seconds)
    table.add_row(str(large.mebibytes), *(f"{figure:.1f}" for figure in figures))
    Console(width=140).print(table)


@bench.command("receiver", hidden=True)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("port", type=click.IntRange(1, 65535))
@ConfigOption
def bench_receiver(folder: Path, port: int, config_file: Path | None) -> None:
    """The receiver alone in this process (used by "bench receive")."""
    from node.bench.receive import run_receiver

    configure(config_file, quiet=True)
    run_receiver(folder, port)


@bench.command("form", hidden=True)
@click.argument("form")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", required=True)
@ConfigOption
def bench_form(form: str, case_dir: Path, device: str, config_file: Path | None) -> None:
    """One form in this process (used by "bench cascade")."""
    from node.bench.cascade import as_json, run_form

    config = configure(config_file, quiet=True)
    pack = (config.segmentation.model, config.models_folder)
    click.echo(as_json(run_form(form, case_dir, pack, device, config.segmentation.threads)))
