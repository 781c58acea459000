"""The command line: its commands, and the one place where errors become messages and exit statuses.

What a command needs is imported when it runs: `--help`, completion, `labels` and usage errors import neither torch nor
numpy, Pillow or huggingface_hub.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from hiera_cli import __version__
from hiera_cli.commands import (
    bench,
    classify,
    download,
    embed,
    evaluate,
    explain,
    find,
    help_command,
    index,
    info,
    labels,
    messages,
    models,
    reconstruct,
    report_command,
    teach,
)
from hiera_cli.commands.help import HelpCommand, HelpGroup
from hiera_cli.errors import CheckpointError, DeviceError, UsageError
from hiera_cli.system.streams import ReaderGone

# Typer carries a Click of its own, or uses the package, from release to release.
ParseError: Any = typer.BadParameter.__mro__[2]  # click.ClickException


class Command(HelpCommand):
    """A command whose errors know what they are about: the command, and the variable that a value came from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Click's, which leaves out of some errors to which command they belong."""
        try:
            return super().parse_args(ctx, args)
        except ParseError as error:
            error.ctx = getattr(error, "ctx", None) or ctx
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run it. An error about a value from the environment names its variable."""
        try:
            return super().invoke(ctx)
        except (CheckpointError, DeviceError) as error:
            from hiera_cli.commands import usage

            usage.name_variables(error, ctx)
            raise


class Program(HelpGroup):
    """All commands."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run one, or answer a shell that completes a line."""
        if os.environ.get("_HIERA_COMPLETE"):
            from hiera_cli.commands import completion

            completion.register()
        return super().main(*args, **options)


app = typer.Typer(
    cls=Program,
    help="Label images with Hiera, a hierarchical vision transformer; find them; teach it classes of your own.",
    rich_markup_mode=None,  # Typer's plain help: half the time of the rich one, and it pipes
    no_args_is_help=True,
    suggest_commands=False,  # usage.py does
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(value: bool) -> None:
    if value:
        messages.write(f"hiera {__version__}")
        raise typer.Exit


@app.callback()
def _hiera(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# In the order in which `hiera --help` lists them.
for function in (
    classify.classify,
    embed.embed,
    find.find,
    index.index,
    evaluate.evaluate,
    teach.teach,
    explain.explain,
    report_command.report,
    reconstruct.reconstruct,
    download.download,
    models.models,
    labels.labels,
    info.info,
    bench.bench,
):
    app.command(cls=Command)(function)
app.command(name="help", hidden=True)(help_command.show_help)


def main() -> None:
    """Run `hiera`. Exit statuses: see report.ExitStatus."""
    try:
        status = app(prog_name="hiera", windows_expand_args=False, standalone_mode=False)
    except ReaderGone:
        raise SystemExit(0) from None
    except ParseError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `hiera` alone
            print(error.format_message(), file=sys.stderr)
            raise SystemExit(2) from None
        from hiera_cli.commands import usage

        messages.tell_error(UsageError(*usage.explain(error, sys.argv[1:])))
        raise SystemExit(2) from None
    except Exception as error:
        messages.tell_error(error)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)
