"""Whether one of two models is right more often than the other on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log

FAILED, WRONG, RIGHT = 0, 1, 2  # what became of an image


@dataclass(frozen=True)
class Comparison:
    """A model against another, on the images that both answered.

    images: how many those are. only_this, only_first: of these, which one of the two alone has right. p: of McNemar's
    exact test, two-sided: how likely a difference as large is between models that are right equally often.
    """

    model: str
    against: str
    images: int
    only_this: int
    only_first: int
    p: float


def compared(model: str, outcomes: bytearray, against: str, first: bytearray) -> Comparison:
    """outcomes, first: of each image, in the same order, FAILED, WRONG or RIGHT with the one model and the other."""
    pairs = [0] * 9
    for this, that in zip(outcomes, first, strict=True):
        pairs[3 * this + that] += 1
    only_this, only_first = pairs[3 * RIGHT + WRONG], pairs[3 * WRONG + RIGHT]
    both = only_this + only_first + pairs[3 * RIGHT + RIGHT] + pairs[3 * WRONG + WRONG]
    return Comparison(model, against, both, only_this, only_first, mcnemar(only_this, only_first))


def mcnemar(one: int, other: int) -> float:
    """The two-sided p-value of McNemar's exact test: of a fair coin that falls so often on either side, or less evenly.

    (McNemar, 1947; the exact form is the binomial test.) one, other: pairs in which only the one, or the other, is so.
    """
    least, count = min(one, other), one + other
    if one == other:
        return 1.0
    # Twice the lower tail, as its largest term times a sum of ratios: no number in it is too large or too small.
    ratio = total = 1.0
    for i in range(least, 0, -1):
        ratio *= i / (count - i + 1)
        total += ratio
        if ratio < 1e-17 * total:
            break
    largest = lgamma(count + 1) - lgamma(least + 1) - lgamma(count - least + 1) - count * log(2)
    return min(1.0, 2 * exp(largest) * total)
