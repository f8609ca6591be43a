"""The command ``priority``."""

from __future__ import annotations

from pathlib import Path

import click

from node.cli.options import ConfigOption, configure
from node.cli.studies import StudyUid, study_ledger


def _level(_context: click.Context, _parameter: click.Parameter, value: str) -> str | int:
    from node.workflow.priority_levels import LEVELS

    if value in LEVELS:
        return value
    if value.isdecimal() and 1 <= int(value) <= 1000:
        return int(value)
    raise click.BadParameter(f"'{value}' is not {', '.join(LEVELS)} or a number from 1 to 1000")


@click.command()
@StudyUid
@click.argument("level", callback=_level)
@ConfigOption
def priority(study_instance_uid: str, level: str | int, config_file: Path | None) -> None:
    """Let a waiting study be begun earlier or later.

    LEVEL is urgent, high, normal, low or a number from 1 (first) to 1000.
    """
    from node.processing.priority import change_priority

    with study_ledger(configure(config_file, quiet=True), study_instance_uid) as client:
        for workflow_id in change_priority(client, study_instance_uid, level):
            click.echo(f"priority {level}: {workflow_id}")
