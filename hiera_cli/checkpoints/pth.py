"""The tensors of a .pth, as `torch.save` writes them since PyTorch 1.6: described before any of them is made.

The file is a zip archive: a pickle that says what there is, and beside it the bytes, one uncompressed entry a storage.
The pickle is read here by no unpickler, but by the few of its operations that a state dict needs, none of which calls
anything. So it runs no code, and what it describes is held against the bytes that are there before memory is taken.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import struct
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from hiera_cli.errors import CheckpointError
from hiera_cli.system.address_space import check_room_for_torch

if TYPE_CHECKING:
    import torch

MAX_PICKLE_BYTES = 1 << 20  # huge needs 60 KB; a byte of it can take 70 in memory
MAX_AXES = 8

# Storages, with what safetensors calls their numbers and how many bytes one of those takes.
STORAGES = {
    "torch DoubleStorage": ("F64", 8),
    "torch FloatStorage": ("F32", 4),
    "torch HalfStorage": ("F16", 2),
    "torch BFloat16Storage": ("BF16", 2),
    "torch LongStorage": ("I64", 8),
    "torch IntStorage": ("I32", 4),
    "torch ShortStorage": ("I16", 2),
    "torch CharStorage": ("I8", 1),
    "torch ByteStorage": ("U8", 1),
    "torch BoolStorage": ("BOOL", 1),
    "torch ComplexFloatStorage": ("C64", 8),
    "torch ComplexDoubleStorage": ("C128", 16),
    "torch.storage UntypedStorage": ("U8", 1),  # what its numbers are stands beside the tensor
}
FLOAT8 = {  # the same of numbers that have no storage of their own
    "torch float8_e4m3fn": "F8_E4M3",
    "torch float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch float8_e5m2": "F8_E5M2",
    "torch float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch float8_e8m0fnu": "F8_E8M0",
}
ITEM_BYTES = dict(STORAGES.values()) | dict.fromkeys(FLOAT8.values(), 1)
TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
FLOAT8_TENSOR = "torch._utils _rebuild_tensor_v3"
PARAMETER, ENTRIES = "torch._utils _rebuild_parameter", "collections OrderedDict"
NAMES = {*STORAGES, *FLOAT8, *TENSORS, FLOAT8_TENSOR, PARAMETER, ENTRIES}


class _RefusedError(Exception):
    """The file is not an archive of plain tensors. The message says why."""


@dataclass(frozen=True)
class Storage:
    """Numbers in the file. dtype: as safetensors calls it. offset, bytes: where they are."""

    dtype: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Stored:
    """One tensor: numbers of a storage in row-major order. offset, bytes: where they are in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class _Name:
    """A global of the pickle, such as `torch FloatStorage`."""

    text: str


@dataclass(frozen=True)
class _Claim:
    """A tensor as the pickle describes it, unchecked. All but the storage are whatever stood there."""

    storage: object
    start: object
    shape: object
    stride: object


def describe(file: Path) -> dict[str, Stored]:
    """The tensors of a state dict, by name, which may be nested under `model_state`.

    Raises CheckpointError if the file is not an archive of plain tensors, OSError if it can't be read.
    """
    with _mapped(file) as content:
        try:
            return _describe(file, content)
        except _RefusedError as error:
            raise CheckpointError(
                f"{file} is refused: it is damaged, or holds more than tensors ({str(error)[:200]})",
                "Only weights are read from a .pth, never code. Prefer safetensors.",
            ) from error


def load(file: Path) -> dict[str, torch.Tensor]:
    """The same as tensors, mapped from the file. Raises as `describe` does, and KeyError for numbers of other kinds."""
    check_room_for_torch()
    import torch

    content = _mapped(file)
    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return {
        name: torch.frombuffer(
            content, dtype=dtypes[each.dtype], offset=each.offset, count=math.prod(each.shape)
        ).reshape(each.shape)
        for name, each in describe(file).items()
    }


def _mapped(file: Path) -> mmap.mmap:
    """Its bytes, read when they are needed; writes go to memory alone."""
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def _describe(file: Path, content: mmap.mmap) -> dict[str, Stored]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError, struct.error) as error:
        raise _RefusedError(
            f"{str(error) or 'cut off'}; torch.save has written zip archives since PyTorch 1.6"
        ) from error
    claims = _Archive(content, entries).load()
    if isinstance(claims, dict) and isinstance(claims.get("model_state"), dict):
        claims = claims["model_state"]
    if not isinstance(claims, dict) or not all(isinstance(claim, _Claim) for claim in claims.values()):
        raise _RefusedError("it is not a state dict of tensors")
    tensors = {str(name): _checked(str(name), claim) for name, claim in claims.items()}
    if sum(tensor.bytes for tensor in tensors.values()) > len(content):
        raise _RefusedError("its tensors would take more than the file holds")
    return tensors


def _checked(name: str, claim: _Claim) -> Stored:
    storage, start, shape, stride = claim.storage, claim.start, claim.shape, claim.stride
    if not (isinstance(storage, Storage) and _is_size(start) and _are_sizes(shape) and _are_sizes(stride)):
        raise _RefusedError(f"{name} is not a tensor")
    if len(shape) > MAX_AXES or len(stride) != len(shape):
        raise _RefusedError(f"{name} is not a tensor")
    row_major = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if any(step != there for size, step, there in zip(shape, stride, row_major, strict=True) if size != 1):
        raise _RefusedError(f"{name} is expanded, transposed or cut out of another tensor")
    item = ITEM_BYTES[storage.dtype]
    stored = Stored(storage.dtype, shape, storage.offset + start * item, math.prod(shape) * item)
    if start * item + stored.bytes > storage.bytes:
        raise _RefusedError(f"{name} reaches beyond the numbers that are there for it")
    return stored


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 48


def _are_sizes(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(_is_size(value) for value in values)


class _Archive:
    def __init__(self, content: mmap.mmap, entries: list[zipfile.ZipInfo]) -> None:
        self._content = content
        self._entries = {entry.filename: entry for entry in entries}
        descriptions = [name for name in self._entries if name.endswith("/data.pkl")]
        if len(descriptions) != 1:
            raise _RefusedError("it is not an archive of torch.save")
        self._folder = descriptions[0].removesuffix("data.pkl")
        order = f"{self._folder}byteorder"
        if order in self._entries and self._read(order) != b"little":
            raise _RefusedError("its numbers are big-endian")

    def load(self) -> object:
        """What the pickle describes, with a _Claim for each tensor."""
        entry = self._entries[f"{self._folder}data.pkl"]
        if entry.file_size > MAX_PICKLE_BYTES:
            raise _RefusedError(f"its description is over {MAX_PICKLE_BYTES >> 20} MiB")
        try:
            return self._run(self._read(entry.filename))
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            raise _RefusedError("its description makes no sense") from error

    def _span(self, name: str) -> tuple[int, int]:
        """Where the bytes of an entry are: the first, and how many."""
        entry = self._entries.get(name)
        if entry is None:
            raise _RefusedError(f"{name} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _RefusedError(f"{name} is compressed, as torch.save never does")
        start = max(entry.header_offset, 0)
        header = self._content[start : start + 30]
        offset = start + 30 + sum(struct.unpack("<HH", header[26:])) if len(header) == 30 else 0
        if not header.startswith(b"PK\x03\x04") or offset + entry.file_size > len(self._content):
            raise _RefusedError(f"{name} is not where the archive says")
        return offset, entry.file_size

    def _read(self, name: str) -> bytes:
        offset, size = self._span(name)
        return self._content[offset : offset + size]

    def _run(self, pickled: bytes) -> object:
        """A pickle's operations are those of a stack machine: a mark is remembered by how high the stack was."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[Any, Any] = {}

        def pop(start: int) -> list[Any]:
            items = stack[start:]
            del stack[start:]
            return items

        for operation, argument, _ in pickletools.genops(pickled):
            match operation.name:
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation.name])
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(argument)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "MARK":
                    marks.append(len(stack))
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(pop(-int(operation.name[-1]))))
                case "TUPLE":
                    stack.append(tuple(pop(marks.pop())))
                case "EMPTY_LIST":
                    stack.append([])
                case "APPEND" | "APPENDS":
                    items = pop(-1 if operation.name == "APPEND" else marks.pop())
                    stack[-1].extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM" | "SETITEMS":
                    items = pop(-2 if operation.name == "SETITEM" else marks.pop())
                    if not all(isinstance(key, (str, int)) for key in items[::2]):
                        raise _RefusedError("it has entries without a name")
                    stack[-1].update(zip(items[::2], items[1::2], strict=True))
                case "GLOBAL":
                    if argument not in NAMES:
                        raise _RefusedError(str(argument).replace(" ", "."))
                    stack.append(_Name(argument))
                case "BINPERSID":
                    stack.append(self._storage(*stack.pop()))
                case "REDUCE":
                    arguments, name = stack.pop(), stack.pop()
                    stack.append(_made(name.text, arguments))
                case "BUILD":  # attributes of a dict of tensors, of no interest
                    stack.pop()
                case _:
                    raise _RefusedError(f"the operation {operation.name}")
        raise _RefusedError("its description is cut off")

    def _storage(self, kind: object, numbers: _Name, key: str, *_: object) -> Storage:
        if kind != "storage" or not isinstance(key, str):
            raise _RefusedError("it refers to something that is not a storage")
        return Storage(STORAGES[numbers.text][0], *self._span(f"{self._folder}data/{key}"))


def _made(name: str, arguments: tuple[Any, ...]) -> object:
    if name in TENSORS:
        return _Claim(*arguments[:4])
    if name == FLOAT8_TENSOR:
        storage, start, shape, stride, _, _, kind = arguments[:7]
        return _Claim(replace(storage, dtype=FLOAT8[kind.text]), start, shape, stride)
    if name == PARAMETER:
        return arguments[0]
    if name == ENTRIES and arguments == ():
        return {}
    raise _RefusedError(f"it makes a {name.replace(' ', '.')}")
