"""Archives → the images in them, as inputs of their own: photos.tar/dir/cat.jpg.

A member's path is the archive's with its name behind it. Given as an input it names that member again. It is text:
whatever a member is called, absolute or with `..`, no file of that name is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hiera_cli.errors import InputError, NotFoundError
from hiera_cli.inputs import signatures
from hiera_cli.inputs.read import first_bytes
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.result import Stamp, stamp_of

if TYPE_CHECKING:
    from hiera_cli.inputs.members import Member

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip", ".parquet")
# Of files that are not even looked at whether they are archives: lists may name millions of them.
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
START = 512


Excluded = Callable[[str, str], bool]  # of a name, and of the folder that it is in


def has_suffix(name: str) -> bool:
    """Whether a file is called as archives are."""
    return name.lower().endswith(SUFFIXES)


def is_called_a_picture(name: str) -> bool:
    """Whether a file is called as pictures are."""
    return os.path.splitext(name)[1].lower() in PICTURES


def is_archive(path: str) -> bool:
    """Whether a file is one that is read here, by its content; those called as pictures are not looked at."""
    return not is_called_a_picture(path) and bool(_kind(path))


def sources(path: str, walk: Walk, excluded: Excluded, skipped: Skipped) -> Iterator[Source]:
    """The images in an archive, with their bytes, in its order; in the place of what can't be read, its error.

    excluded: of the names below the archive. skipped: counts what is passed over. Of members of one name only the first
    has a stamp, by which a later run knows it again.
    """
    stamp = stamp_of(path)
    seen: set[int] = set()
    try:
        for member in _taken(path, walk, excluded, skipped):
            key = hash(member.name)
            yield _source(path, member, walk, None if key in seen else stamp)
            seen.add(key)
    except InputError as error:
        yield Source(path, error=error)


def count(path: str, walk: Walk, excluded: Excluded) -> int | None:
    """How many `sources` would yield; None if it takes unpacking to tell."""
    from hiera_cli.inputs import members

    start = first_bytes(path, START)
    if members.is_compressed(start):
        return None
    try:
        if members.kind(path, start) == "parquet":
            return members.rows(path)
        return sum(1 for _ in _taken(path, walk, excluded, Skipped()))
    except (InputError, ImportError):
        return None


class NamedMembers:
    """Members that are named one by one. Those of one archive that come in its order are found in one pass."""

    def __init__(self) -> None:
        self._archive = ""
        self._stamp: Stamp | None = None
        self._rest: Iterator[Member] = iter(())

    def source(self, path: str, walk: Walk) -> Source | None:
        """The member that a path names, with its bytes or its error; None if no part of the path is an archive."""
        archive, name = _split(path)
        if not name or not _kind(archive):
            return None
        try:
            member = self._found(archive, name, walk) if self._is_open(archive) else None
            if member is None:
                row = name.partition("/")[0]
                self._rest = _members(archive, walk, int(row) if row.isdecimal() and len(row) < 19 else 0)
                self._archive, self._stamp = archive, stamp_of(archive)
                member = self._found(archive, name, walk)
            if member is None:
                raise NotFoundError(f"there is no {name} in {archive}")
        except InputError as error:
            self._archive = ""
            return Source(path, Kind.MEMBER, error)
        return _source(archive, member, walk, self._stamp)

    def _is_open(self, archive: str) -> bool:
        return archive == self._archive and stamp_of(archive) == self._stamp

    def _found(self, archive: str, name: str, walk: Walk) -> Member | None:
        return next((member for member in self._rest if member.name == name), None)


def _split(path: str) -> tuple[str, str]:
    """(the file on the way to what a path names, the rest); ("", "") if there is none."""
    end = path.find("/", 1)
    while end > 0:
        if os.path.isfile(path[:end]):
            return path[:end], path[end + 1 :]
        end = path.find("/", end + 1)
    return "", ""


def _kind(path: str) -> str:
    start = first_bytes(path, START)
    if not start or signatures.is_picture(start):
        return ""
    from hiera_cli.inputs import members

    return members.kind(path, start)


def _members(path: str, walk: Walk, row: int = 0) -> Iterator[Member]:
    """row: of Parquet, from which on."""
    from hiera_cli.inputs import members

    start = first_bytes(path, START)
    kind = members.kind(path, start)
    if kind == "zip":
        return members.of_zip(path)
    if kind == "parquet":
        return members.of_parquet(path, walk.column, row)
    return members.of_tar(path, start)


def _taken(path: str, walk: Walk, excluded: Excluded, skipped: Skipped) -> Iterator[Member]:
    """The members that are images, as a folder walk takes them; of Parquet, in whose rows nothing else is, all."""
    is_table = _kind(path) == "parquet"
    suffixes = walk.suffixes()
    for member in _members(path, walk):
        why = _why_not(member, walk, excluded, suffixes, skipped, is_table)
        if not why:
            yield member
        elif skipped.tell:
            skipped.tell(f"{path}/{member.name}", why)


def _why_not(
    member: Member,
    walk: Walk,
    excluded: Excluded,
    suffixes: frozenset[str],
    skipped: Skipped,
    is_table: bool,
) -> str:
    """Why a member is passed over; "" if it is taken."""
    parts = member.name.split("/")
    if any(excluded(part, "/".join(parts[:place])) for place, part in enumerate(parts)):
        return "excluded"
    if is_table:
        return ""
    if not walk.hidden and any(part.startswith(".") and part not in (".", "..") for part in parts):
        skipped.hidden += 1
        return "hidden"
    if not member.is_file:
        skipped.links_in_archives += 1
        return "a link or a device"
    if has_suffix(member.name):
        skipped.archives_in_archives += 1
        return "an archive in an archive"
    suffix = os.path.splitext(parts[-1])[1].lower()
    if suffix in suffixes or (suffix in ("", ".") and _is_picture(member)):
        return ""
    skipped.add(suffix)
    return "not known as an image"


def _is_picture(member: Member) -> bool:
    try:
        return signatures.is_picture(member.read(64))
    except InputError:
        return False


def _source(archive: str, member: Member, walk: Walk, stamp: Stamp | None) -> Source:
    path = f"{archive}/{member.name}"
    try:
        return Source(path, Kind.MEMBER, data=member.content(walk.member_bytes), stamp=stamp)
    except InputError as error:
        return Source(path, Kind.MEMBER, error)
