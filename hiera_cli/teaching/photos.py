"""The Results of a run over labelled photos → their features and classes, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_cli.inputs.labelled import Labelled
from hiera_cli.result import Failure
from hiera_cli.tasks.teach import Seen


class Photos:
    """Where the Results of a run go: those with features are kept, in the order of the inputs.

    images: the inputs of the run, in order. names: of the classes.
    """

    def __init__(self, images: Sequence[Labelled], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.paths: list[str] = []
        self.failed: list[tuple[str, Failure]] = []
        self._images = iter(images)
        self._total = len(images)
        self._index = {name: index for index, name in enumerate(names)}
        self._targets: list[int] = []
        self._features: NDArray[np.float32] | None = None

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, 2, C): of each photo and of its mirror image. There are some: see `paths`."""
        assert self._features is not None
        return self._features[: len(self.paths)]

    @property
    def targets(self) -> NDArray[np.intp]:
        """(N,): the index of each photo's class."""
        return np.array(self._targets, np.intp)

    def write(self, result: Any) -> None:
        """Take one in."""
        assert isinstance(result, Seen)
        image = next(self._images)
        while image.source.path is not result.path:  # a run that is stopped leaves some out
            image = next(self._images)
        if result.error is not None:
            self.failed.append((result.path, result.error))
        elif result.features is not None:
            if self._features is None:  # one array for all: the system gives memory to what is written in it
                self._features = np.empty((self._total, *result.features.shape), np.float32)
            self._features[len(self.paths)] = result.features
            self.paths.append(result.path)
            self._targets.append(self._index[image.label])

    def close(self, *, complete: bool) -> None:
        """Nothing to do."""
