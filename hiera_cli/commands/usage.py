"""What is wrong with a command line, in the program's own words, and what was probably meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import typer

from hiera_cli.errors import HieraError
from hiera_cli.system.near import near

FEW = 3  # commands that have an option, to be named where another one is asked for it
# What other programs call it. An option is suggested by the commands that have it.
SYNONYMS = {
    "--batch": "--batch-size",
    "--bf16": "--precision bf16",
    "--confidence": "--min-score",
    "--cpu": "--device cpu",
    "--csv": "--format csv",
    "--cuda": "--device cuda",
    "--dir": "--to",
    "--duration": "--seconds",
    "--force": "--overwrite",
    "--format": "--json",
    "--fp16": "--precision fp16",
    "--fp32": "--precision fp32",
    "--gpu": "--device cuda",
    "--glob": "--exclude",
    "--half": "--precision fp16",
    "--ignore": "--exclude",
    "--jobs": "--workers",
    "--jsonl": "--format jsonl",
    "--no-cuda": "--device cpu",
    "--num-workers": "--workers",
    "--openvino": "--engine openvino",
    "--out": "--output",
    "--outfile": "--output",
    "--output": "--to",
    "--output-dir": "--to",
    "--overwrite": "--force",
    "--silent": "--quiet",
    "--threshold": "--min-score",
    "--threads": "--workers",
    "--time": "--seconds",
    "--topk": "--top-k",
    "--tsv": "--format tsv",
    "--weights": "--model",
    "-H": "--hidden",
    "-L": "--follow",
    "-b": "--batch-size",
    "-d": "--device",
    "-f": "--json",
    "-j": "--workers",
    "-n": "--top-k",
    "-o": "--to",
    "-v": "--verbose",
}
VALUES = {
    "bfloat16": "bf16",
    "float": "fp32",
    "float16": "fp16",
    "float32": "fp32",
    "gpu": "cuda",
    "half": "fp16",
    "jsonlines": "jsonl",
    "metal": "mps",
    "ndjson": "jsonl",
    "nvidia": "cuda",
    "pytorch": "torch",
    "text": "plain",
    "txt": "plain",
}
NEEDLESS = {"--recursive": "folders are walked as they are", "-r": "folders are walked as they are"}


class NotOneOf(typer.BadParameter):
    """A value that is not one of those that an option takes. meant: the one that probably was meant, if any."""

    def __init__(self, value: str, values: Sequence[str], meant: str | None = None) -> None:
        super().__init__(f"{value!r} is not one of {', '.join(values)}")
        plain = value.casefold()
        self.meant = meant or (VALUES[plain] if VALUES.get(plain) in values else near(plain, values, 0.7))


def one_of(value: str, values: Sequence[str]) -> str:
    """The one of the values that was typed, in whatever case. Raises NotOneOf."""
    if (plain := value.casefold()) in values:
        return plain
    raise NotOneOf(value, values)


def device(value: str) -> str:
    """The device that was typed, in whatever case: auto, cpu, cuda, cuda:N or mps. Raises NotOneOf."""
    plain = value.casefold()
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", plain):
        return plain
    numbered = re.fullmatch(r"(?:cuda|gpu|nvidia):?(\d+)", plain)
    raise NotOneOf(value, ("auto", "cpu", "cuda", "cuda:N", "mps"), f"cuda:{numbered[1]}" if numbered else None)


def explain(error: Any, arguments: Sequence[str]) -> tuple[str, str]:
    """(message, hint) of a ParseError. arguments: of the command line, without the program's name."""
    context: Any = getattr(error, "ctx", None)
    known = _options(context.command) if context is not None else {}
    if type(error).__name__ == "NoSuchOption":
        return f"there is no option {error.option_name}", _meant_option(error.option_name, known, context, arguments)
    if isinstance(error, typer.BadParameter) and error.param is not None:
        meant = getattr(error, "meant", None)
        return _bad_value(error), f"Did you mean {meant}?" if meant else _more(context)
    message = error.message
    if match := re.fullmatch(r"Option '(.*)' requires an argument\.?", message):
        return f"{match[1]} needs a value: {known[match[1]].metavar}", _more(context)
    if match := re.fullmatch(r"Option '(.*)' does not take a value\.?", message):
        return f"{match[1]} takes no value", _more(context)
    if match := re.fullmatch(r"Got unexpected extra arguments? ?\(?s?\)? \((.*)\)", message, re.DOTALL):
        return f"{context.command_path if context else 'hiera'} takes no {match[1]!r}", _more(context)
    if match := re.fullmatch(r"No such command '(.*)'\.?.*", message, re.DOTALL):
        return f"there is no command {match[1]!r}", _meant_command(match[1], context, arguments)
    return _in_a_sentence(error.format_message()), _more(context)


def name_variables(error: HieraError, context: Any) -> None:
    """Add to an error the variables of the environment that asked for what it is about."""
    for each in context.command.params:
        if _is_from_environment(each, context) and str(context.params[each.name]) in error.message:
            error.hint = f"{error.hint}\n{each.envvar}={os.environ[each.envvar]} is set in the environment.".lstrip()


def _is_from_environment(parameter: Any, context: Any) -> bool:
    source = context.get_parameter_source(parameter.name)
    return source is not None and source.name == "ENVIRONMENT"


def _options(command: Any) -> dict[str, Any]:
    return {name: each for each in command.params for name in each.opts if name.startswith("-")}


def _more(context: Any) -> str:
    return f"{context.command_path if context else 'hiera'} --help explains the options."


def _line(*words: str) -> str:
    return f"hiera {shlex.join(words)}"


def _meant_command(name: str, context: Any, arguments: Sequence[str]) -> str:
    from hiera_cli.inputs.source import is_url  # with more than the start of a command needs

    commands = [each for each, command in context.command.commands.items() if not command.hidden]
    if close := near(name, commands):
        meant = [close if word == name else word for word in arguments]
        return f"Did you mean `{_line(*meant)}`?"
    if os.path.exists(name) or is_url(name) or os.path.splitext(name)[1]:
        return f"Did you mean `{_line('classify', *arguments)}`?"
    return f"Commands: {', '.join(commands)}."


def _meant_option(name: str, known: dict[str, Any], context: Any, arguments: Sequence[str]) -> str:
    commands = getattr(context.command, "commands", {}) if context is not None else {}
    if "classify" in commands and name in _options(commands["classify"]):
        return f"Options stand behind a command: did you mean `{_line('classify', *arguments)}`?"
    if os.path.exists(name):
        return f"If the file is meant: {_line('classify', f'./{name}')}"
    if name in NEEDLESS and "--exclude" in known:
        return f"It needs none: {NEEDLESS[name]}."
    meant = SYNONYMS.get(name, "")
    if meant.split(" ")[0] in known:
        return f"Did you mean {meant}?"
    if close := near(name, known, 0.75):
        return f"Did you mean {close}?"
    program = context.find_root().command if context is not None else None
    others = [each for each, command in getattr(program, "commands", {}).items() if name in _options(command)]
    if 0 < len(others) <= FEW:
        return f"It is an option of {' and '.join(others)}."
    return _more(context)


def _bad_value(error: Any) -> str:
    name = max(error.param.opts, key=len)
    if error.ctx is not None and _is_from_environment(error.param, error.ctx):
        name = error.param.envvar
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
    return f"{name} takes {wanted}, not {given[1].strip(chr(39)) or repr('')}"


def _in_a_sentence(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]
