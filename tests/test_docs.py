"""The README is true: its commands give the output that stands below them, and it leaves no command or option out."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT, TOOK, Bash, Call

from tools.make_demo import TRUE_LABELS

README = (ROOT / "README.md").read_text()


def console_commands() -> list[tuple[str, str]]:
    """Each command of the console blocks with the output below it."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    pairs = [re.split(r"^\$ (.+)\n", block, flags=re.MULTILINE)[1:] for block in blocks]
    return [(command, output) for block in pairs for command, output in zip(block[::2], block[1::2], strict=True)]


OF_OTHERS = {"--torch-backend", "--generate", "--head", "--port", "--address", "--num-cpus"}  # of uv, and of ray
RUNNABLE = [
    (command, output)
    for command, output in console_commands()
    if command.startswith(("hiera", "find", "(echo", "mkdir")) and ("-m demo" in command or " classify" not in command)
]


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


def numbers_aside(text: str) -> str:
    """Scores differ in their last digits from processor to processor, as do precision, number of threads and time."""
    text = re.sub(r"(OpenVINO, )?\d+ threads?\), (fp32|bf16)", "N threads), precision", text)
    text = re.sub(r'"precision": "(fp32|bf16)"|(?<=,demo,)(fp32|bf16)', "precision", text)
    text = re.sub(r"\d+\.\d%  [█▉▊▋▌▍▎▏]* *", "#%  ", text)
    text = re.sub(rf"{TOOK}( →|$)", r"# s\1", text, flags=re.MULTILINE)
    text = re.sub(r"(images a second +|mean score )\d+\.\d", r"\1#", text)
    return re.sub(r"0\.\d{3,6}", "0.#", text)


@pytest.fixture
def sample_images() -> None:
    """The folder as it is checked out, without what may lie in it beside."""
    Path("sample_images").mkdir()
    for name in (*TRUE_LABELS, "README.md"):
        shutil.copy(ROOT / "sample_images" / name, "sample_images")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        pytest.param(command, output, id=command, marks=[pytest.mark.slow, needs_ray] if "--ray" in command else [])
        for command, output in RUNNABLE
    ],
)
def test_a_command_of_the_readme_prints_what_stands_there(
    command: str, output: str, environment: dict[str, str], bash: Bash, sample_images: None
) -> None:
    if "| jq" in command and not shutil.which("jq"):
        pytest.skip("no jq on this machine")
    environment.update(HIERA_DEVICE="cpu", HIERA_ENGINE="auto")
    done = bash(f"{{ {command}; }} 2>&1")
    assert numbers_aside(done.stdout) == numbers_aside(output)


def test_most_commands_of_the_readme_are_run() -> None:
    assert len(RUNNABLE) >= 8


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str], sample_images: None) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.splitlines()[0] == "sample_images/cat.jpg tabby, tabby cat"


def test_every_command_is_in_the_readme(call: Call) -> None:
    for command in re.findall(r"^  (\w+) ", call("--help").out.partition("Commands:")[2], re.MULTILINE):
        assert f"| `hiera {command}" in README


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [command for command, _ in console_commands() if "pytest" in command]
    assert command == 'pip install -e ".[test]" && pytest'
    assert f"\n{command} " in (ROOT / ".ci" / "run").read_text()


def test_the_promises_name_tests_that_exist() -> None:
    table = README.partition("| promise | held by the test |")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) >= 15
    assert all(named), "each promise is held by a test"
    there = {
        name
        for file in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert not {name for row in named for name in row} - there


def test_the_readme_names_no_option_that_is_not_there(call: Call) -> None:
    helps = [
        call(*command, "--help").out
        for command in (
            [],
            ["classify"],
            ["embed"],
            ["find"],
            ["index"],
            ["evaluate"],
            ["teach"],
            ["explain"],
            ["report"],
            ["reconstruct"],
            ["download"],
            ["labels"],
            ["models"],
            ["info"],
            ["bench"],
        )
    ]
    ours = set(re.findall(r"--[a-z][a-z0-9-]*", "".join(helps)))
    assert set(re.findall(r"--[a-z][a-z0-9-]*", README)) - ours == OF_OTHERS
