"""How a stream of inputs is worked through."""

from __future__ import annotations

from dataclasses import dataclass, field

from hiera_cli.errors import UsageError
from hiera_cli.images.decode import Decoding
from hiera_cli.limits import Limits
from hiera_cli.result import Settings


def check_count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise UsageError(f"{name} is a whole number, 1 or more, not {value!r}")


@dataclass(frozen=True)
class Options:
    """How a stream of inputs is labelled.

    workers: decode threads; None chooses by the machine's cores. decoding: how images are decoded, and how large they
    may be; its room is shared by the threads. offline: URLs are not fetched. model: its name in the records.
    """

    top_k: int = 5
    min_score: float = 0.0
    workers: int | None = None
    limits: Limits = Limits()
    decoding: Decoding = field(default_factory=Decoding)
    offline: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        for name, value in (("top_k", self.top_k), ("workers", self.workers)):
            check_count(name, value)
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score is from 0 to 1, not {self.min_score!r}")

    @property
    def settings(self) -> Settings:
        """What the records depend on, of these."""
        return Settings(self.model, self.top_k, self.min_score, self.decoding.full)
