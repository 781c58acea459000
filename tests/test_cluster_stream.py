"""A run whose work others do: their workers here are real ones, or fakes, on threads of this process."""

from __future__ import annotations

import gc
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from conftest import SAMPLES, Call

from hiera_cli.cluster import stream as cluster_stream
from hiera_cli.cluster.ledger import AT_ONCE, Block, Reply
from hiera_cli.cluster.stream import ClusterStream
from hiera_cli.cluster.worker import Job, ModelJob, Worker
from hiera_cli.cluster.workers import ClusterModel, Workers, _Checkpoint, _Engine
from hiera_cli.errors import HieraError
from hiera_cli.images.decode import suffixes
from hiera_cli.inputs import cloud
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import MAX_WAITING, MIN_WINDOW
from hiera_cli.result import Failure, Result
from hiera_cli.tasks.classify import Classify

PHOTOS = sorted(str(path) for path in SAMPLES.glob("*.jpg"))
JOB = Job(Classify(), Options(2, model="demo"), Walk(suffixes), ".")


class Died(Exception):  # noqa: N818
    """A worker has, as Ray tells of it."""


Answer = Callable[[Block], Reply]


class _Slot:
    """A worker, and what it has to do."""

    host = "here"

    def __init__(self) -> None:
        self.blocks: SimpleQueue[Block | None] = SimpleQueue()


class Threads(Workers):
    """Workers on threads of this process. answer: makes what answers the blocks of one."""

    ready: list[Any]

    def __init__(self, answer: Callable[[], Answer], count: int = 2, job: Job = JOB) -> None:
        super().__init__("", job)
        self.finished = threading.Event()
        self.closed = False
        self.deaths = 0
        self._make = answer
        for _ in range(count):
            self._add()

    def _add(self) -> None:
        slot = _Slot()
        answer = self._make()
        self.ready.append(slot)
        for _ in range(AT_ONCE):
            threading.Thread(target=self._serve, args=(slot, answer), daemon=True).start()

    def _serve(self, slot: Any, answer: Answer) -> None:
        while (block := slot.blocks.get()) is not None:
            future: Future[Reply] = Future()
            try:
                future.set_result(answer(block))
            except BaseException as error:
                future.set_exception(error)
            self.events.put((slot, block, future))

    def poll(self) -> None:
        pass

    def give(self, slot: Any, block: Block) -> None:
        slot.blocks.put(block)

    def lost(self, slot: Any) -> None:
        self.deaths += 1
        self.ready.remove(slot)
        self._add()

    def fault(self, slot: Any, error: BaseException) -> HieraError | None:
        if isinstance(error, Died):
            return None
        return error if isinstance(error, HieraError) else HieraError(str(error))

    def finish(self) -> None:
        self.finished.set()

    def close(self) -> None:
        self.closed = True
        for slot in self.ready:
            for _ in range(AT_ONCE):
                slot.blocks.put(None)


def load() -> ClusterModel:
    return ClusterModel("demo", _Checkpoint("demo", Path("weights"), "d" * 64), _Engine("fp32", 8, "threads"), ())


def echo(block: Block) -> Reply:
    return Reply([Result(source.path) for source in block.sources])


def answers(
    workers: Threads, inputs: Iterable[str | Source], warn: Callable[[str], None] = pytest.fail
) -> ClusterStream[Any]:
    sources = (each if isinstance(each, Source) else Source(each) for each in inputs)
    return ClusterStream(sources, load, workers, Skipped(), warn, lambda before: None)


def test_results_come_in_input_order_whoever_answers_first() -> None:
    turn = threading.Condition()
    waiting: list[int] = []

    def backwards(block: Block) -> Reply:
        """The later block of two is answered first."""
        with turn:
            waiting.append(block.unit)
            turn.notify_all()
            turn.wait_for(lambda: any(unit > block.unit for unit in waiting) or block.unit >= 18, 10)
        return echo(block)

    workers = Threads(lambda: backwards)
    names = [f"{number}.jpg" for number in range(20 * cluster_stream.LEAST_BLOCK)]
    assert [result.path for result in answers(workers, names)] == names
    assert workers.closed


def test_inputs_that_come_one_by_one_are_answered_as_they_come() -> None:
    answered = threading.Semaphore(0)

    def slowly() -> Iterator[str]:
        for number in range(3):
            yield f"{number}.jpg"
            assert answered.acquire(timeout=10), "nobody has answered while more inputs were waited for"

    got = []
    for result in answers(Threads(lambda: echo), slowly()):
        got.append(result.path)
        answered.release()
    assert got == ["0.jpg", "1.jpg", "2.jpg"]


def test_no_model_is_loaded_where_there_is_nothing_to_do() -> None:
    workers = Threads(lambda: echo)
    stream = ClusterStream[Any](iter(()), pytest.fail, workers, Skipped(), pytest.fail, lambda before: None)
    assert list(stream) == []
    assert workers.closed


def test_stop_yields_what_is_known_across_the_gaps_and_asks_the_workers_to_end() -> None:
    later_ones = threading.Semaphore(0)
    workers: Threads

    def first_hangs(block: Block) -> Reply:
        if block.unit == 0:
            assert workers.finished.wait(10)
            return Reply([Result(block.sources[0].path)])  # what is known of it
        later_ones.release()
        return echo(block)

    workers = Threads(lambda: first_hangs)
    names = [f"{number}.jpg" for number in range(4 * cluster_stream.LEAST_BLOCK)]
    stream = answers(workers, names)

    def stop() -> None:
        for _ in range(3):
            later_ones.acquire(timeout=10)
        stream.stop()

    threading.Thread(target=stop, daemon=True).start()
    got = [result.path for result in stream]
    assert got == names[:1] + names[cluster_stream.LEAST_BLOCK :]
    assert workers.closed


def test_a_fault_that_comes_together_with_answers_loses_none_of_them() -> None:
    class AtOnce(Threads):
        def give(self, slot: Any, block: Block) -> None:
            future: Future[Reply] = Future()
            if block.unit == 0:
                future.set_exception(HieraError("cannot write out/"))
            else:
                future.set_result(echo(block))
            self.events.put((slot, block, future))

    names = [f"{number}.jpg" for number in range(4 * cluster_stream.LEAST_BLOCK)]
    got = []
    with pytest.raises(HieraError, match=r"^cannot write out/$"):
        for result in answers(AtOnce(lambda: echo), names):
            got.append(result.path)
    assert got == names[cluster_stream.LEAST_BLOCK :]


def test_a_block_is_some_batches_of_the_engine() -> None:
    sizes: list[int] = []

    def measured(block: Block) -> Reply:
        sizes.append(len(block.sources))
        return echo(block)

    loaded = threading.Event()

    def names() -> Iterator[str]:
        yield "first.jpg"
        assert loaded.wait(10)
        yield from (f"{number}.jpg" for number in range(1000))

    def load_for_a_gpu() -> ClusterModel:
        loaded.set()
        return replace(load(), engine=_Engine("bf16", 250, "cuda:0"))

    sources = (Source(name) for name in names())
    workers = Threads(lambda: measured)
    stream = ClusterStream[Any](sources, load_for_a_gpu, workers, Skipped(), pytest.fail, lambda before: None)
    assert len(list(stream)) == 1001
    assert max(sizes) == 500


def test_what_a_worker_had_that_died_is_done_again() -> None:
    died = threading.Lock()

    def one_dies(block: Block) -> Reply:
        if block.unit == 1 and died.acquire(blocking=False):
            raise Died
        return echo(block)

    workers = Threads(lambda: one_dies)
    names = [f"{number}.jpg" for number in range(300)]
    assert [result.path for result in answers(workers, names)] == names
    assert workers.deaths == 1


def test_what_is_wrong_with_a_worker_ends_the_run_once_what_is_known_is_out() -> None:
    def fails(block: Block) -> Reply:
        if block.unit == 2:
            raise HieraError("the GPU is gone")
        return echo(block)

    workers = Threads(lambda: fails, count=1)
    got = []
    with pytest.raises(HieraError, match="the GPU is gone"):
        for result in answers(workers, [f"{number}.jpg" for number in range(200)]):
            got.append(result.path)
    assert got[:64] == [f"{number}.jpg" for number in range(64)]
    assert not {f"{number}.jpg" for number in range(64, 96)} & {*got}
    assert workers.finished.is_set()
    assert workers.closed


def test_what_ends_finding_the_inputs_ends_the_run_once_those_before_are_answered() -> None:
    def ends() -> Iterator[str]:
        yield "a.jpg"
        raise HieraError("the list is gone")

    got = []
    with pytest.raises(HieraError, match="the list is gone"):
        for result in answers(Threads(lambda: echo), ends()):
            got.append(result.path)
    assert got == ["a.jpg"]


def test_what_workers_tell_of_archives_is_told_in_input_order() -> None:
    def empty(block: Block) -> Reply:
        assert block.archive is not None
        if not block.opens:
            return Reply(ended=True)
        skipped = Skipped(links_in_archives=2)
        skipped.add(".txt")
        return Reply(ended=True, skipped=skipped, warnings=(f"{block.archive.path}: nothing",), before=3)

    warned: list[str] = []
    before: list[int] = []
    skipped = Skipped()
    sources = [Source(f"{number}.tar", Kind.ARCHIVE) for number in range(5)]
    stream = ClusterStream[Any](iter(sources), load, Threads(lambda: empty), skipped, warned.append, before.append)
    assert list(stream) == []
    assert warned == [f"{number}.tar: nothing" for number in range(5)]
    assert (skipped.suffixes.total(), skipped.links_in_archives, sum(before)) == (5, 10, 15)


@dataclass(frozen=True)
class Large(Classify):
    """Of which few Results may wait."""

    @property
    def result_bytes(self) -> int:
        return MAX_WAITING // 10


def inputs_in_memory() -> int:
    return sum(type(each) in (Source, Result) for each in gc.get_objects())


def test_no_more_inputs_are_in_memory_than_the_window_has() -> None:
    """Of 200,000."""
    found = 0

    def inputs() -> Iterator[Source]:
        nonlocal found
        for number in range(200_000):
            found += 1
            yield Source(f"{number}.jpg")

    stream = ClusterStream[Any](
        inputs(),
        load,
        Threads(lambda: echo, job=replace(JOB, task=Large())),
        Skipped(),
        pytest.fail,
        lambda before: None,
    )
    before = inputs_in_memory()  # of other tests
    got = held = 0
    for result in stream:
        assert result.path == f"{got}.jpg"
        got += 1
        held = max(held, found - got)
        if got % 50_000 == 0:
            assert inputs_in_memory() - before < 10 * MIN_WINDOW
    assert got == 200_000
    assert held <= MIN_WINDOW + 2 * AT_ONCE * cluster_stream.MOST_BLOCK


def test_an_archive_that_is_named_again_is_told_of_as_such() -> None:
    seen: set[tuple[str, int]] = set()

    def look(block: Block) -> Reply:
        if block.archive is None:
            return echo(block)
        seen.add((block.archive.path, block.named_before))
        return Reply(ended=True)

    given: list[str | Source] = [
        Source("a.tar", Kind.ARCHIVE),
        "x.jpg",
        Source("b.tar", Kind.ARCHIVE),
        Source("a.tar", Kind.ARCHIVE),
    ]
    list(answers(Threads(lambda: look, 1), given))
    assert seen == {("a.tar", 0), ("b.tar", 0), ("a.tar", 1)}


# ---- runs of the program


class RealWorkers(Threads):
    """Those of a run, which answer as on a node."""

    def __init__(self, address: str, job: Job, *, ship: bool = False) -> None:
        self._finish: list[Callable[[], None]] = []
        super().__init__(self._worker, 2, job)

    def _worker(self) -> Answer:
        worker = Worker(self.job, 0)
        worker.load(ModelJob("demo", "torch", "cpu", "fp32", None, True, True))
        self._finish.append(worker.finish)
        return worker.run

    def load(self, *arguments: Any, **options: Any) -> ClusterModel:
        return load()

    def finish(self) -> None:
        for finish in self._finish:
            finish()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--ray` has its work done by workers on threads of this process."""
    monkeypatch.setattr("hiera_cli.cluster.workers.Workers", RealWorkers)
    monkeypatch.setattr("hiera_cli.cluster.connection.check_address", lambda address: None)


def inputs() -> list[str]:
    Path("broken.jpg").write_bytes(b"no picture")
    os.mkdir("folder")
    os.symlink(PHOTOS[0], "folder/link.jpg")
    with tarfile.open("photos.tar", "w") as archive:
        for number, photo in enumerate(PHOTOS * 2):
            archive.add(photo, f"{number:02}.jpg")
        archive.add("broken.jpg", "z.jpg")
        archive.add("broken.jpg", "notes.txt")
    return ["-m", "demo", *PHOTOS, "photos.tar", "folder", "--follow", "broken.jpg", "gone.jpg"]


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
@pytest.mark.parametrize("format", ["jsonl", "plain", "csv"])
def test_a_cluster_prints_what_one_machine_prints(call: Call, format: str) -> None:
    arguments = ("classify", *inputs(), "-f", format, "--no-banner")
    alone, many = call(*arguments), call(*arguments, "--ray", "auto")
    assert (many.status, many.out) == (alone.status, alone.out)
    assert many.err.splitlines()[:-1] == alone.err.splitlines()[:-1]  # the last tells the time


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
@pytest.mark.parametrize("output", ["labels.jsonl", "out/"])
def test_an_archive_is_read_where_the_worker_is(call: Call, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str | None] = []
    give = RealWorkers.give

    def seen(self: RealWorkers, slot: Any, block: Block) -> None:
        read.append(block.archive.path if block.archive else None)
        give(self, slot, block)

    monkeypatch.setattr(RealWorkers, "give", seen)
    arguments = ("classify", *inputs(), "-f", "jsonl", "-q", "-o", output)
    assert call(*arguments, "--ray", "auto").status == 1
    assert {*read} == {None, "photos.tar"}


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
def test_a_part_that_is_gone_is_done_again_also_of_inputs_that_are_named_twice(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_stream, "LEAST_PART", 4)
    monkeypatch.setattr(cluster_stream, "BATCHES", 0)
    arguments = ("classify", *inputs(), *PHOTOS[:3], "photos.tar", "-f", "jsonl", "-q")
    alone = sorted(call(*arguments).out.splitlines())
    assert call(*arguments, "--ray", "auto", "-o", "out/").status == 1
    parts = sorted(Path("out").glob("part-*.jsonl"))
    assert len(parts) > 6
    for part in parts:
        part.unlink()
        done = call(*arguments, "--ray", "auto", "-o", "out/", "--resume")
        assert done.status == 1
        found = [line for part in Path("out").glob("part-*.jsonl") for line in part.read_text().splitlines()]
        assert sorted(found) == alone


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
@pytest.mark.parametrize("output", ["labels.jsonl", "out/"])
def test_another_precision_is_refused_also_where_nothing_is_left_to_do(call: Call, output: str) -> None:
    arguments = ("classify", *PHOTOS, "-m", "demo", "-f", "jsonl", "-o", output, "--ray", "auto", "-q")
    assert call(*arguments).status == 0
    assert call(*arguments, "--resume", "--precision", "fp32").status == 0
    done = call(*arguments, "--resume", "--precision", "bf16")
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: cannot go on with {output}: ")
    assert "bf16" in done.err


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
@pytest.mark.parametrize("command", ["classify", "embed"])
def test_parts_hold_the_records_of_one_machine(call: Call, command: str) -> None:
    arguments = (command, *inputs(), "-f", "jsonl", "-q")
    alone, many = call(*arguments), call(*arguments, "--ray", "auto", "-o", "out/")
    parts = sorted(Path("out").glob("part-*.jsonl"))
    assert many.status == alone.status == 1
    assert [line for part in parts for line in part.read_text().splitlines()] == alone.out.splitlines()
    manifest = json.loads(Path("out/_manifest.json").read_text())
    assert [manifest[name] for name in ("records", "failed")] == [len(alone.records()), 3]
    again = call(*arguments, "--ray", "auto", "-o", "out/", "--resume")
    assert again.status == 1
    lines = [line for part in sorted(Path("out").glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    assert sorted(lines) == sorted(alone.out.splitlines())


@pytest.mark.usefixtures("demo_on_the_cpu", "in_this_process")
def test_a_journal_of_a_cluster_is_gone_on_with_in_the_middle_of_an_archive(call: Call) -> None:
    arguments = ("classify", *inputs(), "-q", "--ray", "auto", "-o")
    assert call(*arguments, "whole.jsonl").status == 1
    whole = Path("whole.jsonl").read_text()
    assert [json.loads(line)["path"] for line in whole.splitlines()][-3:] == [
        "folder/link.jpg",
        "broken.jpg",
        "gone.jpg",
    ]
    half = "".join(whole.splitlines(keepends=True)[: len(PHOTOS) + 3])
    Path("half.jsonl.part").write_text(half)
    assert call(*arguments, "half.jsonl", "--resume").status == 1
    assert Path("half.jsonl").read_text() == whole


def test_ship_needs_a_cluster(call: Call) -> None:
    done = call("classify", "cat.jpg", "--ship")
    assert done.status == 2
    assert done.err.startswith("hiera: error: --ship is for a cluster, and this run has none\n")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-",), "the workers of a cluster do not see what comes through -\n"),
        (("a.jpg", "-f", "csv", "-o", "out/"), "a folder gets parts, as parquet or jsonl, and this run writes csv\n"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(call: Call, arguments: tuple[str, ...], told: str) -> None:
    done = call("classify", *arguments, "-m", "demo", "--ray", "auto")
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: {told}")
    assert not Path("out").exists()


class Nodes(Threads):
    """None of which sees anything."""

    left_out: tuple[str, ...] = ()

    def sees(self, slot: Any, path: str) -> bool:
        return False

    def leave_out(self, slot: Any, why: str) -> None:
        self.ready.remove(slot)
        self.left_out += (why,)


@pytest.mark.parametrize("here", [True, False])
def test_a_worker_without_the_credentials_that_this_machine_has_is_left_out(
    here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unseen(url: str) -> str:
        asked.append(url)
        return "" if here else cloud.NO_CREDENTIALS

    monkeypatch.setattr(cloud, "unseen", unseen)
    names = [f"s3://box/{number}.jpg" for number in range(4 * cluster_stream.LEAST_BLOCK)]
    having = [False, True]  # of the two workers
    refused = Failure("FetchError", cloud.NO_CREDENTIALS)

    def answer() -> Answer:
        if having.pop():
            return echo
        return lambda block: Reply([Result(source.path, error=refused) for source in block.sources])

    workers = Nodes(answer)
    results = list(answers(workers, names))
    assert [result.path for result in results] == names
    assert len(asked) == 1
    failed = [result.path for result in results if result.error is not None]
    if here:
        assert not failed
        assert len(workers.left_out) == 1
        assert re.fullmatch(
            r"does not see s3://box/\d+\.jpg, which this machine does \(no credentials .*\)", workers.left_out[0]
        )
    else:
        assert failed
        assert not workers.left_out


def test_a_worker_that_does_not_see_what_is_here_is_left_out_and_its_work_done_by_others() -> None:
    names = [f"{number}.jpg" for number in range(4 * cluster_stream.LEAST_BLOCK)]
    for name in names:
        Path(name).touch()
    seeing = [False, True]  # of the two workers
    missing = Failure("NotFoundError", "no such file")

    def answer() -> Answer:
        if seeing.pop():
            return lambda block: Reply([Result(source.path) for source in block.sources])
        return lambda block: Reply([Result(source.path, error=missing) for source in block.sources])

    workers = Nodes(answer)
    gone = "not-here.jpg"  # nor anywhere
    results = list(answers(workers, [*names, gone]))
    assert [result.path for result in results if result.error is None] == [*names, gone]
    assert len(workers.left_out) == 1
    assert re.fullmatch(r"does not see \d+\.jpg, which this machine does", workers.left_out[0])


def test_a_file_that_is_nowhere_leaves_no_worker_out() -> None:
    missing = Failure("NotFoundError", "no such file")
    workers = Threads(lambda: lambda block: Reply([Result(each.path, error=missing) for each in block.sources]), 1)
    assert [result.error for result in answers(workers, ["a.jpg", "b.jpg"])] == [missing, missing]
    assert len(workers.ready) == 1
