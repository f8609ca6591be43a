"""The command line: parsing and printing only. Scripts rely on commands, options, JSON output and exit codes.

Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused (the study cannot be processed; the text gives the reason).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from node import __version__
from node.cli.account import UMASK
from node.cli.lazy_group import Deferred, LazyGroup
from node.errors import GlionodeError, RefusedError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

EXTENSIONS = "glionode.commands"
"""Group of entry points that add commands: ``bench`` comes from a separate distribution."""

COMMANDS = {
    "cancel": Deferred("node.cli.studies:cancel", "Cancel the unfinished workflows of a study."),
    "check": Deferred("node.cli.serving:check", "Check each part that the node needs."),
    "classify": Deferred(
        "node.cli.series:classify",
        'Add column "predicted" (T1, T1c, T2, FLAIR, other) to a CSV with column "description" and optional tags.',
    ),
    "conflicts": Deferred(
        "node.cli.conflicts:conflicts",
        "List instances in conflict and corrected ones, or decide about the conflicts of a study.",
    ),
    "demo": Deferred("node.cli.demo:demo", "Run the demonstration with an embedded PACS."),
    "evaluate": Deferred("node.cli.method:evaluate", "Measure the accuracy of a method on labelled cases."),
    "measure": Deferred(
        "node.cli.training:measure",
        "Measure a pack of our own: each labelled case by the network that did not see it, per subset of contrasts.",
    ),
    "migrate": Deferred(
        "node.cli.database:migrate_database", "Rewrite the database of glionode 0.1.0 for this version, once."
    ),
    "models": Deferred("node.cli.models:models", "Model packs: list, pull, add, verify."),
    "priority": Deferred("node.cli.priority:priority", "Let a waiting study be begun earlier or later."),
    "process": Deferred("node.cli.process:process", "Process one study from a folder of DICOM files."),
    "retry": Deferred("node.cli.studies:retry", "Process a study again."),
    "segment": Deferred("node.cli.method:segment", "Segment one NIfTI case with the networks alone."),
    "send": Deferred("node.cli.studies:send", "Send DICOM files once to a destination of the config."),
    "series": Deferred("node.cli.series:series", "List the contrast of each series of a study."),
    "serve": Deferred("node.cli.serving:serve", "Run the node until SIGTERM."),
    "show": Deferred("node.cli.studies:show", "Print one study as JSON: state, history, result."),
    "spool": Deferred("node.cli.spool:spool", "List the studies on disk, and why each is held."),
    "studies": Deferred(
        "node.cli.studies:studies",
        "List the latest studies, each with its state, and the reason if it has no result.",
    ),
    "train": Deferred(
        "node.cli.training:train",
        "Train networks by a recipe, and measure them on the cases that each did not see.",
    ),
}
"""Each command's place, and its summary, which the command's own help begins with."""


def _extensions() -> EntryPoints:
    from importlib.metadata import entry_points  # deferred: the commands of this distribution need none

    return entry_points(group=EXTENSIONS)


class _Commands(LazyGroup):
    """Turns glionode's errors into one line and an exit code, and adds the commands of installed extensions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_extensions().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        for extension in _extensions().select(name=cmd_name):
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


@click.group(cls=_Commands, deferred=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="glionode")
def glionode() -> None:
    """PACS integration node for brain-tumour MR: receive, select, segment, report."""
