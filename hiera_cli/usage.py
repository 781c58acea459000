"""What is wrong with a command line, in the program's own words, and what was probably meant."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import typer

from hiera_cli.sources import is_url

# Typer carries a Click of its own, or uses the package, from release to release.
ParseError: Any = typer.BadParameter.__mro__[2]  # click.ClickException

# What other programs call it.
SYNONYMS = {
    "--batch": "--batch-size",
    "--confidence": "--min-score",
    "--cpu": "--device cpu",
    "--cuda": "--device cuda",
    "--force": "--overwrite",
    "--gpu": "--device cuda",
    "--glob": "--exclude",
    "--ignore": "--exclude",
    "--jobs": "--workers",
    "--num-workers": "--workers",
    "--out": "--output",
    "--outfile": "--output",
    "--threshold": "--min-score",
    "--threads": "--workers",
    "--topk": "--top-k",
    "--weights": "--model",
    "-j": "--workers",
    "-n": "--top-k",
    "-v": "--verbose",
}
NEEDLESS = {"--recursive": "folders are walked as they are", "-r": "folders are walked as they are"}


def explain(error: Any, arguments: Sequence[str]) -> tuple[str, str]:
    """(message, hint) of a ParseError. arguments: of the command line, without the program's name."""
    context: Any = getattr(error, "ctx", None)
    known = _options(context.command) if context is not None else {}
    if type(error).__name__ == "NoSuchOption":
        return f"there is no option {error.option_name}", _meant_option(error.option_name, known, context, arguments)
    if isinstance(error, typer.BadParameter) and error.param is not None:
        return _bad_value(error), _more(context)
    if match := re.fullmatch(r"Got unexpected extra arguments? ?\(?s?\)? \((.*)\)", error.message, re.DOTALL):
        return f"{context.command_path if context else 'hiera'} takes no {match[1]!r}", _more(context)
    if match := re.fullmatch(r"No such command '(.*)'\.?.*", error.message, re.DOTALL):
        return f"there is no command {match[1]!r}", _meant_command(match[1], context, arguments)
    return _in_a_sentence(error.format_message()), _more(context)


def _options(command: Any) -> dict[str, Any]:
    return {name: each for each in command.params for name in each.opts if name.startswith("-")}


def _more(context: Any) -> str:
    return f"{context.command_path if context else 'hiera'} --help explains the options."


def _line(*words: str) -> str:
    return f"hiera {shlex.join(words)}"


def _meant_command(name: str, context: Any, arguments: Sequence[str]) -> str:
    commands = [each for each, command in context.command.commands.items() if not command.hidden]
    if close := difflib.get_close_matches(name, commands, 1, 0.6):
        meant = [close[0] if word == name else word for word in arguments]
        return f"Did you mean `{_line(*meant)}`?"
    if os.path.exists(name) or is_url(name) or os.path.splitext(name)[1]:
        return f"Did you mean `{_line('classify', *arguments)}`?"
    return f"Commands: {', '.join(commands)}."


def _meant_option(name: str, known: dict[str, Any], context: Any, arguments: Sequence[str]) -> str:
    commands = getattr(context.command, "commands", {}) if context is not None else {}
    if "classify" in commands and name in _options(commands["classify"]):
        return f"Options stand behind a command: did you mean `{_line('classify', *arguments)}`?"
    if name in NEEDLESS and "--exclude" in known:
        return f"It needs none: {NEEDLESS[name]}."
    meant = SYNONYMS.get(name, "")
    if meant.split(" ")[0] in known:
        return f"Did you mean {meant}?"
    if close := difflib.get_close_matches(name, known, 1, 0.75):
        return f"Did you mean {close[0]}?"
    return _more(context)


def _bad_value(error: Any) -> str:
    name = max(error.param.opts, key=len)
    kind = error.param.type
    wanted = {"int": "a whole number", "flo": "a number"}.get(kind.name[:3], "")
    given = re.match(r"('.*'|\S+) is not (a valid|in the range)", error.message, re.DOTALL)
    if not wanted or not given:
        return f"{name}: {_in_a_sentence(error.message)}"
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    if low is not None and high is not None:
        wanted += f" from {low:g} to {high:g}"
    elif low is not None:
        wanted += f", {low:g} or more"
    return f"{name} takes {wanted}, not {given[1].strip(chr(39))}"


def _in_a_sentence(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]
