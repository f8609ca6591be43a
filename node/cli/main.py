"""The command line: parsing and printing only. Scripts rely on commands, options, JSON output and exit codes.

Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused (the study cannot be processed; the text gives the reason).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node import __version__
from node.cli.account import UMASK, act_as_owner
from node.cli.conflicts import conflicts
from node.cli.database import migrate_database
from node.cli.file_access import weak_files
from node.cli.method import evaluate, segment
from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar
from node.cli.priority import priority
from node.cli.series import classify, series
from node.cli.spool import spool
from node.cli.studies import cancel, retry, send, show, studies
from node.config import Config
from node.config_sections import LogSection
from node.errors import GlionodeError, RefusedError
from node.log import set_up_log

MIRROR_VARIABLE = "GLIONODE_MODEL_MIRROR"


EXTENSIONS = "glionode.commands"
"""Group of entry points that add commands: ``bench`` comes from a separate distribution."""


class _Commands(click.Group):
    """Turns glionode's errors into one line and an exit code, and adds the commands of installed extensions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=EXTENSIONS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        for extension in entry_points(group=EXTENSIONS, name=cmd_name):
            loaded: click.Command = extension.load()
            return loaded
        return None

    def invoke(self, ctx: click.Context) -> Any:
        os.umask(UMASK)
        try:
            return super().invoke(ctx)
        except GlionodeError as error:
            word = "refused" if isinstance(error, RefusedError) else "error"
            click.echo(f"{word}: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.filename is None:  # no file is the cause: for example a broken pipe, which click handles
                raise
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="glionode")
def glionode() -> None:
    """PACS integration node for brain-tumour MR: receive, select, segment, report."""


for command in (segment, evaluate, series, classify, studies, show, retry, cancel, priority, send, spool, conflicts):
    glionode.add_command(command)
glionode.add_command(migrate_database)


def _mirror(config: Config) -> str:
    return os.environ.get(MIRROR_VARIABLE) or config.models.mirror


@glionode.command()
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


@glionode.command()
@ConfigOption
def check(config_file: Path | None) -> None:
    """Check each part that the node needs. Prints ok or FAIL.

    The parts are config, files, ports, spool, database, model, device, notices and destinations.
    """
    from node.cli.check import check as findings

    is_well = True
    for finding in findings(configure(config_file, quiet=True), config_file):
        is_well &= finding.is_well
        click.echo(f"{'ok  ' if finding.is_well else 'FAIL'} {finding.part}: {finding.text}")
    sys.exit(0 if is_well else 1)


@glionode.command()
@click.argument("study_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@click.option("--model", help="Model pack. Default: segmentation.model of the config.")
@click.option("--device", help="auto, cpu, cuda or cuda:N. Default: segmentation.device of the config.")
@ConfigOption
def process(study_dir: Path, out: Path, model: str | None, device: str | None, config_file: Path | None) -> None:
    """Process one study from a folder of DICOM files. No network is used.

    Writes seg.dcm, sr.dcm, label_map.nii.gz and result.json.
    """
    from node.processing.pack_support import require_t1c_only_method
    from node.processing.pipeline import Pipeline
    from node.processing.request import build_request, with_first_creation_time
    from node.workflow.steps import DirectSteps

    config = configure(config_file, quiet=True, as_caller=True).with_segmentation(model=model, device=device)
    require_t1c_only_method(config.segmentation)
    from node.segmentation.enhancement import compare_enhancement
    from node.segmentation.exam_reader import ExamReader

    reader = ExamReader()
    compare = compare_enhancement if config.series.compare_images else None
    request = build_request(study_dir, config, compare=compare, why_unusable=reader.why_unusable)
    request = with_first_creation_time(request, out)
    with progress_bar() as progress:
        pipeline = Pipeline(config.without_destinations(), progress, force=True, reader=reader)
        outcome = pipeline.process(DirectSteps(), request.as_json(), str(out))
    if outcome["state"] == "refused":
        raise RefusedError(outcome["reason"])
    if outcome["state"] == "failed":
        raise GlionodeError(outcome["reason"])
    result = json.loads((out / "result.json").read_text("utf-8"))
    _print_result(result, out)


def _print_result(result: dict[str, Any], out: Path) -> None:
    table = Table("region", "volume / mL", title="Glioma segmentation (automatic; for research)")
    for region, volume in result["volumes_ml"].items():
        table.add_row(region.replace("_", " "), f"{volume:.2f}")
    Console().print(table)
    for caution in result["cautions"]:
        click.echo(f"caution: {caution}")
    click.echo(f"written to {out}: seg.dcm, sr.dcm, label_map.nii.gz, result.json")


@glionode.group()
def models() -> None:
    """Model packs: list, pull, verify."""


@models.command("list")
@ConfigOption
def list_models(config_file: Path | None) -> None:
    """List the packs that glionode knows, and whether each is installed."""
    from node.segmentation.packs import card_names, is_installed, read_card

    config = configure(config_file, quiet=True)
    table = Table("pack", "version", "inputs", "licence", "installed", "measured accuracy")
    for name in card_names():
        card = read_card(name)
        installed = "yes" if is_installed(name, config.models_folder) else "no"
        cells = (name, card.version, ", ".join(card.inputs), card.licence, installed, card.measured_accuracy)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


@models.command("pull")
@click.argument("name")
@click.option(
    "--mirror", help=f"Folder or URL to fetch from. Default: {MIRROR_VARIABLE}, or models.mirror of the config."
)
@ConfigOption
def pull_model(name: str, mirror: str | None, config_file: Path | None) -> None:
    """Fetch, verify and convert a pack."""
    from node.segmentation.packs import pull

    config = configure(config_file, quiet=True, as_caller=True)
    act_as_owner(config.models_folder)
    folder = pull(name, config.models_folder, mirror or _mirror(config), lambda file: click.echo(f"  {file}"))
    click.echo(f"{name} is installed in {folder}")


@models.command("verify")
@click.argument("name", required=False)
@ConfigOption
def verify_models(name: str | None, config_file: Path | None) -> None:
    """Check an installed pack (default: all installed packs) against its card."""
    from node.segmentation.packs import card_names, is_installed, verify

    config = configure(config_file, quiet=True)
    names = [name] if name else [each for each in card_names() if is_installed(each, config.models_folder)]
    for each in names:
        verify(each, config.models_folder)
        click.echo(f"{each}: every file matches its card")
    if not names:
        click.echo("no pack is installed")


@glionode.command()
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
