"""What is wrong with a command line is told in one style, with what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SAMPLES, Bash, Call

from hiera_cli.checkpoints.published import model_name
from hiera_cli.checkpoints.resolve import resolve

CAT = SAMPLES / "cat.jpg"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{CAT}"], "there is no command '{CAT}'\n  Did you mean `hiera classify {CAT}`?"),
        (["{SAMPLES}", "-k", "1"], "there is no command '{SAMPLES}'\n  Did you mean `hiera classify {SAMPLES} -k 1`?"),
        (["http://x/y"], "there is no command 'http://x/y'\n  Did you mean `hiera classify http://x/y`?"),
        (
            ["labels", ""],
            "the query is empty\n  Is a variable of the script not set? `hiera labels` lists all classes.",
        ),
        (["gone.jpg"], "there is no command 'gone.jpg'\n  Did you mean `hiera classify gone.jpg`?"),
        (
            ["-m", "demo", "a b.jpg"],
            "there is no option -m\n  Options stand behind a command: did you mean `hiera classify -m demo 'a b.jpg'`?",
        ),
        (["clasify", "x.jpg"], "there is no command 'clasify'\n  Did you mean `hiera classify x.jpg`?"),
        (
            ["frobnicate"],
            "there is no command 'frobnicate'\n  Commands: classify, embed, find, index, evaluate, teach, "
            "explain, report, reconstruct, download, models, labels, info, bench.",
        ),
        (["--frob"], "there is no option --frob\n  hiera --help explains the options."),
        (["classify", "x", "--force"], "there is no option --force\n  Did you mean --overwrite?"),
        (["classify", "x", "--gpu"], "there is no option --gpu\n  Did you mean --device cuda?"),
        (
            ["classify", "x", "--recursive"],
            "there is no option --recursive\n  It needs none: folders are walked as they are.",
        ),
        (["classify", "x", "--mdoel", "tiny"], "there is no option --mdoel\n  Did you mean --model?"),
        (["find", "dog", "--ray", "auto"], "there is no option --ray\n  It is an option of classify and embed."),
        (["labels", "--force"], "there is no option --force\n  It is an option of download."),
        (
            ["classify", "x", "-k", "many"],
            "--top-k takes a whole number, 1 or more, not many\n  hiera classify --help explains the options.",
        ),
        (
            ["classify", "x", "-k", "0"],
            "--top-k takes a whole number, 1 or more, not 0\n  hiera classify --help explains the options.",
        ),
        (
            ["classify", "x", "--min-score", "7"],
            "--min-score takes a number from 0 to 1, not 7.0\n  hiera classify --help explains the options.",
        ),
        (
            ["classify", "x", "--precision", "fp8"],
            "--precision: 'fp8' is not one of auto, fp32, bf16, fp16\n  hiera classify --help explains the options.",
        ),
        (["models", "all"], "hiera models takes no 'all'\n  hiera models --help explains the options."),
        (
            ["help", "frob"],
            "there is no command 'frob'\n  Commands: classify, embed, find, index, evaluate, teach, "
            "explain, report, reconstruct, download, models, labels, info, bench.",
        ),
    ],
)
def test_a_usage_error_is_a_sentence_and_what_was_probably_meant(call: Call, arguments: list[str], told: str) -> None:
    names = {"CAT": CAT, "SAMPLES": SAMPLES}
    done = call(*(argument.format(**names) for argument in arguments))
    assert (done.status, done.out) == (2, "")
    assert done.err == f"hiera: error: {told.format(**names)}\n"


@pytest.mark.parametrize(
    ("arguments", "told", "meant"),
    [
        (["classify", "x", "--device", "gpu"], "--device: 'gpu' is not one of auto, cpu, cuda, cuda:N, mps", "cuda"),
        (
            ["classify", "x", "--device", "GPU:1"],
            "--device: 'GPU:1' is not one of auto, cpu, cuda, cuda:N, mps",
            "cuda:1",
        ),
        (["info", "--device", "cuad"], "--device: 'cuad' is not one of auto, cpu, cuda, cuda:N, mps", "cuda"),
        (["info", "--precision", "float16"], "--precision: 'float16' is not one of auto, fp32, bf16, fp16", "fp16"),
        (["info", "--engine", "PyTorch"], "--engine: 'PyTorch' is not one of auto, torch, openvino", "torch"),
        (
            ["classify", "x", "-f", "jsnl"],
            "--format: 'jsnl' is not one of table, plain, json, jsonl, csv, tsv, parquet, html, exiftool",
            "jsonl",
        ),
        (["download", "--overwrite"], "there is no option --overwrite", "--force"),
        (["download", "-o", "x"], "there is no option -o", "--to"),
        (["models", "--format", "json"], "there is no option --format", "--json"),
        (["bench", "--time", "3"], "there is no option --time", "--seconds"),
        (["bench", "--gpu"], "there is no option --gpu", "--device cuda"),
        (["classify", "x", "-K", "3"], "there is no option -K", "-k"),
        (["CLASSIFY", "x"], "there is no command 'CLASSIFY'", "`hiera classify x`"),
        (["help", "Labels"], "there is no command 'Labels'", "`hiera help labels`"),
    ],
)
def test_what_was_probably_meant_is_offered(call: Call, arguments: list[str], told: str, meant: str) -> None:
    done = call(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"hiera: error: {told}\n  Did you mean {meant}?\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["classify", "x", "--model"], "--model needs a value: MODEL"),
        (["classify", "x", "--json=1"], "--json takes no value"),
        (["classify", "x", "--top-k="], "--top-k takes a whole number, 1 or more, not ''"),
        (["classify", "x", "--min-score", "nan"], "--min-score takes a number from 0 to 1, not nan"),
        (["classify", "x", "--device", "tpu"], "--device: 'tpu' is not one of auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words_with_the_command_that_explains_it(
    call: Call, arguments: list[str], told: str
) -> None:
    assert call(*arguments).err == f"hiera: error: {told}\n  hiera classify --help explains the options.\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tiny", "tiny"),
        ("Tiny", "tiny"),
        ("hiera-tiny", "tiny"),
        ("HIERA-BASE", "base"),
        ("hiera_base_plus", "base-plus"),
        ("base+", "base-plus"),
        ("Hiera-Base+", "base-plus"),
        ("DEMO", "demo"),
        ("tinny", "tinny"),
        ("ORG/Tiny", "ORG/Tiny"),
    ],
)
def test_case_and_prefix_of_a_models_name_do_not_matter(text: str, name: str) -> None:
    assert model_name(text) == name


def test_a_folder_that_is_called_like_a_model_in_capitals_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Tiny").mkdir()
    assert model_name("Tiny") == "Tiny"
    assert model_name("TINY") == "tiny"


def test_every_command_takes_a_models_name_in_any_case(call: Call, environment: dict[str, str]) -> None:
    assert call("labels", "-m", "Hiera-Huge", "crane") == call("labels", "crane")
    assert (
        call("classify", CAT, "-m", "DEMO", "--device", "CPU", "-k1", "-f", "JSONL", "-q").records()[0]["model"]
        == "demo"
    )
    assert resolve("Demo").name == "demo"
    assert call("download", "HIERA-DEMO").err.startswith("hiera: error: the demo model is inside the program")


@pytest.mark.parametrize("command", [["classify", "x"], ["labels"], ["bench"]])
def test_a_near_miss_of_a_models_name_says_which_was_meant(call: Call, command: list[str]) -> None:
    assert call(*command, "-m", "tinny").err == (
        "hiera: error: no model, folder or file is called 'tinny'\n"
        "  Did you mean tiny?\n"
        "  Name one of tiny, small, base, base-plus, large, huge, demo, a Hub repository (ORG/NAME), a folder or a "
        "weights file.\n"
    )
    assert "Did you mean" not in call(*command, "-m", "./tinny").err


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DEVICE", "tpu", "HIERA_DEVICE: 'tpu' is not one of auto, cpu, cuda, cuda:N, mps\n  hiera info --help"),
        ("DEVICE", "cuda:9", "device cuda:9 is not available here; available: cpu\n"),
        ("PRECISION", "fp8", "HIERA_PRECISION: 'fp8' is not one of"),
        ("ENGINE", "ov", "HIERA_ENGINE: 'ov' is not one of"),
    ],
)
def test_an_error_about_the_environment_names_the_variable(
    call: Call, environment: dict[str, str], variable: str, value: str, told: str
) -> None:
    environment[f"HIERA_{variable}"] = value
    done = call("info")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")
    assert f"HIERA_{variable}: " in done.err or f"HIERA_{variable}={value} is set in the environment.\n" in done.err
    option = {"DEVICE": "cpu", "PRECISION": "fp32", "ENGINE": "torch"}[variable]
    assert call("info", f"--{variable.lower()}", option).status == 0


def test_a_model_of_the_environment_that_is_not_there_is_told_with_its_variable(
    call: Call, environment: dict[str, str]
) -> None:
    environment["HIERA_MODEL"] = "nothing/of/that/name"
    line = "  HIERA_MODEL=nothing/of/that/name is set in the environment.\n"
    assert call("labels").err.endswith(line)
    assert line not in call("labels", "-m", "nothing/of/that/name").err


def test_help_is_a_command_too(call: Call) -> None:
    assert call("help") == call("--help")
    assert call("help", "labels") == call("labels", "--help")
    assert call("-V") == call("--version")


def test_the_program_alone_explains_itself(call: Call) -> None:
    done = call()
    assert (done.status, done.out) == (2, "")
    assert done.err == call("--help").out


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_an_output_may_be_stdout_by_name(bash: Bash, tmp_path: Path, name: str) -> None:
    done = bash(
        f"hiera classify missing.jpg -f jsonl -q -o {name} | cat; ls; hiera classify missing.jpg -o {name} -q > f"
    )
    assert json.loads(done.stdout.splitlines()[0])["path"] == "missing.jpg"
    assert done.stdout.splitlines()[1:] == ["bin"]
    assert (tmp_path / "f").read_text() == ""


def test_an_output_may_be_another_program(bash: Bash, tmp_path: Path) -> None:
    bash("hiera classify missing.jpg -f jsonl -o >(cat > there) ; sleep 0.2")
    assert json.loads((tmp_path / "there").read_text())["path"] == "missing.jpg"


def test_json_in_a_file_of_another_suffix_is_asked_for_outright(call: Call, tmp_path: Path) -> None:
    done = call("classify", "missing.jpg", "--json", "-o", tmp_path / "x.csv")
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: --json and the suffix of {tmp_path}/x.csv contradict each other\n")
    assert call("classify", "missing.jpg", "--format", "json", "-o", tmp_path / "x.csv").status == 1
