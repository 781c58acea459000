"""What is said while a run lasts: a bar, or a line a minute, by a clock of the test's own."""

from __future__ import annotations

import pytest
from conftest import in_a_terminal

from hiera_cli.commands.report import ECHO, Report, bar_line
from hiera_cli.outputs.labels import table
from hiera_cli.result import Failure, Result
from hiera_cli.system.terminal import cells, wrapped
from hiera_cli.tasks.classify import Classified, Prediction


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_a_minute_also_while_one_input_is_stuck(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = Report(quiet=2, progress=True, clock=clock)
    report.total = 1000
    report.add(Result("a.jpg"))
    clock.now += 59
    report.show_progress()
    assert capfd.readouterr().err == ""
    clock.now += 1
    for number in range(118):
        report.add(Result(f"{number}.jpg"))
    report.add(Result("x.jpg", error=Failure("DecodeError", "broken")))
    report.add(Result("y.jpg", error=Failure("DecodeError", "broken")))
    report.show_progress()
    report.show_progress()
    assert capfd.readouterr().err == "hiera: 121 of 1,000, 2 failed, 2.0/s, 7 min 20 s left\n"
    clock.now += 60
    report.show_progress()
    assert capfd.readouterr().err == "hiera: 121 of 1,000, 2 failed, 1.0/s, nothing new for 1 min 0 s\n"


def test_the_summary_names_rate_and_output() -> None:
    clock = Clock()
    report = Report(clock=clock)
    for number in range(1204):
        report.add(Result(f"{number}.jpg"))
    clock.now += 41
    assert report.summary("labels.jsonl") in (
        "1,204 labelled, 41 s, 29.4/s → labels.jsonl",
        "1,204 labelled, 41 s, 29.4/s -> labels.jsonl",
    )


def test_a_bar_shrinks_and_gives_way_to_the_words() -> None:
    parts = ["1,204 of 10,000", "3 failed", "14.2/s", "10 min 19 s left"]
    text = ", ".join(parts)
    assert bar_line(parts, 0.5, 100, unicode=False) == f"[{'#' * 15}{' ' * 15}] {text}"
    assert bar_line(parts, 0.5, len(text) + 9, unicode=False) == f"[###   ] {text}"
    assert bar_line(parts, 0.5, 50, unicode=False) == "1,204 of 10,000, 3 failed, 10 min 19 s left"[:50]
    assert bar_line(parts, 0.5, 37, unicode=False) == "1,204 of 10,000, 10 min 19 s left"
    assert bar_line(parts, 0.5, 8, unicode=False) == "1,204 of"


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_bar_leaves_room_for_the_echo_of_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setattr("hiera_cli.system.terminal.columns", lambda descriptor: columns)
    report = Report(progress=True, clock=Clock())
    report.total = 123_456_789
    report._draw()
    line = capfd.readouterr().err.removeprefix("\r\x1b[K")
    assert 20 < cells(line) <= columns - ECHO


def test_wide_and_combining_characters_count_as_the_cells_they_take() -> None:
    assert [cells(text) for text in ("abc", "猫", "é", "e\u0301", "한국")] == [3, 2, 1, 1, 4]
    assert list(wrapped("a long labél of 猫猫猫猫猫猫 and more", 10)) == [
        "a long",
        "labél of",
        "猫猫猫猫猫",
        "猫 and",
        "more",
    ]


def test_a_message_on_a_terminal_breaks_at_spaces_and_no_command_within() -> None:
    message = "hiera: a message of some words; `hiera classify --files-from -` is a command, /and/a/path/that/is/long"
    assert list(wrapped(message, 30, whole_words=True)) == [
        "hiera: a message of some",
        "words;",
        "`hiera classify --files-from -`",
        "is a command,",
        "/and/a/path/that/is/long",
    ]


def test_messages_on_a_narrow_terminal_break_at_spaces(environment: dict[str, str]) -> None:
    status, shown = in_a_terminal(environment, "classify", "x.jpg", "-m", "tinny", size="60x30")
    assert (status, shown) == (
        2,
        "hiera: error: no model, folder or file is called 'tinny'\n"
        "  Did you mean tiny?\n"
        "  Name one of tiny, small, base, base-plus, large, huge,\n"
        "    demo, a Hub repository (ORG/NAME), a folder or a weights\n"
        "    file.\n",
    )


def test_a_long_label_wraps_under_itself_in_a_narrow_terminal_and_the_path_stays_whole() -> None:
    result = Classified("p" * 50, "m", predictions=(Prediction(1, 0, None, "a label of many words that goes on", 0.5),))
    assert "".join(table([result], unicode=False, columns=40)) == (
        f"{'p' * 50}\n   50.0%  ##    a label of many words\n{' ' * 16}that goes on\n"
    )


def test_models_and_info_fit_a_terminal_of_sixty_columns(environment: dict[str, str]) -> None:
    for command in ("models", "info"):
        status, shown = in_a_terminal({**environment, "HF_HOME": "/h", "XDG_CACHE_HOME": "/c"}, command, size="60x30")
        assert status == 0
        assert max(map(cells, shown.splitlines())) <= 60
        assert {"models": "    facebook/hiera-tiny-224-in1k-hf\n", "info": "/h/hub\n"}[command] in shown
