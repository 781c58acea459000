"""The names that people give to classes → the classes of a model that are right where such a name is the truth."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import Label
from hiera_cli.errors import UsageError
from hiera_cli.tasks.evaluate import Truth

MOST_TOLD = 5
ID = re.compile(r"(n\d{8})(?![0-9A-Za-z])")  # also before more: n02085620-Chihuahua, as data sets have it


@dataclass(frozen=True)
class Truths:
    """What each name means. known: names → truths. unknown: those that mean nothing, or not one thing.

    reasons: of the first unknown ones, a sentence on each. remarks: on names that could mean something else too.
    """

    known: Mapping[str, Truth]
    unknown: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def check(self, model: str, hint: str = "") -> None:
        """Raise UsageError if there are unknown names, with what was probably meant.

        model: its name. hint: what to do, where it is not to take another name or to leave such images out.
        """
        if not self.unknown:
            return
        more = len(self.unknown) - len(self.reasons)
        count = f"{len(self.unknown):,} of {len(self.unknown) + len(self.known):,} names"
        raise UsageError(
            f"{count} {'is' if len(self.unknown) == 1 else 'are'} no class of {model}",
            "\n".join([*self.reasons, *([f"and {more:,} more"] if more else []), *([hint] if hint else [])]),
            remedy="" if hint else "unknown classes",
            model=shlex.quote(model),
        )

    def restricted(self, names: Container[str]) -> Truths:
        """With no other names known than these."""
        known = {name: truth for name, truth in self.known.items() if name in names}
        unknown = (*self.unknown, *(name for name in self.known if name not in names))
        return Truths(known, unknown, self.reasons, self.remarks)


def truths(names: Iterable[str], labels: Sequence[Label]) -> Truths:
    """What names of classes mean for a model. labels: the model's.

    A name is, first that fits: a whole label; a WordNet id, whatever stands behind it; the first name of a label; any
    other of its names, as `tabby, tabby cat` has two; an index; a concept of WordNet's, for all classes under it.
    Case does not count, underscores and hyphens are spaces, and a plural is as good as its singular. A name that fits
    several classes alike is unknown: nothing is guessed.
    """
    finder = _Finder(labels)
    known: dict[str, Truth] = {}
    unknown: list[str] = []
    remarks: list[str] = []
    for name in dict.fromkeys(names):
        truth, remark = finder.find(name)
        if truth is None:
            unknown.append(name)
        else:
            known[name] = truth
            remarks += [remark] if remark else []
    return Truths(known, tuple(unknown), tuple(map(finder.reason, unknown[:MOST_TOLD])), tuple(remarks))


class _Finder:
    """Looks names up in a model's labels."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._labels = labels
        self._exact = _by_name((label.text, label) for label in labels)
        self._whole = _by_name((_plain(label.text), label) for label in labels)
        self._first = _by_name((_plain(label.text.split(",")[0]), label) for label in labels)
        self._any = _by_name((_plain(name), label) for label in labels for name in label.text.split(","))
        self._ids = {label.wnid: label for label in labels if label.wnid}

    def find(self, name: str) -> tuple[Truth | None, str]:
        """(the truth, a remark on what else it may mean or ""). None if a name means nothing, or not one thing."""
        found = self._classes(name)
        if not found:
            return self._concept(name)
        return (_of_class(found[0]), self._also(name, found[0])) if len(found) == 1 else (None, "")

    def reason(self, name: str) -> str:
        """Why there is no truth of this name, and what was probably meant."""
        if found := self._classes(name):
            return f"{name}: it may be {' or '.join(map(_described, found))}: name it by its index or WordNet id"
        return f"{name}: nothing is called that. {self._nearest(name)}".rstrip()

    def _classes(self, name: str) -> Sequence[Label]:
        if name in self._exact:
            return self._exact[name]
        if (match := ID.match(name)) and match[1] in self._ids:
            return (self._ids[match[1]],)
        for plain in wordnet.forms(_plain(name)):
            for known in (self._whole, self._first, self._any):
                if plain in known:
                    return known[plain]
        if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(self._labels):
            return (self._labels[int(name)],)
        return ()

    def _meanings(self, name: str) -> tuple[wordnet.Synset, ...]:
        if not self._ids:
            return ()
        match = ID.match(name)
        if match:
            return wordnet.meanings(match[1])
        return wordnet.meanings(name) or wordnet.meanings(name.replace("-", " "))

    def _also(self, name: str, taken: Label) -> str:
        """A remark on what else a name may mean that a class was taken for."""
        plain = _plain(name)
        if ID.match(name) or (plain == _plain(taken.text) and "," in taken.text):
            return ""
        others = [_described(label) for label in self._any.get(plain, ()) if label is not taken]
        others += [
            f"{meaning.name} ({meaning.wnid})"
            for meaning in self._meanings(name)
            if meaning.wnid != taken.wnid and meaning.wnid not in self._ids
        ]
        return f"{name}: {_described(taken)}; also {', '.join(others)}" if others else ""

    def _concept(self, name: str) -> tuple[Truth | None, str]:
        for meaning in self._meanings(name)[:1]:
            if indices := wordnet.indices(meaning.wnid, self._labels):
                remark = wordnet.meaning_taken(name) or wordnet.meaning_taken(name.replace("-", " "))
                return Truth(meaning.name, frozenset(indices), None, meaning.wnid), remark
        return None, ""

    def _nearest(self, name: str) -> str:
        """A sentence with the classes and concepts that are called most alike."""
        import difflib

        known = {each: _described(labels[0]) for each, labels in self._any.items()}
        for synset in wordnet.synsets().values() if self._ids else ():
            if wordnet.classes()[synset.wnid] & self._ids.keys():
                for each in synset.names:
                    known.setdefault(_plain(each), f"{each} (concept)")
        close = dict.fromkeys(known[each] for each in difflib.get_close_matches(_plain(name), known, 3, 0.75))
        return f"The nearest: {'; '.join(close)}" if close else ""


def _by_name(pairs: Iterable[tuple[str, Label]]) -> dict[str, tuple[Label, ...]]:
    """The labels of each name, each once."""
    named: dict[str, dict[int, Label]] = {}
    for name, label in pairs:
        named.setdefault(name, {})[label.index] = label
    return {name: tuple(each.values()) for name, each in named.items()}


def _plain(text: str) -> str:
    """A name as names are compared. A file system may have taken its accents apart."""
    words = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", text).replace(",", ", "))
    return words.replace(" ,", ",").strip().casefold()


def _of_class(label: Label) -> Truth:
    return Truth(label.text, frozenset({label.index}), label.index, label.wnid)


def _described(label: Label) -> str:
    return f"{label.index} {label.text}" + (f" ({label.wnid})" if label.wnid else "")
