"""What models, engines, precisions and formats are called, and what people call them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from hiera_cli.architecture import PUBLISHED

MODELS = (*PUBLISHED, "demo")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FORMATS = ("table", "plain", "json", "jsonl", "csv", "tsv")


def model_name(text: str) -> str:
    """The name of the model that is meant: `tiny` for Tiny, hiera-tiny and HIERA_TINY, `base-plus` for base+.

    Anything else is returned as it is, as is what a file or folder is really called.
    """
    if text in MODELS or os.path.exists(os.path.expanduser(text)):
        return text
    name = _plain(text)
    return name if name in MODELS else text


def near_model(text: str) -> str | None:
    """The model that was probably meant by what is not the name of one; None if none is much like it."""
    return None if {*"/\\."} & {*text} else near(_plain(text), MODELS)  # those are paths


def near(text: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of the names that is most like a text, without regard to case; None if none is much like it."""
    by_plain = {name.casefold(): name for name in names}
    import difflib  # where something is wrong, not at every start

    close = difflib.get_close_matches(text.casefold(), by_plain, 1, cutoff)
    return by_plain[close[0]] if close else None


def _plain(text: str) -> str:
    name = text.casefold().replace("_", "-").removeprefix("hiera-")
    return f"{name.removesuffix('+').removesuffix('-')}-plus" if name.endswith("+") else name
