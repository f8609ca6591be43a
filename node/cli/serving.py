"""The commands ``serve``, which runs the node, and ``check``, which tests each part that it needs."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import structlog

from node.cli.file_access import weak_files
from node.cli.options import ConfigOption, configure


@click.command()
@ConfigOption
@click.option("--role", type=click.Choice(["all", "receive", "work"]), default="all", show_default=True)
@click.option("--parent", type=int, hidden=True, help="Process id; a worker ends when that process is gone.")
def serve(config_file: Path | None, role: str, parent: int | None) -> None:
    """Run the node until SIGTERM. With --role, only the receiver or only a worker."""
    from node.app import serve as run

    config = configure(config_file)
    for line in weak_files(config, config_file):
        structlog.get_logger().warning("file_open_to_others", file=line)
    run(config, role, config_file, parent)


@click.command()
@ConfigOption
def check(config_file: Path | None) -> None:
    """Check each part that the node needs. Prints ok, FAIL, or warn for what works otherwise than the config says.

    The parts are config, files, ports, spool, database, model, device, notices and destinations.
    """
    from node.cli.check import check as findings

    is_well = True
    for finding in findings(configure(config_file, quiet=True), config_file):
        is_well &= finding.is_well
        click.echo(f"{finding.word} {finding.part}: {finding.text}")
    sys.exit(0 if is_well else 1)
