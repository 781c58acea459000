"""WordNet's tree above ImageNet's classes: words → concepts, concepts → the classes that they comprise.

The 1,860 synsets of WordNet 3.0 that are ImageNet's 1000 classes or stand above one, in data/imagenet_hierarchy.tsv. A
synset is known by its WordNet id: `n` and the offset in WordNet 3.0's noun file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.errors import UsageError

# Concepts that say nothing of a picture: true of almost everything, or of what cannot be seen.
SAYING_NOTHING = frozenset(
    {
        "n00001740",  # entity
        "n00001930",  # physical entity
        "n00002137",  # abstraction
        "n00002684",  # object
        "n00003553",  # whole
        "n00007347",  # causal agent
        "n00019613",  # substance: matter of a kind
        "n00020090",  # substance: the matter of a thing
        "n00020827",  # matter
        "n00024264",  # attribute
        "n00027167",  # location
        "n00031921",  # relation
        "n00033020",  # communication
        "n03892891",  # part, of an object
        "n13809207",  # part, as a relation
    }
)


@dataclass(frozen=True)
class Synset:
    """A concept: one meaning of its names. parents: WordNet ids of what it is a kind of. names: the usual one first."""

    wnid: str
    parents: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The usual one."""
        return self.names[0]


@cache
def synsets() -> dict[str, Synset]:
    """All of them by their ids, in the order of these."""
    table = files("hiera_cli").joinpath("data", "imagenet_hierarchy.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return {
        wnid: Synset(wnid, tuple(parents.split(",")) if parents else (), tuple(names.split(", ")))
        for wnid, parents, names in rows
    }


@cache
def kinds() -> dict[str, tuple[str, ...]]:
    """The ids of the concepts right under each one."""
    below: dict[str, list[str]] = {wnid: [] for wnid in synsets()}
    for synset in synsets().values():
        for parent in synset.parents:
            below[parent].append(synset.wnid)
    return {wnid: tuple(children) for wnid, children in below.items()}


@cache
def classes() -> dict[str, frozenset[str]]:
    """The ids of ImageNet's classes that each concept comprises; of a class, its own alone."""
    comprised: dict[str, set[str]] = {wnid: set() for wnid in synsets()}
    for label in imagenet_labels():
        above = [label.wnid] if label.wnid else []
        while above:  # a concept may be reached in several ways
            wnid = above.pop()
            if label.wnid not in comprised[wnid]:
                comprised[wnid].add(label.wnid or "")
                above += synsets()[wnid].parents
    return {wnid: frozenset(each) for wnid, each in comprised.items()}


def indices(wnid: str, labels: Sequence[Label]) -> list[int]:
    """Which of a model's classes a concept comprises, in their order; none of classes that are not ImageNet's."""
    wanted = classes()[wnid]
    return [label.index for label in labels if label.wnid in wanted]


def plain(text: str) -> str:
    """A word or phrase as words are compared: without regard to case, spaces and underscores."""
    return " ".join(re.split(r"[\s_]+", text.strip())).casefold()


@cache
def _by_name() -> dict[str, tuple[Synset, ...]]:
    named: dict[str, list[Synset]] = {}
    for synset in synsets().values():
        for name in dict.fromkeys(map(plain, synset.names)):
            named.setdefault(name, []).append(synset)

    def rank(name: str, synset: Synset) -> tuple[bool, int, str]:
        return plain(synset.name) != name, -len(classes()[synset.wnid]), synset.wnid

    return {name: tuple(sorted(each, key=lambda s: rank(name, s))) for name, each in named.items()}


def meanings(text: str) -> tuple[Synset, ...]:
    """The concepts that a word, a phrase or a WordNet id names: first what people mean by it; none if it is in none.

    That is the one which has it as its usual name and, of several, which comprises most classes.
    """
    name = plain(text)
    if name in synsets():
        return (synsets()[name],)
    if name in _by_name():
        return _by_name()[name]
    whole = plain(text.replace(",", ", "))  # such as `tabby, tabby cat`, as a class is called
    return tuple(synset for synset in synsets().values() if "," in text and plain(", ".join(synset.names)) == whole)


def concept(text: str) -> Synset:
    """What a word, a phrase or a WordNet id names, in the first of its meanings. Raises UsageError if it names none."""
    found = meanings(text)
    if not found:
        raise UsageError(f"{text!r} is not a concept of WordNet's above or among ImageNet's classes", suggestion(text))
    return found[0]


def suggestion(text: str, more: Iterable[str] = ()) -> str:
    """A sentence with the words that are most like one that is in no concept. more: others that may have been meant."""
    import difflib

    known = dict.fromkeys([*_by_name(), *map(plain, more)])
    close = difflib.get_close_matches(plain(text), known, 3)
    return f"The nearest words: {', '.join(close)}." if close else ""
