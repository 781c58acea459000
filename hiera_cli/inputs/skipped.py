"""What a folder walk passes over: counted while it goes on, to be told at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_KINDS = 1000  # suffixes that are counted apart: names may end in anything


@dataclass
class Skipped:
    """Entries of folders that were not taken, of a whole run. Of what is below a folder that was not, nothing is known.

    suffixes: files that are not known as images, by their suffix in lower case, "" for none. others: more of them, of
    further suffixes. links, hidden: what a walk takes only where that is asked for. links_in_archives: and devices.
    globs: the excluding ones that matched something. tell: gets each path, and why it is skipped.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    others: int = 0
    links: int = 0
    hidden: int = 0
    links_in_archives: int = 0
    archives_in_archives: int = 0
    globs: set[str] = field(default_factory=set)
    tell: Callable[[str, str], None] | None = None

    def add(self, suffix: str) -> None:
        """Count a file that is not known as an image."""
        if suffix in self.suffixes or len(self.suffixes) < MOST_KINDS:
            self.suffixes[suffix] += 1
        else:
            self.others += 1
