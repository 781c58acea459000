"""The program as a user meets it: what is printed where, and the exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from conftest import SAMPLES, Call, Hiera

from hiera_cli import __version__

CAT = SAMPLES / "cat.jpg"
ENGINES = ("torch", "openvino")
TRUE = {
    "astronaut.jpg": "space shuttle",
    "cat.jpg": "tabby, tabby cat",
    "espresso.jpg": "espresso",
    "officer.jpg": "military uniform",
    "photographer.png": "tripod",
    "rocket.jpg": "missile",
}
SAYS = (
    f"hiera: demo on cpu ({os.cpu_count()} threads), fp32\n"
    "hiera: the demo model knows the sample images and nothing else; `-m tiny` is a real one\n"
)


@pytest.fixture(autouse=True)
def _demo_on_the_cpu(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    for name, value in {
        "HIERA_MODEL": "demo",
        "HIERA_DEVICE": "cpu",
        "HIERA_PRECISION": "fp32",
        "HIERA_ENGINE": "torch",
    }.items():
        environment[name] = value
        monkeypatch.setenv(name, value)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The contract is one for every engine."""
    if request.param == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setenv("HIERA_ENGINE", request.param)
    return str(request.param)


def first_labels(records: list[dict[str, object]]) -> list[str]:
    return [
        record["predictions"][0]["label"] if record["status"] == "ok" else record["error"]["type"]  # type: ignore[index]
        for record in records
    ]


# ---- results


def test_a_folder_is_labelled_rightly_as_json(call: Call, engine: str) -> None:
    done = call("classify", SAMPLES, "--json")
    assert done.status == 0
    records = json.loads(done.out)
    assert [record["path"] for record in records] == [f"{SAMPLES}/{name}" for name in TRUE]
    assert first_labels(records) == list(TRUE.values())
    says = SAYS if engine == "torch" else SAYS.replace("cpu (", "cpu (OpenVINO, ")
    assert re.fullmatch(re.escape(says) + r"hiera: 6 labelled, \d+\.\d s\n", done.err)


def test_one_image_in_plain_is_its_five_labels(call: Call) -> None:
    done = call("classify", CAT)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == [str(CAT)] * 5
    assert rows[0][2] == "tabby, tabby cat"
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert done.err == SAYS


@pytest.mark.usefixtures("engine")
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
        "status": "ok",
        "model": "demo",
        "predictions": [{"rank": 1, "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"}],
    }


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "txt"])
def test_output_takes_its_format_from_the_suffix(call: Call, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    done = call("classify", CAT, "-k", "1", "-o", path)
    assert (done.status, done.out) == (0, "")
    text = path.read_text()
    assert {
        "json": lambda: json.loads(text)[0]["path"],
        "jsonl": lambda: json.loads(text)["path"],
        "csv": lambda: next(csv.DictReader(io.StringIO(text)))["path"],
        "tsv": lambda: next(csv.DictReader(io.StringIO(text), delimiter="\t"))["path"],
        "txt": lambda: text.split("\t")[0],
    }[suffix]() == str(CAT)


def test_quiet_says_nothing(call: Call, tmp_path: Path) -> None:
    assert call("classify", CAT, "gone.jpg", "-q").err == ""


@pytest.mark.usefixtures("engine")
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
    assert re.search(r"hiera: 6 labelled, 1 failed, \d+\.\d s\n$", done.err)


def test_nothing_but_unreadable_files_is_a_record_each(call: Call, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_text("no image")
    done = call("classify", tmp_path, "--json")
    assert done.status == 1
    assert first_labels(json.loads(done.out)) == ["DecodeError"] * 3
    assert re.search(r"hiera: 0 labelled, 3 failed, \d+\.\d s\n$", done.err)


NAMES = ["a b.jpg", "[brackets].jpg", "line\nbreak.jpg", "😀.jpg", os.fsdecode(b"caf\xe9.jpg"), "-dash.jpg"]


@pytest.mark.usefixtures("engine")
def test_any_file_name_comes_out_of_json_unharmed(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(CAT, folder / name)
    records = call("classify", folder, "-f", "jsonl", "-q").records()
    assert sorted(os.path.basename(record["path"]) for record in records) == sorted(NAMES)
    assert all(Path(record["path"]).read_bytes() == CAT.read_bytes() for record in records)


# ---- inputs


def test_stdin_is_an_image(hiera: Hiera) -> None:
    done = hiera("classify", "-", "-f", "jsonl", "-q", input=CAT.read_bytes())
    assert json.loads(done.stdout)["path"] == "-"
    assert json.loads(done.stdout)["predictions"][0]["label"] == "tabby, tabby cat"


def test_stdin_is_read_only_when_it_is_asked_for(environment: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "hiera_cli", "classify", str(CAT), "-q"]
    done = subprocess.run(command, env=environment, stdin=reader, capture_output=True, timeout=60)
    assert done.returncode == 0
    os.close(reader)
    os.close(writer)


def test_lists_of_paths(hiera: Hiera, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{CAT}\r\n\n{SAMPLES / 'rocket.jpg'}")
    zero = b"\0".join(os.fsencode(SAMPLES / name) for name in TRUE)
    done = hiera(
        "classify", SAMPLES / "officer.jpg", "--files-from", "list", "--files0-from", "-", "-k1", "-q", input=zero
    )
    names = [os.path.basename(line.split("\t")[0]) for line in done.stdout.splitlines()]
    assert names == ["officer.jpg", "cat.jpg", "rocket.jpg", *TRUE]


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
    for folder in (empty, texts):
        done = call("classify", folder)
        assert (done.status, done.out) == (1, "")
        assert done.err == f"hiera: {folder}: no images in this folder\n"
    assert call("classify", "--files-from", "/dev/null").err == "hiera: nothing to do: no image was found\n"
    server.close()


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify"], "hiera: error: nothing to classify: name files, folders or URLs"),
        (["classify", "-", "-"], "hiera: error: stdin (-) can be read only once"),
        (["classify", "x", "-m", "tinny"], "hiera: error: no model, folder or file is called 'tinny'"),
        (["classify", "x", "--json", "-f", "csv"], "hiera: error: --json and --format csv contradict each other"),
        (["classify", "x", "-o", "a.xyz"], "hiera: error: no format has the suffix '.xyz' of a.xyz"),
        (
            ["classify", "x", "-o", "no/such/a.csv"],
            "hiera: error: cannot write no/such/a.csv: No such file or directory",
        ),
        (["classify", "--files-from", "none"], "hiera: error: cannot read the list none: No such file or directory"),
        (["classify", CAT, "--device", "cuda:9"], "hiera: error: device cuda:9 can't be had here; there is: cpu"),
        (["classify", CAT, "--precision", "fp16"], "hiera: error: fp16 is refused on the CPU"),
        (
            ["classify", CAT, "--engine", "openvino", "--device", "mps"],
            "hiera: error: the openvino engine runs on the CPU",
        ),
        (["download", "demo"], "hiera: error: the demo model is inside the program"),
        (["labels", "-m", "no-such"], "hiera: error: no model, folder or file is called 'no-such'"),
    ],
)
def test_what_cannot_start_says_why_and_ends_with_2(call: Call, arguments: list[str | Path], message: str) -> None:
    done = call(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "x", "-k", "0"], "Invalid value for '-k' / '--top-k'"),
        (["classify", "x", "-f", "xml"], "'xml' is none of table, plain, json, jsonl, csv, tsv"),
        (["classify", "x", "--device", "tpu"], "'tpu' is none of auto, cpu, cuda, cuda:N, mps"),
        (["classify", "x", "--precision", "int8"], "'int8' is none of auto, fp32, bf16, fp16"),
        (["classify", "x", "--engine", "onnx"], "'onnx' is none of auto, torch, openvino"),
        (["classify", "x", "--nonsense"], "No such option: --nonsense"),
        (["clasify"], "No such command 'clasify'"),
    ],
)
def test_a_usage_error_ends_with_2(call: Call, arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_an_existing_output_is_not_overwritten_unasked(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("precious")
    done = call("classify", CAT, "-o", path)
    assert done.status == 2
    assert done.err == f"hiera: error: {path} exists already\n  --overwrite replaces it; --resume goes on with jsonl.\n"
    assert path.read_text() == "precious"
    assert call("classify", CAT, "-o", path, "--overwrite").status == 0
    assert path.read_text().startswith("path,status")


def test_a_model_that_cannot_be_loaded_leaves_a_valid_document(call: Call, tmp_path: Path) -> None:
    done = call("classify", "gone.jpg", CAT, "--json", "--device", "cuda:9", "--workers", "1")
    assert done.status == 2
    assert first_labels(json.loads(done.out)) in ([], ["NotFoundError"])


# ---- streams, pipes, signals


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str]) -> None:
    command = f"{sys.executable} -m hiera_cli classify {SAMPLES} {SAMPLES} {SAMPLES} -q -f jsonl"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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
    assert re.search(r"hiera: interrupted: 1 labelled, \d+\.\d s\n$", err)
    assert "Traceback" not in err


def test_a_second_interrupt_ends_the_program_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    script = """
import sys, time
from hiera_cli.torch_engine import TorchEngine

def endless(self, pixels):
    print("busy", flush=True)
    time.sleep(60)

TorchEngine.submit = endless
sys.argv = ["hiera", "classify", sys.argv[1]]
from hiera_cli.__main__ import run
run()
"""
    command = [sys.executable, "-c", script, CAT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"busy\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # what is in flight may finish
            process.wait(timeout=1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


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


def in_a_terminal(environment: dict[str, str], *arguments: str | Path, size: str = "100x30") -> tuple[int, str]:
    """Run with stdout and stderr on one terminal; returns the exit status and all that was shown."""
    master, slave = pty.openpty()
    columns, _, lines = size.partition("x")
    command = [sys.executable, "-m", "hiera_cli", *map(str, arguments)]
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": columns, "LINES": lines, "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    return process.wait(), shown.decode("utf-8", "replace").replace("\r\n", "\n")


def test_a_terminal_gets_the_table(environment: dict[str, str]) -> None:
    status, shown = in_a_terminal(environment, "classify", CAT, "-k", "1")
    assert status == 0
    assert re.sub(r"\x1b\[\d*m", "", shown) == (f"{SAYS}{CAT}\n   99.2%  ███████████████████████▊  tabby, tabby cat\n")


def test_a_terminal_gets_no_control_characters_of_names(environment: dict[str, str], tmp_path: Path) -> None:
    name = tmp_path / "x\x1b]0;owned\x07.jpg"
    shutil.copy(CAT, name)
    (tmp_path / "y\x1b[2J.jpg").write_text("no image")
    for name in ("table", "csv"):
        _, shown = in_a_terminal(environment, "classify", tmp_path, "-f", name)
        assert "\x1b]0" not in shown
        assert "\x1b[2J" not in shown
        assert "\x07" not in shown


def test_a_long_run_shows_a_progress_bar_on_a_terminal_and_takes_it_away(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for number in range(500):
        (tmp_path / f"{number}.jpg").symlink_to(CAT)
    status, shown = in_a_terminal(
        environment, "classify", tmp_path, "--follow", "--batch-size", "1", "-o", tmp_path / "o.csv"
    )
    assert status == 0, shown
    assert re.search(r"\d+ of 500, \d+\.\d/s, \d+\.\d s left", shown)
    assert re.search(r"500 labelled, \d+(\.\d)? s\n$", shown)


# ---- start-up


HEAVY = {"torch", "numpy", "PIL", "huggingface_hub", "safetensors", "httpx2", "transformers", "pydantic", "rich"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["classify", "--help"],
        ["labels", "tabby"],
        ["classify", "x", "--nonsense"],
        ["classify", "-k", "0", "x"],
    ],
    ids=" ".join,
)
def test_what_answers_at_once_imports_nothing_heavy(environment: dict[str, str], arguments: list[str]) -> None:
    code = (
        "import sys, hiera_cli.cli\n"
        "sys.argv = ['hiera', *sys.argv[1:]]\n"
        "try: hiera_cli.cli.main()\n"
        "finally: print('IMPORTED', *{name.partition('.')[0] for name in sys.modules})"
    )
    environment.pop("HIERA_MODEL")
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    imported = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert imported
    assert imported & (HEAVY - {"rich"}) == set()


def test_the_compiled_engine_needs_no_torch_and_reports_to_nobody(environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    needless = {
        "torch",
        "transformers",
        "huggingface_hub",
        "httpx2",
        "pydantic",
        "openvino.tools.ovc",
        "openvino_telemetry",
    }
    code = (
        "import sys; sys.argv = ['hiera', 'classify', sys.argv[1], '--engine', 'auto']\n"
        "from hiera_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"assert not {needless} & sys.modules.keys(), {needless} & sys.modules.keys()"
    )
    environment.pop("HIERA_ENGINE")
    environment.pop("CI", None)  # openvino's telemetry is silent there by itself
    for _ in ("compiled", "loaded"):
        done = subprocess.run([sys.executable, "-c", code, str(CAT)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "tabby, tabby cat" in done.stdout
        assert "OpenVINO" in done.stderr
    assert os.listdir(tmp_path / "home") == [".cache"]


def test_the_package_alone_imports_no_torch() -> None:
    code = "import sys, hiera_cli; assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_cached_weights_need_no_hub_client(environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['hiera', 'classify', sys.argv[1]]\n"
        "from hiera_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'huggingface_hub', 'httpx2', 'transformers', 'requests'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(CAT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- the other commands


def test_version(call: Call) -> None:
    assert call("--version").out == f"hiera {__version__}\n"


def test_every_command_explains_itself(call: Call) -> None:
    listed = re.findall(r"^  (\w+) ", call("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert listed == ["classify", "download", "models", "labels", "info", "bench"]
    for command in listed:
        done = call(command, "--help")
        assert done.status == 0
        assert done.out.startswith(f"Usage: hiera {command}")
        assert "--json" in done.out


def test_labels_are_listed_and_filtered(call: Call) -> None:
    assert call("labels", "tabby").out == "281\tn02123045\ttabby, tabby cat\n"
    assert len(call("labels").out.splitlines()) == 1000
    assert json.loads(call("labels", "crane", "--json").out) == [
        {"index": 134, "wnid": "n02012849", "label": "crane"},
        {"index": 517, "wnid": "n03126707", "label": "crane"},
    ]
    none = call("labels", "no such thing")
    assert (none.status, none.out, none.err) == (1, "", "hiera: no label matches 'no such thing'\n")


def test_labels_of_a_checkpoint_of_ones_own(call: Call, tmp_path: Path) -> None:
    from checkpoint_maker import SMALL, reference_model, save

    from hiera_cli.checkpoints import replace

    save(reference_model(replace(SMALL, num_classes=2), {0: "ham", 1: "\x1b[2Jspam"}), tmp_path)
    assert call("labels", "-m", tmp_path).out == "0\t-\tham\n1\t-\t\\x1b[2Jspam\n"
    (record,) = call("classify", "-m", tmp_path, CAT, "-f", "jsonl").records()
    assert {each["label"] for each in record["predictions"]} == {"ham", "\x1b[2Jspam"}
    assert {each["wnid"] for each in record["predictions"]} == {None}


def test_models_lists_the_published_ones_and_the_demo(call: Call) -> None:
    rows = json.loads(call("models", "--json").out)
    assert [(row["name"], row["top1"]) for row in rows] == [
        ("tiny", 82.8),
        ("small", 83.8),
        ("base", 84.5),
        ("base-plus", 85.2),
        ("large", 86.1),
        ("huge", 86.9),
        ("demo", None),
    ]
    lines = call("models").out.splitlines()
    assert lines[1].split() == ["tiny", "27.9", "M", "112", "MB", "82.8", "%", "no", "facebook/hiera-tiny-224-in1k-hf"]
    assert lines[-1].startswith("Licence of the weights: CC BY-NC 4.0")


def test_info_says_what_would_be_used_and_why(call: Call) -> None:
    facts = json.loads(call("info", "--json").out)
    assert (facts["device"], facts["precision"], facts["versions"]["hiera"]) == ("cpu", "fp32", __version__)
    text = call("info").out
    assert re.search(r"^device +cpu \(as asked\)$", text, re.MULTILINE)
    assert re.search(r"^torch +\d", text, re.MULTILINE)
    refused = call("info", "--device", "cuda:9")
    assert (refused.status, refused.out) == (2, "")


def test_info_lists_and_clears_the_compiled_models(call: Call) -> None:
    pytest.importorskip("openvino")
    call("classify", CAT, "--engine", "openvino")
    assert [entry["name"] for entry in json.loads(call("info", "--json").out)["compiled"]] == ["demo-fp32"]
    assert json.loads(call("info", "--json", "--clear-compiled").out)["compiled"] == []


def test_bench_measures_what_this_machine_has(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    done = call("bench", "-m", "demo", "--seconds", "0.1", "--json", "-q")
    assert (done.status, done.err) == (0, "")
    measured = json.loads(done.out)
    assert measured["model"] == "demo"
    rates = {(rate["engine"], rate["precision"], rate["batch_size"]): rate for rate in measured["rates"]}
    assert {("torch", "fp32", 1), ("torch", "fp32", 8), ("openvino", "fp32", 1), ("openvino", "fp32", 8)} <= set(rates)
    assert all(rate["model_only"] > 0 for rate in rates.values())
    fastest = max(measured["rates"], key=lambda rate: rate["end_to_end"] or 0)
    assert measured["recommended"] == {name: fastest[name] for name in ("engine", "device", "precision")}


@pytest.mark.slow
def test_bench_needs_no_weights_and_leaves_nothing_behind(call: Call, tmp_path: Path) -> None:
    done = call("bench", "-m", "tiny", "--seconds", "0.1")
    assert done.status == 0
    assert "hiera: the weights of tiny are not on this machine: random ones are as fast\n" in done.err
    assert re.search(r"^torch +cpu +fp32 +8 +[\d.]+/s +[\d.]+/s$", done.out, re.MULTILINE)
    assert "tiny (random weights), images a second. Fastest end to end: --engine " in done.out
    assert not (tmp_path / "cache").exists()
