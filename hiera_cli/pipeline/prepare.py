"""Source → pixels."""

from __future__ import annotations

import os
import shlex

from hiera_cli.errors import (
    DecodeError,
    ReadError,
    TooLargeError,
)
from hiera_cli.images import decode
from hiera_cli.images.recipe import Pixels
from hiera_cli.inputs import lists, read, signatures
from hiera_cli.inputs.source import Kind, Source, descriptor
from hiera_cli.pipeline.options import Options


def pixels_of(source: Source, body: bytes | None, options: Options) -> Pixels:
    if source.image is not None:
        return decode.prepare(source.image, options.decoding)
    if source.kind in (Kind.STDIN, Kind.DESCRIPTOR) and (number := descriptor(source.path)) is not None:
        body = _read_descriptor(number, options.limits.bytes)
    try:
        if body is None:
            return decode.load(source.path, options.decoding)
        return decode.decode_bytes(body, options.decoding)
    except DecodeError as error:
        raise _mistaken(source, body) or error from error


def _mistaken(source: Source, body: bytes | None) -> DecodeError | None:
    """What an input that can't be decoded was given for by mistake, and what to do instead."""
    if source.kind is Kind.URL:
        return None
    if os.path.splitext(source.path)[1].lower() in signatures.RAW_SUFFIXES:
        return DecodeError(signatures.RAW)
    start = read.first_bytes(source.path, 1 << 12) if body is None else body[: 1 << 12]
    if option := lists.list_option(start):
        name = shlex.quote(source.path)
        return DecodeError(f"it seems to be a list of paths, not an image: {option} {name} reads it")
    return None


def _read_descriptor(number: int, limit: int) -> bytes:
    name = "it" if number else "stdin"
    body = bytearray()
    try:
        with read.open_descriptor(number) as stream:
            while chunk := read.read_raw(stream):
                body += chunk
                if len(body) > limit:
                    raise TooLargeError(f"{name} is over {limit >> 20} MiB", remedy="max mib")
    except OSError as error:
        raise ReadError(f"cannot read {name}: {error.strerror}") from error
    return bytes(body)
