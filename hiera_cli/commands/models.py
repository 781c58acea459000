"""`hiera models`."""

from __future__ import annotations

from hiera_cli.commands import messages
from hiera_cli.commands.options import Json


def models(as_json: Json = False) -> None:
    """List the models: size, published accuracy, licence, whether they are on this machine."""
    from hiera_cli.checkpoints import inventory
    from hiera_cli.commands import tables
    from hiera_cli.system import terminal

    entries = [*inventory.models(), *inventory.models("autoencoder")]
    if as_json:
        messages.write_json(entries)
    else:
        messages.write("\n".join(tables.models_table(entries, terminal.columns(1))))
