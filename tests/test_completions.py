"""completions/ holds what the app makes. `python tests/test_completions.py` writes it anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bash

from hiera_cli.cli import DEVICES, ENGINES, FORMATS, MODELS, PRECISIONS

FOLDER = Path(__file__).parent.parent / "completions"
FILES = {"bash": "hiera.bash", "zsh": "_hiera", "fish": "hiera.fish", "powershell": "hiera.ps1"}


def made_by_the_app(shell: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hiera_cli", "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("shell", FILES)
def test_the_ready_scripts_are_those_that_the_app_makes(shell: str) -> None:
    assert (FOLDER / FILES[shell]).read_text() == made_by_the_app(shell)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("classify --model ", MODELS),
        ("classify --device c", ("cpu", "cuda", "cuda:0")),
        ("classify --device ", DEVICES),
        ("classify --format ", FORMATS),
        ("classify --precision ", PRECISIONS),
        ("classify --engine ", ENGINES),
        ("download b", ("base", "base-plus")),
        ("", ("classify", "download", "models", "labels", "info", "bench")),
        ("classify --top", ("--top-k",)),
    ],
)
def test_bash_completes_commands_options_and_values(words: str, expected: tuple[str, ...], bash: Bash) -> None:
    line = f"hiera {words}"
    script = (
        f'source "{FOLDER / "hiera.bash"}"\n'
        f"COMP_WORDS=({line}); COMP_CWORD={len(line.split(' ')) - 1}\n"
        '_hiera_completion hiera; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = bash(script)
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_can_read_their_script(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    assert subprocess.run([shell, "-n", FOLDER / FILES[shell]]).returncode == 0


if __name__ == "__main__":
    for shell, name in FILES.items():
        (FOLDER / name).write_text(made_by_the_app(shell))
