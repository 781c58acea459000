"""One input: a file, a URL, a descriptor, an archive or a member of one, an object in a bucket, an image in memory."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from hiera_cli.errors import InputError
from hiera_cli.result import Stamp

if TYPE_CHECKING:
    from PIL.Image import Image


STDIN = "-"


class Kind(Enum):
    """Where an input's bytes come from."""

    FILE = "file"
    URL = "url"
    STDIN = "stdin"
    DESCRIPTOR = "descriptor"
    MEMBER = "member"
    ARCHIVE = "archive"
    CLOUD = "cloud"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    path: as the user gave it. error: why there is nothing to read, known before reading. image: of an input in memory.
    data: of a member of an archive. stamp: of that archive, where it tells that the member is the same; of an object in
    a bucket that was listed. An ARCHIVE stands for all of its members, until a worker reads them. in_folder: a folder
    walk came upon it.
    """

    path: str
    kind: Kind = Kind.FILE
    error: InputError | None = None
    image: Image | None = None
    data: bytes | None = None
    stamp: Stamp | None = None
    in_folder: bool = False


def is_url(argument: str) -> bool:
    """Whether an argument is a URL, of any scheme that names a host."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", argument))


def is_cloud(path: str) -> bool:
    """Whether a path names something in storage elsewhere, which inputs/cloud.py reads."""
    scheme, found, _ = path.partition("://")
    return bool(found) and scheme.lower() in ("s3", "gs", "gcs", "az", "abfs", "hf")


def descriptor(name: str) -> int | None:
    """The number of the open descriptor that a name stands for: 0 for - and /dev/stdin, 63 for /dev/fd/63.

    Such is what a shell puts for `<(command)`. None for any other name; for a descriptor of a regular file or a folder,
    which is read by that name; and for one that this program opened for itself.
    """
    if name == STDIN:
        return 0
    if not name.startswith("/") or not (match := re.fullmatch(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d{1,9})", name)):
        return None
    number = int(match[1] or 0)
    try:
        mode = os.fstat(number).st_mode
        inherited = number == 0 or os.get_inheritable(number)
    except OSError:
        return None
    return number if inherited and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) else None
