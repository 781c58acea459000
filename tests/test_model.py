"""The network itself: the same logits as the reference implementation, and each of its ideas against a naive form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checkpoint_maker import SMALL, reference_model

from hiera_cli.checkpoints.layouts import TRANSFORMERS, expected_shapes
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.model.architecture import GRID, Architecture, Block
from hiera_cli.model.hiera import Attention, Hiera, max_pool, unroll


def ours(reference: torch.nn.Module, architecture: Architecture) -> Hiera:
    with torch.device("meta"):
        model = Hiera(architecture)
    tensors = reference.state_dict()
    model.load_state_dict(
        {name: tensors[TRANSFORMERS.name(name, architecture)] for name in model.state_dict()}, assign=True
    )
    return model.eval()


def compiled(reference: torch.nn.Module, architecture: Architecture) -> Callable[[torch.Tensor], torch.Tensor]:
    import openvino as ov

    from hiera_cli.engines.openvino_engine import build

    tensors = reference.state_dict()
    weights = {name: tensors[TRANSFORMERS.name(name, architecture)].numpy() for name in expected_shapes(architecture)}
    model = ov.compile_model(build(architecture, weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: torch.from_numpy(model(pixels.numpy())[0])


LARGER = list(PUBLISHED)[2:]  # than the default run has time for
Answers = list[tuple[torch.Tensor, torch.Tensor]]  # pixels, the reference's logits


@pytest.fixture(
    scope="module",
    params=["tiny", "small", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)],
)
def published(request: pytest.FixtureRequest) -> tuple[Architecture, torch.nn.Module, Answers]:
    """The reference in a published size, and what it says: made once for all engines."""
    architecture = PUBLISHED[request.param].architecture
    reference = reference_model(architecture)
    batches = [torch.randn(size, 3, 224, 224, generator=torch.Generator().manual_seed(size)) for size in (1, 5)]
    with torch.inference_mode():
        return architecture, reference, [(pixels, reference(pixels).logits) for pixels in batches]


def test_logits_equal_the_reference_for_every_published_size(
    published: tuple[Architecture, torch.nn.Module, Answers], engine: str
) -> None:
    architecture, reference, answers = published
    model = ours(reference, architecture) if engine == "torch" else compiled(reference, architecture)
    for pixels, expected in answers:
        with torch.inference_mode():
            got = model(pixels)
        spread = (expected.max() - expected.min()).item()
        assert spread > 1
        assert got.shape == (len(pixels), 1000)
        assert (got - expected).abs().max().item() <= 1e-5 * spread


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_of_published_models_is_true_of_the_module(name: str) -> None:
    with torch.device("meta"):
        state = Hiera(PUBLISHED[name].architecture).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == PUBLISHED[name].parameters
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected_shapes(PUBLISHED[name].architecture)


def test_bf16_keeps_the_order_of_confident_answers() -> None:
    reference = reference_model(SMALL)
    model = ours(reference, SMALL)
    pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        full = model(pixels)
        half = model.to_precision(torch.bfloat16)(pixels.bfloat16())
    assert half.dtype == torch.float32
    weights = dict(model.named_parameters())
    assert weights["blocks.0.mlp.fc1.weight"].dtype == torch.bfloat16
    assert weights["head.fc.weight"].dtype == torch.float32
    assert torch.equal(half.argmax(1), full.argmax(1))
    assert (half - full).abs().max() < 0.05 * (full.max() - full.min())


def grid_of_positions() -> torch.Tensor:
    """(1, GRID, GRID, 2): each token's own row and column."""
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    return torch.stack([rows, columns], -1)[None].float()


def test_unrolled_order_has_mask_units_as_contiguous_runs() -> None:
    tokens = unroll(grid_of_positions())[0]  # (3136, 2)
    units = tokens.view(49, 64, 2)
    for index, unit in enumerate(units):
        row, column = divmod(index, 7)
        expected = {(r, c) for r in range(row * 8, row * 8 + 8) for c in range(column * 8, column * 8 + 8)}
        assert {(int(r), int(c)) for r, c in unit} == expected


def test_query_pooling_three_times_is_max_pooling_of_the_grid() -> None:
    grid = torch.randn(2, GRID, GRID, 3, generator=torch.Generator().manual_seed(0))
    pooled, unit_tokens = unroll(grid), 64
    naive = grid.permute(0, 3, 1, 2)
    for _ in range(3):
        pooled, naive = max_pool(pooled, 1, unit_tokens), F.max_pool2d(naive, 2)
        unit_tokens //= 4
    assert unit_tokens == 1  # one token a mask unit: back in rows and columns
    assert torch.equal(pooled, naive.permute(0, 2, 3, 1).reshape(2, 49, 3))


def naive_attention(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """One group of tokens, one image, head by head, in the words of the paper."""
    dim = attention.proj.in_features
    shape = attention.shape
    size = dim // shape.num_heads
    q, k, v = attention.qkv(x).split(dim, dim=-1)
    if shape.pools:
        units = q.view(-1, 4, shape.unit_tokens // 4, dim)
        q = torch.stack([unit.max(0).values for unit in units]).flatten(0, 1)
    heads = [slice(head * size, head * size + size) for head in range(shape.num_heads)]
    return attention.proj(torch.cat([(q[:, h] @ k[:, h].T / size**0.5).softmax(-1) @ v[:, h] for h in heads], dim=-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dim_out", [12, 24], ids=["same dims", "query pooling"])
@pytest.mark.parametrize("within_units", [True, False], ids=["mask units", "global"])
def test_attention_equals_its_naive_form(dim_out: int, within_units: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(
        Block(12, dim_out, 3, pools=dim_out != 12, tokens=80, unit_tokens=16, within_units=within_units)
    )
    x = torch.randn(2, 5 * 16, 12)
    with torch.inference_mode():
        got = attention(x)
        naive = [
            torch.cat([naive_attention(attention, unit) for unit in image.view(5, 16, 12)])
            if within_units
            else naive_attention(attention, image)
            for image in x
        ]
    torch.testing.assert_close(got, torch.stack(naive))


def test_mask_unit_attention_sees_nothing_outside_the_unit() -> None:
    torch.manual_seed(0)
    attention = Attention(Block(12, 12, 3, pools=False, tokens=80, unit_tokens=16, within_units=True))
    x = torch.randn(1, 5 * 16, 12)
    changed = x.clone()
    changed[:, 16:32] += 1
    with torch.inference_mode():
        difference = (attention(changed) - attention(x)).abs().amax((0, 2)).view(5, 16).amax(1)
    assert (difference > 0).tolist() == [False, True, False, False, False]
