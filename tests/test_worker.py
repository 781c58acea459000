"""A worker of a cluster, in this process: blocks from several threads, one pipeline, the Results of one machine."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import tarfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES

from hiera_cli.classifier import load_classifier
from hiera_cli.cluster.ledger import Block, Reply
from hiera_cli.cluster.worker import Job, ModelJob, Worker
from hiera_cli.errors import HieraError
from hiera_cli.images.decode import Decoding, suffixes
from hiera_cli.images.room import Room
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.limits import Limits
from hiera_cli.outputs.parts import Done, Parts
from hiera_cli.pipeline import stream
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.prepare import prepare
from hiera_cli.result import Result
from hiera_cli.tasks.classify import Classify

PHOTOS = sorted(str(path) for path in SAMPLES.glob("*.jpg"))
MODEL = ModelJob("demo", "torch", "cpu", "fp32", None, True, True)
JOB = Job(Classify(), Options(2, model="demo"), Walk(suffixes, archives=True), os.getcwd())

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


def worker(**changes: Any) -> Worker:
    """One with its model. It may use all cores: to take some would hold for this whole process."""
    made = Worker(replace(JOB, folder=os.getcwd(), **changes), 0)
    assert made.node(MODEL).precision == "fp32"
    made.load(MODEL)
    return made


def files(paths: Sequence[str], unit: int = 0) -> Block:
    return Block(unit, 0, len(paths), tuple(map(Source, paths)))


def at_once(worker: Worker, blocks: Sequence[Block]) -> list[Reply]:
    """The replies to blocks that are asked for at the same time, each on a thread of its own, in any order."""
    with ThreadPoolExecutor(len(blocks)) as threads:
        futures: dict[int, Future[Reply]] = {}
        for place in random.Random(0).sample(range(len(blocks)), len(blocks)):
            futures[place] = threads.submit(worker.run, blocks[place])
        return [futures[place].result(60) for place in range(len(blocks))]


def records(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [result.to_dict() for result in results]


def of_one_machine(*inputs: str) -> list[dict[str, Any]]:
    classifier = load_classifier("demo", engine="torch", device="cpu", precision="fp32")
    return records(list(classifier.classify(list(inputs))))


def packed(path: str, names: Sequence[str]) -> str:
    """A tar of photos, each of a sample."""
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(names):
            archive.add(PHOTOS[number % len(PHOTOS)], name)
    return path


def archive(path: str, unit: int = 0, size: int = 4, blocks: int = 4) -> list[Block]:
    """Its first blocks, as the ledger hands them out."""
    source = Source(path, Kind.ARCHIVE)
    return [Block(unit, size * each, size, archive=source, opens=not each) for each in range(blocks)]


def test_blocks_that_come_at_once_have_the_records_of_one_machine() -> None:
    Path("broken.jpg").write_bytes(b"no picture")
    inputs = [*PHOTOS, "broken.jpg", "gone.jpg", *PHOTOS]
    blocks = [files(inputs[start : start + 3], start) for start in range(0, len(inputs), 3)]
    replies = at_once(worker(), blocks)
    assert [record for reply in replies for record in records(reply.results)] == of_one_machine(*inputs)


def test_blocks_of_an_archive_have_their_turn_in_whatever_order_they_come() -> None:
    names = [f"{number:02}.jpg" for number in range(10)]
    path = packed("photos.tar", names)
    replies = at_once(worker(), archive(path))
    assert [record for reply in replies for record in records(reply.results)] == of_one_machine(path)
    assert [reply.ended for reply in replies] == [False, False, True, True]


def test_a_block_behind_waits_for_the_one_before_without_holding_up_others() -> None:
    path = packed("photos.tar", [f"{number:02}.jpg" for number in range(8)])
    first, second, *_ = archive(path)
    made = worker()
    with ThreadPoolExecutor(2) as threads:
        behind = threads.submit(made.run, second)
        assert [result.path for result in made.run(files(PHOTOS[:2], 7)).results] == PHOTOS[:2]
        assert not behind.done()
        assert [result.path for result in made.run(first).results] == [f"{path}/{number:02}.jpg" for number in range(4)]
        assert [result.path for result in behind.result(60).results] == [
            f"{path}/{number:02}.jpg" for number in range(4, 8)
        ]


def test_an_archive_is_opened_anew_in_the_middle_and_what_is_passed_over_counts_once() -> None:
    names = ["00.jpg", "a.txt", "01.jpg", "02.jpg", "b.txt", "c.pdf", "03.jpg", "d.txt"]
    path = packed("photos.tar", names)
    told = []
    counted = 0
    paths = []
    for block in archive(path, size=2, blocks=3):
        reply = worker(verbose=True).run(replace(block, opens=True))  # each by one that has read nothing of it
        told += [name for name, _ in reply.told]
        counted += reply.skipped.suffixes.total()
        paths += [result.path for result in reply.results]
    assert paths == [f"{path}/{number:02}.jpg" for number in range(4)]
    assert told == [f"{path}/{name}" for name in ("a.txt", "b.txt", "c.pdf", "d.txt")]
    assert counted == len(told)


def test_that_there_are_no_images_in_an_archive_is_told_once() -> None:
    path = packed("photos.tar", ["a.txt"])
    replies = at_once(worker(), archive(path, blocks=2))
    assert [warning for reply in replies for warning in reply.warnings] == [f"{path}: no images in this archive"]
    assert [reply.ended for reply in replies] == [True, True]


def test_what_is_given_up_gets_its_error_and_is_not_read() -> None:
    path = packed("photos.tar", ["00.jpg", "01.jpg"])
    made = worker()
    block = replace(archive(path, size=1)[1], opens=True, alone=True, given_up=True)
    results = [*made.run(replace(files(["gone.jpg"]), given_up=True)).results, *made.run(block).results]
    message = "the process that reads it dies of it: it was tried again alone"
    assert [(each.path, str(each.error), each.model) for each in results] == [
        ("gone.jpg", message, "demo"),
        (f"{path}/01.jpg", message, "demo"),
    ]


def test_finish_answers_what_is_under_way_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an input that hangs the Result is missing, and nobody waits for ever, whoever comes behind it."""
    begun, end = threading.Event(), threading.Event()

    def hangs(source: Source, *arguments: Any, **options: Any) -> Any:
        if source.path == "hangs.jpg":
            begun.set()
            end.wait(60)
        return prepare(source, *arguments, **options)

    monkeypatch.setattr(stream, "prepare", hangs)
    path = packed("photos.tar", ["00.jpg", "01.jpg"])
    made = worker()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(made.run, files([PHOTOS[0], "hangs.jpg"]))
        assert begun.wait(60)
        behind = threads.submit(made.run, files([PHOTOS[1]], 1))
        never = threads.submit(made.run, archive(path, 2)[1])  # its turn does not come
        made.finish()
        assert [result.path for result in first.result(60).results] in ([], [PHOTOS[0]])
        assert [result.path for result in behind.result(60).results] in ([], [PHOTOS[1]])
        assert never.result(60).results == []
        assert made.run(files([PHOTOS[2]], 4)).results == []
        end.set()


class _Stopped:
    """A pipeline that was stopped: it has not begun the second of three."""

    def __init__(self, *arguments: Any) -> None:
        self._sources = arguments[0]

    def __iter__(self) -> Any:
        first, _, third = (next(iter(self._sources)) for _ in range(3))
        yield Result(first.path)
        yield Result(third.path)

    def stop(self) -> None:
        pass


def test_a_block_whose_last_input_was_not_begun_is_answered_though_a_later_one_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hiera_cli.cluster.worker.Stream", _Stopped)
    first, second = at_once(worker(), [files(["a", "b"]), files(["c"], 1)])
    known = [[result.path for result in reply.results] for reply in (first, second)]
    assert known in ([["a"], ["c"]], [["b"], ["c"]])  # whichever was asked for first


def test_a_fault_of_the_pipeline_reaches_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = worker()

    def fails(*arguments: Any) -> Any:
        raise HieraError("the GPU is gone")

    monkeypatch.setattr(Classify, "submit", fails)
    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(made.run, files([photo], unit)) for unit, photo in enumerate(PHOTOS[:2])]:
            with pytest.raises(HieraError, match="the GPU is gone"):
                future.result(60)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_parts_say_in_their_names_whose_they_are_and_failures_alone_are_replied(format: str) -> None:
    path = packed("photos.tar", [f"{number:02}.jpg" for number in range(4)])
    options = JOB.options.records(JOB.task)
    done = Done([f"{path}/00.jpg".encode()])
    Path("out").mkdir()
    Path("out/_lock").touch()  # as the run's folder has it
    made = worker(parts=Parts(str(Path("out").absolute()), format, options, 3, done))
    files_reply = made.run(files([PHOTOS[0], "gone.jpg"], 12))
    archive_reply = made.run(archive(path, 13, size=3)[0])
    nothing = made.run(replace(archive(path, 13, size=3)[2], opens=True))
    assert sorted(os.listdir("out")) == [
        "_lock",
        f"part-003-00000012-000000000.{format}",
        f"part-003-00000013-000000000.{format}",
    ]
    assert ([result.path for result in files_reply.results], files_reply.answered) == (["gone.jpg"], 1)
    assert (archive_reply.results, archive_reply.answered, archive_reply.before) == ([], 2, 1)
    assert (nothing.answered, nothing.ended) == (0, True)


def test_members_that_are_done_are_left_out_as_often_as_they_are() -> None:
    path = packed("photos.tar", ["a.jpg", "b.jpg", "a.jpg", "a.jpg", "c.jpg"])
    done = Done([f"{path}/{name}.jpg".encode() for name in "aab"])
    Path("out").mkdir()
    Path("out/_lock").touch()

    def answered(named_before: int, *blocks: tuple[int, int]) -> list[tuple[int, int]]:
        """Of these (start, count), each by a worker that has not read the ones before."""
        parts = Parts(str(Path("out").absolute()), "jsonl", JOB.options.records(JOB.task), 3, done)
        found = []
        for start, count in blocks:
            block = Block(1, start, count, archive=Source(path, Kind.ARCHIVE), named_before=named_before)
            reply = worker(parts=parts).run(block)
            found.append((reply.answered, reply.before))
        return found

    assert answered(0, (0, 5)) == [(2, 3)]
    assert answered(0, (0, 2), (2, 1), (3, 2)) == [(0, 2), (0, 1), (2, 0)]
    assert answered(1, (0, 5)) == [(4, 1)]  # once more is `a` done, the other was for the one before
    assert answered(2, (0, 5)) == [(5, 0)]


def test_a_part_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    Path("out").mkdir()
    Path("out/_lock").touch()
    made = worker(parts=Parts(str(Path("out").absolute()), "jsonl", JOB.options.records(JOB.task), 1))
    shutil.rmtree("out")
    Path("out").write_bytes(b"")
    with pytest.raises(HieraError, match=r"^cannot write .*/out: Not a directory$") as told:
        made.run(files(PHOTOS[:1]))
    assert told.value.remedy == "go on"


def test_a_node_that_does_not_see_the_folder_of_the_parts_says_so() -> None:
    Path("out").mkdir()  # another one of that name
    parts = Parts(str(Path("out").absolute()), "jsonl", JOB.options.records(JOB.task), 1)
    with pytest.raises(HieraError, match=r"^the node \S+ does not see \S+/out, into which parts are to go$"):
        worker(parts=parts)


def test_a_node_that_does_not_see_an_input_says_so(tmp_path: Path) -> None:
    made = Worker(replace(JOB, folder=str(tmp_path), visible=("here.jpg", "gone.jpg")), 0)
    Path("here.jpg").touch()
    with pytest.raises(HieraError, match=r"^the node \S+ does not see gone\.jpg, which this machine does$"):
        made.node(MODEL)


def test_relative_names_are_those_of_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.symlink(PHOTOS[0], "cat.jpg")
    made = Worker(replace(JOB, folder=str(tmp_path)), 0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made.node(MODEL)
    made.load(MODEL)
    (result,) = made.run(files(["cat.jpg"])).results
    assert (result.path, result.error) == ("cat.jpg", None)


def test_many_blocks_keep_their_order_and_none_is_lost() -> None:
    inputs = [f"{number}.jpg" for number in range(600)]
    made = worker()
    lock = threading.Lock()
    got: dict[int, list[str]] = {}

    def ask(numbers: Sequence[int]) -> None:
        for number in numbers:
            reply = made.run(files(inputs[number : number + 10], number))
            with lock:
                got[number] = [result.path for result in reply.results]

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(ask, range(10 * each, 600, 30)) for each in range(3)]:
            done.result(60)
    assert [path for number in sorted(got) for path in got[number]] == inputs


def test_what_a_run_asks_can_be_sent() -> None:
    options = Options(3, Limits(total=7), Decoding(max_pixels=9, full=True, room=Room(1 << 20)), model="demo")
    sent = pickle.loads(pickle.dumps(replace(JOB, options=options)))
    assert sent == replace(JOB, options=options)
    assert sent.options.decoding.room.size == 1 << 20
    with sent.options.decoding.room.hold(1):  # its own
        pass
