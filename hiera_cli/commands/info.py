"""`hiera info`."""

from __future__ import annotations

from typing import Annotated

import typer

from hiera_cli.commands import messages
from hiera_cli.commands.options import Device, Engine, Json, Precision


def info(
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    clear_compiled: Annotated[bool, typer.Option("--clear-compiled", help="Remove the compiled models.")] = False,
    as_json: Json = False,
) -> None:
    """Show versions, the engine, device and precision that would be used and why, and what is cached."""
    from hiera_cli.commands import info_facts, tables
    from hiera_cli.engines import compiled
    from hiera_cli.system import terminal

    if clear_compiled:
        count, freed = len(compiled.saved()), compiled.clear()
        messages.remark(f"removed {count} compiled model{'s' * (count != 1)} ({freed / 1e6:,.0f} MB)")
    facts = info_facts.info(engine, device, precision)
    if as_json:
        messages.write_json(facts)
    else:
        messages.write("\n".join(tables.info_lines(facts, terminal.columns(1))))
