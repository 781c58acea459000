"""What a command prints of itself: results on stdout, remarks and errors on stderr."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

from hiera_cli.errors import HieraError, is_out_of_memory
from hiera_cli.system.printable import printable


def write(text: str) -> None:
    """Print to stdout, now."""
    print(text, flush=True)


def write_json(value: Any, *, indent: int | None = 2) -> None:
    """Print records as strict JSON: dataclasses become objects, their fields in order."""
    from hiera_cli.system.utf8 import as_json

    write(as_json(_plain(value), indent=indent))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def remark(message: str) -> None:
    """Print one line to stderr."""
    from hiera_cli.system import terminal

    print(terminal.message(f"hiera: {printable(message)}"), file=sys.stderr)


def remarks_unless(quiet: int) -> Callable[[str], None]:
    """A function that prints a remark, or one that prints nothing."""
    return (lambda message: None) if quiet else remark


def tell_error(error: Exception) -> None:
    """Print what went wrong, and what to do next."""
    from hiera_cli.system import terminal

    message, hint = _explained(error)
    print(terminal.message(f"hiera: error: {printable(message)}"), file=sys.stderr)
    for line in hint.splitlines():
        print("  " + terminal.message(printable(line)), file=sys.stderr)


def _explained(error: Exception) -> tuple[str, str]:
    """(message, hint)."""
    if isinstance(error, HieraError):
        from hiera_cli.commands import remedies

        return error.message, remedies.hint(error)
    if is_out_of_memory(error):
        return "there is not enough memory", "Free some, or use a smaller model (-m tiny) or --batch-size 1."
    import traceback  # a fault of ours

    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    if os.environ.get("HIERA_TRACEBACK"):
        traceback.print_exception(error)
    return (
        f"internal error, which should not happen: {type(error).__name__}: {error} ({where})",
        "Please report it, with the command. HIERA_TRACEBACK=1 shows where it came from.",
    )
