"""`hiera classify` as a user meets it, on each engine: what is printed where, and the exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from conftest import SAMPLES, TOOK, Bash, Call, Hiera, either_engine, in_a_terminal
from image_server import ImageServer, Request
from PIL import Image

from hiera_cli import Classifier, DeviceError, UsageError, load_classifier
from hiera_cli.classifier import Input
from hiera_cli.commands.run import is_rereadable
from hiera_cli.inputs.signatures import RAW
from hiera_cli.system.utf8 import from_fields

CAT = SAMPLES / "cat.jpg"
TRUE = {
    "astronaut.jpg": "space shuttle",
    "cat.jpg": "tabby, tabby cat",
    "espresso.jpg": "espresso",
    "officer.jpg": "military uniform",
    "photographer.png": "tripod",
    "rocket.jpg": "missile",
}

pytestmark = pytest.mark.usefixtures("engine", "demo_on_the_cpu")


@pytest.fixture
def says(engine: str) -> str:
    """The lines on stderr once a model is loaded, but for the number of threads, which is the engine's affair."""
    return (
        f"hiera: demo on cpu ({'OpenVINO, ' if engine == 'openvino' else ''}N threads), fp32\n"
        "hiera: the demo model knows the sample images and nothing else; `-m tiny` is a real one\n"
    )


def threads_aside(text: str) -> str:
    return re.sub(r"\d+ threads\)", "N threads)", text)


def first_labels(records: list[dict[str, object]]) -> list[str]:
    return [
        record["predictions"][0]["label"] if record["status"] == "ok" else record["error"]["type"]  # type: ignore[index]
        for record in records
    ]


# ---- results


def test_a_folder_is_labelled_rightly_as_json(call: Call, says: str) -> None:
    done = call("classify", SAMPLES, "--json")
    assert done.status == 0
    records = json.loads(done.out)
    assert [record["path"] for record in records] == [f"{SAMPLES}/{name}" for name in TRUE]
    assert first_labels(records) == list(TRUE.values())
    skipped = "hiera: skipped 1 file that is not known as an image (1 .md)\n"
    assert re.fullmatch(re.escape(says + skipped) + rf"hiera: 6 labelled, {TOOK}\n", threads_aside(done.err))


def test_one_image_in_plain_is_its_five_labels(call: Call, says: str) -> None:
    done = call("classify", CAT)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == [str(CAT)] * 5
    assert rows[0][2] == "tabby, tabby cat"
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert threads_aside(done.err) == says


def test_top_k_and_min_score(call: Call) -> None:
    assert [len(r["predictions"]) for r in call("classify", SAMPLES, "-k", "1", "-f", "jsonl").records()] == [1] * 6
    assert len(call("classify", CAT, "-k", "5000").out.splitlines()) == 1000
    (record,) = call("classify", CAT, "--min-score", "0.5", "-f", "jsonl").records()
    assert [each["label"] for each in record["predictions"]] == ["tabby, tabby cat"]


def test_the_record_is_the_documented_one(call: Call) -> None:
    (record,) = call("classify", CAT, "-k", "1", "-f", "jsonl").records()
    score = record["predictions"][0].pop("score")
    assert 0.9 < score < 1
    assert record == {
        "path": str(CAT),
        "path_bytes": None,
        "status": "ok",
        "model": "demo",
        "precision": "fp32",
        "predictions": [{"rank": 1, "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"}],
        "error": None,
        "remarks": [],
        "settings": {
            **{"rollup": None, "among": [], "top_k": 1, "min_score": 0.0},
            **{"explain": False, "full_decode": False},
        },
    }


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "txt"])
def test_output_takes_its_format_from_the_suffix(call: Call, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    done = call("classify", CAT, "-k", "1", "-o", path)
    assert (done.status, done.out) == (0, "")
    text = path.read_text()
    assert {  # type: ignore[no-untyped-call]
        "json": lambda: json.loads(text)[0]["path"],
        "jsonl": lambda: json.loads(text)["path"],
        "csv": lambda: next(csv.DictReader(io.StringIO(text)))["path"],
        "tsv": lambda: next(csv.DictReader(io.StringIO(text), delimiter="\t"))["path"],
        "txt": lambda: text.split("\t")[0],
    }[suffix]() == str(CAT)


def test_quiet_tells_of_failures_and_quieter_of_nothing_but_what_ends_the_run(call: Call, says: str) -> None:
    failure = "hiera: gone.jpg: no such file\n"
    assert threads_aside(call("classify", CAT, "gone.jpg", "--no-progress").err).startswith(says + failure)
    assert call("classify", CAT, "gone.jpg", "-q").err == failure
    assert call("classify", CAT, "gone.jpg", "-qq").err == ""
    assert call("classify", CAT, "-qq", "--device", "cuda:9").err.startswith("hiera: error: ")


def test_the_line_on_model_and_device_can_be_left_out_alone(call: Call) -> None:
    done = call("classify", CAT, "gone.jpg", "--no-banner")
    assert re.fullmatch(rf"hiera: gone\.jpg: no such file\nhiera: 1 labelled, 1 failed, {TOOK}\n", done.err)


@pytest.mark.parametrize("name", ["", " "])
def test_a_name_that_can_not_be_seen_is_told_in_quotes(call: Call, name: str) -> None:
    assert call("classify", name, "-q").err == f"hiera: '{name}': no such file\n"


@pytest.mark.parametrize("name", ["out.json", "out.jsonl", "out.csv", "out.txt"])
def test_a_run_that_finds_nothing_leaves_no_file(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert call("classify", "empty", "-o", name).status == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty"]


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_what_is_about_an_output_is_refused_without_one(call: Call, option: str) -> None:
    done = call("classify", CAT, option)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"hiera: error: {option} is about an --output, and there is none\n  Name one: -o FILE.jsonl\n"


@pytest.mark.parametrize("place", [0, 3, 6])
def test_an_unreadable_file_is_one_record_and_the_rest_go_on(call: Call, tmp_path: Path, place: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CAT.read_bytes()[:20_000])
    paths = [SAMPLES / name for name in TRUE]
    paths.insert(place, broken)
    expected = list(TRUE.values())
    expected.insert(place, "DecodeError")
    done = call("classify", *paths, "-f", "jsonl")
    assert done.status == 1
    assert [record["path"] for record in done.records()] == [str(path) for path in paths]
    assert first_labels(done.records()) == expected
    assert f"hiera: {broken}: damaged or truncated image: " in done.err
    assert re.search(rf"hiera: 6 labelled, 1 failed, {TOOK}\n$", done.err)


def test_nothing_but_unreadable_files_is_a_record_each(call: Call, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_text("no image")
    done = call("classify", tmp_path, "--json")
    assert done.status == 1
    assert first_labels(json.loads(done.out)) == ["DecodeError"] * 3
    assert re.search(rf"hiera: 0 labelled, 3 failed, {TOOK}\n$", done.err)


NAMES = ["a b.jpg", "[brackets].jpg", "line\nbreak.jpg", "😀.jpg", os.fsdecode(b"caf\xe9.jpg"), "-dash.jpg"]


def test_any_file_name_comes_out_of_json_unharmed(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(CAT, folder / name)
    records = call("classify", folder, "-f", "jsonl", "-q").records()
    names = [os.fsdecode(from_fields(record["path"], record["path_bytes"])) for record in records]
    assert sorted(map(os.path.basename, names)) == sorted(NAMES)
    assert all(Path(name).read_bytes() == CAT.read_bytes() for name in names)


def test_names_from_a_folder_are_what_xargs_takes(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(CAT, folder / name)
    out = call("classify", folder, "-k1", "-0", "-q").out
    assert [record.rpartition("\t")[2] for record in out.split("\0")] == ["tabby, tabby cat"] * len(NAMES) + [""]
    command = ["sed", "-z", r"s/\t[^\t]*\t[^\t]*$//"]  # as README says
    names = subprocess.run(command, input=os.fsencode(out), capture_output=True, check=True).stdout.split(b"\0")
    assert names == [*sorted(os.fsencode(folder / name) for name in NAMES), b""]


@pytest.mark.parametrize("arguments", [["--json"], ["-f", "table"], ["-o", "x.csv"]])
def test_nul_at_the_end_of_lines_is_for_plain_alone(call: Call, arguments: list[str]) -> None:
    done = call("classify", CAT, "-0", *arguments)
    assert done.status == 2
    assert done.err.startswith("hiera: error: --null ends the lines of plain output, and this run writes ")


# ---- inputs


@either_engine
def test_stdin_is_an_image(hiera: Hiera) -> None:
    done = hiera("classify", "-", "-f", "jsonl", "-q", input=CAT.read_bytes())
    assert json.loads(done.stdout)["path"] == "-"
    assert json.loads(done.stdout)["predictions"][0]["label"] == "tabby, tabby cat"


@either_engine
def test_stdin_is_read_only_when_it_is_asked_for(environment: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "hiera_cli", "classify", str(CAT), "-q"]
    done = subprocess.run(command, env=environment, stdin=reader, capture_output=True, timeout=60)
    assert done.returncode == 0
    os.close(reader)
    os.close(writer)


@either_engine
def test_what_the_shell_opened_for_an_input_is_read_to_its_end(bash: Bash) -> None:
    done = bash(f"cat {CAT} | hiera classify /dev/stdin <(cat {SAMPLES}/rocket.jpg) -k1 -f jsonl -q")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["path"], first_labels([first, second])) == ("/dev/stdin", ["tabby, tabby cat", "missile"])
    assert re.fullmatch(r"/dev/fd/\d+", second["path"])


def test_a_descriptor_is_read_once_and_no_further_than_stdin_is(call: Call) -> None:
    for content, said in (
        (CAT.read_bytes(), "it was read already"),
        (b"x" * (1 << 16), "not an image of a format that is read here"),
        (b"", "no bytes at all"),
    ):
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)  # as one that a shell hands on
        os.write(writer, content)
        os.close(writer)
        name = f"/dev/fd/{reader}"
        done = call("classify", name, name, "-f", "jsonl", "-q")
        assert said in [record["error"]["message"] for record in done.records() if record["status"] == "error"]
        os.close(reader)
    with open("/dev/zero", "rb") as zeros:
        os.set_inheritable(zeros.fileno(), True)
        name = f"/dev/fd/{zeros.fileno()}"
        assert (
            call("classify", name, "--max-mib", "1").err == f"hiera: {name}: it is over 1 MiB (--max-mib raises it)\n"
        )


@either_engine
def test_lists_of_paths(hiera: Hiera, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{CAT}\r\n\n{SAMPLES / 'rocket.jpg'}")
    zero = b"\0".join(os.fsencode(SAMPLES / name) for name in TRUE)
    done = hiera(
        "classify", SAMPLES / "officer.jpg", "--files-from", "list", "--files0-from", "-", "-k1", "-q", input=zero
    )
    names = [os.path.basename(line.split("\t")[0]) for line in done.stdout.splitlines()]
    assert names == ["officer.jpg", "cat.jpg", "rocket.jpg", *TRUE]


@either_engine
def test_results_of_a_list_come_while_it_is_still_being_written(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hiera_cli", "classify", "--files-from", "-", "-f", "jsonl", "-q"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name in TRUE:
            process.stdin.write(f"{SAMPLES / name}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["predictions"][0]["label"] == TRUE[name]
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_exclude_hidden_and_follow(call: Call, tmp_path: Path) -> None:
    for name in ("a.jpg", ".b.jpg", "skip/c.jpg", "d.JPG", "e.txt"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CAT, tmp_path / "x" / name)
    (tmp_path / "x" / "link.jpg").symlink_to(CAT)

    def names(*options: str) -> list[str]:
        lines = call("classify", tmp_path / "x", "-k1", "-q", *options).out.splitlines()
        return [line.split("\t")[0].removeprefix(f"{tmp_path}/x/") for line in lines]

    assert names() == ["a.jpg", "d.JPG", "skip/c.jpg"]
    assert names("--exclude", "skip", "--exclude", "a.*") == ["d.JPG"]
    assert names("--hidden") == [".b.jpg", "a.jpg", "d.JPG", "skip/c.jpg"]
    assert names("--follow") == ["a.jpg", "d.JPG", "link.jpg", "skip/c.jpg"]


def test_what_folders_hold_beside_images_is_told_once_at_the_end(call: Call, tmp_path: Path, says: str) -> None:
    photos = tmp_path / "photos"
    (photos / ".thumbs").mkdir(parents=True)
    shutil.copy(CAT, photos / "scan")
    (photos / "a.NEF").write_bytes(b"raw")
    (photos / "notes").write_text("text")
    skipped = (
        "hiera: skipped 2 files that are not known as images (1 without suffix, 1 .nef), 1 hidden (--hidden)\n"
        "hiera: RAW photos are not read; convert them first, or take the previews in them: "
        "`exiftool -b -PreviewImage`\n"
    )
    done = call("classify", photos, "-k1", "-f", "jsonl")
    assert [record["path"] for record in done.records()] == [f"{photos}/scan"]
    assert threads_aside(done.err) == says + skipped
    assert call("classify", photos, "-q").err == ""
    (photos / "scan").unlink()
    assert call("classify", photos).err == f"hiera: {photos}: no images in this folder\n{skipped}"
    assert sorted(call("classify", photos, "--verbose").err.splitlines())[:3] == [
        f"hiera: {photos}/.thumbs: skipped, hidden",
        f"hiera: {photos}/a.NEF: skipped, not known as an image",
        f"hiera: {photos}/notes: skipped, not known as an image",
    ]


def test_an_exclude_that_excludes_nothing_is_told_of(call: Call, says: str) -> None:
    globs = ("[!c]*", f"{SAMPLES}/*.md", "*.gif", "photos/x y*")
    done = call("classify", SAMPLES, "-k1", *(word for glob in globs for word in ("--exclude", glob)))
    told = "".join(f"hiera: --exclude {glob} matched nothing\n" for glob in ("'*.gif'", "'photos/x y*'"))
    assert threads_aside(done.err) == says + told
    done = call("classify", CAT, "-k1", "--exclude", "cat.jpg")
    assert threads_aside(done.err) == says + "hiera: --exclude cat.jpg matched nothing\n"


def test_what_is_no_image_answers_in_one_line(call: Call, tmp_path: Path) -> None:
    empty, texts = tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "a.txt").write_text("text")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, status, message in (
        ("/nonexistent", 1, "/nonexistent: no such file"),
        (tmp_path / "socket", 1, f"{tmp_path}/socket: a socket, not a file"),
        (tmp_path / "pipe.jpg", 1, f"{tmp_path}/pipe.jpg: a named pipe, not a file"),
        ("/dev/zero", 1, "/dev/zero: a device, not a file"),
        ("/proc/self/status", 1, "/proc/self/status: the file is empty"),
        (texts / "a.txt", 1, f"{texts}/a.txt: not an image of a format that is read here"),
    ):
        done = call("classify", path)
        assert (done.status, done.out) == (status, "")
        assert done.err == f"hiera: {message}\n"
    for folder, skipped in (
        (empty, ""),
        (texts, "hiera: skipped 1 file that is not known as an image (1 .txt)\n"),
    ):
        done = call("classify", folder)
        assert (done.status, done.out) == (1, "")
        assert done.err == f"hiera: {folder}: no images in this folder\n{skipped}"
    assert call("classify", "--files-from", "/dev/null").err == "hiera: nothing to do: no image was found\n"
    server.close()


def test_what_was_named_as_an_image_by_mistake_is_told_with_what_to_do(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CAT, "cat.jpg")
    for name, content, said in (
        ("my list", b"cat.jpg\r\ndog.jpg\r\n", "{seems} (--files-from 'my list' reads it)"),
        ("urls", b"https://example.com/cat.jpg\n", "{seems} (--files-from urls reads it)"),
        ("list0", b"cat.jpg\0dog.jpg\0", "{seems} (--files0-from list0 reads it)"),
        ("gone", b"mouse.jpg\n", "not an image of a format that is read here"),
        ("notes.txt", b"cat.jpg is a cat\n", "not an image of a format that is read here"),
        (
            "a.zip",
            b"PK\x03\x04\x14\0",
            "the archive is damaged: its list of members, at its end, is missing or broken; `zip -FF` may mend it",
        ),
        (
            "a.tar",
            b"cat.jpg".ljust(257, b"\0") + b"ustar\0",
            "the archive is damaged: not even its first member can be told",
        ),
        (
            "z.jpg",
            b"PK\x03\x04\x14\0",
            "it is a ZIP archive that is called like a picture: rename it, and what is in it is read",
        ),
        ("z.bin", b"7z\xbc\xaf\x27\x1c", "it is a 7z archive, not an image; unpack it first"),
        ("a.mp4", b"\0\0\0\x20ftypisom\0\0\2\0", "it is a video, not an image; `ffmpeg -i` makes images of it"),
        ("a.pdf", b"%PDF-1.7\n", "it is a PDF, not an image; `pdftoppm -png` makes images of its pages"),
        ("a.html", b"<!DOCTYPE html>", "it is an HTML page, not an image"),
        ("a.NEF", b"\0" * 100, RAW),
        ("a", b"FUJIFILMCCD-RAW 0201", RAW),
    ):
        Path(name).write_bytes(content)
        seems = "it seems to be a list of paths, not an image"
        assert call("classify", name, "-f", "csv").err == f"hiera: {name}: {said.format(seems=seems)}\n"


@either_engine
def test_a_pipe_into_the_program_that_nothing_asks_for_is_told_of(bash: Bash) -> None:
    done = bash(f"ls {SAMPLES}/*.jpg | hiera classify")
    assert (done.returncode, done.stderr) == (
        2,
        "hiera: error: nothing to classify: name files, folders or URLs\n"
        "  Of what comes on stdin, `--files-from -` takes a list of paths, and `-` takes an image.\n",
    )
    assert "For example: hiera classify cat.jpg photos/" in bash("hiera classify < /dev/null").stderr
    done = bash(f"ls {SAMPLES}/*.jpg | hiera classify -")
    assert done.stderr == "hiera: -: it seems to be a list of paths, not an image (--files-from - reads it)\n"


def test_an_existing_output_is_not_overwritten_unasked(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("precious")
    done = call("classify", CAT, "-o", path)
    assert done.status == 2
    assert done.err == f"hiera: error: {path} exists already\n  --overwrite replaces it.\n"
    assert path.read_text() == "precious"
    assert call("classify", CAT, "-o", path, "--overwrite").status == 0
    assert path.read_text().startswith("path,path_bytes,status")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x.jsonl", "--resume goes on with it; --overwrite replaces it."),
        ("x.csv", "--overwrite replaces it."),
        ("x.jsonl.part", "--resume goes on with it; --overwrite begins anew."),
        ("x.csv.part", "It holds what was done: move it away to keep that. --overwrite begins anew."),
    ],
)
def test_the_ways_on_are_those_that_the_format_at_hand_has(call: Call, tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_text("something")
    done = call("classify", CAT, "-o", tmp_path / name.removesuffix(".part"))
    assert done.status == 2
    assert done.err.splitlines()[1:] == [f"  {hint}"]


def test_a_model_that_cannot_be_loaded_leaves_a_valid_document(call: Call, tmp_path: Path) -> None:
    done = call("classify", "gone.jpg", CAT, "--json", "--device", "cuda:9", "--workers", "1")
    assert done.status == 2
    assert first_labels(json.loads(done.out)) in ([], ["NotFoundError"])


# ---- streams, pipes, signals


@either_engine
def test_a_reader_that_goes_away_is_no_error(bash: Bash) -> None:
    done = bash(f"hiera classify {SAMPLES} {SAMPLES} {SAMPLES} -q -f jsonl | head -n 1; echo ${{PIPESTATUS[0]}}")
    record, status = done.stdout.splitlines()
    assert json.loads(record)["status"] == "ok"
    assert status == "0"
    assert done.stderr == ""


def start(environment: dict[str, str], *arguments: str | Path, stdout: BinaryIO | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hiera_cli", "classify", *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=stdout or subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_text(process: subprocess.Popen[str], file: Path, text: str) -> None:
    while not (file.exists() and text in file.read_text()):
        assert process.poll() is None
        time.sleep(0.02)


@either_engine
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_leaves_a_valid_document(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    with out.open("wb") as stdout, start(environment, "--files-from", "-", "--json", stdout=stdout) as process:
        assert process.stdin is not None
        process.stdin.write(f"{CAT}\n")
        process.stdin.flush()
        wait_for_text(process, out, "tabby")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert first_labels(json.loads(out.read_text())) == ["tabby, tabby cat"]
    assert re.search(rf"hiera: interrupted: 1 labelled, {TOOK}\n$", err)
    assert "Traceback" not in err


def test_a_second_interrupt_ends_the_program_at_once(environment: dict[str, str], engine: str) -> None:
    script = """
import importlib, sys, time
classes = {"torch": ("torch_engine", "TorchEngine"), "openvino": ("openvino_engine", "OpenVinoEngine")}
module, name = classes[sys.argv[1]]

def endless(self, pixels):
    print("busy", flush=True)
    time.sleep(60)

setattr(getattr(importlib.import_module(f"hiera_cli.engines.{module}"), name), "submit", endless)
sys.argv = ["hiera", "classify", sys.argv[2], "-q"]
from hiera_cli.__main__ import run
run()
"""
    environment["PYTHONWARNINGS"] = "ignore"
    command = [sys.executable, "-c", script, engine, str(CAT)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == b"hiera: finishing what is running; again to stop now\n"
        with pytest.raises(subprocess.TimeoutExpired):  # what is in flight may finish
            process.wait(timeout=1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


@either_engine
def test_an_interrupted_output_file_is_kept_beside_its_name(environment: dict[str, str], tmp_path: Path) -> None:
    with start(environment, "--files-from", "-", "-o", tmp_path / "out.csv") as process:
        assert process.stdin is not None
        process.stdin.write(f"{CAT}\n")
        process.stdin.flush()
        part = tmp_path / "out.csv.part"
        wait_for_text(process, part, "tabby")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"what was done is in {tmp_path}/out.csv.part" in err
    assert not (tmp_path / "out.csv").exists()
    assert next(csv.DictReader(io.StringIO(part.read_text())))["label"] == "tabby, tabby cat"


@either_engine
def test_a_terminal_gets_the_table(environment: dict[str, str], says: str) -> None:
    status, shown = in_a_terminal(environment, "classify", CAT, "-k", "1")
    assert status == 0
    shown = re.sub(r"\x1b\[\d*m", "", threads_aside(shown))
    assert shown == f"{says}{CAT}\n   99.2%  ███████████████████████▊  tabby, tabby cat\n"


@either_engine
def test_a_terminal_gets_no_control_characters_of_names(environment: dict[str, str], tmp_path: Path) -> None:
    name = tmp_path / "x\x1b]0;owned\x07.jpg"
    shutil.copy(CAT, name)
    (tmp_path / "y\x1b[2J.jpg").write_text("no image")
    for format in ("table", "csv"):
        _, shown = in_a_terminal(environment, "classify", tmp_path, "-f", format)
        assert "\x1b]0" not in shown
        assert "\x1b[2J" not in shown
        assert "\x07" not in shown


@either_engine
def test_a_long_run_shows_a_progress_bar_on_a_terminal_and_takes_it_away(
    environment: dict[str, str], tmp_path: Path
) -> None:
    server, turn, count = ImageServer(), threading.Lock(), 12

    def in_a_while(request: Request) -> None:  # so that the run is a long one on every machine, once it has begun
        while not request.path.endswith("?0") and not (tmp_path / "o.csv.part").stat().st_size:
            time.sleep(0.02)
        with turn:
            time.sleep(0.25)
        request.reply(body=CAT.read_bytes())

    url = server.at(in_a_while)
    (tmp_path / "urls").write_text("".join(f"{url}?{number}\n" for number in range(count)))
    status, shown = in_a_terminal(
        environment, "classify", "--files-from", tmp_path / "urls", "--batch-size", "1", "-o", "o.csv"
    )
    server.close()
    assert status == 0, shown
    assert re.search(rf"\d+ of {count}, \d+\.\d/s, \d+(\.\d)? s left", shown)
    assert re.search(rf"{count} labelled, \d+(\.\d)? s(, \d+\.\d/s)? → o\.csv\n$", shown)


@either_engine
@pytest.mark.parametrize("option", ["--files-from", "--files0-from"])
def test_a_list_from_a_pipe_loses_nothing_on_a_terminal(
    environment: dict[str, str], tmp_path: Path, option: str
) -> None:
    names = [f"missing-{number}.jpg" for number in range(3000)]
    fifo = tmp_path / "list"
    os.mkfifo(fifo)
    text = "".join(name + ("\n" if option == "--files-from" else "\0") for name in names)
    with ThreadPoolExecutor() as writer:
        writer.submit(fifo.write_text, text)
        status, _ = in_a_terminal(environment, "classify", option, fifo, "-o", tmp_path / "out.jsonl")
    assert status == 1
    paths = [json.loads(line)["path"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert paths == names


def test_only_a_list_that_is_a_file_is_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("x.jpg\n")
    (tmp_path / "link").symlink_to(tmp_path / "list")
    os.mkfifo(tmp_path / "fifo")
    reader, writer = os.pipe()
    for name in ("list", "link"):
        assert is_rereadable(str(tmp_path / name))
    for name in (str(tmp_path / "fifo"), f"/dev/fd/{reader}", f"/proc/self/fd/{reader}", "/dev/stdin", "-", "missing"):
        assert not is_rereadable(name)
    os.close(reader)
    os.close(writer)


def test_no_name_makes_a_line_of_its_own_on_stderr(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x\nhiera: 5 labelled").mkdir()
    name = f"{tmp_path}/x\nhiera: 5 labelled"
    done = call("classify", name, f"{name}/y\r.jpg")
    assert done.err.splitlines() == [
        f"hiera: {tmp_path}/x\\nhiera: 5 labelled: no images in this folder",
        f"hiera: {tmp_path}/x\\nhiera: 5 labelled/y\\r.jpg: no such file",
    ]
    done = call("classify", CAT, "-o", f"{name}/out.csv/\n")
    assert done.status == 2
    assert (
        done.err
        == f"hiera: error: cannot write {tmp_path}/x\\nhiera: 5 labelled/out.csv/\\n: No such file or directory\n"
    )


@either_engine
def test_the_decoders_own_library_writes_nothing_to_stderr(hiera: Hiera, tmp_path: Path) -> None:
    for name in ("broken.tif", "whole.tif"):
        Image.open(CAT).save(tmp_path / name, compression="tiff_lzw")
    data = bytearray((tmp_path / "broken.tif").read_bytes())
    data[3000:9000] = b"\xff" * 6000
    (tmp_path / "broken.tif").write_bytes(data)
    done = hiera("classify", "broken.tif", "whole.tif", "-f", "jsonl", "-q")
    assert first_labels([json.loads(line) for line in done.stdout.splitlines()]) == ["DecodeError", "tabby, tabby cat"]
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("hiera: broken.tif: ")


# ---- from Python


def test_the_python_face_labels_files_and_folders(engine: str) -> None:
    classifier = load_classifier("demo", engine=engine, device="cpu", precision="fp32")
    results = list(classifier.classify([SAMPLES / "cat.jpg", str(SAMPLES), "gone.jpg"], top_k=2))
    assert [os.path.basename(result.path) for result in results] == ["cat.jpg", *TRUE, "gone.jpg"]
    assert [len(result.predictions) for result in results] == [2] * 7 + [0]
    assert results[0].predictions[0].label == "tabby, tabby cat"
    assert results[0].model == "demo"
    assert results[-1].error is not None


@pytest.fixture
def classifier(engine: str) -> Classifier:
    return load_classifier("demo", engine=engine, device="cpu", precision="fp32")


def test_one_path_is_one_input_and_not_its_letters(classifier: Classifier) -> None:
    for path in (str(CAT), CAT):
        (result,) = classifier.classify(path, top_k=1)
        assert (result.path, result.predictions[0].label) == (str(CAT), "tabby, tabby cat")


def test_images_and_arrays_are_inputs_beside_paths(classifier: Classifier) -> None:
    image = Image.open(CAT)
    array = np.asarray(Image.open(CAT))
    for single in (image, array):
        (result,) = classifier.classify(single, top_k=1)
        assert result.predictions[0].label == "tabby, tabby cat"
    inputs: list[Input] = [
        Image.open(SAMPLES / "rocket.jpg"), CAT, image, image, array, np.zeros((1, 1), np.uint8)
    ]  # fmt: skip
    results = list(classifier.classify(iter(inputs), top_k=1))
    assert [result.path for result in results] == [str(SAMPLES / "rocket.jpg"), *[str(CAT)] * 3, "", ""]
    assert [result.predictions[0].label for result in results[:5]] == ["missile", *["tabby, tabby cat"] * 4]
    assert len(list(classifier.classify(np.stack([array, array, array])))) == 3


def test_an_image_in_memory_gives_the_scores_of_its_file(classifier: Classifier) -> None:
    inputs: list[Input] = [CAT, Image.open(CAT), np.asarray(Image.open(CAT))]
    first, *others = [result.predictions[0].score for result in classifier.classify(inputs)]
    assert others == pytest.approx([first, first], abs=1e-5)


def test_an_image_that_can_not_be_read_is_an_error_of_its_own(classifier: Classifier) -> None:
    broken = Image.open(io.BytesIO(CAT.read_bytes()[:20_000]))
    results = list(classifier.classify([broken, Image.open(CAT)], max_pixels=500 * 375, top_k=1))
    assert [result.error and result.error.type for result in results] == ["DecodeError", None]
    (result,) = classifier.classify(Image.new("RGB", (0, 0)))
    assert result.to_dict()["error"] == {
        "type": "DecodeError",
        "message": "damaged or truncated image: it has no pixels",
    }
    huge = np.broadcast_to(np.uint8(7), (200_000, 200_000, 3))  # a view: there is no memory for a copy of it
    results = list(classifier.classify([huge, CAT], top_k=1))
    assert [result.error and result.error.message for result in results] == [
        "its 40,000,000,000 pixels are over the limit of 178,956,970",
        None,
    ]
    (result,) = classifier.classify(Image.new("RGB", (100, 100)), max_pixels=9_999)
    assert result.to_dict()["error"]["message"].startswith("its 10,000 pixels are over the limit of 9,999")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (3, "an input is a path or URL (str, Path), a PIL.Image or an array, not int"),
        ([CAT, None], "an input is a path or URL (str, Path), a PIL.Image or an array, not NoneType"),
        (
            b"\xff\xd8\xff",
            "an input is a path or URL (str, Path), a PIL.Image or an array, not bytes; "
            "PIL.Image.open(io.BytesIO(...)) makes an image of them",
        ),
        (
            np.zeros((3, 224, 224), np.float32),
            "an array as an input is uint8, (height, width, 3), not float32, (3, 224, 224)",
        ),
        (
            np.zeros((3, 224, 224), np.uint8),
            "an array as an input is uint8, (height, width, 3), not uint8, (3, 224, 224)",
        ),
    ],
)
def test_what_is_not_an_input_is_a_type_error_that_says_what_is(classifier: Classifier, inputs: Any, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        list(classifier.classify(inputs))
    assert str(caught.value) == said


def test_an_error_reads_as_its_message(classifier: Classifier) -> None:
    (result,) = classifier.classify("gone.jpg")
    assert str(result.error) == "no such file"


@pytest.mark.parametrize("options", [{"top_k": 0}, {"top_k": "3"}, {"workers": -1}, {"min_score": 2.0}])
def test_options_that_make_no_sense_are_refused_at_once(classifier: Classifier, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is .*, not"):
        classifier.classify(CAT, **options)


def test_a_model_is_not_loaded_for_an_engine_or_a_batch_size_that_is_none() -> None:
    with pytest.raises(DeviceError, match="there is no engine 'openvin'"):
        load_classifier("demo", engine="openvin")
    with pytest.raises(UsageError, match="batch_size is a whole number, 1 or more, not -1"):
        load_classifier("demo", batch_size=-1)


def test_a_result_as_a_dictionary_is_the_json_record(call: Call, classifier: Classifier) -> None:
    paths = [str(CAT), "gone.jpg"]
    results = [result.to_dict() for result in classifier.classify(paths, top_k=1)]
    assert json.loads(call("classify", *paths, "-k1", "--json").out) == json.loads(json.dumps(results))


def test_what_python_needs_is_exported_and_imported_when_it_is_used() -> None:
    code = (
        "import sys, hiera_cli\n"
        "assert set(hiera_cli.__all__) <= set(dir(hiera_cli))\n"
        "print(hiera_cli.InputError.__module__, 'numpy' in sys.modules)\n"
        "print([name for name in hiera_cli.__all__ if not hasattr(hiera_cli, name)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "hiera_cli.errors False\n[]\n"
