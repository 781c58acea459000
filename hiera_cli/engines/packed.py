"""Linear layers in oneDNN's own weight layout, with the GELU fused: twice as fast as `nn.Linear` on an x86 CPU.

PyTorch's default path brings a layer's weights into that layout at every call. Here it is done once. The operators are
those that torch.compile's CPU backend emits; they are not a public interface, so `works` compares them with
`nn.Linear` first, and the plain layers stay if they differ.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from hiera_cli.model.hiera import Hiera


class PackedLinear(nn.Module):
    """An `nn.Linear` with its weight packed, followed by GELU if asked for. Keeps no second copy of the weight."""

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._activation = "gelu" if gelu else "none"

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            x, self._weight, self.bias, self._activation, [], "none"
        )


def works(dtype: torch.dtype) -> bool:
    """Whether this processor and this PyTorch have the packed layers, and they compute what `nn.Linear` does."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 32).requires_grad_(False)
    for parameter in linear.parameters():
        parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    x = torch.rand(2, 8, 64, generator=generator).to(dtype)
    linear.to(dtype)
    try:
        with torch.inference_mode():
            got = [PackedLinear(linear, gelu=gelu)(x) for gelu in (False, True)]
            expected = [linear(x), nn.functional.gelu(linear(x))]
    except (AttributeError, RuntimeError, TypeError):  # another PyTorch, or one without oneDNN
        return False
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    return all(torch.allclose(g, e, atol=tolerance, rtol=tolerance) for g, e in zip(got, expected, strict=True))


def pack(model: Hiera) -> None:
    """Replace the linear layers of every block, in place, and release the weights as they were loaded."""
    blocks: Any = model.blocks  # whose layers become other modules than they are declared to be
    for block in blocks:
        block.attn.qkv = PackedLinear(block.attn.qkv)
        block.attn.proj = PackedLinear(block.attn.proj)
        block.mlp = nn.Sequential(PackedLinear(block.mlp.fc1, gelu=True), PackedLinear(block.mlp.fc2))
        if block.proj is not None:
            block.proj = PackedLinear(block.proj)
    for parameter in model.parameters():  # the rest are a few kilobytes, which would keep the whole file mapped
        parameter.data = parameter.data.clone()
