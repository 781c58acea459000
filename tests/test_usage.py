"""What is wrong with a command line is told in one style, with what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SAMPLES, Bash, Call

CAT = SAMPLES / "cat.jpg"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{CAT}"], "there is no command '{CAT}'\n  Did you mean `hiera classify {CAT}`?"),
        (["{SAMPLES}", "-k", "1"], "there is no command '{SAMPLES}'\n  Did you mean `hiera classify {SAMPLES} -k 1`?"),
        (["http://x/y"], "there is no command 'http://x/y'\n  Did you mean `hiera classify http://x/y`?"),
        (["gone.jpg"], "there is no command 'gone.jpg'\n  Did you mean `hiera classify gone.jpg`?"),
        (
            ["-m", "demo", "a b.jpg"],
            "there is no option -m\n  Options stand behind a command: did you mean `hiera classify -m demo 'a b.jpg'`?",
        ),
        (["clasify", "x.jpg"], "there is no command 'clasify'\n  Did you mean `hiera classify x.jpg`?"),
        (
            ["frobnicate"],
            "there is no command 'frobnicate'\n  Commands: classify, download, models, labels, info, bench.",
        ),
        (["--frob"], "there is no option --frob\n  hiera --help explains the options."),
        (["classify", "x", "--force"], "there is no option --force\n  Did you mean --overwrite?"),
        (["classify", "x", "--gpu"], "there is no option --gpu\n  Did you mean --device cuda?"),
        (
            ["classify", "x", "--recursive"],
            "there is no option --recursive\n  It needs none: folders are walked as they are.",
        ),
        (["classify", "x", "--mdoel", "tiny"], "there is no option --mdoel\n  Did you mean --model?"),
        (["labels", "--force"], "there is no option --force\n  hiera labels --help explains the options."),
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
            "--precision: 'fp8' is none of auto, fp32, bf16, fp16\n  hiera classify --help explains the options.",
        ),
        (["models", "all"], "hiera models takes no 'all'\n  hiera models --help explains the options."),
        (
            ["help", "frob"],
            "there is no command 'frob'\n  Commands: bench, classify, download, help, info, labels, models.",
        ),
    ],
)
def test_a_usage_error_is_a_sentence_and_what_was_probably_meant(call: Call, arguments: list[str], told: str) -> None:
    names = {"CAT": CAT, "SAMPLES": SAMPLES}
    done = call(*(argument.format(**names) for argument in arguments))
    assert (done.status, done.out) == (2, "")
    assert done.err == f"hiera: error: {told.format(**names)}\n"


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
