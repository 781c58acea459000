"""The standard streams: closed, full, slow, short of place, or left by their reader. `hiera labels` needs no model."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SAMPLES, Bash, Call

from hiera_cli.system.streams import write_whole
from hiera_cli.system.threads import apart

CAT = SAMPLES / "cat.jpg"

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu", "_quickest_engine")


@pytest.fixture
def _quickest_engine(environment: dict[str, str]) -> None:
    environment["HIERA_ENGINE"] = "auto"


@pytest.mark.parametrize("command", ["--help", "--version", "labels", f"classify {CAT} -q"])
def test_a_full_disk_behind_stdout_is_told_in_a_sentence(bash: Bash, command: str) -> None:
    done = bash(f"hiera {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "hiera: error: cannot write to standard output: No space left on device\n"


def test_a_file_behind_stdout_that_may_not_grow_holds_whole_records(bash: Bash, tmp_path: Path) -> None:
    done = bash(f"ulimit -f 1; hiera classify {SAMPLES} {SAMPLES} -k 2 -f jsonl -q > out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines(keepends=True)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"hiera: stopped early: {len(lines)} labelled, \d\.\d s\n"
        "hiera: error: cannot write to standard output: File too large\n",
        done.stderr,
    )
    assert 1 <= len(lines) < 12
    assert all(json.loads(line)["status"] == "ok" and line.endswith("\n") for line in lines)


def test_only_what_was_written_is_counted_as_labelled(bash: Bash, tmp_path: Path) -> None:
    done = bash(f"ulimit -f 1; hiera classify {SAMPLES} {SAMPLES} -k 2 -o out.jsonl")
    written = len((tmp_path / "out.jsonl.part").read_text().splitlines())
    assert done.returncode == 2
    assert f"hiera: stopped early: {written} labelled, " in done.stderr


def test_an_output_without_a_name_is_refused_before_any_work(call: Call, tmp_path: Path) -> None:
    done = call("classify", CAT, "-o", "")
    assert (done.status, done.out) == (2, "")
    assert done.err == ("hiera: error: --output needs a name: it is empty\n  Is a variable of the script not set?\n")
    assert not list(tmp_path.rglob("*.part"))


def test_what_others_wrote_behind_a_torn_write_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    other = os.open(tmp_path / "out", os.O_WRONLY | os.O_APPEND)
    real(descriptor, b"mine\n")

    def half(to: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(to, bytes(data[:3]))

    def full(to: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        write_whole(descriptor, b"torn\n")
    assert (tmp_path / "out").read_bytes() == b"mine\n"

    def half_and_another(to: int, data: bytes) -> int:
        half(to, data)
        return real(other, b"theirs\n") and 3

    monkeypatch.setattr(os, "write", half_and_another)
    with pytest.raises(OSError, match="No space left"):
        write_whole(descriptor, b"torn\n")
    assert (tmp_path / "out").read_bytes() == b"mine\ntortheirs\n"


def test_a_pipe_that_takes_little_at_a_time_and_does_not_block_gets_everything(environment: dict[str, str]) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    command = [sys.executable, "-m", "hiera_cli", "labels", "--json"]
    with subprocess.Popen(command, env={**environment, "PYTHONUNBUFFERED": "1"}, stdout=writer) as process:
        os.close(writer)
        time.sleep(0.3)  # the pipe is full meanwhile
        with open(reader, "rb") as stream:
            labels = json.loads(stream.read())
    assert process.returncode == 0
    assert len(labels) == 1000


@pytest.mark.parametrize("loss", ["2> /dev/full", "2>&-", "2> >(exec true)"])
def test_the_loss_of_stderr_stops_nothing(bash: Bash, loss: str) -> None:
    missing = " ".join(f"missing-{number}.jpg" for number in range(200))
    done = bash(f"hiera classify {missing} {CAT} {missing} -f jsonl {loss} | cat; echo ${{PIPESTATUS[0]}}")
    *records, status = done.stdout.splitlines()
    assert [json.loads(record)["status"] for record in records] == ["error"] * 200 + ["ok"] + ["error"] * 200
    assert status == "1"


def test_the_loss_of_stderr_takes_no_progress_bar_with_it(bash: Bash) -> None:
    done = bash(f"hiera classify {SAMPLES} --progress -f jsonl 2> /dev/full | wc -l")
    assert done.stdout.strip() == "6"


def test_closed_streams_are_taken_for_no_other_file(bash: Bash, tmp_path: Path) -> None:
    done = bash(f"hiera classify - {CAT} -k 1 -f jsonl -q <&-")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["status"], first["error"]["message"]) == ("error", "cannot read stdin: Bad file descriptor")
    assert second["predictions"][0]["label"] == "tabby, tabby cat"

    done = bash(f"hiera classify {CAT} -k 1 -o out.jsonl >&-; echo $? >&2")
    assert done.stderr.endswith(" s → out.jsonl\n0\n")
    assert json.loads((tmp_path / "out.jsonl").read_text())["status"] == "ok"

    done = bash(f"hiera classify {CAT} -q >&-; echo $? >&2; hiera labels cat >&- 2>&-; echo $? >&2")
    assert done.stderr == "hiera: error: cannot write to standard output: Bad file descriptor\n2\n2\n"


def test_a_list_on_a_closed_stdin_is_an_error_in_a_sentence(bash: Bash) -> None:
    done = bash("hiera classify --files-from - <&-")
    assert done.returncode == 2
    assert done.stderr == "hiera: error: cannot read the list -: Bad file descriptor\n"


def test_the_reader_of_any_command_may_leave(bash: Bash) -> None:
    for command in ("--help", "labels", "models --json"):
        done = bash(f"hiera {command} | true; echo ${{PIPESTATUS[0]}}")
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_an_interrupt_before_there_is_anything_to_end_is_no_traceback(environment: dict[str, str]) -> None:
    script = """
import os, signal, sys
sys.argv = ["hiera", "labels"]
import hiera_cli.__main__
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("command", ["download", "bench -m tiny"])
def test_an_interrupted_command_cleans_up_and_says_so(bash: Bash, tmp_path: Path, command: str) -> None:
    script = f"""
import os, signal, sys, threading, time
sys.argv = ["hiera", *{command.split()!r}]
from hiera_cli import bench
from hiera_cli.checkpoints import hub
def slow(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
hub.fetch = slow
bench._photos = slow
from hiera_cli.__main__ import run
run()
"""
    (tmp_path / "script.py").write_text(script)
    done = bash(f"mkdir tmp; TMPDIR=$PWD/tmp {sys.executable} script.py; status=$?; ls tmp; exit $status")
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr.endswith("hiera: interrupted\n")
    assert "Traceback" not in done.stderr


def test_signals_that_a_script_ignores_stay_ignored(bash: Bash) -> None:
    slow_list = "<(echo missing.jpg; sleep 1)"
    done = bash(f"trap '' INT; hiera classify --files-from {slow_list} & sleep 0.7; kill -INT $!; wait $!")
    assert done.returncode == 1
    assert "interrupted" not in done.stderr


def test_an_interrupt_ends_the_wait_and_not_the_call() -> None:
    script = """
import os, signal, time
from hiera_cli.system.threads import apart
def call():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    os.write(1, b"the call ended")
    os._exit(0)
try:
    apart(call)
except KeyboardInterrupt:
    os.write(1, b"the wait ended, ")
    time.sleep(10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30)
    assert done.stdout == b"the wait ended, the call ended"


def test_what_is_done_apart_returns_raises_and_may_take_too_long() -> None:
    assert apart(lambda: 3) == 3
    with pytest.raises(KeyError):
        apart(lambda: {"": 0}["x"])
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        apart(lambda: time.sleep(1), 0.01)


def test_a_fault_of_the_program_is_a_sentence_and_the_document_is_closed(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiera_cli.tasks import classify

    def fault(*arguments: object) -> None:
        raise TypeError("a\nfault")

    monkeypatch.setattr(classify, "predict", fault)
    done = call("classify", CAT, "--json", "-q")
    assert (done.status, json.loads(done.out)) == (2, [])
    assert done.err.startswith("hiera: error: internal error, which should not happen: TypeError: a\\nfault (")
    assert done.err.count("\n") == 2


@pytest.mark.parametrize("option", ["--min-score", "--url-timeout"])
@pytest.mark.parametrize("value", ["nan", "inf", "-nan"])
def test_a_number_that_is_none_is_refused(call: Call, option: str, value: str) -> None:
    assert call("classify", CAT, option, value).status == 2


def test_a_removed_folder_is_told_in_a_sentence(bash: Bash) -> None:
    done = bash(f"mkdir gone; cd gone; rmdir ../gone; hiera classify {CAT} -o x.csv")
    assert done.returncode == 2
    told = "hiera: error: the current folder has been removed\n  cd to another one, and try again.\n"
    assert done.stderr.endswith(told)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that Linux has")
@pytest.mark.parametrize("kilobytes", [600_000, 850_000, 900_000])
def test_an_address_space_too_small_for_the_threads_is_told_in_a_sentence(bash: Bash, kilobytes: int) -> None:
    done = bash(f"ulimit -v {kilobytes}; hiera classify {CAT} --json --engine torch")
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert re.search(
        r"^hiera: error: (cpu has not enough free memory|cpu failed: |there is not enough memory)",
        done.stderr,
        re.MULTILINE,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that Linux has")
@pytest.mark.parametrize("command", ["classify --engine torch", "embed --engine torch", "reconstruct"])
def test_what_pytorch_takes_of_the_address_space_is_asked_for_before_it_is_imported(bash: Bash, command: str) -> None:
    done = bash(f"ulimit -v 700000; hiera {command} {CAT} -m demo --json -q")
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr == (
        "hiera: error: there is not enough memory for PyTorch: the address space is limited to 683 MiB (ulimit -v)\n"
        "  Raise that limit, or run without it.\n"
    )


APART = """
import os, sys
from hiera_cli.system import streams
streams.set_up()
print("before", file=sys.stderr)
streams.set_apart_from_libraries()
streams.set_apart_from_libraries()  # once is enough
os.write(2, b"a C library\\n")
os.system("echo a process >&2")
print("ours", file=sys.stderr)
streams.interject("of a signal\\n")
print("result")
"""


@pytest.mark.skipif(os.name != "posix", reason="descriptors are swapped on POSIX alone")
def test_what_libraries_write_to_stderr_past_python_is_dropped_and_ours_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", APART], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "before\nours\nof a signal\n")
