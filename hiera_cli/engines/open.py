"""The one place where an engine is imported."""

from __future__ import annotations

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.engines.engine import Engine, faults
from hiera_cli.engines.placement import Placement
from hiera_cli.system.address_space import check_room_for_torch


def open_engine(
    checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None, *, save: bool = True
) -> Engine:
    """Put a checkpoint where it is to run. save: to disk, what an engine compiles.

    Raises CheckpointError for damaged weights, DeviceError for no memory or an engine that fails.
    """
    with faults(placement, "the weights"):
        if placement.engine == "openvino":
            from hiera_cli.engines.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(checkpoint, placement, batch_size, save=save)
        check_room_for_torch()
        from hiera_cli.engines.torch_engine import TorchEngine

        return TorchEngine(checkpoint, placement, batch_size)
