"""The commands ``series`` and ``classify``: the contrast of each series."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli.options import ConfigOption, JsonOption, StudyFolder, configure
from node.study import Comparison, Selection, Series


class _StudyByDefault(click.Group):
    """``glionode series STUDY_DIR`` is ``glionode series study STUDY_DIR``."""

    default = "study"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_StudyByDefault, subcommand_metavar="STUDY_DIR [--json] [--config F] | unknown [--json] [--config F]")
def series() -> None:
    """List the contrast of each series of a study.

    Also prints the evidence, and why series were passed over. STUDY_DIR is a folder of DICOM files. Into a pipe or a
    file, one line is written per series, with tabs between the columns.
    """


@series.command("study", hidden=True)
@click.argument("study_dir", type=StudyFolder)
@JsonOption
@ConfigOption
def series_of_study(study_dir: Path, as_json: bool, config_file: Path | None) -> None:
    """List the contrast of each series, the evidence, and why series were passed over; also for a refused study."""
    from node.errors import SelectionRefused
    from node.series.explain import selection_as_dict
    from node.series.headers import read_study
    from node.series.select import Choice, select
    from node.series.subject import with_subject
    from node.series.vocabulary import load_vocabulary

    section = configure(config_file, quiet=True, as_caller=True).series
    choice = Choice(shortfall=section.shortfall)
    compare = _images if section.compare_images else None
    selection: Selection | None
    refusal: SelectionRefused | None = None
    try:
        found = select(read_study(study_dir), load_vocabulary(dict(section.rules)), choice, compare)
        selection = with_subject(found)
    except SelectionRefused as error:
        refusal, selection = error, error.considered
    if selection and as_json:
        reason = str(refusal) if refusal else None
        click.echo(json.dumps(selection_as_dict(selection) | {"refusal": reason}, indent=2, ensure_ascii=False))
    elif selection:
        _print_selection(selection)
    if refusal:
        raise refusal


def _print_selection(selection: Selection) -> None:
    """A table on a terminal; into a file or a pipe, one line per series, whose columns are separated by tabs."""
    from node.series.explain import selection_rows, selection_table

    console = Console()
    if console.is_terminal:
        console.print(selection_table(selection))
        return
    for line in selection_rows(selection):
        click.echo(line)
    for caution in selection.cautions:
        click.echo(f"caution: {caution}", err=True)


def _images(one: Series, other: Series, twin: Series | None = None, /) -> Comparison:
    # imported only if a study needs it, because the import takes seconds
    from node.segmentation.enhancement import compare_enhancement

    return compare_enhancement(one, other, twin)


@series.command("unknown")
@JsonOption
@ConfigOption
def unknown_series(as_json: bool, config_file: Path | None) -> None:
    """List descriptions that no known word decided.

    Also prints, for each, a line for [series.rules] of the config that would decide it.
    """
    from node.series.unknown import proposed_rule, read_unknown
    from node.series.vocabulary import load_vocabulary

    config = configure(config_file, quiet=True)
    vocabulary = load_vocabulary(dict(config.series.rules))
    found = [(one, proposed_rule(one, vocabulary)) for one in read_unknown(config.unknown_descriptions_file)]
    if as_json:
        click.echo(json.dumps([{**asdict(one), "rule": rule} for one, rule in found], indent=2, ensure_ascii=False))
        return
    caption = "? stands for the group that fits: T1, T2, FLAIR, other, ..." if found else "none so far"
    table = Table(title="Descriptions that no known word decided", caption=caption)
    for column in ("description", "series", "first seen", "last seen", "timing of", "line for [series.rules]"):
        table.add_column(column, overflow="fold")  # nothing is cut
    for one, rule in found:
        days = (one.first_seen, one.last_seen)
        cells = (one.description, str(one.count), *days, one.physics or "", rule or "no word to go by")
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


@click.command()
@click.option("--csv", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dicom", "folder", type=StudyFolder, help="Folder of any number of studies: one row per series.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@ConfigOption
def classify(source: Path | None, folder: Path | None, out: Path, config_file: Path | None) -> None:
    """Add column "predicted" (T1, T1c, T2, FLAIR, other) to a CSV with column "description" and optional tags.

    With --dicom, the rows come from the headers of the files in a folder; they hold no attribute of the patient.
    """
    from node.series.audit import audit_folder
    from node.series.classify import classify_csv
    from node.series.vocabulary import load_vocabulary

    if (source is None) == (folder is None):
        raise click.UsageError("give either --csv or --dicom")
    vocabulary = load_vocabulary(dict(configure(config_file, quiet=True, as_caller=True).series.rules))
    if source is not None:
        click.echo(f"{classify_csv(source, out, vocabulary)} descriptions classified: {out}")
    elif folder is not None:
        audit = audit_folder(folder, out, vocabulary)
        for file, reason in audit.unreadable:
            click.echo(f"unreadable: {file}: {reason}", err=True)
        lost = f", {len(audit.unreadable)} files unreadable" if audit.unreadable else ""
        click.echo(f"{audit.series_count} series classified{lost}: {out}")
