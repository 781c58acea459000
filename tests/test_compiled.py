"""The store of compiled models: what is found there is what was compiled, from these weights, whole. Any bytes do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from hiera_cli.checkpoints import published, resolve
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.engines import compiled
from hiera_cli.engines.compiled import TRAILER, Recipe
from hiera_cli.system import parts

BLOB = bytes(range(256)) * 100
AN_HOUR_AGO = 3600 * 10**9


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """The demo's, in a folder of its own, whose weights are taken to have been there for long."""
    monkeypatch.setattr(compiled, "AT_REST", -1)
    return resolve.resolve(str(shutil.copytree(published.DEMO_FOLDER, tmp_path / "model")))


def recipe(checkpoint: Checkpoint, precision: str = "fp32", *settings: str) -> Recipe:
    return Recipe(checkpoint, precision, settings)


def keep(checkpoint: Checkpoint, precision: str = "fp32", blob: bytes = BLOB) -> Path:
    made = recipe(checkpoint, precision)
    made.save(blob, checkpoint.digest())
    return made.path


def load(checkpoint: Checkpoint, precision: str = "fp32", *settings: str) -> bytes | None:
    content = recipe(checkpoint, precision, *settings).load()
    return None if content is None else content[:-TRAILER]


def flip_a_bit(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 4
    weights.write_bytes(content)


def test_what_was_kept_is_found_again(checkpoint: Checkpoint) -> None:
    assert load(checkpoint) is None
    keep(checkpoint)
    assert load(checkpoint) == BLOB
    for other in (replace(checkpoint, name="another"), replace(checkpoint, architecture=None)):  # type: ignore[arg-type]
        assert load(other) is None
    assert load(checkpoint, "bf16") is None
    assert load(checkpoint, "fp32", "another version") is None


def test_weights_that_are_mended_under_their_name_are_not_answered_for_by_what_was_compiled(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The Hub's cache calls a file by the digest that it should have."""
    blob = tmp_path / "blobs" / checkpoint.digest()
    blob.parent.mkdir()
    whole = checkpoint.weights.read_bytes()
    checkpoint.weights.rename(blob)
    checkpoint.weights.symlink_to(blob)
    flip_a_bit(blob)
    keep(checkpoint)
    assert load(checkpoint) == BLOB
    blob.unlink()
    blob.write_bytes(whole)
    assert load(checkpoint) is None


def test_weights_are_read_for_it_only_when_their_file_was_touched(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(checkpoint)
    os.utime(checkpoint.weights, ns=(0, 0))
    assert load(checkpoint) == BLOB  # the same bytes, and the new stamp is written down
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "digest", lambda self: pytest.fail("the weights were read"))
        assert load(checkpoint) == BLOB
    flip_a_bit(checkpoint.weights)
    os.utime(checkpoint.weights, ns=(0, 0))  # size and mtime as they were
    assert load(checkpoint) is None


def test_a_stamp_that_may_be_shared_by_a_later_change_is_not_relied_on(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "AT_REST", AN_HOUR_AGO)
    keep(checkpoint)
    read = []
    digest = Checkpoint.digest

    def reading(self: Checkpoint) -> str:
        read.append(1)
        return digest(self)

    monkeypatch.setattr(Checkpoint, "digest", reading)
    assert load(checkpoint) == BLOB
    assert read == [1]


def test_weights_that_change_while_they_are_compiled_leave_nothing(checkpoint: Checkpoint) -> None:
    made, digest = recipe(checkpoint), checkpoint.digest()
    flip_a_bit(checkpoint.weights)
    made.save(BLOB, digest)
    assert list(compiled.folder().iterdir()) == []


def test_two_that_are_swapped_are_not_taken_for_each_other(checkpoint: Checkpoint, tmp_path: Path) -> None:
    one, other = keep(checkpoint), keep(checkpoint, "bf16")
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert load(checkpoint) is None
    assert load(checkpoint, "bf16") is None


@pytest.mark.parametrize("position", [0, -TRAILER - 1, -TRAILER, -TRAILER + 100, -5, -1])
def test_a_flipped_bit_is_noticed_wherever_it_is(checkpoint: Checkpoint, position: int) -> None:
    path = keep(checkpoint)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert load(checkpoint) is None


@pytest.mark.parametrize("size", [0, 1, 4, TRAILER, len(BLOB)])
def test_a_file_that_was_cut_off_is_noticed(checkpoint: Checkpoint, size: int) -> None:
    os.truncate(keep(checkpoint), size)
    assert load(checkpoint) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owner here")
def test_code_of_another_user_is_not_run(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    path, user = keep(checkpoint), os.geteuid()
    if user == 0:
        os.chown(path, 1, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert load(checkpoint) is None


def test_the_newest_of_a_model_takes_the_place_of_the_others(checkpoint: Checkpoint) -> None:
    keep(checkpoint)
    keep(checkpoint, "bf16")
    newer = recipe(checkpoint, "fp32", "a newer version")
    newer.save(BLOB, checkpoint.digest())
    assert len(compiled.saved()) == 2
    assert newer.path in [each.path for each in compiled.saved()]


# ---- interrupted writers


def being_written() -> list[Path]:
    return list(compiled.folder().glob("*.part"))


@pytest.fixture
def target() -> Path:
    compiled.folder().mkdir(parents=True)
    return compiled.folder() / "model-fp32-0123.compiled"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_writer_that_is_interrupted_leaves_nothing(target: Path, error: type[BaseException]) -> None:
    def content() -> Iterator[bytes]:
        yield b"half of it"
        raise error

    with pytest.raises(error):
        parts.write(target, content())
    assert list(compiled.folder().iterdir()) == []


def test_what_a_killed_writer_left_is_told_and_removed(target: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from hiera_cli.system import parts\n"
        "def content():\n    yield bytes(2 << 20)\n    os.kill(os.getpid(), 9)\n"
        "parts.write(Path(sys.argv[1]), content())"
    )
    assert subprocess.run([sys.executable, "-c", code, target]).returncode == -signal.SIGKILL
    (part,) = being_written()
    assert [(each.name, each.bytes) for each in compiled.saved()] == [("left unfinished", part.stat().st_size)]
    assert compiled.clear() >= 2 << 20
    assert list(compiled.folder().iterdir()) == []


def test_the_next_writer_removes_what_was_left(checkpoint: Checkpoint, target: Path) -> None:
    (compiled.folder() / "tmpabcdef.part").write_bytes(bytes(1000))
    assert keep(checkpoint).exists()
    assert being_written() == []


def test_what_is_being_written_is_left_alone(checkpoint: Checkpoint, target: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"half of it"
        assert compiled.saved() == []
        compiled.clear()
        keep(checkpoint)
        assert len(being_written()) == 1
        yield b"the rest"

    parts.write(target, content())
    assert target.read_bytes() == b"half of itthe rest"


def test_who_took_a_part_for_a_leftover_and_is_late_removes_no_other(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, begun = parts._lock, []

    def taken(stream: IO[bytes], *, wait: bool) -> bool:
        begun.append(Path(stream.name))
        if len(begun) == 1:  # one removes it in the moment before it is locked
            begun[0].unlink()
        return lock(stream, wait=wait)

    def content() -> Iterator[bytes]:
        parts.remove(begun[:1])  # and so does another one, which had found it as well
        yield b"whole"

    monkeypatch.setattr(parts, "_lock", taken)
    parts.write(target, content())
    assert len(begun) == 2
    assert target.read_bytes() == b"whole"


def test_a_process_can_discard_its_own(target: Path) -> None:
    (compiled.folder() / "model-fp32-0123.compiled.1.23.part").touch()  # of another one

    def content() -> Iterator[bytes]:
        yield b"half of it"
        compiled.discard_own_parts()
        assert [path.name for path in being_written()] == ["model-fp32-0123.compiled.1.23.part"]

    with pytest.raises(FileNotFoundError):
        parts.write(target, content())


def test_without_a_home_they_are_kept_with_the_temporary_files(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(user: object) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compiled.folder() == tmp_path / f"hiera-cli-{os.getuid()}" / "compiled"
    keep(checkpoint)
    assert load(checkpoint) == BLOB
