"""A Ray cluster of several nodes on this machine, in namespaces of its own: nothing of it is left when it closes.

Nodes run with hooks in place of what pictures do to a program now and then: one with `crash` in its name ends the
process that reads it, one with `gate` is not read while the gate is closed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
HEAD, SECOND = "127.0.0.1", "127.0.0.2"
PORT = 6390
PATIENCE = 40.0  # seconds

# The first process of the namespace. It brings up the loopback device, and buries those whose parents have died.
_FIRST = """
import fcntl, signal, socket, struct, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
print("up", flush=True)
sys.stdin.read()
"""

# For the nodes' workers, as sitecustomize.
_HOOKS = r"""
import os, sys

if "default_worker" in " ".join(sys.orig_argv):
    import importlib.abc, importlib.machinery

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "hiera_cli.pipeline.prepare":
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), hook(module))
            return spec

    def hook(module):
        if os.path.exists(os.environ["TEST_DYING"]):
            os._exit(1)
        real = module.prepare

        def prepare(source, *rest, **named):
            import ctypes, threading, time

            name = source.path.rpartition("/")[2]
            if "crash" in name:
                ctypes.string_at(0)
            if "gate" in name:
                gate = os.path.join(os.environ["TEST_GATE"], str(os.getppid()))
                new = f"{gate}.{threading.get_ident()}"
                with open(new, "w") as stream:
                    stream.write(str(os.getpid()))
                os.rename(new, gate)
                while os.path.exists(os.path.join(os.environ["TEST_GATE"], "closed")):
                    time.sleep(0.01)
            return real(source, *rest, **named)

        module.prepare = prepare

    sys.meta_path.insert(0, Finder())
"""


def reason_for_none() -> str:
    """Why there can't be a cluster for tests on this machine; "" if there can."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        return "ray is not installed"
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return "unshare and nsenter, of util-linux, are not here"
    with suppress(OSError, RuntimeError):
        with _namespace() as process:
            _first_of(process)
        return ""
    return "namespaces for processes and the network are not allowed here"


@contextmanager
def _namespace() -> Iterator[subprocess.Popen[str]]:
    command = ["unshare", "-rnpf", "--kill-child", "--mount-proc", sys.executable, "-Sc", _FIRST]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        if process.stdout.readline() != "up\n":
            raise RuntimeError("no namespaces")
        yield process


def _first_of(process: subprocess.Popen[Any]) -> str:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed. A name that is no UTF-8 is in it as Python has it."""

    status: int
    out: str
    err: str


class Cluster:
    """Commands in the namespaces, and nodes, of which there are none at first.

    folder: for files; what commands start in, too. environment: of all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.gate.mkdir()
        self.dying = folder / "dying"  # while it is there, workers die before they have their model
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_HOOKS)
        (folder / "home").mkdir()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HIERA_", "HUGGING", "RAY_", "AWS_", "COV_", "PYTEST_"))
        }
        self.environment = {
            **kept,
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "HIERA_MODEL": "demo",
            "HIERA_ENGINE": "torch",
            "HIERA_DEVICE": "cpu",
            "HIERA_PRECISION": "fp32",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "TEST_GATE": str(self.gate),
            "TEST_DYING": str(self.dying),
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self._inside = _namespace()
        self._pid = _first_of(self._inside.__enter__())
        # Ray keeps all that it has under /tmp/ray: here it has one of its own.
        self.run("bash", "-c", "mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray")

    def close(self) -> None:
        """End it, and all that runs in it."""
        self._inside.__exit__(None, None, None)
        for process in self._started:
            if process.returncode is None:  # a test that failed left it
                process.communicate()

    # ---- commands

    def start(
        self, *command: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command, its streams in pipes."""
        process = subprocess.Popen(
            ["nsenter", "-t", self._pid, "--all", "--preserve-credentials", f"--wd={cwd or self.folder}", *command],
            env={**self.environment, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def run(self, *command: str, input: bytes = b"", timeout: float = 60, **about: Any) -> Ended:
        """Run a command to its end."""
        return ended(self.start(*command, **about), input, timeout)

    def hiera(self, *arguments: str | Path, **about: Any) -> Ended:
        """Run the program."""
        return self.run(*program(*arguments), **about)

    def start_hiera(self, *arguments: str | Path, **about: Any) -> subprocess.Popen[bytes]:
        """Start the program."""
        return self.start(*program(*arguments), **about)

    # ---- nodes

    def start_head(self, *, cores: int = 1, **env: str) -> None:
        """The first node."""
        self._start_node(HEAD, "--head", f"--port={PORT}", "--include-dashboard=false", cores=cores, env=env)

    def start_node(self, address: str = SECOND, *, before: str = "", **env: str) -> None:
        """Another one. before: what is done ahead of it, in a mount namespace that it alone is in."""
        self._start_node(address, f"--address={HEAD}:{PORT}", before=before, env=env)

    def _start_node(self, address: str, *options: str, env: dict[str, str], before: str = "", cores: int = 1) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--node-ip-address={address}"]
        ray += [f"--num-cpus={cores}", "--object-store-memory=100000000", "--disable-usage-stats"]
        apart = ["unshare", "-m", "bash", "-c", f'{before} && exec "$@"', "bash"] if before else []
        path = f"{self.folder / 'site'}:{ROOT}"
        done = self.run(*apart, *ray, env={"PYTHONPATH": path, **env})
        assert done.status == 0, done

    def processes(self, words: str) -> list[int]:
        """Processes of these namespaces with these words in their command line."""
        mine = os.readlink(f"/proc/{self._pid}/ns/pid")
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/pid") == mine:
                    line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if words in line:
                        found.append(int(name))
        return found

    def kill(self, words: str, number: int = signal.SIGKILL) -> None:
        """Send these processes a signal. There is one at least."""
        found = self.processes(words)
        assert found, words
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def raylet_of(self, address: str) -> int:
        """The process of a node, by its number in the namespace."""
        (found,) = self.processes(f"--node_ip_address={address} ")
        status = Path(f"/proc/{found}/status").read_text()
        return int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])

    # ---- the gate

    def close_gate(self) -> None:
        """Pictures with `gate` in their names are not read from here on."""
        shutil.rmtree(self.gate, ignore_errors=True)
        self.gate.mkdir()
        (self.gate / "closed").touch()

    def wait_at_gate(self, process: subprocess.Popen[bytes], raylet: int) -> int:
        """Wait until a node, told by its process, is to read one: the process that is to do it."""
        there = self.gate / str(raylet)
        wait_for(lambda: there.exists() or process.poll() is not None)
        if not there.exists():
            raise AssertionError(ended(process))
        return int(there.read_text())

    def kill_inside(self, number: int) -> None:
        """End a process, by its number in the namespace."""
        assert self.run("bash", "-c", f"kill -9 {number}").status == 0

    def open_gate(self) -> None:
        """They are read again."""
        (self.gate / "closed").unlink()


def program(*arguments: str | Path) -> Sequence[str]:
    """The command line of the program."""
    return [sys.executable, "-m", "hiera_cli", *map(str, arguments)]


def ended(process: subprocess.Popen[bytes], input: bytes = b"", timeout: float = 60) -> Ended:
    """Wait until a command ends."""
    try:
        out, err = process.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        raise AssertionError(f"it did not end: {out!r} {err!r}") from None
    return Ended(process.returncode, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"))


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a command a signal: nsenter, which was started, has it as its child."""
    os.kill(int(_first_of(process)), number)


def wait_for(holds: Callable[[], bool]) -> None:
    """Until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
