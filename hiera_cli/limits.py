"""Bounds on what one input may take."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PIXELS = 178_956_970  # of one image, as Pillow has it


@dataclass(frozen=True)
class Limits:
    """For one URL, or for stdin.

    connect: seconds. total: seconds, over all attempts. bytes: of the body. retries: attempts after the first.
    at_once: URLs fetched side by side.
    """

    connect: float = 10.0
    total: float = 60.0
    bytes: int = 64 << 20
    retries: int = 3
    at_once: int = 16
