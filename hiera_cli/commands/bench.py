"""`hiera bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from hiera_cli.commands import messages
from hiera_cli.commands.options import Device, Json, Model, Quiet, finite


def bench(
    model: Model = "tiny",
    device: Device = "auto",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long to measure each line.", callback=finite)
    ] = 5.0,
    as_json: Json = False,
    quiet: Quiet = 0,
) -> None:
    """Measure this machine: images a second by engine, precision and batch size."""
    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)

    from hiera_cli import bench
    from hiera_cli.commands import tables
    from hiera_cli.commands.interrupts import interruptible
    from hiera_cli.system import terminal

    with interruptible():
        measured = bench.bench(model, device, seconds, messages.remarks_unless(quiet))
    if as_json:
        messages.write_json(measured)
    else:
        messages.write("\n".join(tables.bench_table(measured, terminal.columns(1))))
