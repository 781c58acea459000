"""What is taken of folders, of archives and of prefixes in storage elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hiera_cli.limits import Limits


@dataclass(frozen=True)
class Walk:
    """What a walk takes.

    suffixes: of the files that are taken, lower case; of a file without one the first bytes decide. exclude: globs; one
    without a slash is held against each name, one with a slash against the path below the folder and against the whole
    path. hidden: take names that begin with a dot. follow: follow links. archives: take what is in archives; of one
    that is named outright it is taken anyway. column: of Parquet, that has the images; "" for the only one.
    member_bytes: of an image in an archive, at most. offline: prefixes of storage elsewhere are not listed.
    whole_archives: an archive is one Source, for a worker to read its members.
    """

    suffixes: Callable[[], frozenset[str]]
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow: bool = False
    archives: bool = False
    column: str = ""
    member_bytes: int = Limits.bytes
    offline: bool = False
    whole_archives: bool = False
