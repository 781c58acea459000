"""`--resume`: whatever ended the runs before, in the end each input has one record, in order, with its true label."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
from conftest import SAMPLES, TOOK, Bash, Call, Hiera
from PIL import Image
from safetensors.numpy import load_file, save_file
from test_classifier import Brightness, grey, stand_in

from hiera_cli.checkpoints.published import DEMO_FOLDER
from hiera_cli.commands import remedies
from hiera_cli.errors import OutputError
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs.source import Source
from hiera_cli.outputs.journal import Journal
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Records
from hiera_cli.system.utf8 import from_fields
from hiera_cli.tasks.classify import Classified, Classify

RECORDS = Options(model="stand-in").records(Classify(1))


class Counting(Brightness):
    @property
    def images(self) -> int:
        return sum(self.batches)


def run(paths: Iterable[str], output: Path, *, stop_after: int | None = None, **options: bool) -> int:
    """A run in this process. Returns how many images the model saw. stop_after: leave off after so many records."""
    engine = Counting()
    journal = Journal(str(output), RECORDS, **options)
    stream = Stream(journal.remaining(map(Source, paths)), lambda: stand_in(engine), Classify(1), Options(workers=2))
    complete = True
    for number, text in enumerate(journal.jsonl(stream), 1):
        journal.write(text)
        if number == stop_after:
            complete = False
            break
    journal.close(complete=complete)
    return engine.images


def records(output: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    return [
        (os.path.basename(r["path"]), r["predictions"][0]["label"] if r["status"] == "ok" else "error") for r in lines
    ]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    (tmp_path / "photos").mkdir()
    return [grey(tmp_path / "photos", f"{number:02}.png", number % 10) for number in range(20)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


UNBROKEN = [(f"{number:02}.png", f"step {number % 10}") for number in range(20)]


def test_a_first_run_may_say_resume(paths: list[str], output: Path) -> None:
    assert run(paths, output, resume=True) == 20
    assert records(output) == UNBROKEN


def test_done_files_are_not_done_again(paths: list[str], output: Path) -> None:
    run(paths, output, stop_after=13)
    assert not output.exists()
    assert run(paths, output, resume=True) == 7
    assert records(output) == UNBROKEN
    assert sorted(os.listdir(output.parent)) == ["out.jsonl", "photos"]
    assert run(paths, output, resume=True) == 0
    assert records(output) == UNBROKEN


def test_cut_at_any_byte_it_goes_on(paths: list[str], output: Path) -> None:
    run(paths, output)
    whole = output.read_bytes()
    part = Path(f"{output}.part")
    choice = random.Random(0)
    ends = [number for number, byte in enumerate(whole) if byte == 10]
    cuts = {0, 1, len(whole) - 1, len(whole), *ends, *(end + 1 for end in ends), *choice.sample(range(len(whole)), 30)}
    for cut in sorted(cuts):
        output.unlink(missing_ok=True)
        part.write_bytes(whole[:cut])
        assert run(paths, output, resume=True) == 20 - whole[:cut].count(b"\n")
        assert output.read_bytes() == whole


def test_a_chain_of_breaks_ends_in_the_unbroken_records(paths: list[str], output: Path) -> None:
    run(paths, output)
    whole = output.read_bytes()
    output.unlink()
    choice = random.Random(1)
    run(paths, output, stop_after=2)
    for _ in range(8):
        with open(f"{output}.part", "ab") as part:
            part.write(whole[: choice.randrange(60)])
        run(paths, output, resume=True, stop_after=2)
    run(paths, output, resume=True)
    assert output.read_bytes() == whole


def test_failed_files_are_tried_again_in_their_places(paths: list[str], output: Path) -> None:
    good = Path(paths[3]).read_bytes()
    for number in (3, 8):
        Path(paths[number]).write_bytes(b"broken")
    run(paths, output)
    assert records(output)[3] == ("03.png", "error")
    Path(paths[3]).write_bytes(good)
    assert run(paths, output, resume=True) == 1
    assert records(output) == [("08.png", "error") if name == "08.png" else (name, label) for name, label in UNBROKEN]


def test_changed_files_are_done_again(paths: list[str], output: Path) -> None:
    run(paths, output)
    grey(output.parent / "photos", "05.png", 9)
    os.utime(paths[6], ns=(0, 123456789))
    assert run(paths, output, resume=True) == 2
    assert records(output) == [("05.png", "step 9") if name == "05.png" else (name, label) for name, label in UNBROKEN]


def test_files_added_are_done_and_files_gone_are_kept_near_their_neighbours(paths: list[str], output: Path) -> None:
    run(paths, output)
    added = [grey(output.parent / "photos", name, 4) for name in ("00a.png", "99.png")]
    now = sorted([*paths[:5], *paths[7:], *added])
    assert run(now, output, resume=True) == 2
    expected = sorted([*UNBROKEN, ("00a.png", "step 4"), ("99.png", "step 4")])
    assert records(output) == expected


def test_an_input_named_twice_is_done_once_and_not_at_each_run(paths: list[str], output: Path) -> None:
    twice = [paths[0], paths[0], paths[1]]
    assert run(twice, output) == 3
    before = output.read_bytes()
    assert run(twice, output, resume=True) == 0
    assert output.read_bytes() == before
    assert run([*twice, paths[2], paths[0]], output, resume=True) == 1
    assert records(output) == [UNBROKEN[0], UNBROKEN[0], UNBROKEN[1], UNBROKEN[2], UNBROKEN[0]]


def test_records_of_other_weights_of_the_same_name_are_not_mixed_in(paths: list[str], output: Path) -> None:
    def go_on(digest: str, *, stop_after: int) -> None:
        journal = Journal(str(output), RECORDS, resume=True)
        try:
            journal.check("fp32", digest)
            inputs = journal.remaining(map(Source, paths))
            stream = Stream(inputs, lambda: stand_in(Counting()), Classify(1), Options(workers=2))
            for text in islice(journal.jsonl(stream), stop_after):
                journal.write(text)
        finally:
            journal.close(complete=False)

    go_on("a" * 64, stop_after=3)
    go_on("a" * 64, stop_after=3)
    before = Path(f"{output}.part").read_bytes()
    assert before.count(b'"weights": "aaaaaaaaaaaaaaaa"') == 6
    with pytest.raises(OutputError, match="it was made with other weights of stand-in"):
        go_on("b" * 64, stop_after=3)
    assert Path(f"{output}.part").read_bytes() == before


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_records_of_another_model_are_refused_also_where_nothing_is_left_to_do(call: Call, tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out.jsonl"
    shutil.copytree(DEMO_FOLDER, model)
    command = ("classify", SAMPLES / "cat.jpg", "-m", model, "-o", output, "--resume")
    assert call(*command).status == 0
    before = output.read_bytes()
    assert call(*command).status == 0
    done = call(*command, "--precision", "bf16")
    assert (done.status, output.read_bytes()) == (2, before)
    assert "it was made with precision fp32, this run has bf16" in done.err
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * 0.5 for name, tensor in weights.items()}, model / "model.safetensors")
    done = call(*command)
    assert (done.status, output.read_bytes()) == (2, before)
    assert f"it was made with other weights of {model}" in done.err


def test_an_input_named_twice_has_two_records(paths: list[str], output: Path) -> None:
    run([paths[0], paths[0], paths[1]], output, stop_after=2)
    run([paths[0], paths[0], paths[1]], output, resume=True)
    assert records(output) == [UNBROKEN[0], UNBROKEN[0], UNBROKEN[1]]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (Options(model="other").records(Classify(1)), "it was made with model stand-in, this run has other"),
        (Options(model="stand-in").records(Classify(5)), "it was made with top-k 1, this run has 5"),
        (Options(model="stand-in").records(Classify(1, 0.5)), r"it was made with min-score 0\.0, this run has 0\.5"),
        (
            Options(model="stand-in", decoding=Decoding(full=True)).records(Classify(1)),
            "it was made without full-decode, this run is with it",
        ),
        (
            Options(model="stand-in").records(Classify(rollup=0.8)),
            r"it was made without rollup, this run has 0\.8$",
        ),
        (
            Options(model="stand-in").records(Classify(1, among=("n02084071", "n02121620"))),
            "it was made without among, this run has n02084071, n02121620$",
        ),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(
    paths: list[str], output: Path, records: Records, message: str
) -> None:
    run(paths, output)
    before = output.read_bytes()
    with pytest.raises(OutputError, match=message):
        Journal(str(output), records, resume=True)
    assert output.read_bytes() == before
    assert not Path(f"{output}.part").exists()


@pytest.mark.parametrize(
    ("before", "now", "message", "way_on"),
    [
        (
            Classify(1, rollup=0.8),
            Classify(1),
            "it was made with rollup 0.8, this run is without it",
            "Use --rollup 0.8 again, another --output, or --overwrite to begin anew.",
        ),
        (
            Classify(1, rollup=0.8),
            Classify(1, rollup=0.9),
            "it was made with rollup 0.8, this run has 0.9",
            "Use --rollup 0.8 again, another --output, or --overwrite to begin anew.",
        ),
        (
            Classify(1, among=("n02084071", "n02121620")),
            Classify(1),
            "it was made with among n02084071, n02121620, this run is without it",
            "Use --among n02084071 --among n02121620 again, another --output, or --overwrite to begin anew.",
        ),
        (
            Classify(1),
            Classify(1, among=("n02084071",)),
            "it was made without among, this run has n02084071",
            "Leave out --among, use another --output, or --overwrite to begin anew.",
        ),
    ],
)
def test_other_concepts_are_refused(output: Path, before: Classify, now: Classify, message: str, way_on: str) -> None:
    result = Classified("a", "stand-in", precision="fp32", settings=Options(model="stand-in").records(before).settings)
    resume = {"weights": None, "size": 1, "mtime_ns": 1}
    output.write_text(json.dumps({**result.to_dict(), "resume": resume}) + "\n")
    with pytest.raises(OutputError) as caught:
        Journal(str(output), Options(model="stand-in").records(now), resume=True)
    assert caught.value.message == f"cannot go on with {output}: {message}"
    assert remedies.hint(caught.value) == way_on


@pytest.mark.parametrize("done", [0, 13, 21])
def test_records_of_before_there_were_concepts_are_gone_on_with_and_keep_what_they_say(
    paths: list[str], output: Path, done: int
) -> None:
    paths.append(str(output.parent / "gone.png"))
    run(paths, output)
    whole = [json.loads(line) for line in output.read_text().splitlines()]
    whole[0]["remarks"] = ["its EXIF data are damaged"]
    old = [json.loads(json.dumps(record)) for record in whole[:done]]
    for record in old:
        del record["settings"]["rollup"], record["settings"]["among"]
    output.unlink()
    Path(f"{output}.part").write_text("".join(json.dumps(record) + "\n" for record in old))
    assert run(paths, output, resume=True) == 20 - min(done, 20)
    ended = [json.loads(line) for line in output.read_text().splitlines()]
    if not done:
        whole[0]["remarks"] = []
    assert [json.dumps(record) for record in ended] == [json.dumps(record) for record in whole]


def as_earlier_versions_wrote_it(line: bytes) -> bytes:
    entry = json.loads(line)
    resume = {"top_k": entry["settings"]["top_k"], "min_score": entry["settings"]["min_score"]}
    known = {name: value for name, value in entry["resume"].items() if value is not None}
    if entry["precision"]:
        resume["precision"] = entry["precision"]
    wanted = ("status", "model", "predictions") if entry["status"] == "ok" else ("status", "error")
    path = {"path": os.fsdecode(from_fields(entry["path"], entry["path_bytes"]))}
    old = {**path, **{name: entry[name] for name in wanted}, "resume": {**resume, **known}}
    return json.dumps(old).encode() + b"\n"


@pytest.mark.parametrize("done", [0, 1, 13, 21])
def test_an_output_of_an_earlier_version_is_gone_on_with_and_ends_in_todays_shape(
    paths: list[str], output: Path, done: int
) -> None:
    paths[2] = grey(output.parent, os.fsdecode(b"caf\xe9.png"), 2)
    paths.append(str(output.parent / "gone.png"))
    run(paths, output)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.unlink()
    old = b"".join(map(as_earlier_versions_wrote_it, lines[:done]))
    (output if done == 21 else Path(f"{output}.part")).write_bytes(old)
    assert run(paths, output, resume=True) == max(0, 20 - done)
    assert output.read_bytes() == whole


def test_records_of_an_earlier_version_whose_files_are_gone_get_todays_shape_too(
    paths: list[str], output: Path
) -> None:
    run(paths, output)
    whole = output.read_bytes()
    output.write_bytes(b"".join(map(as_earlier_versions_wrote_it, whole.splitlines(keepends=True))))
    assert run(paths[:3], output, resume=True) == 0
    assert output.read_bytes() == whole


def test_inputs_are_known_by_the_bytes_of_their_names(output: Path) -> None:
    names = [b"a\xfe.png", b"a\xff.png", "a\N{REPLACEMENT CHARACTER}.png".encode(), "é😀.png".encode()]
    paths = [grey(output.parent, os.fsdecode(name), number) for number, name in enumerate(names)]
    run([paths[0], paths[3]], output)
    assert run(paths, output, resume=True) == 2
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [from_fields(line["path"], line["path_bytes"]) for line in lines] == list(map(os.fsencode, paths))
    assert [line["predictions"][0]["label"] for line in lines] == ["step 0", "step 1", "step 2", "step 3"]
    assert run(paths, output, resume=True) == 0


def test_a_record_has_what_resume_goes_by_at_its_end(paths: list[str], output: Path) -> None:
    run(["gone.png", paths[0]], output)
    gone, first = [json.loads(line) for line in output.read_text().splitlines()]
    state = os.stat(paths[0])
    assert list(gone) == list(first)
    assert list(gone)[-1] == "resume"
    assert gone["resume"] == {"weights": None, "size": None, "mtime_ns": None}
    assert first["resume"] == {"weights": None, "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def test_another_precision_is_refused(paths: list[str], output: Path) -> None:
    run(paths, output, stop_after=3)
    journal = Journal(str(output), RECORDS, resume=True)
    with pytest.raises(OutputError, match="it was made with precision fp32, this run has bf16"):
        journal.check("bf16", "0123")
    journal.check("fp32", "0123")
    journal.close(complete=False)


RECORD = (
    '{"path": "a", "status": "error", "error": {"type": "X", "message": "x"}, "resume": {"top_k": 1, "min_score": 0.0}}'
)
LABELLED = json.dumps(
    {
        "path": "a",
        "status": "ok",
        "model": "stand-in",
        "predictions": [{"rank": 1, "index": 2, "wnid": None, "label": "x", "score": 0.5}],
        "resume": {"top_k": 1, "min_score": 0.0},
    }
)
WHOLE = json.dumps(
    {
        **Classified("a", "stand-in", precision="fp32", settings=RECORDS.settings).to_dict(),
        "resume": {"weights": None, "size": 1, "mtime_ns": 1},
    }
)
FOREIGN = [
    "my diary\nday two\n",
    "my diary",
    '{"path": "a"}\n{"path": "b"}\n',
    "[\n{}\n]\n",
    '[{"a":1},{"a":2}]',
    '[{"a":1},{"a":2}]\n',
    RECORD.partition(', "resume"')[0] + "}\n",
    f"\ufeff{RECORD}\n",
    f"{RECORD}\r\n",
    LABELLED.replace('"score": 0.5', '"score": "a"') + "\n",
    LABELLED.replace('"score": 0.5', '"score": NaN') + "\n",
    LABELLED.replace('"rank": 1', '"rank": -5') + "\n",
    LABELLED.replace('"index": 2', '"index": null') + "\n",
    RECORD.replace('"a"', '"a", "path_bytes": 7') + "\n",
    RECORD.replace('"a"', '"a", "path_bytes": "not base64"') + "\n",
    RECORD.replace('"a"', '"\\ud800"') + "\n",
    RECORD.replace('"error", ', '"error", "settings": 1, ') + "\n",
    "\0" * 100_000,
    "\n",
    "[" * 100_000,
    "[" * 100_000 + "\n",
    '{"path": "a", "n": ' + "9" * 5000 + "}\n",
]


@pytest.mark.parametrize("content", FOREIGN, ids=[content[:20] for content in FOREIGN])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.part"])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(output: Path, name: str, content: str) -> None:
    there = output.with_name(name)
    there.write_bytes(content.encode())
    with pytest.raises(OutputError, match="line 1 of it is not a record of hiera"):
        Journal(str(output), RECORDS, resume=True)
    assert there.read_bytes() == content.encode()
    assert os.listdir(output.parent) == [name]


@pytest.mark.parametrize("tail", ["a note of mine\n", '{"path": "b"}\n', "\0\0\n", RECORD[:-1] + "\n"])
def test_whole_lines_behind_records_are_never_cut(output: Path, tail: str) -> None:
    output.write_text(f"{RECORD}\n{tail}")
    with pytest.raises(OutputError, match="line 2 of it is not a record of hiera"):
        Journal(str(output), RECORDS, resume=True)
    assert output.read_text() == f"{RECORD}\n{tail}"


def test_a_torn_line_alone_is_cut_off_in_an_unfinished_file_only(paths: list[str], output: Path) -> None:
    output.write_text(RECORD[:30])
    with pytest.raises(OutputError, match="line 1 of it is not a record of hiera"):
        run(paths, output, resume=True)
    output.rename(f"{output}.part")
    run(paths, output, resume=True)
    assert records(output) == UNBROKEN


def test_a_run_that_cannot_start_leaves_everything_as_it_was(paths: list[str], output: Path) -> None:
    run(paths, output, stop_after=5)
    part = Path(f"{output}.part")
    with part.open("a") as stream:
        stream.write(RECORD[:30])
    before = part.read_bytes()
    for options in ({"resume": True}, {"overwrite": True}):
        Journal(str(output), RECORDS, **options).close(complete=False)
        assert part.read_bytes() == before
    part.rename(output)
    before = output.read_bytes()
    Journal(str(output), RECORDS, resume=True).close(complete=False)
    assert output.read_bytes() == before
    assert not part.exists()


@pytest.mark.parametrize("name", ["out.json", "out.jsonl", "out.csv", "out.tsv", "out.txt"])
def test_a_run_without_weights_leaves_no_file(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    done = call("classify", SAMPLES / "cat.jpg", "-m", "tiny", "--offline", "-o", tmp_path / "out" / name)
    assert (done.status, "offline mode forbids a download" in done.err) == (2, True)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_run_whose_model_cannot_be_had_touches_no_file_though_inputs_failed_before(
    hiera: Hiera, tmp_path: Path, name: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no picture")
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "photos" / "b.jpg")
    part = tmp_path / f"{name}.part"
    part.write_text("of an earlier run\n")
    done = hiera("classify", "photos", "-m", "tiny", "-o", name, "--overwrite")
    assert done.returncode == 2
    assert "cannot download config.json" in done.stderr
    assert part.read_text() == "of an earlier run\n"
    part.unlink()
    assert hiera("classify", "photos", "-m", "tiny", "-o", name).returncode == 2
    assert not part.exists()
    assert hiera("classify", "photos/a.jpg", "-m", "demo", "-o", name).returncode == 1
    assert "a.jpg" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    "content",
    [
        '{"path": "x", "mydata": 3}',
        WHOLE.replace('"model": "stand-in"', '"model": "other"'),
        f"{WHOLE}\r{WHOLE}",
        f"{WHOLE}\u2028{WHOLE}",
        WHOLE.replace('"error": null', '"error": {"type": "ReadError", "message": "x"}'),
        WHOLE.replace('"precision": "fp32"', '"precision": null'),
    ],
    ids=["other JSON", "another model", "carriage returns", "line separators", "an error", "no precision"],
)
def test_what_is_whole_is_not_taken_for_a_torn_line(output: Path, content: str) -> None:
    assert content != WHOLE
    part = Path(f"{output}.part")
    part.write_bytes(content.encode())
    with pytest.raises(OutputError, match="cannot go on with"):
        Journal(str(output), RECORDS, resume=True)
    assert part.read_bytes() == content.encode()


def test_of_a_damaged_file_the_records_before_the_damage_can_be_kept(
    paths: list[str], output: Path, bash: Bash
) -> None:
    run(paths, output, stop_after=15)
    part = Path(f"{output}.part")
    damaged = bytearray(part.read_bytes())
    middle = damaged.index(b"\n", len(damaged) // 2)
    damaged[middle - 300 : middle + 300] = bytes(600)
    part.write_bytes(damaged)
    whole = bytes(damaged[: middle - 300]).count(b"\n")
    with pytest.raises(OutputError, match=f"line {whole + 1} of it is not a record of hiera") as refused:
        run(paths, output, resume=True)
    assert part.read_bytes() == damaged
    command, _, rest = remedies.hint(refused.value).splitlines()[1].partition(", then --resume -o ")
    assert bash(command).returncode == 0
    assert run(paths, Path(rest), resume=True) == 20 - whole
    assert records(Path(rest)) == UNBROKEN


def test_without_resume_an_unfinished_output_is_not_overwritten(paths: list[str], output: Path) -> None:
    run(paths, output, stop_after=3)
    with pytest.raises(OutputError, match="an earlier run did not finish"):
        Journal(str(output), RECORDS)
    assert run(paths, output, overwrite=True) == 20


def test_two_runs_do_not_write_one_file(paths: list[str], output: Path) -> None:
    journal = Journal(str(output), RECORDS)
    with pytest.raises(OutputError, match="another run is writing"):
        Journal(str(output), RECORDS, resume=True)
    journal.close(complete=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.csv", "--resume"], "--resume goes on with a jsonl file only"),
        (["--resume", "-f", "jsonl"], "--resume is about an --output"),
        (["-o", "x.jsonl", "--resume", "--overwrite"], "--resume and --overwrite contradict each other"),
    ],
)
def test_what_cannot_be_resumed_is_refused(call: Call, arguments: list[str], message: str) -> None:
    done = call("classify", SAMPLES, "-m", "demo", *arguments)
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: {message}")


def test_an_interrupt_while_the_records_are_brought_into_order_tells_where_they_are(
    call: Call, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_into_order = Journal._bring_into_order

    def interrupted(journal: Journal) -> None:
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signal.SIGINT, None)  # a real signal would land on the small stack of pytest's faulthandler
        bring_into_order(journal)

    monkeypatch.setattr(Journal, "_bring_into_order", interrupted)
    done = call("classify", SAMPLES, "-m", "demo", "-o", output)
    assert done.status == 130
    assert re.search(rf"hiera: interrupted: 6 labelled, {TOOK}; {output} is complete\n$", done.err)
    assert len(output.read_text().splitlines()) == 6
    assert os.listdir(output.parent) == [output.name]


@pytest.mark.usefixtures("engine")
def test_the_command_goes_on_and_says_so(call: Call, output: Path) -> None:
    command = ("classify", SAMPLES, "-m", "demo", "--device", "cpu", "--precision", "fp32", "-o", output, "--resume")
    assert call(*command).status == 0
    first = output.read_bytes()
    lines = first.splitlines(keepends=True)
    output.unlink()
    Path(f"{output}.part").write_bytes(b"".join(lines[:4]) + lines[4][:50])
    done = call(*command)
    assert done.status == 0
    assert "hiera: 2 labelled, 4 done before, " in done.err
    assert [line["path"] for line in map(json.loads, output.read_text().splitlines())] == [
        line["path"] for line in map(json.loads, first.splitlines())
    ]
    again = call(*command)
    assert again.status == 0
    assert "hiera: 0 labelled, 6 done before, " in again.err
    assert "demo on cpu" not in again.err  # no model was loaded


def make_images(folder: Path, count: int) -> None:
    """Crops of the sample images, which the demo model has an opinion of."""
    folder.mkdir()
    choice = random.Random(0)
    pictures = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.iterdir()) if path.suffix != ".md"]
    for number in range(count):
        picture = choice.choice(pictures)
        left, top = choice.randrange(picture.width // 4), choice.randrange(picture.height // 4)
        view = picture.crop((left, top, left + picture.width * 3 // 4, top + picture.height * 3 // 4))
        view.resize((96, 96)).save(folder / f"{number:04}.jpg")


def labels(output: Path) -> list[tuple[str, list[str]]]:
    return [
        (record["path"], [each["label"] for each in record["predictions"]])
        for record in map(json.loads, output.read_text().splitlines())
    ]


@pytest.mark.slow
def test_a_thousand_images_killed_ten_times_and_a_full_disk_end_as_an_unbroken_run(
    tmp_path: Path, environment: dict[str, str], bash: Bash
) -> None:
    environment["HIERA_ENGINE"] = "auto"  # the one that starts sooner: it is no affair of the engine's
    make_images(tmp_path / "photos", 1000)
    command = [sys.executable, "-m", "hiera_cli", "classify", "photos", "-m", "demo", "-k", "2", "-q", "--resume", "-o"]
    subprocess.run([*command, "unbroken.jsonl"], cwd=tmp_path, env=environment, check=True)
    size = (tmp_path / "unbroken.jsonl").stat().st_size
    choice = random.Random(5)
    part = tmp_path / "broken.jsonl.part"
    for _ in range(10):
        before = part.stat().st_size if part.exists() else 0
        goal = before + choice.randrange(1, size // 11)
        process = subprocess.Popen([*command, "broken.jsonl"], cwd=tmp_path, env=environment)
        while process.poll() is None and not (part.exists() and part.stat().st_size >= goal):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    limit = part.stat().st_size + 10_000
    done = bash(f"ulimit -f {limit // 1024}; exec {shlex.join(command)} broken.jsonl")
    assert done.returncode == 2
    assert "cannot write broken.jsonl: File too large" in done.stderr
    subprocess.run([*command, "broken.jsonl"], cwd=tmp_path, env=environment, check=True)
    assert labels(tmp_path / "broken.jsonl") == labels(tmp_path / "unbroken.jsonl")
