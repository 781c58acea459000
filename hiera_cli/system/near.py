"""The name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def near(text: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of the names that is most like a text, without regard to case; None if none is much like it."""
    by_plain = {name.casefold(): name for name in names}
    import difflib  # where something is wrong, not at every start

    close = difflib.get_close_matches(text.casefold(), by_plain, 1, cutoff)
    return by_plain[close[0]] if close else None
