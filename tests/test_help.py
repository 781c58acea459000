"""`--help`: options in groups, examples that are true, nothing cut off."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from conftest import Call

from hiera_cli.commands.app import app
from hiera_cli.commands.help import EXAMPLES, GROUPS, OTHERS, group_of

PROGRAM: Any = typer.main.get_command(app)
COMMANDS = {name: command for name, command in PROGRAM.commands.items() if not command.hidden}


def test_each_option_of_classify_has_its_group() -> None:
    assert [each.opts for each in COMMANDS["classify"].params if group_of(each) == OTHERS] == []


def test_groups_name_options_that_there_are() -> None:
    there = {name for command in COMMANDS.values() for each in command.params for name in each.opts}
    assert {name for names in GROUPS.values() for name in names} - there == set()


def test_options_stand_in_their_groups(call: Call) -> None:
    headings = re.findall(r"^(\w+):$", call("classify", "--help").out, re.MULTILINE)
    assert headings == ["Examples", "Arguments", "Inputs", "Model", "Cluster", "Output", "Limits", "Options"]


def test_a_group_of_one_option_is_none(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call("models", "--help").out == (
        "Usage: hiera models [OPTIONS]\n"
        "\n"
        "  List the models: size, published accuracy, licence, whether they are on this\n"
        "  machine.\n"
        "\n"
        "Examples:\n"
        "  hiera models\n"
        "  hiera models --json | jq -r '.[].repository'\n"
        "\n"
        "Options:\n"
        "  --json      Print JSON.\n"
        "  -h, --help  Show this message and exit.\n"
    )


@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal_and_cuts_off_no_summary(
    call: Call, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    overview = call("--help").out
    for name, command in COMMANDS.items():
        assert f" {name} {command.help}" in " ".join(overview.split())
    for text in (overview, *(call(name, "--help").out for name in COMMANDS)):
        assert [line for line in text.splitlines() if len(line) > columns] == []


def test_an_option_means_the_same_in_every_command_that_has_it() -> None:
    meanings: dict[str, set[tuple[object, ...]]] = {}
    for command in COMMANDS.values():
        for each in command.params:
            described = (tuple(each.opts), each.help, each.metavar, each.default, each.envvar)
            for name in each.opts if each.param_type_name == "option" else ():
                meanings.setdefault(name, set()).add(described)
    # Of formats and engines that a command has; of labels, and of photos; of what is hidden, and of what is shuffled.
    its_own = {"--json", "--seed", "-f", "--format", "-o", "--output", "--engine", "--min-score"}
    assert {name for name, each in meanings.items() if len(each) > 1} == its_own


def test_every_example_is_a_command_line_that_is_taken() -> None:
    assert set(EXAMPLES) == {"hiera", *COMMANDS}
    for name, lines in EXAMPLES.items():
        assert 2 <= len(lines) <= 4
        for line in lines:
            (ours,) = (part for part in line.split(" | ") if part.startswith("hiera "))
            _, command, *arguments = shlex.split(ours)
            assert name in ("hiera", command)
            if arguments != ["--help"]:
                COMMANDS[command].make_context(command, arguments)  # raises what it does not take
