"""The command ``conflicts``: versions of instances that are not in use, and the administrator's decision about them."""

from __future__ import annotations

import json
from contextlib import closing
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

if TYPE_CHECKING:
    from node.scp.corrections import Correction, Corrections, OpenConflict


def _uid(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_usable_uid(value):
        raise click.BadParameter(f"'{value}' is no UID (PS3.5 9.1)")
    return value


@click.command()
@click.argument("study_instance_uid", required=False, callback=_uid)
@click.option("--instance", callback=_uid, help="Only the instance with this SOP Instance UID.")
@click.option("--keep", is_flag=True, help="Go on with the instances in use; the others are kept for audit only.")
@click.option("--take", is_flag=True, help="Use the others, and process the study again.")
@JsonOption
@ConfigOption
def conflicts(
    study_instance_uid: str | None,
    instance: str | None,
    keep: bool,
    take: bool,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """List instances in conflict and corrected ones, or decide about the conflicts of a study.

    In conflict is another image under a known SOP Instance UID, or bytes that a correction had superseded. The list
    names the attributes that differ, never their values. --take also processes a study again that waits because its
    instances were corrected (assembly.corrections = "hold").
    """
    from node.scp.corrections import Corrections

    if keep and take:
        raise click.UsageError("--keep and --take exclude each other")
    if (keep or take or instance) and study_instance_uid is None:
        raise click.UsageError("give the STUDY_INSTANCE_UID to decide about")
    config = configure(config_file, quiet=True)
    corrections = Corrections(config.spool_folder)
    found = [
        each
        for each in corrections.open_conflicts(study_instance_uid)
        if instance in (None, each.version.sop_instance_uid)
    ]
    if keep or take:
        assert study_instance_uid is not None
        if instance and not found:
            raise StudyError(f"instance {instance} is in no conflict")
        _decide(config, corrections, study_instance_uid, found, take)
        return
    corrected = [
        each
        for each in corrections.corrections(study_instance_uid)
        if instance in (None, each.version.sop_instance_uid)
    ]
    if as_json:
        facts = {"conflicts": [_conflict(each) for each in found], "corrections": [_correction(c) for c in corrected]}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    _print(found, corrected)


def _decide(
    config: Config, corrections: Corrections, study_instance_uid: str, found: list[OpenConflict], take: bool
) -> None:
    """Decide about each conflict; of several versions of one instance, the latest is taken and the others are kept out.

    Raises:
        StudyError: there is nothing to decide about.
    """
    from node.metrics import Metrics
    from node.processing.dispatcher import StudyDispatcher
    from node.workflow.client import WorkflowClient

    if not found and not take:
        raise StudyError(f"study {study_instance_uid} has no conflict")
    found = sorted(found, key=lambda each: each.arrived)  # if this is interrupted, the latest is still undecided
    latest = {each.version.sop_instance_uid: each for each in found}
    for each in found:
        is_taken = take and latest[each.version.sop_instance_uid] is each
        (corrections.take if is_taken else corrections.keep)(each.version)
        click.echo(f"{'taken' if is_taken else 'kept out'}: {each.version.sop_instance_uid} {each.version.digest}")
    if take:
        with closing(WorkflowClient(config)) as client:
            StudyDispatcher(config, client, Metrics()).redo(study_instance_uid)
        click.echo(f"study {study_instance_uid} is processed again if its results depend on it")


def _conflict(conflict: OpenConflict) -> dict[str, Any]:
    """Plain JSON values; keys are only ever added."""
    version = conflict.version
    return {
        "study_instance_uid": version.study_instance_uid,
        "series_instance_uid": version.series_instance_uid,
        "sop_instance_uid": version.sop_instance_uid,
        "digest": version.digest,
        "arrived": conflict.arrived.isoformat(),
        "differs": list(conflict.differs),
        "was_in_use": conflict.is_returned,
        "is_older": conflict.is_older,
    }


def _correction(correction: Correction) -> dict[str, Any]:
    """Plain JSON values; keys are only ever added."""
    version = correction.version
    return {
        "study_instance_uid": version.study_instance_uid,
        "series_instance_uid": version.series_instance_uid,
        "sop_instance_uid": version.sop_instance_uid,
        "digest": version.digest,
        "arrived": correction.arrived.isoformat(),
        "replaced": None if correction.replaced is None else correction.replaced.isoformat(),
        "differs": list(correction.differs),
        "other_image": version.is_other_image,
    }


def _print(found: list[OpenConflict], corrected: list[Correction]) -> None:
    if not found and not corrected:
        click.echo("no instance is in conflict or was corrected")
        return
    table = Table("what", "when (UTC)", "study", "series", "instance", "differs by")
    for conflict in found:
        words = {"was in use before": conflict.is_returned, "older than the one in use": conflict.is_older}
        word = "; ".join(("conflict", *(each for each, holds in words.items() if holds)))
        _add(table, word, f"{conflict.arrived:%Y-%m-%d %H:%M:%S}", conflict)
    for correction in corrected:
        word = "other image taken" if correction.version.is_other_image else "corrected"
        _add(table, word, f"{correction.replaced:%Y-%m-%d %H:%M:%S}" if correction.replaced else "", correction)
    Console().print(table)


def _add(table: Table, word: str, when: str, each: OpenConflict | Correction) -> None:
    version = each.version
    uids = (version.study_instance_uid, version.series_instance_uid, version.sop_instance_uid)
    table.add_row(word, when, *uids, Text(", ".join(each.differs)))
