"""The commands of model packs: which there are, and how they are installed and verified."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from node.cli.account import act_as_owner
from node.cli.options import MIRROR_VARIABLE, ConfigOption, JsonOption, StudyFolder, configure
from node.config import Config
from node.errors import ModelPackError

if TYPE_CHECKING:
    from node.methods.card import Card

_MOST_LINES = 2
"""Of an accuracy in the list; all of it is in the JSON."""


@click.group()
def models() -> None:
    """Model packs: list, pull, add, verify."""


@models.command("list")
@JsonOption
@ConfigOption
def list_models(as_json: bool, config_file: Path | None) -> None:
    """List the packs that glionode knows and those that were added, and whether each is installed."""
    from node.methods.card import card_names, read_card
    from node.methods.packs import is_installed

    folder = configure(config_file, quiet=True).models_folder
    entries: list[dict[str, Any]] = []
    width = min(Console().width, 120)
    for name in card_names(folder):
        try:
            card, fault = read_card(name, folder), None
        except ModelPackError as error:
            card, fault = None, str(error)
        is_there = card is not None and is_installed(name, folder)
        facts = {} if card is None else card.model_dump(mode="json", by_alias=True)
        entries.append({"name": name, **facts, "installed": is_there, "fault": fault})
        if not as_json:
            click.echo("\n".join(_lines(card, is_there, width) if card else [f"{name}: {fault}"]) + "\n")
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))


def _lines(card: Card, is_there: bool, width: int) -> list[str]:
    """What the list tells of a pack, in lines of at most ``width`` characters."""
    place = "shipped" if card.is_shipped else "installed" if is_there else "not installed"
    contrasts = f"needs {', '.join(card.needed)}"
    if card.optional:
        contrasts += f"; takes {', '.join(card.optional)}"
    regions = ", ".join(region.replace("_", " ") for region in card.outputs)
    told = [
        (contrasts, 1),
        (f"gives {regions}; for {' and '.join(card.states)} exams", _MOST_LINES),
        (f"licence: {card.licence}", 1),
        (f"accuracy: {card.measured_accuracy}", _MOST_LINES),
    ]
    lines = [_shortened(f"{card.name} {card.version} ({card.kind}): {place}", width, 1)]
    return lines + [textwrap.indent(_shortened(text, width - 2, most), "  ") for text, most in told]


def _shortened(text: str, width: int, most: int) -> str:
    return textwrap.fill(text, width, max_lines=most, placeholder=" ...")


@models.command("pull")
@click.argument("name")
@click.option(
    "--mirror", help=f"Folder or URL to fetch from. Default: {MIRROR_VARIABLE}, or models.mirror of the config."
)
@ConfigOption
def pull_model(name: str, mirror: str | None, config_file: Path | None) -> None:
    """Fetch, verify and convert a pack."""
    from node.methods.packs import pull

    config = configure(config_file, quiet=True, as_caller=True)
    act_as_owner(config.models_folder)
    folder = pull(name, config.models_folder, mirror or _mirror(config), lambda file: click.echo(f"  {file}"))
    click.echo(f"{name} is installed in {folder}")


def _mirror(config: Config) -> str:
    return os.environ.get(MIRROR_VARIABLE) or config.models.mirror


@models.command("add")
@click.argument("folder", type=StudyFolder)
@click.option("--card", type=click.Path(dir_okay=False, path_type=Path), help="Default: card.toml of FOLDER.")
@ConfigOption
def add_model(folder: Path, card: Path | None, config_file: Path | None) -> None:
    """Install the pack in FOLDER: one that glionode train made, or of other software.

    The files that its card lists are compared with their digests and copied; nothing is loaded or run.
    """
    from node.methods.added_pack import add_pack

    config = configure(config_file, quiet=True, as_caller=True)
    act_as_owner(config.models_folder)
    added = add_pack(folder, config.models_folder, card)
    click.echo(f"{added.name} is installed in {config.models_folder / added.name}")
    if added.kind == "torchscript":
        click.echo("its network is a program, which the node runs as its own account: use only one that you trust")
    click.echo(f"to see whether the node can run it: glionode models verify {added.name}")


@models.command("verify")
@click.argument("name", required=False)
@ConfigOption
def verify_models(name: str | None, config_file: Path | None) -> None:
    """Check an installed pack (default: all installed packs) against its card, and load it."""
    from node.methods.registry import faults, names_at_hand

    folder = configure(config_file, quiet=True).models_folder
    is_well = True
    for each in [name] if name else names_at_hand(folder):
        found = faults(each, folder)
        for fault in found:
            click.echo(f"error: {fault}", err=True)
        if found:
            is_well = False
        else:
            click.echo(f"{each}: every file matches its card")
    sys.exit(0 if is_well else 1)
