"""Where a label comes from: its logit as a constant and one term for each of the 7 × 7 last tokens. Free of torch.

The classifier reads the LayerNorm of the tokens' mean. With the mean's own deviation taken as it is, that is linear in
the tokens, so a logit falls into parts exactly. For a class of weight w and bias b, the tokens x_i, their mean m, and
the LayerNorm's weight γ and bias β:

    logit = b + w·β + Σ_i w·(γ ⊙ (x_i − mean(x_i))) / (49 · sqrt(var(m) + ε))

mean() and var() go over channels. No gradient is taken and nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.errors import InferenceError
from hiera_cli.model.architecture import LAYER_NORM_EPS

DIGITS = 6  # in records
SIDE = 7  # tokens, rows and columns

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where one label comes from: a class, or a concept, whose index is None.

    score: of the label, 0 to 1. logit: what the softmax takes; of a concept the log of the sum of the exponentials of
    its classes' logits. terms: (7, 7), rows and columns of the image, what each place adds to the logit; of a concept
    those of its classes, each by its share in the concept's score. constant: the rest: logit = constant + sum of terms.
    """

    index: int | None
    wnid: str | None
    label: str
    score: float
    logit: float
    terms: Array
    constant: float

    @property
    def place(self) -> tuple[int, int]:
        """The row and column of the largest term, from 0."""
        row, column = divmod(int(self.terms.argmax()), SIDE)
        return row, column

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a record, to six decimals. They add up: what rounding the terms leaves is in the constant."""
        terms = self.terms.round(DIGITS) + 0.0  # no -0.0
        logit = round(self.logit, DIGITS)
        return {
            "index": self.index,
            "wnid": self.wnid,
            "label": self.label,
            "score": round(self.score, DIGITS),
            "logit": logit,
            "terms": terms.tolist(),
            "constant": round(logit - float(terms.sum()), DIGITS),
        }


def is_explanation(value: Any) -> bool:
    """Whether a part of a parsed record is one."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("label"), str)
        and all(isinstance(value.get(name), float) for name in ("score", "logit", "constant"))
        and isinstance(value.get("terms"), list)
        and len(value["terms"]) == SIDE
    )


class Head:
    """What follows the last tokens, in double precision: LayerNorm and classifier. Raises CheckpointError."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        layer = checkpoint.classifier()
        assert layer is not None, "a backbone has no classifier"
        weight, bias = (array.astype(np.float64) for array in layer)
        gamma, beta = (array.astype(np.float64) for array in checkpoint.last_norm())
        self.weight = weight * gamma  # (classes, C)
        self.constants = bias + weight @ beta  # (classes,)


class Decomposition:
    """The logits of one image, and what each place adds to them.

    tokens: (7, 7, C), the last ones. logits: (classes,), those of the engine but for its rounding: it reads the same
    tokens. Raises InferenceError if they are not numbers.
    """

    def __init__(self, tokens: NDArray[np.float32], head: Head) -> None:
        x = tokens.astype(np.float64)
        deviation = np.sqrt(x.mean((0, 1)).var() + LAYER_NORM_EPS)
        self._head = head
        self._places: Array = (x - x.mean(-1, keepdims=True)) / (deviation * SIDE**2)
        self.logits: Array = head.weight @ self._places.sum((0, 1)) + head.constants
        if not np.isfinite(self.logits).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")

    def of(self, classes: Sequence[int]) -> tuple[float, Array, float]:
        """(logit, terms (7, 7), constant) of a class, or of several together. classes: their indices, at least one."""
        logits = self.logits[list(classes)]
        most = float(logits.max())
        exponentials = np.exp(logits - most)
        logit = most + float(np.log(exponentials.sum()))
        shares = exponentials / exponentials.sum()
        terms: Array = self._places @ (shares @ self._head.weight[list(classes)])
        return logit, terms, logit - float(terms.sum())


def hundredths(value: float) -> float:
    """Rounded to two decimals, and no -0.0."""
    return round(value, 2) + 0.0


def in_parts(explanation: Explanation) -> str:
    """Such as `logit 24.22 = 19.54 + 4.68 from the places`: it adds up as it is shown."""
    logit, places = hundredths(explanation.logit), hundredths(float(explanation.terms.sum()))
    sign = "-" if places < 0 else "+"
    return f"logit {logit:.2f} = {hundredths(logit - places):.2f} {sign} {abs(places):.2f} from the places"
