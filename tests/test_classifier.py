"""The pipeline: one Result an input, in order, bound to its own path, in bounded memory."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from image_server import ImageServer, reply
from PIL import Image

from hiera_cli.checkpoints.labels import Label
from hiera_cli.classifier import Classifier, load_classifier
from hiera_cli.engines.engine import Answer
from hiera_cli.errors import CheckpointError, DeviceError, HieraError, ReadError, UsageError
from hiera_cli.images import decode
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.pipeline import prepare as prepare_module
from hiera_cli.pipeline import stream as stream_module
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.prepare import prepare
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Failure, stamp_of
from hiera_cli.tasks.classify import Classified, Classify


class Brightness:
    """A stand-in engine: says in which of ten steps of brightness an image is. Records the batches that it saw.

    It computes when it is waited for: until then nobody may ask for what is in flight.
    """

    in_flight = 1
    takes_crops = False

    def __init__(self, batch_size: int = 4) -> None:
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.precision = "fp32"

    def describe(self) -> str:
        return "nowhere"

    def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
        stacked = np.stack(pixels)
        return lambda: self.logits(stacked)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        steps = np.rint((pixels[:, 0].mean((1, 2)) * 0.229 + 0.485) * 255 / 25)
        return (-np.abs(np.arange(10) - steps[:, None]) * 9).astype(np.float32)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True, params=[1, 2], ids=["computes", "overlaps"])
def in_flight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The pipeline is the same for an engine that computes and for a device that works by itself."""
    monkeypatch.setattr(Brightness, "in_flight", request.param)
    return int(request.param)


def stand_in(engine: object) -> Classifier:
    labels = tuple(Label(index, None, f"step {index}") for index in range(10))
    return Classifier(SimpleNamespace(name="stand-in", labels=labels), engine)  # type: ignore[arg-type]


def grey(folder: Path, name: str, step: int) -> str:
    path = folder / name
    Image.new("L", (8, 8), step * 25).save(path)
    return str(path)


def run(inputs: Iterable[Source | str], engine: Brightness | None = None, **options: object) -> list[Classified]:
    found = (Source(item) if isinstance(item, str) else item for item in inputs)
    classifier = stand_in(engine or Brightness())
    return list(Stream(found, lambda: classifier, Classify(1), Options(**options)))  # type: ignore[arg-type]


def outcome(result: Classified) -> str:
    return result.error.type if result.error else result.predictions[0].label


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_each_input_gives_one_result_in_order_with_its_own_label(tmp_path: Path, workers: int) -> None:
    paths = [grey(tmp_path, f"{number}.png", number % 10) for number in range(100)]
    results = run(paths, workers=workers)
    assert [result.path for result in results] == paths
    assert [outcome(result) for result in results] == [f"step {number % 10}" for number in range(100)]


BROKEN = [(0,), (3,), (9,), (0, 1, 2, 3), (2, 3, 8, 9), tuple(range(10))]


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_unreadable_files_are_errors_in_their_own_places(tmp_path: Path, broken: tuple[int, ...]) -> None:
    paths = [grey(tmp_path, f"{number}.png", number) for number in range(10)]
    for number in broken:
        Path(paths[number]).write_bytes(b"no image")
    expected = ["DecodeError" if number in broken else f"step {number}" for number in range(10)]
    results = run(paths, Brightness(batch_size=2))
    assert [result.path for result in results] == paths
    assert [outcome(result) for result in results] == expected


def test_nothing_readable_needs_no_model(tmp_path: Path) -> None:
    def load() -> Classifier:
        raise AssertionError("the model was loaded")

    results = list(Stream([Source("gone.jpg"), Source(str(tmp_path))], load, Classify()))
    assert [outcome(result) for result in results] == ["NotFoundError", "ReadError"]


def test_what_loading_raises_comes_after_the_results_before_it(tmp_path: Path) -> None:
    def load() -> Classifier:
        raise CheckpointError("no weights")

    seen = []
    with pytest.raises(CheckpointError, match="no weights"):
        for result in Stream(
            [Source("gone.jpg"), Source(grey(tmp_path, "a.png", 1))], load, Classify(), Options(workers=1)
        ):
            seen.append(outcome(result))
    assert seen in ([], ["NotFoundError"])  # what was ready together is not yielded half


def test_what_finding_the_inputs_raises_comes_after_the_results_before_it(tmp_path: Path) -> None:
    def inputs() -> Iterator[Source]:
        yield Source(grey(tmp_path, "a.png", 1))
        raise UsageError("the list broke")

    seen = []
    with pytest.raises(UsageError, match="the list broke"):
        for result in Stream(inputs(), lambda: stand_in(Brightness()), Classify(1)):
            seen.append(outcome(result))
    assert seen == ["step 1"]


def test_the_first_result_does_not_wait_for_the_last_input(tmp_path: Path) -> None:
    seen = threading.Event()

    def inputs() -> Iterator[Source]:
        yield Source(grey(tmp_path, "a.png", 1))
        assert seen.wait(10)
        yield Source(grey(tmp_path, "b.png", 2))

    stream = iter(Stream(inputs(), lambda: stand_in(Brightness()), Classify(1)))
    assert outcome(next(stream)) == "step 1"
    seen.set()
    assert [outcome(result) for result in stream] == ["step 2"]


def test_a_slow_input_holds_up_no_other_ones_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    load = decode.load

    def slow(path: str, decoding: Decoding) -> np.ndarray:
        if path.endswith("slow.png"):
            assert release.wait(10)
        return load(path, decoding)

    monkeypatch.setattr(decode, "load", slow)
    engine = Brightness()
    paths = [grey(tmp_path, "slow.png", 0), *(grey(tmp_path, f"{number}.png", 5) for number in range(40))]

    def watch() -> None:
        while sum(engine.batches) < 40:
            time.sleep(0.01)
        release.set()

    threading.Thread(target=watch, daemon=True).start()
    assert [outcome(result) for result in run(paths, engine, workers=2)] == ["step 0", *["step 5"] * 40]


@pytest.fixture
def held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A file, slow.png, that takes until this is set to be read. All others are read at once."""
    release = threading.Event()
    slow, other = grey(tmp_path, "slow.png", 0), decode.load(grey(tmp_path, "other.png", 3))

    def load(path: str, *settings: object) -> np.ndarray:
        if path == slow:
            assert release.wait(10)
        return other

    monkeypatch.setattr(decode, "load", load)
    yield release
    release.set()


def behind_slow(tmp_path: Path, count: int) -> list[Source]:
    return [Source(str(tmp_path / name)) for name in ("slow.png", *(f"{number}.png" for number in range(count)))]


def test_thousands_of_inputs_behind_a_slow_one_are_done_meanwhile(tmp_path: Path, held_up: threading.Event) -> None:
    class Counting(Brightness):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            if sum(self.batches) + len(pixels) == 3000:
                held_up.set()
            return super().logits(pixels)

    inputs = behind_slow(tmp_path, 3000)
    results = run(inputs, Counting(batch_size=64), workers=2)
    assert [result.path for result in results] == [source.path for source in inputs]


def test_what_is_known_is_yielded_at_a_stop_also_behind_what_is_not(tmp_path: Path, held_up: threading.Event) -> None:
    class Stopping(Device):
        def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
            if self.submitted > 20:
                stream.stop()
            return super().submit(pixels)

    inputs = behind_slow(tmp_path, 500)
    engine = Stopping(batch_size=4)
    stream = Stream(inputs, lambda: stand_in(engine), Classify(1), Options(workers=2))
    paths = [result.path for result in stream]
    assert paths == [source.path for source in inputs[1 : 1 + len(paths)]]
    assert 20 < len(paths) == engine.submitted < 100


def test_what_is_known_is_yielded_before_a_device_fails_also_behind_what_is_not(
    tmp_path: Path, held_up: threading.Event
) -> None:
    class Failing(Device):
        def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
            if self.submitted > 20:
                raise DeviceError("cuda:0 has not enough free memory for a single image")
            return super().submit(pixels)

    inputs = behind_slow(tmp_path, 500)
    engine = Failing(batch_size=4)
    paths = []
    with pytest.raises(DeviceError, match="not enough free memory"):
        for result in Stream(inputs, lambda: stand_in(engine), Classify(1), Options(workers=2)):
            paths.append(result.path)
    assert paths == [source.path for source in inputs[1 : 1 + engine.submitted]]


def test_what_other_batches_gave_is_yielded_before_a_device_fails_to_answer(
    tmp_path: Path, held_up: threading.Event
) -> None:
    class Failing(Brightness):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            if len(self.batches) == 3:
                raise DeviceError("the GPU fell off the bus")
            return super().logits(pixels)

    engine = Failing(batch_size=4)
    inputs = behind_slow(tmp_path, 500)
    paths = []
    with pytest.raises(DeviceError, match="fell off the bus"):
        for result in Stream(inputs, lambda: stand_in(engine), Classify(1), Options(workers=2)):
            paths.append(result.path)
    assert paths == [source.path for source in inputs[1 : 1 + sum(engine.batches)]]


def test_an_image_for_which_there_is_no_memory_is_a_failure_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = decode.load

    def no_memory_for_b(path: str, *settings: object) -> np.ndarray:
        if path.endswith("b.png"):
            raise MemoryError
        return load(path)

    monkeypatch.setattr(decode, "load", no_memory_for_b)
    paths = [grey(tmp_path, f"{name}.png", 5) for name in "abc"]
    assert [outcome(result) for result in run(paths, Brightness())] == ["step 5", "TooLargeError", "step 5"]


@pytest.mark.parametrize(("module", "name"), [(decode, "load"), (prepare_module, "stamp_of")])
def test_what_is_known_is_yielded_before_an_error_that_nobody_foresaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    def broken(path: str) -> Any:
        if path == "b":
            assert engine.answered.wait(10)
            raise RuntimeError("nobody foresaw this")
        return None

    class Answering(Brightness):
        answered: threading.Event

        def logits(self, pixels: np.ndarray) -> np.ndarray:
            self.answered.set()
            return super().logits(pixels)

    engine = Answering()
    engine.answered = threading.Event()
    image = decode.load(grey(tmp_path, "a.png", 1))
    monkeypatch.setattr(decode, "load", lambda path, *settings: image)
    monkeypatch.setattr(prepare_module, "stamp_of", lambda path: None)
    monkeypatch.setattr(module, name, lambda path, *settings: broken(path) or image)
    seen = []
    with pytest.raises(RuntimeError, match="nobody foresaw this"):
        for result in Stream([*map(Source, "ab")], lambda: stand_in(engine), Classify(1), Options(workers=1)):
            seen.append(result.path)
    assert seen == ["a"]


def test_an_interrupt_of_the_loading_after_a_stop_ends_the_iteration_with_what_is_known(tmp_path: Path) -> None:
    def load() -> Classifier:
        stream.stop()
        assert stream.loading
        raise KeyboardInterrupt

    inputs = [Source(grey(tmp_path, "a.png", 1)), Source("gone.jpg")]
    stream = Stream(inputs, load, Classify(), Options(workers=1))
    assert [outcome(result) for result in stream] in ([], ["NotFoundError"])  # whether it was looked for by then
    assert not stream.loading


def test_an_interrupt_without_a_stop_is_the_caller_s(tmp_path: Path) -> None:
    def load() -> Classifier:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Stream([Source(grey(tmp_path, "a.png", 1))], load, Classify()))


@pytest.fixture
def allow_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Have the system allow no more threads than so many of a name."""
    start = threading.Thread.start

    def allow(name: str, count: int) -> None:
        left = itertools.count(count, -1)

        def starting(thread: threading.Thread) -> None:
            if thread.name == name and next(left) <= 0:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)

    return allow


@pytest.mark.parametrize("name", ["walk", "decode"])
def test_without_threads_the_iteration_ends_with_an_error(
    tmp_path: Path, allow_threads: Callable[[str, int], None], name: str
) -> None:
    allow_threads(name, 0)
    with pytest.raises(HieraError, match=r"^cannot start a thread: can't start new thread$"):
        run([grey(tmp_path, "a.png", 1)], workers=4)


def test_one_thread_to_decode_is_enough(tmp_path: Path, allow_threads: Callable[[str, int], None]) -> None:
    allow_threads("decode", 1)
    paths = [grey(tmp_path, f"{number}.png", number) for number in range(10)]
    assert [result.path for result in run(paths, workers=4)] == paths


@pytest.mark.parametrize(("top_k", "window"), [(1, 1 << 16), (5, 1 << 16), (100, 5242), (1000, 524), (10**9, 512)])
def test_the_more_predictions_an_input_has_the_fewer_results_wait(top_k: int, window: int) -> None:
    assert stream_module.window(Classify(top_k).result_bytes) == window


def test_inputs_are_taken_only_so_far_ahead(tmp_path: Path) -> None:
    taken = 0

    def inputs() -> Iterator[Source]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield Source(path)

    path = grey(tmp_path, "a.png", 3)
    workers, batch = 2, 4
    stream = iter(Stream(inputs(), lambda: stand_in(Brightness(batch)), Classify(), Options(workers=workers)))
    look_ahead = stream_module.DEFAULT_BATCH + workers + Brightness.in_flight * batch
    for number in range(1, 50):
        next(stream)
        time.sleep(0.002)
        assert taken <= number + 3 * look_ahead  # some more than look ahead wait for an earlier one


def test_batches_fill_up_while_the_model_runs(tmp_path: Path) -> None:
    class Slow(Brightness):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            time.sleep(0.05)
            return super().logits(pixels)

    engine = Slow(batch_size=4)
    run([grey(tmp_path, f"{number}.png", 1) for number in range(30)], engine)
    assert sum(engine.batches) == 30
    assert max(engine.batches) <= 8
    assert engine.batches.count(4) >= 4


class Device(Brightness):
    """Takes its time for a batch, so that decoding is ahead. Counts what it was given and not yet asked for."""

    pending = 0
    most_pending = 0
    submitted = 0

    def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
        self.submitted += len(pixels)
        self.pending += 1
        self.most_pending = max(self.most_pending, self.pending)
        answer = super().submit(pixels)

        def wait() -> np.ndarray:
            time.sleep(0.05)
            self.pending -= 1
            return answer()

        return wait


def test_a_device_gets_its_next_batch_while_it_works_and_no_third_one(tmp_path: Path, in_flight: int) -> None:
    engine = Device(batch_size=16)  # more than is decoded before the engine is there
    paths = [grey(tmp_path, f"{number:03}.png", number % 10) for number in range(160)]
    results = run(paths, engine)
    assert [outcome(result) for result in results] == [f"step {number % 10}" for number in range(160)]
    assert engine.most_pending == in_flight
    assert engine.pending == 0


def test_what_was_in_flight_is_yielded_before_a_device_fails(tmp_path: Path, in_flight: int) -> None:
    class Failing(Device):
        def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
            if self.submitted > 40:
                self.pending_at_failure = self.pending
                raise DeviceError("cuda:0 has not enough free memory for a single image")
            return super().submit(pixels)

    engine = Failing(batch_size=4)
    sources = [Source(grey(tmp_path, f"{number:02}.png", number % 10)) for number in range(80)]
    seen = []
    with pytest.raises(DeviceError, match="not enough free memory"):
        for result in Stream(sources, lambda: stand_in(engine), Classify(1), Options(workers=1)):
            seen.append(outcome(result))
    assert engine.pending_at_failure == in_flight - 1
    assert seen == [f"step {number % 10}" for number in range(engine.submitted)]


def test_what_was_in_flight_is_yielded_after_a_stop(tmp_path: Path) -> None:
    engine = Device(batch_size=4)
    stream = Stream(
        [Source(grey(tmp_path, f"{number:02}.png", number % 10)) for number in range(80)],
        lambda: stand_in(engine),
        Classify(1),
        Options(workers=1),
    )
    seen = []
    for result in stream:
        seen.append(outcome(result))
        if len(seen) == 30:
            stream.stop()
    assert seen == [f"step {number % 10}" for number in range(engine.submitted)]
    assert 30 <= len(seen) < 60


def test_batches_stay_as_small_as_the_memory_of_a_device(tmp_path: Path) -> None:
    class Small(Brightness):
        def submit(self, pixels: Sequence[np.ndarray]) -> Answer:
            self.batch_size = 2
            return super().submit(pixels)

    engine = Small(batch_size=4)
    run([grey(tmp_path, f"{number}.png", 1) for number in range(40)], engine)
    assert sum(engine.batches) == 40
    assert max(engine.batches[1:]) <= 2


def test_stop_drops_what_is_not_finished_and_keeps_what_is(tmp_path: Path) -> None:
    paths = [grey(tmp_path, f"{number}.png", number % 10) for number in range(300)]
    stream = Stream(map(Source, paths), lambda: stand_in(Brightness()), Classify(1))
    results = []
    for result in stream:
        results.append(result)
        if len(results) == 20:
            stream.stop()
    assert 20 <= len(results) < 100
    numbers = [paths.index(result.path) for result in results]
    assert numbers == sorted(set(numbers))
    assert [outcome(result) for result in results] == [f"step {number % 10}" for number in numbers]


def test_an_answer_that_is_no_number_is_an_error_of_that_image_alone(tmp_path: Path) -> None:
    class Overflowing(Brightness):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            logits = super().logits(pixels)
            logits[pixels.mean((1, 2, 3)) > 2] = np.inf
            return logits

    paths = [grey(tmp_path, "a.png", 1), grey(tmp_path, "white.png", 10), grey(tmp_path, "b.png", 2)]
    assert [outcome(result) for result in run(paths, Overflowing())] == ["step 1", "InferenceError", "step 2"]


def test_offline_fetches_no_url() -> None:
    (result,) = run([Source("http://127.0.0.1:9/cat.jpg", Kind.URL)], offline=True)
    assert result.error is not None
    assert result.error.message == "URLs are not fetched offline"


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_a_classifier_that_is_offline_fetches_no_url() -> None:
    server = ImageServer()
    url = server.at(reply(body=b"not asked for"))
    classifier = load_classifier("demo", precision="fp32", offline=True)
    (result,) = classifier.classify([url])
    assert (result.path, result.error) == (url, Failure("FetchError", "URLs are not fetched offline", "offline"))
    assert server.requests == []
    (result,) = load_classifier("demo", precision="fp32").classify([url])
    assert (result.error and result.error.type, len(server.requests)) == ("DecodeError", 1)
    server.close()


def test_a_source_becomes_pixels_or_a_failure_without_a_stream(tmp_path: Path) -> None:
    path = grey(tmp_path, "a.png", 4)
    data = Path(path).read_bytes()
    prepared = prepare(Source(path))
    assert isinstance(prepared.outcome, np.ndarray)
    assert (prepared.stamp, prepared.remarks) == (stamp_of(path), ())
    url = Source("http://example.com/a.png", Kind.URL)
    for same in (prepare(url, data), prepare(Source("", Kind.MEMORY, image=Image.open(path)))):
        np.testing.assert_array_equal(same.outcome, prepared.outcome)
        assert same.stamp is None
    for source, decoding, failure in (
        (url, None, Failure("FetchError", "URLs are not fetched offline", "offline")),
        (Source("b.png"), None, Failure("NotFoundError", "no such file")),
        (Source("c", error=ReadError("listed in vain")), None, Failure("ReadError", "listed in vain")),
        (
            Source(path),
            Decoding(max_pixels=1),
            Failure("TooLargeError", "its 64 pixels are over the limit of 1", "max_pixels"),
        ),
    ):
        assert prepare(source, decoding=decoding).outcome == failure


@pytest.fixture
def stdin() -> Iterator[int]:
    """A pipe into stdin. Its other end."""
    saved = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(saved, 0)
    os.close(saved)


def test_an_image_on_a_stdin_that_does_not_block_arrives_whole(tmp_path: Path, stdin: int) -> None:
    os.set_blocking(0, False)  # as a parent that shares the pipe, such as node, leaves it
    image = Path(grey(tmp_path, "a.png", 4)).read_bytes()
    results = iter(Stream([Source("-", Kind.STDIN)], lambda: stand_in(Brightness()), Classify(1)))
    os.write(stdin, image[:10])

    def finish() -> None:
        os.write(stdin, image[10:])
        os.close(stdin)

    threading.Timer(0.1, finish).start()
    assert outcome(next(results)) == "step 4"


@pytest.mark.parametrize("closed", ["from the start", "later"])
def test_a_closed_stdin_is_an_error_of_that_input_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: int, closed: str
) -> None:
    os.close(stdin)
    if closed == "later":
        os.close(0)
    else:
        monkeypatch.setattr(sys, "stdin", None)  # as Python leaves it then
    first, second = run([Source("-", Kind.STDIN), grey(tmp_path, "a.png", 1)], workers=1)
    assert (first.error and first.error.message, outcome(second)) == (
        "cannot read stdin: Bad file descriptor",
        "step 1",
    )
