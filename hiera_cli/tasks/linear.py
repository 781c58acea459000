"""Features → a linear classifier of them: what teaches a frozen backbone other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ITERATIONS = 300


def fit(features: Tensor, targets: Tensor, classes: int, weight_decay: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: the weight and bias that minimise the mean cross-entropy, regularised.

    features: (N, C), float32, such as the last LayerNorm gives them; of a like size in every channel, or the weight
    decay means different things to them. targets: (N,), the index of each one's class. classes: how many there are, K;
    one that no target names gets a low score. weight_decay: λ in cross-entropy + λ · Σ weight²; the bias is free.

    Returns the weight (K, C) and the bias (K,): logits = features · weightᵀ + bias. The problem is convex, and for
    λ > 0 its weight the only one; L-BFGS finds it from zero, without chance, to convergence (or MAX_ITERATIONS, which
    a λ near 0 may need).
    """
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(features, weight, bias), targets) + weight_decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
