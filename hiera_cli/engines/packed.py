"""Linear layers in oneDNN's own weight layout, with the GELU fused: twice as fast as `nn.Linear` on an x86 CPU.

PyTorch's default path brings a layer's weights into that layout at every call. Here it is done once. The operators are
those that torch.compile's CPU backend emits; they are not a public interface, so `works` compares them with
`nn.Linear` first, and the plain layers stay if they differ.

On a processor with AMX some of them, in bf16, sum in another order for one image than for several, so that the last
digits of a score would depend on which images were ready together. `pack` tries each shape, and has those run on one
image at a time.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from hiera_cli.model.architecture import MASK_UNITS, POOL
from hiera_cli.model.hiera import Hiera

LONG = 512  # terms of a sum that may be done in parts


class ImageByImage(nn.Module):
    """Runs a layer on one image at a time: (batch, …, in_features) → (batch, …, out_features)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._layer(image) for image in torch.split(x, 1)])


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


def pack(model: Hiera, together: int) -> None:
    """Replace the linear layers of every block, in place, and release the weights as they were loaded.

    together: images that go through them at once, at most. What comes out for one does not depend on the others.
    """
    depends: dict[tuple[int, int, int, bool], bool] = {}  # by shape

    def packed(linear: nn.Linear, tokens: int, *, gelu: bool = False) -> nn.Module:
        layer = PackedLinear(linear, gelu=gelu)
        shape = (tokens, layer.in_features, layer.out_features, gelu)
        if shape not in depends:
            depends[shape] = _depends_on_the_batch(layer, tokens, linear.weight.dtype, together)
        return ImageByImage(layer) if depends[shape] else layer

    blocks: Any = model.blocks  # whose layers become other modules than they are declared to be
    for block in blocks:
        tokens = block.shape.tokens
        pooled = tokens // POOL if block.shape.pools else tokens
        block.attn.qkv = packed(block.attn.qkv, tokens)
        block.attn.proj = packed(block.attn.proj, pooled)
        block.mlp = nn.Sequential(packed(block.mlp.fc1, pooled, gelu=True), packed(block.mlp.fc2, pooled))
        if block.proj is not None:
            block.proj = packed(block.proj, tokens)
    for parameter in model.parameters():  # the rest are a few kilobytes, which would keep the whole file mapped
        parameter.data = parameter.data.clone()


def _depends_on_the_batch(layer: PackedLinear, tokens: int, dtype: torch.dtype, together: int) -> bool:
    """Whether an image's output does. Of fp32, and of sums that are shorter, no processor is known where it does."""
    if dtype != torch.bfloat16 or layer.in_features < LONG:
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        some = torch.randn(together, MASK_UNITS, layer.in_features, generator=generator).to(dtype)
        x = some.repeat(1, tokens // MASK_UNITS, 1)  # random numbers take longer than the layer does
        alone = torch.cat([layer(image) for image in torch.split(x, 1)])
        return any(not torch.equal(layer(x[:count]), alone[:count]) for count in {2, together})
