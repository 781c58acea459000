"""The books of a run on a cluster, free of Ray: which inputs are where, which were lost, what has come of them.

Inputs are gathered in units: so many files, or an archive, whose members its worker finds. A unit is handed out in
blocks. A block whose worker died is done again by a worker that does nothing else meanwhile; where that one dies too it
is cut into smaller ones, until an input that has ended its worker alone, twice, is given up: it gets an error record.
An archive that ends its workers as it is read, to get at one of its members, ends there, with such a record.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.result import Result

AT_ONCE = 3  # blocks of one worker: while it replies to one it has the next, and one to read ahead in
PIECES = 8  # of a block that ends its workers
LIVES = 2  # workers that one input may end, alone


@dataclass(frozen=True)
class Block:
    """Inputs for one worker: `count` of a unit from its place `start` on.

    sources: these; of an archive none. archive: whose members they are, in its order. opens: they are not behind those
    of the worker's block before, so that the archive is read anew. named_before: how often that archive was an input
    before. alone: nothing else is to be done beside it. given_up: it is not read any more, and each of its inputs gets
    its error.
    """

    unit: int
    start: int
    count: int
    sources: tuple[Source, ...] = ()
    archive: Source | None = None
    opens: bool = True
    named_before: int = 0
    alone: bool = False
    given_up: bool = False


@dataclass(frozen=True)
class Reply:
    """What has come of a block.

    results: in order, fewer than inputs where the run was stopped; of a run whose workers write parts, failures alone.
    answered: how many others are in a part. before: inputs that earlier parts have. ended: the archive has no more
    members. skipped, warnings, told: of those that were passed over in it.
    """

    results: Sequence[Result] = ()
    answered: int = 0
    before: int = 0
    ended: bool = False
    skipped: Skipped = field(default_factory=Skipped)
    warnings: tuple[str, ...] = ()
    told: tuple[tuple[str, str], ...] = ()


class _Piece:
    """A block on its way. deaths: of workers that had it."""

    __slots__ = ("block", "deaths", "reply")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.deaths = 0
        self.reply: Reply | None = None


class _Unit:
    """pieces: in input order, those that are not yielded yet. next: where an archive's next block begins.

    named_before: how often it was an input before. breaks: the place in an archive that no worker gets past.
    """

    __slots__ = ("archive", "breaks", "ended", "named_before", "next", "number", "opens", "pieces")

    def __init__(self, number: int, archive: Source | None) -> None:
        self.number = number
        self.archive = archive
        self.pieces: list[_Piece] = []
        self.next = 0
        self.opens = True
        self.ended = archive is None
        self.named_before = 0
        self.breaks: int | None = None

    def is_settled(self, piece: _Piece | None = None) -> bool:
        """Whether no block of it waits to be done again, of those before this piece."""
        for each in self.pieces:
            if each is piece:
                break
            if each.block.alone and each.reply is None:
                return False
        return True


class Ledger:
    """size: of the next block, by how many inputs are in blocks already. held: replies that wait for earlier ones.

    ordered: replies come in input order; else as soon as they are there.
    """

    def __init__(self, size: Callable[[int], int], most_held: int, *, ordered: bool = True) -> None:
        self._ordered = ordered
        self._come: deque[tuple[Reply, int]] = deque()  # replies whose turn it is, without an order
        self._size = size
        self._most_held = most_held
        self._held = 0
        self._in_blocks = 0
        self._count = 0  # of units
        self._gathered: list[Source] = []
        self._units: deque[_Unit] = deque()  # in input order, those that are not done: their numbers have no gap
        self._fresh: deque[_Piece] = deque()
        self._named: Counter[str] = Counter()  # archives, by path
        self._archives: list[_Unit] = []  # that no worker reads, in input order
        self._reading: dict[Hashable, _Unit] = {}  # by worker
        self._again: list[_Piece] = []  # in input order
        self._making_room: set[Hashable] = set()  # workers that get nothing, to be free for one of these
        self._out: dict[Hashable, list[_Piece]] = {}

    @property
    def is_done(self) -> bool:
        """Whether nothing is waiting and nothing under way."""
        return not self._units and not self._gathered

    @property
    def has_gathered(self) -> bool:
        """Whether there are inputs that make no whole block yet."""
        return bool(self._gathered)

    def add(self, source: Source) -> None:
        """Take the next input."""
        if source.kind is Kind.ARCHIVE:
            self.close_block()
            unit = self._new_unit(source)
            unit.named_before = self._named[source.path]
            self._named[source.path] += 1
            self._archives.append(unit)
            return
        self._gathered.append(source)
        if len(self._gathered) >= self._size(self._in_blocks):
            self.close_block()

    def close_block(self) -> None:
        """Make a block of what has been gathered."""
        if self._gathered:
            unit = self._new_unit(None)
            block = Block(unit.number, 0, len(self._gathered), tuple(self._gathered))
            self._gathered.clear()
            self._in_blocks += block.count
            unit.pieces.append(_Piece(block))
            self._fresh.append(unit.pieces[0])

    def _new_unit(self, archive: Source | None) -> _Unit:
        unit = _Unit(self._count, archive)
        self._count += 1
        self._units.append(unit)
        return unit

    def _unit(self, number: int) -> _Unit:
        return self._units[number - self._units[0].number]

    def under_way(self, worker: Hashable) -> int:
        """How many blocks a worker has."""
        return len(self._out.get(worker, ()))

    def hand_out(self, worker: Hashable) -> Block | None:
        """The next block for a worker; None if there is none for it now."""
        mine = self._out.setdefault(worker, [])
        if len(mine) >= AT_ONCE or any(piece.block.alone for piece in mine):
            return None
        again = self._again_now()
        if again and (worker in self._making_room or len(self._making_room) < len(again)):
            self._making_room.add(worker)
            if mine:
                return None
            piece: _Piece | None = again[0]
            self._again.remove(again[0])
        else:
            piece = self._next_piece(worker)
        self._making_room.discard(worker)
        if piece is None:
            return None
        mine.append(piece)
        return piece.block

    def _again_now(self) -> list[_Piece]:
        """What can be done again: of an archive one block after the other, as none may get past one of its members."""
        return [
            piece
            for piece in self._again
            if piece.block.archive is None or self._unit(piece.block.unit).is_settled(piece)
        ]

    def _next_piece(self, worker: Hashable) -> _Piece | None:
        first = next((unit for unit in self._archives if self._is_free_for(worker, unit)), None)
        if first is not None and first is self._units[0] and self._held >= self._most_held:
            self._let_go(worker)  # or those that wait for it would wait for ever
        unit = self._reading.get(worker)
        if unit is None and first is not None and not self._fresh_is_before(first):
            unit = self._reading[worker] = first
            self._archives.remove(first)
        if unit is not None and (self._held < self._most_held or self._is_waited_for(unit)):
            block = Block(
                unit.number,
                unit.next,
                self._size(self._in_blocks),
                archive=unit.archive,
                opens=unit.opens,
                named_before=unit.named_before,
            )
            unit.opens = False
            unit.next += block.count
            self._in_blocks += block.count
            unit.pieces.append(_Piece(block))
            return unit.pieces[-1]
        return self._fresh.popleft() if self._fresh else None

    def _is_waited_for(self, unit: _Unit) -> bool:
        """Whether what is held waits for more of it: it is in front, and little of it is under way."""
        return unit is self._units[0] and len(unit.pieces) < AT_ONCE

    def _is_free_for(self, worker: Hashable, archive: _Unit) -> bool:
        """Whether a worker may read on in an archive: nothing of it is done again, nor still under way with it."""
        return archive.is_settled() and all(piece.block.unit != archive.number for piece in self._out[worker])

    def _let_go(self, worker: Hashable) -> None:
        """Leave the archive that a worker reads to whoever comes next."""
        unit = self._reading.pop(worker, None)
        if unit is not None:
            unit.opens = True
            insort(self._archives, unit, key=lambda each: each.number)

    def _fresh_is_before(self, archive: _Unit) -> bool:
        return bool(self._fresh) and self._fresh[0].block.unit < archive.number

    def answered(self, worker: Hashable, block: Block, reply: Reply) -> None:
        """Take what has come of a block."""
        mine = self._out[worker]
        piece = next(each for each in mine if each.block is block)
        mine.remove(piece)
        piece.reply = reply
        if self._ordered:
            self._held += len(reply.results)
        else:
            unit = self._unit(block.unit)
            unit.pieces.remove(piece)
            self._come.append((reply, _inputs(unit, piece)))
        if reply.ended:
            self._end(block.unit)

    def _end(self, number: int) -> None:
        """An archive has no more members: it may be with any worker by now, or with none."""
        unit = self._unit(number)
        unit.ended = True
        self._archives = [each for each in self._archives if each is not unit]
        self._reading = {worker: each for worker, each in self._reading.items() if each is not unit}

    def lost(self, worker: Hashable) -> None:
        """Take back what a worker had that died."""
        self._making_room.discard(worker)
        self._let_go(worker)
        for piece in self._out.pop(worker, []):
            unit = self._unit(piece.block.unit)
            if unit.breaks is not None and piece.block.start > unit.breaks:
                unit.pieces.remove(piece)
                continue
            piece.deaths += 1
            if not piece.block.alone:
                piece.block = replace(piece.block, alone=True, opens=True)
                piece.deaths = 0  # which of those that it had beside each other ended it is not known
                self._do_again(piece)
            elif piece.block.count > 1:
                for smaller in self._cut(piece):
                    self._do_again(smaller)
            elif piece.block.archive is not None and piece.deaths >= 2 * LIVES:
                self._break(unit, piece)
            else:
                piece.block = replace(piece.block, given_up=piece.deaths >= LIVES)
                self._do_again(piece)

    def _do_again(self, piece: _Piece) -> None:
        insort(self._again, piece, key=lambda each: (each.block.unit, each.block.start))

    def _break(self, unit: _Unit, piece: _Piece) -> None:
        """Have an archive end at a place that can't be got past, with an error that names it."""
        assert unit.archive is not None
        unit.breaks = piece.block.start
        piece.block = replace(piece.block, archive=None, sources=(unit.archive,))
        gone = [each for each in self._again if each.block.unit == unit.number and each.block.start > unit.breaks]
        self._again = [each for each in self._again if each not in gone]
        unit.pieces = [each for each in unit.pieces if each not in gone]
        self._do_again(piece)
        self._end(unit.number)

    def _cut(self, piece: _Piece) -> list[_Piece]:
        """Smaller pieces, which take its place."""
        block = piece.block
        length = -(-block.count // PIECES)
        starts = range(0, block.count, length)
        pieces = [
            _Piece(
                replace(
                    block,
                    start=block.start + start,
                    count=min(length, block.count - start),
                    sources=block.sources[start : start + length],
                )
            )
            for start in starts
        ]
        unit = self._unit(block.unit)
        place = unit.pieces.index(piece)
        unit.pieces[place : place + 1] = pieces
        return pieces

    def ready(self) -> Iterator[tuple[Reply, int]]:
        """The replies whose turn it is, each with how many of the inputs that were added it ends."""
        while self._come:
            yield self._come.popleft()
        while self._units:
            unit = self._units[0]
            while unit.pieces and (reply := unit.pieces[0].reply) is not None:
                piece = unit.pieces.pop(0)
                self._held -= len(reply.results)
                yield reply, _inputs(unit, piece)
            if unit.pieces or not unit.ended:
                return
            self._units.popleft()
            if unit.archive is not None:
                yield Reply(), 1

    def known(self) -> Iterator[Reply]:
        """The end of a run that ends early: the replies that there are, in input order, across the gaps."""
        for reply, _ in self._come:
            yield reply
        for unit in self._units:
            for piece in unit.pieces:
                if piece.reply is not None:
                    yield piece.reply


def _inputs(unit: _Unit, piece: _Piece) -> int:
    """How many of the inputs that were added a piece is."""
    return 0 if unit.archive is not None else piece.block.count
