"""Class index → WordNet id and label."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Label:
    """One class of a model. wnid: its WordNet id, None for classes that are not ImageNet's."""

    index: int
    wnid: str | None
    text: str


@cache
def imagenet_labels() -> tuple[Label, ...]:
    """The 1000 classes of ImageNet-1K, in the order and wording of the published checkpoints."""
    table = files("hiera_cli").joinpath("data", "imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return tuple(Label(int(index), wnid, text) for index, wnid, text in rows)


def matching(
    labels: tuple[Label, ...], query: str, members: Container[str | None] = (), *, whole: bool = False
) -> list[Label]:
    """The labels that contain a word or phrase, or have it as their index or WordNet id, without regard to case.

    members: the WordNet ids of classes that belong to them whatever their words. These and the labels that have the
    query as whole words come first, then the rest, each in the order of the classes. whole: leave out the rest.
    """
    wanted = query.casefold()
    if not wanted:
        return list(labels)
    words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    first, rest = [], []
    for label in labels:
        text = label.text.casefold()
        if label.wnid in members or words.search(text) or wanted in (str(label.index), label.wnid):
            first.append(label)
        elif wanted in text and not whole:
            rest.append(label)
    return first + rest
