"""Features of labelled photos → a linear classifier of them, and what cross-validation says of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
# Of regularisation: scikit-learn's C, by which the loss of each row weighs against half the squared weights. From the
# strongest on; the search ends where the log loss has grown twice.
STRENGTHS = tuple(10.0**power for power in range(-4, 3))
SEARCHED = 5000  # photos by which the strength is chosen, at the most
MAX_ITERATIONS = 1000
TOLERANCE = 1e-5  # of the gradient's largest entry, the loss a mean over rows

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Tried:
    """What cross-validation says of a strength. log_loss: mean cross-entropy, in nats. accuracy: from 0 to 1."""

    strength: float
    log_loss: float
    accuracy: float


@dataclass(frozen=True)
class Fitted:
    """A classifier: logits = features · weightᵀ + bias.

    weight: float32 (K, C). bias: float32 (K,). strength: as chosen from those `tried`, of which `searched` photos were
    asked. folds: of the cross-validation. probabilities: float32 (N, K), of each photo by a classifier that was fitted
    without it.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    tried: tuple[Tried, ...]
    searched: int
    folds: int
    probabilities: NDArray[np.float32]


def fit(
    features: NDArray[np.float32],
    targets: NDArray[np.intp],
    originals: NDArray[np.intp],
    seed: int,
    tell: Tell = lambda message: None,
) -> Fitted:
    """Multinomial logistic regression with an L2 penalty, its strength the one with the least log loss.

    features: (N, 2, C), of each photo and of its mirror image, which are both learnt from; overwritten. targets: (N,),
    each one's class; every class from 0 on has two photos or more. originals: (N,), the photo that each is a copy of,
    or itself: copies are never in two folds, but for a class that has nothing else. seed: of the folds. tell: gets a
    line on what is going on. The same arguments give the same classifier, to the bit, on one machine.

    The log loss is asked, and not the accuracy, for it is steadier on few photos, and scores mean what they say by it.
    """
    import sklearn.linear_model  # noqa: F401  # before the next line, which limits what is loaded by then
    from threadpoolctl import threadpool_limits

    # The products are too small for several threads, which would wait for each other longer than they compute.
    with threadpool_limits(1):
        scale, centre = _standardise(features)
        fold = folds(targets, originals, seed)
        used = len(np.unique(fold))
        searched = _sample(targets, seed)
        tell(f"choosing the strength by {used}-fold cross-validation on {len(searched):,} photos")
        if len(searched) == len(targets):
            strength, tried, probabilities = _search(features, targets, fold)
        else:
            part = folds(targets[searched], _within(originals, searched), seed)
            strength, tried, _ = _search(features[searched], targets[searched], part)
            tell(f"cross-validation on all {len(targets):,} photos")
            (probabilities,) = _cross_validated(features, targets, fold, [strength])
        tell(f"fitting on all {len(targets):,} photos")
        weight, bias = _fit(_model(strength), *_rows(features, targets))
    weight = weight / scale
    bias = bias - weight @ centre
    return Fitted(
        weight.astype(np.float32),
        bias.astype(np.float32),
        strength,
        tuple(tried),
        len(searched),
        used,
        probabilities,
    )


def folds(targets: NDArray[np.intp], originals: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """The fold of each photo, from 0: as many of each class in each, and no class within a single one.

    A class of fewer photos than folds is in as many folds as it has photos. Copies are in the fold of their original.
    """
    count = min(FOLDS, len(targets))
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    order = shuffled[np.argsort(targets[shuffled], kind="stable")]
    first = order[originals[order] == order]
    fold = np.empty(len(targets), np.intp)
    fold[first] = np.arange(len(first)) % count
    fold = fold[originals]
    for label in range(int(targets.max()) + 1):
        members = order[targets[order] == label]
        if (fold[members] == fold[members[0]]).all():
            fold[members] = np.arange(len(members)) % count
    return fold


def _sample(targets: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Indices of at most so many photos, in order: of each class the same share, and some of each."""
    if len(targets) <= SEARCHED:
        return np.arange(len(targets))
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    kept = []
    for label in range(int(targets.max()) + 1):
        members = shuffled[targets[shuffled] == label]
        kept.append(members[: max(FOLDS, len(members) * SEARCHED // len(targets))])
    return np.sort(np.concatenate(kept))


def _within(originals: NDArray[np.intp], kept: NDArray[np.intp]) -> NDArray[np.intp]:
    """The originals of some photos, as indices among these; whose original is not one of them counts as one."""
    places = np.full(len(originals), -1)
    places[kept] = np.arange(len(kept))
    found = places[originals[kept]]
    return np.where(found >= 0, found, np.arange(len(kept)))


def _standardise(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give every channel the mean 0 and the deviation 1, in place; returns the deviations and means that it had."""
    rows = features.reshape(-1, features.shape[-1])
    centre = rows.mean(axis=0, dtype=np.float64)
    rows -= centre.astype(np.float32)
    centre = centre.astype(np.float32).astype(np.float64)
    scale = np.sqrt(np.einsum("ij,ij->j", rows, rows, dtype=np.float64) / len(rows)).astype(np.float32)
    scale[scale == 0] = 1
    rows /= scale
    return scale.astype(np.float64), centre


def _search(
    features: NDArray[np.float32], targets: NDArray[np.intp], fold: NDArray[np.intp]
) -> tuple[float, list[Tried], NDArray[np.float32]]:
    """The best strength, those that were tried, and the probabilities by the best."""
    tried: list[Tried] = []
    best = 0
    for strength, found in zip(STRENGTHS, _cross_validated(features, targets, fold, STRENGTHS), strict=False):
        own = found[np.arange(len(targets)), targets].astype(np.float64)
        loss = float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())
        tried.append(Tried(strength, loss, float((found.argmax(axis=1) == targets).mean())))
        if loss < tried[best].log_loss or len(tried) == 1:
            best, probabilities = len(tried) - 1, found
        elif len(tried) - 1 - best == 2:
            break
    return tried[best].strength, tried, probabilities


def _cross_validated(
    features: NDArray[np.float32], targets: NDArray[np.intp], fold: NDArray[np.intp], strengths: Sequence[float]
) -> Iterator[NDArray[np.float32]]:
    """For each strength the probabilities of each photo, (N, K), by a classifier of the other folds.

    Of the photos themselves: their mirror images are only learnt from. Each fold's classifier begins where the one of
    the strength before it has ended.
    """
    models = {int(number): _model(strengths[0]) for number in np.unique(fold)}
    for strength in strengths:
        probabilities = np.empty((len(targets), int(targets.max()) + 1), np.float32)
        for number, model in models.items():
            held = fold == number
            weight, bias = _fit(model.set_params(C=strength), *_rows(features[~held], targets[~held]))
            probabilities[held] = _softmax(features[held, 0] @ weight.T.astype(np.float32) + bias)
        yield probabilities


def _rows(features: NDArray[np.float32], targets: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """(N, 2, C), (N,) → (2 N, C), (2 N,)."""
    return features.reshape(-1, features.shape[-1]), np.repeat(targets, 2)


def _model(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, warm_start=True, max_iter=MAX_ITERATIONS, tol=TOLERANCE)


def _fit(
    model: Any, rows: NDArray[np.float32], targets: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and bias, of which two classes have a row each as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an end before convergence: weak strengths need none to be worse
        model.fit(rows, targets)
    weight, bias = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weight) == 1:  # the log odds of the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
