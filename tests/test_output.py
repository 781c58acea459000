"""Results → text. Whole outputs, for they are short."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from hiera_cli.errors import OutputError
from hiera_cli.outputs import names
from hiera_cli.outputs.destination import OutputFile, OutputStream, is_stream
from hiera_cli.outputs.formats import Writer
from hiera_cli.outputs.labels import RECORDS, plain, table
from hiera_cli.result import Failure
from hiera_cli.system.printable import printable
from hiera_cli.system.streams import ReaderGone
from hiera_cli.system.utf8 import from_fields
from hiera_cli.tasks.classify import Classified, Prediction

FORMATS = tuple(name for name in names.FORMATS if name != "parquet")  # of text
SETTINGS = {"top_k": 2, "min_score": 0.05, "full_decode": False}
CAT = Classified(
    "cat.jpg",
    "org/m",
    predictions=(Prediction(1, 281, "n02123045", "tabby, tabby cat", 0.87312345), Prediction(2, 7, None, "dog", 0.1)),
    precision="bf16",
    remarks=("its EXIF data are damaged", "so is its profile"),
    settings=SETTINGS,
)
BROKEN = Classified("broken.jpg", "org/m", error=Failure("DecodeError", "damaged, or so"), settings=SETTINGS)
TEXTS = [name for name in FORMATS if name != "html"]
NOTHING = Classified("plain.png", "org/m", precision="bf16", settings=SETTINGS)


def writing(name: str, results: Iterable[Classified]) -> Iterator[str]:
    writers: dict[str, Writer] = {"plain": plain, "table": table, **RECORDS}
    return writers[name](results)


def written(name: str, *results: Classified) -> str:
    return "".join(writing(name, results))


def test_json_is_an_array_with_a_record_a_line_of_the_same_keys_in_the_same_order() -> None:
    settings = '"settings": {"top_k": 2, "min_score": 0.05, "full_decode": false}'
    assert written("json", CAT, BROKEN) == (
        '[\n{"path": "cat.jpg", "path_bytes": null, "status": "ok", "model": "org/m", "precision": "bf16", '
        '"predictions": ['
        '{"rank": 1, "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat", "score": 0.873123}, '
        '{"rank": 2, "index": 7, "wnid": null, "label": "dog", "score": 0.1}], '
        f'"error": null, "remarks": ["its EXIF data are damaged", "so is its profile"], {settings}}},\n'
        '{"path": "broken.jpg", "path_bytes": null, "status": "error", "model": "org/m", "precision": null, '
        '"predictions": [], "error": {"type": "DecodeError", "message": "damaged, or so"}, '
        f'"remarks": [], {settings}}}\n]\n'
    )


def test_jsonl_is_the_same_records_without_the_array() -> None:
    assert [json.loads(line) for line in written("jsonl", CAT, BROKEN).splitlines()] == json.loads(
        written("json", CAT, BROKEN)
    )


def test_plain_has_path_score_and_label_between_tabs_and_a_line_for_an_image_without_a_label() -> None:
    assert written("plain", CAT, BROKEN, NOTHING) == (
        "cat.jpg\t0.8731\ttabby, tabby cat\ncat.jpg\t0.1000\tdog\nplain.png\t\t\n"
    )


def test_csv_has_a_row_a_prediction_and_a_row_an_error() -> None:
    assert written("csv", CAT, BROKEN, NOTHING) == (
        "path,path_bytes,status,model,precision,rank,index,wnid,label,score,error,message,remarks\n"
        'cat.jpg,,ok,org/m,bf16,1,281,n02123045,"tabby, tabby cat",0.873123,,,'
        "its EXIF data are damaged; so is its profile\n"
        "cat.jpg,,ok,org/m,bf16,2,7,,dog,0.100000,,,its EXIF data are damaged; so is its profile\n"
        'broken.jpg,,error,org/m,,,,,,,DecodeError,"damaged, or so",\n'
        "plain.png,,ok,org/m,bf16,,,,,,,,\n"
    )


def test_tsv_is_the_same_with_tabs_and_without_quotes() -> None:
    rows = list(csv.reader(io.StringIO(written("csv", CAT, BROKEN, NOTHING))))
    assert written("tsv", CAT, BROKEN, NOTHING) == "".join("\t".join(row) + "\n" for row in rows)


ODD = [
    "a b.jpg", "[x].jpg", "line\nbreak.jpg", "tab\t.jpg", "tab\\t.jpg", "a\rb.jpg", "\r\n.jpg", 'a"\r\tb', ",\t",
    '"q".jpg', "\\", "\\\\", "\x1b[2J", "\x7f", "\x9b", "\\x9b", "\u202e.jpg", "\U000e0001", "caf\xe9", "😀‍🔥.jpg", "�",
    os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xe2\x82"), os.fsdecode(b"\x9b"), os.fsdecode(b"\xed\xa0\x80"),
]  # fmt: skip


def results_of(names: Iterable[str]) -> list[Classified]:
    return [Classified(name, "m", predictions=CAT.predictions[:1]) for name in names]


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_is_valid_utf_8_whatever_the_names_and_texts(name: str) -> None:
    odd = "\ud800 \udcff \ud83d\ude00"
    results = [
        *results_of([*ODD, odd]),
        Classified("x", odd, predictions=(Prediction(1, 0, None, odd, 1.0),), precision="fp32", remarks=(odd,)),
        Classified(odd, error=Failure("ReadError", odd)),
    ]
    text = written(name, *results)
    assert "\x1b" not in text or name in ("csv", "tsv")
    text.encode()
    for document in {"json": [text], "jsonl": text.splitlines()}.get(name, []):
        orjson.loads(document)  # which takes no half of a pair, also not as an escape


@pytest.mark.parametrize("name", ["json", "jsonl"])
def test_json_is_strict_and_gives_each_name_back_byte_for_byte(name: str) -> None:
    text = written(name, *results_of(ODD))
    lines = orjson.loads(text) if name == "json" else [orjson.loads(line) for line in text.encode().splitlines()]
    assert [from_fields(line["path"], line["path_bytes"]) for line in lines] == list(map(os.fsencode, ODD))
    assert [line["path_bytes"] is None for line in lines] == [not holds_bytes(each) for each in ODD]
    assert [line["path"] for line in lines] == [os.fsencode(each).decode("utf-8", "replace") for each in ODD]


def holds_bytes(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def test_csv_gives_each_name_back_byte_for_byte() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", *results_of(ODD)), newline="")))
    assert [from_fields(row["path"], row["path_bytes"] or None) for row in rows] == list(map(os.fsencode, ODD))
    assert [row["label"] for row in rows] == ["tabby, tabby cat"] * len(ODD)


def test_tsv_gives_each_name_back_byte_for_byte_from_fields_that_cut_can_take() -> None:
    header, *rows = [line.split("\t") for line in written("tsv", *results_of(ODD)).removesuffix("\n").split("\n")]
    assert {len(row) for row in rows} == {len(header)}
    escapes = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    names = [re.sub(r"\\.", lambda found: escapes[found[0]], row[0]) for row in rows]
    assert [from_fields(name, row[1] or None) for name, row in zip(names, rows, strict=True)] == [
        os.fsencode(name) for name in ODD
    ]


def test_plain_names_are_what_printf_of_bash_makes_the_name_of_again() -> None:
    lines = written("plain", *results_of(ODD)).removesuffix("\n").split("\n")
    names = [line.split("\t")[0] for line in lines]
    assert all(name.isprintable() or "\u200d" in name for name in names)
    script = 'for name; do printf "%b\\0" "$name"; done'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *names], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.split(b"\0")[:-1] == list(map(os.fsencode, ODD))


def test_plain_with_nul_at_the_end_of_its_lines_has_names_as_they_are() -> None:
    text = "".join(plain([*results_of(ODD), BROKEN, NOTHING], null=True)).encode("utf-8", "surrogateescape")
    *records, rest = text.split(b"\0")
    assert rest == b""
    assert [record.rsplit(b"\t", 2) for record in records] == [
        *([os.fsencode(name), b"0.8731", b"tabby, tabby cat"] for name in ODD),
        [b"plain.png", b"", b""],
    ]


def test_table_shows_the_name_and_a_bar_for_each_score() -> None:
    assert "".join(table([CAT, BROKEN, NOTHING])) == (
        "cat.jpg\n"
        "   87.3%  █████████████████████     tabby, tabby cat\n"
        "   10.0%  ██▍                       dog\n"
        "\n"
        "plain.png\n"
        "  no label reaches the least score\n"
    )
    assert "".join(table([CAT], unicode=False)).isascii()


@pytest.mark.parametrize(("name", "empty"), [("json", "[]\n"), ("jsonl", ""), ("plain", ""), ("table", "")])
def test_no_results_are_still_a_document(name: str, empty: str) -> None:
    assert written(name) == empty


@pytest.mark.parametrize("name", TEXTS)
def test_each_result_is_written_before_the_next_is_asked_for(name: str) -> None:
    asked = []

    def results() -> Iterator[Classified]:
        for number in range(3):
            asked.append(number)
            yield Classified(f"{number}.jpg", "m", predictions=CAT.predictions)

    text = writing(name, results())
    seen = ""
    while "0.jpg" not in seen:
        seen += next(text)
    assert asked == [0]


def test_lines_and_terminals_get_control_characters_as_escapes() -> None:
    assert printable("a\x1b[31m\n\x9b\u202eb é 😀‍🔥 \udce9") == "a\\x1b[31m\\n\\x9b\\u202eb é 😀‍🔥 \\xe9"
    assert printable("\udce9\n", keep="\n") == "\\xe9\n"
    hostile = Classified("x\x1b]0;owned\x07\n.jpg", "m", predictions=(Prediction(1, 0, None, "\x1b[2Jcat", 1.0),))
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
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
