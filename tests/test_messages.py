"""What an option or a command is called is known in the command layer alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES, Call

from hiera_cli.commands.remedies import INPUT_REMEDIES, REMEDIES

PACKAGE = ROOT / "hiera_cli"
BELOW = (
    *("system", "model", "inputs", "images", "checkpoints", "engines", "tasks", "pipeline", "outputs", "cluster"),
    *("autoencoder.py", "bench.py", "classifier.py", "errors.py", "limits.py", "result.py"),
)
OF_THE_COMMAND_LINE = re.compile(r"(?<![\w-])--[a-z]|\bhiera (classify|download|models|labels|info|bench)\b")


def modules(*places: str) -> list[Path]:
    return [file for place in places for file in sorted((PACKAGE / place).rglob("*.py")) or [PACKAGE / place]]


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a module with their lines, those within f-strings too, without docstrings."""
    tree = ast.parse(file.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


def test_no_message_below_the_command_layer_names_an_option_or_a_command() -> None:
    files = modules(*BELOW)
    assert len(files) > 20
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in files
        for line, text in texts(file)
        if OF_THE_COMMAND_LINE.search(text)
    ]
    assert found == []


def test_an_option_in_a_message_is_found_and_in_a_docstring_is_not(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""--docs"""\ndef f():\n    "--docs"\n    return f"{f} (--offline forbids it)"\nX = "a -- b"\n')
    assert [text for _, text in texts(module) if OF_THE_COMMAND_LINE.search(text)] == [" (--offline forbids it)"]


def test_every_remedy_that_an_error_names_has_its_words() -> None:
    named = {
        each.value
        for file in modules(*BELOW)
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["remedy"])
        or (isinstance(node, ast.keyword) and node.arg == "remedy")
        for each in ast.walk(node.value)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }
    assert {"another output", "resume or replace", "replace", "offline"} <= named
    assert named <= {*REMEDIES, *INPUT_REMEDIES}


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_an_output_that_is_not_taken_up_says_which_options_are_the_ways_on(call: Call, tmp_path: Path) -> None:
    output, cat = tmp_path / "a.jsonl", SAMPLES / "cat.jpg"
    run = ("classify", cat, "-q", "-o", output)
    assert call(*run).status == 0
    before = output.read_bytes()
    for arguments, told in (
        ((), f"{output} exists already\n  --resume goes on with it; --overwrite replaces it."),
        (
            ("--resume", "-k", "3"),
            f"cannot go on with {output}: it was made with top-k 5, this run has 3\n"
            "  Use --top-k 5 again, another --output, or --overwrite to begin anew.",
        ),
        (
            ("--resume", "--full-decode"),
            f"cannot go on with {output}: it was made without full-decode, this run is with it\n"
            "  Leave out --full-decode, use another --output, or --overwrite to begin anew.",
        ),
    ):
        assert call(*run, *arguments).err == f"hiera: error: {told}\n"
    output.write_bytes(before + b"note\n")
    assert call(*run, "--resume").err == (
        f"hiera: error: cannot go on with {output}: line 2 of it is not a record of hiera\n"
        "  To keep the 1 records before it, and go on with them in another file:\n"
        f"    head -n 1 {output} > {tmp_path}/a-kept.jsonl, then --resume -o {tmp_path}/a-kept.jsonl\n"
        "  Name another --output, or --overwrite to begin anew.\n"
    )


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_a_remedy_stands_on_stderr_and_not_in_the_record(call: Call) -> None:
    done = call("classify", "http://127.0.0.1:9/x.jpg", "--offline", "-f", "jsonl")
    message = "URLs are not fetched offline"
    assert done.records()[0]["error"] == {"type": "FetchError", "message": message}
    assert done.err == f"hiera: http://127.0.0.1:9/x.jpg: {message} (leave out --offline)\n"
