"""Images with labels out as sources, Results back: each with the truth of its source."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hiera_cli.errors import OutputError
from hiera_cli.evaluation.tally import Tally
from hiera_cli.evaluation.truth import Truths
from hiera_cli.inputs.labelled import Labelled
from hiera_cli.inputs.source import Source
from hiera_cli.system.utf8 import valid
from hiera_cli.tasks.classify import Prediction
from hiera_cli.tasks.evaluate import Evaluated


class Pairing:
    """One pass over labelled images, for a run whose Results come in the order of its sources.

    truths: of their labels; images of others are left out, and counted. tally: gets every Result.
    """

    def __init__(self, images: Iterable[Labelled], truths: Truths, tally: Tally) -> None:
        self._images = images
        self._truths = truths
        self._tally = tally
        self._waiting: deque[tuple[int, Labelled]] = deque()  # (place, image) whose Result is to come
        self.found: Counter[str] = Counter()  # images so far, by label

    @property
    def unknown(self) -> int:
        """Images so far whose label means nothing, which were left out."""
        return sum(count for label, count in self.found.items() if label not in self._truths.known)

    def sources(self) -> Iterator[Source]:
        """Of the images, as a run takes them, on whatever thread."""
        for place, image in enumerate(self._images):
            self.found[image.label] += 1
            if image.label in self._truths.known:
                self._waiting.append((place, image))
                yield image.source

    def evaluated(self, results: Iterable[Evaluated]) -> Iterator[Evaluated]:
        """The Results with their truths. A run that is stopped leaves some out: those have none."""
        for result in results:
            place, image = self._waiting.popleft()
            while image.source.path is not result.path:  # not by its text: a path may come twice, with two truths
                place, image = self._waiting.popleft()
            result = replace(result, said=image.label, truth=self._truths.known[image.label])
            self._tally.add(result, place)
            yield result

    def add_done(self, record: Mapping[str, Any]) -> None:
        """Count the newest source by its record of an earlier run, which no Result is to come for.

        Raises OutputError if that had another truth.
        """
        place, image = self._waiting.pop()
        before = record["truth"]["name"]
        if before != valid(image.label):
            path = image.source.path
            message = f"cannot go on with the records: the truth of {path} was {before!r}, and is {image.label!r} now"
            raise OutputError(message, remedy="another output")
        predictions = tuple(Prediction(**each) for each in record["predictions"])
        truth = self._truths.known[image.label]
        result = Evaluated(
            image.source.path, precision=record["precision"], predictions=predictions, said=image.label, truth=truth
        )
        self._tally.add(result, place, before=True)
