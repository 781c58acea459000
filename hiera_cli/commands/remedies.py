"""What a user can do about an error, in the words of the command line: the one place below which no option is named."""

from __future__ import annotations

from hiera_cli.errors import HieraError

# By the name that an error gives, with {what} the error tells about itself.
REMEDIES: dict[str, str] = {}

# Of an input that failed: behind the message, in brackets.
INPUT_REMEDIES: dict[str, str] = {
    "max pixels": "--max-pixels raises it",
    "offline": "--offline",
    "wider range": "--precision fp32 has a wider range",
}


def hint(error: HieraError) -> str:
    """What to do next, a line or several; "" if nothing is known."""
    words = REMEDIES[error.remedy].format(**error.about) if error.remedy else ""
    return "\n".join(filter(None, (error.hint, words)))


def of_input(message: str, remedy: str) -> str:
    """Why an input failed, and what to do about it."""
    return f"{message} ({INPUT_REMEDIES[remedy]})" if remedy else message
