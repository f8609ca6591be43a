"""The command ``spool``: the retention status of each study on disk, and deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli.options import ConfigOption, JsonOption, configure
from node.config import Config

if TYPE_CHECKING:
    from node.retention.cleanup import CleanupResult
    from node.retention.retention_status import RetentionStatus


@click.command()
@JsonOption
@click.option("--clean", is_flag=True, help="Delete now what [retention] allows to delete.")
@click.option("--dry-run", is_flag=True, help="With --clean: only list what would be deleted.")
@ConfigOption
def spool(as_json: bool, clean: bool, dry_run: bool, config_file: Path | None) -> None:
    """List the studies on disk, and why each is held.

    Also prints the free space. With --clean, deletes the inputs and results that may be deleted.
    """
    from node.retention import cleanup
    from node.scp.spool import Spool

    if dry_run and not clean:
        raise click.UsageError("--dry-run is for --clean")
    config = configure(config_file, quiet=True)
    snapshot = cleanup.take_snapshot(config)
    cleaned = cleanup.clean_all(config, snapshot, dry_run) if clean else cleanup.CleanupResult([], [], 0)
    free_bytes = Spool(config.spool_folder).free_bytes()
    if as_json:
        facts = {
            "studies": [each.as_dict() for each in snapshot.held],
            "instances": sum(each.instances for each in snapshot.held),
            "bytes": sum(each.bytes for each in snapshot.held),
            "free_bytes": free_bytes,
            "watermark_bytes": config.scp.watermark_mebibytes * 2**20,
            "deleted": _deleted(cleaned, dry_run) if clean else None,
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if not clean:
        Console().print(_table(snapshot.held))
    word = "would delete" if dry_run else "deleted"
    for uid in cleaned.studies:
        click.echo(f"{word}: inputs of study {uid}")
    for folder in cleaned.results:
        click.echo(f"{word}: results {folder}")
    if clean and not (cleaned.studies or cleaned.results):
        click.echo("nothing may go; `glionode spool` says why")
    click.echo(_space(config, free_bytes))


def _deleted(cleaned: CleanupResult, dry_run: bool) -> dict[str, Any]:
    return {"is_dry_run": dry_run, "studies": cleaned.studies, "results": cleaned.results}


def _table(held: list[RetentionStatus]) -> Table:
    table = Table("study", "instances", "MiB", "latest (UTC)", "state", "held because")
    for each in held:
        latest = f"{each.arrived:%Y-%m-%d %H:%M}" if each.arrived else ""
        cells = (each.study_instance_uid, str(each.instances), f"{each.bytes / 2**20:.1f}", latest, each.state)
        table.add_row(*cells, Text(each.held_because or "may be deleted"))
    total_bytes = sum(each.bytes for each in held)
    table.add_section()
    table.add_row(f"{len(held)} studies", str(sum(each.instances for each in held)), f"{total_bytes / 2**20:.1f}")
    return table


def _space(config: Config, free_bytes: int) -> str:
    watermark = config.scp.watermark_mebibytes
    free = f"free: {free_bytes // 2**20} MiB; nothing is received below {watermark} MiB (scp.watermark_mebibytes)"
    return free if free_bytes >= watermark * 2**20 else f"{free}: NOTHING IS RECEIVED NOW"
