"""Explanations: the last tokens → where each label of an image comes from. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import Label, matching
from hiera_cli.errors import UsageError
from hiera_cli.images.recipe import Crop, seen
from hiera_cli.result import Result
from hiera_cli.tasks.classify import Classifier
from hiera_cli.tasks.terms import Decomposition, Explanation, Head, is_explanation

TOLD_LABELS = 3


@dataclass(frozen=True, slots=True)
class Explained(Result):
    """A Result with where its labels come from; none for an error.

    crop: what the model saw, uint8 (224, 224, 3), if pictures are wanted. picture: that with the terms over it. file:
    where it was saved, "" if it was not.
    """

    explanations: tuple[Explanation, ...] = ()
    crop: Crop | None = None
    picture: Image.Image | None = None
    file: str = ""

    done: ClassVar[str] = "explained"

    def answer(self) -> dict[str, Any]:
        """The explanations, to six decimals, and the picture's file."""
        return {"explanations": [each.to_dict() for each in self.explanations], "picture": self.file or None}

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether the record has explanations."""
        explanations = record.get("explanations")
        return isinstance(explanations, list) and all(map(is_explanation, explanations))


@dataclass(frozen=True)
class Named:
    """What can be explained: a class, or a concept, whose index is None. classes: the model's that it comprises."""

    index: int | None
    wnid: str | None
    label: str
    classes: tuple[int, ...]


def named(text: str, labels: Sequence[Label]) -> Named:
    """The class or concept that a word, a phrase, a WordNet id or an index names. Raises UsageError.

    Of a word with several meanings in WordNet the first one is taken; of a model's own labels only one may have it.
    """
    exact = [label for label in labels if text in (label.text, str(label.index), label.wnid)]
    found = exact if len(exact) == 1 else []
    is_imagenet = any(label.wnid for label in labels)
    if not found and is_imagenet and (meanings := wordnet.meanings(text)):
        classes = wordnet.indices(meanings[0].wnid, labels)
        if not classes:
            raise UsageError(f"none of the model's classes is a kind of {meanings[0].name}")
        if meanings[0].wnid not in {label.wnid for label in labels}:
            return Named(None, meanings[0].wnid, meanings[0].name, tuple(classes))
        found = [labels[classes[0]]]
    if not found and text.strip():
        found = next(filter(None, (matching(tuple(labels), form, whole=True) for form in wordnet.forms(text))), [])
    if len(found) == 1:
        return Named(found[0].index, found[0].wnid, found[0].text, (found[0].index,))
    if found:
        told = "; ".join(f"{label.index} {label.text}" for label in found[:TOLD_LABELS])
        more = f" and {len(found) - TOLD_LABELS} more" if len(found) > TOLD_LABELS else ""
        raise UsageError(f"'{text}' names {len(found)} labels: {told}{more}", "Name one, by its index for example.")
    words = (word for label in labels for word in label.text.split(", "))
    what = "a label or a concept of the model's" if is_imagenet else "a label of the model's"
    raise UsageError(f"'{text}' is not {what}", wordnet.suggestion(text, words, concepts=is_imagenet))


@dataclass(frozen=True)
class Explain:
    """Show where labels come from: the best top_k of each image, then those that are named.

    top_k: None for 1, or for 0 where some are named. labels: names of classes and concepts (`named`). pictures: whether
    pictures are wanted, beside the numbers.
    """

    top_k: int | None = None
    labels: tuple[str, ...] = ()
    pictures: bool = True

    _ready: list[_Ready] = field(default_factory=list, init=False, repr=False, compare=False)  # for one model

    kind: ClassVar[type[Explained]] = Explained

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise UsageError(f"top_k is a whole number, 1 or more, not {self.top_k!r}")

    @property
    def best(self) -> int:
        """Labels of an image that are not named."""
        return self.top_k or (0 if self.labels else 1)

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in each record."""
        return {"top_k": self.best, "labels": [*self.labels]}

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Raise UsageError if one that is named is none of a model's."""
        for text in self.labels:
            named(text, labels)

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits."""
        return 1_000 * (self.best + len(self.labels)) + (160_000 if self.pictures else 0)

    def submit(
        self, model: Classifier, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], list[tuple[NDArray[np.float32], Crop | None]]]:
        """Start on the last tokens of a batch."""
        crops = [seen(each) if self.pictures else None for each in pixels]
        tokens = model.engine.submit(pixels, "tokens")
        return lambda: list(zip(tokens(), crops, strict=True))

    def answer(self, row: tuple[NDArray[np.float32], Crop | None], model: Classifier) -> dict[str, Any]:
        """row: the last tokens, (7, 7, C), and the crop. Raises InferenceError if the tokens are not numbers."""
        tokens, crop = row
        if not self._ready or self._ready[0].of is not model.labels:
            wanted = tuple(dict.fromkeys(named(text, model.labels) for text in self.labels))
            self._ready[:] = [_Ready(model.labels, Head(model.checkpoint), wanted)]
        ready = self._ready[0]
        decomposition = Decomposition(tokens, ready.head)
        best = np.argsort(-decomposition.logits, kind="stable")[: self.best]
        labels = [model.labels[place] for place in best]
        first = [Named(label.index, label.wnid, label.text, (label.index,)) for label in labels]
        everything, _, _ = decomposition.of(range(len(model.labels)))
        explanations = []
        for each in dict.fromkeys([*first, *ready.named]):
            logit, terms, constant = decomposition.of(each.classes)
            score = min(float(np.exp(logit - everything)), 1.0)
            explanations.append(Explanation(each.index, each.wnid, each.label, score, logit, terms, constant))
        return {"explanations": tuple(explanations), "crop": crop}


@dataclass(frozen=True)
class _Ready:
    """of: the model's labels. head: its last layers. named: what is to be explained of every image."""

    of: Sequence[Label]
    head: Head
    named: tuple[Named, ...]
