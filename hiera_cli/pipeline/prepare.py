"""Source → pixels, or why there are none: the one function that threads and the workers of a cluster call alike."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from hiera_cli.errors import DecodeError, FetchError, InputError, ReadError, TooLargeError
from hiera_cli.images import decode
from hiera_cli.images.decode import Decoding
from hiera_cli.images.remarks import collected
from hiera_cli.images.thumbnail import thumbnail
from hiera_cli.inputs import archives, lists, read, signatures
from hiera_cli.inputs.source import Kind, Source, descriptor
from hiera_cli.limits import Limits
from hiera_cli.result import Failure, Stamp, stamp_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of an input.

    outcome: float32 (3, 224, 224), or the crop if that was asked for (Decoding), or why there is no array. stamp: of
    a file, or of the archive that it is in, before it was read. remarks: what its decoder said of it. thumbnail: a
    small JPEG, if one was asked for.
    """

    outcome: NDArray[Any] | Failure
    stamp: Stamp | None = None
    remarks: tuple[str, ...] = ()
    thumbnail: bytes | None = None


def prepare(
    source: Source,
    body: bytes | None = None,
    *,
    decoding: Decoding | None = None,
    limits: Limits | None = None,
    thumbnails: bool = False,
) -> Prepared:
    """Read, decode and preprocess one input. Whatever is wrong with it is in what is returned.

    body: of a URL that was fetched. limits: of stdin and other descriptors; None: the usual ones. thumbnails: make one
    of the image that is decoded anyway. What is raised is a fault of this program.
    """
    stamp = stamp_of(source.path) if source.kind is Kind.FILE else source.stamp
    outcome: NDArray[Any] | Failure
    decoding = decoding or Decoding()
    made: list[bytes] = []
    if thumbnails:
        decoding = replace(decoding, see=lambda image: made.append(thumbnail(image)))
    with collected() as remarks:
        try:
            outcome = _pixels(source, body, decoding, limits or Limits())
        except InputError as error:
            outcome = failure(error)
        except MemoryError:
            outcome = failure(TooLargeError("there is not enough memory to read it"))
    return Prepared(outcome, stamp, tuple(remarks), made[0] if made else None)


def failure(error: InputError) -> Failure:
    """An input's error, as its record has it."""
    return Failure(type(error).__name__, error.message, error.remedy)


def _pixels(source: Source, body: bytes | None, decoding: Decoding, limits: Limits) -> NDArray[Any]:
    if source.error is not None:
        raise source.error
    if source.image is not None:
        return decode.decode_image(source.image, decoding)
    if source.kind is Kind.MEMBER:
        body = source.data
    if source.kind in (Kind.URL, Kind.CLOUD) and body is None:
        raise FetchError("URLs are not fetched offline", remedy="offline")
    if source.kind in (Kind.STDIN, Kind.DESCRIPTOR) and (number := descriptor(source.path)) is not None:
        body = _descriptor_bytes(number, limits.bytes)
    try:
        if body is None:
            return decode.load(source.path, decoding)
        return decode.decode_bytes(body, decoding)
    except DecodeError as error:
        raise _mistake(source, body) or error from error


def _mistake(source: Source, body: bytes | None) -> DecodeError | None:
    """What an input that can't be decoded was given for by mistake, and what to do instead."""
    if source.kind is not Kind.FILE and body is not None and signatures.is_archive(body[: signatures.START]):
        if source.kind is Kind.MEMBER:
            return DecodeError("it is an archive in an archive: unpack the outer one first")
        return DecodeError("it is an archive, which is read from a file: save it first")
    if source.kind in (Kind.URL, Kind.CLOUD):
        return None
    if os.path.splitext(source.path)[1].lower() in signatures.RAW_SUFFIXES:
        return DecodeError(signatures.RAW)
    start = read.first_bytes(source.path, 1 << 12) if body is None else body[: 1 << 12]
    if source.kind is Kind.MEMBER:
        return None
    if source.kind is Kind.FILE and (known := signatures.other(start[: signatures.START])):
        if archives.has_suffix(source.path):
            return DecodeError("the archive is damaged: not even its first member can be told")
        if signatures.is_archive(start[: signatures.START]) and archives.is_called_a_picture(source.path):
            return DecodeError(f"it is {known[0]} that is called like a picture: rename it, and what is in it is read")
    if separator := lists.list_separator(start):
        remedy = "files_from" if separator == b"\n" else "files0_from"
        return DecodeError("it seems to be a list of paths, not an image", remedy=remedy)
    return None


def _descriptor_bytes(number: int, limit: int) -> bytes:
    name = "it" if number else "stdin"
    body = bytearray()
    try:
        with read.open_descriptor(number) as stream:
            while chunk := read.read_raw(stream):
                body += chunk
                if len(body) > limit:
                    raise TooLargeError(f"{name} is over {limit >> 20} MiB", remedy="max_mib")
    except OSError as error:
        raise ReadError(f"cannot read {name}: {error.strerror}") from error
    return bytes(body)
