"""The admin's hands: studies, show."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli_options import ConfigOption, JsonOption, configure


@click.command()
@JsonOption
@ConfigOption
def studies(as_json: bool, config_file: Path | None) -> None:
    """Every study the node has seen, its state, and the reason if it has no result."""
    from node.ledger import read_ledger

    lines = read_ledger(configure(config_file, quiet=True))
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in lines], indent=2, ensure_ascii=False))
        return
    table = Table("study", "state", "since", "reason")
    for line in lines:
        table.add_row(line.study_instance_uid, line.state, f"{line.since:%Y-%m-%d %H:%M:%S}", Text(line.reason or ""))
    Console().print(table)


@click.command()
@click.argument("study_instance_uid")
@ConfigOption
def show(study_instance_uid: str, config_file: Path | None) -> None:
    """One study: its state, its workflows and its result, as JSON."""
    from node.ledger import read_ledger

    config = configure(config_file, quiet=True)
    found = [line for line in read_ledger(config) if line.study_instance_uid == study_instance_uid]
    if not found:
        raise click.UsageError(f"no study {study_instance_uid}")
    shown = found[0].as_dict()
    file = config.work_folder / (found[0].workflow_id or "") / "result.json"
    shown["result"] = json.loads(file.read_text("utf-8")) if file.is_file() else None
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
