"""A group of commands each of which is imported only when it runs, so that every command starts fast.

Nearly all the time that a short command takes is the import of modules, most of them for other commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Deferred:
    """A command that is not imported yet.

    Attributes:
        place: ``module:attribute``.
        summary: the first sentence of the command's help, for the list of commands; empty: the list leaves it out.
    """

    place: str
    summary: str = ""

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class LazyGroup(click.Group):
    """``deferred``: the commands by their names. Commands that are added as usual are imported by whoever adds them."""

    def __init__(self, *arguments: Any, deferred: Mapping[str, Deferred], **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.deferred = dict(deferred)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *self.deferred})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if it was not before; None: there is none of this name."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in self.deferred:
            return self.deferred[cmd_name].load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, for which none of the deferred ones is imported."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names), default=0)
        rows = [(name, text) for name in names if (text := self._summary(ctx, name, width))]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str, width: int) -> str:
        """The command's summary, cut to ``width``; empty: it is hidden."""
        is_deferred = name in self.deferred
        command = click.Command(name, help=self.deferred[name].summary) if is_deferred else self.get_command(ctx, name)
        return "" if command is None or command.hidden else command.get_short_help_str(width)
