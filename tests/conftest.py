"""Fixtures: the program as a user runs it, a Hub on this machine, checkpoints whose right answers are known."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hiera_cli.checkpoints.checkpoint import Checkpoint
    from hiera_cli.engines.engine import Engine

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_images"
# As a run says how long it took, on a machine of any speed.
TOOK = r"(?:\d+ min )?\d+(?:\.\d)? s(?:, \d+\.\d/s)?"

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Several processes share the cores: a thread of PyTorch's that waits is not to keep one busy. Read at its import.
os.environ["OMP_WAIT_POLICY"] = "passive"

Hiera = Callable[..., "subprocess.CompletedProcess[str]"]
Bash = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """How many processes share the tests: one a core; none where some are named, which are done before they start."""
    return None if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.fixture(scope="session")
def samples() -> dict[Path, int]:
    """The sample images and their true classes."""
    from tools.make_demo import TRUE_LABELS

    return {SAMPLES / name: index for name, index in TRUE_LABELS.items()}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, samples: dict[Path, int]) -> Path:
    """Hiera-Tiny in the published layout, right on the sample images: a root with the repository's name below it."""
    from checkpoint_maker import save, tiny_model

    root = tmp_path_factory.mktemp("hub")
    save(tiny_model(samples), root / "facebook" / "hiera-tiny-224-in1k-hf")
    return root / "facebook" / "hiera-tiny-224-in1k-hf"


@pytest.fixture(scope="session")
def small_hub(tmp_path_factory: pytest.TempPathFactory, samples: dict[Path, int]) -> Path:
    """A root like the above with a Hiera of 2 MB, right on the sample images too, under Hiera-Tiny's name."""
    from checkpoint_maker import SMALL, fit_classifier, reference_model, save

    root = tmp_path_factory.mktemp("small-hub")
    model = reference_model(SMALL)
    fit_classifier(model, samples)
    save(model, root / "facebook" / "hiera-tiny-224-in1k-hf")
    return root


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative name means nothing that lies about where the tests are started, or beside."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _compiled_models_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep what they compile to themselves."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def environment(tmp_path: Path, _compiled_models_apart: None) -> dict[str, str]:
    """A clean environment: an empty cache, and a Hub that is not there."""
    # Without bytecode each process would compile the whole program anew.
    others = ("HF_", "HIERA_", "HUGGING", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": "default",
        "COLUMNS": "100",
        "HIERA_ENGINE": "torch",
        "NO_PROXY": "127.0.0.1,localhost",
    }


# Asked without importing it, which is for the engine to do.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture(params=["torch", pytest.param("openvino", marks=needs_openvino)])
def engine(request: pytest.FixtureRequest, environment: dict[str, str]) -> str:
    """The contract is one for every engine."""
    environment["HIERA_ENGINE"] = request.param
    return str(request.param)


# For what is no affair of the engine's: the one that starts sooner by default, both in the slow run.
either_engine = pytest.mark.parametrize(
    "engine",
    [pytest.param("torch", marks=pytest.mark.slow), pytest.param("openvino", marks=needs_openvino)],
    indirect=True,
)

Open = Callable[["Checkpoint"], "Engine"]


@pytest.fixture
def open_fp32(engine: str) -> Open:
    """Put a checkpoint on the CPU in fp32, in this process."""
    from hiera_cli.engines.open import open_engine
    from hiera_cli.engines.placement import Placement

    return lambda checkpoint: open_engine(checkpoint, Placement("cpu", "fp32", engine), save=False)


@pytest.fixture(scope="session")
def compiled_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all that only label with the demo model: it is compiled once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def demo_on_the_cpu(environment: dict[str, str], compiled_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is quick, and the same on every machine."""
    environment.update(HIERA_MODEL="demo", HIERA_DEVICE="cpu", HIERA_PRECISION="fp32")
    environment["XDG_CACHE_HOME"] = str(compiled_demo)
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiled_demo))


@pytest.fixture
def hiera(tmp_path: Path, environment: dict[str, str]) -> Hiera:
    """Run `hiera` in a process of its own, in an empty folder. stdin is empty unless given."""

    def run(
        *arguments: str | Path,
        input: str | bytes | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "hiera_cli", *map(str, arguments)],
            input=input.encode() if isinstance(input, str) else input or b"",
            capture_output=True,
            env={**environment, **(env or {})},
            cwd=cwd or tmp_path,
            timeout=timeout,
        )
        return subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode("utf-8", "surrogateescape"),
            done.stderr.decode("utf-8", "surrogateescape"),
        )

    return run


@pytest.fixture
def bash(tmp_path: Path, environment: dict[str, str]) -> Bash:
    """Run a line in bash, in an empty folder unless told, with `hiera` on the path."""
    program = tmp_path / "bin" / "hiera"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hiera_cli "$@"\n')
    program.chmod(0o755)
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"

    def run(line: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], env=environment, cwd=cwd or tmp_path, capture_output=True, text=True, timeout=120
        )

    return run


def in_a_terminal(environment: dict[str, str], *arguments: str | Path, size: str = "100x30") -> tuple[int, str]:
    """Run with stdout and stderr on one terminal; returns the exit status and all that was shown."""
    master, slave = pty.openpty()
    columns, _, lines = size.partition("x")
    command = [sys.executable, "-m", "hiera_cli", *map(str, arguments)]
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": columns, "LINES": lines, "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    return process.wait(), shown.decode("utf-8", "replace").replace("\r\n", "\n")


@pytest.fixture
def hub(small_hub: Path, environment: dict[str, str]) -> Iterator[object]:
    """A Hub that has facebook/hiera-tiny-224-in1k-hf, of a smaller shape, which `hiera` is pointed to."""
    from hub_server import Hub

    server = Hub(small_hub)
    environment["HF_ENDPOINT"] = server.url
    yield server
    server.close()


@dataclass(frozen=True)
class Done:
    """How a call of the program ended, and what it printed."""

    status: int
    out: str
    err: str

    def records(self) -> list[dict[str, Any]]:
        """Its output, one JSON record a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Call = Callable[..., Done]


@pytest.fixture(scope="session")
def commands() -> object:
    """The program's commands, as Typer makes them of its functions: once here, where many runs share a process."""
    from typer.main import get_command

    from hiera_cli.commands.app import app

    return get_command(app)


@pytest.fixture
def call(
    environment: dict[str, str],
    commands: object,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Call:
    """Run `hiera` in this process: quick, for what needs no process of its own (stdin, signals, imports)."""
    from hiera_cli.commands.app import main

    monkeypatch.setattr("typer.main.get_command", lambda app: commands)

    def run(*arguments: str | Path) -> Done:
        for name in {*environment, *os.environ}:
            if name.startswith("HIERA_"):
                monkeypatch.delenv(name, raising=False)
                if name in environment:
                    monkeypatch.setenv(name, environment[name])
        monkeypatch.setattr(sys, "argv", ["hiera", *map(str, arguments)])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfdbinary.readouterr()
        status = ended.value.code
        assert isinstance(status, int)
        return Done(status, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"))

    return run
