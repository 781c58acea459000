"""The program around `classify`: errors of usage, start-up, and the other commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from conftest import SAMPLES, Call, needs_openvino
from jsonschema import Draft202012Validator

from hiera_cli import __version__, bench

CAT = SAMPLES / "cat.jpg"

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


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
        (["classify", CAT, "--device", "cuda:9"], "hiera: error: device cuda:9 is not available here; available: cpu"),
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
        (["classify", "x", "-f", "xml"], "'xml' is not one of table, plain, json, jsonl, csv, tsv"),
        (["classify", "x", "--device", "tpu"], "'tpu' is not one of auto, cpu, cuda, cuda:N, mps"),
        (["classify", "x", "--precision", "int8"], "'int8' is not one of auto, fp32, bf16, fp16"),
        (["classify", "x", "--engine", "onnx"], "'onnx' is not one of auto, torch, openvino"),
    ],
)
def test_a_usage_error_ends_with_2(call: Call, arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


# ---- start-up


HEAVY = {"torch", "numpy", "PIL", "huggingface_hub", "safetensors", "httpx2", "transformers", "pydantic", "rich"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["classify", "--help"],
        ["classify", "--schema"],
        ["labels", "tabby"],
        ["labels", "--tree", "dog"],
        ["classify", "x", "--among", "dgo"],
        ["classify", "x", "--nonsense"],
        ["classify", "-k", "0", "x"],
    ],
    ids=" ".join,
)
def test_what_answers_at_once_imports_nothing_heavy(environment: dict[str, str], arguments: list[str]) -> None:
    code = (
        "import sys, hiera_cli.commands.app\n"
        "sys.argv = ['hiera', *sys.argv[1:]]\n"
        "try: hiera_cli.commands.app.main()\n"
        "finally: print('IMPORTED', *{name.partition('.')[0] for name in sys.modules})"
    )
    environment.pop("HIERA_MODEL")
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    imported = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert imported
    assert imported & (HEAVY - {"rich"}) == set()


USAGE_ERRORS = [
    [],
    ["frobnicate"],
    ["x.jpg"],
    ["help", "frob"],
    ["--frob"],
    ["classify"],
    ["classify", "-", "-"],
    ["classify", "-", "--files-from", "-"],
    ["classify", "x", "--nonsense"],
    ["classify", "x", "--model"],
    ["classify", "x", "-k", "0"],
    ["classify", "x", "-f", "xml"],
    ["classify", "x", "--device", "tpu"],
    ["classify", "x", "--precision", "int8"],
    ["classify", "x", "--engine", "onnx"],
    ["classify", "x", "--min-score", "nan"],
    ["classify", "x", "--url-timeout", "inf"],
    ["classify", "x", "--json", "-f", "csv"],
    ["classify", "x", "--json", "-o", "x.csv"],
    ["classify", "x", "-o", ""],
    ["classify", "x", "-o", "a.xyz"],
    ["classify", "x", "--null", "-f", "csv"],
    ["classify", "x", "--overwrite"],
    ["classify", "x", "--resume"],
    ["classify", "x", "--resume", "-o", "-"],
    ["classify", "x", "--resume", "-o", "x.csv"],
    ["classify", "x", "--resume", "--overwrite", "-o", "x.jsonl"],
    ["classify", "x", "--resume", "-f", "jsonl", "-o", "/dev/null"],
    ["classify", "x", "-m", "tinny"],
    ["download", "demo"],
    ["download", "no-such"],
    ["models", "all"],
    ["labels", ""],
    ["labels", "-m", "no-such"],
    ["info", "--device", "tpu"],
    ["bench", "--seconds", "0"],
    ["bench", "-m", "tinny"],
]


def test_every_usage_error_is_told_before_anything_heavy_is_imported(environment: dict[str, str]) -> None:
    program = (
        "import json, sys, hiera_cli.commands.app\n"
        f"heavy = {HEAVY - {'rich', 'safetensors'} | {'rich.console', 'openvino', 'simplejpeg'}!r}\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['hiera', *line]\n"
        "    try: hiera_cli.commands.app.main()\n"
        "    except SystemExit as ended: print(ended.code, sorted(heavy & sys.modules.keys()), line)\n"
    )
    environment.pop("HIERA_MODEL")
    command = [sys.executable, "-c", program, json.dumps(USAGE_ERRORS)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"2 [] {line}" for line in USAGE_ERRORS], done.stderr


@needs_openvino
def test_the_compiled_engine_needs_no_torch_and_reports_to_nobody(environment: dict[str, str], tmp_path: Path) -> None:
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
        "from hiera_cli.commands.app import main\n"
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
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", ["models", "info"])
def test_what_only_looks_around_imports_no_engine(environment: dict[str, str], command: str) -> None:
    code = (
        "import sys; sys.argv = ['hiera', sys.argv[1]]\n"
        "from hiera_cli.commands.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"needless = {HEAVY - {'safetensors', 'rich'}} & sys.modules.keys()\n"
        "assert not needless, needless"
    )
    done = subprocess.run([sys.executable, "-c", code, command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_imports_no_torch() -> None:
    code = "import sys, hiera_cli; assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_cached_weights_need_no_hub_client(environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['hiera', 'classify', sys.argv[1]]\n"
        "from hiera_cli.commands.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'huggingface_hub', 'httpx2', 'transformers', 'requests'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(CAT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- the schema of records


def test_every_record_is_of_the_schema_that_is_printed(call: Call, tmp_path: Path) -> None:
    schema = json.loads(call("classify", "--schema").out)
    Draft202012Validator.check_schema(schema)
    (tmp_path / "broken.jpg").write_text("no image")
    shutil.copy(CAT, tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    files = [CAT, tmp_path, "gone.jpg"]
    records = [
        *call("classify", *files, "-f", "jsonl").records(),
        *json.loads(call("classify", *files, "--json", "-k", "9999", "--full-decode").out),
        *json.loads(call("classify", CAT, "--json", "--min-score", "1").out),
        *json.loads(call("classify", *files, "--json", "--explain").out),
    ]
    call("classify", *files, "-o", tmp_path / "out.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (len(records), len(kept)) == (13, 4)
    for record in [*records, *kept]:
        Draft202012Validator(schema).validate(record)
        without = ["resume"] * (record not in kept) + ["explanations"] * (not record["settings"]["explain"])
        assert list(record) == [name for name in schema["properties"] if name not in without]
    for name in schema["required"]:
        assert not Draft202012Validator(schema).is_valid({**records[0], name: 7})


# ---- the other commands


def test_version(call: Call) -> None:
    assert call("--version").out == f"hiera {__version__}\n"


def test_every_command_explains_itself(call: Call) -> None:
    listed = re.findall(r"^  (\w+) ", call("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert listed == [
        *("classify", "embed", "find", "index", "evaluate", "teach", "explain", "report", "reconstruct"),
        *("download", "models", "labels", "info", "bench"),
    ]
    for command in listed:
        done = call(command, "--help")
        assert done.status == 0
        assert done.out.startswith(f"Usage: hiera {command}")
        assert ("--json" in done.out) == (command != "report")  # which writes a page alone


def test_labels_are_listed_and_filtered(call: Call) -> None:
    assert call("labels", "tabby").out == "281\tn02123045\ttabby, tabby cat\n"
    assert [int(line.split("\t")[0]) for line in call("labels").out.splitlines()] == list(range(1000))
    assert json.loads(call("labels", "crane", "--json").out) == [
        {"index": 134, "wnid": "n02012849", "label": "crane"},
        {"index": 517, "wnid": "n03126707", "label": "crane"},
    ]
    none = call("labels", "no", "such", "thing")
    assert (none.status, none.out, none.err) == (1, "", "hiera: no label matches 'no such thing'\n")
    none = call("labels", "no such thing", "--json")
    assert (none.status, none.out, none.err) == (1, "[]\n", "hiera: no label matches 'no such thing'\n")


def test_labels_with_the_whole_word_come_first(call: Call) -> None:
    cats = [line.split("\t")[2] for line in call("labels", "cat").out.splitlines()]
    assert cats[:5] == ["tabby, tabby cat", "tiger cat", "Persian cat", "Siamese cat, Siamese", "Egyptian cat"]
    assert {"bullfrog, Rana catesbeiana", "catamaran"} < set(cats[5:])


def test_several_words_of_a_label_need_no_quotes(call: Call) -> None:
    assert call("labels", "Tabby", "CAT") == call("labels", "tabby cat")
    assert call("labels", "tabby", "cat").out == "281\tn02123045\ttabby, tabby cat\n"


def test_labels_of_a_checkpoint_of_ones_own(call: Call, tmp_path: Path) -> None:
    from dataclasses import replace

    from checkpoint_maker import SMALL, reference_model, save

    save(reference_model(replace(SMALL, num_classes=2), {0: "ham", 1: "\x1b[2Jspam"}), tmp_path)
    assert call("labels", "-m", tmp_path).out == "0\t-\tham\n1\t-\t\\x1b[2Jspam\n"
    (record,) = call("classify", "-m", tmp_path, CAT, "-f", "jsonl").records()
    assert {each["label"] for each in record["predictions"]} == {"ham", "\x1b[2Jspam"}
    assert {each["wnid"] for each in record["predictions"]} == {None}


def test_models_lists_the_published_ones_and_the_demo(call: Call) -> None:
    rows = [row for row in json.loads(call("models", "--json").out) if row["kind"] == "classifier"]
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


@needs_openvino
def test_info_lists_and_clears_the_compiled_models(call: Call) -> None:
    call("classify", CAT, "--engine", "openvino")
    assert [entry["name"] for entry in json.loads(call("info", "--json").out)["compiled"]] == ["demo-fp32"]
    cleared = call("info", "--json", "--clear-compiled")
    assert json.loads(cleared.out)["compiled"] == []
    assert re.fullmatch(r"hiera: removed 1 compiled model \(\d+ MB\)\n", cleared.err)


def test_json_of_every_command_is_strict_whatever_the_folders_are_called(
    call: Call, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/odd\udcff")
    assert orjson.loads(call("info", "--json").out)["compiled_folder"].startswith("/tmp/odd\N{REPLACEMENT CHARACTER}")


@needs_openvino
def test_bench_measures_what_this_machine_has(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "PHOTOS", 8)
    done = call("bench", "-m", "demo", "--seconds", "0.1", "--json", "-q")
    assert (done.status, done.err) == (0, "")
    measured = json.loads(done.out)
    assert (measured["model"], measured["rounds"]) == ("demo", 2)
    rates = {(rate["engine"], rate["precision"], rate["batch_size"]): rate for rate in measured["rates"]}
    assert {("torch", "fp32", 1), ("torch", "fp32", 8), ("openvino", "fp32", 1), ("openvino", "fp32", 4)} <= set(rates)
    for rate in rates.values():
        for speed in filter(None, (rate["model_only"], rate["end_to_end"])):
            assert 0 < speed["low"] <= speed["median"] <= speed["high"]
    best = max(measured["rates"], key=lambda rate: rate["end_to_end"]["median"] if rate["end_to_end"] else 0)
    assert measured["fastest"][0] == {name: best[name] for name in ("engine", "device", "precision")}


def test_bench_measures_its_lines_in_turn() -> None:
    did: list[int] = []
    said: list[str] = []

    def run(number: int) -> bench.Run:
        return lambda: did.append(number) or number + 1  # type: ignore[func-returns-value]

    bench._in_rounds([run(number) for number in range(4)], 0, said.append)
    rounds = [did[start : start + 4] for start in range(0, len(did), 4)]
    assert [sorted(each) for each in rounds] == [[0, 1, 2, 3]] * (1 + bench.ROUNDS)  # the first one does not count
    assert len({tuple(each) for each in rounds}) > 1
    assert said == [f"round {number} of {bench.ROUNDS}" for number in range(1, bench.ROUNDS + 1)]


@pytest.mark.parametrize(
    ("measured", "fastest", "busy"),
    [
        ({"a": (14, 13.5, 15), "b": (27, 26, 28)}, ["b"], False),
        ({"a": (26.5, 26, 27), "b": (27, 26.5, 28)}, ["b", "a"], False),
        ({"a": (3.6, 3, 27), "b": (26.8, 26, 27)}, ["b", "a"], True),
        ({"a": (14, 13.5, 15), "b": (27, 20, 40)}, ["b"], True),
    ],
)
def test_bench_calls_the_fastest_what_is_so_beyond_the_spread(
    measured: dict[str, tuple[float, float, float]], fastest: list[str], busy: bool
) -> None:
    speeds = {name: bench.Speed(*figures) for name, figures in measured.items()}
    rates = [bench.Rate(name, "cpu", "fp32", 8, speed, speed) for name, speed in speeds.items()]
    found, too_busy = bench._fastest([*rates, bench.Rate("c", "cpu", "fp32", 1, bench.Speed(99, 98, 100), None)])
    assert ([rate.engine for rate in found], too_busy) == (fastest, busy)


@pytest.mark.slow
def test_bench_needs_no_weights_and_leaves_nothing_behind(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "PHOTOS", 8)
    done = call("bench", "-m", "tiny", "--seconds", "0.1")
    assert done.status == 0
    assert "hiera: the weights of tiny are not on this machine: random ones are as fast\n" in done.err
    assert re.search(r"^torch +fp32 +8 +[\d.]+/s ± ?\d+% +[\d.]+/s ± ?\d+%$", done.out, re.MULTILINE)
    assert "tiny (random weights) on cpu, images a second: the median of 1 rounds" in done.out
    assert not (tmp_path / "cache").exists()
