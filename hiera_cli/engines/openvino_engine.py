"""Hiera compiled for the CPU by OpenVINO, without torch: the network as a graph, and the compiled graph saved to disk.

Compiling takes about a second; the outcome is saved in the user's cache folder and loaded from there in a fraction of
it. A saved file says what it was compiled from and for, and carries a checksum: a wrong or damaged one is made anew.
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
from hiera_cli.engines.engine import Answer, Output, check_output, faults, in_halves
from hiera_cli.engines.machine import cpu_count
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
from hiera_cli.system import signal_stack

# openvino imports its converter of models, which is not needed here, takes longer than all the rest of it, and reports
# every import to an analytics service unasked. None in its place reads as "not installed", which openvino provides for.
_CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402
from openvino import opset13 as op  # noqa: E402

if sys.modules[_CONVERTER] is None:
    del sys.modules[_CONVERTER]

GRAPH = 2  # counted up when `build` changes: a model that was saved before is another one
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}
BATCH_SIZE = 4
ALL_PROCESSORS = {"PERFORMANCE_HINT": "LATENCY"}  # for one batch at a time

Node = Any  # of openvino's, which is without types here
Weights = Mapping[str, NDArray[np.float32]]


class OpenVinoEngine:
    """Hiera on the CPU by OpenVINO.

    A single image gets all processors. As soon as there are more, there is a stream for each processor, and a batch for
    each stream in flight: that is faster in sum. From then on it stays so. An image has the same answer, to the bit, in
    whatever batch it is, in either mode of a precision.

    batch_size: images to run together; it shrinks when memory runs out. save: the compiled model, to disk. Threads may
    share one. Raises CheckpointError for damaged weights, RuntimeError if OpenVINO fails.
    """

    def __init__(
        self, checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None, *, save: bool = True
    ) -> None:
        self.placement = placement
        self.precision = placement.precision
        self.batch_size = batch_size or BATCH_SIZE
        self.takes_crops = False
        self._streams = cpu_count()
        self.in_flight = self._streams + 1
        self._architecture = checkpoint.architecture
        self._outputs = output_names(checkpoint.architecture)
        self._compiler = _Compiler(checkpoint, self.precision, save)
        self._lock = threading.Lock()  # for the next three
        self._model = self._compiler.model(ALL_PROCESSORS)
        self._has_streams = False
        self._idle: list[ov.InferRequest] = []  # of that model

    def describe(self) -> str:
        """Such as `cpu (OpenVINO, 2 threads), bf16`."""
        count = self._model.get_property("INFERENCE_NUM_THREADS")
        return f"cpu (OpenVINO, {count} thread{'s' * (count != 1)}), {self.precision}"

    def submit(self, pixels: Sequence[NDArray[Any]], output: Output = "logits") -> Answer:
        """Start on a batch, each image (3, 224, 224). Out of memory halves the batch and goes on.

        The Answer raises DeviceError if not even one image fits, or OpenVINO fails.
        """
        check_output(output, self._architecture)
        started = self._start(pixels, output)

        def rows(images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
            return started() if images is pixels else self._start(images, output)()

        def wait() -> NDArray[np.float32]:
            with faults(self.placement, "a single image"):
                return np.concatenate(in_halves(rows, pixels, self._halved))

        return wait

    def run(self, pixels: NDArray[np.float32], output: Output = "logits") -> NDArray[np.float32]:
        """(batch, 3, 224, 224) → (batch, …), in as many parts as keep every stream busy."""
        size = min(self.batch_size, -(-len(pixels) // self._streams))
        answers = [self.submit(list(pixels[start : start + size]), output) for start in range(0, len(pixels), size)]
        return np.concatenate([answer() for answer in answers])

    def _start(self, pixels: Sequence[NDArray[Any]], output: Output) -> Answer:
        try:
            return self._started(pixels, output)
        except (RuntimeError, MemoryError) as error:  # it is the same whether a batch fails now or on its way
            failed = error

        def wait() -> NDArray[np.float32]:
            raise failed

        return wait

    def _started(self, pixels: Sequence[NDArray[Any]], output: Output) -> Answer:
        with self._lock:
            if len(pixels) > 1 and self._streams > 1 and not self._has_streams:
                self._model = self._compiler.model(streams(self._streams))
                self._has_streams = True
                self._idle.clear()
            model = self._model
            request = self._idle.pop() if self._idle else model.create_infer_request()
        batch = np.stack(pixels)
        request.start_async({0: batch})  # copied: nothing ends it if nobody waits for it

        def wait() -> NDArray[np.float32]:
            request.wait()
            rows: NDArray[np.float32] = request.get_output_tensor(self._outputs.index(output)).data.copy()
            with self._lock:
                if model is self._model:
                    self._idle.append(request)
            return rows

        return wait

    def _halved(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)


class _Compiler:
    """The network as a compiled model: from disk where it is saved, else compiled, and saved if `save`."""

    def __init__(self, checkpoint: Checkpoint, precision: str, save: bool) -> None:
        self._core = ov.Core()
        self._checkpoint = checkpoint
        self._hint = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision]}
        self._recipe = compiled.Recipe(checkpoint, precision, (ov.__version__, __version__, f"graph {GRAPH}", _cpu()))
        self._save = save
        self._blob: NDArray[np.uint8] | None = None  # the mapped file, which models go on reading their weights from

    @signal_stack.kept()
    def model(self, settings: Mapping[str, str]) -> ov.CompiledModel:
        """For a way to use the processors; what is saved serves all of them. Raises CheckpointError, RuntimeError."""
        settings = {**self._hint, **settings}
        if self._blob is None and (content := self._recipe.load()) is not None:
            self._blob = np.frombuffer(content, np.uint8)[: -compiled.TRAILER]
        if self._blob is not None:
            with suppress(RuntimeError):  # undamaged, and yet this OpenVINO does not take it: recompile
                return self._core.import_model(ov.Tensor(self._blob, shared_memory=True), "CPU", settings)
        digest = (
            self._checkpoint.digest() if self._save else ""
        )  # first: what is compiled then is that or it is noticed
        graph = build(self._checkpoint.architecture, self._checkpoint.arrays())
        model = self._core.compile_model(graph, "CPU", settings)
        if self._save:
            with suppress(RuntimeError, MemoryError, ValueError):  # ValueError: what an export short of memory comes to
                self._recipe.save(model.export_model().getvalue(), digest)
        return model


def _cpu() -> str:
    """What the processor can do: code that was compiled for another may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor()
    return next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), platform.machine())


def streams(count: int) -> dict[str, str]:
    """So many batches at a time, each on one thread."""
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(count),
        "INFERENCE_NUM_THREADS": str(count),
    }


def output_names(architecture: Architecture) -> tuple[Output, ...]:
    """What the graph gives, in order. A backbone has no logits."""
    return ("logits", "features", "tokens") if architecture.num_classes else ("features", "tokens")


def build(architecture: Architecture, weights: Weights) -> ov.Model:
    """The network of `hiera_cli.model.hiera` as an OpenVINO graph: pixels (batch, 3, 224, 224) to `output_names`.

    Token order, names and shapes are those of `hiera_cli.model.hiera`, which explains them.
    """
    return _Graph(weights).hiera(architecture)


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))


def _scaled(array: NDArray[np.float32], factor: float) -> Node:
    return op.constant(np.ascontiguousarray(array * np.float32(factor)))


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
        units = GRID // MASK_UNIT
        outputs = {"tokens": _reshape(x, -1, units, units, architecture.features)}
        outputs["features"] = self.norm(op.reduce_mean(x, _ints(1), keep_dims=False), "head.norm")
        if architecture.num_classes:
            outputs["logits"] = self.linear(outputs["features"], "head.fc")
        return ov.Model([outputs[name] for name in output_names(architecture)], [pixels], "hiera")

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
        heads, size, dim = block.num_heads, block.dim_out // block.num_heads, block.dim_out
        group = block.unit_tokens if block.within_units else block.tokens  # tokens that see each other
        weight, bias = self._weights[f"{name}.qkv.weight"], self._weights[f"{name}.qkv.bias"]

        def part(index: int, scale: float = 1) -> Node:
            # Three products of their own, with the scale in the weights: faster than one, whose parts are copied out.
            rows = slice(index * dim, (index + 1) * dim)
            product = op.matmul(x, _scaled(weight[rows], scale), transpose_a=False, transpose_b=True)
            y = _reshape(op.add(product, _scaled(bias[rows], scale)), -1, group, heads, size)
            return op.transpose(y, _ints(0, 2, 1, 3))

        q, k, v = part(0, size**-0.5), part(1), part(2)
        if block.pools:
            q = self.max_pool(q, (heads,), group, block.unit_tokens, size)
        attention = op.softmax(op.matmul(q, k, transpose_a=False, transpose_b=True), -1)
        return op.transpose(op.matmul(attention, v, transpose_a=False, transpose_b=False), _ints(0, 2, 1, 3))
