"""Weights from the Hub: found in the cache without a request, else downloaded, verified, or explained."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLES, Bash, Hiera, either_engine
from hub_server import Hub

from hiera_cli.checkpoints import hub as hub_module
from hiera_cli.checkpoints import inventory

REPOSITORY = "facebook/hiera-tiny-224-in1k-hf"
CAT = SAMPLES / "cat.jpg"


def labels(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [record["predictions"][0]["label"] for record in json.loads(done.stdout)]


def blob_folder(environment: dict[str, str]) -> Path:
    return Path(environment["HF_HOME"]) / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "blobs"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def assert_fetched_whole(environment: dict[str, str], hub: Hub) -> None:
    weights = max(blob_folder(environment).iterdir(), key=lambda file: file.stat().st_size)
    assert digest(weights) == digest(hub.root / REPOSITORY / "model.safetensors")


@pytest.fixture
def _true_size(hub: Hub, tiny_folder: Path) -> None:
    hub.root = tiny_folder.parent.parent


of_true_size = pytest.mark.usefixtures("_true_size")  # the Hub's weights are Hiera-Tiny's own 112 MB


@either_engine
@of_true_size
def test_from_nothing_cached_to_a_label_and_again_with_the_hub_gone(hub: Hub, hiera: Hiera, engine: str) -> None:
    first = hiera("classify", CAT, "--json")
    assert labels(first) == ["tabby, tabby cat"]
    assert (
        "hiera: downloading facebook/hiera-tiny-224-in1k-hf, 111.7 MB; licence: CC BY-NC 4.0 (non-commercial use)\n"
    ) in first.stderr
    assert first.stderr.count("licence") == 1
    assert any("model.safetensors" in request for request in hub.requests)
    hub.requests.clear()
    assert labels(hiera("classify", CAT, "--json")) == ["tabby, tabby cat"]
    assert hub.requests == []
    hub.close()
    again = hiera("classify", CAT, "--json", "--precision", "fp32")
    assert labels(again) == ["tabby, tabby cat"]
    engines_say = {"torch": "", "openvino": "OpenVINO, "}[engine]
    assert re.fullmatch(rf"hiera: {REPOSITORY} on cpu \({engines_say}\d+ threads\), fp32\n", again.stderr)


def test_the_cache_is_the_ordinary_one(hub: Hub, environment: dict[str, str]) -> None:
    """What huggingface_hub fetched is found, and the other way round."""
    code = (
        "from huggingface_hub import hf_hub_download, try_to_load_from_cache; from hiera_cli.checkpoints import hub\n"
        f"name = {REPOSITORY!r}\n"
        "assert hub.cached(name, ['config.json']) is None\n"
        "file = hf_hub_download(name, 'config.json')\n"
        "assert [str(each) for each in hub.cached(name, ['config.json'])] == [file]\n"
        "assert hub.cached(name, ['config.json', 'model.safetensors']) is None\n"
        "hub.fetch(name, ['config.json', 'model.safetensors'])\n"
        "for each in ('config.json', 'model.safetensors'):\n"
        "    assert [str(path) for path in hub.cached(name, [each])] == [try_to_load_from_cache(name, each)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "~/elsewhere"},
        {"HF_HOME": "/a/$USER_OF_TEST/b"},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HUGGINGFACE_HUB_CACHE": "/legacy"},
        {"HUGGINGFACE_HUB_CACHE": "/legacy", "HF_HUB_CACHE": "~/new", "HF_HOME": "/home"},
        {"HF_HUB_OFFLINE": "yes"},
        {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
        {"TRANSFORMERS_OFFLINE": "ON"},
    ],
    ids=str,
)
def test_the_environment_means_what_it_means_to_huggingface_hub(variables: dict[str, str]) -> None:
    code = (
        "from huggingface_hub import constants; from hiera_cli.checkpoints import hub\n"
        "assert str(hub.cache_folder()) == constants.HF_HUB_CACHE, (hub.cache_folder(), constants.HF_HUB_CACHE)\n"
        "assert hub.is_offline() == constants.HF_HUB_OFFLINE\n"
    )
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_", "TRANSF"))
    }
    environment = {**kept, "USER_OF_TEST": "me", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_network_and_weights_it_says_what_was_tried_and_what_to_do(hiera: Hiera) -> None:
    done = hiera("classify", CAT, timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    first, *ways = done.stderr.splitlines()
    assert first.startswith(f"hiera: error: cannot download config.json of {REPOSITORY} from http://127.0.0.1:9: ")
    assert ways == [
        "  On a machine with a network: hiera download tiny --to DIR; then here: the same command with -m DIR",
        "  Behind a proxy or a mirror: set HTTPS_PROXY or HF_ENDPOINT (if a transfer hangs: HF_HUB_DISABLE_XET=1).",
        "  To try the program without weights: -m demo (it knows the sample images alone).",
    ]


def test_a_network_that_swallows_everything_ends_in_bounded_time(environment: dict[str, str]) -> None:
    script = f"""
import socket, sys, time
socket.getaddrinfo = lambda *arguments, **options: time.sleep(60)
from hiera_cli.checkpoints import hub
hub.FIRST_ANSWER = 0.5
sys.argv = ["hiera", "classify", {str(CAT)!r}]
from hiera_cli.__main__ import run
run()
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert ": no answer within 0.5 s\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "why"),
    [(["--offline"], {}, "offline mode"), ([], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")],
)
def test_offline_makes_no_request(hub: Hub, hiera: Hiera, arguments: list[str], env: dict[str, str], why: str) -> None:
    done = hiera("classify", CAT, *arguments, env=env)
    assert done.returncode == 2
    assert f"the weights of {REPOSITORY} are not on this machine" in done.stderr
    assert f"{why} forbids a download\n" in done.stderr
    assert ("  To download them here: leave out --offline.\n" in done.stderr) == ("--offline" in arguments)
    assert (
        "  On a machine with a network: hiera download tiny --to DIR; then here: the same command with -m DIR"
        in done.stderr
    )
    assert hub.requests == []


@pytest.mark.slow
@of_true_size
def test_a_broken_line_is_taken_up_again(hub: Hub, hiera: Hiera, environment: dict[str, str]) -> None:
    hub.break_off_at = 60_000_000
    hub.unavailable = 1
    done = hiera("download", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert_fetched_whole(environment, hub)


def test_an_altered_file_is_refused_and_not_kept(hub: Hub, hiera: Hiera, environment: dict[str, str]) -> None:
    hub.altered = True
    done = hiera("classify", CAT, "--json")
    assert done.returncode == 2
    assert f"model.safetensors of {REPOSITORY} arrived altered" in done.stderr
    assert all(file.stat().st_size < 1_000_000 for file in blob_folder(environment).iterdir())
    hub.altered = False
    assert hiera("download", "-q").returncode == 0
    assert_fetched_whole(environment, hub)


def test_a_process_killed_in_a_download_leaves_nothing_that_is_used(
    hub: Hub, hiera: Hiera, environment: dict[str, str]
) -> None:
    hub.stalls = 1
    process = subprocess.Popen(
        [sys.executable, "-m", "hiera_cli", "download"], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not any("GET /stored" in request for request in hub.requests):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    assert hiera("classify", CAT, "--offline").returncode == 2  # half a file is not taken for weights
    assert hiera("download", "-q").returncode == 0
    assert_fetched_whole(environment, hub)


@pytest.mark.slow
def test_a_transfer_that_stalls_is_taken_up_again(hub: Hub, hiera: Hiera, environment: dict[str, str]) -> None:
    hub.stalls = 2
    assert hiera("download", "-q", env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"}).returncode == 0
    assert hub.stalls == 0
    assert_fetched_whole(environment, hub)


@pytest.mark.slow
@of_true_size
def test_a_full_disk_ends_a_download_with_a_reason(
    hub: Hub, hiera: Hiera, bash: Bash, environment: dict[str, str]
) -> None:
    done = bash("ulimit -f 50000; exec hiera download")
    assert done.returncode == 2
    assert f"cannot download model.safetensors of {REPOSITORY} from {hub.url}: [Errno 27] File too large" in done.stderr
    assert hiera("download", "-q").returncode == 0
    assert_fetched_whole(environment, hub)


@pytest.mark.slow
@of_true_size
def test_two_that_start_at_once_on_an_empty_cache_both_end_well(hub: Hub, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hiera_cli", "download", "-q"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert_fetched_whole(environment, hub)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_header(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(30)
        stream.write(b"\xff")


def replace_with_text(file: Path) -> None:
    file.write_text("<html>login</html>")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        pytest.param(flip_header, marks=pytest.mark.slow),
        pytest.param(replace_with_text, marks=pytest.mark.slow),
    ],
)
def test_damaged_cached_weights_are_recognised_with_the_command_that_mends_them(
    hub: Hub, hiera: Hiera, environment: dict[str, str], damage: Callable[[Path], None]
) -> None:
    assert hiera("download", "-q").returncode == 0
    largest = max(blob_folder(environment).iterdir(), key=lambda file: file.stat().st_size)
    damage(largest)
    done = hiera("classify", CAT)
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr
    command = f"hiera download --force {REPOSITORY}"
    assert command in done.stderr
    assert hiera(*command.split()[1:], "-q").returncode == 0
    assert_fetched_whole(environment, hub)


def test_download_to_a_folder_to_carry(hub: Hub, hiera: Hiera, tmp_path: Path) -> None:
    done = hiera("download", "tiny", "--to", "carry")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tiny\tcarry\n"
    assert sorted(file.name for file in (tmp_path / "carry").iterdir()) == ["config.json", "model.safetensors"]
    assert digest(tmp_path / "carry" / "model.safetensors") == digest(hub.root / REPOSITORY / "model.safetensors")
    hub.close()
    shutil.rmtree(tmp_path / "hf")
    assert labels(hiera("classify", "-m", "carry", CAT, "--json")) == ["tabby, tabby cat"]


def test_three_that_copy_into_one_folder_at_once_all_succeed(
    hub: Hub, hiera: Hiera, environment: dict[str, str], tmp_path: Path
) -> None:
    assert hiera("download", "-q").returncode == 0
    command = [sys.executable, "-m", "hiera_cli", "download", "-q", "--to", str(tmp_path / "carry")]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert sorted(file.name for file in (tmp_path / "carry").iterdir()) == ["config.json", "model.safetensors"]
    assert digest(tmp_path / "carry" / "model.safetensors") == digest(hub.root / REPOSITORY / "model.safetensors")


def test_a_copy_meets_others_and_leftovers_in_its_folder(tmp_path: Path) -> None:
    """Threads of one process, which begin together."""
    source, folder = tmp_path / "model.safetensors", tmp_path / "carry"
    source.write_bytes(bytes(5 << 20))
    folder.mkdir()
    (folder / "model.safetensors.123.456.part").write_bytes(b"of a killed one")
    barrier = threading.Barrier(4)
    failed: list[BaseException] = []

    def copy() -> None:
        barrier.wait()
        try:
            for _ in range(10):
                inventory._copy([source], folder)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [(file.name, file.stat().st_size) for file in folder.iterdir()] == [("model.safetensors", 5 << 20)]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HF_HOME": "/dev/null"}, r"cannot keep config\.json of .* in /dev/null/hub: Not a directory"),
        ({"HF_HOME": "~nobody-of-this-name/hf"}, "there is no home folder to keep the weights of .* in"),
        ({"HF_ENDPOINT": "http://[::1"}, "huggingface_hub does not start: Invalid IPv6 URL"),
        ({"HF_ENDPOINT": "nonsense"}, "from nonsense: Request URL is missing"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}, "huggingface_hub does not start: invalid literal"),
    ],
    ids=str,
)
def test_an_odd_environment_is_told_in_a_sentence(
    hub: Hub, hiera: Hiera, variables: dict[str, str], message: str
) -> None:
    done = hiera("download", "-q", env=variables)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(f"hiera: error: .*{message}", done.stderr)


@pytest.mark.slow
def test_a_retry_is_told_and_quiet_leaves_it_out(hub: Hub, hiera: Hiera) -> None:
    hub.unavailable = 1
    assert hiera("download").stderr == (
        f"hiera: downloading {REPOSITORY}, 2.0 MB; licence: CC BY-NC 4.0 (non-commercial use)\n"
        "hiera: the Hub answers 503 for model.safetensors: trying again in 2 s\n"
    )
    assert hiera("download", "-q").stderr == ""


def test_a_slow_hub_is_told_while_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE", 0)
    told, said = threading.Event(), []

    def say(message: str) -> None:
        said.append(message)
        told.set()

    with hub_module._told_if_slow(hub_module.Progress(say)):
        assert told.wait(5)
    assert said[0].startswith("waiting for an answer from http")


def test_download_says_what_is_here_already(hub: Hub, hiera: Hiera) -> None:
    first = json.loads(hiera("download", "--json").stdout)
    assert [(entry["name"], entry["repository"], entry["downloaded"]) for entry in first] == [
        ("tiny", REPOSITORY, True)
    ]
    hub.requests.clear()
    again = hiera("download", "--json")
    assert json.loads(again.stdout)[0]["downloaded"] is False
    assert again.stderr == "hiera: tiny is on this machine already\n"
    assert hub.requests == []


def test_models_and_info_know_what_is_cached(hub: Hub, hiera: Hiera) -> None:
    here = {row["repository"]: row["on_this_machine"] for row in json.loads(hiera("models", "--json").stdout)}
    assert here == {name: name is None for name in here}  # the demo
    assert "no weights yet" in hiera("info").stdout
    hiera("download", "-q")
    here = {row["repository"]: row["on_this_machine"] for row in json.loads(hiera("models", "--json").stdout)}
    assert [name for name in here if here[name]] == [REPOSITORY, None]
    assert [entry["name"] for entry in json.loads(hiera("info", "--json").stdout)["cached"]] == ["tiny"]


@pytest.mark.slow
def test_any_repository_of_the_hub_is_a_model(hub: Hub, hiera: Hiera, tmp_path: Path) -> None:
    (tmp_path / "root" / "someone").mkdir(parents=True)
    os.symlink(hub.root / REPOSITORY, tmp_path / "root" / "someone" / "pets")
    hub.root = tmp_path / "root"
    done = hiera("classify", "-m", "someone/pets", CAT, "--json")
    assert labels(done) == ["tabby, tabby cat"]
    assert json.loads(done.stdout)[0]["model"] == "someone/pets"
    assert "licence: mit" in done.stderr


def test_a_repository_that_is_not_there_is_named(hub: Hub, hiera: Hiera) -> None:
    done = hiera("classify", "-m", "no/such", CAT)
    assert done.returncode == 2
    assert "has no repository no/such, or keeps it private" in done.stderr
    assert "HF_TOKEN" in done.stderr
