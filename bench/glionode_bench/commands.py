"""The commands of ``glionode bench``: parsing and printing, nothing else."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar


@click.command("cascade")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", "devices", multiple=True, help="May be given more than once. Default: auto.")
@ConfigOption
def bench_cascade(case_dir: Path, devices: tuple[str, ...], config_file: Path | None) -> None:
    """Measure wall and CPU seconds, peak memory and speed of each form of the cascade, and their ratio in one run."""
    from glionode_bench.cascade import bench as run

    configure(config_file, quiet=True, as_caller=True)
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


@click.command("series")
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

    configure(config_file, quiet=True, as_caller=True)
    table = Table(*COLUMNS)
    for score in run(labelled_csv):
        table.add_row(*score.cells())
    Console(width=140).print(table)
    table = Table(*series_speed.COLUMNS)
    for speed in series_speed.bench_speed([row["description"] for row in read_labelled(labelled_csv)], instances):
        table.add_row(*speed.cells())
    Console(width=140).print(table)


@click.command("plausibility")
@click.option("--data", type=StudyFolder, required=True, help="Folder of exams: DICOM, raw NIfTI, cases in BraTS form.")
@ConfigOption
def bench_plausibility(data: Path, config_file: Path | None) -> None:
    """Measure how often a deliberate lie in an exam is found, and how often an honest exam is doubted.

    Also the CPU time of the checks.
    """
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


@click.command("surgery")
@click.option("--data", type=StudyFolder, required=True, help="Folder of exams: DICOM, raw NIfTI, cases in BraTS form.")
@click.option("--descriptions", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Labelled CSV.")
@ConfigOption
def bench_surgery(data: Path, descriptions: Path | None, config_file: Path | None) -> None:
    """Measure how often traces of surgery are found where they were made, and where there are none."""
    from glionode_bench.exams import exams
    from glionode_bench.surgery import COLUMNS, bench_labelled, bench_words
    from glionode_bench.surgery import bench as run

    configure(config_file, quiet=True)
    rows, seconds = run(exams(data), lambda line: click.echo(line, err=True))
    rows += bench_labelled(data) + ([bench_words(descriptions)] if descriptions else [])
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=140).print(table)
    click.echo(
        f"CPU seconds of the check of the skull: mean {sum(seconds) / len(seconds):.2f}, most {max(seconds):.2f}"
    )


@click.command("receive")
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
    """Compare the receiver with DCMTK's storescp, measure the cost of flushing to disk, and the receiver's memory.

    The memory is that over many instances, while one large Enhanced MR instance arrives, and under attack by
    unauthenticated peers.
    """
    from glionode_bench.attack import bench_attacks
    from glionode_bench.receive import SLICES
    from glionode_bench.receive import bench as run

    configure(config_file, quiet=True, as_caller=True)
    with progress_bar() as progress:
        speeds, memory, large = run(instances, mebibytes, progress)
        attacks, bound_mebibytes = bench_attacks(progress or (lambda _what, _share: None))
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
    table = Table("attack", "connections", "sent / MiB", "resident before / MiB", "growth at most / MiB")
    for held in attacks:
        numbers = (f"{held.sent_mebibytes:.0f}", f"{held.before_mebibytes:.1f}", f"{held.growth_mebibytes:.1f}")
        table.add_row(held.attack, str(held.connections), *numbers)
    Console(width=140).print(table)
    most = max(held.growth_mebibytes for held in attacks)
    click.echo(f"growth under attack: {most:.0f} MiB at most; bound: {bound_mebibytes:.0f} MiB")


@click.command("scale")
@click.option("--studies", type=click.IntRange(min=2), default=20000, show_default=True, help="In the database.")
@click.option("--held", type=click.IntRange(min=0), default=2000, show_default=True, help="Of these, in the spool.")
@click.option("--instances", type=click.IntRange(min=6400), default=50000, show_default=True, help="In one study.")
@click.option("--processed", type=click.IntRange(min=1), default=500, show_default=True, help="By one worker.")
@click.option(
    "--seconds", type=click.IntRange(min=1), default=600, show_default=True, help="At most for these; then fewer are."
)
@ConfigOption
def bench_scale(
    studies: int, held: int, instances: int, processed: int, seconds: int, config_file: Path | None
) -> None:
    """Measure lists, page, start and orders of a node that has processed many studies.

    Also the selection from one large study, and the worker's memory over many studies.
    """
    from glionode_bench.scale import bench_database
    from glionode_bench.scale_studies import bench_large_study, bench_worker

    configure(config_file, quiet=True)
    with progress_bar() as progress:
        costs = bench_database(studies, min(held, studies), progress)
        selections = bench_large_study(instances, progress)
        memory = bench_worker(processed, seconds, progress)
    table = Table("what", f"with {studies} studies / s", "CPU / s", "with one / s", "CPU / s", "target")
    for cost in costs:
        table.add_row(*cost.cells())
    Console(width=140).print(table)
    table = Table("instances of the study", "selected within / s", "CPU / s", "peak / MiB")
    for each in selections:
        figures = (each.seconds, each.cpu_seconds, each.most_mebibytes)
        table.add_row(str(each.instances), *(f"{figure:.1f}" for figure in figures))
    Console(width=140).print(table)
    table = Table("studies processed", "resident / MiB", "seconds each")
    for row in [row for row in memory if row.studies == 1 or row.studies % max(1, len(memory) // 10) == 0]:
        table.add_row(str(row.studies), f"{row.resident_mebibytes:.0f}", f"{row.seconds_each:.1f}")
    Console(width=140).print(table)


@click.command("start")
@click.option("--runs", type=click.IntRange(min=1), default=7, show_default=True, help="Of each command, in turn.")
def bench_start(runs: int) -> None:
    """Measure how long each short command takes from its start to its end, beside Python alone.

    The commands run in turn in a folder of their own, and the best of each is shown. Of the node's processes, only the
    imports are measured.
    """
    from glionode_bench.start import COLUMNS
    from glionode_bench.start import bench as run

    table = Table(*COLUMNS)
    with progress_bar() as progress:
        rows = run(runs, progress)
    for row in rows:
        table.add_row(*row.cells(rows[0]))
    Console(width=140).print(table)


@click.command("select", hidden=True)
@click.argument("study_folder", type=StudyFolder)
@ConfigOption
def bench_select(study_folder: Path, config_file: Path | None) -> None:
    """Select from one study in this process (used by "bench scale")."""
    from glionode_bench.scale_studies import run_selection

    click.echo(run_selection(study_folder, configure(config_file, quiet=True)))


@click.command("worker", hidden=True)
@click.argument("worker_config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def bench_worker_process(worker_config: Path) -> None:
    """Run a worker with a quick network (used by "bench scale")."""
    from glionode_bench.scale_studies import run_worker

    run_worker(worker_config)


@click.command("receiver", hidden=True)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("port", type=click.IntRange(1, 65535))
@ConfigOption
def bench_receiver(folder: Path, port: int, config_file: Path | None) -> None:
    """Run only the receiver in this process (used by "bench receive")."""
    from glionode_bench.receiver_process import run_receiver

    configure(config_file, quiet=True, as_caller=True)
    run_receiver(folder, port)


@click.command("form", hidden=True)
@click.argument("form")
@click.argument("case_dir", type=StudyFolder)
@click.option("--device", required=True)
@ConfigOption
def bench_form(form: str, case_dir: Path, device: str, config_file: Path | None) -> None:
    """Run one form in this process (used by "bench cascade")."""
    from glionode_bench.cascade import as_json, run_form

    config = configure(config_file, quiet=True, as_caller=True)
    pack = (config.segmentation.models[0], config.models_folder)
    click.echo(as_json(run_form(form, case_dir, pack, device, config.segmentation.threads)))
