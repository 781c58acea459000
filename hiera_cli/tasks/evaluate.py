"""Labels held against the truth: the best five, and at which rank the first right one stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hiera_cli.tasks.classify import TOP_K, Classified, Classify


@dataclass(frozen=True)
class Truth:
    """What an image shows. indices: of the classes that are right. label: of the class, or the concept's name.

    index: of the class, None for a concept of WordNet's, any class of which is right. wnid: None for classes that are
    not ImageNet's.
    """

    label: str
    indices: frozenset[int]
    index: int | None = None
    wnid: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated(Classified):
    """A Result with its truth. said: the name that the truth was given by, such as a folder's."""

    said: str = ""
    truth: Truth | None = None

    done: ClassVar[str] = "evaluated"

    @property
    def rank(self) -> int | None:
        """Of the first right label, from 1; None if there is none among the best five."""
        right = self.truth.indices if self.truth else frozenset()
        return next((each.rank for each in self.predictions if each.index in right), None)

    def answer(self) -> dict[str, Any]:
        """The predictions, and how they stand to the truth; of an error the truth alone."""
        truth = self.truth or Truth("", frozenset())
        return {
            **Classified.answer(self),
            "truth": {"name": self.said, "index": truth.index, "wnid": truth.wnid, "label": truth.label},
            "rank": self.rank,
            "correct": self.rank == 1 if self.error is None else None,
        }

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether the record has predictions and the name of its truth."""
        truth = record.get("truth")
        named = isinstance(truth, dict) and isinstance(truth.get("name"), str)
        return named and bool(record.get("predictions")) and Classified.is_answer(record)


@dataclass(frozen=True)
class Evaluate(Classify):
    """Label images with the best five classes. The truth is no affair of the model: who knows it adds it."""

    kind: ClassVar[type[Evaluated]] = Evaluated

    @property
    def most(self) -> int:
        """Labels of an image."""
        return TOP_K

    @property
    def settings(self) -> dict[str, Any]:
        """None: every record has the best five classes."""
        return {}
