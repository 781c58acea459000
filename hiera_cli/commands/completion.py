"""Completion in the shells where Typer falls short: values behind a = (`--device=c`), words that bash splits at = or :.

Imported when a shell asks, and not otherwise.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from typer import _completion_classes as typers

SEPARATORS = ("=", ":")  # at which bash splits words, beside spaces (COMP_WORDBREAKS)


class _ValuesBehindEquals:
    """Completes `--option=val` to whole words, as the shells replace whole words."""

    def get_completions(self, args: list[str], incomplete: str) -> list[Any]:
        """args: the words before. Returns Click's CompletionItems."""
        complete: Any = super().get_completions  # type: ignore[misc]  # of the class beside it
        option, equals, value = incomplete.partition("=")
        if not equals or not option.startswith("--"):
            return list(complete(args, incomplete))
        items = list(complete([*args, option], value))
        for item in items:
            item.value = f"{option}={item.value}"
        return items


class Bash(_ValuesBehindEquals, typers.BashComplete):
    """Puts the words together again that bash has split, and gives it the part that it replaces."""

    _kept = ""  # what stands before the part of the word that bash replaces
    _quoted = False  # whether that part is in quotes, which bash closes by itself

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before, and the one that is to be completed."""
        args, part = super().get_completion_args()
        if not part:  # a new word
            return _joined(args), ""
        raw = os.environ["COMP_WORDS"].split("\n")
        self._quoted = raw[min(int(os.environ["COMP_CWORD"]), len(raw) - 1)].startswith(("'", '"'))
        *args, word = _joined([*args, part])
        self._kept = word if set(part) <= set(SEPARATORS) else word.removesuffix(part)
        return args, word

    def format_completion(self, item: Any) -> str:
        """One line of the answer."""
        value = str(item.value).removeprefix(self._kept)
        return value if self._quoted else re.sub(r"[\s'\"]", r"\\\g<0>", value)


class Zsh(_ValuesBehindEquals, typers.ZshComplete):
    """Typer's, with values behind a =, files among them."""

    def complete(self) -> str:
        """What zsh is to evaluate."""
        answer = super().complete()
        return f"compset -P '--*='; {answer}" if answer == "_files" else answer

    def format_completion(self, item: Any) -> str:
        """One value of the answer, which stands in single quotes: Typer's drops an apostrophe."""
        return super().format_completion(item).replace("''", r"'\''")


class Fish(_ValuesBehindEquals, typers.FishComplete):
    """Typer's, with values behind a =."""


class PowerShell(_ValuesBehindEquals, typers.PowerShellComplete):
    """Typer's, with values behind a =, and in quotes where they need them."""

    def format_completion(self, item: Any) -> str:
        """One line of the answer."""
        if re.search(r"[\s']", item.value):
            option, equals, value = item.value.rpartition("=")
            item.value = f"{option}{equals}'" + value.replace("'", "''") + "'"
        return super().format_completion(item)


def _joined(parts: list[str]) -> list[str]:
    words: list[str] = []
    for part in parts:
        if words and (part.startswith(SEPARATORS) or words[-1].endswith(SEPARATORS)):
            words[-1] += part
        else:
            words.append(part)
    return words


def register() -> None:
    """Have these answer the shells, in the place of Typer's."""
    click: Any = sys.modules[typers.BashComplete.__mro__[1].__module__]  # the package, or Typer's own
    for name, shell in {"bash": Bash, "zsh": Zsh, "fish": Fish, "powershell": PowerShell, "pwsh": PowerShell}.items():
        click.add_completion_class(shell, name)
    vars(typers)["_sanitize_help_text"] = str  # takes markup out, of which we have none: rich takes 0.2 s to import
