"""The command ``migrate``: the records of glionode 0.1.0 become those of this version."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from node.cli.options import ConfigOption, configure


@click.command("migrate")
@ConfigOption
def migrate_database(config_file: Path | None) -> None:
    """Rewrite the database of glionode 0.1.0 for this version, once. Stop the node first.

    Nothing is changed unless everything is. Running it again changes nothing. Exit code 1: some records cannot be read;
    they are listed, and stay.
    """
    from node.workflow.engine import migrate_records

    migrated = migrate_records(configure(config_file, quiet=True))
    for place in migrated.unreadable:
        click.echo(f"not readable, left as it is: {place}", err=True)
    click.echo(f"{migrated.rewritten} records rewritten" if migrated.rewritten else "nothing to rewrite")
    sys.exit(1 if migrated.unreadable else 0)
