"""The books of a cluster's run: whatever workers do, each input has one answer, in input order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_cli.cluster.ledger import AT_ONCE, LIVES, Block, Ledger, Reply
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.result import Failure, Result

CRASH = Failure("CrashError", "it ends its worker")
STEPS = 200_000  # far more than any of these takes
MEMBERS = {"empty": 0, "one": 1, "some": 7, "many": 40}


@dataclass
class Cluster:
    """Inputs, and workers that do with them what chance says.

    archives: how many members each has. deadly: what ends each worker that reads it. walls: archives that end each
    worker that gets to this place in them. chance: of a worker that dies all the same, at each step.
    """

    inputs: list[str]
    archives: dict[str, int]
    deadly: frozenset[str] = frozenset()
    walls: dict[str, int] = field(default_factory=dict)
    workers: int = 3
    size: int = 4
    most_held: int = 16
    deaths: int = 0  # that chance has left
    all_die: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.ledger = Ledger(lambda so_far: self.size, self.most_held)
        self.names = count()
        self.out: dict[int, list[Block]] = {next(self.names): [] for _ in range(self.workers)}
        self.results: list[Result] = []
        self.freed = 0
        self.most_waiting = 0
        self.alone: Counter[str] = Counter()  # deaths of workers that had nothing else
        self.killed = 0
        self.waiting = iter(self.inputs)
        self.added = 0

    def add(self, *, all: bool = False) -> None:
        for name in self.waiting:
            self.ledger.add(Source(name, Kind.ARCHIVE if name in self.archives else Kind.FILE))
            self.added += 1
            if not all:
                return
        self.ledger.close_block()
        self.added = len(self.inputs) + 1

    def paths(self, block: Block) -> list[str]:
        if block.archive is None:
            return [source.path for source in block.sources]
        name = block.archive.path
        end = min(block.start + block.count, self.archives[name])
        return [f"{name}/{number}" for number in range(block.start, end)]

    def ends_its_worker(self, block: Block) -> bool:
        """Whether to read it does; what is given up is passed over, but an archive is read up to there."""
        if block.archive is not None and block.archive.path in self.walls:
            wall = self.walls[block.archive.path]
            if block.start + block.count > wall:
                return True
        return not block.given_up and any(path in self.deadly for path in self.paths(block))

    def reply(self, block: Block) -> Reply:
        error = CRASH if block.given_up else None
        results = [Result(path, error=error) for path in self.paths(block)]
        return Reply(results, ended=block.archive is not None and len(results) < block.count)

    def die(self, worker: int) -> None:
        blocks = self.out.pop(worker)
        if len(blocks) == 1 and blocks[0].alone:
            self.alone.update(self.paths(blocks[0]))
        self.killed += 1
        self.ledger.lost(worker)
        self.out[next(self.names)] = []

    def step(self) -> bool:
        """Whether something has come of it: that everybody waits is a deadlock."""
        moved = False
        if self.added <= len(self.inputs) and self.random.random() < 0.7:
            self.add()
            moved = True
        for worker in self.random.sample(list(self.out), len(self.out)):
            block = self.ledger.hand_out(worker)
            if block is not None:
                mine = self.out[worker]
                mine.append(block)
                assert len(mine) == self.ledger.under_way(worker) <= AT_ONCE
                assert len(mine) == 1 or not any(each.alone for each in mine)
                moved = True
        busy = [worker for worker, blocks in self.out.items() if blocks]
        if self.deaths and self.random.random() < 0.2:
            self.deaths -= 1
            for worker in list(self.out) if self.all_die else [self.random.choice(list(self.out))]:
                if not any(block.given_up for block in self.out[worker]):  # twice, and its archive would end there
                    self.die(worker)
            moved = True
        elif busy:
            worker = self.random.choice(busy)
            block = self.random.choice(self.out[worker])
            if self.ends_its_worker(block):
                self.die(worker)
            else:
                self.out[worker].remove(block)
                self.ledger.answered(worker, block, self.reply(block))
            moved = True
        for reply, freed in self.ledger.ready():
            self.results += reply.results
            self.freed += freed
        self.most_waiting = max(self.most_waiting, sum(len(reply.results) for reply in self.ledger.known()))
        return moved

    def run(self) -> Cluster:
        for _ in range(STEPS):
            if self.ledger.is_done and self.added > len(self.inputs):
                return self
            assert self.step() or self.added <= len(self.inputs), "everybody waits"
        raise AssertionError("it does not come to its end")

    def expected(self) -> list[tuple[str, bool]]:
        """Each input in order, and whether it is given up."""
        found = []
        for name in self.inputs:
            wall = self.walls.get(name, self.archives.get(name, 0))
            members = [f"{name}/{number}" for number in range(min(wall, self.archives.get(name, 0)))]
            if name in self.archives:
                found += [(member, member in self.deadly) for member in members]
                found += [(name, True)] * (name in self.walls)
            else:
                found.append((name, name in self.deadly))
        return found

    def got(self) -> list[tuple[str, bool]]:
        return [(result.path, result.error is not None) for result in self.results]


@st.composite
def clusters(draw: st.DrawFn, *, walls: bool = False) -> Cluster:
    inputs: list[str] = []
    archives: dict[str, int] = {}
    for number, kind in enumerate(draw(st.lists(st.sampled_from(["file"] * 4 + [*MEMBERS]), max_size=60))):
        inputs.append(f"{number}-{kind}")
        if kind != "file":
            archives[inputs[-1]] = MEMBERS[kind]
    everything = [name for name in inputs if name not in archives]
    everything += [f"{name}/{number}" for name, members in archives.items() for number in range(members)]
    deadly = draw(st.frozensets(st.sampled_from(everything), max_size=3)) if everything else frozenset()
    walled = draw(st.lists(st.sampled_from([*archives]), max_size=2)) if walls and archives else []
    return Cluster(
        inputs,
        archives,
        deadly,
        {name: draw(st.integers(0, archives[name])) for name in walled},
        workers=draw(st.integers(1, 6)),
        size=draw(st.integers(1, 9)),
        most_held=draw(st.sampled_from([1, 16, 1000])),
        seed=draw(st.integers(0, 1 << 30)),
    )


@settings(max_examples=150, deadline=None)
@given(clusters())
def test_each_input_has_one_answer_in_input_order_and_what_ends_workers_alone_is_given_up(cluster: Cluster) -> None:
    cluster.run()
    assert cluster.got() == cluster.expected()
    assert cluster.freed == len(cluster.inputs)
    assert {path for path, deaths in cluster.alone.items() if deaths >= LIVES} >= cluster.deadly


@settings(max_examples=100, deadline=None)
@given(clusters(walls=True))
def test_an_archive_that_no_worker_gets_past_ends_there(cluster: Cluster) -> None:
    cluster.run()
    assert cluster.got() == cluster.expected()
    assert cluster.freed == len(cluster.inputs)


@settings(max_examples=100, deadline=None)
@given(clusters(), st.integers(1, 12), st.booleans())
def test_workers_that_die_at_any_time_lose_and_double_nothing(cluster: Cluster, deaths: int, all_die: bool) -> None:
    cluster.deaths, cluster.all_die = deaths, all_die
    cluster.run()
    got = cluster.got()
    assert [path for path, _ in got] == [path for path, _ in cluster.expected()]
    given_up = {path for path, is_given_up in got if is_given_up}
    # Chance may hit an input that is alone; none is given up for what happened to others.
    assert cluster.deadly <= given_up <= {path for path, deaths in cluster.alone.items() if deaths >= LIVES}


@settings(max_examples=100, deadline=None)
@given(clusters(), st.integers(0, 60))
def test_a_run_that_ends_early_has_what_is_known_in_input_order(cluster: Cluster, steps: int) -> None:
    for _ in range(steps):
        if cluster.ledger.is_done and cluster.added > len(cluster.inputs):
            break
        cluster.step()
    answered = [result.path for result in cluster.results]
    answered += [result.path for reply in cluster.ledger.known() for result in reply.results]
    order = {path: place for place, (path, _) in enumerate(cluster.expected())}
    places = [order[path] for path in answered]
    assert places == sorted(set(places))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1 << 30), st.sampled_from([1, 8, 32]))
def test_no_more_replies_wait_than_the_window_has_beside_those_under_way(
    workers: int, seed: int, most_held: int
) -> None:
    names = [f"{number}-archive" for number in range(8)]
    cluster = Cluster(names, dict.fromkeys(names, 60), workers=workers, most_held=most_held, seed=seed)
    cluster.add(all=True)
    cluster.run()
    assert cluster.got() == cluster.expected()
    assert cluster.most_waiting <= most_held + workers * AT_ONCE * cluster.size


def test_an_archive_in_front_that_nobody_reads_is_read_although_the_window_is_full() -> None:
    """Its reader dies, and while others read later archives the replies of those fill the window."""
    names = ["first", "second", "third"]
    cluster = Cluster(names, dict.fromkeys(names, 100), workers=2, most_held=8)
    cluster.add(all=True)
    ledger = cluster.ledger
    assert ledger.hand_out(0) is not None
    second = [ledger.hand_out(1) for _ in range(AT_ONCE)]
    ledger.lost(0)
    for block in second:
        assert block is not None
        ledger.answered(1, block, cluster.reply(block))
    lost = ledger.hand_out(1)
    assert lost is not None
    assert (lost.unit, lost.start, lost.alone) == (0, 0, True)
    ledger.answered(1, lost, cluster.reply(lost))
    read_on = ledger.hand_out(1)
    assert read_on is not None
    assert (read_on.unit, read_on.start, read_on.opens) == (0, 4, True)


def test_a_worker_opens_no_archive_anew_of_which_it_still_has_a_block() -> None:
    """Its older block would wait for a turn that has passed."""
    names = ["first", "second"]
    cluster = Cluster(names, {"first": 100, "second": 100}, workers=2, most_held=4)
    cluster.add(all=True)
    ledger = cluster.ledger
    first = [ledger.hand_out(0) for _ in range(AT_ONCE)]
    second = ledger.hand_out(1)
    assert second is not None
    assert first[0] is not None
    ledger.lost(0)
    ledger.answered(1, second, cluster.reply(second))
    blocks: list[Block] = []
    for _ in range(200):
        block = ledger.hand_out(1)
        if block is None:
            break
        assert not (block.opens and any(each.unit == block.unit for each in blocks))
        blocks.append(block)


def test_an_input_that_ends_its_worker_costs_few_workers_and_no_neighbour() -> None:
    files = [f"{number}.jpg" for number in range(64)]
    cluster = Cluster(files, {}, frozenset({"40.jpg"}), workers=1, size=64)
    cluster.add(all=True)
    cluster.run()
    assert [path for path, is_given_up in cluster.got() if is_given_up] == ["40.jpg"]
    assert cluster.killed == 1 + 1 + 1 + LIVES  # beside others, alone as 64, as 8, as 1


def test_a_member_that_ends_its_worker_costs_few_workers() -> None:
    cluster = Cluster(["a.tar"], {"a.tar": 640}, frozenset({"a.tar/40"}), workers=4, size=64, most_held=1000)
    cluster.add(all=True)
    cluster.run()
    assert [path for path, is_given_up in cluster.got() if is_given_up] == ["a.tar/40"]
    assert cluster.killed == 1 + 1 + 1 + LIVES


def test_an_archive_that_no_worker_gets_past_costs_few_workers() -> None:
    cluster = Cluster(["a.tar"], {"a.tar": 6400}, walls={"a.tar": 40}, workers=4, size=64, most_held=1000)
    cluster.add(all=True)
    cluster.run()
    assert cluster.got()[-2:] == [("a.tar/39", False), ("a.tar", True)]
    assert cluster.killed <= 3 + 2 * LIVES


@pytest.mark.parametrize("known", [True, False])
def test_an_archive_without_members_is_done_when_its_worker_says_so(known: bool) -> None:
    ledger = Ledger(lambda so_far: 4, 100)
    ledger.add(Source("a.zip", Kind.ARCHIVE))
    blocks = [ledger.hand_out("w") for _ in range(AT_ONCE)]
    for block in blocks if known else reversed(blocks):
        assert block is not None
        assert not ledger.is_done
        ledger.answered("w", block, Reply(ended=True))
    assert [freed for _, freed in ledger.ready()] == [0, 0, 0, 1]
    assert ledger.is_done
    assert ledger.hand_out("w") is None


def test_without_an_order_replies_come_as_soon_as_they_are_there() -> None:
    ledger = Ledger(lambda so_far: 2, 10, ordered=False)
    for number in range(6):
        ledger.add(Source(f"{number}.jpg"))
    ledger.add(Source("photos.tar", Kind.ARCHIVE))
    first, second = ledger.hand_out("a"), ledger.hand_out("b")
    assert first is not None
    assert second is not None
    ledger.answered("b", second, Reply(answered=2))
    assert list(ledger.ready()) == [(Reply(answered=2), 2)]
    ledger.lost("a")
    third = ledger.hand_out("b")
    assert third is not None
    assert third.sources == first.sources  # what was lost
    ledger.answered("b", third, Reply(answered=2))
    fourth, members = ledger.hand_out("a"), ledger.hand_out("b")
    assert fourth is not None
    assert members is not None
    ledger.answered("b", members, Reply(answered=1, ended=True))
    assert list(ledger.ready()) == [(Reply(answered=2), 2), (Reply(answered=1, ended=True), 0)]
    ledger.answered("a", fourth, Reply(answered=2))
    assert list(ledger.known()) == [Reply(answered=2)]
    assert list(ledger.ready()) == [(Reply(answered=2), 2), (Reply(), 1)]
    assert ledger.is_done
