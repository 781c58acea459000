"""What decoders say of a file goes into its record, on whichever thread it is decoded, and nowhere else."""

from __future__ import annotations

import io
import json
import logging
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Call, Hiera
from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from test_classifier import Brightness, stand_in

from hiera_cli.classifier import load_classifier
from hiera_cli.errors import DecodeError
from hiera_cli.images import decode, libtiff, pillow
from hiera_cli.images.remarks import LENGTH, MOST, collected, remark
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.tasks.classify import Classify

CAT = (SAMPLES / "cat.jpg").read_bytes()
EXIF = b"Exif\0\0II*\0\x08\0\0\0"


def with_exif(data: bytes) -> bytes:
    """A JPEG with another EXIF segment."""
    return CAT[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data + CAT[2:]


def png_with(kind: bytes, data: bytes) -> bytes:
    """A PNG with another chunk behind its header."""
    stream = io.BytesIO()
    Image.new("RGB", (300, 300), "gray").save(stream, "PNG")
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return stream.getvalue()[:33] + chunk + stream.getvalue()[33:]


def tiff_with(*entries: tuple[int, int, int, int], samples: int = 1) -> bytes:
    """A grey TIFF with more tags: number, type, count, value."""
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, samples), (278, 3, 1, 8), (279, 4, 1, 64), *entries]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", len(tags)) + directory + bytes(4)


ODD = {
    "bytes.jpg": (CAT[:-2] + b"abc\0" * 3 + CAT[-2:], ["Corrupt JPEG data: 6 extraneous bytes before marker 0xd9"]),
    "exif.jpg": (
        with_exif(EXIF + b"\x02\0" + struct.pack("<HHII", 271, 2, 400, 26) + b"x"),
        [
            "Tag data larger than file. Skipping tag 271",
            "Corrupt EXIF data. Expecting to read 12 bytes but only got 1.",
        ],
    ),
    "exif.png": (
        png_with(b"eXIf", b"\xff" * 40),
        ["its EXIF data are damaged: whether it is to be turned is not known"],
    ),
    "animated.png": (png_with(b"acTL", bytes(8)), ["Invalid APNG, will use default PNG image if possible"]),
    "far.tif": (tiff_with((305, 2, 5000, 9000)), ["Tag data larger than file. Skipping tag 305"]),
    "fine.jpg": (CAT, []),
}


@pytest.fixture
def odd_files(tmp_path: Path) -> list[str]:
    for name, (data, _) in ODD.items():
        (tmp_path / name).write_bytes(data)
    return [str(tmp_path / name) for name in ODD]


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_what_the_decoder_says_of_a_file_that_is_labelled_is_in_its_record(call: Call, odd_files: list[str]) -> None:
    for _ in range(2):  # Python shows a warning once a process
        done = call("classify", *odd_files, "-f", "jsonl", "-q")
        assert (done.status, done.err) == (0, "")
        assert [record["remarks"] for record in done.records()] == [remarks for _, remarks in ODD.values()]
    done = call("classify", odd_files[1], "-f", "csv", "-k1", "-q")
    assert done.out.endswith(f",,,{'; '.join(ODD['exif.jpg'][1])}\n")


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_what_pillow_logs_is_in_the_record_and_not_on_stderr(hiera: Hiera, tmp_path: Path) -> None:
    (tmp_path / "many.tif").write_bytes(tiff_with(samples=99))
    done = hiera("classify", "many.tif", "-f", "jsonl", "-qq")
    assert done.stderr == ""
    assert json.loads(done.stdout)["remarks"] == ["More samples per pixel than can be decoded: 99"]


def test_each_file_has_its_own_remarks_on_however_many_threads(odd_files: list[str]) -> None:
    stream = Stream(map(Source, odd_files * 50), lambda: stand_in(Brightness()), Classify(), Options(workers=8))
    assert [list(result.remarks) for result in stream] == [remarks for _, remarks in ODD.values()] * 50


@pytest.mark.parametrize("action", ["error", "ignore", "default", "once"])
def test_the_filters_of_a_python_program_change_nothing(odd_files: list[str], action: Any) -> None:
    decode.load(odd_files[0])
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        for _ in range(2):
            (result,) = Stream([Source(odd_files[3])], lambda: stand_in(Brightness()), Classify())
            assert result.error is None
            assert list(result.remarks) == ODD["animated.png"][1]


def test_warnings_go_where_they_went_but_for_those_of_decoders(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    with collected() as remarks:
        warnings.warn("of this program", DeprecationWarning, stacklevel=1)
    warnings.warn("of this program too", UserWarning, stacklevel=1)
    decode.decode_bytes(ODD["exif.jpg"][0])
    assert [str(warning.message) for warning in recwarn] == ["of this program", "of this program too"]
    assert remarks == []


def process_wide() -> list[object]:
    """What a process has once, and a program may have set."""
    loggers = [logging.getLogger(name) for name in ("", "PIL", "PIL.TiffImagePlugin")]
    return [
        *(warnings.warn, warnings.showwarning, list(warnings.filters), Image.MAX_IMAGE_PIXELS),
        *((list(logger.handlers), logger.level, list(logger.filters)) for logger in loggers),
        *((module.warnings, module.Image._decompression_bomb_check) for module in (PngImagePlugin, TiffImagePlugin)),
    ]


def test_decoding_leaves_nothing_behind_in_the_process(odd_files: list[str]) -> None:
    before = process_wide()
    stream = Stream(map(Source, odd_files * 20), lambda: stand_in(Brightness()), Classify(), Options(workers=8))
    assert [result.error for result in stream] == [None] * 120
    with pytest.raises(DecodeError):
        decode.decode_bytes(CAT[:1000])
    assert process_wide() == before


def test_while_one_thread_decodes_pillow_warns_another_as_ever(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    with collected() as remarks:
        shown = warnings.filters[:], warnings.showwarning
        with ThreadPoolExecutor(1) as other:  # in a context of its own
            other.submit(Image.open, io.BytesIO(ODD["animated.png"][0])).result()
            found = other.submit(lambda: getattr(PngImagePlugin, "warnings").catch_warnings).result()  # noqa: B009
            assert found is warnings.catch_warnings
        Image.open(io.BytesIO(ODD["far.tif"][0]))
        assert (warnings.filters[:], warnings.showwarning) == shown
    Image.open(io.BytesIO(ODD["animated.png"][0]))
    assert [(str(warning.message), Path(warning.filename).name) for warning in recwarn] == [
        ("Invalid APNG, will use default PNG image if possible", "PngImagePlugin.py")
    ] * 2
    assert remarks == ["Tag data larger than file. Skipping tag 305"]


def test_while_one_thread_decodes_pillow_logs_for_another_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    data = tiff_with(samples=99)
    message = "More samples per pixel than can be decoded: 99"
    with collected() as remarks:
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data))
        assert (remarks, caplog.messages) == ([message], [])
        with ThreadPoolExecutor(1) as other, pytest.raises(UnidentifiedImageError):
            other.submit(Image.open, io.BytesIO(data)).result()
    assert (remarks, caplog.messages) == ([message], [message])


def test_pillows_limit_holds_for_other_threads_while_one_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pillow.limited(1_000_000), ThreadPoolExecutor(1) as other:
        assert Image.open(io.BytesIO(ODD["exif.png"][0])).size == (300, 300)
        with pytest.raises(Image.DecompressionBombError):
            other.submit(Image.open, io.BytesIO(ODD["exif.png"][0])).result()


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_with_warnings_as_errors_images_are_labelled_on_any_number_of_threads(odd_files: list[str]) -> None:
    classifier = load_classifier("demo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(4) as threads:
            runs = [threads.submit(lambda: list(classifier.classify(odd_files, workers=2))) for _ in range(8)]
    for run in runs:
        assert [(result.error, list(result.remarks)) for result in run.result()] == [
            (None, remarks) for _, remarks in ODD.values()
        ]


def test_every_module_of_pillow_that_warns_of_a_file_is_listened_to() -> None:
    Image.init()
    plugins = {Image.OPEN[name][0].__module__ for name in decode.FORMATS}
    speaking = {name for name in plugins if hasattr(sys.modules[name], "warnings")}
    assert {"PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL.IcoImagePlugin"} <= speaking
    assert speaking <= {module.__name__ for module in pillow.speaking_modules()}


def test_libtiff_gets_its_handlers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[str, int | None] = {"error": 11, "warning": 22}

    def setter(name: str) -> Callable[[int | None], int | None]:
        def set_handler(new: int | None) -> int | None:
            old, handlers[name] = handlers[name], new
            return old

        return set_handler

    monkeypatch.setattr(libtiff, "_setters", lambda: (setter("error"), setter("warning")))
    with libtiff.silenced():
        with libtiff.silenced():
            assert handlers == {"error": None, "warning": None}
        assert handlers == {"error": None, "warning": None}
    assert handlers == {"error": 11, "warning": 22}


def test_a_file_has_a_few_short_remarks_at_most() -> None:
    with collected() as remarks:
        for number in range(1000):
            remark(f"tag {number // 2}:\n" + "x" * 1000)
    assert [remark[:6] for remark in remarks] == [f"tag {number}:" for number in range(MOST)]
    assert {len(remark) for remark in remarks} == {LENGTH}
