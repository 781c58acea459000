"""completions/ holds what the app makes. `python tests/test_completions.py` writes it anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Bash, Call

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands.options import DEVICES
from hiera_cli.engines.placement import ENGINES, PRECISIONS
from hiera_cli.outputs.names import LABEL_FORMATS

FOLDER = Path(__file__).parent.parent / "completions"
COMMANDS = (
    *("classify", "embed", "find", "index", "evaluate", "teach", "explain", "report", "reconstruct"),
    *("download", "models", "labels", "info", "bench"),
)
HEAVY = {"torch", "numpy", "PIL", "huggingface_hub", "safetensors", "httpx2", "rich"}
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
        ("classify --format ", LABEL_FORMATS),
        ("classify --precision ", PRECISIONS),
        ("classify --engine ", ENGINES),
        ("download b", ("base", "base-plus")),
        ("", COMMANDS),
        ("find goat", ("goat",)),
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


Answer = Callable[[str, str], list[str]]


@pytest.fixture
def answer(call: Call, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """What `hiera` answers to a shell about a line, with two models of others in the Hub's cache."""

    def run(shell: str, line: str) -> list[str]:
        for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", environment["HF_HOME"])
        monkeypatch.setenv("_HIERA_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("_TYPER_COMPLETE_WORD_TO_COMPLETE", line.split(" ")[-1])
        words = re.findall(r"[^ =:]+|[=:]+|(?<= )$", line)  # as bash splits it
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        return call().out.splitlines()

    home = Path(environment["HF_HOME"])
    for name, config in {"acme--birds": '{"model_type": "hiera"}', "acme--bert": '{"model_type": "bert"}'}.items():
        cached = home / "hub" / f"models--{name}"
        snapshot = cached / "snapshots" / "c0ffee"
        snapshot.mkdir(parents=True)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("c0ffee")
        (snapshot / "config.json").write_text(config)
        (snapshot / "model.safetensors").touch()
    return run


@pytest.mark.parametrize(
    ("line", "part", "expected"),
    [  # part: what stands before the part of the last word that bash replaces
        ("hiera classify --model=ba", "--model=", ["--model=base", "--model=base-plus"]),
        ("hiera classify --model=", "--model=", [f"--model={name}" for name in (*MODELS, "acme/birds")]),
        ("hiera classify --device=c", "--device=", ["--device=cpu", "--device=cuda", "--device=cuda:0"]),
        ("hiera classify --device=cuda:", "--device=cuda:", ["--device=cuda:0"]),
        ("hiera classify --device cuda:", "cuda:", ["cuda:0"]),
        ("hiera classify http://x/y --engine=to", "--engine=", ["--engine=torch"]),
        ("hiera classify a=b '' --engine to", "", ["torch"]),
        ("hiera bench --device=m", "--device=", ["--device=mps"]),
        ("hiera labels -m acm", "", ["acme/birds"]),
        ("hiera info --precision=bf", "--precision=", ["--precision=bf16"]),
        ("hiera classify --output=pho", "", []),
        ("hiera labels goldf", "", ["goldfinch", "goldfish"]),
        ("hiera classify --among=goldf", "--among=", ["--among=goldfinch", "--among=goldfish"]),
    ],
)
def test_a_value_is_completed_behind_an_equals_sign_too(
    answer: Answer, line: str, part: str, expected: list[str]
) -> None:
    assert answer("bash", line) == ([each.removeprefix(part) for each in expected] or [""])
    assert answer("fish", line) == (expected or [""])
    assert [each.partition(":::")[0] for each in answer("powershell", line)] == (expected or [""])
    quoted = "\n".join(f'"{each}"'.replace(":", r"\\:") for each in expected)
    assert "\n".join(answer("zsh", line)) == (
        f"_arguments '*: :(({quoted}))'" if expected else "compset -P '--*='; _files"
    )


def test_a_concept_of_several_words_is_quoted_as_the_shell_needs(answer: Answer) -> None:
    names = ["devil's darning needle", "devilfish"]
    line = "hiera classify --among devil"
    assert answer("bash", line) == ["devil\\'s\\ darning\\ needle", "devilfish"]
    assert answer("fish", line) == names
    assert answer("zsh", line) == [
        """_arguments '*: :(("devil'\\''s darning needle\"""",
        """"devilfish"))'""",
    ]
    assert answer("powershell", line) == ["'devil''s darning needle'::: ", "devilfish::: "]
    assert answer("powershell", "hiera classify --among=golden") == ["--among='golden retriever'::: "]


@pytest.mark.parametrize(
    ("word", "completed"),
    [
        (r"golden\ re", r"golden\ retriever"),
        ('"golden re', "golden retriever"),  # bash closes the quotes
        (r"--among=golden\ re", r"golden\ retriever"),
        ("--among='golden re", "golden retriever"),
    ],
)
def test_bash_completes_within_several_words(
    call: Call, monkeypatch: pytest.MonkeyPatch, word: str, completed: str
) -> None:
    words = ["hiera", "classify", *(word.replace("=", "\n=\n").split("\n") if "=" in word else ["--among", word])]
    monkeypatch.setenv("_HIERA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert call().out == f"{completed}\n"


def test_zsh_and_fish_show_whole_summaries(answer: Answer) -> None:
    assert answer("fish", "hiera mo") == [
        "models\tList the models: size, published accuracy, licence, whether they are on this machine."
    ]
    assert answer("zsh", "hiera la") == [
        """_arguments '*: :(("labels":"List the classes of the model\\\\: index, WordNet id, label."))'"""
    ]


def test_bash_completes_a_value_behind_an_equals_sign(bash: Bash) -> None:
    done = bash(
        f'source "{FOLDER / "hiera.bash"}"\n'
        "COMP_WORDS=(hiera classify --model = ba); COMP_CWORD=4\n"
        '_hiera_completion hiera; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert done.stdout.split() == ["base", "base-plus"]


def test_bash_takes_a_concept_of_several_words_as_one_value(bash: Bash) -> None:
    done = bash(
        f'source "{FOLDER / "hiera.bash"}"\n'
        "COMP_WORDS=(hiera labels 'golden\\ re'); COMP_CWORD=2\n"
        '_hiera_completion hiera; printf "%s|" "${COMPREPLY[@]}"'
    )
    assert done.stdout == r"golden\ retriever|"


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish on this machine")
def test_fish_completes_a_value_behind_an_equals_sign(bash: Bash) -> None:
    done = bash(f"fish -N -c 'source {FOLDER / 'hiera.fish'}; complete -C \"hiera classify --model=ba\"'")
    assert done.stdout.split() == ["--model=base", "--model=base-plus"]


@pytest.mark.parametrize("line", ["hiera ", "hiera classify --model=", "hiera labels d"])
def test_completion_imports_nothing_heavy(environment: dict[str, str], line: str) -> None:
    code = (
        "import sys, hiera_cli.commands.app\n"
        "try: hiera_cli.commands.app.main()\n"
        "finally: print('IMPORTED', *{name.partition('.')[0] for name in sys.modules})"
    )
    environment |= {"_HIERA_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    completions, _, imported = done.stdout.rpartition("IMPORTED")
    assert completions.startswith("_arguments")
    assert {*imported.split()} & HEAVY == set()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_can_read_their_script(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    assert subprocess.run([shell, "-n", FOLDER / FILES[shell]]).returncode == 0


if __name__ == "__main__":
    for shell, name in FILES.items():
        (FOLDER / name).write_text(made_by_the_app(shell))
