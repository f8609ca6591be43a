"""The commands ``studies``, ``show``, ``retry``, ``cancel`` and ``send``. All work while the node runs."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.cli.options import ConfigOption, JsonOption, configure
from node.config import Config
from node.dicom.uids import is_usable_uid
from node.errors import StudyError
from node.study import Contrast

if TYPE_CHECKING:
    from node.processing.study_status import StudyStatus
    from node.workflow.client import WorkflowClient


_SHOWN = 200


@click.command()
@click.option("--all", "is_all", is_flag=True, help=f"All studies, not only the {_SHOWN} that changed last.")
@JsonOption
@ConfigOption
def studies(is_all: bool, as_json: bool, config_file: Path | None) -> None:
    """List the latest studies, each with its state, and the reason if it has no result. With --json: every study."""
    from node.processing.known_studies import KnownStudies
    from node.processing.study_ledger import open_records

    config = configure(config_file, quiet=True)
    lines: list[StudyStatus] = []
    unshown = 0
    with open_records(config) as records:
        if records is not None:
            known = KnownStudies(config, records)
            lines, unshown = (known.all(), 0) if is_all or as_json else known.latest(_SHOWN)
    if unshown:
        click.echo(f"{unshown} studies that changed earlier are not shown: --all lists every study", err=True)
    if as_json:
        click.echo(json.dumps([line.as_dict() for line in lines], indent=2, ensure_ascii=False))
        return
    table = Table("study", "state", "since", "reason")
    for line in lines:
        reason = "\n".join(filter(None, (line.remark, *line.attention)))
        table.add_row(line.study_instance_uid, line.state, f"{line.since:%Y-%m-%d %H:%M:%S}", Text(reason))
    Console().print(table)


def _valid(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not is_usable_uid(value):
        raise click.BadParameter(f"'{value}' is no UID (PS3.5 9.1)")
    return value


StudyUid = click.argument("study_instance_uid", callback=_valid)


@click.command()
@StudyUid
@ConfigOption
def show(study_instance_uid: str, config_file: Path | None) -> None:
    """Print one study as JSON: state, history, result."""
    from node.processing.study_history import read_history
    from node.processing.study_status import read_study_statuses

    config = configure(config_file, quiet=True)
    with study_ledger(config, study_instance_uid) as client:
        found = [line for line in read_study_statuses(config, client) if line.study_instance_uid == study_instance_uid]
        if not found:
            raise StudyError(f"no study {study_instance_uid}")
        history = read_history(config, client, study_instance_uid)
    shown = found[0].as_dict()
    shown["history"] = [{"time": moment.isoformat(), "event": event} for moment, event in history]
    shown["result"] = _result(config.work_folder / (found[0].folder or "none") / "result.json")
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))


def _result(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:  # there is no result, or retention has just deleted it
        return None


@contextmanager
def study_ledger(config: Config, study_instance_uid: str) -> Iterator[WorkflowClient]:
    """The database of a node that has received studies.

    Raises:
        StudyError: it has received none, so not this one either.
        EngineError: the database is missing although there are studies, or cannot be used.
    """
    from node.processing.study_ledger import open_ledger

    with open_ledger(config) as client:
        if client is None:
            raise StudyError(f"no study {study_instance_uid}: this node has received none yet")
        yield client


def _use(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[Contrast, str]:
    """The contrast and series of each ``t1c=SERIES``."""
    names = {contrast.casefold(): contrast for contrast in Contrast}
    found = {}
    for value in values:
        name, _, series = value.partition("=")
        if name.casefold() not in names or not series:
            raise click.BadParameter(f"'{value}' is not like t1c=SERIES; the contrasts are {', '.join(names)}")
        found[names[name.casefold()]] = series
    return found


@click.command()
@StudyUid
@click.option(
    "--use",
    multiple=True,
    callback=_use,
    help="CONTRAST=SERIES (UID or number): use this series; 4/2: its second part.",
)
@ConfigOption
def retry(study_instance_uid: str, use: dict[Contrast, str], config_file: Path | None) -> None:
    """Process a study again.

    The node selects the series, except those chosen by hand (--use t1c=801).
    """
    from node.metrics import Metrics
    from node.processing.dispatcher import StudyDispatcher

    config = configure(config_file, quiet=True)
    with study_ledger(config, study_instance_uid) as client:
        workflow_id = StudyDispatcher(config, client, Metrics()).retry(study_instance_uid, use)
    click.echo(f"ordered again: {workflow_id}")


@click.command()
@StudyUid
@ConfigOption
def cancel(study_instance_uid: str, config_file: Path | None) -> None:
    """Cancel the unfinished workflows of a study.

    Deliveries are cancelled, too. Nothing is deleted.
    """
    from node.metrics import Metrics
    from node.processing.dispatcher import StudyDispatcher

    config = configure(config_file, quiet=True)
    with study_ledger(config, study_instance_uid) as client:
        for workflow_id in StudyDispatcher(config, client, Metrics()).cancel(study_instance_uid):
            click.echo(f"cancelled: {workflow_id}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("destination")
@ConfigOption
def send(files: tuple[Path, ...], destination: str, config_file: Path | None) -> None:
    """Send DICOM files once to a destination of the config.

    Prints one line for each answer.
    """
    from node.app import audit_trail_of
    from node.delivery.audited import audited_send
    from node.dicom.outgoing import read_outgoing
    from node.metrics import Metrics
    from node.scu.send import send_results

    config = configure(config_file, quiet=True)
    found = [each for each in config.destinations() if each.name == destination]
    if not found:
        names = ", ".join(each.name for each in config.destinations()) or "none"
        raise click.UsageError(f"no destination '{destination}' in the config; there are: {names}")
    attempt = (found[0], config.scp.ae_title, list(files), config.delivery.timeout_seconds)
    with audit_trail_of(config, f"{socket.gethostname()}-send", Metrics()) as auditor:
        read = [read_outgoing(file) for file in files]
        outcomes = audited_send(auditor, found[0], read, lambda: send_results(*attempt))
    for file, outcome in zip(files, outcomes, strict=True):
        click.echo(f"{'ok  ' if outcome.is_delivered else 'FAIL'} {file.name}: {outcome.reason}")
    sys.exit(0 if all(outcome.is_delivered for outcome in outcomes) else 1)
