"""What a folder walk passes over: counted while it goes on, to be told at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

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

    def taken(self) -> Skipped:
        """What is counted so far; from here on it counts anew."""
        counted = replace(self, suffixes=Counter(self.suffixes), globs=set(self.globs), tell=None)
        self.suffixes.clear()
        self.globs.clear()
        self.others = self.links = self.hidden = self.links_in_archives = self.archives_in_archives = 0
        return counted

    def merge(self, other: Skipped) -> None:
        """Count what another walk has passed over, too."""
        for suffix, count in other.suffixes.items():
            if suffix in self.suffixes or len(self.suffixes) < MOST_KINDS:
                self.suffixes[suffix] += count
            else:
                self.others += count
        for name in ("others", "links", "hidden", "links_in_archives", "archives_in_archives"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.globs |= other.globs
