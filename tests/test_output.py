"""Results → text. Whole outputs, for they are short."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from hiera_cli.errors import OutputError
from hiera_cli.output import FORMATS, OutputFile, table
from hiera_cli.predictions import Failure, Prediction, Result
from hiera_cli.printable import printable

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


def test_a_device_is_written_as_it_stands() -> None:
    file = OutputFile("/dev/null")
    file.write("text")
    file.close(complete=True)
    assert not Path("/dev/null.part").exists()


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
