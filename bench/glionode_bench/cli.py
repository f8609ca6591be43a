"""``glionode bench``: the benchmarks of docs/performance.md, as a command that this distribution adds to glionode."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar


@click.group()
def bench() -> None:
    """The benchmarks of docs/performance.md."""


@bench.command("cascade")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", "devices", multiple=True, help="May be given more than once. Default: auto.")
@ConfigOption
def bench_cascade(case_dir: Path, devices: tuple[str, ...], config_file: Path | None) -> None:
    """Measure wall and CPU seconds, peak memory and speed of each form of the cascade, and their ratio in one run."""
    from glionode_bench.cascade import bench as run

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
@click.option(
    "--instances",
    type=click.IntRange(min=640),
    default=5000,
    show_default=True,
    help="Instances of the study whose headers are read.",
)
@ConfigOption
def bench_series(labelled_csv: Path, instances: int, config_file: Path | None) -> None:
    """Measure how often the word rules find the right contrast, also with whole groups left out, and how fast."""
    from glionode_bench import series_speed
    from glionode_bench.series import COLUMNS, read_labelled
    from glionode_bench.series import bench as run

    configure(config_file, quiet=True)
    table = Table(*COLUMNS)
    for score in run(labelled_csv):
        table.add_row(*score.cells())
    Console(width=140).print(table)
    table = Table(*series_speed.COLUMNS)
    for speed in series_speed.bench_speed([row["description"] for row in read_labelled(labelled_csv)], instances):
        table.add_row(*speed.cells())
    Console(width=140).print(table)


@bench.command("plausibility")
@click.option("--data", type=StudyFolder, required=True, help="Folder of exams: DICOM, raw NIfTI, cases in BraTS form.")
@ConfigOption
def bench_plausibility(data: Path, config_file: Path | None) -> None:
    """Measure how often a deliberate lie in an exam is found, how often an honest exam is doubted, and the CPU time."""
    from glionode_bench.exams import exams
    from glionode_bench.plausibility import COLUMNS
    from glionode_bench.plausibility import bench as run

    configure(config_file, quiet=True)
    rows, seconds = run(exams(data), lambda line: click.echo(line, err=True))
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=140).print(table)
    click.echo(f"CPU seconds of the checks on an exam: mean {sum(seconds) / len(seconds):.2f}, most {max(seconds):.2f}")


@bench.command("receive")
@click.option(
    "--instances",
    type=click.IntRange(min=4),
    default=20000,
    show_default=True,
    help="Instances sent for the memory table.",
)
@click.option(
    "--mebibytes", type=click.IntRange(2, 4095), default=2048, show_default=True, help="Size of the large instance."
)
@ConfigOption
def bench_receive(instances: int, mebibytes: int, config_file: Path | None) -> None:
    """Compare the receiver with DCMTK's storescp, measure the cost of flushing to disk, and the receiver's memory over
    many instances and while one large Enhanced MR instance arrives.
    """
    from glionode_bench.receive import SLICES
    from glionode_bench.receive import bench as run

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
    """Run only the receiver in this process (used by "bench receive")."""
    from glionode_bench.receive import run_receiver

    configure(config_file, quiet=True)
    run_receiver(folder, port)


@bench.command("form", hidden=True)
@click.argument("form")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", required=True)
@ConfigOption
def bench_form(form: str, case_dir: Path, device: str, config_file: Path | None) -> None:
    """Run one form in this process (used by "bench cascade")."""
    from glionode_bench.cascade import as_json, run_form

    config = configure(config_file, quiet=True)
    pack = (config.segmentation.model, config.models_folder)
    click.echo(as_json(run_form(form, case_dir, pack, device, config.segmentation.threads)))
