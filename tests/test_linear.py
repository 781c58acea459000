"""The linear classifier of features: it is at the minimum that it says."""

from __future__ import annotations

import torch

from hiera_cli.tasks.linear import fit

FEATURES = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
TARGETS = (FEATURES[:, :3] + 0.7 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1))).argmax(1)


def test_the_gradient_of_what_is_minimised_is_zero_there() -> None:
    weight, bias = fit(FEATURES, TARGETS, 4, 1e-2)
    assert (weight.shape, bias.shape) == ((4, 8), (4,))
    assert not weight.requires_grad
    share = torch.softmax(FEATURES @ weight.T + bias, 1) - torch.nn.functional.one_hot(TARGETS, 4)
    gradient = share.T @ FEATURES / 60 + 2 * 1e-2 * weight
    assert gradient.abs().max() < 1e-4
    assert share.mean(0).abs().max() < 1e-3  # the bias is free: classes are as frequent as they are


def test_the_same_features_give_the_same_classifier_to_the_bit() -> None:
    first, second = fit(FEATURES, TARGETS, 3, 1e-3), fit(FEATURES, TARGETS, 3, 1e-3)
    assert all(map(torch.equal, first, second))


def test_more_weight_decay_gives_smaller_weights() -> None:
    norms = [fit(FEATURES, TARGETS, 3, decay)[0].norm().item() for decay in (1e-4, 1e-2, 1.0)]
    assert norms == sorted(norms, reverse=True)
    assert norms[2] < 0.3
