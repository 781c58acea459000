"""Hiera compiled for the CPU by OpenVINO, without torch: the network as a graph, and the compiled graph kept on disk.

Compiling takes about a second; the outcome is kept in the user's cache folder and loaded from there in a fraction of
it. A kept file says what it was compiled from and for, and carries a checksum: a wrong or damaged one is made anew.
"""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_cli import __version__
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.engines import compiled
from hiera_cli.engines.engine import Answer, faults, in_halves
from hiera_cli.engines.placement import Placement
from hiera_cli.model.architecture import (
    GRID,
    IMAGE_SIZE,
    LAYER_NORM_EPS,
    MASK_UNIT,
    PATCH_PADDING,
    PATCH_STRIDE,
    POOL,
    Architecture,
    Block,
)

# openvino imports its converter of models, which is not needed here, takes longer than all the rest of it, and reports
# every import to an analytics service unasked. None in its place reads as "not installed", which openvino provides for.
_CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402
from openvino import opset13 as op  # noqa: E402

if sys.modules[_CONVERTER] is None:
    del sys.modules[_CONVERTER]

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}
BATCH_SIZE = 8

Node = Any  # of openvino's, which is without types here
Weights = Mapping[str, NDArray[np.float32]]


class OpenVinoEngine:
    """Hiera on the CPU by OpenVINO.

    batch_size: images to run together; it shrinks when memory runs out. keep: the compiled model on disk. Threads may
    share one: they take turns. Raises CheckpointError for damaged weights, RuntimeError if OpenVINO fails.
    """

    def __init__(
        self, checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None, *, keep: bool = True
    ) -> None:
        self.placement = placement
        self.precision = placement.precision
        self.batch_size = batch_size or BATCH_SIZE
        self.in_flight = 1
        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"}
        model, self._content = _load_or_compile(core, checkpoint, self.precision, settings, keep)
        self._threads = model.get_property("INFERENCE_NUM_THREADS")
        self._request = model.create_infer_request()
        self._turn = threading.Lock()  # a second request would have the same cores, and buffers of its own

    def describe(self) -> str:
        """Such as `cpu (OpenVINO, 2 threads), bf16`."""
        return f"cpu (OpenVINO, {self._threads} threads), {self.precision}"

    def submit(self, pixels: Sequence[NDArray[np.float32]]) -> Answer:
        """Compute a batch, each image (3, 224, 224). Out of memory halves the batch and goes on.

        Raises DeviceError if not even one image fits, or OpenVINO fails.
        """
        with faults(self.placement, "a single image"):
            logits = np.concatenate(in_halves(self._run, pixels, self._halved))
        return lambda: logits

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch, 3, 224, 224) → (batch, classes)."""
        return self.submit(list(pixels))()

    def _run(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        batch = np.stack(pixels)
        with self._turn:
            return self._request.infer({0: batch}, share_inputs=True)[0].copy()  # type: ignore[no-any-return]

    def _halved(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)


def _load_or_compile(
    core: ov.Core, checkpoint: Checkpoint, precision: str, settings: dict[str, str], keep: bool
) -> tuple[ov.CompiledModel, object]:
    """The compiled model, and the mapped file that it goes on reading its weights from, to be kept as long as it is."""
    recipe = compiled.Recipe(checkpoint, precision, (ov.__version__, __version__, _cpu()))
    if (content := recipe.load()) is not None:
        blob = np.frombuffer(content, np.uint8)[: -compiled.TRAILER]
        with suppress(RuntimeError):  # whole, and yet not to the taste of this OpenVINO: compile anew
            return core.import_model(ov.Tensor(blob, shared_memory=True), "CPU", settings), blob
    digest = checkpoint.digest() if keep else ""  # first: what is compiled then is that or it is noticed
    model = core.compile_model(build(checkpoint.architecture, checkpoint.arrays()), "CPU", settings)
    if keep:
        with suppress(RuntimeError, MemoryError, ValueError):  # ValueError: what an export short of memory comes to
            recipe.keep(model.export_model().getvalue(), digest)
    return model, None


def _cpu() -> str:
    """What the processor can do: code that was compiled for another may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())


def build(architecture: Architecture, weights: Weights) -> ov.Model:
    """The network of `hiera_cli.model` as an OpenVINO graph, pixels (batch, 3, 224, 224) to logits (batch, classes).

    Token order, names and shapes are those of `hiera_cli.model`, which explains them.
    """
    return _Graph(weights).hiera(architecture)


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))


def _reshape(x: Node, *shape: int) -> Node:
    return op.reshape(x, _ints(*shape), special_zero=False)


class _Graph:
    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def constant(self, name: str, *shape: int) -> Node:
        return op.constant(self._weights[name].reshape(shape) if shape else self._weights[name])

    def linear(self, x: Node, name: str) -> Node:
        product = op.matmul(x, self.constant(f"{name}.weight"), transpose_a=False, transpose_b=True)
        return op.add(product, self.constant(f"{name}.bias"))

    def norm(self, x: Node, name: str) -> Node:
        normalised = op.mvn(x, _ints(-1), True, LAYER_NORM_EPS, "inside_sqrt")
        return op.add(op.multiply(normalised, self.constant(f"{name}.weight")), self.constant(f"{name}.bias"))

    def hiera(self, architecture: Architecture) -> ov.Model:
        pixels = op.parameter([-1, 3, IMAGE_SIZE, IMAGE_SIZE], np.float32, name="pixels")
        x = self.tokens(pixels, architecture.embed_dim)
        for number, block in enumerate(architecture.blocks()):
            x = self.block(x, f"blocks.{number}", block)
        x = op.reduce_mean(x, _ints(1), keep_dims=False)
        return ov.Model([self.linear(self.norm(x, "head.norm"), "head.fc")], [pixels], "hiera")

    def block(self, x: Node, name: str, block: Block) -> Node:
        """(B, N, C) → (B, N or N/4, C')."""
        y = self.norm(x, f"{name}.norm1")
        if block.dim != block.dim_out:
            x = self.linear(y, f"{name}.proj")
            if block.pools:
                x = self.max_pool(x, (), block.tokens, block.unit_tokens, block.dim_out)
        y = _reshape(
            self.attention(y, f"{name}.attn", block), -1, block.tokens // (POOL if block.pools else 1), block.dim_out
        )
        x = op.add(x, self.linear(y, f"{name}.attn.proj"))
        hidden = op.gelu(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"), "erf")
        return op.add(x, self.linear(hidden, f"{name}.mlp.fc2"))

    def tokens(self, pixels: Node, dim: int) -> Node:
        """Patches, positions, and the unrolled order: (B, N, C)."""
        stride, padding = [PATCH_STRIDE] * 2, [PATCH_PADDING] * 2
        x = op.convolution(pixels, self.constant("patch_embed.proj.weight"), stride, padding, padding, [1, 1])
        x = op.add(x, self.constant("patch_embed.proj.bias", 1, dim, 1, 1))
        x = op.add(op.transpose(x, _ints(0, 2, 3, 1)), self.constant("pos_embed", 1, GRID, GRID, dim))
        units = GRID // MASK_UNIT
        x = _reshape(x, -1, units, 2, 2, 2, units, 2, 2, 2, dim)
        return _reshape(op.transpose(x, _ints(0, 1, 5, 4, 8, 3, 7, 2, 6, 9)), -1, GRID * GRID, dim)

    def max_pool(self, x: Node, lead: tuple[int, ...], tokens: int, unit_tokens: int, dim: int) -> Node:
        """lead: the axes between the batch and the tokens."""
        x = _reshape(x, -1, *lead, tokens // unit_tokens, POOL, unit_tokens // POOL, dim)
        return _reshape(op.reduce_max(x, _ints(len(lead) + 2)), -1, *lead, tokens // POOL, dim)

    def attention(self, x: Node, name: str, block: Block) -> Node:
        """Up to the output projection: (B·U or B, group, H, D)."""
        heads, size = block.num_heads, block.dim_out // block.num_heads
        group = block.unit_tokens if block.within_units else block.tokens  # tokens that see each other
        qkv = op.transpose(_reshape(self.linear(x, f"{name}.qkv"), -1, group, 3, heads, size), _ints(2, 0, 3, 1, 4))
        q, k, v = (op.squeeze(each, _ints(0)) for each in op.split(qkv, op.constant(np.int64(0)), 3).outputs())
        if block.pools:
            q = self.max_pool(q, (heads,), group, block.unit_tokens, size)
        weights = op.matmul(op.multiply(q, op.constant(np.float32(size**-0.5))), k, transpose_a=False, transpose_b=True)
        x = op.matmul(op.softmax(weights, -1), v, transpose_a=False, transpose_b=False)
        return op.transpose(x, _ints(0, 2, 1, 3))
