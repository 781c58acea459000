"""The program `hiera`, also as `python -m hiera_cli`."""

from __future__ import annotations

import contextlib
import os
import sys

from hiera_cli.cli import main


def run() -> None:
    """Run `hiera` and end the process at once: neither a thread that is stuck nor torch's leave-taking holds it up."""
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    run()
