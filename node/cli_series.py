"""Commands about which series is which: series, classify."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from node.cli_options import ConfigOption, JsonOption, StudyFolder, configure


@click.command()
@click.argument("study_dir", type=StudyFolder)
@JsonOption
@ConfigOption
def series(study_dir: Path, as_json: bool, config_file: Path | None) -> None:
    """Which series is which, why, and what was passed over."""
    from node.series.explain import selection_as_dict, selection_table
    from node.series.headers import read_study
    from node.series.select import select
    from node.series.vocabulary import load_vocabulary

    config = configure(config_file, quiet=True)
    selection = select(read_study(study_dir), load_vocabulary(dict(config.series.rules)))
    if as_json:
        click.echo(json.dumps(selection_as_dict(selection), indent=2, ensure_ascii=False))
    else:
        Console().print(selection_table(selection))


@click.command()
@click.option("--csv", "source", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@ConfigOption
def classify(source: Path, out: Path, config_file: Path | None) -> None:
    """Add column "predicted" (T1, T1c, T2, FLAIR, other) to a CSV with column "description" and optional tags."""
    from node.series.classify import classify_csv
    from node.series.vocabulary import load_vocabulary

    config = configure(config_file, quiet=True)
    count = classify_csv(source, out, load_vocabulary(dict(config.series.rules)))
    click.echo(f"{count} descriptions classified: {out}")
