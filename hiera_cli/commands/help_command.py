"""`hiera help`: `--help` as a command."""

from __future__ import annotations

from typing import Annotated

import typer

from hiera_cli.commands import messages
from hiera_cli.errors import UsageError
from hiera_cli.system.near import near


def show_help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", show_default=False)] = None,
) -> None:
    """Explain the program, or one of its commands."""
    parent = context.parent
    assert parent is not None
    if command is None:
        return messages.write(parent.get_help())
    commands = parent.command.commands  # type: ignore[attr-defined]
    if command not in commands:
        shown = [name for name, each in commands.items() if not each.hidden]
        close = near(command, shown)
        hint = f"Did you mean `hiera help {close}`?" if close else f"Commands: {', '.join(shown)}."
        raise UsageError(f"there is no command {command!r}", hint)
    with typer.Context(commands[command], info_name=command, parent=parent) as about:
        messages.write(commands[command].get_help(about))
    return None
