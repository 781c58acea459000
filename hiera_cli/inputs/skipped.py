"""What a folder walk passes over: counted while it goes on, told at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hiera_cli.inputs.signatures import RAW, RAW_SUFFIXES

MOST_KINDS = 1000  # suffixes that are counted apart: names may end in anything
TOLD_KINDS = 5


@dataclass
class Skipped:
    """Entries of folders that were not taken, of a whole run. Of what is below a folder that was not, nothing is known.

    suffixes: files that are not known as images, by their suffix in lower case, "" for none. others: more of them, of
    further suffixes. links, hidden: what --follow and --hidden would take. globs: those of --exclude that matched
    something. tell: gets each path, and why it is skipped.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    others: int = 0
    links: int = 0
    hidden: int = 0
    globs: set[str] = field(default_factory=set)
    tell: Callable[[str, str], None] | None = None

    def add(self, suffix: str) -> None:
        """Count a file that is not known as an image."""
        if suffix in self.suffixes or len(self.suffixes) < MOST_KINDS:
            self.suffixes[suffix] += 1
        else:
            self.others += 1

    def lines(self) -> list[str]:
        """Such as `skipped 6 files that are not known as images (5 .nef, 1 without suffix), 3 links (--follow)`."""
        parts = []
        if files := sum(self.suffixes.values()) + self.others:
            are = "file that is not known as an image" if files == 1 else "files that are not known as images"
            parts.append(f"{files:,} {are} ({self._kinds(files)})")
        if self.links:
            parts.append(f"{self.links:,} link{'s' * (self.links > 1)} (--follow)")
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden (--hidden)")
        lines = [f"skipped {', '.join(parts)}"] if parts else []
        if any(suffix in RAW_SUFFIXES for suffix in self.suffixes):
            lines.append(RAW)
        return lines

    def _kinds(self, files: int) -> str:
        most = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))[:TOLD_KINDS]
        kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in most]
        if rest := files - sum(count for _, count in most):
            kinds.append(f"{rest:,} other")
        return ", ".join(kinds)
