"""WordNet's tree above ImageNet's classes: words → concepts, concepts → the classes that they comprise.

The 1,860 synsets of WordNet 3.0 that are ImageNet's 1000 classes or stand above one, in data/imagenet_hierarchy.tsv. A
synset is known by its WordNet id: `n` and the offset in WordNet 3.0's noun file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

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


def above(wnid: str) -> set[str]:
    """The ids of all concepts that one is a kind of, whether right below or further down."""
    found: set[str] = set()
    waiting = [*synsets()[wnid].parents]
    while waiting:
        wnid = waiting.pop()
        if wnid not in found:
            found.add(wnid)
            waiting += synsets()[wnid].parents
    return found


def by_size(wnids: Iterable[str]) -> list[str]:
    """Ids of concepts, those that comprise the fewest classes first; of equals by id."""
    return sorted(wnids, key=lambda wnid: (len(classes()[wnid]), wnid))


def lineage(wnid: str) -> tuple[str, ...]:
    """The ids of concepts above one, upwards: of the ways there are (a dog is a canine and a domestic animal) the one
    with the most steps, and of equals the first.
    """
    return max(((parent, *lineage(parent)) for parent in synsets()[wnid].parents), key=len, default=())


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
        for name in dict.fromkeys(map(str.casefold, synset.names)):  # plain, but for that
            named.setdefault(name, []).append(synset)
    return {name: tuple(each) for name, each in named.items()}


def forms(name: str) -> Iterator[str]:
    """A word or phrase, and what it may be the plural of: `dogs`, `foxes`, `puppies`."""
    yield name
    for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if name.endswith(ending) and len(name) > len(ending) + 1:
            yield name.removesuffix(ending) + singular


def meanings(text: str) -> tuple[Synset, ...]:
    """The concepts that a word, a phrase or a WordNet id names: first what people mean by it; none if it is in none.

    That is the one which has it as its usual name and, of several, which comprises most classes. A plural names what
    its singular does, if it is none itself.
    """
    name = next((each for each in forms(plain(text)) if each in _by_name()), plain(text))
    if name in synsets():
        return (synsets()[name],)
    if named := _by_name().get(name, ()):
        if len(named) == 1:
            return named
        return tuple(sorted(named, key=lambda s: (s.name.casefold() != name, -len(classes()[s.wnid]), s.wnid)))
    whole = plain(text.replace(",", ", "))  # such as `tabby, tabby cat`, as a class is called
    return tuple(synset for synset in synsets().values() if "," in text and plain(", ".join(synset.names)) == whole)


def concept(text: str) -> Synset:
    """What a word, a phrase or a WordNet id names, in the first of its meanings. Raises UsageError if it names none."""
    found = meanings(text)
    if not found:
        raise UsageError(f"'{text}' is not a concept of WordNet's above or among ImageNet's classes", suggestion(text))
    return found[0]


def concepts(words: Iterable[str]) -> tuple[str, ...]:
    """The ids of what words, phrases or ids name, each once, in order. Raises UsageError as `concept` does."""
    return tuple(sorted({concept(word).wnid for word in words}))


def meaning_taken(text: str) -> str:
    """A sentence on which meaning of a word `concept` takes, and what else it may mean; "" if it has only one."""
    first, *others = meanings(text) or (None,)
    if first is None or not others:
        return ""
    also = "; ".join(f"{other.name}, {_about(other)}" for other in others)
    return f"{text}: {', '.join(first.names)}, {_about(first)}; also {also}"


def _about(synset: Synset) -> str:
    above = " and ".join(synsets()[parent].name for parent in synset.parents) or "everything"
    count = len(classes()[synset.wnid])
    return f"a kind of {above} ({synset.wnid}, {count} {'class' if count == 1 else 'classes'})"


def beginning_with(text: str) -> list[str]:
    """The names of concepts that begin so, sorted: for completion."""
    names = {name for synset in synsets().values() for name in synset.names if name.startswith(text)}
    return sorted(names, key=lambda name: (name.casefold(), name))


def check_classes(labels: Sequence[Label], model: str) -> None:
    """Raise UsageError for classes that are not ImageNet's, which no concept comprises. model: its name."""
    if not any(label.wnid for label in labels):
        raise UsageError(
            f"the classes of {model} are not ImageNet's: WordNet's tree has those alone", remedy="classes of its own"
        )


@dataclass(frozen=True)
class Row:
    """One line of a drawn tree.

    lasts: for each step down from the top, whether it went to the last of the kinds there; the top has none. index: of
    a class, None for a concept. classes: how many of the model's it comprises. again: its kinds stand further above.
    """

    synset: Synset
    lasts: tuple[bool, ...]
    index: int | None
    classes: int
    again: bool


def rows(top: str, labels: Sequence[Label]) -> Iterator[Row]:
    """The tree from a concept downwards, each one before its kinds. labels: of the model, whose classes it ends in.

    What is a kind of two concepts stands under both, what is below it only once.
    """
    index = {label.wnid: label.index for label in labels}
    count = {wnid: len(each & index.keys()) for wnid, each in classes().items()}
    seen: set[str] = set()

    def below(wnid: str, lasts: tuple[bool, ...]) -> Iterator[Row]:
        children = _in_alphabet(child for child in kinds()[wnid] if count[child])
        again = wnid in seen and bool(children)
        yield Row(synsets()[wnid], lasts, index.get(wnid), count[wnid], again)
        seen.add(wnid)
        if not again:
            for child in children:
                yield from below(child, (*lasts, child == children[-1]))

    return below(top, ())


def nested(top: str, labels: Sequence[Label]) -> dict[str, Any]:
    """The same tree as nested records. What is a kind of two concepts stands under both, with all that is below it."""
    index = {label.wnid: label.index for label in labels}
    count = {wnid: len(each & index.keys()) for wnid, each in classes().items()}

    def record(wnid: str) -> dict[str, Any]:
        return {
            "wnid": wnid,
            "names": list(synsets()[wnid].names),
            "index": index.get(wnid),
            "classes": count[wnid],
            "kinds": [record(child) for child in _in_alphabet(child for child in kinds()[wnid] if count[child])],
        }

    return record(top)


def _in_alphabet(wnids: Iterable[str]) -> list[str]:
    return sorted(wnids, key=lambda wnid: (synsets()[wnid].name.casefold(), wnid))


def suggestion(text: str, more: Iterable[str] = (), *, concepts: bool = True) -> str:
    """A sentence with the words that are most like one that is in no concept. more: others that may have been meant.

    concepts: whether those of concepts may have been.
    """
    import difflib

    word = plain(text)
    known = dict.fromkeys([*(_by_name() if concepts else ()), *map(plain, more)])
    swapped = [name for name in known if sorted(name) == sorted(word)]  # letters, which difflib finds far apart
    close = [*dict.fromkeys([*swapped, *difflib.get_close_matches(word, known, 3)])][:3]
    return f"The nearest words: {', '.join(close)}." if close else ""
