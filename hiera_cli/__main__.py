"""The program `hiera`, also as `python -m hiera_cli`."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until a command has something to bring to an end, Ctrl-C just ends the process: raised as an exception in the
    # middle of an import, it would leave half a module, and PyTorch's would abort.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import sys
from contextlib import suppress

from hiera_cli.system import streams

streams.hold_closed_descriptors()

from hiera_cli.commands.app import main  # noqa: E402


def run() -> None:
    """Run `hiera` and end the process at once: neither a stuck thread nor torch's clean-up at exit holds it up."""
    streams.set_up()
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    with suppress(OSError):  # where they have a buffer, on Windows
        sys.stdout.flush()
        sys.stderr.flush()
    compiled = sys.modules.get("hiera_cli.engines.compiled")
    if discard := getattr(compiled, "discard_own_parts", None):  # None: a thread is in the middle of importing it
        discard()  # what a thread is in the middle of writing
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    run()
