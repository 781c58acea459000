"""Results → text. Whole outputs, for they are short."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hiera_cli.errors import OutputError
from hiera_cli.output import FORMATS, OutputFile, OutputStream, is_stream, table
from hiera_cli.predictions import Failure, Prediction, Result
from hiera_cli.printable import printable
from hiera_cli.streams import ReaderGone

CAT = Result(
    "cat.jpg",
    "org/m",
    (Prediction(1, 281, "n02123045", "tabby, tabby cat", 0.87312345), Prediction(2, 7, None, "dog", 0.1)),
)
BROKEN = Result("broken.jpg", error=Failure("DecodeError", "damaged, or so"))
NOTHING = Result("plain.png", "org/m")


def written(name: str, *results: Result) -> str:
    return "".join(FORMATS[name](results))


def test_json_is_an_array_with_a_record_a_line() -> None:
    assert written("json", CAT, BROKEN) == (
        '[\n{"path": "cat.jpg", "status": "ok", "model": "org/m", "predictions": ['
        '{"rank": 1, "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat", "score": 0.873123}, '
        '{"rank": 2, "index": 7, "wnid": null, "label": "dog", "score": 0.1}]},\n'
        '{"path": "broken.jpg", "status": "error", "error": {"type": "DecodeError", "message": "damaged, or so"}}\n]\n'
    )


def test_jsonl_is_the_same_records_without_the_array() -> None:
    assert [json.loads(line) for line in written("jsonl", CAT, BROKEN).splitlines()] == json.loads(
        written("json", CAT, BROKEN)
    )


def test_plain_has_path_score_and_label_between_tabs() -> None:
    assert written("plain", CAT, BROKEN, NOTHING) == "cat.jpg\t0.8731\ttabby, tabby cat\ncat.jpg\t0.1000\tdog\n"


def test_csv_has_a_row_a_prediction_and_a_row_an_error() -> None:
    assert written("csv", CAT, BROKEN, NOTHING) == (
        "path,status,model,rank,index,wnid,label,score,error,message\n"
        'cat.jpg,ok,org/m,1,281,n02123045,"tabby, tabby cat",0.873123,,\n'
        "cat.jpg,ok,org/m,2,7,,dog,0.100000,,\n"
        'broken.jpg,error,,,,,,,DecodeError,"damaged, or so"\n'
        "plain.png,ok,org/m,,,,,,,\n"
    )


def test_tsv_is_the_same_with_tabs() -> None:
    rows = [
        list(csv.reader(io.StringIO(written(name, CAT, BROKEN)), delimiter=d))
        for name, d in (("csv", ","), ("tsv", "\t"))
    ]
    assert rows[0] == rows[1]


def test_table_shows_the_name_and_a_bar_for_each_score() -> None:
    assert "".join(table([CAT, BROKEN, NOTHING])) == (
        "cat.jpg\n"
        "   87.3%  █████████████████████     tabby, tabby cat\n"
        "   10.0%  ██▍                       dog\n"
        "\n"
        "plain.png\n"
        "  no label reaches --min-score\n"
    )
    assert "".join(table([CAT], unicode=False)).isascii()


@pytest.mark.parametrize(("name", "empty"), [("json", "[]\n"), ("jsonl", ""), ("plain", ""), ("table", "")])
def test_no_results_are_still_a_document(name: str, empty: str) -> None:
    assert written(name) == empty


@pytest.mark.parametrize("name", FORMATS)
def test_each_result_is_written_before_the_next_is_asked_for(name: str) -> None:
    asked = []

    def results() -> object:
        for number in range(3):
            asked.append(number)
            yield Result(f"{number}.jpg", "m", CAT.predictions)

    text = FORMATS[name](results())  # type: ignore[arg-type]
    seen = ""
    while "0.jpg" not in seen:
        seen += next(text)
    assert asked == [0]


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("path", ["a\rb.jpg", "\r", "\r\n.jpg", 'a"\r\tb', ",\t"])
def test_a_row_is_a_row_whatever_line_ends_a_name_holds(format: str, path: str) -> None:
    rows = written(format, Result(path, "m", CAT.predictions), CAT)
    read = csv.DictReader(io.StringIO(rows, newline=""), dialect="excel" if format == "csv" else "excel-tab")
    assert [(row["path"], row["label"]) for row in read] == [
        (path, "tabby, tabby cat"),
        (path, "dog"),
        ("cat.jpg", "tabby, tabby cat"),
        ("cat.jpg", "dog"),
    ]


@pytest.mark.parametrize(
    "path", ["a b.jpg", "[x].jpg", "line\nbreak.jpg", "tab\t.jpg", "😀.jpg", os.fsdecode(b"caf\xe9.jpg"), '"q".jpg']
)
def test_any_name_survives_json_and_csv(path: str) -> None:
    result = Result(path, "m", CAT.predictions)
    assert os.fsencode(json.loads(written("jsonl", result))["path"]) == os.fsencode(path)
    assert written("jsonl", result).count("\n") == 1
    assert next(iter(csv.DictReader(io.StringIO(written("csv", result), newline=""))))["path"] == path


def test_lines_and_terminals_get_control_characters_as_escapes() -> None:
    assert printable("a\x1b[31m\n\x9b\u202eb é 😀‍🔥 \udce9") == "a\\x1b[31m\\n\\x9b\\u202eb é 😀‍🔥 \\udce9"
    assert printable("\udce9\n", keep_bytes=True, keep="\n") == "\udce9\n"
    hostile = Result("x\x1b]0;owned\x07\n.jpg", "m", (Prediction(1, 0, None, "\x1b[2Jcat", 1.0),))
    for name in ("plain", "table", "json", "jsonl"):
        assert "\x1b" not in written(name, hostile)
        assert "\x07" not in written(name, hostile)


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    file = OutputFile(str(path))
    file.write("half ")
    assert not path.exists()
    file.write("\udce9")
    file.close(complete=True)
    assert path.read_bytes() == b"half \xe9"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_an_incomplete_file_stays_beside_its_name(tmp_path: Path) -> None:
    file = OutputFile(str(tmp_path / "out.csv"))
    file.write("half")
    file.close(complete=False)
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv.part"]
    with pytest.raises(OutputError, match="did not finish"):
        OutputFile(str(tmp_path / "out.csv"))


def test_an_empty_incomplete_file_is_removed(tmp_path: Path) -> None:
    OutputFile(str(tmp_path / "out.csv")).close(complete=False)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("precious")
    with pytest.raises(OutputError, match=r"out\.csv exists already"):
        OutputFile(str(path))
    file = OutputFile(str(path), overwrite=True)
    file.write("new")
    assert path.read_text() == "precious"
    file.close(complete=True)
    assert path.read_text() == "new"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    file = OutputFile(str(link), overwrite=True)
    file.write("new")
    file.close(complete=True)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_messages_name_the_unfinished_file_that_is_there_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "disk" / "target.csv")
    file = OutputFile(str(tmp_path / "link.csv"))
    file.write("half")
    file.close(complete=False)
    assert file.part == f"{tmp_path}/disk/target.csv.part"
    assert Path(file.part).read_text() == "half"


def test_a_device_is_written_as_it_stands() -> None:
    assert is_stream("/dev/null")
    file = OutputStream("/dev/null")
    file.write("text")
    file.close(complete=True)
    assert not Path("/dev/null.part").exists()


def test_a_named_pipe_is_written_once_it_has_a_reader_and_until_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    os.mkfifo(path)
    assert is_stream(str(path))
    with ThreadPoolExecutor() as other:
        opened = other.submit(OutputStream, str(path))
        with open(path, "rb", buffering=0) as reader:
            file = opened.result(timeout=10)
            file.write("first\n")
            assert reader.read(100) == b"first\n"
        with pytest.raises(ReaderGone):
            file.write("second\n")
    file.close(complete=False)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl"]


def test_what_was_there_is_untouched_until_the_first_write(tmp_path: Path) -> None:
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    part.write_text("an earlier run's")
    OutputFile(str(path), overwrite=True).close(complete=False)
    assert part.read_text() == "an earlier run's"
    file = OutputFile(str(path), overwrite=True)
    file.write("new")
    assert part.read_text() == "new"
    file.close(complete=True)
    assert path.read_text() == "new"
    OutputFile(str(path), append=True).close(complete=True)
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("how", [{}, {"append": True}, {"overwrite": True}])
def test_no_other_run_gets_in_before_the_last_rename_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    path = str(tmp_path / "out.jsonl")
    first = OutputFile(path)
    first.write("first\n")
    rename = os.replace
    refused = []

    def slow_rename(source: str, target: str) -> None:
        try:
            OutputFile(path, **how)
        except OutputError as error:
            refused.append(error.message)
        rename(source, target)
        try:
            OutputFile(path, **how).close(complete=False)
        except OutputError as error:
            refused.append(error.message)

    monkeypatch.setattr(os, "replace", slow_rename)
    first.rewrite([b"first\n"])
    first.close(complete=True)
    monkeypatch.undo()
    busy = f"another run is writing {path} right now"
    after = {(): f"{path} exists already", ("append",): busy, ("overwrite",): None}[tuple(how)]
    assert refused == [busy] * 3 + [after] * (after is not None)
    assert Path(path).read_text() == "first\n"
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_lock_on_a_file_that_another_run_has_finished_with_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "out.jsonl")
    first = OutputFile(path)
    first.write("first\n")
    lock = fcntl.flock

    def finishes_before_the_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.close(complete=True)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finishes_before_the_lock)
    second = OutputFile(path, append=True)
    second.size = 6
    second.write("second\n")
    second.close(complete=True)
    assert Path(path).read_text() == "first\nsecond\n"
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_file_that_comes_into_being_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    file = OutputFile(str(tmp_path / "out.csv"))
    file.write("mine")
    (tmp_path / "out.csv").write_text("theirs")
    with pytest.raises(OutputError, match=r"out\.csv has come into being meanwhile"):
        file.close(complete=True)
    assert (tmp_path / "out.csv").read_text() == "theirs"
    assert (tmp_path / "out.csv.part").read_text() == "mine"


def test_a_name_as_long_as_names_can_be_is_rewritten_too(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    file = OutputFile(str(path))
    file.write("b\na\n")
    file.rewrite([b"a\n", b"b\n"])
    file.close(complete=True)
    assert path.read_text() == "a\nb\n"
    with pytest.raises(OutputError, match="File name too long"):
        OutputFile(str(tmp_path / ("x" * 251)))


@pytest.mark.parametrize("path", ["no/such/folder/out.csv", "."])
def test_what_cannot_be_written_says_so_at_once(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        OutputFile(path)


def test_a_full_disk_tears_no_record(tmp_path: Path) -> None:
    file = OutputFile(str(tmp_path / "out.jsonl"))
    file.write("first\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out\.jsonl: File too large"):
            file.write("second, too long\n")
        file.write("2\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    file.close(complete=False)
    assert (tmp_path / "out.jsonl.part").read_text() == "first\n2\n"
