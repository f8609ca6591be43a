"""The command ``demo``."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from node.cli.options import MIRROR_VARIABLE, StudyFolder, progress_bar
from node.config_sections import LogSection
from node.log import set_up_log


@click.command()
@click.argument("study_dir", type=StudyFolder, required=False)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo-out"), show_default=True)
def demo(study_dir: Path | None, out: Path) -> None:
    """Run the demonstration with an embedded PACS.

    The PACS sends the study in STUDY_DIR (default: a synthetic patient) to the node and receives the results. The
    folder --out then holds them and overlay.png.
    """
    from node.demo.run import run_demo

    set_up_log(LogSection(level="error"))
    with progress_bar() as progress:
        outcome = run_demo(study_dir, out, os.environ.get(MIRROR_VARIABLE, ""), progress)
    Console().print(outcome.table())
    for line in outcome.lines():
        click.echo(line)
