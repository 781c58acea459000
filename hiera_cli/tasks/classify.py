"""Logits → predictions. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints.labels import Label
from hiera_cli.result import Prediction


def predict(
    logits: NDArray[np.float32], labels: Sequence[Label], top_k: int, min_score: float = 0.0
) -> tuple[Prediction, ...]:
    """Softmax and the best `top_k` classes, those under `min_score` left out.

    logits: (classes,), float32. More than the classes means all of them. Equal scores come in index order.
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponentials / exponentials.sum()
    best = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        Prediction(rank, int(index), labels[index].wnid, labels[index].text, float(scores[index]))
        for rank, index in enumerate(best, 1)
        if scores[index] >= min_score
    )
