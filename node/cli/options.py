"""Options and functions that several commands use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from node.cli.account import act_as_owner
from node.config import Config, load_config
from node.config_sections import LogSection
from node.log import set_up_log

if TYPE_CHECKING:
    from node.processing.pipeline import Progress

MIRROR_VARIABLE = "GLIONODE_MODEL_MIRROR"

ConfigOption = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: config.toml of the working folder, if it exists.",
)
JsonOption = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
StudyFolder = click.Path(exists=True, file_okay=False, path_type=Path)


def configure(config_file: Path | None, quiet: bool = False, *, as_caller: bool = False) -> Config:
    """Load the config, set up the log, and go on as the owner of node.folder if root runs the command.

    ``quiet`` logs errors only, for commands that print. ``as_caller``: the command writes nothing into node.folder, and
    goes on as whoever started it.
    """
    config = load_config(config_file)
    if not as_caller:
        act_as_owner(config.folder)
    set_up_log(LogSection(level="error") if quiet else config.log)
    return config


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A progress bar if standard error is a terminal; else None."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda text, fraction: bar.update(task, description=text, completed=fraction)
